//! The snapshots of a state directory, and VMs restored from them.

use super::{Error, Reservation, Runtime, current_directory};
use crate::journal::{PoolRecord, SpecRecord};
use crate::observe::latency::Stage;
use crate::operation::Operation;
use crate::process::Limits;
use crate::settings::{self, Section};
use crate::snapshot::{Checksums, Manifest, SnapshotId, SnapshotSummary};
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use crate::vm::{
    self, Device, GuestIdentity, Restoration, RestoreOptions, SnapshotOptions, Spec, Vm, VmId, VsockPlace,
};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long the work on a snapshot may take, unless the options say.
const LONG_MS: u64 = 600_000;

/// What a VM is restored from: the snapshot, the options, the place of its vsock socket, and its pool.
pub(super) struct RestoreInputs<'a> {
    pub(super) snapshot: &'a SnapshotId,
    pub(super) options: &'a RestoreOptions,
    pub(super) vsock: VsockPlace,
    pub(super) pool: Option<&'a PoolRecord>,
}

impl Runtime {
    /// Takes a snapshot of `vm`, which lives on when the VM does not, and reports on it. `options` is a JSON object,
    /// or nothing.
    ///
    /// # Errors
    /// When the options or the state are wrong, there is such a snapshot, the VMM fails, or the disk is full; nothing
    /// is left of the snapshot then, and the guest does what it did.
    pub fn take_snapshot(&self, vm: &Vm, id: &str, options: Option<&str>) -> Result<Value, Error> {
        let options = SnapshotOptions::parse(options).map_err(Error::of_options(Operation::Snapshot))?;
        let (id, latencies) = (SnapshotId::parse(id)?, &self.shared.latencies);
        let report = latencies.measure(Stage::Snapshot, || vm.take_snapshot(&id, &options))?;
        if let Some(paused_us) = report.get("paused_us").and_then(Value::as_u64) {
            latencies.note(Stage::SnapshotPause, Duration::from_micros(paused_us));
        }
        Ok(report)
    }

    /// All snapshots, by id, and what stands among them damaged, as JSON.
    pub fn list_snapshots(&self) -> Value {
        self.shared.snapshots.list_json()
    }

