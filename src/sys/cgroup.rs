//! Control groups that processes are started in. Which, and with what limits, is for their makers to know.

use super::file;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The directory of a cgroup, of either version.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    processes: OwnedFd,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Opens it, for processes to be put into.
    ///
    /// # Errors
    /// `NotFound` when there is no cgroup, and whatever opening its `cgroup.procs` for writing reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = file::above_stdio(File::open(path)?.into())?;
        let processes = OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        let processes = file::above_stdio(processes.into())?;
        // Every cgroup of version 2 has it, and none of version 1.
        let is_two = path.join("cgroup.controllers").symlink_metadata().is_ok();
        let version = if is_two { Version::Two } else { Version::One };
        Ok(Self { path: path.to_path_buf(), directory, processes, version })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, where a process can be made in it at once.
    pub(super) fn for_clone(&self) -> Option<BorrowedFd<'_>> {
        (self.version == Version::Two).then(|| self.directory.as_fd())
    }

    /// The file that takes the numbers of processes; 0 is the writer's own.
    pub(super) fn processes(&self) -> BorrowedFd<'_> {
        self.processes.as_fd()
    }
}
