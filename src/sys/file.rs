//! What std does not offer on file descriptors: keeping clear of 0, 1 and 2.

use super::checked;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor of the same file that is above 2, close-on-exec.
///
/// A host may run with 0–2 closed, and then its next `open` lands there; such a descriptor handed to a child
/// would be overwritten by another one on its way in.
///
/// # Errors
/// When no descriptor is left.
pub fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate_above_stdio(std::os::fd::AsFd::as_fd(&fd)) }
}

/// A duplicate above 2, close-on-exec.
///
/// # Errors
/// When no descriptor is left, or `fd` is not open.
pub fn duplicate_above_stdio(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let copy = checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the call above has just made `copy`, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The same for a descriptor that came in as a number from outside.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn duplicate_number(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: `fd` is not -1; the borrow lasts for one fcntl, which answers EBADF when nothing is open there.
    duplicate_above_stdio(unsafe { BorrowedFd::borrow_raw(fd) })
}
