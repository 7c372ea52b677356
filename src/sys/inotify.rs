//! Waking when an entry appears in a directory.

use super::{checked, checked_len};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Readable whenever something was made in, or moved into, the directory.
#[derive(Debug)]
pub struct DirectoryWatch(OwnedFd);

impl DirectoryWatch {
    /// Begins to watch `directory`.
    ///
    /// # Errors
    /// `EMFILE` when the user has used up its inotify instances, and whatever opening the directory reports.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: no pointer is passed.
        let fd = checked(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        // SAFETY: the call above has just made `fd`, and nobody else owns it.
        let watch = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let events = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        // SAFETY: `path` is NUL-terminated and outlives the call.
        checked(unsafe { libc::inotify_add_watch(watch.0.as_raw_fd(), path.as_ptr(), events) })?;
        Ok(watch)
    }

    /// Takes what has come in, so that the next wait is for something new.
    pub fn clear(&self) {
        let mut events = [0_u8; 4096];
        // SAFETY: the buffer is writable for its whole length. An error means that there is nothing to take.
        while checked_len(unsafe { libc::read(self.0.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) })
            .is_ok_and(|taken| taken == events.len())
        {}
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
