//! The pager of a restored VM, as its owner holds it: started before the VMM, lost never without the VM's end.
//!
//! How page faults are served is the pager's own business. Besides the owner, the keeper watches over pagers, for an
//! owner may be gone, or not look.

use super::restore::{Paging, RunIn};
use super::{Core, Error, Vm};
use crate::firecracker::VmmFiles;
use crate::observe::events::What;
use crate::pager::{self, Figures, Held};
use crate::process::{ExitStatus, Identity};
use crate::sys::pidfd::Signal;
use crate::sys::sync::lock;
use std::sync::Arc;
use std::time::Duration;

/// How long a pager may take to end after its VMM has, working set stored.
const PATIENCE: Duration = Duration::from_secs(2);

impl Vm {
    /// Starts the pager that the VMM is going to connect to.
    pub(super) fn start_pager(&self, operation: &'static str, paging: &Paging) -> Result<(), Error> {
        let (files, owner) = (self.files(), self.shared.owner);
        let directory = files.directory();
        let failed = |source| Error::Pager { id: self.id(), operation, source };
        let listener = pager::prepare(directory, &paging.plan).map_err(failed)?;
        let held = match (paging.run_in, &self.shared.keeper) {
            (RunIn::Process, Some(program)) => Held::start_program(program, directory, owner, listener),
            (RunIn::Process | RunIn::Thread, _) => Held::start_thread(directory, owner, listener),
        };
        self.attend_pager(Arc::new(held.map_err(failed)?));
        Ok(())
    }

    /// From here on `pager` is the VM's, and its end is noticed.
    pub(super) fn attend_pager(&self, pager: Arc<Held>) {
        if let Some(pidfd) = pager.pidfd() {
            // Without a watch its end is noticed by the keeper, and when somebody looks.
            let _watched = self.shared.events.watch(pidfd, self.token);
        }
        lock(&self.core).pager = Some(pager);
    }

    /// Who serves the page faults, for the journal.
    pub(super) fn pager_identity(&self) -> Option<Identity> {
        let pager = lock(&self.core).pager.clone()?;
        pager.identity().ok()
    }

    /// A VM whose pager is gone would stop at its next page fault for ever: it is ended instead.
    pub(super) fn look_after_pager(&self, core: &mut Core) {
        let Some(pager) = core.pager.clone() else { return };
        match &core.process {
            Some(process) if !pager.is_alive() => {
                // One that has ended already says so itself.
                let _ended = process.send(Signal::Kill);
                self.tell_loss(core);
            }
            Some(_) => {}
            None if !pager.is_alive() => {
                pager.pidfd().iter().for_each(|pidfd| self.shared.events.forget(*pidfd));
                core.pager = None;
            }
            None => {}
        }
    }

    /// Tells, once, that the pager has failed or is gone.
    pub(super) fn tell_loss(&self, core: &mut Core) {
        if core.pager_loss.is_some() {
            return;
        }
        core.pager_loss = core.pager.as_ref().and_then(|pager| problem(pager, &self.files()));
        if let Some(problem) = &core.pager_loss {
            self.tell(What::PagerLost(problem.clone()));
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
            pager.end(PATIENCE);
        }
    }

    /// Whether its page faults are served from the snapshot `id`.
    pub(crate) fn is_paged_from(&self, id: &str) -> bool {
        let is_paged = lock(&self.core).pager.is_some();
        is_paged && lock(&self.record).restored.as_ref().is_some_and(|restored| restored.snapshot == id)
    }

    /// What the pager has counted.
    pub(super) fn pager_figures(&self) -> Option<Figures> {
        Figures::read(self.files().directory()).ok()
    }
}

/// A pager that has killed its VMM may not have ended itself yet, but has said that it failed.
fn problem(pager: &Held, files: &VmmFiles) -> Option<String> {
    let directory = files.directory();
    let has_failed = Figures::read(directory).is_ok_and(|figures| figures.state == pager::State::Failed);
    match pager.exit_status() {
        None | Some(ExitStatus::Code(0)) if !has_failed => None,
        None => Some(pager.last_words(directory).unwrap_or_else(|| "it said nothing".to_owned())),
        Some(exit) => Some(pager.last_words(directory).unwrap_or_else(|| format!("it has ended ({exit})"))),
    }
}
