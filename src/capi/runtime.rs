//! A runtime: the state directory, and the VMs in it.

use super::argument::{self, Sized32};
use super::failure;
use super::guard::guard;
use super::handle;
use super::status::{mvm_exit_kind, mvm_status};
use super::vm::{mvm_vm, mvm_vm_state};
use crate::check::{CheckReport, Purpose, Status};
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

/// A flag of `mvm_runtime_reap`: remove nothing, and report what would be removed.
pub const MVM_REAP_DRY_RUN: u32 = 1;

/// A flag of `mvm_runtime_reap`: also end and remove VMs whose journal is damaged.
pub const MVM_REAP_DAMAGED: u32 = 2;

/// A bit of `mvm_runtime_check`: no VM can run.
pub const MVM_CHECK_RUN: u32 = 1;

/// A bit of `mvm_runtime_check`: no VM can be restored with `"memory": "pager"`.
pub const MVM_CHECK_PAGER: u32 = 2;

/// A bit of `mvm_runtime_check`: there is no usable keeper.
pub const MVM_CHECK_KEEPER: u32 = 4;

/// A bit of `mvm_runtime_check`: no VM can run in a jail.
pub const MVM_CHECK_JAIL: u32 = 8;

/// A bit of `mvm_runtime_check`: no cgroups can be created for VMs.
pub const MVM_CHECK_CGROUPS: u32 = 16;

/// A bit of `mvm_runtime_check`: no network interfaces can be created for VMs.
pub const MVM_CHECK_NETWORK: u32 = 32;

/// A bit of `mvm_runtime_check`: there are no huge pages for guests.
pub const MVM_CHECK_HUGE_PAGES: u32 = 64;

/// One of several VMs. Set `size` to `sizeof(mvm_vm_summary)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_vm_summary {
    /// In: `sizeof(mvm_vm_summary)`.
    pub size: u32,
    /// What it is doing.
    pub state: mvm_vm_state,
    /// The process id of its VMM, or 0 while no VMM runs.
    pub pid: i32,
    /// How its last VMM ended, while no VMM runs.
    pub exit_kind: mvm_exit_kind,
    /// The exit code or the signal.
    pub exit_value: i32,
    /// Its id; "" when there is no VM.
    pub id: [c_char; 72],
    /// The pool in which it waits, or "".
    pub pool: [c_char; 72],
}

/// # Runtimes, and creating VMs
///
/// Opens the state directory `state_dir`, and creates it when it does not exist. As long as this runtime is open, no
/// other runtime can open the directory. Everything that the library keeps on disk is below it, readable by this user
/// alone.
///
/// VMs of an owner that has ended are taken over. A running VM is a full VM again, for `mvm_open`. A VM that was to end
/// with its owner is killed. An unfinished creation or removal is undone. `mvm_runtime_report` and events say what was
/// found.
///
/// `options` is a JSON object, or NULL for an empty one:
///
/// ```text
///     { "firecracker": "/usr/bin/firecracker",   the VMM of VMs whose spec names none
///       "keeper": "/usr/libexec/mvm-keeper",     the program that bounds consoles while no owner lives, and kills VMs
///                                                whose "on_owner_exit" is "kill"
///       "cgroup": "/sys/fs/cgroup/vms.slice",    the cgroup of the keeper, and of VMs whose spec names none
///       "cgroup_parent": "/mvm",                 the cgroup in which those of VMs with "limits" are created
///       "catalogue": "/srv/images",              directory of images, for VMs whose spec names a template
///       "tools": "/usr/sbin",                    where e2fsck and resize2fs are
///       "event_queue": 4096 }                    how many events the queue holds
/// ```
///
/// You always name the VMM and the keeper: the library reads no search path and no environment variable. This call asks
/// the keeper program for its version, which must be that of the library. The keeper is started when the first VM needs
/// it. It ends when there is no owner and no VM that needs it. Without a keeper program, a thread of the library,
/// `mvm-keeper`, bounds consoles while the runtime is open, and `"kill"` is an error.
///
/// Errors: `MVM_ERR_BUSY` (another runtime has the directory open, in this process or another; the message has its
/// pid), `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`, `MVM_ERR_IO`.
/// Blocks: for the disk; up to 5 s for all adopted VMMs to say what their guests do; and up to 5 s for each VM that is
/// killed. Ownership: `*runtime` is the caller's, for `mvm_runtime_close`. Since 0.1.
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