    /// All that is known of the snapshot `id`, as JSON.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn snapshot_info(&self, id: &str) -> Result<Value, Error> {
        let info = self.shared.snapshots.info(&SnapshotId::parse(id)?);
        let mut info = info.map_err(Error::of_snapshot(Operation::SnapshotInfo))?;
        info["in_use_by"] = self.users_of(id).into();
        Ok(info)
    }

    /// The first snapshot whose id comes after `after`, or the first of all.
    ///
    /// # Errors
    /// When the snapshots cannot be listed.
    pub fn next_snapshot(&self, after: Option<&str>) -> Result<Option<SnapshotSummary>, Error> {
        let next = self.shared.snapshots.next(after.unwrap_or_default());
        next.map_err(Error::of_snapshot(Operation::SnapshotInfo))
    }

    /// Reads every file of the snapshot `id`, and of those it is a diff to, and compares the checksums, within `timeout`.
    ///
    /// # Errors
    /// What is not as it was, or that no checksums were taken.
    pub fn verify_snapshot(&self, id: &str, timeout: Duration) -> Result<Value, Error> {
        let id = SnapshotId::parse(id)?;
        let listening = self.waiting.listen();
        let limits = Limits { deadline: Deadline::after(timeout), interrupt: listening.flag() };
        self.shared.snapshots.verify(&id, limits).map_err(Error::of_snapshot(Operation::VerifySnapshot))
    }

    /// Removes the snapshot `id`.
    ///
    /// # Errors
    /// While something depends on it: that is named.
    pub fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let id = SnapshotId::parse(id)?;
        self.shared.state.verify()?;
        let deleted = self.shared.snapshots.delete(&id, &self.users_of(id.as_str()));
        deleted.map_err(Error::of_snapshot(Operation::DeleteSnapshot))
    }

    /// Makes of the diff `id` a full snapshot of the same id, which depends on no other.
    ///
    /// # Errors
    /// When it is not a diff, a file of it is missing, or the disk is full. The snapshot is then unchanged.
    pub fn merge_snapshot(&self, id: &str, options: Option<&str>) -> Result<Value, Error> {
        let id = SnapshotId::parse(id)?;
        let options = merge_options(options).map_err(Error::of_options(Operation::MergeSnapshot))?;
        let (checksums, deadline_ms) = options;
        let listening = self.waiting.listen();
        let deadline = Deadline::after(Duration::from_millis(deadline_ms));
        let limits = Limits { deadline, interrupt: listening.flag() };
        self.shared.state.verify()?;
        let merged = self.shared.snapshots.merge(&id, limits, checksums);
        Ok(merged.map_err(Error::of_snapshot(Operation::MergeSnapshot))?.describe())
    }

    /// Creates the VM `id` from a snapshot, and resumes it unless the options say otherwise. `options` is a JSON object, or
    /// nothing. After an error there are no leftovers.
    ///
    /// # Errors
    /// When the id, the options or the snapshot are wrong, the snapshot does not fit this Firecracker or this CPU, or the VMM
    /// fails.
    pub fn restore(&self, snapshot: &str, id: &str, options: Option<&str>) -> Result<Arc<Vm>, Error> {
        let id = VmId::parse(id)?;
        let base = current_directory()?;
        let options = Section::parse(options, "options").and_then(|given| RestoreOptions::read(given, &base));
        let options = options.map_err(Error::of_options(Operation::Restore))?;
        let snapshot = SnapshotId::parse(snapshot)?;
        let (vsock, pool) = (VsockPlace::AsItWas, None);
        self.restore_as(id, &RestoreInputs { snapshot: &snapshot, options: &options, vsock, pool })
    }

    /// Creates the VM `id` from `inputs`.
    pub(super) fn restore_as(&self, id: VmId, inputs: &RestoreInputs<'_>) -> Result<Arc<Vm>, Error> {
        let RestoreInputs { snapshot, options, vsock, pool } = *inputs;
        let hold = self.shared.snapshots.hold(snapshot).map_err(Error::of_snapshot(Operation::Restore))?;
        let snapshot = &hold.snapshot;
        let (given, spec) = restored_spec(Operation::Restore, &id, &snapshot.manifest, (options, vsock))?;
        let identity = GuestIdentity::new()
            .map_err(|source| Error::System { action: "get random bytes for a generation id", source })?;
        let vm = self.new_vm(Operation::Restore, id, spec)?;
        self.reserve(Operation::Restore, &vm)?;
        let reservation = Reservation { runtime: self, vm: &vm };
        self.provide(vm.need().with_pager(options.wants_pager_process()))?;
        let restoration = Restoration { snapshot, options, spec: given, identity, vsock, pool };
        self.shared.latencies.measure(Stage::Restore, || vm.restore(&restoration))?;
        std::mem::forget(reservation);
        Ok(vm)
    }

    /// Plugs a device into `vm`; relative paths in its definition are relative to the caller's working directory.
    ///
    /// # Errors
    /// See [`Vm::attach`].
    pub fn attach(&self, vm: &Vm, device: Device, definition: Value) -> Result<(), Error> {
        Ok(vm.attach(device, definition, &current_directory()?)?)
    }

    /// Whatever would miss the snapshot `id`, by name.
    fn users_of(&self, id: &str) -> Vec<String> {
        let pools = lock(&self.pools)
            .iter()
            .filter(|pool| pool.is_of(id))
            .map(|pool| format!("pool {}", pool.name()))
            .collect::<Vec<_>>();
        let paged =
            self.list().into_iter().filter(|vm| vm.is_paged_from(id)).map(|vm| format!("VM {}", vm.id()));
        pools.into_iter().chain(paged).collect()
    }
}

/// What the VM `id` would be made of that is restored from the snapshot of `manifest`.
pub(super) fn restored_spec(
    operation: Operation,
    id: &VmId,
    manifest: &Manifest,
    (options, vsock): (&RestoreOptions, VsockPlace),
) -> Result<(SpecRecord, Spec), vm::Error> {
    let spec_error = |problem| vm::Error::new(id, operation, problem);
    let given = vm::spec_of(manifest, options, vsock).map_err(spec_error)?;
    let spec = Spec::of_record_file(&given).map_err(spec_error)?;
    Ok((given, spec))
}

/// What becomes of checksums, and how long a merge may take.
fn merge_options(json: Option<&str>) -> Result<(Option<Checksums>, u64), settings::Error> {
    let mut given = Section::parse(json, "options")?;
    let options = (Checksums::take_for_merge(&mut given)?, given.take_or("deadline_ms", LONG_MS)?);
    given.finish().map(|()| options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_merge() {
        reference::hold(reference::MERGE, || merge_options(None));
    }
}
