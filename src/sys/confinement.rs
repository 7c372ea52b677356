//! What a process does to confine itself that neither std nor rustix offers safely, for this package's own executables
//! and their tests.
//!
//! The library in an operator's process never confines itself: nothing outside `src/bin` and `tests` may use this.

use super::checked;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;

/// A namespace that a process can have for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// What is mounted where.
    Mounts,
    /// The pids of the children that are forked from now on; the first of them is pid 1.
    ChildrensPids,
}

/// Which of the two processes goes on after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that called.
    Parent {
        /// The other one's.
        child: i32,
    },
    /// The new one.
    Child,
}

/// Closes every descriptor above 2, whoever has left it open. To be called before anything is opened.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_above_stdio() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_UNSHARE;
    // SAFETY: no pointer is passed. Nobody in this process owns a descriptor yet, as the caller has promised.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) };
    checked(libc::c_int::try_from(closed).unwrap_or(-1)).map(drop)
}

/// Leaves a namespace for a new one.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn leave(namespace: Namespace) -> io::Result<()> {
    let flags = match namespace {
        Namespace::Mounts => UnshareFlags::NEWNS,
        Namespace::ChildrensPids => UnshareFlags::NEWPID,
    };
    // SAFETY: what makes unsharing unsafe is a table of descriptors of one's own, which is not asked for.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// Makes a copy of this process, which must have one thread only.
///
/// # Errors
/// Whatever `fork(2)` reports.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: there is no other thread that could hold a lock, as the caller has promised.
    Ok(match checked(unsafe { libc::fork() })? {
        0 => Forked::Child,
        child => Forked::Parent { child },
    })
}
