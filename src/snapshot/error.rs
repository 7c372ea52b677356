//! What can go wrong with a snapshot.

use super::id::SnapshotId;
use crate::host::DiskError;
use crate::journal;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a snapshot is not as it was wanted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is one of this name.
    #[error("there is a snapshot {id} already, in {}: delete it, or choose another id", path.display())]
    Exists {
        /// Which snapshot.
        id: SnapshotId,
        /// Its directory.
        path: PathBuf,
    },
    /// Another call works on it.
    #[error("snapshot {id} is being created, merged or deleted by another call: wait for that call")]
    Busy {
        /// Which snapshot.
        id: SnapshotId,
    },
    /// There is none of this name.
    #[error("there is no snapshot {id}: {} does not exist", path.display())]
    NotFound {
        /// Which snapshot.
        id: SnapshotId,
        /// Where its directory would be.
        path: PathBuf,
    },
    /// Its manifest cannot be read.
    #[error("the snapshot in {} cannot be used, only deleted", path.display())]
    Manifest {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with the manifest.
        source: journal::Error,
    },
    /// Its manifest is whole, and speaks of something else.
    #[error("the snapshot in {} cannot be used, only deleted: its manifest {fault}", path.display())]
    Content {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with the manifest.
        fault: &'static str,
    },
    /// The manifest could not be written.
    #[error("cannot write the manifest of snapshot {id}")]
    Note {
        /// Which snapshot.
        id: SnapshotId,
        /// Why not.
        source: journal::Error,
    },
    /// What a diff builds upon.
    #[error("snapshot {id} is a diff and needs snapshot {parent}, which cannot be used")]
    Parent {
        /// The diff.
        id: String,
        /// What it builds upon.
        parent: String,
        /// Why not.
        source: Box<Error>,
    },
    /// The parents lead back to where they began.
    #[error("snapshot {id} is its own ancestor: the manifests of its parents were changed")]
    Cycle {
        /// Which snapshot.
        id: String,
    },
    /// Parent and child are not of one memory.
    #[error(
        "the memory of snapshot {id} has {bytes} bytes, and that of its parent {parent} has {parent_bytes}: they do not \
         belong together"
    )]
    Sizes {
        /// The diff.
        id: String,
        /// The length of its memory.
        bytes: u64,
        /// What it builds upon.
        parent: String,
        /// The length of that one's memory.
        parent_bytes: u64,
    },
    /// A file is gone.
    #[error("{} is missing: the snapshot cannot be restored without it", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// Something else stands there.
    #[error("{} is not a regular file", path.display())]
    NotPlain {
        /// Which file.
        path: PathBuf,
    },
    /// A file was cut off or went on.
    #[error("{} has {found} bytes, and had {expected} when the snapshot was taken", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// As it was taken.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// A file says something else.
    #[error("{} was altered: its SHA-256 is {found}, and was {expected} when the snapshot was taken", path.display())]
    Altered {
        /// Which file.
        path: PathBuf,
        /// As it was taken.
        expected: String,
        /// As it is.
        found: String,
    },
    /// A diff has lost its holes, or won some.
    #[error(
        "{} holds {found} bytes of data, and held {expected} when the snapshot was taken: a copy has added or filled \
         holes, and in a diff a hole means \"unchanged\"; copy it again with `cp -a --sparse=auto` or `tar --sparse`",
        path.display()
    )]
    Holes {
        /// Which file.
        path: PathBuf,
        /// As it was taken.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// A file was written to, and nothing tells whether it is still the same.
    #[error(
        "{} was changed since the snapshot was taken, and has no checksum to compare with: set \"checksums\": \"taken\" for \
         snapshots that are copied, or restore with \"verify\": \"cheap\"",
        path.display()
    )]
    Touched {
        /// Which file.
        path: PathBuf,
    },
    /// There is nothing to compare with.
    #[error("{} has no checksum, so its content cannot be verified: take snapshots with \"checksums\": \"taken\"", path.display())]
    NoChecksum {
        /// Which file.
        path: PathBuf,
    },
    /// A diff is of no use on this file system.
    #[error(
        "the file system of {} does not report exactly where a file has holes, and a diff needs that: keep \
         snapshots on ext4, XFS, btrfs or tmpfs, or take full ones",
        path.display()
    )]
    HolesUntold {
        /// The store.
        path: PathBuf,
    },
    /// A file or directory of the store.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A long piece of work on a file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Others build upon it.
    #[error(
        "snapshot {id} cannot be deleted: it is the parent of {}; delete or merge those first",
        dependents.join(", ")
    )]
    Dependents {
        /// Which snapshot.
        id: SnapshotId,
        /// The diffs that need it.
        dependents: Vec<String>,
    },
    /// VMs run from it.
    #[error("snapshot {id} cannot be deleted: it is in use by {}; end that use first", by.join(", "))]
    InUse {
        /// Which snapshot.
        id: SnapshotId,
        /// Who uses it.
        by: Vec<String>,
    },
    /// There is nothing to merge.
    #[error("snapshot {id} cannot be merged: it is a full snapshot already")]
    NotADiff {
        /// Which snapshot.
        id: SnapshotId,
    },
}
