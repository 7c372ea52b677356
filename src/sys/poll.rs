//! Waiting for file descriptors until a deadline. A signal handler of the host that interrupts the wait costs
//! nothing: the wait goes on with the time that remains.

use super::checked;
use super::deadline::Deadline;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to wait for on one descriptor.
#[derive(Clone, Copy, Debug)]
pub enum Interest<'fd> {
    /// Nothing: the place is kept, and never ready.
    Nothing,
    /// Data, an end of file, or an error.
    Readable(BorrowedFd<'fd>),
    /// Room to write, or an error.
    Writable(BorrowedFd<'fd>),
    /// Any of these.
    Either(BorrowedFd<'fd>),
}

/// Waits until at least one of `interests` is ready or the deadline has passed; says which are, in order.
///
/// # Errors
/// Whatever `ppoll(2)` reports, except an interruption by a signal.
pub fn wait<const N: usize>(interests: [Interest<'_>; N], deadline: Deadline) -> io::Result<[bool; N]> {
    let mut fds = interests.map(|interest| match interest {
        Interest::Nothing => libc::pollfd { fd: -1, events: 0, revents: 0 },
        Interest::Readable(fd) => libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        Interest::Writable(fd) => libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 },
        Interest::Either(fd) => {
            libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN | libc::POLLOUT, revents: 0 }
        }
    });
    loop {
        let timeout = deadline.remaining().map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `fds` is an array of N initialised pollfd that outlives the call; `timeout` is NULL or points
        // to a timespec of this frame; a NULL mask leaves the thread's signal mask alone.
        let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), N as libc::nfds_t, timeout, std::ptr::null()) };
        match checked(ready) {
            Ok(_) => return Ok(fds.map(|fd| fd.revents != 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
