//! Shutdown, kill, wait and destroy: the ways in which a VM ends, or is seen to.

use super::spec::GuestRung;
use super::turn::Turn;
use super::{Error, NoTurn, Presence, State, Vm, directory};
use crate::firecracker::Request;
use crate::observe::events::What;
use crate::process;
use crate::process::ladder::{Asked, Outcome, Plan, Report, Rung};
use crate::process::{ExitStatus, Limits, Process, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::pidfd::Signal;
use crate::sys::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A shutdown in flight, which later callers join.
#[derive(Debug)]
pub(super) struct Ending {
    result: Mutex<Option<Result<Arc<Report>, Failed>>>,
    /// Raised when there is a result; nothing when no descriptor was left.
    over: Option<EventFd>,
}

/// The shutdown that others joined has failed: they try for themselves.
#[derive(Clone, Copy, Debug)]
struct Failed;

impl Vm {
    /// Ends the VM by the ladder: the guest is asked, then the VMM, then it is killed. `grace` is the polite
    /// window, zero kills at once; `poll` is the longest sleep without a look. A second caller joins the first.
    ///
    /// # Errors
    /// When the call is interrupted, and when the VMM outlives SIGKILL.
    pub fn shutdown(&self, grace: Duration, poll: Option<Duration>) -> Result<Arc<Report>, Error> {
        let began = Instant::now();
        loop {
            let (ending, role) = self.join_ending()?;
            let left = grace.saturating_sub(began.elapsed());
            match role {
                Role::First => {
                    let first = FirstCaller { vm: self, ending: &ending };
                    let report = self.shut_down(left, poll)?;
                    first.tell(&report);
                    return Ok(report);
                }
                Role::Joined => {
                    if let Ok(report) = self.await_ending(&ending, left)? {
                        return Ok(report);
                    }
                }
            }
        }
    }

    /// Kills the VM at once, whatever is in flight on it; nothing happens when it has ended.
    ///
    /// # Errors
    /// When the call is interrupted, and when the VMM outlives SIGKILL.
    pub fn kill(&self) -> Result<(), Error> {
        const OPERATION: &str = "kill";
        let process = {
            let core = self.observed();
            self.check_presence(core.presence, OPERATION)?;
            core.process.clone()
        };
        if let Some(process) = process {
            process.send(Signal::Kill).map_err(self.process_error(OPERATION))?;
            self.await_killed(OPERATION, &process)?;
        }
        let _turn = self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.kill()))?;
        self.tidy();
        Ok(())
    }

    /// Waits until the VMM has ended; at once when none runs.
    ///
    /// # Errors
    /// When the time is up first, or the call is interrupted.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus, Error> {
        const OPERATION: &str = "wait for";
        let (process, exit, state) = {
            let core = self.observed();
            self.check_presence(core.presence, OPERATION)?;
            (core.process.clone(), core.exit, core.state)
        };
        let Some(process) = process else {
            return exit.ok_or_else(|| self.wrong_state(OPERATION, state, Some("it never ran")));
        };
        let listening = self.turns.listen();
        let limits = Limits { deadline: Deadline::after(timeout), interrupt: listening.flag() };
        match process.wait(limits).map_err(self.process_error(OPERATION))? {
            Waited::Exited(exit) => Ok(exit),
            Waited::TimeIsUp => {
                Err(Error::StillRunning { id: self.id(), after: timeout, state: self.state() })
            }
            Waited::Interrupted => Err(Error::WaitInterrupted { id: self.id() }),
        }
    }

    /// The caller's own descriptor that is readable once the VMM has ended.
    ///
    /// # Errors
    /// When no VMM runs, or no descriptor is left.
    pub fn exit_fd(&self) -> Result<std::os::fd::OwnedFd, Error> {
        const OPERATION: &str = "watch";
        let (process, state) = {
            let core = self.observed();
            self.check_presence(core.presence, OPERATION)?;
            (core.process.clone(), core.state)
        };
        let process = process.ok_or_else(|| Error::NoVmm { id: self.id(), operation: OPERATION, state })?;
        process.duplicate_pidfd().map_err(self.process_error(OPERATION))
    }

    /// Ends the VM if it runs, and removes all that belongs to it. Nothing happens when that was done before.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        const OPERATION: &str = "destroy";
        match self.kill() {
            Err(Error::Destroyed { .. }) => return Ok(()),
            killed => killed?,
        }
        let turn = self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.kill()))?;
        self.destroy_in_turn(OPERATION, &turn)
    }

    /// The same for a VM that waits in a pool, or was found without a VMM and not started since; says whether it is gone.
    pub(crate) fn destroy_unwanted(&self) -> Result<bool, Error> {
        const OPERATION: &str = "reap";
        let turn = self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.kill()))?;
        // Somebody may have taken it out of its pool, or started it, meanwhile.
        if self.pool().is_none() && !self.is_orphan() {
            return Ok(false);
        }
        self.destroy_in_turn(OPERATION, &turn).map(|()| true)
    }

    fn destroy_in_turn(&self, operation: &'static str, turn: &Turn<'_>) -> Result<(), Error> {
        // Somebody else may have been quicker; the directory may be another VM's by now.
        if lock(&self.core).presence == Presence::Destroyed {
            return Ok(());
        }
        // Somebody may have started it again meanwhile.
        if let Some(vmm) = lock(&self.vmm).as_ref() {
            vmm.end_at_once().map_err(self.process_error(operation))?;
        }
        self.end_pager();
        self.remove(turn)
    }

    /// Removes all that belongs to a VM without a VMM.
    fn remove(&self, turn: &Turn<'_>) -> Result<(), Error> {
        drop(lock(&self.vmm).take());
        let files = self.files();
        directory::remove(files.directory(), &self.spec.names, turn.limits().deadline).map_err(|source| {
            let path = files.directory().to_path_buf();
            Error::Directory { action: "remove the directory", path, source }
        })?;
        let mut core = self.observed();
        self.neglect(&mut core);
        (core.presence, core.state) = (Presence::Destroyed, State::Stopped);
        self.tell(What::Destroyed);
        Ok(())
    }

    fn join_ending(&self) -> Result<(Arc<Ending>, Role), Error> {
        let mut core = lock(&self.core);
        self.check_presence(core.presence, "shut down")?;
        if let Some(ending) = &core.ending {
            return Ok((Arc::clone(ending), Role::Joined));
        }
        let ending = Arc::new(Ending::new());
        core.ending = Some(Arc::clone(&ending));
        Ok((ending, Role::First))
    }

    /// Waits for what becomes of the first caller's shutdown, no longer than the own window: then it is forced.
    fn await_ending(&self, ending: &Ending, grace: Duration) -> Result<Result<Arc<Report>, Failed>, Error> {
        const OPERATION: &str = "shut down";
        let (listening, mut until) = (self.turns.listen(), Deadline::after(grace));
        let mut killed = None::<Arc<Process>>;
        loop {
            let result = lock(&ending.result).clone();
            match result {
                Some(Ok(report)) => return Ok(Ok(report)),
                _ if listening.is_interrupted() => {
                    let id = self.id();
                    return Err(Error::Turn { id, operation: OPERATION, source: NoTurn::Interrupted });
                }
                Some(Err(Failed)) => return Ok(Err(Failed)),
                None if !until.has_passed() => listening.wait_for(ending.over.as_ref(), until),
                None => match killed.take() {
                    Some(process) => {
                        let (pid, after) = (process.pid(), self.spec.options.deadlines.kill());
                        return Err(self.process_error(OPERATION)(process::Error::Stuck { pid, after }));
                    }
                    None => {
                        until = Deadline::after(self.spec.options.deadlines.kill());
                        killed = self.observed().process.clone();
                        let sent = killed.as_ref().map_or(Ok(()), |process| process.send(Signal::Kill));
                        sent.map_err(self.process_error(OPERATION))?;
                    }
                },
            }
        }
    }

    fn shut_down(&self, grace: Duration, poll: Option<Duration>) -> Result<Arc<Report>, Error> {
        const OPERATION: &str = "shut down";
        let began = Instant::now();
        let listening = self.turns.listen();
        let turn = match self.turns.take(OPERATION, Deadline::after(grace)) {
            Ok(turn) => Some(turn),
            // Whatever holds the turn ends with the VMM, so the window's end kills without it.
            Err(NoTurn::Busy { .. }) => None,
            Err(source) => return Err(Error::Turn { id: self.id(), operation: OPERATION, source }),
        };
        let report = match self.process_to_end() {
            Ok((process, first)) => {
                let grace = grace.saturating_sub(began.elapsed());
                let grace = if turn.is_some() { grace } else { Duration::ZERO };
                let kill_allowance = self.spec.options.deadlines.kill();
                let plan = Plan { first, grace, poll, kill_allowance };
                let ask_guest = |limits: Limits<'_>| self.ask_guest(limits);
                let report = process.shut_down(plan, listening.flag(), ask_guest);
                Arc::new(report.map_err(self.process_error(OPERATION))?)
            }
            Err(exit) => Arc::new(already_exited(exit)),
        };
        let _turn = match turn {
            Some(turn) => turn,
            None => self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.kill()))?,
        };
        self.tidy();
        lock(&self.core).last_shutdown = Some(Arc::clone(&report));
        Ok(report)
    }

    /// The process and the first rung for it, or how it has ended already.
    fn process_to_end(&self) -> Result<(Arc<Process>, Rung), ExitStatus> {
        let core = self.observed();
        let Some(process) = core.process.clone() else {
            return Err(core.exit.unwrap_or(ExitStatus::ReapedByHost));
        };
        let guest_hears = cfg!(target_arch = "x86_64") && (core.state == State::Running || core.in_doubt);
        let wanted = self.spec.options.shutdown.guest == GuestRung::CtrlAltDel;
        Ok((process, if guest_hears && wanted { Rung::Guest } else { Rung::Terminate }))
    }

    fn ask_guest(&self, limits: Limits<'_>) -> Asked {
        let mut vmm = lock(&self.vmm);
        let asked = vmm.as_mut().map(|vmm| vmm.demand(&Request::send_ctrl_alt_del(), limits));
        if matches!(asked, Some(Ok(_))) { Asked::Delivered } else { Asked::Unavailable }
    }

    fn await_killed(&self, operation: &'static str, process: &Process) -> Result<(), Error> {
        let listening = self.turns.listen();
        let allowance = self.spec.options.deadlines.kill();
        let limits = Limits { deadline: Deadline::after(allowance), interrupt: listening.flag() };
        let failed = self.process_error(operation);
        match process.wait(limits).map_err(&failed)? {
            Waited::Exited(_) => Ok(()),
            Waited::TimeIsUp => Err(failed(process::Error::Stuck { pid: process.pid(), after: allowance })),
            Waited::Interrupted => Err(failed(process::Error::Interrupted { pid: process.pid() })),
        }
    }

    /// Lets go of a VMM that has ended, and removes the sockets that it leaves behind. Needs the turn.
    pub(super) fn tidy(&self) {
        if self.observed().process.is_none()
            && let Some(vmm) = lock(&self.vmm).take()
        {
            vmm.remove_leftovers();
            self.end_pager();
            self.strike_out_vmm();
        }
    }

    pub(super) fn check_presence(&self, presence: Presence, operation: &'static str) -> Result<(), Error> {
        match presence {
            Presence::Destroyed => Err(Error::Destroyed { id: self.id(), operation }),
            Presence::BeingCreated | Presence::Present => Ok(()),
        }
    }
}

impl Ending {
    fn new() -> Self {
        Self { result: Mutex::new(None), over: EventFd::new().ok() }
    }
}

enum Role {
    First,
    Joined,
}

/// Whatever becomes of the first caller, a panic included, those who joined it are told.
struct FirstCaller<'a> {
    vm: &'a Vm,
    ending: &'a Ending,
}

impl FirstCaller<'_> {
    fn tell(&self, report: &Arc<Report>) {
        lock(&self.ending.result).get_or_insert(Ok(Arc::clone(report)));
    }
}

impl Drop for FirstCaller<'_> {
    fn drop(&mut self) {
        lock(&self.vm.core).ending = None;
        lock(&self.ending.result).get_or_insert(Err(Failed));
        self.ending.over.iter().for_each(EventFd::raise);
    }
}

fn already_exited(exit: ExitStatus) -> Report {
    Report { outcome: Outcome::AlreadyExited, rung: None, exit, asked: Vec::new(), elapsed: Duration::ZERO }
}
