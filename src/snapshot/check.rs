//! Whether a snapshot is still what was taken.
//!
//! Of the snapshots that a diff builds upon, their memory is needed and nothing else: so only that is checked.

use super::unfinished::modified;
use super::{Error, Kind, Snapshot, SnapshotId, Store, StoredFile};
use crate::host::disk;
use crate::process::Limits;
use crate::settings::{self, Section};
use crate::sys::{file, sparse};
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// How thoroughly a snapshot is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// All files are there, and as long as they were.
    Cheap,
    /// Besides, the content of the state, and of files that were written to since.
    WhenChanged,
    /// Besides, the content of all files.
    Always,
}

impl Check {
    /// What the options of a call say.
    pub(crate) fn take(given: &mut Section) -> Result<Self, settings::Error> {
        let words = [("when_changed", Self::WhenChanged), ("cheap", Self::Cheap), ("always", Self::Always)];
        given.choose("verify", &words)
    }
}

/// A file that a restore needs.
pub(super) struct Needed<'a> {
    pub(super) stored: &'a StoredFile,
    pub(super) path: PathBuf,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    State,
    /// The memory of a diff: its holes mean something.
    DirtyPages,
    /// Memory or a disk.
    Bulk,
}

impl Snapshot {
    /// Checks the snapshot and what it builds upon.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(&self, store: &Store, check: Check, limits: Limits<'_>) -> Result<(), Error> {
        self.check_as_it_was(store, check, limits).or_else(|error| {
            // Merged meanwhile, it is made of other files than it was.
            let now = SnapshotId::parse(&self.manifest.id).ok().and_then(|id| store.find(&id).ok());
            match now {
                Some(now) if now.manifest != self.manifest => now.check_as_it_was(store, check, limits),
                _ => Err(error),
            }
        })
    }

    fn check_as_it_was(&self, store: &Store, check: Check, limits: Limits<'_>) -> Result<(), Error> {
        let chain = store.chain(self)?;
        let needed = needed(&chain);
        let abouts = needed.iter().map(Needed::look_at).collect::<Result<Vec<_>, Error>>()?;
        for (file, about) in needed.iter().zip(&abouts) {
            match check {
                Check::Always => file.check_content_if_known(limits)?,
                Check::WhenChanged if file.role == Role::State => file.check_content_if_known(limits)?,
                Check::WhenChanged if modified(about) != file.stored.modified_ns => {
                    file.check_content(limits)?;
                }
                Check::WhenChanged | Check::Cheap => {}
            }
        }
        let unknown = needed.iter().find(|file| check == Check::Always && file.stored.sha256.is_none());
        unknown.map_or(Ok(()), |file| Err(Error::NoChecksum { path: file.path.clone() }))
    }
}

/// The files without which the last snapshot of `chain` cannot be restored.
pub(super) fn needed(chain: &[Snapshot]) -> Vec<Needed<'_>> {
    let Some((last, parents)) = chain.split_last() else { return Vec::new() };
    let memories = parents.iter().map(|parent| (parent, &parent.manifest.memory));
    let own = last.manifest.files().map(|file| (last, file));
    memories.chain(own).map(|(snapshot, stored)| Needed::new(snapshot, stored)).collect()
}

impl<'a> Needed<'a> {
    fn new(snapshot: &Snapshot, stored: &'a StoredFile) -> Self {
        let manifest = &snapshot.manifest;
        let role = match () {
            () if *stored == manifest.state => Role::State,
            () if *stored == manifest.memory && manifest.kind == Kind::Diff => Role::DirtyPages,
            () => Role::Bulk,
        };
        Self { stored, path: snapshot.path_of(stored), role }
    }

    /// Looks at all but the content.
    fn look_at(&self) -> Result<Metadata, Error> {
        let path = &self.path;
        let about = path.symlink_metadata().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::File { action: "check", path: path.clone(), source },
        })?;
        if !about.is_file() {
            return Err(Error::NotPlain { path: path.clone() });
        }
        let (expected, found) = (self.stored.bytes, about.len());
        if expected != found {
            return Err(Error::Length { path: path.clone(), expected, found });
        }
        if self.role == Role::DirtyPages {
            self.check_holes()?;
        }
        Ok(about)
    }

    /// A hole that was filled with zeros hides what it stood for, and no checksum of the content would tell.
    fn check_holes(&self) -> Result<(), Error> {
        let found = data_bytes(&self.path);
        let path = self.path.clone();
        match found {
            Err(source) => Err(Error::File { action: "find the holes in", path, source }),
            Ok(found) if found != self.stored.allocated_bytes => {
                Err(Error::Holes { path, expected: self.stored.allocated_bytes, found })
            }
            Ok(_) => Ok(()),
        }
    }

    fn check_content(&self, limits: Limits<'_>) -> Result<(), Error> {
        if self.stored.sha256.is_none() {
            return Err(Error::Touched { path: self.path.clone() });
        }
        self.check_content_if_known(limits)
    }

    fn check_content_if_known(&self, limits: Limits<'_>) -> Result<(), Error> {
        let Some(expected) = &self.stored.sha256 else { return Ok(()) };
        let found = disk::sha256(&self.path, limits)?;
        if found == *expected {
            return Ok(());
        }
        Err(Error::Altered { path: self.path.clone(), expected: expected.clone(), found })
    }
}

fn data_bytes(path: &Path) -> io::Result<u64> {
    let file = file::open_plain(OpenOptions::new().read(true), path)?;
    Ok(sparse::data_extents(&file)?.iter().map(|extent| extent.end - extent.start).sum())
}
