//! What can go wrong with whole files: disks, memories and their checksums.

use std::fmt;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a file was not copied, changed or read to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskError {
    /// One of the paths does not lead to a plain file.
    #[error("cannot {task}: {} is {what}", path.display())]
    NotPlain {
        /// What was tried.
        task: Task,
        /// Which path.
        path: PathBuf,
        /// What is there instead.
        what: NotPlain,
    },
    /// The file system has no room for it.
    #[error("cannot {task}: no space is left there: free some, or choose another directory")]
    NoSpace {
        /// What was tried.
        task: Task,
        /// What the file system said.
        source: io::Error,
    },
    /// The file system has too little room for it, which was found out before.
    #[error(
        "cannot write {}: it needs {bytes} bytes, and {room} are free there: free some, or choose another directory",
        path.display()
    )]
    NoRoom {
        /// What was to be written.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
        /// How much is free.
        room: u64,
    },
    /// The file system.
    #[error("cannot {task}")]
    Io {
        /// What was tried.
        task: Task,
        /// Why not.
        source: io::Error,
    },
    /// A diff and its base are not of the same memory.
    #[error(
        "cannot {task}: the first has {diff} bytes and the second {base}, so they do not belong together"
    )]
    Lengths {
        /// What was tried.
        task: Task,
        /// The length of the diff.
        diff: u64,
        /// The length of the base.
        base: u64,
    },
    /// Another thread interrupted the call.
    #[error("cannot {task}: interrupted")]
    Interrupted {
        /// What was under way.
        task: Task,
    },
    /// The deadline has passed.
    #[error("cannot {task} within the limit of the call: allow more time")]
    TimeIsUp {
        /// What was under way.
        task: Task,
    },
}

/// What is done with whole files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// One becomes like another.
    Copy {
        /// The one that is there.
        from: PathBuf,
        /// The one that is made.
        to: PathBuf,
    },
    /// One is read.
    Read {
        /// Which.
        file: PathBuf,
    },
    /// The data of one is written over another.
    Apply {
        /// The one with holes.
        diff: PathBuf,
        /// The one that is changed.
        onto: PathBuf,
    },
    /// One is written to the disk.
    Sync {
        /// Which.
        file: PathBuf,
    },
    /// The checksum of one is computed.
    Checksum {
        /// Which.
        file: PathBuf,
    },
}

/// What there is where a plain file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPlain {
    /// A block device.
    BlockDevice,
    /// A symbolic link.
    Link,
    /// A directory, a FIFO, a socket, a character device.
    Other,
}

impl DiskError {
    pub(super) fn io(task: &Task, source: io::Error) -> Self {
        let task = task.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { task, source },
            _ => Self::Io { task, source },
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { from, to } => write!(f, "copy {} to {}", from.display(), to.display()),
            Self::Read { file } => write!(f, "read {}", file.display()),
            Self::Apply { diff, onto } => write!(f, "apply {} to {}", diff.display(), onto.display()),
            Self::Sync { file } => write!(f, "write {} to the disk", file.display()),
            Self::Checksum { file } => write!(f, "compute the checksum of {}", file.display()),
        }
    }
}

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockDevice => {
                "a block device, and only files are copied; take a snapshot of the device with its manager (LVM, device \
                 mapper), and name that"
            }
            Self::Link => "a symbolic link, and links are not followed; name the file itself",
            Self::Other => "not a regular file; name one",
        })
    }
}