/// Looks at what this host can do for a runtime that is opened with these arguments, what it cannot do, and what to do
/// about it. It changes nothing, needs no privilege, and looks with the rights of the calling thread. No runtime needs to
/// be open, and one may be.
///
/// `state_dir` may be NULL: then it is not looked at. It need not exist. `options` are those of `mvm_runtime_open`, or
/// NULL. Firecracker, the jailer beside it and the keeper are asked for their versions; nothing else is started.
///
/// Each of the results may be NULL:
///
/// - `*cannot`: a sum of `MVM_CHECK_…`, what this host cannot do.
/// - `*text`: the report for people, lines of at most 200 bytes or so.
/// - `*json`: the report for programs. docs/json.md lists all findings.
///
/// ```text
///     { "can": { "run": "yes", "jail": "no", … },       the worst status of the findings for each purpose
///       "findings": [ {
///         "name": "kvm",                                always the same
///         "for": "run",                                 the purpose
///         "status": "no",                               "yes", "limited" or "no"
///         "text": "cannot use /dev/kvm: Permission denied (os error 13)",
///         "advice": "add user 1000 to group kvm …",     null when there is nothing to do
///         "seen": { "path": "/dev/kvm", "errno": 13 } }, … ] }
/// ```
///
/// Errors: `MVM_ERR_INVALID_CONFIG` (the options), `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_IO` (no working directory). What
/// the host lacks is a finding, not an error.
/// Blocks: for the programs' answers, some milliseconds; up to 10 s when they do not answer. Ownership: `*text` and
/// `*json` are the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_check(
    state_dir: *const c_char,
    options: *const c_char,
    cannot: *mut u32,
    text: *mut *mut c_char,
    json: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says, and may be NULL.
        let (cannot, text, json) = unsafe {
            let [text, json] = [text, json].map(|place| argument::optional_out(place, ptr::null_mut()));
            (argument::optional_out(cannot, 0), text, json)
        };
        // SAFETY: strings are as the contract page says.
        let (state_dir, options) = unsafe {
            (argument::optional_text(state_dir, "state_dir")?, argument::optional_text(options, "options")?)
        };
        handle::own_process()?;
        let report = Runtime::check(state_dir.map(Path::new), options)?;
        cannot.write(sum_of_what_cannot_be(&report));
        text.write_text(&report);
        json.write_text(&report.json());
        Ok(())
    })
}

/// Closes the runtime. Calls that are running on its VMs end with `MVM_ERR_INTERRUPTED`. Handles of its VMs and pools
/// become bad handles. The state directory is free when those calls have returned.
///
/// No VM is stopped. A VM with "on_owner_exit": "kill" still ends with this process, unless another process has opened
/// the directory first. A VM whose mvm_create is just returning keeps running; mvm_open finds it when the directory is
/// opened again. NULL is allowed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: until the keeper thread has ended, some milliseconds. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_runtime_close(runtime: *mut mvm_runtime) -> mvm_status {
    guard(|| {
        handle::close::<Runtime, _>(runtime)?.iter().for_each(handle::close_vms_of);
        Ok(())
    })
}

/// Returns all VMs of the runtime as a JSON array, in the order of their ids: `[{"id":"web-1","state":"running"}]`. A
/// VM with owner data has `owner_data` too.
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

/// Returns one VM after the other, in the order of their ids: the first whose id comes after `after`, or the very first when
/// `after` is NULL or "". After the last one the call succeeds, and `vm->id` is "". `after` may be `vm->id` itself:
///
/// ```text
///     mvm_vm_summary vm = MVM_VM_SUMMARY_INIT;
///     while (mvm_runtime_next_vm(runtime, vm.id, &vm) == MVM_OK && vm.id[0] != '\0')
///       printf("%s is %s\n", vm.id, mvm_state_name(vm.state));
/// ```
///
/// VMs may be created and destroyed meanwhile. A VM that exists all the time is returned exactly once, unless it is renamed.
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

/// Returns what was found when the runtime was opened, as a JSON object:
///
/// ```text
///     { "adopted": ["web-1"],                                    they run, and now belong to this runtime
///       "ended": [{"id": "web-2", "why": "no owner noted its end"}],  VMs without a VMM
///       "undone": ["/var/lib/mvm/vms/web-3"],                    unfinished creations and removals
///       "left_alone": [{"path": "…/vms/web-4", "problem": "…"}] }   not known to the library, and not touched
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

/// Removes leftovers: VMs that had no VMM when the runtime was opened, and were not started since. VMs that this
/// runtime stopped are not touched. Nothing is touched that does not certainly belong to the library. What
/// `mvm_runtime_open` could not deal with is checked once more.
///
/// `flags` is 0 or a sum of:
///
/// - `MVM_REAP_DRY_RUN`: nothing is removed, and the report says what would be removed.
/// - `MVM_REAP_DAMAGED`: a VM whose journal cannot be read or believed is ended and removed. Every process that prints
///   to its console or works in its `vmm` directory is killed. A VMM whose VM's directory was moved away or deleted is
///   killed too; a jailed one whose directory was moved away is not found. The report lists them under `damaged`. Without this flag they are left alone.
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

