//! Keeping a VM's journal true: each change is on disk before what it announces happens.

use super::directory::{self, NotMade};
pub(super) use super::directory::{Content, OwnDisk};
use super::life::Resting;
use super::plan::Plan;
use super::spec::MvmSection;
use super::{Error, Reason, Shared, Turn, Vm, VmId};
use crate::causes::with_causes;
use crate::claims::{self, Cgroup, Claim, Making};
use crate::journal::{self, PagerRecord, Progress, Record, SpecRecord, Stage, VmmRecord, WhyNoParent};
use crate::operation::Operation;
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Vm {
    /// Changes the journal, on disk first.
    pub(super) fn note(&self, turn: &mut Turn<'_>, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut change = Some(change);
        self.note_change(turn, &mut |record| change.take().into_iter().for_each(|change| change(record)))
    }

    fn note_change(&self, turn: &mut Turn<'_>, change: &mut dyn FnMut(&mut Record)) -> Result<(), Error> {
        let mut changed = turn.own().record.clone();
        change(&mut changed);
        self.shared.state.verify().map_err(self.failed(turn.operation()))?;
        let written = journal::write(&journal::journal_file(self.files().directory()), &changed);
        written.map_err(self.failed(turn.operation()))?;
        self.publish(&changed);
        turn.own_mut().record = changed;
        Ok(())
    }

    /// From here on queries find `record`.
    fn publish(&self, record: &Record) {
        let record = Arc::new(record.clone());
        let former = std::mem::replace(&mut lock(&self.core).record, record);
        // Outside of the lock.
        drop(former);
    }

    /// What the journal says, as far as queries may know.
    pub(super) fn recorded(&self) -> Arc<Record> {
        Arc::clone(&lock(&self.core).record)
    }

    /// The next snapshot has to be a full one.
    pub(super) fn forget_last_snapshot(&self, why: WhyNoParent, turn: &mut Turn<'_>) -> Result<(), Error> {
        if turn.own().record.last_snapshot.is_none() {
            return Ok(());
        }
        self.note(turn, |record| (record.last_snapshot, record.why_no_parent) = (None, why))
    }

    /// Strikes out the VMM, which is gone. A full disk that prevents it does no harm: whoever reads the journal
    /// finds out for himself that the process is no more.
    pub(super) fn strike_out_vmm(&self, turn: &mut Turn<'_>) {
        let Some(Resting { kind, exit }) = lock(&self.core).life.rest() else { return };
        let noted = self.note(turn, |record| (record.vmm, record.exit, record.rest) = (None, exit, kind));
        noted.unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
    }

    /// Notes that a VMM is about to be started.
    pub(super) fn announce_vmm(&self, plan: &Plan, turn: &mut Turn<'_>) -> Result<(), Error> {
        let vmm = self.vmm_of(plan, turn.operation())?;
        self.note(turn, |record| {
            // The VM may have been found, with a journal of another owner and another boot.
            record.belong_to(&self.shared);
            record.firecracker = plan.binary.path().to_path_buf();
            record.announce(vmm);
        })
    }

    /// Makes the VM's directory, with a journal in it that announces the first VMM.
    pub(super) fn make_directory(
        &self,
        spec: &SpecRecord,
        content: Content,
        plan: &Plan,
        turn: &mut Turn<'_>,
    ) -> Result<NewDirectory, Error> {
        self.shared.state.verify().map_err(self.failed(turn.operation()))?;
        let vmm = self.vmm_of(plan, turn.operation())?;
        turn.own_mut().record.announce(vmm);
        let (files, record) = (self.files(), &turn.own().record);
        let path = files.directory();
        let made = directory::make(&files, &content, (&self.shared.tools, turn.limits()), |aside| {
            journal::write(&journal::spec_file(aside), spec)?;
            journal::write(&journal::journal_file(aside), record)
        });
        self.publish(record);
        let reason = match made {
            Ok(()) => return Ok(NewDirectory(Some((path.to_path_buf(), content)))),
            Err(NotMade::Exists) => Reason::DirectoryExists { path: path.into() },
            Err(NotMade::Directory(source)) => {
                Reason::File { action: "create the directory", path: path.into(), source }
            }
            Err(NotMade::Journal(source)) => source.into(),
            Err(NotMade::Copy(source)) => source.into(),
        };
        Err(self.error(turn.operation(), reason))
    }

    /// What the journal says of a VMM that is about to be started.
    fn vmm_of(&self, plan: &Plan, operation: Operation) -> Result<VmmRecord, Error> {
        let claims = plan.claims.iter().cloned().chain(self.jail_claims(operation)?).collect();
        Ok(VmmRecord {
            process: None,
            progress: Progress::Starting,
            version: plan.binary.version().to_string(),
            snapshot_version: None,
            claims: claims::makeable(claims, self.files().working_directory()),
            pager: plan.pager.as_ref().map(|_| PagerRecord { process: None }),
        })
    }
}

