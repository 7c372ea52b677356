//! Child processes: started, held by pidfd, waited for, and ended by the shutdown ladder.
//!
//! A process here is any program; that some of them are VMMs is the business of the rooms above.

mod cgroups;
mod command;
mod error;
mod identity;
mod interrupt;
mod job;
pub mod ladder;
mod question;

pub use cgroups::Cgroups;
pub use command::{Command, Stdio};
pub use error::{Error, SpawnStep};
pub use identity::Identity;
pub use interrupt::{Bound, Cancel, Interrupts, Listening};
pub use job::{Job, JobOptions};
pub use question::{Finished, NoAnswer, ask, run};

use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::pidfd::{Pidfd, Signal};
use crate::sys::poll::{self, Interest};
use crate::sys::procfs;
use crate::sys::sync::lock;
use ladder::{Asked, Ladder, Plan, Report, Rung};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use crate::sys::mount::{Graft, Rights, Tree};
pub use crate::sys::pidfd::ExitStatus;
pub use crate::sys::spawn::{Isolation, NewFiles, Processes, Session};

/// How often to look at a process whose end somebody else holds up.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What ends a call early: its deadline, and the flag that `interrupt` raises.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// When the call has to be over.
    pub deadline: Deadline,
    /// Raised when another thread wants the call to end.
    pub interrupt: Option<&'a EventFd>,
}

impl Limits<'_> {
    /// The interrupt as something to poll.
    pub fn interest(&self) -> Interest<'_> {
        EventFd::interest(self.interrupt)
    }

    /// The same interrupt with a deadline that is no later than `deadline`.
    #[must_use]
    pub fn no_later_than(self, deadline: Deadline) -> Self {
        Self { deadline: self.deadline.or_sooner(deadline), ..self }
    }
}

/// Why a wait came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The process has ended.
    Exited(ExitStatus),
    /// The deadline has passed.
    TimeIsUp,
    /// Another thread interrupted the call.
    Interrupted,
}

/// A process from its start, or from when it was found, until after its end. Dropping it ends nothing.
#[derive(Debug)]
pub struct Process {
    pidfd: Pidfd,
    exit: Mutex<Option<ExitStatus>>,
    asked_to_end: AtomicBool,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// What could not be done, on which path, and why; no process is left then.
    pub fn spawn(command: &Command<'_>) -> Result<Self, Error> {
        Ok(Self::held_by(command.spawn()?))
    }

