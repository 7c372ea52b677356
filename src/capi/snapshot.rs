//! Snapshots, restored VMs and clones.

use super::argument::{self, Sized32};
use super::guard::guard;
use super::handle::{self, OwnedVm};
use super::runtime::mvm_runtime;
use super::status::mvm_status;
use super::vm::mvm_vm;
use crate::runtime::Runtime;
use crate::snapshot::SnapshotSummary;
use std::ffi::c_char;
use std::ptr;

/// How much of the guest's memory a snapshot holds.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_snapshot_kind {
    /// There is no snapshot.
    MVM_SNAPSHOT_NONE = 0,
    /// All of it.
    MVM_SNAPSHOT_FULL = 1,
    /// What changed since its parent.
    MVM_SNAPSHOT_DIFF = 2,
    /// It is damaged or cannot be read now. Only its id is known. `mvm_snapshot_info` fails, and says why.
    MVM_SNAPSHOT_UNREADABLE = 3,
}

/// One of several snapshots. Set `size` to `sizeof(mvm_snapshot_summary)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_snapshot_summary {
    /// In: `sizeof(mvm_snapshot_summary)`.
    pub size: u32,
    /// How much of the memory it holds.
    pub kind: mvm_snapshot_kind,
    /// When it was taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// The size of the guest's memory.
    pub memory_bytes: u64,
    /// The disk space of all its files.
    pub allocated_bytes: u64,
    /// Its id; "" when there is no snapshot.
    pub id: [c_char; 72],
    /// The id of its parent, for a diff; or "".
    pub parent: [c_char; 72],
    /// The id of the VM.
    pub vm: [c_char; 72],
}

/// # Snapshots
///
/// Takes the snapshot `id` of a running or paused VM. The guest is paused while Firecracker writes its memory and while
/// disks are copied, and is then resumed. The snapshot is a directory of its own below the state directory. It needs
/// neither the VM nor its files any more. `id` has 1 to 64 letters, digits and '-', and begins with a letter or a
/// digit. `options` is a JSON object, or NULL:
///
/// ```text
///     { "type": "full",           or "diff": only the pages that changed since the parent, which is the last snapshot of
///                                   this VM, or the one that it was restored from (machine-config: "track_dirty_pages";
///                                   since Firecracker 1.13 it works without, and holds more)
///       "when_uncertain": "full", when a diff might lack a changed page, a full snapshot is taken, and the report says
///                                   why; or "fail": the call fails
///       "after": "resume",        or "stay_paused"
///       "disks": "copy",          or "reference": drives that the guest writes to are named, not copied
///       "checksums": "omitted",   or "taken": SHA-256 of all files, for mvm_snapshot_verify
///       "deadline_ms": 600000 }
/// ```
///
/// `*report` (`report` may be NULL):
///
/// ```text
///     { "id": "base", "type": "full", "wanted": "full", "parent": null, "directory": "…/snapshots/base",
///       "why_full": null,         why "type" is "full" although "wanted" is "diff": a sentence
///       "memory_bytes": 134217728, "memory_allocated_bytes": 134217728,
///       "paused_us": 176304,      how long the guest was paused; null when it was paused before, or still is
///       "memory_us": 175820, "disks_us": 12, "elapsed_us": 181007 }
/// ```
///
/// Firecracker cannot be stopped while it writes. A call that is interrupted, or whose deadline passes, returns at
/// once. Its files are removed, and Firecracker resumes the guest when it has finished. Until then the VM's state is in
/// doubt (`state_in_doubt` in `mvm_info`), and the next call on the VM waits.
///
/// Everything that can be checked is checked before the guest is paused. A snapshot that fails such a check does not
/// affect later diffs. After any other failure the next snapshot is a full one.
///
/// Errors: `MVM_ERR_BAD_STATE` (the VM is not started, or "when_uncertain" is "fail"), `MVM_ERR_UNSUPPORTED` (a drive
/// is not a file; or this Firecracker or file system cannot do diffs), `MVM_ERR_ALREADY_EXISTS`,
/// `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_NO_RESOURCES` or
/// `MVM_ERR_VMM_REFUSED` (the disk is full), `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT`, `MVM_ERR_VMM_EXITED`,
/// `MVM_ERR_IO`. After an error there is no snapshot and no leftovers, and the guest runs or is paused as before.
/// Blocks: for Firecracker and the disk, up to `deadline_ms`. Ownership: `*report` is the caller's, for
/// `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_create(
    vm: *mut mvm_vm,
    id: *const c_char,
    options: *const c_char,
    report: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::optional_out(report, ptr::null_mut()) };
        // SAFETY: as above.
        let (id, options) =
            unsafe { (argument::text(id, "id")?, argument::optional_text(options, "options")?) };
        let owned = handle::get::<OwnedVm, _>(vm)?;
        let told = owned.runtime.take_snapshot(&owned.vm, id, options)?;
        out.write_text(&told);
        Ok(())
    })
}

