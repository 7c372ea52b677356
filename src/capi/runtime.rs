//! A runtime: the state directory, and the VMs in it.

use super::argument::{self, Sized32};
use super::failure;
use super::guard::guard;
use super::handle;
use super::status::{mvm_exit_kind, mvm_status};
use super::vm::{mvm_vm, mvm_vm_state};
use crate::runtime::{ReapOptions, Runtime};
use crate::vm::Summary;
use std::ffi::c_char;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// A state directory and the VMs in it. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_runtime {
    _private: [u8; 0],
}

/// A flag of `mvm_runtime_reap`: remove nothing, and say what would be removed.
pub const MVM_REAP_DRY_RUN: u32 = 1;

/// A flag of `mvm_runtime_reap`: end and remove VMs whose journal is damaged too.
pub const MVM_REAP_DAMAGED: u32 = 2;

/// One of several VMs. Set `size` to `sizeof(mvm_vm_summary)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_vm_summary {
    /// In: `sizeof(mvm_vm_summary)`.
    pub size: u32,
    /// What it is doing.
    pub state: mvm_vm_state,
    /// The number of its VMM's process, or 0 while no VMM runs.
    pub pid: i32,
    /// How its last VMM ended, while none runs.
    pub exit_kind: mvm_exit_kind,
    /// The exit code or the signal.
    pub exit_value: i32,
    /// Its id; "" when there is no VM.
    pub id: [c_char; 72],
    /// The pool in which it waits, or "".
    pub pool: [c_char; 72],
}

/// # Runtimes, and making VMs
///
/// Opens the state directory `state_dir`, which is made if it is not there, and keeps every other runtime out of
/// it for as long as this one is open. Everything that the library keeps on disk is below it, readable by this
/// user alone.
///
/// VMs of an owner that is gone are taken over: one that runs is a full VM again, for `mvm_open`; one that was to end
/// with its owner is ended; what was half done is undone. `mvm_runtime_report` tells, and so do events.
///
/// `options` is a JSON object, or NULL for an empty one:
///
/// ```text
///     { "firecracker": "/usr/bin/firecracker",   the VMM of those VMs whose spec names none
///       "keeper": "/usr/libexec/mvm-keeper",     the program that bounds consoles while no owner lives, and ends VMs
///                                                whose "on_owner_exit" is "kill"
///       "cgroup": "/sys/fs/cgroup/vms.slice",    the cgroup of the keeper and of VMs whose spec names none
///       "event_queue": 4096 }                    how many events wait for somebody to take them
/// ```
///
/// VMM and keeper are always named by the caller: no search path and no environment variable is read. The keeper is
/// asked for its version here, and must be that of the library. It is
/// started when the first VM is made that needs it, and ends when neither an owner nor a VM does. Without one a thread
/// of the library, `mvm-keeper`, bounds consoles as long as the runtime is open, and `"kill"` is an error.
///
/// Errors: `MVM_ERR_BUSY` (another runtime, in this process or another, has the directory open; its pid is in the
/// message), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
/// Blocks: for the disk; up to 5 s in all for VMMs that were taken over to say what their guests do, and up to 5 s
/// for each that has to be ended. Ownership: `*runtime` is the caller's, for `mvm_runtime_close`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_open(
    state_dir: *const c_char,
    options: *const c_char,
    runtime: *mut *mut mvm_runtime,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(runtime, ptr::null_mut(), "runtime") }?;
        // SAFETY: as above.
        let (state_dir, options) = unsafe {
            (argument::text(state_dir, "state_dir")?, argument::optional_text(options, "options")?)
        };
        handle::own_process()?;
        out.write(handle::open(Arc::new(Runtime::open(Path::new(state_dir), options)?))?);
        Ok(())
    })
}

/// Closes the runtime: the calls in flight on its VMs end with `MVM_ERR_INTERRUPTED`, the handles of its VMs
/// become bad handles, and the state directory is free once those calls have returned. No VM is ended, but VMs whose
/// "on_owner_exit" is "kill" end when the process does, unless another one has taken them over by then; one whose
/// mvm_create was just about to return goes on without a handle, and is there again when the directory is opened
/// anew. NULL is fine.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: until the keeper has ended, milliseconds. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_runtime_close(runtime: *mut mvm_runtime) -> mvm_status {
    guard(|| {
        handle::close::<Runtime, _>(runtime)?.iter().for_each(handle::close_vms_of);
        Ok(())
    })
}

