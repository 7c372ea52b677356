//! The life of a VM: facts go in, its state and what is to be told of it come out. There is no clock, no lock and no
//! process here; whoever learns a fact says so, and tells what is to be told.
//!
//! Only a VM that has a VMM has a guest, and only one that has none rests. So no state has to be checked against
//! another one.

use super::State;
use crate::journal;
use crate::observe::events::EventKind;
use crate::process::ExitStatus;

/// A VM's life. `R` is what its VMM is held by while there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life<R> {
    presence: Presence,
    origin: Origin,
    machine: Machine<R>,
}

/// Whether there is such a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    BeingCreated,
    Present,
    Destroyed,
}

/// Where a VM comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This runtime has created it, or started it.
    Own,
    /// It ran when the runtime was opened.
    Adopted,
    /// It had no VMM when the runtime was opened.
    Orphan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Machine<R> {
    Resting(Resting),
    /// A VMM is coming up. Until its guest is known, the VM is what it was.
    Launching {
        running: R,
        before: Resting,
    },
    Up {
        running: R,
        guest: Guest,
        knowledge: Knowledge,
    },
}

/// A VM without a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resting {
    pub(super) kind: journal::EndState,
    /// How its last VMM ended.
    pub(super) exit: Option<ExitStatus>,
}

/// What a VMM's guest is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    NotStarted,
    Running,
    Paused,
}

/// What is known of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Certain,
    /// The last request that would have changed it was cut off.
    InDoubt,
    /// The VMM was adopted, and was not asked yet.
    Unasked,
}

/// Why a VMM has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// By itself, by its guest, or by a stranger.
    Itself,
    /// The library has signalled it.
    Library,
    /// Nobody served its page faults any more.
    LostPager,
}

impl<R> Life<R> {
    /// A VM that is being created.
    pub(super) fn being_created() -> Self {
        let machine = Machine::Resting(Resting::NEVER_RAN);
        Self { presence: Presence::BeingCreated, origin: Origin::Own, machine }
    }

    /// One that was found with a VMM.
    pub(super) fn adopted(running: R) -> Self {
        let machine = Machine::Up { running, guest: Guest::Running, knowledge: Knowledge::Unasked };
        Self { presence: Presence::Present, origin: Origin::Adopted, machine }
    }

    /// One that was found without.
    pub(super) fn orphan(rest: Resting) -> Self {
        Self { presence: Presence::Present, origin: Origin::Orphan, machine: Machine::Resting(rest) }
    }

