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
    /// What changed since its parent was taken.
    MVM_SNAPSHOT_DIFF = 2,
    /// It cannot be read now, or is damaged: nothing but its id is known. `mvm_snapshot_info` fails and says why.
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
    /// What all its files take on the disk.
    pub allocated_bytes: u64,
    /// Its id; "" when there is no snapshot.
    pub id: [c_char; 72],
    /// The id of its parent, for a diff; or "".
    pub parent: [c_char; 72],
    /// The id of the VM that it was taken of.
    pub vm: [c_char; 72],
}

/// # Snapshots
///
/// Takes the snapshot `id` of a VM that runs or is paused. The guest is held while Firecracker writes its memory and
/// while disks are copied, and goes on then. The snapshot is a directory of its own below the state directory; it needs
/// neither the VM nor its files any more. `id` has 1 to 64 letters, digits and '-', and begins with a letter or a
/// digit. `options` is a JSON object, or NULL:
///
/// ```text
///     { "type": "full",           or "diff": only the pages that changed since the last snapshot that was taken of
///                                   this VM or that it was restored from (machine-config: "track_dirty_pages"; since
///                                   Firecracker 1.13 it works without, and holds more)
///       "when_uncertain": "full", what happens where it is not certain that a diff would hold every changed page: a full
///                                   snapshot is taken, and the report says why; or "fail": none is taken
///       "after": "resume",         or "stay_paused"
///       "disks": "copy",          or "reference": drives the guest writes to are named, not copied
///       "checksums": "omitted",   or "taken": SHA-256 of all files, for mvm_snapshot_verify
///       "deadline_ms": 600000 }
/// ```
///
/// `*report`, which may be NULL when it is not wanted:
///
/// ```text
///     { "id": "base", "type": "full", "wanted": "full", "parent": null, "directory": "…/snapshots/base",
///       "why_full": null,         why "type" is "full" where "wanted" is "diff": a sentence
///       "memory_bytes": 134217728, "memory_allocated_bytes": 134217728,
///       "paused_us": 176304,      how long the guest was held; null when it was held before, or still is
///       "memory_us": 175820, "disks_us": 12, "elapsed_us": 181007 }
/// ```
///
/// Firecracker cannot be stopped while it writes. A call that is interrupted, or whose deadline passes, returns at once;
/// what was written goes, and Firecracker lets the guest go on as soon as it is done. Until then the VM's state is in
/// doubt (`state_in_doubt` in `mvm_info`), and the next call on it waits.
///
/// Whatever can be checked is checked before the guest is paused. A snapshot that fails for such a reason leaves the
/// chain of diffs as it is; after any other failure the next snapshot is a full one.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is not started, or "when_uncertain" is "fail"), `MVM_ERR_UNSUPPORTED` (a drive that is
/// not a file, or a diff that this Firecracker or file system is not good for), `MVM_ERR_ALREADY_EXISTS`,
/// `MVM_ERR_INVALID_ARGUMENT` (not an id), `MVM_ERR_INVALID_CONFIG` (the options),
/// `MVM_ERR_NO_RESOURCES` or `MVM_ERR_VMM_REFUSED` (a full disk), `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT`,
/// `MVM_ERR_VMM_EXITED`, `MVM_ERR_IO`. The guest does what it did then, and nothing is left of the snapshot.
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

/// Gives all snapshots of the runtime, by id, and what stands among them damaged, as a JSON object:
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

/// Gives one snapshot after the other, in the order of their ids: the first whose id comes after `after`, or the very first
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

/// Returns the name of an `mvm_snapshot_kind`, the constant's own without its prefix, as JSON has it: `"diff"`; `"unknown"`
/// for any other number. The string is constant and never freed.
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

/// Gives all that is known of a snapshot as a JSON object: when, of what and by which Firecracker it was taken, the CPU,
/// the machine, its drives and files with their sizes and checksums, the snapshots it builds upon (`chain`), those that
/// build upon it (`children`), and what else would miss it (`in_use_by`).
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

/// Reads every file that a restore of the snapshot needs, those of the snapshots it builds upon included, and compares
/// it with its checksum, for at most `timeout_ms`. `*report`, which may be NULL, is a JSON object that names the files.
///
/// Errors: `MVM_ERR_DAMAGED` (which file, and how), `MVM_ERR_UNSUPPORTED` (it was taken without checksums),
/// `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (the runtime was closed),
/// `MVM_ERR_IO`. Blocks: for the disk, up to `timeout_ms`. Ownership: `*report` is the caller's, for
/// `mvm_string_free`. Since 0.1.
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

/// Turns a diff snapshot into a full one under the same id; it then needs no parent. Its memory is put together aside and
/// takes the place of the old one at once; snapshots that build upon it still do. `options` is a JSON object, or NULL:
/// `{"checksums": "kept", "deadline_ms": 600000}`. The merged snapshot has checksums when the diff had them; "taken" or
/// "omitted" decide otherwise. `*info`, which may be NULL, is what `mvm_snapshot_info` gives.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is no diff), `MVM_ERR_NOT_FOUND`, `MVM_ERR_DAMAGED`, `MVM_ERR_BUSY` (another call works
/// on it), `MVM_ERR_NO_RESOURCES` (a full disk), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`,
/// `MVM_ERR_IO`; it is what it was then.
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

