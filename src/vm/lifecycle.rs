//! Create, start, pause, resume, and any request to the VMM.

use super::launch::Preparation;
use super::record::Content;
use super::turn::Turn;
use super::{Error, Presence, State, Vm};
use crate::firecracker::api::InstanceState;
use crate::firecracker::http::{Method, RequestPath, Response};
use crate::firecracker::{self, Request, RequestLine};
use crate::journal::{PoolRecord, SpecRecord, WhyNoParent};
use crate::observe::events::What;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use std::time::{Duration, Instant};

/// How long the stages of the present VMM's life took.
#[derive(Clone, Debug, Default)]
pub(super) struct Timings {
    pub(super) spawn: Duration,
    pub(super) socket: Duration,
    pub(super) configure: Duration,
    /// Loading a snapshot, instead of a configuration.
    pub(super) load: Option<Duration>,
    /// Each request of the configuration.
    pub(super) requests: Vec<(RequestPath, Duration)>,
    pub(super) start: Duration,
    /// The last of each.
    pub(super) pause: Option<Duration>,
    pub(super) resume: Option<Duration>,
}

impl Vm {
    /// Makes its directory, starts its VMM and configures it. After an error nothing of it is left.
    pub(crate) fn create(&self, spec: &SpecRecord, pool: Option<&PoolRecord>) -> Result<(), Error> {
        const OPERATION: &str = "create";
        let turn = self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.create()))?;
        let binary = self.suitable_binary(OPERATION, &turn)?;
        lock(&self.record).pool = pool.cloned();
        let links = self.spec.links().cloned().collect();
        let content = Content { links, copies: Vec::new() };
        let directory = self.make_directory(spec, content, self.vmm_to_be(&binary), &turn)?;
        self.launch(OPERATION, &binary, Preparation::Configuration, &turn)?;
        directory.keep();
        self.appear(What::Created);
        Ok(())
    }

    /// From here on there is such a VM.
    pub(super) fn appear(&self, what: What) {
        let mut core = self.observed();
        core.presence = Presence::Present;
        self.tell(what);
        // An end that somebody has seen meanwhile was not told, for there was no VM yet.
        if let Some(exit) = core.exit.filter(|_| core.process.is_none()) {
            self.tell(What::Exited(exit));
        }
    }

    /// Starts the guest; a VM whose VMM has ended gets a new one first. Nothing happens when it runs already.
    ///
    /// # Errors
    /// When it is paused, or its VMM fails; a VM that was stopped is stopped again then.
    pub fn start(&self) -> Result<(), Error> {
        let turn = self.begin("start", self.spec.options.deadlines.start())?;
        let before = self.settled();
        match before.state {
            State::Running => Ok(()),
            State::Paused => Err(self.wrong_state("start", before.state, Some("resume it"))),
            State::Created => self.boot(&turn),
            State::Stopped | State::Failed => {
                // A VMM that ended by itself has left its sockets.
                self.tidy();
                let binary = self.suitable_binary("start", &turn)?;
                self.announce_vmm(&binary)?;
                self.launch("start", &binary, Preparation::Configuration, &turn)?;
                // What a section has started is not to be started again.
                match self.state() {
                    State::Running => Ok(()),
                    _ => self.boot(&turn).inspect_err(|_| self.undo_launch(before)),
                }
            }
        }
    }

    /// Holds the guest. Nothing happens when it is held already.
    ///
    /// # Errors
    /// When it does not run, or its VMM fails.
    pub fn pause(&self) -> Result<(), Error> {
        self.change("pause", State::Running, State::Paused, &Request::pause())
    }

    /// Lets the guest go on. Nothing happens when it runs already.
    ///
    /// # Errors
    /// When it is not paused, or its VMM fails.
    pub fn resume(&self) -> Result<(), Error> {
        self.change("resume", State::Paused, State::Running, &Request::resume())
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
        const OPERATION: &str = "send a request to";
        let turn = self.begin(OPERATION, self.spec.options.deadlines.request())?;
        let request = Request::new(method, path.clone(), body);
        let changes_state = request.may_change_state();
        if request.may_change_what_a_diff_holds() {
            self.forget_last_snapshot(WhyNoParent::ForeignRequest)?;
        }
        if changes_state {
            lock(&self.core).in_doubt = true;
        }
        let response = self.demand(OPERATION, &request, turn.limits());
        let answered = response.as_ref().map_or_else(Error::is_refusal, |_| true);
        if changes_state && answered && self.observed().process.is_some() {
            // Without an answer it stays in doubt; the request itself has had its own.
            let _settled = self.ask_state(OPERATION, &turn);
        }
        response
    }

    /// Asks the VMM for its state, and believes it.
    pub(super) fn ask_state(&self, operation: &'static str, turn: &Turn<'_>) -> Result<(), Error> {
        let request = Request::describe_instance();
        let response = self.demand(operation, &request, turn.limits())?;
        let state = match InstanceState::of_answer(&response.body) {
            Some(InstanceState::NotStarted) => State::Created,
            Some(InstanceState::Running) => State::Running,
            Some(InstanceState::Paused) => State::Paused,
            None => {
                let request = RequestLine::from(&request);
                let body = String::from_utf8_lossy(&response.body).chars().take(200).collect();
                return Err(self.vmm_error(operation)(firecracker::Error::UnexpectedBody { request, body }));
            }
        };
        let mut core = self.observed();
        if core.process.is_some() {
            self.turn_into(&mut core, state);
        }
        Ok(())
    }

    pub(super) fn boot(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let began = Instant::now();
        self.demand_state("start", &Request::start(), State::Running, turn.limits())?;
        lock(&self.core).timings.start = began.elapsed();
        Ok(())
    }

    fn change(
        &self,
        operation: &'static str,
        from: State,
        to: State,
        request: &Request,
    ) -> Result<(), Error> {
        let turn = self.begin(operation, self.spec.options.deadlines.request())?;
        let state = self.state();
        if state == to {
            return Ok(());
        }
        if state != from {
            let advice = (state != State::Paused && state != State::Running).then_some("start it first");
            return Err(self.wrong_state(operation, state, advice));
        }
        let began = Instant::now();
        self.demand_state(operation, request, to, turn.limits())?;
        let timings = &mut lock(&self.core).timings;
        let place = if to == State::Paused { &mut timings.pause } else { &mut timings.resume };
        *place = Some(began.elapsed());
        Ok(())
    }

    /// A request that changes the state to `to`: done, refused, or left in doubt.
    pub(super) fn demand_state(
        &self,
        operation: &'static str,
        request: &Request,
        to: State,
        limits: Limits<'_>,
    ) -> Result<(), Error> {
        let answer = self.demand(operation, request, limits);
        let mut core = self.observed();
        if core.process.is_some() {
            match &answer {
                Ok(_) => self.turn_into(&mut core, to),
                Err(error) if error.is_refusal() => {}
                Err(_) => core.in_doubt = true,
            }
        }
        answer.map(drop)
    }

    pub(super) fn demand(
        &self,
        operation: &'static str,
        request: &Request,
        limits: Limits<'_>,
    ) -> Result<Response, Error> {
        match lock(&self.vmm).as_mut() {
            Some(vmm) => vmm.demand(request, limits).map_err(self.vmm_error(operation)),
            None => Err(Error::NoVmm { id: self.id(), operation, state: self.state() }),
        }
    }
}
