//! Taking over a VM from an owner that is gone: what runs is held again, what was half done is undone.

use super::life::{EndedBy, Life, Resting, kind_after};
use super::remains::{self, RemainsError};
use super::{Core, Shared, Spec, Turn, Vm, VmId, directory, files_of};
use crate::firecracker::{Version, Vmm, VmmFiles};
use crate::journal::{self, OnOwnerExit, Progress, Record, SpecRecord, Stage};
use crate::observe::cgroup_usage::oom_kills;
use crate::operation::Operation;
use crate::pager::PagerHandle;
use crate::process::{ExitStatus, Process};
use crate::sys::deadline::Deadline;
use crate::sys::directory::Directory;
use crate::sys::sync::lock;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// What adoption made of a VM's directory.
#[derive(Debug)]
pub(crate) enum AdoptionOutcome {
    /// A VM that runs, and is ours now.
    Running(Vm),
    /// A VM without a VMM.
    Ended(Vm, WhyEnded),
    /// A VM whose creation was under way; nothing is left of it.
    Undone,
}

/// Why a VM that was found has no VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyEnded {
    /// It had none when its owner was last seen.
    BeforeItsOwner,
    /// Its VMM ended while no owner was there to see it, before its owner noted what it saw, or with the machine.
    WithoutOwner,
    /// Its start was under way, and was undone.
    Unstarted,
    /// It was to end with its owner.
    OnOwnerExit,
    /// What served its page faults is gone.
    PagerLost,
}

/// Why a directory was left as it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdoptionError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// A journal of another VM, as in a directory that was copied.
    #[error("its journal belongs to VM {0}")]
    OfAnother(String),
    /// What is left of the VMM.
    #[error(transparent)]
    Remains(#[from] RemainsError),
    /// The directory of a VM that never came to be.
    #[error("cannot remove the leftovers of an unfinished creation")]
    Remove(#[source] std::io::Error),
}

impl AdoptionError {
    /// Whether the journal is of no use: it cannot be read, or names a process that is not the VM's. One of a newer
    /// library, or of another VM, is whole.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Journal(journal::Error::Newer { .. } | journal::Error::Write { .. }) => false,
            Self::Journal(_) | Self::Remains(_) => true,
            Self::OfAnother(_) | Self::Remove(_) => false,
        }
    }

    /// Whether there is no journal at all.
    pub(crate) fn is_without_journal(&self) -> bool {
        matches!(self, Self::Journal(journal::Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound)
    }
}

impl Vm {
    /// Takes over the VM `id` in `directory`. After an error it is left to the next look.
    pub(crate) fn find(
        id: VmId,
        directory: &Path,
        shared: &Arc<Shared>,
    ) -> Result<AdoptionOutcome, AdoptionError> {
        let files = VmmFiles::new(directory.to_path_buf());
        let mut record = journal::read::<Record>(&journal::journal_file(directory))?;
        if !record.settle_name(&id) {
            return Err(AdoptionError::OfAnother(record.id));
        }
        if record.stage == Stage::Creating {
            remains::end_vmm(&record, &files, &shared.boot)?;
            let soon = Deadline::after(directory::PATIENCE);
            directory::remove(directory, &[], soon).map_err(AdoptionError::Remove)?;
            return Ok(AdoptionOutcome::Undone);
        }
        let ready = record.vmm.as_ref().filter(|vmm| vmm.progress == Progress::Ready);
        let why = match (&record.vmm, record.on_owner_exit) {
            (None, _) => WhyEnded::BeforeItsOwner,
            (Some(_), _) if ready.is_none() => WhyEnded::Unstarted,
            (Some(_), OnOwnerExit::Kill) if !lives(&record, shared) => WhyEnded::OnOwnerExit,
            (Some(_), _) => match remains::find_vmm(&record, &files, &shared.boot)? {
                Some(process) if matches!(process.exit_status(), Ok(None)) => match pager_of(&record)? {
                    Pager::Lost => WhyEnded::PagerLost,
                    Pager::None => {
                        return Ok(AdoptionOutcome::Running(Self::adopt(
                            id,
                            &files,
                            record,
                            (process, None),
                            shared,
                        )));
                    }
                    Pager::Serving(pager) => {
                        let adopted = Self::adopt(id, &files, record, (process, Some(pager)), shared);
                        return Ok(AdoptionOutcome::Running(adopted));
                    }
                },
                _ => WhyEnded::WithoutOwner,
            },
        };
        // It goes with its cgroups, which can still tell.
        let is_out_of_memory = why == WhyEnded::WithoutOwner && oom_kills(&record.own_cgroups()) > 0;
        let exit = remains::end_vmm(&record, &files, &shared.boot)?;
        let vm = Self::found_ended(id, &files, record, (exit, why), shared);
        lock(&vm.core).is_out_of_memory = is_out_of_memory;
        Ok(AdoptionOutcome::Ended(vm, why))
    }

    /// Asks a VMM that was adopted what its guest does; without an answer that remains in doubt. A VMM that was dying
    /// already, as after a kill that its former owner did not live to see, is gone then. Says whether it runs.
    pub(crate) fn settle_adoption(&self, deadline: Deadline) -> bool {
        let Ok(mut turn) = self.take_turn(Operation::Adopt, deadline) else { return true };
        let _in_doubt_otherwise = self.ask_state(&mut turn).and_then(|()| self.end_hold(&mut turn));
        if self.exit_status().is_none() {
            return true;
        }
        lock(&self.core).life.orphaned();
        self.tidy(&mut turn);
        false
    }

