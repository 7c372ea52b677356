//! Shutdown, kill, wait and destroy: the ways in which a VM ends, or is seen to.

use super::spec::GuestRung;
use super::{Error, NoTurn, Presence, Reason, State, Turn, Vm, directory};
use crate::firecracker::Request;
use crate::observe::latency::Stage;
use crate::operation::Operation;
use crate::process;
use crate::process::ladder::{Asked, Outcome, Plan, Report, Rung};
use crate::process::{Cancel, ExitStatus, Limits, Listening, Process, Waited};
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
    /// Asks the guest to power off, then sends SIGTERM, then SIGKILL. `grace` is the grace time; zero kills at once. `poll` is
    /// the longest time between two checks of the process. A second caller joins the first.
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
                    let latencies = &self.shared.latencies;
                    let report = latencies.measure(Stage::Shutdown, || self.shut_down(left, poll))?;
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

    /// Kills the VM at once, whatever call is running on it. Nothing happens when it has ended.
    ///
    /// # Errors
    /// When the call is interrupted, and when the VMM outlives SIGKILL.
    pub fn kill(&self) -> Result<(), Error> {
        let process = self.present(Operation::Kill)?.life.running().cloned();
        if let Some(process) = process {
            let listening = self.turns.listen();
            if listening.began_interrupted() {
                return Err(self.error(Operation::Kill, NoTurn::Interrupted));
            }
            self.recorded().lift_quotas();
            process.send(Signal::Kill).map_err(self.failed(Operation::Kill))?;
            self.await_killed(&process, &listening)?;
        }
        let deadline = Deadline::after(self.spec.options.deadlines.kill());
        let mut turn = self.take_turn(Operation::Kill, deadline)?;
        self.tidy(&mut turn);
        Ok(())
    }

    /// Waits until the VMM has ended; at once when none runs.
    ///
    /// # Errors
    /// When the time is up first, or the call is interrupted.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus, Error> {
        const OPERATION: Operation = Operation::Wait;
        let (process, exit, state) = {
            let core = self.present(OPERATION)?;
            (core.life.running().cloned(), core.life.exit(), core.life.state())
        };
        let Some(process) = process else {
            // Somebody may just have seen it, and noted nothing.
            let _noted = exit.is_some() && self.note_end();
            return exit.ok_or_else(|| self.wrong_state(OPERATION, state, Some("it never ran")));
        };
        let listening = self.turns.listen();
        let limits = Limits { deadline: Deadline::after(timeout), interrupt: listening.flag() };
        match process.wait(limits).map_err(self.failed(OPERATION))? {
            Waited::Exited(exit) => {
                // Where the turn is taken, the next operation or event notes it.
                let _noted = self.note_end();
                Ok(exit)
            }
            Waited::TimeIsUp => {
                Err(self.error(OPERATION, Reason::StillRunning { after: timeout, state: self.state() }))
            }
            Waited::Interrupted => Err(self.error(OPERATION, NoTurn::Interrupted)),
        }
    }

    /// The caller's own descriptor that is readable once the VMM has ended.
    ///
    /// # Errors
    /// When no VMM runs, or no descriptor is left.
    pub fn exit_fd(&self) -> Result<std::os::fd::OwnedFd, Error> {
        const OPERATION: Operation = Operation::WatchExit;
        let (process, state) = {
            let core = self.present(OPERATION)?;
            (core.life.running().cloned(), core.life.state())
        };
        let process = process.ok_or_else(|| self.error(OPERATION, Reason::NoVmm { state }))?;
        process.duplicate_pidfd().map_err(self.failed(OPERATION))
    }

    /// Ends the VM if it runs, and removes all that belongs to it. Nothing happens when that was done before.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        match self.kill() {
            Err(error) if error.is_destroyed() => return Ok(()),
            killed => killed?,
        }
        let deadline = Deadline::after(self.spec.options.deadlines.kill());
        let mut turn = self.take_turn(Operation::Destroy, deadline)?;
        self.destroy_in_turn(&mut turn)
    }

    /// The same for a VM that waits in a pool, or was found without a VMM and not started since; says whether it is gone.
    pub(crate) fn destroy_unwanted(&self) -> Result<bool, Error> {
        let deadline = Deadline::after(self.spec.options.deadlines.kill());
        let mut turn = self.take_turn(Operation::Reap, deadline)?;
        // Somebody may have taken it out of its pool, or started it, meanwhile.
        if self.pool().is_none() && !self.is_orphan() {
            return Ok(false);
        }
        self.destroy_in_turn(&mut turn).map(|()| true)
    }

    fn destroy_in_turn(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        // Somebody else may have been quicker; the directory may be another VM's by now.
        if lock(&self.core).life.presence() == Presence::Destroyed {
            return Ok(());
        }
        // Somebody may have started it again meanwhile.
        if let Some(vmm) = &turn.own().vmm {
            turn.own().record.lift_quotas();
            vmm.end_at_once().map_err(self.failed(turn.operation()))?;
        }
        self.end_pager();
        if turn.own().vmm.is_some() {
            self.undo_claims(turn);
        }
        self.remove(turn)
    }

    /// Removes all that belongs to a VM without a VMM.
    fn remove(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        turn.own_mut().vmm = None;
        self.shared.state.verify().map_err(self.failed(turn.operation()))?;
        self.keep_disks(turn)?;
        let files = self.files();
        directory::remove(files.directory(), &self.spec.names, turn.limits().deadline).map_err(|source| {
            let path = files.directory().to_path_buf();
            self.error(turn.operation(), Reason::File { action: "remove the directory", path, source })
        })?;
        let mut core = self.observed();
        let (process, told) = core.life.destroyed();
        self.let_go_of(process.as_ref());
        self.tell_all(told);
        Ok(())
    }

    fn join_ending(&self) -> Result<(Arc<Ending>, Role), Error> {
        let mut core = lock(&self.core);
        self.check_presence(core.life.presence(), Operation::Shutdown)?;
        if let Some(ending) = &core.ending {
            return Ok((Arc::clone(ending), Role::Joined));
        }
        let ending = Arc::new(Ending::new());
        core.ending = Some(Arc::clone(&ending));
        Ok((ending, Role::First))
    }

    /// Waits for what becomes of the first caller's shutdown, no longer than the own window: then it is forced.
    fn await_ending(&self, ending: &Ending, grace: Duration) -> Result<Result<Arc<Report>, Failed>, Error> {
        const OPERATION: Operation = Operation::Shutdown;
        let (listening, mut until) = (self.turns.listen(), Deadline::after(grace));
        let mut killed = None::<Arc<Process>>;
        loop {
            let result = lock(&ending.result).clone();
            match result {
                Some(Ok(report)) => return Ok(Ok(report)),
                _ if listening.is_interrupted() => {
                    return Err(self.error(OPERATION, NoTurn::Interrupted));
                }
                Some(Err(Failed)) => return Ok(Err(Failed)),
                None if !until.has_passed() => listening.wait_for(ending.over.as_ref(), until),
                None => match killed.take() {
                    Some(process) => {
                        let (pid, after) = (process.pid(), self.spec.options.deadlines.kill());
                        return Err(self.error(OPERATION, process::Error::Stuck { pid, after }));
                    }
                    None => {
                        until = Deadline::after(self.spec.options.deadlines.kill());
                        killed = self.observed().life.running().cloned();
                        self.recorded().lift_quotas();
                        let sent = killed.as_ref().map_or(Ok(()), |process| process.send(Signal::Kill));
                        sent.map_err(self.failed(OPERATION))?;
                    }
                },
            }
        }
    }

    fn shut_down(&self, grace: Duration, poll: Option<Duration>) -> Result<Arc<Report>, Error> {
        const OPERATION: Operation = Operation::Shutdown;
        let began = Instant::now();
        let listening = self.turns.listen();
        let mut turn = match self.turns.take(OPERATION, Deadline::after(grace)) {
            Ok(turn) => Some(turn),
            // Whatever holds the turn ends with the VMM, so the window's end kills without it.
            Err(NoTurn::Busy { .. }) => None,
            Err(interrupted) => return Err(self.error(OPERATION, interrupted)),
        };
        let report = match self.process_to_end() {
            Ok((process, first)) => {
                let grace = grace.saturating_sub(began.elapsed());
                let grace = if turn.is_some() { grace } else { Duration::ZERO };
                let kill_allowance = self.spec.options.deadlines.kill();
                let plan = Plan { first, grace, poll, kill_allowance };
                let ask_guest = |limits: Limits<'_>| match turn.as_mut() {
                    Some(turn) => self.ask_guest(limits, turn),
                    None => Asked::Unavailable,
                };
                let before_kill = || self.recorded().lift_quotas();
                let report = process.shut_down(plan, listening.flag(), ask_guest, before_kill);
                Arc::new(report.map_err(self.failed(OPERATION))?)
            }
            Err(exit) => Arc::new(already_exited(exit)),
        };
        let mut turn = match turn {
            Some(turn) => turn,
            None => self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.kill()))?,
        };
        self.tidy(&mut turn);
        lock(&self.core).last_shutdown = Some(Arc::clone(&report));
        Ok(report)
    }

    /// The process and the first rung for it, or how it has ended already.
    fn process_to_end(&self) -> Result<(Arc<Process>, Rung), ExitStatus> {
        let core = self.observed();
        let life = &core.life;
        let Some(process) = life.running().cloned() else {
            return Err(life.exit().unwrap_or(ExitStatus::ReapedByHost));
        };
        let may_run = life.state() == State::Running || life.is_in_doubt();
        let wanted = self.spec.options.shutdown.guest == GuestRung::CtrlAltDel;
        let guest_hears = cfg!(target_arch = "x86_64") && may_run && wanted;
        Ok((process, if guest_hears { Rung::Guest } else { Rung::Terminate }))
    }

    fn ask_guest(&self, limits: Limits<'_>, turn: &mut Turn<'_>) -> Asked {
        match self.demand_within(&Request::send_ctrl_alt_del(), limits, turn) {
            Ok(_) => Asked::Delivered,
            Err(_) => Asked::Unavailable,
        }
    }

    fn await_killed(&self, process: &Process, listening: &Listening<'_>) -> Result<(), Error> {
        let allowance = self.spec.options.deadlines.kill();
        let limits = Limits { deadline: Deadline::after(allowance), interrupt: listening.flag() };
        let pid = process.pid();
        let failed = self.failed(Operation::Kill);
        match process.wait(limits).map_err(&failed)? {
            Waited::Exited(_) => Ok(()),
            Waited::TimeIsUp => Err(failed(process::Error::Stuck { pid, after: allowance })),
            Waited::Interrupted => Err(failed(process::Error::Interrupted { pid })),
        }
    }

    /// Notes in the journal how the VMM has ended, so that the next owner is told what this one was, and tidies up after
    /// it. Waits for nobody: says whether that was done, or there was nothing to note.
    pub(crate) fn note_end(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        // Whoever was told of the end was told, be the call cancelled or not.
        let _unbound = Cancel::unbind();
        let Ok(mut turn) = self.turns.take(Operation::Wait, now) else { return false };
        if self.is_present() {
            self.tidy(&mut turn);
        }
        true
    }

    /// Lets go of a VMM that has ended, and removes the sockets that it leaves behind.
    pub(super) fn tidy(&self, turn: &mut Turn<'_>) {
        if self.observed().life.running().is_none()
            && let Some(vmm) = turn.own_mut().vmm.take()
        {
            vmm.end_companions();
            // It may be in a cgroup of the VM's, and has its working set to store.
            self.end_pager();
            self.undo_claims(turn);
            self.strike_out_vmm(turn);
        }
    }

    pub(super) fn check_presence(&self, presence: Presence, operation: Operation) -> Result<(), Error> {
        match presence {
            Presence::Destroyed => Err(self.error(operation, Reason::Destroyed)),
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