/// Gives all VMs of the runtime as a JSON array, by id: `[{"id":"web-1","state":"running"}]`. A VM with owner data has one
/// more key, `"owner_data"`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_list(runtime: *mut mvm_runtime, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<Runtime, _>(runtime)?.list_json());
        Ok(())
    })
}

/// Gives one VM after the other, in the order of their ids: the first whose id comes after `after`, or the very first when
/// `after` is NULL or "". After the last one the call succeeds, and `vm->id` is "". `after` may be `vm->id` itself:
///
/// ```text
///     mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
///     while (mvm_runtime_next_vm(runtime, vm.id, &vm) == MVM_OK && vm.id[0] != '\0')
///       printf("%s is %s\n", vm.id, mvm_state_name(vm.state));
/// ```
///
/// VMs may come and go meanwhile; a VM that is there all the time is given exactly once, unless it is renamed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`; `vm->id` is "" then. Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_next_vm(
    runtime: *mut mvm_runtime,
    after: *const c_char,
    vm: *mut mvm_vm_summary,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says. The string may stand in the place: it is copied first.
        let after = unsafe { argument::optional_text(after, "after") }.map(|text| text.map(str::to_owned));
        // SAFETY: as above.
        let out = unsafe { argument::sized_out(vm, "vm") }?;
        let next = handle::get::<Runtime, _>(runtime)?.next_vm(after?.as_deref());
        next.iter().for_each(|next| out.write(encode(next)));
        Ok(())
    })
}

/// Gives what was found when the runtime was opened, as a JSON object:
///
/// ```text
///     { "adopted": ["web-1"],                                    running, and this runtime's now
///       "ended": [{"id": "web-2", "why": "no owner noted its end"}],  here, and without a VMM
///       "undone": ["/var/lib/mvm/vms/web-3"],                    a creation or removal that was half done
///       "left_alone": [{"path": "…/vms/web-4", "problem": "…"}] }   not understood, and not touched
/// ```
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_report(runtime: *mut mvm_runtime, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<Runtime, _>(runtime)?.report());
        Ok(())
    })
}

