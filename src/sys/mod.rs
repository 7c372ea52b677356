//! Thin safe wrappers over Linux, one file per kernel facility.
//!
//! The only place, besides the C boundary, where `unsafe` is allowed. Nothing here knows what a microVM is.

pub mod access;
pub mod cgroup;
mod clone;
pub mod confinement;
pub mod deadline;
pub mod directory;
pub mod elf;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod filesystem;
pub mod inotify;
pub mod kvm;
pub mod mapping;
pub mod mask;
pub mod mount;
pub mod output;
pub mod pidfd;
pub mod poll;
pub mod procfs;
pub mod random;
pub mod removal;
pub mod session;
pub mod signal;
pub mod socket;
pub mod sparse;
pub mod spawn;
pub mod sync;
pub mod transfer;
pub mod user;
pub mod user_namespace;
pub mod userfault;
pub mod verity;
pub mod visit;

use std::io;

/// Turns the `-1` of a system call into the error that `errno` names.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a length.
fn checked_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
