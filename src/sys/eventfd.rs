//! A flag that other threads raise and that `poll` can wait for.

use super::deadline::Deadline;
use super::poll::{self, Interest};
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Raises the flag; everybody who polls it wakes.
    pub fn raise(&self) {
        // It can fail only with EAGAIN, at a counter that is full, and then the flag is up already.
        let _raised = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Lowers the flag.
    pub fn lower(&self) {
        // It can fail only with EAGAIN, when the flag is down already.
        let _lowered = rustix::io::read(&self.0, &mut [0_u8; 8]);
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
