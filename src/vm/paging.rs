//! The pager of a restored VM, as its owner holds it: started before the VMM, lost never without the VM's end.
//!
//! How page faults are served is the pager's own business. Besides the owner, the keeper watches over pagers, for an
//! owner may be gone, or not look.

use super::restore::{Paging, RunIn};
use super::{Core, Error, Reason, Vm};
use crate::causes::with_causes;
use crate::firecracker::VmmFiles;
use crate::observe::events::EventKind;
use crate::operation::Operation;
use crate::pager::{self, Figures, PagerHandle};
use crate::process::{Cgroups, ExitStatus, Identity};
use crate::sys::pidfd::Signal;
use crate::sys::sync::lock;
use std::sync::Arc;
use std::time::Duration;

/// How long a pager may take to end after its VMM has, working set stored.
const PATIENCE: Duration = Duration::from_secs(2);

impl Vm {
    /// Starts the pager that the VMM is going to connect to.
    pub(super) fn start_pager(
        &self,
        operation: Operation,
        paging: &Paging,
        cgroups: &Cgroups,
    ) -> Result<(), Error> {
        let (files, owner) = (self.files(), self.shared.owner);
        let directory = files.directory();
        paging.plan.write(directory).map_err(self.failed(operation))?;
        let bound = pager::bind(directory);
        let listener = bound.map_err(|source| {
            let path = directory.to_path_buf();
            self.error(operation, Reason::File { action: "create a pager's socket in", path, source })
        })?;
        let held = match (paging.run_in, &self.shared.keeper) {
            (RunIn::Process, Some(program)) => {
                PagerHandle::start_program(program, directory, owner, &listener, cgroups)
            }
            (RunIn::Process | RunIn::Thread, _) => PagerHandle::start_thread(directory, owner, listener),
        };
        self.attend_pager(Arc::new(held.map_err(self.failed(operation))?));
        Ok(())
    }

    /// From here on `pager` is the VM's, and its end is noticed.
    pub(super) fn attend_pager(&self, pager: Arc<PagerHandle>) {
        if let Some(pidfd) = pager.pidfd() {
            // Without a watch its end is noticed by the keeper, and when somebody looks.
            let _watched = self.shared.events.watch(pidfd, self.token);
        }
        lock(&self.core).pager = Some(pager);
    }

    /// Who serves the page faults, for the journal.
    pub(super) fn pager_identity(&self) -> Option<Identity> {
        let pager = lock(&self.core).pager.clone()?;
        // Threads of the owner go with the owner.
        Some(pager.identity().unwrap_or(self.shared.owner))
    }

    /// A VM whose pager is gone would stop at its next page fault for ever: it is ended instead.
    pub(super) fn look_after_pager(&self, core: &mut Core) {
        let Some(pager) = core.pager.clone() else { return };
        match core.life.running() {
            // It ends when its VM has.
            Some(process) if !pager.is_alive() && matches!(process.exit_status(), Ok(None)) => {
                let _told_by_its_end = process.send(Signal::Kill);
                let loss = problem(&pager, &self.files()).unwrap_or_else(|| "it has ended".to_owned());
                self.tell_loss(core, Some(loss));
            }
            Some(_) => {}
            None if !pager.is_alive() => {
                pager.pidfd().iter().for_each(|pidfd| self.shared.events.forget(*pidfd));
                core.pager = None;
            }
            None => {}
        }
    }

    /// Tells, when its VMM has ended, that the pager had failed before.
    pub(super) fn tell_why_it_ended(&self, core: &mut Core) {
        let loss = core.pager.as_ref().and_then(|pager| problem(pager, &self.files()));
        self.tell_loss(core, loss);
    }

    /// Once.
    fn tell_loss(&self, core: &mut Core, loss: Option<String>) {
        if let (None, Some(loss)) = (&core.pager_loss, loss) {
            self.tell(EventKind::PagerLost(loss.clone()));
            core.pager_loss = Some(loss);
        }
    }

    /// What is wrong with the pager, if something is.
    pub(super) fn pager_problem(&self) -> Option<String> {
        let pager = lock(&self.core).pager.clone()?;
        problem(&pager, &self.files())
    }

    /// The VMM is gone, and its pager follows.
    pub(super) fn end_pager(&self) {
        let pager = lock(&self.core).pager.take();
        if let Some(pager) = pager {
            pager.pidfd().iter().for_each(|pidfd| self.shared.events.forget(*pidfd));
            let ended = pager.end(PATIENCE);
            ended.unwrap_or_else(|error| log::warn!("VM {}: {}", self.id(), with_causes(&error)));
        }
    }

    /// Stores the working set that the pager has recorded so far with the snapshot, for later restores. Returns the number of
    /// contiguous ranges.
    ///
    /// # Errors
    /// When no pager serves it, or it records nothing.
    pub fn store_working_set(&self) -> Result<usize, Error> {
        const OPERATION: Operation = Operation::StoreWorkingSet;
        let turn = self.begin(OPERATION, self.spec.options.deadlines.request())?;
        let stored = pager::store_working_set(self.files().directory(), turn.limits());
        stored.map_err(self.failed(OPERATION))
    }

    /// Whether its page faults are served from the snapshot `id`.
    pub(crate) fn is_paged_from(&self, id: &str) -> bool {
        let core = lock(&self.core);
        core.pager.is_some()
            && core.record.restored.as_ref().is_some_and(|restored| restored.snapshot.id == id)
    }

    /// What the pager has counted.
    pub(super) fn pager_figures(&self) -> Option<Figures> {
        Figures::read(self.files().directory()).ok()
    }
}

/// A pager that has killed its VMM may not have ended itself yet, but has said that it failed.
fn problem(pager: &PagerHandle, files: &VmmFiles) -> Option<String> {
    let directory = files.directory();
    let has_failed = Figures::read(directory).is_ok_and(|figures| figures.state == pager::State::Failed);
    match pager.exit_status() {
        None | Some(ExitStatus::Code(0)) if !has_failed => None,
        None => Some(pager::last_words(directory).unwrap_or_else(|| "it does not say why".to_owned())),
        Some(exit) => Some(pager::last_words(directory).unwrap_or_else(|| format!("it has ended ({exit})"))),
    }
}
