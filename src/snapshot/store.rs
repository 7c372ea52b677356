//! The directory of all snapshots, and one of them in it.

use super::ancestors::{Ancestor, Ancestors};
use super::garbage::Garbage;
use super::{Error, Kind, Manifest, SnapshotId, StoredFile, Unfinished};
use crate::journal::{self, aside};
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use crate::sys::{file, random, removal};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The snapshots of a state directory. Threads may share it; no two of them work on one snapshot at a time.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// The ids that calls are at work on.
    reserved: Mutex<Vec<SnapshotId>>,
    /// Held while a snapshot comes or goes, so that no diff comes while its parent goes.
    changes: Mutex<()>,
    /// Those of which VMs are being made, each as often as a call holds it.
    pub(super) holds: Mutex<Vec<SnapshotId>>,
    /// What was read of manifests that have not changed since.
    ancestors: Ancestors,
    /// What is removed as soon as no VMM writes into it.
    garbage: Garbage,
}

/// A snapshot that is whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Manifest,
}

/// An id that a call is at work on, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    store: &'a Store,
    id: SnapshotId,
}

/// How long a removal may take; what is left then is removed by the next one, or by who opens the state directory.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an opening waits for the removal of leftovers, which goes on without it.
const SHORT_PATIENCE: Duration = Duration::from_millis(250);
pub(super) const MANIFEST: &str = "manifest.json";
const WORKING_SET: &str = "working-set.json";

