//! A user namespace that nobody lives in: it only says which user another one is taken for, by way of a mount.

use super::clone::{self, Call, stack, top_of};
use super::file;
use super::pidfd::{Pidfd, Signal};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A user namespace.
#[derive(Debug)]
pub struct UserNamespace(OwnedFd);

/// The number of a user or a group, and the one that it is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenFor {
    /// On the disk.
    pub on_disk: u32,
    /// By way of the mount.
    pub shown: u32,
}

impl UserNamespace {
    /// One in which one user and one group are taken for others.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETUID` and `CAP_SETGID`, `ENOSPC` when the host may have no more user namespaces.
    pub fn mapping(user: TakenFor, group: TakenFor) -> io::Result<Self> {
        let founder = Founder::start()?;
        let pid = founder.pidfd.pid();
        let write = |name: &str, map: TakenFor| {
            std::fs::write(format!("/proc/{pid}/{name}"), format!("{} {} 1\n", map.on_disk, map.shown))
        };
        write("uid_map", user)?;
        write("gid_map", group)?;
        let namespace = File::open(format!("/proc/{pid}/ns/user"))?;
        Ok(Self(file::above_stdio(namespace.into())?))
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A process in whose namespace nobody else lives, and which does nothing until it is ended.
struct Founder {
    pidfd: Pidfd,
    /// Used by the process for as long as it lives.
    _stack: Vec<u128>,
}

impl Founder {
    fn start() -> io::Result<Self> {
        let mut stack = stack();
        let top = top_of(&mut stack);
        let call = |pidfd| Call::clone(libc::CLONE_NEWUSER | libc::CLONE_VM, top, pidfd);
        // SAFETY: `do_nothing` never returns, and runs on `stack`, which is aligned, large enough for its calls, and
        // freed only after the process has ended.
        let pidfd = unsafe { clone::start(call, do_nothing, std::ptr::null_mut()) }?;
        Ok(Self { pidfd, _stack: stack })
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        let _killed = self.pidfd.send(Signal::Kill);
        clone::await_end(&self.pidfd);
    }
}

/// Waits to be killed, by whoever has started it or, when that thread ends first, by the kernel. It shares the memory of a
/// host that goes on: it makes system calls that cannot fail, so that none writes to `errno`.
extern "C" fn do_nothing(_nothing: *mut c_void) -> ! {
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: no pointer is passed.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    loop {
        // SAFETY: NULL stands for no descriptors, no time limit and no mask.
        unsafe { libc::syscall(libc::SYS_ppoll, nothing, 0, nothing, nothing, 0) };
    }
}
