//! A process held by a descriptor: it cannot be mistaken for another, and its end can be polled for.

use super::checked;
use super::procfs::ProcessStat;
use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It has ended, but the host process took its status before the library could.
    ReapedByHost,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::ReapedByHost => f.write_str("exit status taken by the host's own reaper"),
        }
    }
}

/// A signal that the library sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A descriptor that stands for one process, for ever.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
    pid: libc::pid_t,
}

impl Pidfd {
    /// Holds the process that has this number now; which one that is, is for the caller to find out.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        let number = Pid::from_raw(pid.max(0)).ok_or(Errno::SRCH)?;
        Ok(Self { fd: process::pidfd_open(number, PidfdFlags::empty())?, pid })
    }

    pub(super) fn new(fd: OwnedFd, pid: libc::pid_t) -> Self {
        Self { fd, pid }
    }

    /// Its number, for people to read.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal`; nothing happens when the process has ended.
    ///
    /// # Errors
    /// `EPERM` when the process belongs to somebody else.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        let number = match signal {
            Signal::Terminate => process::Signal::TERM,
            Signal::Kill => process::Signal::KILL,
        };
        match process::pidfd_send_signal(&self.fd, number) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::NOSYS) => self.send_by_number(number),
            Err(error) => Err(error.into()),
        }
    }

    /// For emulations of Linux that have pidfds and no `pidfd_send_signal`, such as valgrind. The number is the
    /// process's own as long as it has not ended.
    fn send_by_number(&self, number: process::Signal) -> io::Result<()> {
        match (self.look()?, Pid::from_raw(self.pid)) {
            (None, Some(pid)) => Ok(process::kill_process(pid, number)?),
            _ => Ok(()),
        }
    }

    /// How the process ended, or `None` while it runs. Never waits; reaps a child that has ended.
    ///
    /// # Errors
    /// Whatever `waitid(2)` reports, except that somebody else has reaped the child.
    pub fn look(&self) -> io::Result<Option<ExitStatus>> {
        // SAFETY: siginfo_t is plain data, for which zeroes are a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.fd.as_raw_fd().unsigned_abs();
        // SAFETY: `info` is writable and outlives the call.
        let waited = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG) };
        match checked(waited) {
            Ok(_) => {
                // SAFETY: waitid has filled `info` as for SIGCHLD, or left the zeroes, which read as pid 0.
                let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
                Ok(match info.si_code {
                    _ if pid == 0 => None,
                    libc::CLD_EXITED => Some(ExitStatus::Code(status)),
                    _ => Some(ExitStatus::Signal(status)),
                })
            }
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => self.look_at_a_stranger(),
            Err(error) => Err(error),
        }
    }

    /// Whether the process has ended, reaped or not. Never waits, and never reaps.
    ///
    /// # Errors
    /// Whatever `ppoll(2)` reports.
    pub fn has_ended(&self) -> io::Result<bool> {
        let now = super::deadline::Deadline::after(std::time::Duration::ZERO);
        super::poll::wait([super::poll::Interest::Readable(self.as_fd())], now).map(|[ended]| ended)
    }

    /// The process is not (or no longer) a child to wait for: the descriptor alone says whether it has ended.
    fn look_at_a_stranger(&self) -> io::Result<Option<ExitStatus>> {
        Ok(self.has_ended()?.then(|| self.status_of_a_stranger()))
    }

    /// A process whose parent has not reaped it yet tells its status in /proc, and then the kernel's record does.
    fn status_of_a_stranger(&self) -> ExitStatus {
        let told = self.kernel_record().or_else(|| {
            let stat = ProcessStat::of(self.pid).ok().filter(|stat| stat.state == 'Z');
            stat.and_then(|stat| stat.exit_code).map(exit_status_of)
        });
        // It may have been reaped between the two looks.
        told.or_else(|| self.kernel_record()).unwrap_or(ExitStatus::ReapedByHost)
    }

    /// The status that Linux 6.15 and later keep for holders of a pidfd once the process was reaped.
    fn kernel_record(&self) -> Option<ExitStatus> {
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: `info` is writable and has the size that the request number states.
        let asked = unsafe { libc::ioctl(self.fd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
        if asked != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
            return None;
        }
        Some(exit_status_of(info.exit_code))
    }
}

/// What `wait(2)` would tell of such a status.
fn exit_status_of(status: libc::c_int) -> ExitStatus {
    if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `struct pidfd_info` of `<linux/pidfd.h>` in its first published size, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;
const _: () = assert!(size_of::<PidfdInfo>() == 0x40);
