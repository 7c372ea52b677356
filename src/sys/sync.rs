//! Locks that a panic elsewhere does not close for ever.

use super::mask::HeldSignals;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock. What it guards is changed only in single steps, so a panic leaves nothing half done behind.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a lock that signal handlers of the host take too: none runs on this thread while it is held, and so none waits
/// for the thread that it has interrupted.
pub fn lock_from_signals<T>(mutex: &Mutex<T>) -> LockedFromSignals<'_, T> {
    let signals = HeldSignals::hold();
    LockedFromSignals { guard: lock(mutex), _signals: signals }
}

/// See [`lock_from_signals`].
#[expect(missing_debug_implementations, reason = "a lock that is held for moments")]
pub struct LockedFromSignals<'a, T> {
    // Dropped in this order.
    guard: MutexGuard<'a, T>,
    _signals: HeldSignals,
}

impl<T> Deref for LockedFromSignals<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for LockedFromSignals<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
