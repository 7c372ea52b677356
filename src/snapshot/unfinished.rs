//! A snapshot that is being made, aside; it comes to its place whole or is removed.

use super::store::{self, MANIFEST, Reservation};
use super::{Error, Kind, Manifest, Snapshot, Store, StoredFile};
use crate::causes::with_causes;
use crate::host::disk;
use crate::journal::{self, aside};
use crate::process::Limits;
use crate::settings::{self, Section};
use crate::sys::{file, random, sparse};
use std::fmt::Write;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A snapshot that is being made; dropped unfinished, it goes.
#[derive(Debug)]
pub(crate) struct Unfinished<'a> {
    store: &'a Store,
    aside: PathBuf,
    /// In `aside`, under a name that no other one ever has: a VMM whose call was given up writes as soon as it comes to
    /// it, and is not to write into the next snapshot of the same id.
    directory: PathBuf,
    reservation: Reservation<'a>,
}

/// Whether checksums of memory and disks are taken. That of the state, which is small, always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksums {
    Taken,
    Omitted,
}

impl Checksums {
    /// What the options of a call say.
    pub(crate) fn take(given: &mut Section) -> Result<Self, settings::Error> {
        given.choose("checksums", &[("omitted", Self::Omitted), ("taken", Self::Taken)])
    }

    /// The same for a merge, which otherwise does as the diff did.
    pub(crate) fn take_for_merge(given: &mut Section) -> Result<Option<Self>, settings::Error> {
        let words = [("kept", None), ("omitted", Some(Self::Omitted)), ("taken", Some(Self::Taken))];
        given.choose("checksums", &words)
    }
}

impl<'a> Unfinished<'a> {
    pub(super) fn make(store: &'a Store, reservation: Reservation<'a>) -> Result<Self, Error> {
        store.make()?;
        let aside = aside::making_of(&store.directory_of(reservation.id()));
        store.discard(&aside)?;
        let made = random::name().and_then(|name| {
            let directory = aside.join(name);
            DirBuilder::new().mode(0o700).recursive(true).create(&directory).map(|()| directory)
        });
        let failed = |source| Error::File { action: "make", path: aside.clone(), source };
        let directory = made.map_err(failed).inspect_err(|_| drop(store::clear(&aside)))?;
        Ok(Self { store, aside, directory, reservation })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the VMM's state belongs.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where the memory belongs.
    pub(crate) fn memory_file(&self) -> PathBuf {
        self.directory.join("memory")
    }

    /// Where the copy of a drive belongs; no two drives of one `kind` share one.
    pub(crate) fn disk_file(&self, kind: &str, drive_id: &str) -> PathBuf {
        let mut name = format!("{kind}-");
        for byte in drive_id.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                name.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _written = write!(name, "%{byte:02x}");
            }
        }
        self.directory.join(name)
    }

    /// Makes it a snapshot: measures the files that `manifest` names, syncs everything, and gives it its place.
    ///
    /// # Errors
    /// What could not be done; there is no snapshot then.
    pub(crate) fn finish(
        self,
        mut manifest: Manifest,
        checksums: Checksums,
        limits: Limits<'_>,
    ) -> Result<Snapshot, Error> {
        if manifest.kind == Kind::Diff && !self.keeps_holes()? {
            return Err(Error::HolesUntold { path: self.store.directory().into() });
        }
        measure(&mut manifest.state, &self.directory, Checksums::Taken, limits)?;
        measure(&mut manifest.memory, &self.directory, checksums, limits)?;
        for copy in manifest.drives.iter_mut().filter_map(|drive| drive.copy.as_mut()) {
            measure(copy, &self.directory, checksums, limits)?;
        }
        self.write_manifest(&manifest)?;
        self.store.rename_in(self.reservation.id(), &self.directory, manifest)
    }

    /// Lets it take the place of the snapshot of the same id, at once.
    pub(super) fn replace(self, manifest: Manifest) -> Result<Snapshot, Error> {
        self.write_manifest(&manifest)?;
        let directory = self.store.directory_of(self.reservation.id());
        let exchanged = file::exchange(&self.directory, &directory);
        exchanged.map_err(|source| Error::File { action: "replace", path: directory.clone(), source })?;
        let synced = store::sync(self.store.directory());
        synced.inspect_err(|_| drop(file::exchange(&self.directory, &directory)))?;
        Ok(Snapshot { directory, manifest })
    }

    /// Whether a diff can be kept there: files have their holes exactly where nothing was written.
    ///
    /// # Errors
    /// When no file can be made there.
    pub(crate) fn keeps_holes(&self) -> Result<bool, Error> {
        let path = &self.directory;
        let failed = |source| Error::File { action: "find the holes in", path: path.clone(), source };
        disk::tells_holes(path).map_err(failed)
    }

    /// What a VMM has written so far goes; it is to write anew.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) fn start_over(&self) -> Result<(), Error> {
        [self.state_file(), self.memory_file()].iter().try_for_each(|path| store::clear(path))
    }

    /// Gives it up while a VMM may still be writing into it: it is removed as soon as that is over, and nobody waits.
    pub(crate) fn abandon(self) {
        let left = self.store.discard(&self.aside);
        left.unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let id = self.reservation.id();
        if let Some(fault) = manifest.fault(id.as_str()) {
            return Err(Error::Content { path: self.directory.clone(), fault });
        }
        let path = self.directory.join(MANIFEST);
        journal::write(&path, manifest).map_err(|source| Error::Note { id: id.clone(), source })?;
        store::sync(&path)?;
        store::sync(&self.directory)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // What stays is removed by the next call of this id, or with all leftovers.
        let _cleared = store::clear(&self.directory).and_then(|()| store::clear(&self.aside));
    }
}

/// Syncs a file, and notes what it is like.
pub(super) fn measure(
    stored: &mut StoredFile,
    directory: &Path,
    checksums: Checksums,
    limits: Limits<'_>,
) -> Result<(), Error> {
    let path = directory.join(&stored.name);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
        _ => Error::File { action: "sync", path: path.clone(), source },
    };
    let file = file::open_plain(OpenOptions::new().read(true), &path).map_err(failed)?;
    disk::sync(&file, &path, limits)?;
    let about = file.metadata().map_err(failed)?;
    let extents = sparse::data_extents(&file).map_err(failed)?;
    stored.bytes = about.len();
    stored.allocated_bytes = extents.iter().map(|extent| extent.end - extent.start).sum();
    stored.modified_ns = modified(&about);
    stored.sha256 = match checksums {
        Checksums::Taken => Some(disk::sha256(&path, limits)?),
        Checksums::Omitted => None,
    };
    Ok(())
}

/// When a file was last written to, in nanoseconds since 1970.
pub(super) fn modified(about: &std::fs::Metadata) -> i64 {
    about.mtime().saturating_mul(1_000_000_000).saturating_add(about.mtime_nsec())
}
