//! The system call that makes a process which shares the memory of its maker: raw, for what follows may not touch what the
//! C library knows of the process.

use super::deadline::Deadline;
use super::mask::HeldSignals;
use super::pidfd::Pidfd;
use super::poll::{self, Interest};
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// A system call that makes a process; the arguments that are not here are zero.
pub(super) struct Call {
    pub(super) number: libc::c_long,
    pub(super) arguments: [usize; 3],
}

impl Call {
    /// A clone with `flags`, whose child begins at `top` of a stack and whose pidfd is written to `pidfd`.
    pub(super) fn clone(flags: c_int, top: *const u128, pidfd: *mut c_int) -> Self {
        let flags = flags | libc::CLONE_PIDFD | libc::SIGCHLD;
        let arguments = [flags.cast_unsigned() as usize, top.addr(), pidfd.expose_provenance()];
        Self { number: libc::SYS_clone, arguments }
    }
}

/// Enough for a few system calls.
const STACK: usize = 16 * 1024;

/// A stack for a child: memory that is used from its end.
pub(super) fn stack() -> Vec<u128> {
    Vec::with_capacity(STACK / size_of::<u128>())
}

/// The end of a stack, where its use begins.
pub(super) fn top_of(stack: &mut Vec<u128>) -> *const u128 {
    stack.spare_capacity_mut().as_mut_ptr_range().end.cast_const().cast()
}

/// Makes the call of `call_for`, which is told where the pidfd belongs, and gives the child. All signals of the child are held
/// back, until it lets them go.
///
/// # Safety
/// As for [`raw_clone`], whose other arguments these are.
pub(super) unsafe fn start(
    call_for: impl FnOnce(*mut c_int) -> Call,
    run: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> io::Result<Pidfd> {
    let mut pidfd: c_int = -1;
    let call = call_for(&raw mut pidfd);
    let held = HeldSignals::hold();
    // SAFETY: the caller's; CLONE_PIDFD stores to `pidfd`, which is writable.
    let pid = unsafe { raw_clone(&call, run, argument) };
    drop(held);
    let pid = pid?;
    // SAFETY: clone has just made `pidfd`, and nobody else owns it. The kernel has written it, unseen by the compiler.
    Ok(Pidfd::new(unsafe { OwnedFd::from_raw_fd((&raw const pidfd).read_volatile()) }, pid))
}

/// Waits for the end of a child that is on its way out: nobody is to find it as a zombie.
pub(super) fn await_end(child: &Pidfd) {
    let _gone = poll::wait([Interest::Readable(child.as_fd())], Deadline::NEVER);
    let _reaped = child.look();
}

/// The system call itself, in whose child `run` begins on the stack that it names. The C library's `clone` is not asked:
/// sanitizers put a function of their own in its place, which takes the child for a fork.
///
/// # Safety
/// As for clone(2): `run` must not return, the stack be 16-byte aligned at its end and live as long as the child uses it,
/// and what the arguments point to be readable or writable.
unsafe fn raw_clone(
    call: &Call,
    run: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> io::Result<libc::pid_t> {
    let result: i64;
    let [first, second, third] = call.arguments;
    // SAFETY: the child has a copy of all registers but the stack's and the result's. It leaves this block by the call
    // of `run` alone, which finds its stack aligned, its argument in the first register and no frame above it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") call.number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") 0_i64,
            in("r8") 0_i64,
            in("r12") argument,
            in("r13") run,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x21",
            "blr x22",
            "brk #1",
            "2:",
            inlateout("x0") first as i64 => result,
            in("x1") second,
            in("x2") third,
            in("x3") 0_i64,
            in("x4") 0_i64,
            in("x8") call.number,
            in("x21") argument,
            in("x22") run,
        );
    }
    libc::pid_t::try_from(result)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::from_raw_os_error(c_int::try_from(-result).unwrap_or_default()))
}
