//! Create, start, pause, resume, and any request to the VMM.

use super::plan::Plan;
use super::record::Content;
use super::{Error, Guest, Reason, State, Turn, Vm};
use crate::firecracker::api::InstanceState;
use crate::firecracker::http::{Method, RequestPath, Response};
use crate::firecracker::{self, Request, RequestLine, Vmm};
use crate::journal::{PoolRecord, SpecRecord, WhyNoParent};
use crate::observe::events::EventKind;
use crate::observe::latency::Stage;
use crate::operation::Operation;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use std::time::Instant;

impl Vm {
    /// Makes its directory, starts its VMM and configures it. After an error nothing of it is left.
    pub(crate) fn create(&self, spec: &SpecRecord, pool: Option<&PoolRecord>) -> Result<(), Error> {
        let deadline = Deadline::after(self.spec.options.deadlines.create());
        let mut turn = self.take_turn(Operation::Create, deadline)?;
        let means = self.means(&turn)?;
        turn.own_mut().record.pool = pool.cloned();
        self.check_disks(&turn)?;
        let content = Content { links: self.spec.links().cloned().collect(), copies: self.own_disks() };
        let plan = Plan::of_spec(&self.spec, means);
        let directory = self.make_directory(spec, content, &plan, &mut turn)?;
        self.sync_kept_disks(&turn)?;
        self.bring_up(&plan, &mut turn)?;
        directory.keep();
        self.appear(EventKind::Created);
        Ok(())
    }

    /// From here on there is such a VM.
    pub(super) fn appear(&self, what: EventKind) {
        let mut core = self.observed();
        let told = core.life.appeared(what);
        self.tell_all(told);
    }

    /// Starts the guest; a VM whose VMM has ended gets a new one first. Nothing happens when it runs already.
    ///
    /// # Errors
    /// When it is paused, or its VMM fails; a VM that was stopped is stopped again then.
    pub fn start(&self) -> Result<(), Error> {
        self.shared.latencies.measure(Stage::Start, || self.start_now())
    }

    fn start_now(&self) -> Result<(), Error> {
        let mut turn = self.begin(Operation::Start, self.spec.options.deadlines.start())?;
        let (state, rest) = {
            let core = self.observed();
            (core.life.state(), core.life.rest())
        };
        let Some(before) = rest else {
            return match state {
                State::Paused => Err(self.wrong_state(Operation::Start, state, Some("resume it"))),
                State::Created => self.boot(&mut turn),
                _ => Ok(()),
            };
        };
        // A VMM that ended by itself has left its sockets.
        self.tidy(&mut turn);
        let plan = Plan::of_spec(&self.spec, self.means(&turn)?);
        self.check_shared_disks(&turn)?;
        self.announce_vmm(&plan, &mut turn)?;
        self.bring_up(&plan, &mut turn)?;
        // What a section has started is not to be started again.
        match self.state() {
            State::Running => Ok(()),
            _ => self.boot(&mut turn).inspect_err(|_| self.undo_launch(before, &mut turn)),
        }
    }

    /// Pauses the guest. Nothing happens when it is paused already.
    ///
    /// # Errors
    /// When it does not run, or its VMM fails.
    pub fn pause(&self) -> Result<(), Error> {
        self.change(Operation::Pause, Guest::Running, Guest::Paused)
    }

    /// Resumes the guest. Nothing happens when it runs already.
    ///
    /// # Errors
    /// When it is not paused, or its VMM fails.
    pub fn resume(&self) -> Result<(), Error> {
        self.change(Operation::Resume, Guest::Paused, Guest::Running)
    }

    /// Sends any request to the VMM and gives its answer's body.
    ///
    /// # Errors
    /// When no VMM runs, when the request cannot be sent, and when Firecracker refuses it.
    pub fn request(
        &self,
        method: Method,
        path: &RequestPath,
        body: Option<&[u8]>,
    ) -> Result<Response, Error> {
        let mut turn = self.begin(Operation::Request, self.spec.options.deadlines.request())?;
        let request = Request::new(method, path.clone(), body);
        let changes_state = request.may_change_state();
        if request.may_change_what_a_diff_holds() {
            self.forget_last_snapshot(WhyNoParent::ForeignRequest, &mut turn)?;
        }
        if changes_state {
            lock(&self.core).life.doubted();
        }
        let response = self.demand(&request, &mut turn);
        let answered = response.as_ref().map_or_else(Error::is_refusal, |_| true);
        if changes_state && answered && self.observed().life.running().is_some() {
            // Without an answer it stays in doubt; the request itself has had its own.
            let _settled = self.ask_state(&mut turn);
        }
        response
    }

