//! A state directory, held open: it is used when nobody but its owner can have written to it, and as long as its path
//! still leads to it.

use super::{SNAPSHOTS, VMS};
use crate::sys::directory::Directory;
use crate::sys::user;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A state directory that may be used.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    held: Directory,
}

/// Why a state directory is not used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// It, or what stands in it or above it, is somebody else's.
    #[error(
        "{} belongs to user {owner}, and this process is user {user}: open the state directory as its owner, or choose \
         another one",
        path.display()
    )]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who wants to use it.
        user: u32,
    },
    /// Others may change it.
    #[error(
        "group or others may write to {} (mode {mode:03o}): check its contents, then run `chmod go-w` on it, or \
         choose another state directory",
        path.display()
    )]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A link that leads elsewhere.
    #[error("{} is a symbolic link, which is not allowed here: remove it", path.display())]
    Link {
        /// What.
        path: PathBuf,
    },
    /// A file that has another name, which may be anywhere.
    #[error("{} has more than one hard link: remove it", path.display())]
    SecondName {
        /// What.
        path: PathBuf,
    },
    /// The file system.
    #[error("cannot use {} as a state directory or in one", path.display())]
    Use {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was moved or deleted while it was in use.
    #[error(
        "{} is no longer the state directory that this runtime opened{}: nothing was written; close the runtime, \
         and open the directory at its new place",
        path.display(),
        now.as_ref().map(|now| format!(", which is {} now", now.display())).unwrap_or_default()
    )]
    Displaced {
        /// Where it was.
        path: PathBuf,
        /// What the kernel calls it now.
        now: Option<PathBuf>,
    },
}

const GROUP_MAY_WRITE: u32 = 0o020;
const OTHERS_MAY_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

impl StateDirectory {
    /// The directory at `path`, made if it is not there, with what belongs into it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(using(path))?;
        let state = Self::find(path)?;
        state.make(VMS)?;
        for name in [VMS, SNAPSHOTS] {
            state.check_child(name)?;
        }
        Ok(state)
    }

    /// The directory at `path`, which is there.
    pub(crate) fn find(path: &Path) -> Result<Self, StateError> {
        let place = fs::canonicalize(path).map_err(using(path))?;
        check_way(path, &place)?;
        let held = Directory::open(&place).map_err(using(path))?;
        check_own(path, &held.metadata().map_err(using(path))?)?;
        let state = Self { path: path.to_path_buf(), held };
        state.verify().map(|()| state)
    }

    /// Whether its path still leads to it.
    pub(crate) fn verify(&self) -> Result<(), StateError> {
        if self.held.is_at(&self.path) {
            return Ok(());
        }
        let now = fs::read_link(format!("/proc/self/fd/{}", self.held.as_fd().as_raw_fd())).ok();
        Err(StateError::Displaced { path: self.path.clone(), now })
    }

    /// Opens the file called `name` in it, with the flags of `open(2)`. It is the library's own, or it is refused.
    pub(crate) fn open_file(&self, name: &str, flags: libc::c_int) -> Result<File, StateError> {
        let path = self.path.join(name);
        let opened = self.held.open_file(OsStr::new(name), flags);
        let file = opened.map_err(|source| refused(&path, source))?;
        let about = file.metadata().map_err(using(&path))?;
        check_owner(&path, &about)?;
        match about.nlink() {
            1 => Ok(file),
            _ => Err(StateError::SecondName { path }),
        }
    }

    fn make(&self, name: &str) -> Result<(), StateError> {
        match self.held.make_directory(OsStr::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(using(&self.path.join(name))),
        }
    }

    fn check_child(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match self.held.enter(OsStr::new(name)).and_then(|child| child.metadata()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(refused(&path, source)),
            Ok(about) => check_own(&path, &about),
        }
    }
}

/// Nobody else decides where `path` leads. Directories above it may be root's; one like /tmp may be written to by all,
/// because nobody can take away there what is not his. A group that this process is in may be trusted, as that of a volume
/// in a container.
fn check_way(path: &Path, place: &Path) -> Result<(), StateError> {
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        let about = part.symlink_metadata().map_err(using(part))?;
        if about.is_symlink() {
            check_trusted(part, &about)?;
        }
    }
    for above in place.ancestors().skip(1) {
        let about = fs::metadata(above).map_err(using(above))?;
        check_trusted(above, &about)?;
        let mode = about.mode();
        let group_may = mode & GROUP_MAY_WRITE != 0 && !user::is_trusted_group(about.gid());
        if (group_may || mode & OTHERS_MAY_WRITE != 0) && mode & STICKY == 0 {
            return Err(StateError::Writable { path: above.into(), mode: mode & 0o777 });
        }
    }
    Ok(())
}

fn check_own(path: &Path, about: &Metadata) -> Result<(), StateError> {
    check_owner(path, about)?;
    match about.mode() & (GROUP_MAY_WRITE | OTHERS_MAY_WRITE) {
        0 => Ok(()),
        _ => Err(StateError::Writable { path: path.into(), mode: about.mode() & 0o777 }),
    }
}

fn check_owner(path: &Path, about: &Metadata) -> Result<(), StateError> {
    let (owner, user) = (about.uid(), user::effective_user());
    if owner == user { Ok(()) } else { Err(StateError::Foreign { path: path.into(), owner, user }) }
}

fn check_trusted(path: &Path, about: &Metadata) -> Result<(), StateError> {
    match about.uid() {
        0 => Ok(()),
        // In a user namespace, what belongs to users outside, root included, belongs to nobody.
        owner if user::is_unmapped(owner) => Ok(()),
        _ => check_owner(path, about),
    }
}

fn using(path: &Path) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Use { path: path.into(), source }
}

fn refused(path: &Path, source: io::Error) -> StateError {
    let path = path.to_path_buf();
    match path.symlink_metadata() {
        Ok(about) if about.is_symlink() => StateError::Link { path },
        _ => StateError::Use { path, source },
    }
}
