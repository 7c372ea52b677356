//! Reaching the calls that are in flight on one object, from any thread.

use crate::sys::eventfd::EventFd;
use crate::sys::sync::lock;
use std::sync::{Arc, Mutex};

/// The calls in flight, each with its flag.
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
    flag: Option<Arc<EventFd>>,
}

impl Interrupts {
    /// Makes the calling thread's call reachable. With no file descriptor left it is not: a host in that need must
    /// still be able to end what it has.
    pub fn listen(&self) -> Listening<'_> {
        let Ok(flag) = EventFd::new().map(Arc::new) else {
            return Listening { interrupts: self, flag: None };
        };
        let mut calls = lock(&self.0);
        if calls.closed {
            flag.raise();
        }
        calls.flags.push(Arc::clone(&flag));
        Listening { interrupts: self, flag: Some(flag) }
    }

    /// Raises the flag of every call in flight; with none in flight nothing happens, now or later.
    pub fn raise(&self) {
        lock(&self.0).flags.iter().for_each(|flag| flag.raise());
    }

    /// Whether no call is to begin any more.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// The same for the calls in flight and for all that are yet to come.
    pub fn close(&self) {
        lock(&self.0).closed = true;
        self.raise();
    }
}

impl Listening<'_> {
    /// The flag to poll.
    pub fn flag(&self) -> Option<&EventFd> {
        self.flag.as_deref()
    }

    /// Whether the call is to end.
    pub fn is_interrupted(&self) -> bool {
        self.flag().is_some_and(EventFd::is_raised)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(own) = &self.flag {
            lock(&self.interrupts.0).flags.retain(|flag| !Arc::ptr_eq(flag, own));
        }
    }
}