    /// Asks the VMM for its state, and believes it.
    pub(super) fn ask_state(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let request = Request::describe_instance();
        let response = self.demand(&request, turn)?;
        let guest = match InstanceState::of_answer(&response.body) {
            Some(InstanceState::NotStarted) => Guest::NotStarted,
            Some(InstanceState::Running) => Guest::Running,
            Some(InstanceState::Paused) => Guest::Paused,
            None => return Err(self.unexpected(turn.operation(), &request, &response)),
        };
        let mut core = self.observed();
        let told = core.life.guest_is(guest);
        self.tell_all(told);
        Ok(())
    }

    pub(super) fn boot(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let began = Instant::now();
        let answer = self.demand(&Request::start(), turn);
        self.note_guest(Guest::Running, answer)?;
        lock(&self.core).timings.start = began.elapsed();
        Ok(())
    }

    /// Has the VMM pause or resume its guest.
    pub(super) fn switch(&self, to: Guest, turn: &mut Turn<'_>) -> Result<(), Error> {
        let answer = self.demand(&switching(to), turn);
        self.note_guest(to, answer)
    }

    fn change(&self, operation: Operation, from: Guest, to: Guest) -> Result<(), Error> {
        let mut turn = self.begin(operation, self.spec.options.deadlines.request())?;
        let state = self.state();
        if state == to.state() {
            return Ok(());
        }
        if state != from.state() {
            let advice = (state != State::Paused && state != State::Running).then_some("start it first");
            return Err(self.wrong_state(operation, state, advice));
        }
        let began = Instant::now();
        self.switch(to, &mut turn)?;
        let timings = &mut lock(&self.core).timings;
        let took = began.elapsed();
        let (place, stage) = match to {
            Guest::Paused => (&mut timings.pause, Stage::Pause),
            _ => (&mut timings.resume, Stage::Resume),
        };
        *place = Some(took);
        self.shared.latencies.note(stage, took);
        Ok(())
    }

    /// The same as [`Vm::switch`] within limits of its own.
    pub(super) fn switch_within(
        &self,
        to: Guest,
        limits: Limits<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let answer = self.demand_within(&switching(to), limits, turn);
        self.note_guest(to, answer)
    }

    /// What the answer to a request that makes the guest `to` says of it.
    fn note_guest(&self, to: Guest, answer: Result<Response, Error>) -> Result<(), Error> {
        let mut core = self.observed();
        match &answer {
            Ok(_) => {
                let told = core.life.guest_is(to);
                self.tell_all(told);
            }
            Err(error) if error.is_refusal() => {}
            Err(_) => core.life.doubted(),
        }
        answer.map(drop)
    }

    /// Has the VMM carry out a request, within the limits of the operation.
    pub(super) fn demand(&self, request: &Request, turn: &mut Turn<'_>) -> Result<Response, Error> {
        let operation = turn.operation();
        let (own, limits) = turn.own_within_limits();
        self.demand_of(own.vmm.as_mut(), operation, request, limits)
    }

    /// The same within limits of its own.
    pub(super) fn demand_within(
        &self,
        request: &Request,
        limits: Limits<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Response, Error> {
        let operation = turn.operation();
        self.demand_of(turn.own_mut().vmm.as_mut(), operation, request, limits)
    }

    fn demand_of(
        &self,
        vmm: Option<&mut Vmm>,
        operation: Operation,
        request: &Request,
        limits: Limits<'_>,
    ) -> Result<Response, Error> {
        let vmm = vmm.ok_or_else(|| self.error(operation, Reason::NoVmm { state: self.state() }))?;
        let answer = self.shared.latencies.measure(Stage::Request, || vmm.demand(request, limits));
        answer.map_err(self.vmm_failed(operation))
    }

    /// What is told of an answer that the VMM should not give.
    pub(super) fn unexpected(&self, operation: Operation, request: &Request, answer: &Response) -> Error {
        let request = RequestLine::from(request);
        let body = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        self.error(operation, firecracker::Error::UnexpectedBody { request, body })
    }
}

/// The request that makes a guest `to`.
fn switching(to: Guest) -> Request {
    match to {
        Guest::Paused => Request::pause(),
        Guest::Running | Guest::NotStarted => Request::resume(),
    }
}
