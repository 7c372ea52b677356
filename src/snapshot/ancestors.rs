//! What a chain of diffs needs to know of each snapshot in it, remembered as long as its manifest does not change.
//!
//! A diff is put in place after the chain below it was checked. Reading every manifest for that takes longer with each
//! diff; looking whether each is still the file that was read takes microseconds.

use super::{Error, Kind, Manifest, SnapshotId};
use crate::sorted::SortedMap;
use crate::sys::sync::lock;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

/// The part of a manifest that the snapshots built upon it depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ancestor {
    pub(super) id: String,
    /// What it builds upon; nothing for a full snapshot.
    pub(super) parent: Option<String>,
    pub(super) memory_bytes: u64,
}

/// Those that were read, each with the file that it was read from.
#[derive(Debug, Default)]
pub(super) struct Ancestors(Mutex<SortedMap<SnapshotId, (Stamp, Ancestor)>>);

/// Which file it is, and in which condition: its content does not change without this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Ancestor {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let parent = manifest.parent.clone().filter(|_| manifest.kind == Kind::Diff);
        Self { id: manifest.id.clone(), parent, memory_bytes: manifest.memory.bytes }
    }
}

impl Ancestors {
    /// What the manifest at `path` says: as it was read before, or by `read`.
    pub(super) fn find(
        &self,
        path: &Path,
        id: &SnapshotId,
        read: impl FnOnce() -> Result<Ancestor, Error>,
    ) -> Result<Ancestor, Error> {
        // Before it is read: what changes in between is read again the next time.
        let stamp = path.symlink_metadata().ok().filter(Metadata::is_file).map(|about| Stamp::of(&about));
        let known = lock(&self.0).get(id).filter(|(known, _)| Some(*known) == stamp).cloned();
        if let Some((_, ancestor)) = known {
            return Ok(ancestor);
        }
        let found = read();
        match (&found, stamp) {
            (Ok(ancestor), Some(stamp)) => drop(lock(&self.0).insert(id.clone(), (stamp, ancestor.clone()))),
            _ => drop(lock(&self.0).remove(id)),
        }
        found
    }

    /// There is no such snapshot any more.
    pub(super) fn forget(&self, id: &SnapshotId) {
        lock(&self.0).remove(id);
    }
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.len(),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}
