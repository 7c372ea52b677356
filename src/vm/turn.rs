//! One operation at a time on one VM, and the interrupt that reaches it and those who wait behind it.
//!
//! What the operations do is not known here.

use super::error::NoTurn;
use crate::process::{Interrupts, Limits, Listening};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::sync::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// The queue before one VM.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: Mutex<Queue>,
    interrupts: Interrupts,
}

#[derive(Debug, Default)]
struct Queue {
    /// What the operation in flight is called.
    holder: Option<&'static str>,
    /// Those who wait, each with the flag that is raised when the turn is free.
    waiting: VecDeque<Arc<EventFd>>,
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
        if listening.began_interrupted() {
            return Err(NoTurn::Interrupted);
        }
        if self.take_if_free(name).is_err() {
            self.wait(name, &listening, deadline)?;
        }
        Ok(Turn { turns: self, listening, deadline })
    }

    /// Gives the name of the operation in flight when there is one.
    fn take_if_free(&self, name: &'static str) -> Result<(), &'static str> {
        let mut queue = lock(&self.queue);
        queue.holder.map_or(Ok(()), Err).map(|()| queue.holder = Some(name))
    }

    fn wait(&self, name: &'static str, listening: &Listening<'_>, deadline: Deadline) -> Result<(), NoTurn> {
        let place = Place::in_queue(self);
        while let Err(with) = self.take_if_free(name) {
            if listening.is_interrupted() {
                return Err(NoTurn::Interrupted);
            }
            if deadline.has_passed() {
                return Err(NoTurn::Busy { with });
            }
            place.wait(listening, deadline);
        }
        Ok(())
    }

    /// Makes the calling thread reachable for `interrupt` without a turn.
    pub(super) fn listen(&self) -> Listening<'_> {
        self.interrupts.listen()
    }

    /// Ends every call in flight, and every call that waits for its turn. Safe in a signal handler.
    pub(super) fn interrupt(&self) {
        self.interrupts.raise();
    }

    /// The same, and every call that is yet to come.
    pub(super) fn close(&self) {
        self.interrupts.close();
    }

    /// Tells the first of those who wait that the turn is free, if it is.
    fn call_next(&self) {
        let queue = lock(&self.queue);
        if let (None, Some(next)) = (queue.holder, queue.waiting.front()) {
            next.raise();
        }
    }
}

/// A place in the queue, until it is dropped.
struct Place<'a> {
    turns: &'a Turns,
    flag: Option<Arc<EventFd>>,
}

impl<'a> Place<'a> {
    fn in_queue(turns: &'a Turns) -> Self {
        let flag = EventFd::new().map(Arc::new).ok();
        lock(&turns.queue).waiting.extend(flag.clone());
        Self { turns, flag }
    }

    /// Until the turn may be free, the call is to end, or the deadline has passed.
    fn wait(&self, listening: &Listening<'_>, deadline: Deadline) {
        listening.wait_for(self.flag.as_deref(), deadline);
        self.flag.iter().for_each(|flag| flag.lower());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(own) = &self.flag {
            lock(&self.turns.queue).waiting.retain(|flag| !Arc::ptr_eq(flag, own));
            // Whoever was called and does not come must not keep the others waiting.
            self.turns.call_next();
        }
    }
}

impl Turn<'_> {
    /// The limits of the operation.
    pub(super) fn limits(&self) -> Limits<'_> {
        Limits { deadline: self.deadline, interrupt: self.listening.flag() }
    }

    /// Its interrupt, without its deadline: for what is awaited for a time of its own.
    pub(super) fn interrupted(&self) -> Limits<'_> {
        Limits { deadline: Deadline::NEVER, interrupt: self.listening.flag() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.queue).holder = None;
        self.turns.call_next();
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

    #[test]
    fn everybody_who_waits_gets_a_turn() {
        let (turns, had) = (Turns::default(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = turns.take("pause", Deadline::NEVER).unwrap();
                        had.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(had.into_inner(), 1600);
        assert!(lock(&turns.queue).waiting.is_empty());
    }

    #[test]
    fn a_cancelled_call_that_waits_gives_up_and_leaves_the_others_their_turn() {
        let turns = Turns::default();
        let first = turns.take("start", Deadline::NEVER).unwrap();
        let token = crate::process::Cancel::default();
        std::thread::scope(|scope| {
            let cancelled = scope.spawn(|| {
                let _bound = token.bind();
                turns.take("pause", Deadline::NEVER).map(drop)
            });
            let other = scope.spawn(|| turns.take("resume", Deadline::NEVER).map(drop));
            token.raise();
            assert!(matches!(cancelled.join().unwrap(), Err(NoTurn::Interrupted)));
            drop(first);
            other.join().unwrap().unwrap();
        });
    }
}
