//! What can go wrong with whole files: disks, memories and their checksums.

use crate::process::{self, ExitStatus};
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
    /// An image changed, or another file took its place, while it was read.
    #[error("cannot {task}: {} was changed or replaced meanwhile: try again when nobody writes to it", image.display())]
    Changed {
        /// What was tried.
        task: Task,
        /// The image.
        image: PathBuf,
    },
    /// An image is not the one that it should be.
    #[error("{} is not the image that it should be: its digest is {found}, and {wanted} is wanted", image.display())]
    Digest {
        /// The image.
        image: PathBuf,
        /// The digest that was wanted.
        wanted: String,
        /// The digest that it has.
        found: String,
    },
    /// An image without fs-verity, of which a digest of fs-verity was wanted.
    #[error(
        "cannot measure the fs-verity digest of {}: enable fs-verity for it (fsverity enable), or use \"verify\": \"sha256\"",
        image.display()
    )]
    NoVerity {
        /// The image.
        image: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A disk that would have to become smaller than its image.
    #[error(
        "a disk of {wanted} bytes cannot be made from {}, which has {bytes} bytes: disks are only grown; use a larger \
         \"size_mib\", or leave it out", image.display()
    )]
    TooSmall {
        /// The image.
        image: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length that was wanted.
        wanted: u64,
    },
    /// A file system that cannot promise space.
    #[error(
        "cannot reserve space in {}: its file system does not keep such promises; use ext4 or xfs, or \"space\": \"as_needed\"",
        path.display()
    )]
    NoReservation {
        /// Where.
        path: PathBuf,
    },
    /// What is to be grown is no file system that can be.
    #[error(
        "cannot {task}: {} holds no ext4 file system, and no other is grown; use \"format\": \"raw\" to make only the \
         disk longer, or leave \"size_mib\" out", image.display()
    )]
    NotExt4 {
        /// What was tried.
        task: Task,
        /// The image.
        image: PathBuf,
    },
    /// A disk cannot be kept where it is to be.
    #[error("cannot keep a disk at {}: {why}", at.display())]
    NoPlace {
        /// The place.
        at: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A disk that is to be kept would be lost.
    #[error(
        "the present disk of this device is to be kept at {}, and would be lost: copy it and create the VM without \"keep\"",
        at.display()
    )]
    Kept {
        /// Where it is to be kept.
        at: PathBuf,
    },
    /// A program is not there that is needed.
    #[error(
        "cannot {task}: the program {program} was not found in {}: install e2fsprogs, or name its directory as \"tools\" in \
         the runtime's options",
        Directories(searched)
    )]
    NoTool {
        /// What was tried.
        task: Task,
        /// The program.
        program: &'static str,
        /// Where it was searched.
        searched: Vec<PathBuf>,
    },
    /// A program could not be started, or watched.
    #[error("cannot {task}")]
    Tool {
        /// What was tried.
        task: Task,
        /// Why not.
        source: process::Error,
    },
    /// A program has failed.
    #[error("cannot {task}: {program} has failed ({exit}), and said: {output}")]
    ToolFailed {
        /// What was tried.
        task: Task,
        /// The program.
        program: &'static str,
        /// How it has ended.
        exit: ExitStatus,
        /// The last of what it has printed.
        output: String,
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
    /// The file system in one is grown.
    Grow {
        /// Which.
        file: PathBuf,
        /// How long it is to be, in bytes.
        bytes: u64,
    },
    /// Space for all of one is set aside.
    Reserve {
        /// Which.
        file: PathBuf,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// One leaves its VM's directory to be kept.
    Keep {
        /// Which.
        file: PathBuf,
        /// Where it is kept.
        at: PathBuf,
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
            Self::Grow { file, bytes } => write!(f, "grow {} to {bytes} bytes", file.display()),
            Self::Reserve { file, bytes } => write!(f, "reserve {bytes} bytes for {}", file.display()),
            Self::Keep { file, at } => write!(f, "keep the disk {} at {}", file.display(), at.display()),
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

struct Directories<'a>(&'a [PathBuf]);

impl fmt::Display for Directories<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, directory) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, directory.display())?;
        }
        Ok(())
    }
}
