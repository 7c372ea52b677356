//! What would make a VMM refuse a snapshot, or its guest misbehave.

use crate::firecracker::Version;
use std::path::PathBuf;
use thiserror::Error;

/// Why a snapshot cannot be restored so.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Another kind of CPU.
    #[error(
        "snapshot {snapshot} was taken on another CPU ({taken_on}); this host has {here}, and the guest would crash on it"
    )]
    OtherCpu {
        /// The snapshot.
        snapshot: String,
        /// Its CPU.
        taken_on: String,
        /// The present one.
        here: String,
    },
    /// Another format.
    #[error(
        "snapshot {snapshot} has the format {made} of Firecracker {made_by}, and Firecracker {by} reads {loads}; use \
         a release that reads this format"
    )]
    OtherVersion {
        /// The snapshot.
        snapshot: String,
        /// Its format.
        made: Version,
        /// What made it.
        made_by: String,
        /// The format that the present VMM reads.
        loads: Version,
        /// The present VMM.
        by: Version,
    },
    /// An override of nothing.
    #[error("snapshot {snapshot} has no {kind} {device:?}")]
    NoSuchDevice {
        /// The snapshot.
        snapshot: String,
        /// What kind of device.
        kind: &'static str,
        /// Its id.
        device: String,
    },
    /// Pages that Firecracker cannot map from a file.
    #[error(
        "snapshot {snapshot} has pages of 2 MiB, which Firecracker does not map from a file; set \"memory\": \"pager\""
    )]
    HugePages {
        /// The snapshot.
        snapshot: String,
    },
    /// The vsock socket.
    #[error(
        "the vsock socket {} exists already, so Firecracker cannot bind it; end its user, or set another path in \
         \"vsock_override\"",
        path.display()
    )]
    SocketTaken {
        /// The socket.
        path: PathBuf,
    },
    /// A disk that several VMs would write to.
    #[error(
        "snapshot {snapshot} holds no copy of its writable drive {drive:?}, and several VMs cannot share it; give each VM \
         its own file in \"drives\", or take the snapshot with \"disks\": \"copy\""
    )]
    SharedDisk {
        /// The snapshot.
        snapshot: String,
        /// The drive.
        drive: String,
    },
}
