//! A VM's VMM: started after the journal announces it, made what the spec or a snapshot says, and taken back when
//! that fails.

use super::life::Rest;
use super::restore::Loading;
use super::timings::Timings;
use super::{Error, Guest, Reason, Turn, Vm};
use crate::causes::with_causes;
use crate::firecracker::{Binary, Launch, Request, Version, Vmm, api};
use crate::journal::{self, Progress, Stage};
use crate::operation::Operation;
use crate::process::{self, Cgroups, Identity};
use crate::sys::sync::lock;
use std::path::Path;
use std::time::Instant;

impl Vm {
    /// The VMM's executable, which must have what the spec asks for.
    pub(super) fn suitable_binary(&self, turn: &Turn<'_>) -> Result<Binary, Error> {
        if let Some(problem) = &self.spec_problem {
            return Err(self.error(turn.operation(), problem.clone()));
        }
        // Looked at before anything is made.
        drop(self.cgroups(turn.operation())?);
        let found = self.shared.binaries.find(self.binary(turn.operation())?, turn.limits());
        let suitable = found.and_then(|binary| {
            self.spec.features.iter().try_for_each(|feature| binary.version().require(*feature))?;
            Ok(binary)
        });
        suitable.map_err(self.failed(turn.operation()))
    }

    /// Where the VMM's executable is.
    pub(super) fn binary(&self, operation: Operation) -> Result<&Path, Error> {
        self.binary.as_deref().ok_or_else(|| self.error(operation, Reason::NoBinary))
    }

    /// The control groups of the VM's processes: the VMM, and its pager.
    pub(super) fn cgroups(&self, operation: Operation) -> Result<Cgroups, Error> {
        let directories = self.spec.options.cgroup.as_ref().unwrap_or(&self.shared.cgroups);
        Cgroups::open(directories).map_err(self.failed(operation))
    }

    /// Starts a VMM that the journal announces, and prepares it; after an error it is gone, and the VM as it was.
    pub(super) fn launch(
        &self,
        binary: &Binary,
        preparation: Preparation<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let never_ran = Rest { kind: journal::Rest::Stopped, exit: None };
        let before = self.observed().life.rest().unwrap_or(never_ran);
        self.spawn(binary, preparation, turn).inspect_err(|_| {
            self.end_pager();
            self.strike_out_vmm(turn);
        })?;
        self.prepare(binary, preparation, turn).inspect_err(|_| self.undo_launch(before, turn))
    }

    /// Starts what serves its page faults, and the VMM.
    fn spawn(&self, binary: &Binary, preparation: Preparation<'_>, turn: &mut Turn<'_>) -> Result<(), Error> {
        let operation = turn.operation();
        let metrics = self.begin_metrics(turn)?;
        if let Preparation::Snapshot(Loading { pager: Some(paging), .. }) = preparation {
            // Comes up while the VMM does.
            self.start_pager(operation, paging)?;
        }
        let (place, arguments) = (self.place(), self.spec.options.arguments.as_slice());
        let (id, files, cgroups) = (place.id.as_str(), &place.files, &self.cgroups(operation)?);
        let longest_body = match preparation {
            Preparation::Configuration => self.spec.longest_body(),
            Preparation::Snapshot(loading) => self.spec.longest_body().max(loading.longest_body()),
        };
        let metrics = metrics.as_deref();
        let launch = Launch { binary, id, files, metrics, longest_body, arguments, cgroups };
        let vmm = Vmm::spawn(&launch).map_err(self.failed(operation))?;
        // From here on a kill in another thread finds it.
        self.attend(vmm.process(), binary.version());
        turn.own_mut().vmm = Some(vmm);
        Ok(())
    }

    /// Makes of a process that was just started what the spec or a snapshot says.
    fn prepare(
        &self,
        binary: &Binary,
        preparation: Preparation<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let identity = turn.own().vmm.as_ref().map(|vmm| vmm.process().identity());
        self.note_process(identity, turn)?;
        let (own, limits) = turn.own_within_limits();
        let ready = own.vmm.as_mut().map_or(Ok(()), |vmm| vmm.await_ready(limits));
        ready.map_err(self.failed(turn.operation()))?;
        let format = self.settle_version(binary, turn)?;
        match preparation {
            Preparation::Configuration => self.configure(turn)?,
            Preparation::Snapshot(loading) => self.load(loading, turn)?,
        }
        self.note_ready(format, turn)
    }

    /// Written while the VMM comes up, so it costs no time.
    fn note_process(
        &self,
        identity: Option<Result<Identity, process::Error>>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let identity = match (identity, self.exit_status()) {
            (Some(Ok(identity)), _) => Some(identity),
            // It has ended already; the first request tells how.
            (None, _) | (Some(Err(_)), Some(_)) => return Ok(()),
            (Some(Err(error)), None) => return Err(self.error(turn.operation(), error)),
        };
        let pager = self.pager_identity();
        self.note(turn, |record| {
            if let Some(vmm) = &mut record.vmm {
                vmm.process = identity;
                vmm.pager.iter_mut().for_each(|known| known.process = pager);
            }
        })
    }