/// Returns all snapshots of the runtime, in the order of their ids, and damaged ones, as a JSON object:
///
/// ```text
///     { "snapshots": [{"id": "base", "type": "full", "parent": null, "created_unix_ms": 1764000000000, "vm": "web-1",
///                      "memory_bytes": 134217728, "allocated_bytes": 134217728}],
///       "damaged": [{"path": "…/snapshots/odd", "problem": "…"}] }
/// ```
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: for the disk. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_list(runtime: *mut mvm_runtime, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<Runtime, _>(runtime)?.list_snapshots());
        Ok(())
    })
}

/// Returns one snapshot after the other, in the order of their ids: the first whose id comes after `after`, or the very first
/// when `after` is NULL or "". After the last one the call succeeds, and `snapshot->id` is "". `after` may be `snapshot->id`
/// itself, as in `mvm_runtime_next_vm`. Each call lists the directory of the snapshots.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`; `snapshot->id` is "" then.
/// Blocks: for the disk. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_next(
    runtime: *mut mvm_runtime,
    after: *const c_char,
    snapshot: *mut mvm_snapshot_summary,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says. The string may stand in the place: it is copied first.
        let after = unsafe { argument::optional_text(after, "after") }.map(|text| text.map(str::to_owned));
        // SAFETY: as above.
        let out = unsafe { argument::sized_out(snapshot, "snapshot") }?;
        let next = handle::get::<Runtime, _>(runtime)?.next_snapshot(after?.as_deref())?;
        next.iter().for_each(|next| out.write(encode(next)));
        Ok(())
    })
}

/// Returns the name of an `mvm_snapshot_kind`, as in JSON: the constant without its prefix, in lower case, such as
/// `"diff"`. Any other number is `"unknown"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_snapshot_kind_name(kind: i32) -> *const c_char {
    let name = match kind {
        0 => c"none",
        1 => c"full",
        2 => c"diff",
        3 => c"unreadable",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Returns everything that is known of a snapshot, as a JSON object: its VM, its release of Firecracker, the CPU, the
/// machine, its drives and files with sizes and checksums; the snapshots that a restore needs (`chain`), the diffs
/// whose parent it is (`children`), and what else uses it (`in_use_by`). docs/json.md lists all keys.
///
/// Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: for the disk. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_info(
    runtime: *mut mvm_runtime,
    id: *const c_char,
    json: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let (out, id) = unsafe { (argument::out(json, ptr::null_mut(), "json")?, argument::text(id, "id")?) };
        out.write_text(&handle::get::<Runtime, _>(runtime)?.snapshot_info(id)?);
        Ok(())
    })
}

/// Reads every file that a restore of the snapshot needs, its parents' files included, and compares it with its
/// checksum. `*report` (`report` may be NULL) receives a JSON object that names the files.
///
/// Errors: `MVM_ERR_DAMAGED` (the message says which file, and how), `MVM_ERR_UNSUPPORTED` (the snapshot has no
/// checksums), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`.
/// Blocks: for the disk, up to `timeout_ms`. Ownership: `*report` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_verify(
    runtime: *mut mvm_runtime,
    id: *const c_char,
    timeout_ms: u64,
    report: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::optional_out(report, ptr::null_mut()) };
        // SAFETY: as above.
        let id = unsafe { argument::text(id, "id") }?;
        let timeout = argument::milliseconds(timeout_ms);
        let told = handle::get::<Runtime, _>(runtime)?.verify_snapshot(id, timeout)?;
        out.write_text(&told);
        Ok(())
    })
}

