//! A VM's VMM: started after the journal announces it, made what the spec or a snapshot says, and taken back when
//! that fails.

use super::lifecycle::Timings;
use super::restore::Loading;
use super::turn::Turn;
use super::{Error, Origin, State, Vm};
use crate::causes::with_causes;
use crate::firecracker::{Binary, Launch, Vmm};
use crate::journal::{Progress, Stage};
use crate::process::{self, ExitStatus, Identity};
use crate::sys::sync::lock;
use std::sync::Arc;
use std::time::Instant;

impl Vm {
    /// The VMM's executable, which must have what the spec asks for.
    pub(super) fn suitable_binary(&self, operation: &'static str, turn: &Turn<'_>) -> Result<Binary, Error> {
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

    /// Starts a VMM that the journal announces, and prepares it; after an error it is gone, and the VM as it was.
    pub(super) fn launch(
        &self,
        operation: &'static str,
        binary: &Binary,
        preparation: Preparation<'_>,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let before = self.settled();
        let metrics = self.begin_metrics(turn.limits()).inspect_err(|_| self.strike_out_vmm())?;
        let paging = match preparation {
            Preparation::Snapshot(loading) => loading.pager.as_ref(),
            Preparation::Configuration => None,
        };
        // Comes up while the VMM does.
        let paged = paging.map_or(Ok(()), |paging| self.start_pager(operation, paging));
        paged.inspect_err(|_| self.strike_out_vmm())?;
        let (place, arguments) = (self.place(), self.spec.options.arguments.as_slice());
        let (id, files) = (place.id.as_str(), &place.files);
        let launch = Launch { binary, id, files, metrics: metrics.as_deref(), arguments };
        let spawned = Vmm::spawn(&launch).inspect_err(|_| {
            self.end_pager();
            self.strike_out_vmm();
        });
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
            .and_then(|()| match preparation {
                Preparation::Configuration => self.configure(operation, turn),
                Preparation::Snapshot(loading) => self.load(operation, loading, turn),
            })
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
        let pager = self.pager_identity();
        self.note(|record| {
            if let Some(vmm) = &mut record.vmm {
                vmm.process = identity;
                vmm.pager.iter_mut().for_each(|known| known.process = pager);
            }
        })
    }

    fn note_ready(&self) -> Result<(), Error> {
        let bound = lock(&self.vmm).as_ref().map(|vmm| vmm.bound().to_vec()).unwrap_or_default();
        self.note(|record| {
            record.stage = Stage::Present;
            record.last_snapshot =
                record.restored.as_ref().filter(|_| record.runs == 1).map(|it| it.snapshot.clone());
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
            vmm.demand(&put.request, turn.limits()).map_err(|source| match &put.link {
                Some(link) => self.linked_error(operation, link, source),
                None => failed(source),
            })?;
            requests.push((put.request.path.clone(), asked.elapsed()));
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
    pub(super) fn undo_launch(&self, before: Settled) {
        if let Some(vmm) = lock(&self.vmm).take()
            && let Err(error) = vmm.end_at_once()
        {
            // The error that brought us here is the one to tell.
            log::warn!("VM {}: {}", self.id(), with_causes(&error));
        }
        self.end_pager();
        {
            let mut core = lock(&self.core);
            self.neglect(&mut core);
            (core.state, core.exit, core.in_doubt) = (before.state, before.exit, false);
        }
        self.strike_out_vmm();
    }

    pub(super) fn settled(&self) -> Settled {
        let core = self.observed();
        Settled { state: core.state, exit: core.exit }
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

/// What a VM was before an operation, and is again when that fails.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) state: State,
    exit: Option<ExitStatus>,
}
