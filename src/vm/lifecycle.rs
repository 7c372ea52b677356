//! Create, start, pause, resume, and any request to the VMM.

use super::turn::Turn;
use super::{Error, Origin, Presence, State, Vm};
use crate::causes::with_causes;
use crate::firecracker::http::{Method, RequestPath, Response};
use crate::firecracker::{self, Binary, Launch, Vmm};
use crate::journal::{Progress, SpecRecord, Stage};
use crate::observe::events::What;
use crate::process::{self, ExitStatus, Identity, Limits};
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the stages of the present VMM's life took.
#[derive(Clone, Debug, Default)]
pub(super) struct Timings {
    pub(super) spawn: Duration,
    pub(super) socket: Duration,
    pub(super) configure: Duration,
    /// Each request of the configuration.
    pub(super) requests: Vec<(RequestPath, Duration)>,
    pub(super) start: Duration,
    /// The last of each.
    pub(super) pause: Option<Duration>,
    pub(super) resume: Option<Duration>,
}

impl Vm {
    /// Makes its directory, starts its VMM and configures it. After an error nothing of it is left.
    pub(crate) fn create(&self, spec: &SpecRecord) -> Result<(), Error> {
        const OPERATION: &str = "create";
        let turn = self.take_turn(OPERATION, Deadline::after(self.spec.options.deadlines.create()))?;
        let binary = self.suitable_binary(OPERATION, &turn)?;
        let directory = self.make_directory(spec, &binary)?;
        self.launch(OPERATION, &binary, &turn)?;
        directory.keep();
        let mut core = self.observed();
        core.presence = Presence::Present;
        self.tell(What::Created);
        // An end that somebody has seen meanwhile was not told, for there was no VM yet.
        if let Some(exit) = core.exit.filter(|_| core.process.is_none()) {
            self.tell(What::Exited(exit));
        }
        Ok(())
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
                self.launch("start", &binary, &turn)?;
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
        self.change("pause", State::Running, State::Paused, r#"{"state":"Paused"}"#)
    }

    /// Lets the guest go on. Nothing happens when it runs already.
    ///
    /// # Errors
    /// When it is not paused, or its VMM fails.
    pub fn resume(&self) -> Result<(), Error> {
        self.change("resume", State::Paused, State::Running, r#"{"state":"Resumed"}"#)
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
        let changes_state = method != Method::Get && may_change_state(path);
        if changes_state {
            lock(&self.core).in_doubt = true;
        }
        let response = self.demand(OPERATION, (method, path, body), turn.limits());
        let answered = response.as_ref().map_or_else(Error::is_refusal, |_| true);
        if changes_state && answered && self.observed().process.is_some() {
            // Without an answer it stays in doubt; the request itself has had its own.
            let _settled = self.ask_state(OPERATION, &turn);
        }
        response
    }

    /// Asks the VMM for its state, and believes it.
    pub(super) fn ask_state(&self, operation: &'static str, turn: &Turn<'_>) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Instance {
            state: String,
        }
        let path = RequestPath::fixed("/");
        let response = self.demand(operation, (Method::Get, &path, None), turn.limits())?;
        let instance = serde_json::from_slice::<Instance>(&response.body).ok();
        let state = match instance.as_ref().map(|instance| instance.state.as_str()) {
            Some("Not started") => State::Created,
            Some("Running") => State::Running,
            Some("Paused") => State::Paused,
            _ => {
                let request = firecracker::Request { method: Method::Get, path };
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

    fn boot(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let began = Instant::now();
        let body = br#"{"action_type":"InstanceStart"}"#;
        self.demand_state("start", ("/actions", Method::Put, body), State::Running, turn)?;
        lock(&self.core).timings.start = began.elapsed();
        Ok(())
    }

    fn change(&self, operation: &'static str, from: State, to: State, body: &str) -> Result<(), Error> {
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
        self.demand_state(operation, ("/vm", Method::Patch, body.as_bytes()), to, &turn)?;
        let timings = &mut lock(&self.core).timings;
        let place = if to == State::Paused { &mut timings.pause } else { &mut timings.resume };
        *place = Some(began.elapsed());
        Ok(())
    }

    /// A request that changes the state to `to`: done, refused, or left in doubt.
    fn demand_state(
        &self,
        operation: &'static str,
        (to_path, method, body): (&'static str, Method, &[u8]),
        to: State,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let answer =
            self.demand(operation, (method, &RequestPath::fixed(to_path), Some(body)), turn.limits());
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
        (method, path, body): (Method, &RequestPath, Option<&[u8]>),
        limits: Limits<'_>,
    ) -> Result<Response, Error> {
        match lock(&self.vmm).as_mut() {
            Some(vmm) => vmm.demand(method, path, body, limits).map_err(self.vmm_error(operation)),
            None => Err(Error::NoVmm { id: self.id(), operation, state: self.state() }),
        }
    }

    /// The VMM's executable, which must have what the spec asks for.
    fn suitable_binary(&self, operation: &'static str, turn: &Turn<'_>) -> Result<Binary, Error> {
        if let Some(problem) = &self.spec_problem {
            return Err(Error::Spec { id: self.id(), operation, source: Arc::clone(problem) });
        }
        let found = self.shared.binaries.find(&self.binary, turn.limits());
        let suitable = found.and_then(|binary| {
            self.spec.features.iter().try_for_each(|feature| binary.version().require(*feature))?;
            Ok(binary)
        });
        suitable.map_err(self.vmm_error(operation))
    }

    /// Starts a VMM that the journal announces, and configures it; after an error it is gone, and the VM as it was.
    fn launch(&self, operation: &'static str, binary: &Binary, turn: &Turn<'_>) -> Result<(), Error> {
        let before = self.settled();
        let metrics = self.begin_metrics().inspect_err(|_| self.strike_out_vmm())?;
        let (place, arguments) = (self.place(), self.spec.options.arguments.as_slice());
        let (id, files) = (place.id.as_str(), &place.files);
        let launch = Launch { binary, id, files, metrics: metrics.as_deref(), arguments };
        let spawned = Vmm::spawn(&launch).inspect_err(|_| self.strike_out_vmm());
        let vmm = spawned.map_err(self.vmm_error(operation))?;
        // From here on a kill in another thread finds it.
        self.attend(vmm.process());
        {
            let mut core = lock(&self.core);
            (core.version, core.exit) = (Some(binary.version()), None);
        }
        let identity = vmm.process().identity();
        *lock(&self.vmm) = Some(vmm);
        self.note_process(operation, identity)
            .and_then(|()| self.configure(operation, turn))
            .and_then(|()| self.note_ready())
            .inspect_err(|_| self.undo_launch(before))
    }

    /// Written while the VMM comes up, so it costs no time.
    fn note_process(
        &self,
        operation: &'static str,
        identity: Result<Identity, process::Error>,
    ) -> Result<(), Error> {
        let identity = match (identity, self.exit_status()) {
            (Ok(identity), _) => Some(identity),
            // It has ended already; the first request tells how.
            (Err(_), Some(_)) => return Ok(()),
            (Err(error), None) => return Err(self.process_error(operation)(error)),
        };
        self.note(|record| record.vmm.iter_mut().for_each(|vmm| vmm.process = identity))
    }

    fn note_ready(&self) -> Result<(), Error> {
        let bound = lock(&self.vmm).as_ref().map(|vmm| vmm.bound().to_vec()).unwrap_or_default();
        self.note(|record| {
            record.stage = Stage::Present;
            if let Some(vmm) = &mut record.vmm {
                vmm.progress = Progress::Ready;
                vmm.sockets = bound;
            }
        })?;
        lock(&self.core).origin = Origin::Own;
        Ok(())
    }

    /// Makes of a process that was just started a VMM that waits for its guest's start.
    fn configure(&self, operation: &'static str, turn: &Turn<'_>) -> Result<(), Error> {
        let (began, failed) = (Instant::now(), self.vmm_error(operation));
        let mut own = lock(&self.vmm);
        let Some(vmm) = own.as_mut() else { return Ok(()) };
        vmm.await_ready(turn.limits()).map_err(&failed)?;
        let mut requests = Vec::with_capacity(self.spec.requests.len());
        for put in &self.spec.requests {
            let asked = Instant::now();
            vmm.demand(Method::Put, &put.path, Some(&put.body), turn.limits()).map_err(
                |source| match &put.link {
                    Some(link) => self.linked_error(operation, link, source),
                    None => failed(source),
                },
            )?;
            requests.push((put.path.clone(), asked.elapsed()));
            put.socket.iter().for_each(|socket| vmm.leaves(socket.clone()));
        }
        let started = vmm.started();
        drop(own);
        let mut core = self.observed();
        let (spawn, socket) = (started.spawn, started.socket);
        let configure = began.elapsed().saturating_sub(socket);
        core.timings = Timings { spawn, socket, configure, requests, ..Timings::default() };
        if core.process.is_some() {
            self.turn_into(&mut core, State::Created);
        }
        drop(core);
        if self.spec.has_unknown { self.ask_state(operation, turn) } else { Ok(()) }
    }

    /// Takes back the VMM of a start that failed; the VM is as it was before.
    fn undo_launch(&self, before: Settled) {
        if let Some(vmm) = lock(&self.vmm).take()
            && let Err(error) = vmm.end_at_once()
        {
            // The error that brought us here is the one to tell.
            log::warn!("VM {}: {}", self.id(), with_causes(&error));
        }
        {
            let mut core = lock(&self.core);
            self.neglect(&mut core);
            (core.state, core.exit, core.in_doubt) = (before.state, before.exit, false);
        }
        self.strike_out_vmm();
    }

    fn settled(&self) -> Settled {
        let core = self.observed();
        Settled { state: core.state, exit: core.exit }
    }
}

/// What a VM was before an operation, and is again when that fails.
#[derive(Clone, Copy)]
struct Settled {
    state: State,
    exit: Option<ExitStatus>,
}

fn may_change_state(path: &RequestPath) -> bool {
    ["/actions", "/vm", "/snapshot"].iter().any(|changing| path.as_str().starts_with(changing))
}
