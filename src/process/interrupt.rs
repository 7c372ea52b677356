//! Reaching the calls that are in flight on one object, from any thread.

use crate::sys::eventfd::EventFd;
use crate::sys::sync::lock;
use std::io;
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
    flag: Arc<EventFd>,
}

impl Interrupts {
    /// Makes the calling thread's call reachable.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn listen(&self) -> io::Result<Listening<'_>> {
        let flag = Arc::new(EventFd::new()?);
        let mut calls = lock(&self.0);
        if calls.closed {
            flag.raise();
        }
        calls.flags.push(Arc::clone(&flag));
        Ok(Listening { interrupts: self, flag })
    }

    /// Raises the flag of every call in flight; with none in flight nothing happens, now or later.
    pub fn raise(&self) {
        lock(&self.0).flags.iter().for_each(|flag| flag.raise());
    }

    /// The same for the calls in flight and for all that are yet to come.
    pub fn close(&self) {
        lock(&self.0).closed = true;
        self.raise();
    }
}

impl Listening<'_> {
    /// The flag to poll.
    pub fn flag(&self) -> &EventFd {
        &self.flag
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        lock(&self.interrupts.0).flags.retain(|flag| !Arc::ptr_eq(flag, &self.flag));
    }
}
