//! The shutdown ladder: guest, SIGTERM, SIGKILL, each only when the one before has had its time.
//!
//! A pure state machine: it is told the time and whether the process has ended, and says what to do next. Who
//! sends signals and who sleeps is [`Process::shut_down`](super::Process::shut_down).
//!
//! ```text
//!            ┌───────── grace ─────────┐
//! Guest ─────┴─────────────────────────┴─► Terminate ─ TERMINATE_ALLOWANCE ─► Kill ─ kill_allowance ─► Stuck
//!   │ cannot be asked                            ▲
//!   └──────────────► Terminate ──── grace ───────┼──────────────────────────► Kill
//!                        │ has no effect         │                             ▲
//!                        └───────────────────────┼─────────────────────────────┘
//! grace 0 ───────────────────────────────────────┴──────────────────────────► Kill
//! ```

use super::ExitStatus;
use std::time::Duration;

/// How a process is to be ended.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first rung; [`Rung::Guest`] only where a guest can hear.
    pub first: Rung,
    /// The grace time. With zero, SIGKILL comes at once.
    pub grace: Duration,
    /// The longest time between two checks of the process. With `None`, nothing limits it.
    pub poll: Option<Duration>,
    /// How long to wait for the end after SIGKILL.
    pub kill_allowance: Duration,
}

/// The ways to end a process, from the gentlest to the surest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Ctrl-Alt-Del: the guest powers itself off.
    Guest,
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// What became of asking on a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The request was delivered.
    Delivered,
    /// It cannot be delivered: the rung is skipped.
    Unavailable,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask on this rung, and tell [`Ladder::answered`].
    Ask(Rung),
    /// Sleep until the process ends, at most this long.
    Sleep(Duration),
    /// It is over.
    Done(Report),
    /// SIGKILL has had its time, and the process is still there.
    Stuck,
}

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended by itself within the window.
    Graceful,
    /// The window closed before it ended.
    Forced,
    /// It had ended before it was asked.
    AlreadyExited,
}

/// What happened on the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The rung that ended it.
    pub rung: Option<Rung>,
    /// How the process ended.
    pub exit: ExitStatus,
    /// The rungs in order: when each was asked, counted from the start of the shutdown, and with what result.
    pub asked: Vec<(Rung, Duration, Asked)>,
    /// From the start of the shutdown to its end.
    pub elapsed: Duration,
}

/// After the window a VMM still gets SIGTERM, and this long to follow it: Firecracker needs 4 ms.
pub const TERMINATE_ALLOWANCE: Duration = Duration::from_millis(100);

/// The state machine.
#[derive(Debug)]
pub struct Ladder {
    plan: Plan,
    asked: Vec<(Rung, Duration, Asked)>,
}

impl Ladder {
    /// At the foot of the ladder.
    pub fn new(plan: Plan) -> Self {
        Self { plan, asked: Vec::new() }
    }

    /// What to do at `now`, counted from the start of the shutdown, when the process stands as `exit` says.
    pub fn next(&mut self, now: Duration, exit: Option<ExitStatus>) -> Step {
        if let Some(exit) = exit {
            return Step::Done(self.report(now, exit));
        }
        let Some(&(rung, since, asked)) = self.asked.last() else {
            let first = if self.plan.grace.is_zero() { Rung::Kill } else { self.plan.first };
            return Step::Ask(first);
        };
        if asked == Asked::Unavailable {
            return Step::Ask(if rung == Rung::Guest { Rung::Terminate } else { Rung::Kill });
        }
        let until = self.end_of(rung, since);
        if now < until {
            let left = until - now;
            return Step::Sleep(self.plan.poll.map_or(left, |poll| poll.min(left)));
        }
        match rung {
            Rung::Guest => Step::Ask(Rung::Terminate),
            Rung::Terminate => Step::Ask(Rung::Kill),
            Rung::Kill => Step::Stuck,
        }
    }

    /// Notes what became of asking on `rung` at `now`.
    pub fn answered(&mut self, rung: Rung, now: Duration, asked: Asked) {
        self.asked.push((rung, now, asked));
    }

    /// When the time of `rung`, asked at `since`, is up.
    fn end_of(&self, rung: Rung, since: Duration) -> Duration {
        match rung {
            Rung::Kill => since.saturating_add(self.plan.kill_allowance),
            Rung::Terminate if since >= self.plan.grace => since.saturating_add(TERMINATE_ALLOWANCE),
            Rung::Guest | Rung::Terminate => self.plan.grace,
        }
    }

    fn report(&mut self, now: Duration, exit: ExitStatus) -> Report {
        let asked = std::mem::take(&mut self.asked);
        let rung = asked.iter().rev().find(|(.., asked)| *asked == Asked::Delivered).map(|(rung, ..)| *rung);
        let in_window = |&(_, since, _): &(Rung, Duration, Asked)| since < self.plan.grace;
        let outcome = match rung {
            None if asked.is_empty() => Outcome::AlreadyExited,
            // Somebody else's SIGKILL is no more graceful than the library's own.
            _ if exit == ExitStatus::Signal(9) => Outcome::Forced,
            Some(Rung::Kill) => Outcome::Forced,
            _ if asked.iter().all(in_window) => Outcome::Graceful,
            _ => Outcome::Forced,
        };
        Report { outcome, rung, exit, asked, elapsed: now }
    }
}

#[cfg(test)]
mod tests;
