//! Control groups: where they are mounted, their files, and those that processes are started in. Which, and with what
//! limits, is for their makers to know.

mod mounts;

pub use mounts::{Hierarchy, cgroups_of, hierarchies};

use super::file;
use rustix::fs::{Access, StatFs, access, statfs};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file with the numbers of a cgroup's processes.
pub const PROCESSES: &str = "cgroup.procs";
/// The file with the controllers that a cgroup of version 2 has.
pub const CONTROLLERS: &str = "cgroup.controllers";
/// The file with those of them that its children have.
pub const CHILDREN_HAVE: &str = "cgroup.subtree_control";

/// The directory of a cgroup, of either version.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    processes: OwnedFd,
    version: Version,
}

/// The two kinds of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller, or for some together.
    One,
    /// One hierarchy for all.
    Two,
}

impl Cgroup {
    /// Opens it, for processes to be put into.
    ///
    /// # Errors
    /// `NotFound` when there is no cgroup, and whatever opening its `cgroup.procs` for writing reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A FIFO is not waited for.
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        let directory = file::above_stdio(directory.into())?;
        let processes = file::open_plain(OpenOptions::new().write(true), &path.join(PROCESSES))?;
        let processes = file::above_stdio(processes.into())?;
        Ok(Self { path: path.to_path_buf(), directory, processes, version: version_of(path) })
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

/// What the file called `name` says of the cgroup at `path`.
///
/// # Errors
/// `NotFound` when the cgroup has no such file, and whatever reading it reports.
pub fn read(path: &Path, name: &str) -> io::Result<String> {
    fs::read_to_string(path.join(name)).map(|text| text.trim_end().to_owned())
}

/// Writes `value` to the file called `name` of the cgroup at `path`, at once.
///
/// # Errors
/// Whatever the kernel has against it.
pub fn write(path: &Path, name: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path.join(name))?.write_all(value.as_bytes())
}

/// The numbers of the processes in the cgroup at `path`; not those of its children.
///
/// # Errors
/// `NotFound` when there is no such cgroup.
pub fn processes(path: &Path) -> io::Result<Vec<i32>> {
    Ok(read(path, PROCESSES)?.lines().filter_map(|line| line.parse().ok()).collect())
}

/// A cgroup that is a child of the one at `path`.
pub fn any_child(path: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(path).ok()?.flatten();
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.find(is_directory).map(|entry| entry.path())
}

/// Whether this process may make cgroups in the one at `path`.
pub fn is_writable(path: &Path) -> bool {
    access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Whether a cgroup is what stands at `path`.
pub fn is_cgroup(path: &Path) -> bool {
    const OF_VERSION_1: u64 = 0x27_e0eb;
    const OF_VERSION_2: u64 = 0x6367_7270;
    // The type of the field is not the same everywhere.
    let kind = |about: StatFs| u64::try_from(about.f_type).unwrap_or_default();
    statfs(path).is_ok_and(|about| matches!(kind(about), OF_VERSION_1 | OF_VERSION_2))
}

/// Every cgroup of version 2 has a file that none of version 1 has.
fn version_of(path: &Path) -> Version {
    let is_two = path.join(CONTROLLERS).symlink_metadata().is_ok();
    if is_two { Version::Two } else { Version::One }
}
