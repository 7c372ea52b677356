//! Reaching the calls that are in flight, from any thread and from a signal handler: all calls on one object, or those
//! that were bound to one cancel token.
//!
//! Each call has one flag, and is reached through every register that it stands in. A register is never locked while a
//! signal handler of the host could run on the same thread, so a handler that raises one does not wait for itself.

use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::poll;
use crate::sys::sync::{LockedFromSignals, lock_from_signals};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A register of calls in flight, each with its flag.
#[derive(Debug, Default)]
pub struct Interrupts(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    flags: Vec<Arc<EventFd>>,
    /// No call is to begin any more.
    closed: bool,
}

/// A call in flight, until it is dropped.
#[derive(Debug)]
pub struct Listening<'a> {
    interrupts: &'a Interrupts,
    cancel: Option<Cancel>,
    flag: Option<Arc<EventFd>>,
    began: Began,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    Undisturbed,
    /// It is to end before it does anything.
    Interrupted,
}

/// Ends the calls that are bound to it, and no others: those in flight when it is raised, and all that are made later.
/// Its clones are one token.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Interrupts>);

thread_local! {
    static BOUND: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

/// A thread whose calls are bound to a token, until this is dropped.
#[derive(Debug)]
#[must_use = "the thread is bound until this is dropped"]
pub struct Bound(Option<Cancel>);

impl Cancel {
    /// Ends every call that is bound to it with an error, now and from now on. Safe in a signal handler.
    pub fn raise(&self) {
        self.0.close();
    }

    /// Binds the calls that this thread makes from here on, until the result is dropped.
    pub fn bind(&self) -> Bound {
        Bound(Self::bind_thread(Some(self.clone())))
    }

    /// Binds them to no token, until the result is dropped.
    pub fn unbind() -> Bound {
        Bound(Self::bind_thread(None))
    }

    /// Binds them to `cancel` until something else is bound; gives what was bound before.
    pub fn bind_thread(cancel: Option<Self>) -> Option<Self> {
        BOUND.try_with(|bound| bound.replace(cancel)).unwrap_or_default()
    }

    /// The token that this thread's calls are bound to.
    pub fn of_thread() -> Option<Self> {
        BOUND.try_with(|bound| bound.borrow().clone()).unwrap_or_default()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        Cancel::bind_thread(self.0.take());
    }
}

impl Interrupts {
    /// Makes the calling thread's call reachable, here and through the token that it is bound to. With no file
    /// descriptor left it is not: a host in that need must still be able to end what it has.
    pub fn listen(&self) -> Listening<'_> {
        let flag = EventFd::new().map(Arc::new).ok();
        let cancel = Cancel::of_thread();
        let registers = [Some(self), cancel.as_ref().map(|cancel| &*cancel.0)];
        let closed = registers.into_iter().flatten().map(|register| register.enter(flag.as_ref()));
        // Each of them is entered.
        let began = match closed.fold(false, |any, one| any | one) {
            false => Began::Undisturbed,
            true => Began::Interrupted,
        };
        flag.iter().filter(|_| began == Began::Interrupted).for_each(|flag| flag.raise());
        Listening { interrupts: self, cancel, flag, began }
    }

    /// Raises the flag of every call in flight; with none in flight nothing happens, now or later. Safe in a signal
    /// handler.
    pub fn raise(&self) {
        self.calls().flags.iter().for_each(|flag| flag.raise());
    }

    /// The same for the calls in flight and for all that are yet to come.
    pub fn close(&self) {
        let mut calls = self.calls();
        calls.closed = true;
        calls.flags.iter().for_each(|flag| flag.raise());
    }

    /// Says whether no call is to begin any more.
    fn enter(&self, flag: Option<&Arc<EventFd>>) -> bool {
        let mut calls = self.calls();
        calls.flags.extend(flag.cloned());
        calls.closed
    }

    fn leave(&self, flag: &Arc<EventFd>) {
        self.calls().flags.retain(|other| !Arc::ptr_eq(other, flag));
    }

    fn calls(&self) -> LockedFromSignals<'_, Calls> {
        lock_from_signals(&self.0)
    }
}

impl Listening<'_> {
    /// The flag to poll.
    pub fn flag(&self) -> Option<&EventFd> {
        self.flag.as_deref()
    }

    /// Waits until `other` is raised, the call is to end, or the deadline has passed. Without a descriptor for one of the
    /// flags it returns sooner, and its caller looks again.
    pub fn wait_for(&self, other: Option<&EventFd>, deadline: Deadline) {
        const LOOK_AGAIN: Duration = Duration::from_millis(5);
        let is_told = self.flag.is_some() && other.is_some();
        let until = if is_told { deadline } else { deadline.or_sooner(Deadline::after(LOOK_AGAIN)) };
        // What the kernel fails to say is found out by looking.
        let _woken = poll::wait([EventFd::interest(self.flag()), EventFd::interest(other)], until);
    }

    /// Whether the call is to end.
    pub fn is_interrupted(&self) -> bool {
        self.began_interrupted() || self.flag().is_some_and(EventFd::is_raised)
    }

    /// Whether it was to end before it began; unlike the other question this one costs nothing.
    pub fn began_interrupted(&self) -> bool {
        self.began == Began::Interrupted
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(own) = &self.flag {
            self.interrupts.leave(own);
            self.cancel.iter().for_each(|cancel| cancel.0.leave(own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reaches_the_calls_that_are_bound_to_it_and_no_others() {
        let (object, mine, other) = (Interrupts::default(), Cancel::default(), Cancel::default());
        let bound = mine.bind();
        let call = object.listen();
        let others = {
            let _bound = other.bind();
            object.listen()
        };
        drop(bound);
        let unbound = object.listen();
        mine.raise();
        assert!(call.is_interrupted() && !others.is_interrupted() && !unbound.is_interrupted());
        object.raise();
        assert!(others.is_interrupted() && unbound.is_interrupted());
    }

    #[test]
    fn a_raised_token_ends_the_calls_that_are_made_later() {
        let (object, token) = (Interrupts::default(), Cancel::default());
        token.raise();
        let bound = token.bind();
        assert!(object.listen().began_interrupted());
        drop(bound);
        assert!(!object.listen().is_interrupted());
    }

    #[test]
    fn a_call_that_is_over_is_in_no_register() {
        let (object, token) = (Interrupts::default(), Cancel::default());
        let _bound = token.bind();
        drop(object.listen());
        assert!(object.calls().flags.is_empty() && token.0.calls().flags.is_empty());
    }
}
