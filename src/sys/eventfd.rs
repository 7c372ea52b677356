//! A flag that other threads raise and that `poll` can wait for.

use super::checked;
use super::deadline::Deadline;
use super::poll::{self, Interest};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// An eventfd: lowered when made, and once raised it stays so until it is lowered.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Makes one, close-on-exec.
    ///
    /// # Errors
    /// When the process or the machine has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the call above has just made `fd`, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Raises the flag; everybody who polls it wakes.
    pub fn raise(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight readable bytes are passed, as an eventfd wants. It can fail only with EAGAIN, at a
        // counter that is full, and then the flag is up already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Lowers the flag.
    pub fn lower(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight writable bytes are passed, as an eventfd wants. It can fail only with EAGAIN, when the
        // flag is down already.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// What to poll for one that may not be there.
    pub fn interest(flag: Option<&Self>) -> Interest<'_> {
        flag.map_or(Interest::Nothing, |flag| Interest::Readable(flag.as_fd()))
    }

    /// Whether it is up.
    pub fn is_raised(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        poll::wait([Interest::Readable(self.0.as_fd())], now).is_ok_and(|[raised]| raised)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