impl Store {
    /// The store in `directory`, which is made when the first snapshot is.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            reserved: Mutex::default(),
            changes: Mutex::default(),
            holds: Mutex::default(),
            ancestors: Ancestors::default(),
            garbage: Garbage::default(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// When there is one of this id, or one is being made.
    pub(crate) fn begin(&self, id: &SnapshotId) -> Result<Unfinished<'_>, Error> {
        let reservation = self.reserve(id)?;
        let path = self.directory_of(id);
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { id: id.clone(), path });
        }
        Unfinished::make(self, reservation)
    }

    /// The snapshot called `id`.
    ///
    /// # Errors
    /// `NotFound`, or what is wrong with its manifest; its files are not looked at.
    pub(crate) fn find(&self, id: &SnapshotId) -> Result<Snapshot, Error> {
        let directory = self.directory_of(id);
        if directory.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(Error::NotFound { id: id.clone(), path: directory });
        }
        match journal::read::<Manifest>(&directory.join(MANIFEST)) {
            // Whoever has no descriptor left is not to be told to delete what is whole.
            Err(journal::Error::Read { path, source }) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { action: "read", path, source })
            }
            Err(source) => Err(Error::Manifest { path: directory, source }),
            Ok(manifest) => match manifest.fault(id.as_str()) {
                Some(fault) => Err(Error::Content { path: directory, fault }),
                None => Ok(Snapshot { directory, manifest }),
            },
        }
    }

    /// All snapshots by their ids, and what calls itself one and is none.
    pub(crate) fn list(&self) -> (Vec<Snapshot>, Vec<(PathBuf, Error)>) {
        let (mut snapshots, mut damaged) = (Vec::new(), Vec::new());
        let names = self.names().unwrap_or_else(|error| {
            damaged.push((self.directory.clone(), error));
            Vec::new()
        });
        for id in names.iter().filter_map(|name| SnapshotId::parse(name).ok()) {
            match self.find(&id) {
                Ok(snapshot) => snapshots.push(snapshot),
                // It went meanwhile.
                Err(Error::NotFound { .. }) => {}
                Err(error) => damaged.push((self.directory_of(&id), error)),
            }
        }
        (snapshots, damaged)
    }

    /// Removes what calls of an owner that is gone have left half done; says what.
    pub(crate) fn clear_leftovers(&self) -> Vec<PathBuf> {
        let names = self.names().unwrap_or_default();
        let cleared = names.iter().filter_map(|name| self.clear_leftover(name)).collect();
        self.garbage.wait(SHORT_PATIENCE);
        cleared
    }

    fn clear_leftover(&self, name: &str) -> Option<PathBuf> {
        let id = SnapshotId::parse(aside::stands_beside(name.as_ref())?).ok()?;
        // What a call of this owner was at when it was listed may be done.
        let path = Some(self.directory.join(name)).filter(|path| path.symlink_metadata().is_ok())?;
        if self.garbage.holds(&path) {
            return None;
        }
        let _reservation = self.reserve(&id).ok()?;
        path.symlink_metadata().ok()?;
        self.discard(&path).ok().map(|()| path)
    }

    /// Has what stands at `path` removed, and waits for no VMM that may still be writing into it.
    pub(super) fn discard(&self, path: &Path) -> Result<(), Error> {
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        let renamed = random::name().and_then(|name| {
            let place = aside::removal_of(&self.directory.join(name));
            fs::rename(path, &place).map(|()| place)
        });
        match renamed {
            Ok(place) => {
                self.garbage.add(place);
                Ok(())
            }
            Err(_) => clear(path),
        }
    }

    /// The diffs that build upon `id`.
    ///
    /// # Errors
    /// When it cannot be told for now, which a damaged snapshot does not prevent.
    pub(crate) fn dependents(&self, id: &SnapshotId) -> Result<Vec<String>, Error> {
        let names = self.names()?;
        let mut dependents = Vec::new();
        for one in names.iter().filter_map(|name| SnapshotId::parse(name).ok()) {
            match self.ancestor(&one) {
                Ok(found) if found.parent.as_deref() == Some(id.as_str()) => dependents.push(found.id),
                Err(error @ Error::File { .. }) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(dependents)
    }

    /// Deletes the snapshot called `id`, damaged or not.
    ///
    /// # Errors
    /// When diffs build upon it, or somebody is using it: then nothing was done.
    pub(crate) fn delete(&self, id: &SnapshotId, in_use_by: &[String]) -> Result<(), Error> {
        let _reservation = self.reserve(id)?;
        let directory = self.directory_of(id);
        let removal = aside::removal_of(&directory);
        if !in_use_by.is_empty() {
            return Err(Error::InUse { id: id.clone(), by: in_use_by.to_vec() });
        }
        clear(&removal)?;
        self.rename_out(id, &directory, &removal)?;
        self.ancestors.forget(id);
        sync(&self.directory)?;
        clear(&removal)
    }

    fn rename_out(&self, id: &SnapshotId, directory: &Path, removal: &Path) -> Result<(), Error> {
        let _changing = lock(&self.changes);
        let dependents = self.dependents(id)?;
        if !dependents.is_empty() {
            return Err(Error::Dependents { id: id.clone(), dependents });
        }
        let holds = lock(&self.holds);
        if holds.contains(id) {
            return Err(Error::InUse {
                id: id.clone(),
                by: vec!["a VM or a snapshot that is being created from it".to_owned()],
            });
        }
        match fs::rename(directory, removal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { id: id.clone(), path: directory.into() })
            }
            // It came with a lower layer of overlayfs. Its manifest goes first: half removed, it is none.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => clear(directory),
            renamed => {
                renamed.map_err(|source| Error::File { action: "remove", path: directory.into(), source })
            }
        }
    }

    /// Gives a directory that is ready its place among the snapshots, for good.
    pub(super) fn rename_in(
        &self,
        id: &SnapshotId,
        ready: &Path,
        manifest: Manifest,
    ) -> Result<Snapshot, Error> {
        let directory = self.directory_of(id);
        let snapshot = Snapshot { directory, manifest };
        let path = &snapshot.directory;
        let _changing = lock(&self.changes);
        self.ancestors_of(&snapshot.manifest)?;
        file::rename_to_new(ready, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { id: id.clone(), path: path.clone() },
            _ => Error::File { action: "rename a snapshot to", path: path.clone(), source },
        })?;
        // What may not survive a power loss is not there.
        sync(&self.directory).inspect_err(|_| drop(fs::rename(path, ready)))?;
        Ok(snapshot)
    }

    /// The snapshot and all that it builds upon, the full one first.
    pub(super) fn chain(&self, snapshot: &Snapshot) -> Result<Vec<Snapshot>, Error> {
        let mut chain = vec![snapshot.clone()];
        let mut child = snapshot.manifest.clone();
        while let (Kind::Diff, Some(parent)) = (child.kind, child.parent.clone()) {
            if chain.iter().any(|seen| seen.manifest.id == parent) {
                return Err(Error::Cycle { id: parent });
            }
            let found = self.parent(&child, &parent)?;
            child = found.manifest.clone();
            chain.push(found);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The ids of all that it builds upon, after the same checks; a manifest that has not changed is not read again for
    /// them.
    pub(super) fn ancestors_of(&self, manifest: &Manifest) -> Result<Vec<SnapshotId>, Error> {
        let mut ids = Vec::<SnapshotId>::new();
        let mut child = Ancestor::of(manifest);
        while let Some(parent) = child.parent.clone() {
            if parent == manifest.id || ids.iter().any(|seen| seen.as_str() == parent) {
                return Err(Error::Cycle { id: parent });
            }
            let id = self.parent_id(&child, &parent)?;
            let found = self.ancestor(&id).map_err(unusable_parent(&child, &parent))?;
            check_sizes(&child, &parent, &found)?;
            child = found;
            ids.push(id);
        }
        Ok(ids)
    }

    fn ancestor(&self, id: &SnapshotId) -> Result<Ancestor, Error> {
        let read = || self.find(id).map(|found| Ancestor::of(&found.manifest));
        self.ancestors.find(&self.directory_of(id).join(MANIFEST), id, read)
    }

    fn parent(&self, child: &Manifest, parent: &str) -> Result<Snapshot, Error> {
        let child = Ancestor::of(child);
        let found = self.find(&self.parent_id(&child, parent)?).map_err(unusable_parent(&child, parent))?;
        check_sizes(&child, parent, &Ancestor::of(&found.manifest))?;
        Ok(found)
    }

    fn parent_id(&self, child: &Ancestor, parent: &str) -> Result<SnapshotId, Error> {
        let (path, fault) = (self.directory.join(&child.id), "names no parent that could be");
        SnapshotId::parse(parent).map_err(|_| unusable_parent(child, parent)(Error::Content { path, fault }))
    }

    pub(super) fn directory_of(&self, id: &SnapshotId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    pub(super) fn reserve(&self, id: &SnapshotId) -> Result<Reservation<'_>, Error> {
        let mut reserved = lock(&self.reserved);
        if reserved.contains(id) {
            return Err(Error::Busy { id: id.clone() });
        }
        reserved.push(id.clone());
        Ok(Reservation { store: self, id: id.clone() })
    }

    /// Makes the store's own directory, for good.
    pub(super) fn make(&self) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(Error::File { action: "make", path: self.directory.clone(), source }),
            Ok(()) => self.directory.parent().map_or(Ok(()), sync),
        }
    }

    /// What stands in the store, in order.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::File { action: "list", path: self.directory.clone(), source };
        let names = match file::names_in(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(failed)?,
        };
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }
}

