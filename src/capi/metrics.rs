//! What VMs have counted, and what they use of the host.

use super::argument;
use super::guard::guard;
use super::handle::{self, OwnedVm};
use super::runtime::mvm_runtime;
use super::status::mvm_status;
use super::vm::mvm_vm;
use crate::runtime::Runtime;
use std::ffi::c_char;
use std::ptr;

/// # Metrics
///
/// Returns what the VM has counted since it was created, over all its starts and owners, and what its VMM's process
/// uses now, as a JSON object:
///
/// ```text
///     { "id": "web-1", "state": "running",
///       "host": { "cpu_user_us": 120000, "cpu_system_us": 40000, "rss_bytes": 52428800, "threads": 3, "cgroup": "/…" },
///       "cgroup": { "memory_bytes": 104857600, "oom_kills": 0, "cpu_us": 160000, "pids": 4, … },
///       "flushes": 12,
///       "core": { "vcpu_exits": {…}, "block": {…}, "net": {…}, "vsock": {…}, "uart": {…}, "lost": {…}, … },
///       "totals": {…} }      Firecracker's own document, its numbers added up over all flushes
/// ```
///
/// Firecracker writes its counts once a minute, when the guest powers off, and on `mvm_metrics_flush`. When it is
/// killed, the last minute is lost. `core.lost` says what Firecracker itself lost, how many lines were damaged, and how
/// many bytes were not read because there were too many (`skipped_bytes`). `host` is null while no VMM runs, and `cgroup`
/// also for a VM without `limits`. The rest
/// is null for a VM whose spec has a `metrics` section.
///
/// Errors: `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_TIMEOUT` (another process was reading the same metrics all the
/// time), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`, `MVM_ERR_NO_RESOURCES`.
/// Blocks: for the disk, and up to `request_ms` while another process reads the same metrics. Ownership: `*json` is the
/// caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_metrics(vm: *mut mvm_vm, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedVm, _>(vm)?.vm.metrics()?);
        Ok(())
    })
}

/// Makes the VMM write its counts now, for `mvm_metrics` to read.
///
/// Errors: `MVM_ERR_BAD_STATE` (its guest was not started), and those of `mvm_start`. Blocks: up to `request_ms`.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_metrics_flush(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.flush_metrics()?))
}

/// Returns the counts of the runtime's VMs, what their processes use, and what the runtime itself did, in the text
/// format of Prometheus (0.0.4). `options` is a JSON object, or NULL:
///
/// ```text
///     { "set": "core",           the most useful numbers; "all" adds every number that Firecracker counts
///       "ids": ["web-1"],        only these VMs
///       "prefix": "web-",        only VMs whose ids begin with this
///       "deadline_ms": 5000 }    for the whole call
/// ```
///
/// `mvm_vm_…` is about one VM: the label `vm` is its id, `device` a drive or interface.
/// `mvm_firecracker_<group>_<field>` is Firecracker's own number, with "all". Other `mvm_…` families are about the
/// runtime. docs/json.md lists them.
///
/// A VM whose metrics cannot be read in time is given with the last metrics that were read, or without any.
/// `mvm_late_vms` counts such VMs.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG` (the options).
/// Blocks: for the disk, up to `deadline_ms`. Ownership: `*text` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_metrics(
    runtime: *mut mvm_runtime,
    options: *const c_char,
    text: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(text, ptr::null_mut(), "text") }?;
        // SAFETY: as above.
        let options = unsafe { argument::optional_text(options, "options") }?;
        out.write_text(&handle::get::<Runtime, _>(runtime)?.metrics_text(options)?);
        Ok(())
    })
}