    fn adopt(
        id: VmId,
        files: &VmmFiles,
        record: Record,
        (process, pager): (Process, Option<Process>),
        shared: &Arc<Shared>,
    ) -> Self {
        let process = Arc::new(process);
        let (mut record, found) = (record, process.identity().ok());
        // It may have been found otherwise than by the journal.
        record.vmm.iter_mut().for_each(|vmm| vmm.process = found.or(vmm.process));
        let vmm = record.vmm.clone();
        let version = vmm.as_ref().and_then(|vmm| Version::parse(&format!("Firecracker v{}", vmm.version)));
        let core = Core { version, ..Core::new(Life::adopted(Arc::clone(&process)), &record) };
        let vm = Self::found(id, files, record, core, shared);
        let held = Vmm::adopt(Arc::clone(&process), files.clone());
        // Without a watch its end is noticed when somebody looks.
        let _watched = shared.events.watch(process.pidfd(), vm.token);
        let holder = (vm.id(), vm.spec.options.sharing);
        shared.holdings.note(vm.token, holder, vm.spec.uses(), &vm.view());
        shared.holdings.attend(vm.token, &process);
        pager
            .into_iter()
            .for_each(|pager| vm.attend_pager(Arc::new(PagerHandle::adopt(pager, files.directory()))));
        let spec = &vm.spec;
        vm.in_first_turn(|turn| {
            turn.own_mut().vmm = Some(held);
            // On a full disk the journal goes on naming the former owner, which changes nothing for a VM that is kept.
            let _noted = vm.note(turn, |record| {
                record.belong_to(shared);
                record
                    .vmm
                    .iter_mut()
                    .for_each(|vmm| vmm.claims.retain(|claim| remains::is_credible(claim, spec)));
            });
        });
        vm
    }

    fn found_ended(
        id: VmId,
        files: &VmmFiles,
        record: Record,
        (exit, why): (Option<ExitStatus>, WhyEnded),
        shared: &Arc<Shared>,
    ) -> Self {
        let rest = match &record.vmm {
            None => Resting { kind: record.rest, exit: record.exit },
            Some(_) => {
                let exit = exit.unwrap_or(ExitStatus::ReapedByHost);
                let by = if why == WhyEnded::WithoutOwner { EndedBy::Itself } else { EndedBy::Library };
                Resting { kind: kind_after(exit, by), exit: Some(exit) }
            }
        };
        let core = Core::new(Life::orphan(rest), &record);
        let vm = Self::found(id, files, record, core, shared);
        vm.in_first_turn(|turn| vm.strike_out_vmm(turn));
        vm
    }

    /// A VM from its journal. One whose spec cannot be read any more can do everything but start again.
    fn found(id: VmId, files: &VmmFiles, record: Record, core: Core, shared: &Arc<Shared>) -> Self {
        let read = journal::read::<SpecRecord>(&journal::spec_file(files.directory()));
        let (spec, problem) = match read.map_err(super::SpecError::from) {
            Ok(given) => match Spec::of_record_file(&given) {
                Ok(spec) => (spec, None),
                Err(problem) => (Spec::of_record(&record), Some(problem)),
            },
            Err(problem) => (Spec::of_record(&record), Some(problem)),
        };
        // A memory that was put together for a restore has been mapped, or is of no use any more. A VMM may have put a link
        // where its directory was: it is not followed.
        let memory = files_of(&spec, files.directory().to_path_buf()).memory();
        let _gone = memory
            .parent()
            .map(|parent| Directory::open(parent)?.remove_file(memory.file_name().unwrap_or_default()));
        // Not what the journal says that it was: what is executed is for the operator to say.
        let binary = spec.firecracker().or(shared.firecracker.as_deref()).map(Path::to_path_buf);
        let directory = files.directory().to_path_buf();
        Self::with(id, directory, (spec, problem), (binary, record, core), Arc::clone(shared))
    }

    /// The turn of a VM that nobody else knows of yet, which is free.
    fn in_first_turn(&self, deed: impl FnOnce(&mut Turn<'_>)) {
        if let Ok(mut turn) = self.take_turn(Operation::Adopt, Deadline::NEVER) {
            deed(&mut turn);
        }
    }
}

/// What became of the pager that the journal names.
enum Pager {
    None,
    Serving(Process),
    Lost,
}

fn pager_of(record: &Record) -> Result<Pager, RemainsError> {
    let Some(pager) = record.vmm.as_ref().and_then(|vmm| vmm.pager.as_ref()) else { return Ok(Pager::None) };
    let found = pager.process.map(Process::find).transpose()?.flatten();
    Ok(match found {
        Some(process) if matches!(process.exit_status(), Ok(None)) => Pager::Serving(process),
        _ => Pager::Lost,
    })
}

/// Whether the process that owns the VM by its journal lives on: then it has only closed its runtime.
fn lives(record: &Record, shared: &Shared) -> bool {
    record.boot == shared.boot && record.owner.is_running()
}