/// Removes what is left of VMs whose owner is gone and that have no VMM: those that were found so when the runtime
/// was opened and were not started since. VMs that this runtime has stopped are not touched, nor is anything that is
/// not provably the library's. What `mvm_runtime_open` could not deal with is looked at once more.
///
/// `flags` is 0 or a sum of:
///
/// - `MVM_REAP_DRY_RUN`: nothing is removed, and the report says what would be removed.
/// - `MVM_REAP_DAMAGED`: a VM whose journal cannot be read or believed is ended and removed: every process that prints to
///   its console or works in its `vmm` directory is killed. A VMM whose VM's directory was moved away or deleted is
///   killed too. The report says so under `damaged`. Without this flag they are left alone.
///
/// `*json`:
///
/// ```text
///     { "dry_run": false,
///       "removed": [{"id": "web-2", "state": "stopped", "owns": ["/var/lib/mvm/vms/web-2", …]}],
///       "failed": [{"id": "…", "problem": "…"}], "undone": [], "left_alone": [],
///       "damaged": [{"path": "…/vms/web-4", "problem": "…", "ended": [4711]}] }
/// ```
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (an unknown flag), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_IO`.
/// Blocks: for the disk, and as `mvm_runtime_open`. Ownership: `*json` is the caller's, for `mvm_string_free`.
/// Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_reap(
    runtime: *mut mvm_runtime,
    flags: u32,
    json: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        let [dry_run, damaged] = argument::flags(flags, [MVM_REAP_DRY_RUN, MVM_REAP_DAMAGED])?;
        out.write_text(&handle::get::<Runtime, _>(runtime)?.reap(ReapOptions { dry_run, damaged })?);
        Ok(())
    })
}

/// Ends the calls in flight on the VM `id`, in whatever thread, with `MVM_ERR_INTERRUPTED`. Unlike
/// `mvm_interrupt` it reaches an `mvm_create`, `mvm_restore`, `mvm_clone` or `mvm_pool_take` that has not yet given a
/// handle. Nothing happens when there is no such VM.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_interrupt(runtime: *mut mvm_runtime, id: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let id = unsafe { argument::text(id, "id") }?;
        Ok(handle::get::<Runtime, _>(runtime)?.interrupt(id)?)
    })
}

/// Makes a VM: starts its VMM and configures it. Its guest starts with `mvm_start`. An error leaves no process, no
/// socket and no file.
///
/// `id` has 1 to 64 letters, digits and '-', and begins with a letter or a digit. `spec` is a Firecracker config file,
/// as JSON: what `firecracker --config-file` accepts, newer sections included. What the library itself does for the VM
/// stands in one more section, in which every key may be left out:
///
/// ```text
///     "mvm": {
///       "firecracker": "/opt/firecracker",       the VMM, instead of the runtime's
///       "arguments": ["--enable-pci"],           more arguments for it
///       "shutdown": { "guest": "ctrl-alt-del" }, or "off": mvm_shutdown does not ask the guest
///       "on_owner_exit": "keep",                 or "kill": the VM ends when the process that owns it does
///       "owner_data": "tenant 7",                text of your own, kept with the VM: see mvm_owner_data_set
///       "cgroup": "/sys/fs/cgroup/vms.slice/web-1",  a cgroup that exists, in which the VMM is started
///       "sharing": "refused",                    or "allowed": it may use disks, files, sockets and network devices
///                                                that another VM uses which allows that too
///       "console": { "limit_bytes": 1048576 },   how long console and logs may grow; 0: for ever
///       "deadlines": {                           how long calls may take, in milliseconds
///         "create_ms": 10000,                      mvm_create
///         "start_ms": 30000,                       mvm_start
///         "request_ms": 30000,                     mvm_pause, mvm_resume, mvm_request
///         "kill_ms": 5000                          the end of the process after SIGKILL
///       }
///     }
/// ```
///
/// Paths are host paths; relative ones are relative to the caller's working directory.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (the id), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_ALREADY_EXISTS`,
/// `MVM_ERR_BUSY` (another VM uses a disk, of which one of the two is a writer, or a file, a socket or a device),
/// `MVM_ERR_NOT_FOUND` (no such VMM), `MVM_ERR_UNSUPPORTED` (a VMM too old, or none at all), `MVM_ERR_VMM_REFUSED`,
/// `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (see
/// `mvm_runtime_interrupt`), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
/// Blocks: up to `create_ms`. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_create(
    runtime: *mut mvm_runtime,
    id: *const c_char,
    spec: *const c_char,
    vm: *mut *mut mvm_vm,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(vm, ptr::null_mut(), "vm") }?;
        // SAFETY: as above.
        let (id, spec) = unsafe { (argument::text(id, "id")?, argument::text(spec, "spec")?) };
        let runtime = handle::get::<Runtime, _>(runtime)?;
        let vm = runtime.create(id, spec)?;
        out.write(handle::open_vm(&runtime, vm)?);
        Ok(())
    })
}

/// Gives a handle to the VM `id`, a new one with each call.
///
/// Errors: `MVM_ERR_NOT_FOUND`, `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: never. Ownership: `*vm` is the caller's, for `mvm_release`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_open(
    runtime: *mut mvm_runtime,
    id: *const c_char,
    vm: *mut *mut mvm_vm,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let (out, id) = unsafe { (argument::out(vm, ptr::null_mut(), "vm")?, argument::text(id, "id")?) };
        let runtime = handle::get::<Runtime, _>(runtime)?;
        let vm = runtime.vm(id)?;
        out.write(handle::open_vm(&runtime, vm)?);
        Ok(())
    })
}

fn encode(vm: &Summary) -> mvm_vm_summary {
    let (exit_kind, exit_value) = failure::exit_parts(vm.exit);
    mvm_vm_summary {
        size: 0,
        state: vm.state.into(),
        pid: vm.pid.unwrap_or(0),
        exit_kind,
        exit_value,
        id: argument::fixed(vm.id.as_str()),
        pool: argument::fixed(vm.pool.as_deref().unwrap_or_default()),
    }
}

impl Sized32 for mvm_vm_summary {
    const FIRST_SIZE: usize = 164;

    fn empty(size: u32) -> Self {
        Self {
            size,
            state: mvm_vm_state::MVM_STATE_NONE,
            pid: 0,
            exit_kind: mvm_exit_kind::MVM_EXIT_NONE,
            exit_value: 0,
            id: [0; 72],
            pool: [0; 72],
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
        assert_eq!(size_of::<mvm_vm_summary>(), mvm_vm_summary::FIRST_SIZE);
    }
}
