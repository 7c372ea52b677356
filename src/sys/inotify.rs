//! Directories and files to which something happens, told by the kernel. Only for what may take its time: closing one waits
//! for a grace period of the kernel, some milliseconds.

use super::file::c_path;
use super::{checked, checked_len};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Watched directories; readable when something has happened in one of them.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

/// What is to be told of a directory, or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A name has come into the directory.
    Arrival,
    /// The file, or one in the directory, was written to.
    Writing,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    /// What was to be told.
    At(Watch),
    /// What was watched is gone, and the watch with it.
    Gone(Watch),
    /// More than the kernel has kept.
    MoreThanWasKept,
}

/// One watched directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch(i32);

impl Inotify {
    /// Makes an empty set, close-on-exec.
    ///
    /// # Errors
    /// When no descriptor is left, or the user's limit of instances is reached.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = checked(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the call above has just made `fd`, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches the directory or file at `path`; the watch goes when it does.
    ///
    /// # Errors
    /// When it is not there, or the user's limit of watches is reached.
    pub fn watch(&self, path: &Path, happening: Happening) -> io::Result<Watch> {
        let path = c_path(path)?;
        let mask = match happening {
            Happening::Arrival => libc::IN_MOVED_TO | libc::IN_CREATE,
            Happening::Writing => libc::IN_MODIFY,
        };
        // SAFETY: `path` is NUL-terminated and outlives the call.
        checked(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), mask) }).map(Watch)
    }

    /// Takes what has happened so far, each thing once.
    ///
    /// # Errors
    /// Whatever `read(2)` reports, except that nothing has happened.
    pub fn happenings(&self) -> io::Result<Vec<Happened>> {
        let mut happened = Vec::new();
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        loop {
            // SAFETY: `buffer` is writable for its whole length.
            let read = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            let length = match checked_len(read) {
                Ok(0) => return Ok(happened),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(happened),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut at = 0;
            while at + size_of::<libc::inotify_event>() <= length {
                // SAFETY: the kernel has written whole events into the first `length` bytes, and `at` is the
                // beginning of one; it need not be aligned.
                let event = unsafe { buffer.as_ptr().add(at).cast::<libc::inotify_event>().read_unaligned() };
                happened.push(match event.mask {
                    mask if mask & libc::IN_Q_OVERFLOW != 0 => Happened::MoreThanWasKept,
                    mask if mask & libc::IN_IGNORED != 0 => Happened::Gone(Watch(event.wd)),
                    _ => Happened::At(Watch(event.wd)),
                });
                at += size_of::<libc::inotify_event>() + usize::try_from(event.len).unwrap_or(length);
            }
            happened.sort_unstable();
            happened.dedup();
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn arrivals_and_writings_are_told_by_directory() {
        let root = Scratch::new();
        std::fs::create_dir(&root).unwrap();
        let inotify = Inotify::new().unwrap();
        let arrivals = inotify.watch(&root, Happening::Arrival).unwrap();
        assert!(inotify.happenings().unwrap().is_empty());
        std::fs::create_dir(root.join("a")).unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::At(arrivals)]);
        let writings = inotify.watch(&root.join("a"), Happening::Writing).unwrap();
        std::fs::write(root.join("a/file"), "text").unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::At(writings)]);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::Gone(arrivals), Happened::Gone(writings)]);
    }
}
