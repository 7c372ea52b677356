//! Starting a program without a fork of the host: the child shares the host's memory until it executes, so a
//! host of any size pays the same few microseconds, and the pidfd is taken in the same system call.
//!
//! The calling thread holds its signals back for those microseconds, as `posix_spawn` does: no handler of the
//! host may run in the child while it still shares the host's memory.

use super::cgroup::Cgroup;
use super::clone::{self, Call, stack, top_of};
use super::mount::{self, Graft};
use super::pidfd::Pidfd;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to execute, and the world it wakes up in. Its signal dispositions and mask are the defaults, and it
/// inherits no descriptor but its three.
#[derive(Debug)]
pub struct Program<'a> {
    /// The executable, found without a search path.
    pub path: &'a CStr,
    /// Its arguments, the zeroth included.
    pub arguments: &'a [CString],
    /// Its whole environment.
    pub environment: &'a [CString],
    /// Its standard input, output and error, each above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Its working directory, or the host's.
    pub directory: Option<&'a CStr>,
    /// Whose session and process group it joins.
    pub session: Session,
    /// Who may read the files that it makes.
    pub new_files: NewFiles,
    /// The control groups that it is in from its first moment on, or at least before it executes; none are the host's.
    pub cgroups: &'a [Cgroup],
    /// What it sees of the host, unless that is what the host itself does.
    pub isolation: Option<&'a Isolation>,
}

/// A mount namespace of a child's own, and perhaps a PID namespace.
#[derive(Debug)]
pub struct Isolation {
    /// Mounts that it alone has, made in this order before it executes.
    pub grafts: Vec<Graft>,
    /// The processes that it sees.
    pub processes: Processes,
}

/// The processes that a child sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processes {
    /// Those of the host.
    #[default]
    OfTheHost,
    /// Its own: it is the first one in a PID namespace.
    Own,
}

/// Whose session and process group a child joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// One of its own: the terminal's Ctrl-C ends the host and not the child.
    New,
    /// The host's.
    Inherited,
}

/// Who may read the files and connect to the sockets that a child makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewFiles {
    /// Its user alone.
    Private,
    /// Whoever may read the host's: its umask is the host's.
    AsTheHosts,
}

/// What could not be done on the way to the new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Clone,
    /// Entering the cgroup that stands there in the list.
    EnterCgroup(usize),
    /// Making the mount that stands there in the list.
    Mount(usize),
    /// Entering its working directory.
    ChangeDirectory,
    /// Giving it its standard input, output and error.
    Stdio,
    /// Executing the program.
    Execute,
}

/// Starts `program`, and gives its identity.
///
/// # Errors
/// The step that failed, and why. No process is left then.
pub fn spawn(program: &Program<'_>) -> Result<Pidfd, (Step, io::Error)> {
    let arguments = pointers(program.arguments);
    let environment = pointers(program.environment);
    let cgroups = program.cgroups.iter().map(|cgroup| cgroup.processes().as_raw_fd()).collect::<Vec<_>>();
    let grafts = program.isolation.map(|isolation| isolation.grafts.as_slice()).unwrap_or_default();
    let mounts = grafts.iter().map(mount::Order::of).collect::<Vec<_>>();
    let mut order = Order {
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        stdio: program.stdio.map(|fd| fd.as_raw_fd()),
        directory: program.directory.map_or(std::ptr::null(), CStr::as_ptr),
        session: program.session,
        new_files: program.new_files,
        cgroups: &cgroups,
        cgroups_entered: 0,
        namespaces: program.isolation.map_or(0, Isolation::flags),
        mounts: &mounts,
        failure: None,
    };
    let pidfd = make_process(&mut order, program.cgroups)?;
    match order.failure {
        None => Ok(pidfd),
        Some((step, errno)) => {
            clone::await_end(&pidfd);
            Err((step, io::Error::from_raw_os_error(errno)))
        }
    }
}

/// What the child reads, and the place where it says what went wrong, in memory that both share.
struct Order<'a> {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    stdio: [c_int; 3],
    directory: *const c_char,
    session: Session,
    new_files: NewFiles,
    cgroups: &'a [c_int],
    /// How many of them it is made in.
    cgroups_entered: usize,
    /// Those of its own that it is made in, as flags of clone(2).
    namespaces: c_int,
    mounts: &'a [mount::Order<'a>],
    failure: Option<(Step, c_int)>,
}

impl Isolation {
    fn flags(&self) -> c_int {
        match self.processes {
            Processes::OfTheHost => libc::CLONE_NEWNS,
            Processes::Own => libc::CLONE_NEWNS | libc::CLONE_NEWPID,
        }
    }
}

/// Makes the process in the first of `cgroups` where that is possible: moving a process later makes the kernel wait for all
/// others, tens of milliseconds.
fn make_process(order: &mut Order<'_>, cgroups: &[Cgroup]) -> Result<Pidfd, (Step, io::Error)> {
    let clone = |error| (Step::Clone, error);
    let Some(first) = cgroups.first().and_then(Cgroup::for_clone) else {
        return clone_with_shared_memory(order, None).map_err(clone);
    };
    order.cgroups_entered = 1;
    match clone_with_shared_memory(order, Some(first)) {
        // A filter of system calls that does not know clone3: the child enters by itself.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            order.cgroups_entered = 0;
            clone_with_shared_memory(order, None).map_err(clone)
        }
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
            Err((Step::EnterCgroup(0), error))
        }
        made => made.map_err(clone),
    }
}