    pub(super) fn presence(&self) -> Presence {
        self.presence
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn state(&self) -> State {
        match &self.machine {
            Machine::Resting(rest) | Machine::Launching { before: rest, .. } => rest.state(),
            Machine::Up { guest, .. } => guest.state(),
        }
    }

    /// What its VMM is held by.
    pub(super) fn running(&self) -> Option<&R> {
        match &self.machine {
            Machine::Resting(_) => None,
            Machine::Launching { running, .. } | Machine::Up { running, .. } => Some(running),
        }
    }

    /// How the last VMM ended; nothing while there is one.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        match &self.machine {
            Machine::Resting(rest) => rest.exit,
            Machine::Launching { .. } | Machine::Up { .. } => None,
        }
    }

    /// Whether its VMM has to be asked what the guest does.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(&self.machine, Machine::Up { knowledge: Knowledge::InDoubt | Knowledge::Unasked, .. })
    }

    /// How it rests, or rested before its VMM came.
    pub(super) fn rest(&self) -> Option<Resting> {
        match &self.machine {
            Machine::Resting(rest) | Machine::Launching { before: rest, .. } => Some(*rest),
            Machine::Up { .. } => None,
        }
    }

    /// A VMM was spawned.
    pub(super) fn launched(&mut self, running: R) {
        let before = self.rest().unwrap_or(Resting::NEVER_RAN);
        self.machine = Machine::Launching { running, before };
    }

    /// The VMM of a start that failed was ended: the VM is as it was.
    pub(super) fn launch_undone(&mut self, before: Resting) -> Option<R> {
        self.replace(Machine::Resting(before))
    }

    /// Its VMM is ready: it belongs to this owner.
    pub(super) fn owned(&mut self) {
        self.origin = Origin::Own;
    }

    /// Its VMM was adopted, and ended before it answered.
    pub(super) fn orphaned(&mut self) {
        self.origin = Origin::Orphan;
    }

    /// The guest came with a snapshot, of which `appeared` tells.
    pub(super) fn loaded(&mut self, now: Guest) {
        self.become_certain(now);
    }

    /// The guest is `now`, as the VMM's answer says. A VMM that has ended meanwhile has none.
    pub(super) fn guest_is(&mut self, now: Guest) -> Vec<EventKind> {
        let told = match (&self.machine, now) {
            (Machine::Resting(_), _) | (Machine::Up { knowledge: Knowledge::Unasked, .. }, _) => None,
            (Machine::Up { guest, .. }, now) if *guest == now => None,
            (Machine::Up { guest: Guest::Paused, .. }, Guest::Running) => Some(EventKind::Resumed),
            (_, Guest::Running) => Some(EventKind::Started),
            (_, Guest::Paused) => Some(EventKind::Paused),
            (_, Guest::NotStarted) => None,
        };
        self.become_certain(now);
        told.into_iter().collect()
    }

    /// A request that may have changed what the guest does was cut off, or went past the library.
    pub(super) fn doubted(&mut self) {
        if let Machine::Up { knowledge, .. } = &mut self.machine
            && *knowledge == Knowledge::Certain
        {
            *knowledge = Knowledge::InDoubt;
        }
    }

    /// Its VMM has ended. Gives what it was held by.
    pub(super) fn ended(&mut self, exit: ExitStatus, by: EndedBy) -> (Option<R>, Vec<EventKind>) {
        if self.running().is_none() {
            return (None, Vec::new());
        }
        let rest = Resting { kind: kind_after(exit, by), exit: Some(exit) };
        let told = (self.presence == Presence::Present).then_some(EventKind::Exited(exit));
        (self.replace(Machine::Resting(rest)), told.into_iter().collect())
    }

    /// From here on there is such a VM, as `what` tells. An end that was noticed before was not told: it is now.
    pub(super) fn appeared(&mut self, what: EventKind) -> Vec<EventKind> {
        self.presence = Presence::Present;
        let end = self.exit().map(EventKind::Exited);
        std::iter::once(what).chain(end).collect()
    }

    /// It is gone. Gives what its VMM was held by.
    pub(super) fn destroyed(&mut self) -> (Option<R>, Vec<EventKind>) {
        self.presence = Presence::Destroyed;
        let held =
            self.replace(Machine::Resting(Resting { kind: journal::EndState::Stopped, exit: self.exit() }));
        (held, vec![EventKind::Destroyed])
    }

    fn become_certain(&mut self, now: Guest) {
        let rest = Machine::Resting(Resting::NEVER_RAN);
        self.machine = match std::mem::replace(&mut self.machine, rest) {
            Machine::Launching { running, .. } | Machine::Up { running, .. } => {
                Machine::Up { running, guest: now, knowledge: Knowledge::Certain }
            }
            resting @ Machine::Resting(_) => resting,
        };
    }

    fn replace(&mut self, machine: Machine<R>) -> Option<R> {
        match std::mem::replace(&mut self.machine, machine) {
            Machine::Resting(_) => None,
            Machine::Launching { running, .. } | Machine::Up { running, .. } => Some(running),
        }
    }
}

impl Resting {
    /// Before the first VMM.
    pub(super) const NEVER_RAN: Self = Self { kind: journal::EndState::Stopped, exit: None };

    fn state(self) -> State {
        match self.kind {
            journal::EndState::Stopped => State::Stopped,
            journal::EndState::Failed => State::Failed,
        }
    }
}

impl Guest {
    pub(super) fn state(self) -> State {
        match self {
            Self::NotStarted => State::Created,
            Self::Running => State::Running,
            Self::Paused => State::Paused,
        }
    }
}

/// What the end of its VMM makes of a VM.
pub(super) fn kind_after(exit: ExitStatus, by: EndedBy) -> journal::EndState {
    match (by, exit) {
        (EndedBy::LostPager, _) => journal::EndState::Failed,
        (EndedBy::Library, _) | (EndedBy::Itself, ExitStatus::Code(0) | ExitStatus::ReapedByHost) => {
            journal::EndState::Stopped
        }
        (EndedBy::Itself, ExitStatus::Code(_) | ExitStatus::Signal(_)) => journal::EndState::Failed,
    }
}

#[cfg(test)]
mod tests;
