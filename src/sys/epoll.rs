//! Many descriptors watched at once, behind one descriptor that can itself be polled for.

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::retry_on_intr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches `fd` for being readable; `token` tells it from the others.
    ///
    /// # Errors
    /// When it is watched already, or the user's limit on watches is reached.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: u64, heard: Heard) -> io::Result<()> {
        let once = if heard == Heard::Once { EventFlags::ONESHOT } else { EventFlags::empty() };
        Ok(epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN | once)?)
    }

    /// Watches `fd` no more. Closing alone would not do while a duplicate of it is open anywhere.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        // The only error for an open descriptor is that it was not watched.
        let _forgotten = epoll::delete(&self.0, fd);
    }

    /// The tokens of what is ready now, some of them when they are many. Never waits.
    ///
    /// # Errors
    /// Whatever `epoll_wait(2)` reports, except an interruption by a signal.
    pub fn ready(&self) -> io::Result<Vec<u64>> {
        const AT_ONCE: usize = 64;
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; AT_ONCE];
        let count = retry_on_intr(|| epoll::wait(&self.0, &mut events, Some(&NOW)))?;
        Ok(events.iter().take(count).map(|event| event.data.u64()).collect())
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
