//! One operation at a time on one VM, and the interrupt that reaches it and those who wait behind it.
//!
//! What the operations do is not known here.

use super::error::NoTurn;
use crate::process::{Interrupts, Limits, Listening};
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use std::sync::{Condvar, Mutex, PoisonError};

/// The queue before one VM.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// What the operation in flight is called.
    holder: Mutex<Option<&'static str>>,
    changed: Condvar,
    interrupts: Interrupts,
}

/// The right to be the one operation that runs.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    listening: Listening<'a>,
    deadline: Deadline,
}

impl Turns {
    /// Waits for the turn of the operation `name`.
    pub(super) fn take(&self, name: &'static str, deadline: Deadline) -> Result<Turn<'_>, NoTurn> {
        let listening = self.listen();
        // Even where no descriptor is left for a flag.
        if self.interrupts.is_closed() {
            return Err(NoTurn::Interrupted);
        }
        let mut holder = lock(&self.holder);
        while let Some(with) = *holder {
            if listening.is_interrupted() {
                return Err(NoTurn::Interrupted);
            }
            holder = match deadline.remaining() {
                None => self.changed.wait(holder).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Err(NoTurn::Busy { with }),
                Some(left) => {
                    self.changed.wait_timeout(holder, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *holder = Some(name);
        drop(holder);
        Ok(Turn { turns: self, listening, deadline })
    }

    /// Makes the calling thread reachable for `interrupt` without a turn.
    pub(super) fn listen(&self) -> Listening<'_> {
        self.interrupts.listen()
    }

    /// Ends every call in flight, and every call that waits for its turn.
    pub(super) fn interrupt(&self) {
        self.interrupts.raise();
        self.wake();
    }

    /// The same, and every call that is yet to come.
    pub(super) fn close(&self) {
        self.interrupts.close();
        self.wake();
    }

    fn wake(&self) {
        // Whoever waits has either seen the flag or is asleep once the lock is free.
        drop(lock(&self.holder));
        self.changed.notify_all();
    }
}

impl Turn<'_> {
    /// The limits of the operation.
    pub(super) fn limits(&self) -> Limits<'_> {
        Limits { deadline: self.deadline, interrupt: self.listening.flag() }
    }
}

impl Turn<'_> {
    /// Its interrupt, without its deadline: for what is awaited for a time of its own.
    pub(super) fn interrupted(&self) -> Limits<'_> {
        Limits { deadline: Deadline::NEVER, interrupt: self.listening.flag() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.turns.holder) = None;
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_turn_that_is_taken_is_waited_for_no_longer_than_the_deadline() {
        let turns = Turns::default();
        let _first = turns.take("start", Deadline::NEVER).unwrap();
        let second = turns.take("pause", Deadline::after(Duration::from_millis(20)));
        assert!(matches!(second, Err(NoTurn::Busy { with: "start" })));
    }

    #[test]
    fn an_interrupt_reaches_the_holder_and_those_who_wait() {
        let turns = Turns::default();
        let first = turns.take("start", Deadline::NEVER).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| turns.take("pause", Deadline::NEVER).map(drop));
            while !second.is_finished() {
                turns.interrupt();
            }
            assert!(matches!(second.join().unwrap(), Err(NoTurn::Interrupted)));
        });
        assert!(first.listening.is_interrupted());
    }

    #[test]
    fn an_interrupt_with_nothing_in_flight_ends_nothing_later() {
        let turns = Turns::default();
        turns.interrupt();
        assert!(!turns.take("start", Deadline::NEVER).unwrap().listening.is_interrupted());
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take("start", Deadline::NEVER).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err() && turns.take("pause", Deadline::after(Duration::ZERO)).is_ok());
    }
}