/// Turns a diff snapshot into a full one under the same id; it then needs no parent. The full one replaces the diff at
/// once, when it is complete. Diffs whose parent it is stay valid. `options` is a JSON object, or NULL: `{"checksums":
/// "kept", "deadline_ms": 600000}`. With "kept", the merged snapshot has checksums when the diff had them; "taken" and
/// "omitted" decide otherwise. `*info` (`info` may be NULL) receives what `mvm_snapshot_info` returns.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is not a diff), `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_BUSY` (another call
/// works on it), `MVM_ERR_NO_RESOURCES` (the disk is full), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_TIMEOUT`,
/// `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. After an error the snapshot is unchanged.
/// Blocks: for the disk, up to `deadline_ms`. Ownership: `*info` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_merge(
    runtime: *mut mvm_runtime,
    id: *const c_char,
    options: *const c_char,
    info: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::optional_out(info, ptr::null_mut()) };
        // SAFETY: as above.
        let (id, options) =
            unsafe { (argument::text(id, "id")?, argument::optional_text(options, "options")?) };
        let told = handle::get::<Runtime, _>(runtime)?.merge_snapshot(id, options)?;
        out.write_text(&told);
        Ok(())
    })
}

/// Deletes a snapshot, damaged or not. Running VMs that map its memory keep running.
///
/// Errors: `MVM_ERR_BUSY` (it is the parent of diffs, a pool uses it, or a pager serves a VM from it, which the message
/// names; or a VM is just being restored from it), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`.
/// Blocks: for the disk. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_delete(runtime: *mut mvm_runtime, id: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let id = unsafe { argument::text(id, "id") }?;
        Ok(handle::get::<Runtime, _>(runtime)?.delete_snapshot(id)?)
    })
}

/// Creates the VM `id` from a snapshot and resumes it. Everything that could make this fail is checked first: the files
/// and their lengths, the version of Firecracker, the CPU, the disks, the vsock socket. `options` is a JSON object, or
/// NULL; docs/json.md lists all keys:
///
/// ```text
///     { "memory": "file",         Firecracker maps the snapshot's memory; or "pager": the library serves page faults
///       "after": "resume",        or "stay_paused"
///       "verify": "when_changed", the state's checksum, and that of files whose time stamp has changed;
///                                   or "cheap": lengths only; or "always": all checksums
///       "track_dirty_pages": false,   as in the snapshot, when left out
///       "clock_realtime": false,      1.16: the guest's clock is advanced by the time since the snapshot
///       "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7",      1.12
///                              "guest_mac": "02:…"}],   for the guest's metadata; the device keeps its old address
///       "vsock_override": {"uds_path": "/run/web-2.vsock"},                      1.16
///       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-2"}],  instead of the snapshot's files
///       "mmds": {…},              the guest's metadata, which no snapshot holds
///       "pager": {
///         "run_in": "process",    mvm-keeper, which outlives the caller; or "thread": the VM ends with the caller
///         "workers": 1, "fault_around_bytes": 2097152,
///         "ahead": "nothing",     or "working_set": what was recorded; or "everything"
///         "record": {"limit_bytes": 1073741824, "for_ms": 10000} },   records the working set, for later restores
///       "mvm": {…},               instead of that section of the snapshot's spec
///       "owner_data": "tenant 7", text of your own (mvm_owner_data_set)
///       "deadline_ms": 30000 }
/// ```
///
/// If the guest writes to a drive and the snapshot holds a copy of it, the VM gets its own copy (a reflink where the
/// file system can do it). A guest with metadata finds under `/mvm` a `generation_id` that no other restore has.
/// Firecracker also gives Linux guests a new VMGenID. The VM's spec is that of the snapshot, with the overrides. When
/// the VM has ended, `mvm_start` boots that spec.
///
/// Errors: `MVM_ERR_UNSUPPORTED` (another CPU, another format, or an override that this Firecracker does not support),
/// `MVM_ERR_DAMAGED` (a file is missing, cut off or altered), `MVM_ERR_NOT_FOUND` (no such snapshot, or a disk that it
/// names does not exist), `MVM_ERR_ALREADY_EXISTS` (the VM, or its vsock socket), `MVM_ERR_INVALID_CONFIG` (the
/// options), `MVM_ERR_VMM_EXITED` (also when the pager failed), and those of `mvm_create`. After an error there are no
/// leftovers.
/// Blocks: up to `deadline_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_restore(
    runtime: *mut mvm_runtime,
    snapshot: *const c_char,
    id: *const c_char,
    options: *const c_char,
    vm: *mut *mut mvm_vm,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(vm, ptr::null_mut(), "vm") }?;
        // SAFETY: as above.
        let (snapshot, id) = unsafe { (argument::text(snapshot, "snapshot")?, argument::text(id, "id")?) };
        // SAFETY: as above.
        let options = unsafe { argument::optional_text(options, "options") }?;
        let runtime = handle::get::<Runtime, _>(runtime)?;
        let vm = runtime.restore(snapshot, id, options)?;
        out.write(handle::open_vm(&runtime, vm)?);
        Ok(())
    })
}