    /// Holds a process that somebody else has started; `None` when it is gone and reaped.
    ///
    /// # Errors
    /// Whatever the kernel reports, except that it is gone.
    pub fn find(identity: Identity) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Wait { pid: identity.pid, source };
        let pidfd = match Pidfd::open(identity.pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        // Looked at after the number is held: so it cannot be given to another one in between.
        match Identity::of(identity.pid) {
            Ok(present) => Ok((present == identity).then(|| Self::held_by(pidfd))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The process that has the number `pid` now, if it is one that `is_it` accepts. Asked once more when it is held: the
    /// number may have changed hands in between.
    ///
    /// # Errors
    /// Those of [`Process::find`].
    pub fn hold(pid: i32, is_it: impl Fn(i32) -> bool) -> Result<Option<Self>, Error> {
        if !is_it(pid) {
            return Ok(None);
        }
        let Ok(identity) = Identity::of(pid) else { return Ok(None) };
        Ok(Self::find(identity)?.filter(|process| is_it(process.pid())))
    }

    /// Kills it, and waits for its end, at most for `patience` and whatever is interrupted.
    ///
    /// # Errors
    /// When it outlives that: stuck in the kernel.
    pub fn kill(&self, patience: Duration) -> Result<ExitStatus, Error> {
        self.send(Signal::Kill)?;
        match self.wait(Limits { deadline: Deadline::after(patience), interrupt: None })? {
            Waited::Exited(exit) => Ok(exit),
            _ => Err(Error::Stuck { pid: self.pid(), after: patience }),
        }
    }

    fn held_by(pidfd: Pidfd) -> Self {
        Self { pidfd, exit: Mutex::new(None), asked_to_end: AtomicBool::new(false) }
    }

    /// What tells it from every other process.
    ///
    /// # Errors
    /// When it has ended and was reaped, or `/proc` cannot be read.
    pub fn identity(&self) -> Result<Identity, Error> {
        Identity::of(self.pid()).map_err(|source| Error::Wait { pid: self.pid(), source })
    }

    /// Its number, for people to read and never to signal by.
    pub fn pid(&self) -> i32 {
        self.pidfd.pid()
    }

    /// How it ended, or `None` while it runs. Takes microseconds; a child that has ended is reaped here.
    ///
    /// # Errors
    /// Whatever the kernel reports when asked.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>, Error> {
        // Of two threads that look at once one reaps; the other is to hear what that one learned.
        let mut exit = lock(&self.exit);
        if exit.is_none() {
            *exit = self.pidfd.look().map_err(|source| Error::Wait { pid: self.pid(), source })?;
        }
        Ok(*exit)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Whatever the kernel reports when asked.
    pub fn wait(&self, limits: Limits<'_>) -> Result<Waited, Error> {
        let mut held_by_a_debugger = false;
        loop {
            if let Some(exit) = self.exit_status()? {
                return Ok(Waited::Exited(exit));
            }
            let pidfd = if held_by_a_debugger { Interest::Nothing } else { Interest::Readable(self.pidfd()) };
            let look_again = if held_by_a_debugger { Deadline::after(LOOK_AGAIN) } else { Deadline::NEVER };
            let woken = poll::wait([pidfd, limits.interest()], limits.deadline.or_sooner(look_again))
                .map_err(|source| Error::Wait { pid: self.pid(), source })?;
            match woken {
                // It has ended, and whoever traces it has not yet let go: only then is the exit without a status.
                [true, _] => held_by_a_debugger = self.exit_status()?.is_none(),
                [false, true] => return Ok(Waited::Interrupted),
                [false, false] if limits.deadline.has_passed() => return Ok(Waited::TimeIsUp),
                [false, false] => {}
            }
        }
    }

    /// Sends a signal; nothing happens when it has ended.
    ///
    /// # Errors
    /// `EPERM` when the process belongs to somebody else.
    pub fn send(&self, signal: Signal) -> Result<(), Error> {
        self.asked_to_end.store(true, Ordering::Relaxed);
        self.pidfd.send(signal).map_err(|source| Error::Signal { pid: self.pid(), signal, source })
    }

    /// Whether the library has sent it a signal.
    pub fn was_asked_to_end(&self) -> bool {
        self.asked_to_end.load(Ordering::Relaxed)
    }

    /// The descriptor, readable once the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The caller's own duplicate of the descriptor, close-on-exec.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn duplicate_pidfd(&self) -> Result<OwnedFd, Error> {
        let copy = crate::sys::file::duplicate_above_stdio(self.pidfd.as_fd());
        copy.map_err(|source| Error::Wait { pid: self.pid(), source })
    }

    /// Ends it by the ladder of `plan`. `ask_guest` is called for the guest's rung, with the limits that the
    /// request has to keep, and `before_kill` before SIGKILL is sent.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and [`Error::Stuck`] when it outlives SIGKILL; the process is as it then is.
    pub fn shut_down(
        &self,
        plan: Plan,
        interrupt: Option<&EventFd>,
        mut ask_guest: impl FnMut(Limits<'_>) -> Asked,
        before_kill: impl Fn(),
    ) -> Result<Report, Error> {
        let started = Instant::now();
        let mut ladder = Ladder::new(plan);
        loop {
            let exit = self.exit_status()?;
            if exit.is_none() && interrupt.is_some_and(EventFd::is_raised) {
                return Err(Error::Interrupted { pid: self.pid() });
            }
            match ladder.next(started.elapsed(), exit) {
                ladder::Step::Ask(rung) => {
                    let asked = match rung {
                        Rung::Guest => {
                            let window = Deadline::after(plan.grace.saturating_sub(started.elapsed()));
                            ask_guest(Limits { deadline: window, interrupt })
                        }
                        Rung::Terminate if procfs::is_deaf_to(self.pid(), libc::SIGTERM) => {
                            Asked::Unavailable
                        }
                        Rung::Terminate => self.send(Signal::Terminate).map(|()| Asked::Delivered)?,
                        Rung::Kill => {
                            before_kill();
                            self.send(Signal::Kill).map(|()| Asked::Delivered)?
                        }
                    };
                    ladder.answered(rung, started.elapsed(), asked);
                }
                ladder::Step::Sleep(at_most) => {
                    let limits = Limits { deadline: Deadline::after(at_most), interrupt };
                    self.wait(limits)?;
                }
                ladder::Step::Done(report) => return Ok(report),
                ladder::Step::Stuck => {
                    return Err(Error::Stuck { pid: self.pid(), after: plan.kill_allowance });
                }
            }
        }
    }
}