impl Record {
    /// The journal of a VM that is about to be made.
    pub(super) fn of_new(id: &VmId, options: &MvmSection, binary: Option<&Path>, shared: &Shared) -> Self {
        Self {
            id: id.to_string(),
            boot: shared.boot.clone(),
            owner: shared.owner,
            stage: Stage::Creating,
            on_owner_exit: options.on_owner_exit,
            console_limit: options.console.limit(),
            firecracker: binary.map(Path::to_path_buf).unwrap_or_default(),
            runs: 0,
            vmm: None,
            exit: None,
            rest: journal::EndState::Stopped,
            renamed_from: None,
            restored: None,
            last_snapshot: None,
            why_no_parent: WhyNoParent::NoneTaken,
            held_for_snapshot: false,
            pool: None,
            owner_data: options.owner_data.clone().into_text(),
        }
    }

    /// Says what the VM is about to be called; either name is right until the renaming is over.
    pub(super) fn rename(&mut self, id: &VmId) {
        self.renamed_from = Some(std::mem::replace(&mut self.id, id.to_string()));
    }

    /// Calls the VM what its directory is called; says whether the record allows that.
    pub(super) fn settle_name(&mut self, id: &VmId) -> bool {
        let former = self.renamed_from.take();
        if former.as_deref() == Some(id.as_str()) {
            self.id = id.to_string();
        }
        self.id == id.as_str()
    }

    /// From here on it is this owner's.
    pub(super) fn belong_to(&mut self, shared: &Shared) {
        self.owner = shared.owner;
        self.boot.clone_from(&shared.boot);
    }

    /// The cgroups that were made for the present VMM, in the order of their making.
    pub(super) fn own_cgroups(&self) -> Vec<&Path> {
        self.vmm.iter().flat_map(|vmm| &vmm.claims).filter_map(Claim::cgroup).collect()
    }

    /// Lets its VMM and its pager, which are to be killed, have the CPU time to end.
    pub(super) fn lift_quotas(&self) {
        let of_claims =
            self.own_cgroups().into_iter().map(|path| Cgroup::new(path.into(), Making::default()));
        of_claims.for_each(|cgroup| cgroup.lift_quota());
    }

    fn announce(&mut self, vmm: VmmRecord) {
        self.runs += 1;
        self.vmm = Some(vmm);
        (self.last_snapshot, self.why_no_parent) = (None, WhyNoParent::NoneTaken);
        self.held_for_snapshot = false;
    }
}

/// A directory that goes away again unless it is kept.
pub(super) struct NewDirectory(Option<(PathBuf, Content)>);

impl NewDirectory {
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if let Some((path, content)) = &self.0 {
            // The error that brought us here is the one to tell.
            let _removed = directory::remove(path, &content.names(), Deadline::after(directory::PATIENCE));
        }
    }
}
