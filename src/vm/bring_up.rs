//! Bringing a VMM up: started after the journal announces it, made what its plan says, and taken back when that fails.

use super::life::Resting;
use super::plan::{Goal, Means, OnUnknown, Placement, Plan};
use super::timings::Timings;
use super::{Error, Guest, Reason, Turn, Vm};
use crate::causes::with_causes;
use crate::claims;
use crate::firecracker::http::RequestPath;
use crate::firecracker::{self, Binary, During, Launch, Request, Started, Version, Vmm, api};
use crate::host::{cgroups, huge_pages};
use crate::journal::{Progress, Stage};
use crate::operation::Operation;
use crate::process::{self, Cgroups, Identity};
use crate::sys::elf;
use crate::sys::sync::lock;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl Vm {
    /// The VMM's executable, which must have what the spec asks for, and the cgroups, which must have what limits ask for.
    pub(super) fn means(&self, turn: &Turn<'_>) -> Result<Means, Error> {
        if let Some(problem) = &self.spec_problem {
            return Err(self.error(turn.operation(), problem.clone()));
        }
        let placement = self.placement(turn.operation())?;
        self.check_jail(turn.operation())?;
        self.check_huge_pages(turn.operation())?;
        let found = self.shared.binaries.find(self.binary(turn.operation())?, turn.limits());
        let suitable = found.and_then(|binary| {
            self.spec.features.iter().try_for_each(|feature| binary.version().require(*feature))?;
            Ok(Means { binary, placement })
        });
        suitable.map_err(self.failed(turn.operation()))
    }

    /// A VMM takes them only when its guest starts.
    fn check_huge_pages(&self, operation: Operation) -> Result<(), Error> {
        let Some(mib) = self.spec.huge_memory_mib else { return Ok(()) };
        let wanted = mib.saturating_mul(1 << 20).div_ceil(huge_pages::BYTES);
        let available = huge_pages::pool().map_or(0, |pool| pool.available);
        if available < wanted {
            return Err(self.error(operation, Reason::HugePages { wanted, available }));
        }
        Ok(())
    }

    /// Where the VMM's executable is.
    pub(super) fn binary(&self, operation: Operation) -> Result<&Path, Error> {
        self.binary.as_deref().ok_or_else(|| self.error(operation, Reason::NoBinary))
    }

    /// The control groups of the VM's processes: the VMM, and its pager.
    fn placement(&self, operation: Operation) -> Result<Placement, Error> {
        let options = &self.spec.options;
        if let Some(limits) = &options.limits {
            let parent = options.cgroup_parent.as_ref().or(self.shared.cgroup_parent.as_ref());
            let own = cgroups::for_limits(limits, parent.map(PathBuf::as_path));
            return own.map(Placement::Own).map_err(self.failed(operation));
        }
        let directories = options.cgroup.as_ref().unwrap_or(&self.shared.cgroups);
        Cgroups::open(directories).map(Placement::Given).map_err(self.failed(operation))
    }

    /// Starts the VMM of `plan`, which the journal announces, and asks it for what the plan says. After an error it is gone,
    /// and the VM as it was.
    pub(super) fn bring_up(&self, plan: &Plan, turn: &mut Turn<'_>) -> Result<(), Error> {
        let before = self.observed().life.rest().unwrap_or(Resting::NEVER_RAN);
        let held = self.hold_uses(turn.operation());
        let spawned = held.and_then(|()| self.make_claims(turn)).and_then(|()| self.spawn(plan, turn));
        spawned.inspect_err(|_| {
            self.shared.holdings.release(self.token);
            self.end_pager();
            self.undo_claims(turn);
            self.strike_out_vmm(turn);
        })?;
        self.carry_out(plan, turn).inspect_err(|_| self.undo_launch(before, turn))
    }

    /// What the VM uses on the host is its own from here on, until its VMM has ended.
    fn hold_uses(&self, operation: Operation) -> Result<(), Error> {
        let (place, sharing) = (self.place(), self.spec.options.sharing);
        let holder = (place.id.clone(), sharing);
        let held = self.shared.holdings.hold(self.token, holder, self.spec.uses(), &place.files.view());
        held.map_err(self.failed(operation))
    }

    /// Starts what serves its page faults, and the VMM.
    fn spawn(&self, plan: &Plan, turn: &mut Turn<'_>) -> Result<(), Error> {
        let operation = turn.operation();
        self.find_jail(turn)?;
        let metrics = self.begin_metrics(turn)?;
        let own;
        let cgroups = match self.own_cgroups(turn) {
            paths if paths.is_empty() => &plan.cgroups,
            paths => {
                own = Cgroups::open(&paths).map_err(self.failed(operation))?;
                &own
            }
        };
        let confinement = self.confine(metrics.as_deref(), turn)?;
        // Comes up while the VMM does.
        plan.pager.iter().try_for_each(|paging| {
            self.start_pager(operation, paging, cgroups)?;
            self.give_pager_socket(turn)
        })?;
        let (place, arguments) = (self.place(), self.spec.options.arguments.as_slice());
        let (id, files) = (place.id.as_str(), &place.files);
        let (binary, metrics, longest_body) = (&plan.binary, metrics.as_deref(), plan.longest_body());
        let launch = Launch { binary, id, files, metrics, longest_body, arguments, cgroups, confinement };
        let vmm = Vmm::spawn(launch).map_err(self.failed(operation))?;
        // From here on a kill in another thread finds it.
        self.attend(vmm.process(), plan.binary.version());
        turn.own_mut().vmm = Some(vmm);
        Ok(())
    }

    /// The cgroups that were made for it. The one of version 2 is the first: a process can be made in that at once.
    fn own_cgroups(&self, turn: &Turn<'_>) -> Vec<PathBuf> {
        turn.own().record.own_cgroups().into_iter().rev().map(Path::to_path_buf).collect()
    }

    /// Makes of a process that was just started what its plan says.
    fn carry_out(&self, plan: &Plan, turn: &mut Turn<'_>) -> Result<(), Error> {
        let identity = turn.own().vmm.as_ref().map(|vmm| vmm.process().identity());
        self.note_process(identity, turn)?;
        let (own, limits) = turn.own_within_limits();
        let ready = own.vmm.as_mut().map_or(Ok(()), |vmm| vmm.await_ready(limits));
        ready.map_err(|source| self.error(turn.operation(), self.why_not_up(source, plan)))?;
        let format = self.settle_version(&plan.binary, turn)?;
        let (started, requests, took) = self.send_all(plan, turn)?;
        self.reach_goal(plan.goal, Timings::of(started, requests, (plan.goal, took)), turn)?;
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
        // Of what is in a jail nothing is believed, and it was copied there from the very file that was asked.
        if self.spec.options.jail.is_some() || process.is_none_or(|process| binary.is_run_by(&process)) {
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
        let version = lock(&self.core).version;
        self.note(turn, |record| {
            record.stage = Stage::Present;
            record.last_snapshot =
                record.restored.as_ref().filter(|_| record.runs == 1).map(|it| it.snapshot.clone());
            if let Some(vmm) = &mut record.vmm {
                vmm.progress = Progress::Ready;
                vmm.version = version.map_or_else(String::new, |version| version.to_string());
                vmm.snapshot_version = format.map(|version| version.to_string());
            }
        })?;
        lock(&self.core).life.owned();
        Ok(())
    }

    /// Sends the requests of a plan, one after another, and says how long each took and all of them.
    fn send_all(&self, plan: &Plan, turn: &mut Turn<'_>) -> Result<Sent, Error> {
        let operation = turn.operation();
        let (own, limits) = turn.own_within_limits();
        let Some(vmm) = own.vmm.as_mut() else { return Ok(Sent::default()) };
        let began = Instant::now();
        let mut requests = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let asked = Instant::now();
            match (vmm.demand(&step.request, limits), &step.on_unknown) {
                (Ok(_), _) => {}
                (Err(refusal), OnUnknown::Ignore) if refusal.is_unknown_path() => {
                    // From a config file it would not have told that either.
                    let id = self.id();
                    log::warn!("VM {id}: Firecracker has no such section, so it is ignored: {refusal}");
                    continue;
                }
                (Err(source), _) => {
                    let reason = match &step.link {
                        Some(link) => Reason::LinkedFile { link: link.clone(), source },
                        None => self.why_refused(source, plan),
                    };
                    return Err(self.error(operation, reason));
                }
            }
            requests.push((step.request.path.clone(), asked.elapsed()));
        }
        Ok((vmm.started(), requests, began.elapsed()))
    }

    /// A VMM that was ended because of its pager has not failed by itself. When both have used all the memory that they may,
    /// the kernel has ended both.
    fn why_refused(&self, source: firecracker::Error, plan: &Plan) -> Reason {
        match self.why_vmm_failed(source) {
            out_of_memory @ Reason::OutOfMemory(_) => out_of_memory,
            reason => {
                let lost = plan.pager.as_ref().and_then(|_| self.pager_problem());
                lost.map_or(reason, |said| Reason::PagerLost { said })
            }
        }
    }

    /// A jailer that cannot execute a VMM says that there is no such file, and means the linker of shared libraries.
    fn why_not_up(&self, source: firecracker::Error, plan: &Plan) -> Reason {
        let ended = matches!(source, firecracker::Error::Exited { during: During::Startup, .. });
        let program = plan.binary.path();
        if ended && self.spec.options.jail.is_some() && matches!(elf::is_static(program), Ok(false)) {
            return Reason::NotStatic { program: program.to_path_buf(), source };
        }
        self.why_vmm_failed(source)
    }

    fn reach_goal(&self, goal: Goal, timings: Timings, turn: &mut Turn<'_>) -> Result<(), Error> {
        {
            let mut core = self.observed();
            core.timings = timings;
            let told = match goal {
                Goal::Configured | Goal::ConfiguredInDoubt => core.life.guest_is(Guest::NotStarted),
                Goal::Loaded(guest) => {
                    core.life.loaded(guest);
                    Vec::new()
                }
            };
            self.tell_all(told);
        }
        if goal == Goal::ConfiguredInDoubt { self.ask_state(turn) } else { Ok(()) }
    }

    /// Makes what the journal says that the VMM owns on this host. A user that another VM has leased in this moment is
    /// exchanged for another one.
    fn make_claims(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        const ATTEMPTS: usize = 32;
        for _ in 1..ATTEMPTS {
            match self.try_to_make_claims(turn) {
                Err(error) if error.is_of_a_lease_that_was_taken() => self.lease_another(turn)?,
                made => return made,
            }
        }
        self.try_to_make_claims(turn)
    }

    fn try_to_make_claims(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let claims = turn.own().record.vmm.as_ref().map_or(&[][..], |vmm| &vmm.claims);
        let made = claims::make_all(claims, self.files().working_directory());
        made.map_err(self.failed(turn.operation()))
    }

    /// Undoes what the VMM of the journal owned on this host: it has ended.
    pub(super) fn undo_claims(&self, turn: &Turn<'_>) {
        if let Some(vmm) = &turn.own().record.vmm {
            claims::undo_all(&vmm.claims, self.files().working_directory());
        }
    }

    /// Takes back the VMM of a start that failed; the VM is as it was before.
    pub(super) fn undo_launch(&self, before: Resting, turn: &mut Turn<'_>) {
        turn.own().record.lift_quotas();
        if let Some(vmm) = turn.own_mut().vmm.take()
            && let Err(error) = vmm.end_at_once()
        {
            // The error that brought us here is the one to tell.
            log::warn!("VM {}: {}", self.id(), with_causes(&error));
        }
        self.end_pager();
        self.undo_claims(turn);
        let process = lock(&self.core).life.launch_undone(before);
        self.let_go_of(process.as_ref());
        self.strike_out_vmm(turn);
    }
}

/// How a VMM came up, how long each of its requests took, and all of them.
type Sent = (Started, Vec<(RequestPath, Duration)>, Duration);