/// Stores the working set that the pager of a restored VM has recorded so far (`"record"` in `mvm_restore`) with the
/// snapshot. Later restores replay it with `"ahead": "working_set"`. Without this call, it is stored when a limit of
/// the recording is reached, or when the VM ends. `*ranges` (`ranges` may be NULL) receives the number of contiguous
/// ranges stored.
///
/// Errors: `MVM_ERR_BAD_STATE` (nothing is recorded), `MVM_ERR_NOT_FOUND` (no pager serves the VM), `MVM_ERR_TIMEOUT`,
/// `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_working_set_store(vm: *mut mvm_vm, ranges: *mut u64) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(ranges, 0) };
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.store_working_set()? as u64);
        Ok(())
    })
}

/// Creates `count` VMs from one snapshot, all or none. (If the owner dies during the call, the complete ones stay.)
/// They share the snapshot's memory in the page cache. Each has its own copy of every disk that it writes to, and its
/// own `generation_id`. With Firecracker 1.16, each has its own vsock socket too: `vsock.sock` in its directory, unless
/// the options say otherwise. `options` has the keys of `mvm_restore`, and:
///
/// ```text
///     { "ids": ["web-1", "web-2"],   or "prefix": "web", for web-1, web-2, …; "clone" when left out
///       "each": [{…}, {…}] }         options that differ, one object for each VM
/// ```
///
/// In `path_on_host`, `host_dev_name` and `uds_path`, `{id}` is replaced by the VM's id and `{n}` by its number from 1:
/// `"host_dev_name": "tap{n}"`. Write `{{` and `}}` for braces there. Metadata is not changed, unless
/// `"mmds_placeholders"` is `"filled_in"`. `vms` has room for `count` handles. A few threads work during the call.
///
/// Errors: those of `mvm_restore` for the first VM that failed, which the message names; `MVM_ERR_INVALID_CONFIG` (a
/// list of the wrong length, or a writable disk that the snapshot does not hold and that no option replaces);
/// `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` with the id of a clone that is just being created).
/// Blocks: up to `deadline_ms` for each VM. Ownership: `vms[0]` to `vms[count - 1]` are the caller's, for
/// `mvm_release`; all are NULL after an error. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_clone(
    runtime: *mut mvm_runtime,
    snapshot: *const c_char,
    count: usize,
    options: *const c_char,
    vms: *mut *mut mvm_vm,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let places = unsafe { argument::out_array(vms, count, ptr::null_mut(), "vms") }?;
        // SAFETY: as above.
        let snapshot = unsafe { argument::text(snapshot, "snapshot") }?;
        // SAFETY: as above.
        let options = unsafe { argument::optional_text(options, "options") }?;
        let runtime = handle::get::<Runtime, _>(runtime)?;
        let made = runtime.clone_vms(snapshot, count, options)?;
        handle::open_vms(&runtime, made)?.into_iter().zip(places).for_each(|(vm, place)| *place = vm);
        Ok(())
    })
}

fn encode(snapshot: &SnapshotSummary) -> mvm_snapshot_summary {
    let id = argument::fixed(&snapshot.id);
    let Some(known) = &snapshot.known else {
        return mvm_snapshot_summary {
            id,
            kind: mvm_snapshot_kind::MVM_SNAPSHOT_UNREADABLE,
            ..Sized32::empty(0)
        };
    };
    mvm_snapshot_summary {
        size: 0,
        kind: match known.parent {
            Some(_) => mvm_snapshot_kind::MVM_SNAPSHOT_DIFF,
            None => mvm_snapshot_kind::MVM_SNAPSHOT_FULL,
        },
        time_ms: known.created_unix_ms,
        memory_bytes: known.memory_bytes,
        allocated_bytes: known.allocated_bytes,
        id,
        parent: argument::fixed(known.parent.as_deref().unwrap_or_default()),
        vm: argument::fixed(&known.vm),
    }
}

impl Sized32 for mvm_snapshot_summary {
    const FIRST_SIZE: usize = 248;

    fn empty(size: u32) -> Self {
        Self {
            size,
            kind: mvm_snapshot_kind::MVM_SNAPSHOT_NONE,
            time_ms: 0,
            memory_bytes: 0,
            allocated_bytes: 0,
            id: [0; 72],
            parent: [0; 72],
            vm: [0; 72],
        }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_size_of_a_summary_is_what_0_1_had() {
        assert_eq!(size_of::<mvm_snapshot_summary>(), mvm_snapshot_summary::FIRST_SIZE);
    }
}
