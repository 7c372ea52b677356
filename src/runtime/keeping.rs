//! Seeing to it that there is a keeper when a VM needs one, and only then.

use super::{Error, Runtime};
use crate::causes::with_causes;
use crate::journal::OnOwnerExit;
use crate::keeper::KeeperHandle;
use crate::observe::events::EventKind;
use crate::sys::sync::lock;
use crate::vm::Need;

/// The token of the keeper's end among those of the VMMs.
pub(super) const KEEPER: u64 = u64::MAX;

impl Runtime {
    /// Gets what a VM with `need` needs.
    pub(super) fn provide(&self, need: Need) -> Result<(), Error> {
        if need.on_owner_exit == OnOwnerExit::Kill && self.options.keeper.is_none() {
            return Err(Error::NoKeeper);
        }
        if need.paged && self.options.keeper.is_none() {
            return Err(Error::NoPager);
        }
        if need.on_owner_exit == OnOwnerExit::Keep && !need.bounded_console && !need.paged {
            return Ok(());
        }
        let mut keeper = lock(&self.keeper);
        if keeper.as_ref().is_some_and(KeeperHandle::is_alive) {
            return Ok(());
        }
        self.let_go(keeper.take().as_ref());
        self.shared.state.verify()?;
        let held = match &self.options.keeper {
            Some(program) => KeeperHandle::find_program(&self.directory, &self.shared.boot).map_or_else(
                || {
                    let (owner, cgroups) = (self.shared.owner, &self.shared.cgroups);
                    KeeperHandle::start_program(program, &self.directory, owner, cgroups)
                },
                Ok,
            ),
            None => KeeperHandle::start_thread(&self.directory, &self.shared.boot),
        };
        let held = held.map_err(Error::Keeper)?;
        if let Some(pidfd) = held.pidfd() {
            // Without a watch its end is noticed when the next VM is made.
            let _watched = self.shared.events.watch(pidfd, KEEPER);
        }
        *keeper = Some(held);
        Ok(())
    }

    /// A runtime that was just opened has VMs of a former owner.
    pub(super) fn provide_for_all(&self) {
        let need = self.list().iter().map(|vm| vm.need()).reduce(Need::and);
        if let Some(Err(error)) = need.map(|need| self.provide(need)) {
            self.shared.events.push("", EventKind::KeeperLost(with_causes(&error)));
        }
    }

    /// The keeper has ended: another one is started when VMs need it, unless it ended before it came to work.
    pub(super) fn replace_keeper(&self) {
        let Some(former) = self.take_keeper() else { return };
        let another = KeeperHandle::find_program(&self.directory, &self.shared.boot);
        match former.last_words(&self.directory).filter(|_| another.is_none()) {
            Some(words) => self.shared.events.push("", EventKind::KeeperLost(words)),
            None => self.provide_for_all(),
        }
        self.shared.events.log();
    }

    fn take_keeper(&self) -> Option<KeeperHandle> {
        let keeper = lock(&self.keeper).take();
        self.let_go(keeper.as_ref());
        keeper
    }

    /// When the runtime closes: a program goes on for the VMs that do.
    pub(super) fn dismiss_keeper(&mut self) {
        let runs = self.list().iter().any(|vm| vm.exit_status().is_none());
        match lock(&self.keeper).take() {
            Some(KeeperHandle::Program(_)) if runs => {}
            Some(held) => held.end(),
            None => {}
        }
    }

    fn let_go(&self, keeper: Option<&KeeperHandle>) {
        if let Some(pidfd) = keeper.and_then(KeeperHandle::pidfd) {
            self.shared.events.forget(pidfd);
        }
    }
}