    /// Finds out the release that runs, and the format of its snapshots; nothing when that cannot be told for certain.
    /// Later it could not: by then another file may stand at the path, and the guest may own its VMM.
    fn settle_version(&self, binary: &Binary, turn: &mut Turn<'_>) -> Result<Option<Version>, Error> {
        let process = lock(&self.core).life.running().cloned();
        if process.is_none_or(|process| binary.is_run_by(&process)) {
            return self.format_of(binary, turn);
        }
        let answer = self.demand(&Request::describe_version(), turn)?;
        let Some(version) = api::version_of_answer(&answer.body) else { return Ok(None) };
        if version == binary.version() {
            return self.format_of(binary, turn);
        }
        lock(&self.core).version = Some(version);
        self.shared.binaries.forget(binary);
        let binary = self.shared.binaries.find(binary.path(), turn.limits());
        let binary = binary.map_err(self.failed(turn.operation()))?;
        if binary.version() == version { self.format_of(&binary, turn) } else { Ok(None) }
    }

    fn format_of(&self, binary: &Binary, turn: &Turn<'_>) -> Result<Option<Version>, Error> {
        let asked = self.shared.binaries.snapshot_version(binary, turn.limits());
        asked.map(Some).map_err(self.failed(turn.operation()))
    }

    fn note_ready(&self, format: Option<Version>, turn: &mut Turn<'_>) -> Result<(), Error> {
        let bound = turn.own().vmm.as_ref().map(|vmm| vmm.bound().to_vec()).unwrap_or_default();
        let version = lock(&self.core).version;
        self.note(turn, |record| {
            record.stage = Stage::Present;
            record.last_snapshot =
                record.restored.as_ref().filter(|_| record.runs == 1).map(|it| it.snapshot.clone());
            if let Some(vmm) = &mut record.vmm {
                vmm.progress = Progress::Ready;
                vmm.sockets = bound;
                vmm.version = version.map_or_else(String::new, |version| version.to_string());
                vmm.snapshot_version = format.map(|version| version.to_string());
            }
        })?;
        lock(&self.core).life.owned();
        Ok(())
    }

    /// Makes of a process that was just started a VMM that waits for its guest's start.
    fn configure(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let (began, operation) = (Instant::now(), turn.operation());
        let (own, limits) = turn.own_within_limits();
        let Some(vmm) = own.vmm.as_mut() else { return Ok(()) };
        let mut requests = Vec::with_capacity(self.spec.requests.len());
        for put in &self.spec.requests {
            let asked = Instant::now();
            match vmm.demand(&put.request, limits) {
                Err(refusal) if put.is_unknown_to(&refusal) => {
                    // From a config file it would not have told that either.
                    log::warn!(
                        "VM {}: ignored by Firecracker, which has no such section: {refusal}",
                        self.id()
                    );
                    continue;
                }
                done => done.map_err(|source| match &put.link {
                    Some(link) => self.error(operation, Reason::LinkedFile { link: link.clone(), source }),
                    None => self.error(operation, source),
                })?,
            };
            requests.push((put.request.path.clone(), asked.elapsed()));
            put.socket.iter().for_each(|socket| vmm.leaves(socket.clone()));
        }
        let started = vmm.started();
        let (spawn, socket) = (started.spawn, started.socket);
        let configure = began.elapsed();
        {
            let mut core = self.observed();
            core.timings = Timings { spawn, socket, configure, requests, ..Timings::default() };
            let told = core.life.guest_is(Guest::NotStarted);
            self.tell_all(told);
        }
        if self.spec.has_unknown { self.ask_state(turn) } else { Ok(()) }
    }

    /// Takes back the VMM of a start that failed; the VM is as it was before.
    pub(super) fn undo_launch(&self, before: Rest, turn: &mut Turn<'_>) {
        if let Some(vmm) = turn.own_mut().vmm.take()
            && let Err(error) = vmm.end_at_once()
        {
            // The error that brought us here is the one to tell.
            log::warn!("VM {}: {}", self.id(), with_causes(&error));
        }
        self.end_pager();
        let process = lock(&self.core).life.launch_undone(before);
        self.let_go_of(process.as_ref());
        self.strike_out_vmm(turn);
    }
}

/// What makes a microVM of a process that was just started.
#[derive(Clone, Copy)]
pub(super) enum Preparation<'a> {
    /// The requests of the spec.
    Configuration,
    /// A snapshot, which it loads.
    Snapshot(&'a Loading),
}
