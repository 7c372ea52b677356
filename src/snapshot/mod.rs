//! Snapshots on disk: each is a directory that comes whole, survives a power loss, and tells when it was altered.
//!
//! How a VMM writes and reads its state and memory is for the rooms above; what is said here of a VM, they have said.

mod ancestors;
mod check;
mod error;
mod garbage;
mod hold;
mod id;
mod manifest;
mod merge;
mod report;
mod store;
mod unfinished;

pub(crate) use check::Check;
pub use error::Error;
pub(crate) use hold::HeldSnapshot;
pub use id::{SnapshotId, SnapshotIdError};
pub(crate) use manifest::{Access, Drive, Kind, Manifest, StoredFile};
pub use report::{KnownSnapshot, SnapshotSummary};
pub(crate) use store::{Snapshot, Store};
pub(crate) use unfinished::{Checksums, Unfinished};

#[cfg(test)]
mod tests;