fn clone_with_shared_memory(order: &mut Order<'_>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Pidfd> {
    let mut stack = stack();
    let top = top_of(&mut stack);
    let bottom = stack.as_ptr();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | order.namespaces;
    let mut request = CloneRequest {
        flags: u64::from(flags.cast_unsigned()) | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: bottom.addr() as u64,
        stack_size: (top.addr() - bottom.addr()) as u64,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
        ..CloneRequest::default()
    };
    let call = |pidfd: *mut c_int| match cgroup {
        Some(_) => {
            request.pidfd = pidfd.expose_provenance() as u64;
            let arguments = [(&raw const request).expose_provenance(), size_of::<CloneRequest>(), 0];
            Call { number: libc::SYS_clone3, arguments }
        }
        None => Call::clone(flags, top, pidfd),
    };
    // SAFETY: `run_order` never returns and runs on `stack`, which is 16-byte aligned, large enough for its
    // calls and, like `order`, alive until clone returns here: with CLONE_VFORK that is when the child has
    // executed or exited. `request` outlives the call.
    unsafe { clone::start(call, run_order, std::ptr::from_mut(order).cast()) }
}

/// The kernel's `struct clone_args`.
#[derive(Debug, Default)]
#[repr(C)]
struct CloneRequest {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The child's whole life before the program: system calls only, no allocation, no lock, no panic.
extern "C" fn run_order(order: *mut c_void) -> ! {
    // SAFETY: `order` is the `Order` that clone was given; the parent does not touch it before we are gone.
    let order = unsafe { &mut *order.cast::<Order<'_>>() };
    order.failure = Some(prepare_and_execute(order));
    loop {
        // SAFETY: ends this process alone, without running anything of the host's.
        unsafe { libc::syscall(libc::SYS_exit_group, 127) };
    }
}

/// Returns only when something failed. Everything is asked of the kernel itself: the C library's own functions may be
/// a sanitizer's, which keeps books on this process that the host would find altered.
fn prepare_and_execute(order: &Order<'_>) -> (Step, c_int) {
    reset_signal_dispositions();
    for (index, file) in order.cgroups.iter().enumerate().skip(order.cgroups_entered) {
        // SAFETY: the text is readable for its length. 0 stands for the writer.
        if unsafe { libc::syscall(libc::SYS_write, *file, c"0".as_ptr(), 1_usize) } == -1 {
            return (Step::EnterCgroup(index), errno());
        }
    }
    if order.namespaces & libc::CLONE_NEWNS != 0 && !mount::keep_to_itself() {
        return (Step::Mount(0), errno());
    }
    for (index, graft) in order.mounts.iter().enumerate() {
        if !mount::carry_out(*graft) {
            return (Step::Mount(index), errno());
        }
    }
    if order.session == Session::New {
        // SAFETY: no pointer is passed. It cannot fail: a fresh child leads no process group.
        unsafe { libc::syscall(libc::SYS_setsid) };
    }
    if order.new_files == NewFiles::Private {
        // SAFETY: no pointer is passed, and it cannot fail. The umask is this process's own (no CLONE_FS).
        unsafe { libc::syscall(libc::SYS_umask, 0o077) };
    }
    // SAFETY: `directory` is NULL or a NUL-terminated string of the waiting parent.
    if !order.directory.is_null() && unsafe { libc::syscall(libc::SYS_chdir, order.directory) } == -1 {
        return (Step::ChangeDirectory, errno());
    }
    for (target, source) in (0..).zip(order.stdio) {
        let target: c_int = target;
        // SAFETY: no pointer is passed. The sources are above 2, so none is overwritten, and the copies are
        // not close-on-exec.
        if unsafe { libc::syscall(libc::SYS_dup3, source, target, 0) } == -1 {
            return (Step::Stdio, errno());
        }
    }
    // SAFETY: no pointer is passed. Marks all but 0-2 of this process's own table close-on-exec, the host's
    // careless ones too; a kernel without the call (before 5.11) leaves those as the host made them.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    set_signal_mask_empty();
    // SAFETY: path, arguments and environment are NUL-terminated strings and NULL-terminated arrays of them,
    // all of the waiting parent.
    unsafe { libc::syscall(libc::SYS_execve, order.path, order.arguments, order.environment) };
    (Step::Execute, errno())
}

/// An ignored signal would stay ignored in the new program. The C library's `sigaction` refuses the two signals
/// that it uses itself, and a host may have been started with those ignored: so the kernel is asked.
fn reset_signal_dispositions() {
    const SIGNALS: c_int = 64;
    // The kernel's own struct sigaction: handler, flags, restorer and a mask of eight bytes; zeroes are the default.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        let nothing = std::ptr::null_mut::<c_void>();
        // SAFETY: `default` is as long as the kernel's struct, of which the last eight bytes are the mask, and
        // outlives the call. The dispositions are this process's own (no CLONE_SIGHAND). SIGKILL and SIGSTOP are
        // refused, and need nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, size_of::<u64>()) };
    }
}

fn set_signal_mask_empty() {
    let (none, nothing) = (0_u64, std::ptr::null_mut::<u64>());
    // SAFETY: the kernel's set has eight bytes, and outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            nothing,
            size_of::<u64>(),
        );
    }
}

fn errno() -> c_int {
    // SAFETY: the C library's errno of the calling thread is always readable.
    unsafe { *libc::__errno_location() }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}
