//! Keeping a snapshot, and what it builds upon, from being deleted while a VM is being made of it.

use super::{Error, Snapshot, SnapshotId, Store};
use crate::sys::sync::lock;

/// A snapshot that stays until this is dropped.
#[derive(Debug)]
pub(crate) struct HeldSnapshot<'a> {
    _ids: Counted<'a>,
    pub(crate) snapshot: Snapshot,
}

impl Store {
    /// Holds the snapshot called `id`.
    ///
    /// # Errors
    /// When there is none, or it or one that it builds upon cannot be read.
    pub(crate) fn hold(&self, id: &SnapshotId) -> Result<HeldSnapshot<'_>, Error> {
        // Held first, and looked for then: what is found stays.
        let mut ids = Counted { store: self, ids: Vec::new() };
        ids.count(id.clone());
        loop {
            let snapshot = self.find(id)?;
            let ancestors = self.ancestors_of(&snapshot.manifest)?;
            let missing = ancestors.into_iter().filter(|one| !ids.ids.contains(one)).collect::<Vec<_>>();
            if missing.is_empty() {
                return Ok(HeldSnapshot { _ids: ids, snapshot });
            }
            // A merge may have let go of them since, so it is looked at again.
            missing.into_iter().for_each(|one| ids.count(one));
        }
    }
}

/// What is held, until it is dropped.
#[derive(Debug)]
struct Counted<'a> {
    store: &'a Store,
    ids: Vec<SnapshotId>,
}

impl Counted<'_> {
    fn count(&mut self, id: SnapshotId) {
        lock(&self.store.holds).push(id.clone());
        self.ids.push(id);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut holds = lock(&self.store.holds);
        for id in &self.ids {
            if let Some(place) = holds.iter().position(|held| held == id) {
                holds.swap_remove(place);
            }
        }
    }
}
