//! One operation at a time on one VM, and the interrupt that reaches it and those who wait behind it.
//!
//! A turn owns what only the operation in flight may touch, so whoever has none cannot. What the operations do is not
//! known here.

use crate::operation::Operation;
use crate::process::{Interrupts, Limits, Listening};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::sync::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use thiserror::Error;

/// The queue before one VM, and what the operation in flight owns.
#[derive(Debug, Default)]
pub(super) struct Turns<T> {
    queue: Queue,
    /// Locked by whoever has the turn, so nobody ever waits for it.
    own: Mutex<T>,
    interrupts: Interrupts,
}

/// The right to be the one operation that runs.
#[derive(Debug)]
pub(super) struct Turn<'a, T> {
    // Dropped in this order: whoever is called next finds `own` unlocked.
    own: MutexGuard<'a, T>,
    _holding: Holding<'a>,
    listening: Listening<'a>,
    operation: Operation,
    deadline: Deadline,
}

/// Why an operation did not get its turn.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NoTurn {
    /// Another operation outlasted the deadline.
    #[error("its {} is still running; interrupt that call, or wait for it", with.name())]
    Busy {
        /// What it is busy with.
        with: Operation,
    },
    /// The call was interrupted.
    #[error("the call was interrupted")]
    Interrupted,
}

#[derive(Debug, Default)]
struct Queue(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    /// The operation in flight.
    holder: Option<Operation>,
    /// Those who wait, each with the flag that is raised when the turn is free.
    waiting: VecDeque<Arc<EventFd>>,
}

impl<T> Turns<T> {
    /// A free turn, which owns `own`.
    pub(super) fn new(own: T) -> Self {
        Self { queue: Queue::default(), own: Mutex::new(own), interrupts: Interrupts::default() }
    }

    /// Waits for the turn of `operation`.
    pub(super) fn take(&self, operation: Operation, deadline: Deadline) -> Result<Turn<'_, T>, NoTurn> {
        let listening = self.listen();
        if listening.began_interrupted() {
            return Err(NoTurn::Interrupted);
        }
        let holding = match self.queue.take_if_free(operation) {
            Ok(holding) => holding,
            Err(_) => self.queue.wait(operation, &listening, deadline)?,
        };
        Ok(Turn { own: lock(&self.own), _holding: holding, listening, operation, deadline })
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
}

impl<T> Turn<'_, T> {
    /// What it was taken for.
    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    /// The limits of the operation.
    pub(super) fn limits(&self) -> Limits<'_> {
        Limits { deadline: self.deadline, interrupt: self.listening.flag() }
    }

    /// Its interrupt, without its deadline: for what is awaited for a time of its own.
    pub(super) fn interrupted(&self) -> Limits<'_> {
        Limits { deadline: Deadline::NEVER, interrupt: self.listening.flag() }
    }

    /// What it owns.
    pub(super) fn own(&self) -> &T {
        &self.own
    }

    /// The same, to change it.
    pub(super) fn own_mut(&mut self) -> &mut T {
        &mut self.own
    }

    /// The same, with the limits of the operation.
    pub(super) fn own_within_limits(&mut self) -> (&mut T, Limits<'_>) {
        let limits = Limits { deadline: self.deadline, interrupt: self.listening.flag() };
        (&mut self.own, limits)
    }
}

impl Queue {
    /// Gives the operation in flight when there is one.
    fn take_if_free(&self, operation: Operation) -> Result<Holding<'_>, Operation> {
        let mut line = lock(&self.0);
        if let Some(holder) = line.holder {
            return Err(holder);
        }
        line.holder = Some(operation);
        Ok(Holding(self))
    }

    fn wait(
        &self,
        operation: Operation,
        listening: &Listening<'_>,
        deadline: Deadline,
    ) -> Result<Holding<'_>, NoTurn> {
        let place = Place::in_queue(self);
        loop {
            match self.take_if_free(operation) {
                Ok(holding) => return Ok(holding),
                Err(_) if listening.is_interrupted() => return Err(NoTurn::Interrupted),
                Err(with) if deadline.has_passed() => return Err(NoTurn::Busy { with }),
                Err(_) => place.wait(listening, deadline),
            }
        }
    }

    /// Tells the first of those who wait that the turn is free, if it is.
    fn call_next(&self) {
        let line = lock(&self.0);
        if let (None, Some(next)) = (line.holder, line.waiting.front()) {
            next.raise();
        }
    }
}

/// The turn itself, until it is dropped.
#[derive(Debug)]
struct Holding<'a>(&'a Queue);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).holder = None;
        self.0.call_next();
    }
}

/// A place in the queue, until it is dropped.
struct Place<'a> {
    queue: &'a Queue,
    flag: Option<Arc<EventFd>>,
}

impl<'a> Place<'a> {
    fn in_queue(queue: &'a Queue) -> Self {
        let flag = EventFd::new().map(Arc::new).ok();
        lock(&queue.0).waiting.extend(flag.clone());
        Self { queue, flag }
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
            lock(&self.queue.0).waiting.retain(|flag| !Arc::ptr_eq(flag, own));
            // Whoever was called and does not come must not keep the others waiting.
            self.queue.call_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_turn_that_is_taken_is_waited_for_no_longer_than_the_deadline() {
        let turns = Turns::new(());
        let _first = turns.take(Operation::Start, Deadline::NEVER).unwrap();
        let second = turns.take(Operation::Pause, Deadline::after(Duration::from_millis(20)));
        assert!(matches!(second, Err(NoTurn::Busy { with: Operation::Start })));
    }

    #[test]
    fn an_interrupt_reaches_the_holder_and_those_who_wait() {
        let turns = Turns::new(());
        let first = turns.take(Operation::Start, Deadline::NEVER).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| turns.take(Operation::Pause, Deadline::NEVER).map(drop));
            while !second.is_finished() {
                turns.interrupt();
            }
            assert!(matches!(second.join().unwrap(), Err(NoTurn::Interrupted)));
        });
        assert!(first.listening.is_interrupted());
    }

    #[test]
    fn an_interrupt_with_nothing_in_flight_ends_nothing_later() {
        let turns = Turns::new(());
        turns.interrupt();
        assert!(!turns.take(Operation::Start, Deadline::NEVER).unwrap().listening.is_interrupted());
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::new(());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.take(Operation::Start, Deadline::NEVER).unwrap();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err() && turns.take(Operation::Pause, Deadline::after(Duration::ZERO)).is_ok());
    }

    #[test]
    fn everybody_who_waits_gets_a_turn() {
        let (turns, had) = (Turns::new(()), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let turn = turns.take(Operation::Pause, Deadline::NEVER).unwrap();
                        had.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(had.into_inner(), 1600);
        assert!(lock(&turns.queue.0).waiting.is_empty());
    }

    #[test]
    fn a_cancelled_call_that_waits_gives_up_and_leaves_the_others_their_turn() {
        let turns = Turns::new(());
        let first = turns.take(Operation::Start, Deadline::NEVER).unwrap();
        let token = crate::process::Cancel::default();
        std::thread::scope(|scope| {
            let cancelled = scope.spawn(|| {
                let _bound = token.bind();
                turns.take(Operation::Pause, Deadline::NEVER).map(drop)
            });
            let other = scope.spawn(|| turns.take(Operation::Resume, Deadline::NEVER).map(drop));
            token.raise();
            assert!(matches!(cancelled.join().unwrap(), Err(NoTurn::Interrupted)));
            drop(first);
            other.join().unwrap().unwrap();
        });
    }
}