/// Deletes a snapshot, damaged or not. Running VMs that map its memory go on.
///
/// Errors: `MVM_ERR_BUSY` (diffs build upon it, a pool is of it, or the pager serves a VM from it: they are named; or a VM
/// is just being made of it), `MVM_ERR_NOT_FOUND`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO`. Blocks: for the disk. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_snapshot_delete(runtime: *mut mvm_runtime, id: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let id = unsafe { argument::text(id, "id") }?;
        Ok(handle::get::<Runtime, _>(runtime)?.delete_snapshot(id)?)
    })
}

/// Makes the VM `id` of a snapshot: it goes on where the snapshot was taken. Everything that would make it fail is looked
/// for before anything is started: the files and their lengths, the version of Firecracker, the CPU, the disks, the vsock
/// socket. `options` is a JSON object, or NULL:
///
/// ```text
///     { "memory": "file",         Firecracker maps the snapshot's memory; or "pager": the library serves page faults
///       "after": "resume",         or "stay_paused"
///       "verify": "when_changed", the state's checksum, and that of files whose time stamp has changed;
///                                   or "cheap": lengths only; or "always": all checksums
///       "track_dirty_pages": false,   as in the snapshot, when left out
///       "clock_realtime": false,      1.16: the guest's clock is advanced by the time that has gone by
///       "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7",      1.12
///                              "guest_mac": "02:…"}],   told to the guest, whose device keeps the one it has
///       "vsock_override": {"uds_path": "/run/web-2.vsock"},                      1.16
///       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-2"}],  instead of what the snapshot holds
///       "mmds": {…},              the guest's metadata, which no snapshot holds
///       "pager": {
///         "run_in": "process",    mvm-keeper, which outlives the caller; or "thread": the VM ends with the caller
///         "workers": 1, "fault_around_bytes": 2097152,
///         "ahead": "nothing",     or "working_set": what was recorded; or "everything"
///         "record": {"limit_bytes": 1073741824, "for_ms": 10000} },   records the working set, for later restores
///       "mvm": {…},               instead of that section of the snapshot's spec
///       "deadline_ms": 30000 }
/// ```
///
/// Drives that the guest writes to and of which the snapshot holds a copy are copied once more, for this VM alone (by
/// reference where the file system can). A guest with metadata finds under `/mvm` a `generation_id` that no other restore
/// has; Firecracker gives Linux guests a new VMGenID besides. The VM's spec is that of the snapshot's VM with the
/// overrides: when it has ended, `mvm_start` boots that.
///
/// Errors: `MVM_ERR_UNSUPPORTED` (another CPU, another format, an override this Firecracker has not),
/// `MVM_ERR_DAMAGED` (a file is missing, cut off or altered), `MVM_ERR_NOT_FOUND` (no such snapshot, or a disk that it
/// names is gone), `MVM_ERR_ALREADY_EXISTS` (the VM, or its vsock socket), `MVM_ERR_INVALID_CONFIG` (the options),
/// `MVM_ERR_VMM_EXITED` (a pager that failed included), and those of `mvm_create`. Nothing is left then.
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

/// Has the pager of a restored VM store the working set that it has recorded so far (`"record"` in `mvm_restore`) with the
/// snapshot; later restores replay it by `"ahead": "working_set"`. Without this call it is stored when the recording's
/// limits are reached, or when the VM ends. `*stretches`, which may be NULL, says of how many stretches of memory it is.
///
/// Errors: `MVM_ERR_BAD_STATE` (nothing is recorded), `MVM_ERR_NOT_FOUND` (no pager serves the VM), `MVM_ERR_TIMEOUT`,
/// `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_working_set_store(vm: *mut mvm_vm, stretches: *mut u64) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(stretches, 0) };
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.store_working_set()? as u64);
        Ok(())
    })
}

/// Makes `count` VMs of one snapshot: all of them, or none (an owner that dies meanwhile leaves those that are whole).
/// They share the snapshot's memory in the page cache, and each has its own copy of every disk it writes to, its own vsock
/// socket (`vsock.sock` in its directory, unless the options say otherwise; 1.16) and its own `generation_id`. `options` is
/// that of `mvm_restore`, and besides:
///
/// ```text
///     { "ids": ["web-1", "web-2"],   or "prefix": "web", for web-1, web-2, …; "clone" when left out
///       "each": [{…}, {…}] }         for each VM, what differs from the rest
/// ```
///
/// In `path_on_host`, `host_dev_name` and `uds_path`, `{id}` is replaced by the VM's id and `{n}` by its number from 1:
/// `"host_dev_name": "tap{n}"`. Write `{{` and `}}` for braces there. Metadata is not changed, unless
/// `"mmds_placeholders"` is `"filled_in"`. `vms` has room for `count` handles. A few threads work for the time of the call.
///
/// Errors: those of `mvm_restore` for the first that failed, which the message names; `MVM_ERR_INVALID_CONFIG` (a list of
/// the wrong length, or a writable disk that the snapshot does not hold and that no option replaces);
/// `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` for any VM of them that is being made).
/// Blocks: up to `deadline_ms` for each. Ownership: `vms[0]` to `vms[count - 1]` are the caller's, for `mvm_release`; all
/// are NULL after an error. Since 0.1.
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