/// Ends the calls that are running on the VM `id`, in any thread, with `MVM_ERR_INTERRUPTED`. Unlike `mvm_interrupt`,
/// it also ends an `mvm_create`, `mvm_restore`, `mvm_clone` or `mvm_pool_take` that has not returned a handle yet. If
/// there is no such VM, nothing happens.
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

/// Creates a VM: starts its VMM and configures it. `mvm_start` starts the guest. After an error there is no process, no
/// socket and no file.
///
/// `id` has 1 to 64 letters, digits and '-', and begins with a letter or a digit. `spec` is a Firecracker config file,
/// as JSON: whatever `firecracker --config-file` accepts, sections of newer releases included. One more section is for
/// the library itself. Each of its keys may be left out; docs/json.md lists all keys:
///
/// ```text
///     "mvm": {
///       "firecracker": "/opt/firecracker",       the VMM, instead of the runtime's
///       "arguments": ["--enable-pci"],           more arguments for it
///       "shutdown": { "guest": "ctrl-alt-del" }, or "off": mvm_shutdown does not ask the guest
///       "on_owner_exit": "keep",                 or "kill": the VM is killed when the process that owns it ends
///       "cgroup": "/sys/fs/cgroup/vms.slice/web-1",  a cgroup that exists, in which the VMM is started
///       "limits": {                              or a cgroup of the VM's own, with limits:
///         "cpus": 1.5, "cpu_weight": 100,          time of so many CPUs, and the share when others want it too
///         "cpuset_cpus": "0-3", "cpuset_mems": "0",  which CPUs and memory nodes
///         "memory_mib": 544, "swap_mib": 0,        memory, the VMM's own included
///         "pids": 64,                              processes and threads
///         "io": [{                                 of one disk of the host
///           "path": "/dev/nvme0n1", "read_bytes_per_second": 104857600, "write_bytes_per_second": 104857600,
///           "read_ops_per_second": 5000, "write_ops_per_second": 5000 }]
///       },
///       "cgroup_parent": "/vms.slice",           the cgroup in which that one is created
///       "owner_data": "tenant 7",                text of your own (mvm_owner_data_set)
///       "catalogue": "/srv/images",              directory of images, instead of the runtime's
///       "rootfs": {                              the root disk, made from an image:
///         "template": "debian-12",                 one of the catalogue; or "from": the path of a file
///         "read_only": false,                      the VM gets a copy; true: VMs share the image
///         "size_mib": 4096,                        the copy is grown, with its ext4 file system
///         "verify": "sha256",                      the image is compared with the digest in its manifest
///         "keep": "/srv/kept/web.ext4"             mvm_destroy moves the copy there
///       },
///       "disks": { "data": { "template": "empty" } },  the same for other drives, by their ids
///       "sharing": "refused",                    or "allowed": the VM may use disks, files, sockets and network devices
///                                                that another VM uses, when that VM allows it too
///       "console": { "limit_bytes": 1048576 },   how much of the console is kept; 0: everything
///       "deadlines": {                           limits of calls, in milliseconds
///         "create_ms": 10000,                      mvm_create
///         "start_ms": 30000,                       mvm_start
///         "request_ms": 30000,                     mvm_pause, mvm_resume, mvm_request and others
///         "kill_ms": 5000                          the end of the process after SIGKILL
///       }
///     }
/// ```
///
/// Paths are host paths. Relative ones are relative to the caller's working directory.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_ALREADY_EXISTS`,
/// `MVM_ERR_BUSY` (another VM uses a file, a socket or a device of the spec, or a disk that one of the two writes to; or
/// an image changed while it was copied), `MVM_ERR_DAMAGED` (an image is not what its digest says),
/// `MVM_ERR_NOT_FOUND` (no such VMM), `MVM_ERR_UNSUPPORTED` (the VMM is too old, or is not Firecracker),
/// `MVM_ERR_VMM_REFUSED`, `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED` (see
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

/// Returns a handle to the VM `id`, a new one with each call.
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

fn sum_of_what_cannot_be(report: &CheckReport) -> u32 {
    let bits = [
        (Purpose::Run, MVM_CHECK_RUN),
        (Purpose::Pager, MVM_CHECK_PAGER),
        (Purpose::Keeper, MVM_CHECK_KEEPER),
        (Purpose::Jail, MVM_CHECK_JAIL),
        (Purpose::Cgroups, MVM_CHECK_CGROUPS),
        (Purpose::Network, MVM_CHECK_NETWORK),
        (Purpose::HugePages, MVM_CHECK_HUGE_PAGES),
    ];
    bits.iter().filter(|(purpose, _)| report.can(*purpose) == Status::No).map(|(_, bit)| bit).sum()
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
