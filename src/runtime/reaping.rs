//! Removing what is left of VMs whose owner is gone and that nobody has started again.

use super::{Error, Runtime};
use crate::causes::with_causes;
use crate::json::object;
use crate::vm::Vm;
use serde_json::Value;
use std::sync::Arc;

/// How [`Runtime::reap`] goes about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReapOptions {
    /// Nothing is removed, and the report says what would be.
    pub dry_run: bool,
    /// VMs whose journal cannot be read or believed are ended and removed, and VMMs whose VM's directory was moved away are
    /// ended.
    pub damaged: bool,
}

impl Runtime {
    /// Removes every VM that was found without a VMM and has not been started since, and what stands in the state
    /// directory half done; says what it was, and what it left alone.
    ///
    /// # Errors
    /// When the state directory cannot be listed. What cannot be removed is in the report.
    pub fn reap(&self, options: ReapOptions) -> Result<Value, Error> {
        let ReapOptions { dry_run, damaged } = options;
        if dry_run {
            let would = self.unwanted().iter().map(remains_json).collect::<Vec<_>>();
            return Ok(report(
                dry_run,
                &would,
                (&[], &[]),
                (Vec::<Value>::new().into(), self.found.left_alone_json()),
            ));
        }
        self.shared.state.verify()?;
        // What could not be dealt with when the runtime was opened may be dealt with now.
        let mut census = self.take_census()?;
        let (ended, mut failed) = if damaged { census.end_damaged(self) } else { Default::default() };
        let mut removed = Vec::new();
        for vm in &self.unwanted() {
            let remains = remains_json(vm);
            match vm.destroy_unwanted() {
                Ok(true) => {
                    self.forget(vm);
                    removed.push(remains);
                }
                // Somebody was quicker, and has started it.
                Ok(false) => {}
                Err(error) => failed.push(object! { "id": vm.id().as_str(), "problem": with_causes(&error) }),
            }
        }
        Ok(report(dry_run, &removed, (&failed, &ended), (census.undone_json(), census.left_alone_json())))
    }
}

impl Runtime {
    /// VMs without a VMM, and those that wait in a pool that nobody has open.
    fn unwanted(&self) -> Vec<Arc<Vm>> {
        let orphans = self.list().into_iter().filter(|vm| vm.is_orphan());
        orphans.chain(self.stray_members()).collect()
    }
}

fn report(
    dry_run: bool,
    removed: &[Value],
    (failed, damaged): (&[Value], &[Value]),
    (undone, left_alone): (Value, Value),
) -> Value {
    object! {
        "dry_run": dry_run,
        "removed": removed,
        "failed": failed,
        "damaged": damaged,
        "undone": undone,
        "left_alone": left_alone,
    }
}

fn remains_json(vm: &Arc<Vm>) -> Value {
    object! { "id": vm.id().as_str(), "state": vm.state().name(), "owns": vm.remains() }
}
