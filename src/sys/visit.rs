//! Changing what a process sees of the host while it runs: a child visits the process's mount namespace for some system
//! calls. It shares the memory of its maker, as in [`super::spawn`]; no thread of the host ever leaves its namespaces.

use super::clone::{self, Call, stack, top_of};
use super::mount::{self, Graft};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes a mount in the mount namespace of the process that `pidfd` holds. Paths are those of that process's root.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ESRCH` when the process has ended, `ENOENT` when nothing is there to mount upon.
pub fn attach(pidfd: BorrowedFd<'_>, graft: &Graft) -> io::Result<()> {
    visit(pidfd, Errand::Attach(mount::Order::of(graft)))
}

/// Takes away what is mounted at `at` there. Who has it open goes on using it.
///
/// # Errors
/// Those of [`attach`], and `EINVAL` when nothing is mounted there.
pub fn detach(pidfd: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
    visit(pidfd, Errand::Detach(at))
}

/// What the child is to do.
enum Errand<'a> {
    Attach(mount::Order<'a>),
    Detach(&'a CStr),
}

/// What the child reads, and where it says what went wrong, in memory that both share.
struct Order<'a> {
    whose: c_int,
    errand: Errand<'a>,
    failure: Option<c_int>,
}

fn visit(pidfd: BorrowedFd<'_>, errand: Errand<'_>) -> io::Result<()> {
    let mut order = Order { whose: pidfd.as_raw_fd(), errand, failure: None };
    let mut stack = stack();
    let top = top_of(&mut stack);
    let call = |pidfd| Call::clone(libc::CLONE_VM | libc::CLONE_VFORK, top, pidfd);
    // SAFETY: `run_order` never returns and runs on `stack`, which is aligned, large enough for its calls and, like
    // `order`, alive until clone returns here: with CLONE_VFORK that is when the child has exited.
    let child = unsafe { clone::start(call, run_order, (&raw mut order).cast()) }?;
    clone::await_end(&child);
    order.failure.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

/// The child's whole life: system calls only, no allocation, no lock, no panic.
extern "C" fn run_order(order: *mut c_void) -> ! {
    // SAFETY: `order` is the `Order` that clone was given; the parent does not touch it before we are gone.
    let order = unsafe { &mut *order.cast::<Order<'_>>() };
    if !is_done(order) {
        // SAFETY: the C library's errno of the calling thread is always readable.
        order.failure = Some(unsafe { *libc::__errno_location() });
    }
    loop {
        // SAFETY: ends this process alone, without running anything of the host's.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
}

fn is_done(order: &Order<'_>) -> bool {
    // SAFETY: no pointer is passed. The child shares no namespace or root with its maker's threads (no CLONE_FS).
    if unsafe { libc::syscall(libc::SYS_setns, order.whose, libc::CLONE_NEWNS) } == -1 {
        return false;
    }
    match order.errand {
        Errand::Attach(graft) => mount::carry_out(graft),
        // SAFETY: the path is a NUL-terminated string of the waiting parent.
        Errand::Detach(at) => unsafe {
            libc::syscall(libc::SYS_umount2, at.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) == 0
        },
    }
}
