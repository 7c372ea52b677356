//! One memory out of a diff and all that it builds upon.

use super::unfinished::{Checksums, Unfinished, measure};
use super::{Check, Error, Kind, Snapshot, SnapshotId, Store, StoredFile};
use crate::host::disk;
use crate::process::Limits;
use std::fs;
use std::path::Path;

impl Store {
    /// Turns the diff called `id` into a full snapshot of the same id. Diffs that build upon it still do. It has
    /// checksums when the diff had them, unless `checksums` says otherwise.
    ///
    /// # Errors
    /// What could not be done; the diff is as it was then.
    pub(crate) fn merge(
        &self,
        id: &SnapshotId,
        limits: Limits<'_>,
        checksums: Option<Checksums>,
    ) -> Result<Snapshot, Error> {
        let reservation = self.reserve(id)?;
        let diff = self.find(id)?;
        if diff.manifest.kind == Kind::Full {
            return Err(Error::NotADiff { id: id.clone() });
        }
        diff.check(self, Check::WhenChanged, limits)?;
        let had = if diff.manifest.memory.sha256.is_some() { Checksums::Taken } else { Checksums::Omitted };
        let checksums = checksums.unwrap_or(had);
        let merged = Unfinished::make(self, reservation)?;
        let mut manifest = diff.manifest.clone();
        (manifest.kind, manifest.parent) = (Kind::Full, None);
        manifest.memory = StoredFile::at(&merged.memory_file());
        self.flatten(&diff, &merged.memory_file(), limits)?;
        measure(&mut manifest.memory, merged.directory(), checksums, limits)?;
        for stored in manifest.files().filter(|file| **file != manifest.memory) {
            share(&diff.path_of(stored), &merged.directory().join(&stored.name), limits)?;
        }
        for copy in manifest.drives.iter_mut().filter_map(|drive| drive.copy.as_mut()) {
            if checksums == Checksums::Taken && copy.sha256.is_none() {
                copy.sha256 = Some(disk::sha256(&merged.directory().join(&copy.name), limits)?);
            }
        }
        share_working_set(&diff, merged.directory())?;
        merged.replace(manifest)
    }

    /// Makes `to`, a new file with the whole memory of `snapshot`. It is not synced.
    ///
    /// # Errors
    /// What could not be done; there is no `to` then, unless there was one before.
    pub(crate) fn flatten(&self, snapshot: &Snapshot, to: &Path, limits: Limits<'_>) -> Result<(), Error> {
        let layers = snapshot.layers(self)?;
        let Some((base, diffs)) = layers.split_first() else { return Ok(()) };
        disk::copy(base, to, limits)?;
        let applied = diffs.iter().try_for_each(|diff| disk::apply(diff, to, limits));
        applied.inspect_err(|_| drop(fs::remove_file(to)))?;
        Ok(())
    }
}

/// Lets two directories have one file, which nobody writes to any more.
fn share(from: &Path, to: &Path, limits: Limits<'_>) -> Result<(), Error> {
    if fs::hard_link(from, to).is_err() {
        disk::copy(from, to, limits)?;
    }
    Ok(())
}

/// It is written anew, aside, when it changes, and may not be there at all.
fn share_working_set(diff: &Snapshot, directory: &Path) -> Result<(), Error> {
    let from = diff.working_set_file();
    let Some(name) = from.file_name() else { return Ok(()) };
    let _nothing_is_lost_without_it = fs::hard_link(&from, directory.join(name));
    Ok(())
}
