//! Many descriptors watched at once, behind one descriptor that can itself be polled for.

use super::checked;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of watched descriptors; readable when one of them is ready.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// How often a descriptor makes itself heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// As long as it is readable.
    Always,
    /// Once; then it is silent.
    Once,
}

impl Epoll {
    /// Makes an empty set, close-on-exec.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call above has just made `fd`, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd` for being readable; `token` tells it from the others.
    ///
    /// # Errors
    /// When it is watched already, or the user's limit on watches is reached.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: u64, heard: Heard) -> io::Result<()> {
        let once = if heard == Heard::Once { libc::EPOLLONESHOT } else { 0 };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | once).cast_unsigned(), u64: token };
        // SAFETY: `event` is initialised and outlives the call.
        let added = unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        checked(added).map(drop)
    }

    /// Watches `fd` no more. Closing alone would not do while a duplicate of it is open anywhere.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        let nothing = std::ptr::null_mut();
        // SAFETY: deleting reads no event. The only error for an open descriptor is that it was not watched.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), nothing) };
    }

    /// The tokens of what is ready now, some of them when they are many. Never waits.
    ///
    /// # Errors
    /// Whatever `epoll_wait(2)` reports, except an interruption by a signal.
    pub fn ready(&self) -> io::Result<Vec<u64>> {
        const AT_ONCE: libc::c_int = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE as usize];
        loop {
            // SAFETY: `events` has room for as many events as are asked for, and outlives the call.
            let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), AT_ONCE, 0) };
            match checked(count) {
                Ok(count) => {
                    let count = usize::try_from(count).unwrap_or_default();
                    return Ok(events.iter().take(count).map(|event| event.u64).collect());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;

    #[test]
    fn what_is_ready_says_its_token_until_it_is_forgotten() {
        let (epoll, often, once) = (Epoll::new().unwrap(), EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.watch(often.as_fd(), 1, Heard::Always).unwrap();
        epoll.watch(once.as_fd(), 2, Heard::Once).unwrap();
        assert!(epoll.ready().unwrap().is_empty());
        often.raise();
        once.raise();
        assert_eq!(epoll.ready().unwrap(), [1, 2]);
        assert_eq!(epoll.ready().unwrap(), [1]);
        epoll.forget(often.as_fd());
        assert!(epoll.ready().unwrap().is_empty());
    }
}