impl Snapshot {
    /// The files of its memory, that of the full snapshot first.
    ///
    /// # Errors
    /// When a snapshot that it builds upon is missing, damaged or of another size.
    pub(crate) fn layers(&self, store: &Store) -> Result<Vec<PathBuf>, Error> {
        Ok(store.chain(self)?.iter().map(Self::memory_file).collect())
    }

    /// Where one of its files is.
    pub(crate) fn path_of(&self, stored: &StoredFile) -> PathBuf {
        self.directory.join(&stored.name)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.path_of(&self.manifest.state)
    }

    pub(crate) fn memory_file(&self) -> PathBuf {
        self.path_of(&self.manifest.memory)
    }

    /// Where the pages are listed that a restored VM touches first; it may come later, and is in no check.
    pub(crate) fn working_set_file(&self) -> PathBuf {
        self.directory.join(WORKING_SET)
    }
}

impl Reservation<'_> {
    pub(super) fn id(&self) -> &SnapshotId {
        &self.id
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        lock(&self.store.reserved).retain(|id| *id != self.id);
    }
}

fn unusable_parent(child: &Ancestor, parent: &str) -> impl Fn(Error) -> Error {
    let (id, parent) = (child.id.clone(), parent.to_owned());
    move |source| Error::Parent { id: id.clone(), parent: parent.clone(), source: Box::new(source) }
}

fn check_sizes(child: &Ancestor, parent: &str, found: &Ancestor) -> Result<(), Error> {
    let (bytes, parent_bytes) = (child.memory_bytes, found.memory_bytes);
    if bytes == parent_bytes {
        return Ok(());
    }
    Err(Error::Sizes { id: child.id.clone(), bytes, parent: parent.to_owned(), parent_bytes })
}

/// Makes what was done to a file or directory survive a power loss.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::File { action: "sync", path: path.into(), source })
}

/// Removes what stands at `path`, which may be nothing; a link is removed itself. The files that are known go by name,
/// because listing a directory takes a descriptor, and a process that has run out of them must be able to clean up.
pub(super) fn clear(path: &Path) -> Result<(), Error> {
    let removed = match path.symlink_metadata() {
        Ok(about) if !about.is_dir() => fs::remove_file(path),
        Ok(_) => clear_directory(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

fn clear_directory(path: &Path) -> io::Result<()> {
    for name in [MANIFEST, "state", "memory", WORKING_SET] {
        let _gone_or_told_below = fs::remove_file(path.join(name));
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            removal::remove_all(path, Deadline::after(PATIENCE))
        }
        removed => removed,
    }
}
