//! Removal of files that a VMM may still be writing into. The kernel lets a removal wait until that write is over, which
//! takes seconds for a large memory; so a thread of its own waits, as long as there is something to remove.
//!
//! What is still there when this process ends has a name by which the next owner knows it.

use super::store;
use crate::causes::with_causes;
use crate::sys::mask::HeldSignals;
use crate::sys::sync::lock;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Garbage(Arc<Heap>);

#[derive(Debug, Default)]
struct Heap {
    inside: Mutex<Inside>,
    is_clean: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: VecDeque<PathBuf>,
    present: Option<PathBuf>,
    has_thread: bool,
}

/// A removal goes through directories without recursion.
const STACK: usize = 64 << 10;

impl Garbage {
    /// Has `path` removed. Without a thread it stays until the next call, or the next owner.
    pub(super) fn add(&self, path: PathBuf) {
        let mut inside = lock(&self.0.inside);
        inside.waiting.push_back(path);
        if inside.has_thread {
            return;
        }
        let heap = Arc::clone(&self.0);
        let held = HeldSignals::hold();
        let builder = thread::Builder::new().name("mvm-remove".to_owned()).stack_size(STACK);
        inside.has_thread = builder.spawn(move || heap.remove_all()).is_ok();
        drop(held);
    }

    /// Whether `path` is to be removed, or just being removed.
    pub(super) fn holds(&self, path: &Path) -> bool {
        let inside = lock(&self.0.inside);
        inside.waiting.iter().chain(&inside.present).any(|one| one == path)
    }

    /// Waits up to `patience` until all is removed.
    pub(super) fn wait(&self, patience: Duration) {
        let inside = lock(&self.0.inside);
        let busy = |inside: &mut Inside| inside.has_thread;
        let waited = self.0.is_clean.wait_timeout_while(inside, patience, busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Heap {
    fn remove_all(&self) {
        while let Some(path) = self.next() {
            if let Err(error) = store::clear(&path) {
                log::warn!(
                    "leftovers of a snapshot stay until the state directory is opened again: {}",
                    with_causes(&error)
                );
            }
        }
    }

    fn next(&self) -> Option<PathBuf> {
        let mut inside = lock(&self.inside);
        inside.present = inside.waiting.pop_front();
        if inside.present.is_none() {
            inside.has_thread = false;
            self.is_clean.notify_all();
        }
        inside.present.clone()
    }
}
