//! A VM: its life, its end, and what is known of it.

use super::argument::{self, Sized32};
use super::failure;
use super::guard::{guard, guard_in_handler};
use super::handle::{self, OwnedVm};
use super::status::{mvm_exit_kind, mvm_status};
use crate::firecracker::http::{Method, RequestPath};
use crate::process::ExitStatus;
use crate::process::ladder::Outcome;
use crate::vm::{OwnerData, State};
use std::ffi::c_char;
use std::os::fd::IntoRawFd;
use std::ptr;

/// A microVM. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_vm {
    _private: [u8; 0],
}

/// No limit, for every time in milliseconds.
pub const MVM_FOREVER: u64 = u64::MAX;

/// Default `grace_ms`: how long a shutdown waits before SIGTERM or SIGKILL follows.
pub const MVM_DEFAULT_GRACE_MS: u64 = 2000;

/// Default `poll_ms`: the longest time between two checks of the process.
pub const MVM_DEFAULT_POLL_MS: u64 = 50;

/// Room for any id of a VM, a snapshot or a pool, with its NUL.
pub const MVM_ID_SIZE: usize = 72;

/// What a VM is doing.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_vm_state {
    /// Unknown: the call failed.
    MVM_STATE_NONE = 0,
    /// Its VMM is configured; the guest has not started.
    MVM_STATE_CREATED = 1,
    /// The guest runs.
    MVM_STATE_RUNNING = 2,
    /// The guest is paused.
    MVM_STATE_PAUSED = 3,
    /// A call ended the VM, or the guest powered off. The VM can be started again.
    MVM_STATE_STOPPED = 4,
    /// The VMM ended in another way: the VMM or the guest crashed. The VM can be started again.
    MVM_STATE_FAILED = 5,
}

/// How a shutdown ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_shutdown_outcome {
    /// Nothing has ended: the call failed.
    MVM_SHUTDOWN_NONE = 0,
    /// The VMM ended by itself within the grace time: the guest powered off, or the VMM followed SIGTERM.
    MVM_SHUTDOWN_GRACEFUL = 1,
    /// The VMM did not end within the grace time, or there was none, or another call killed it.
    MVM_SHUTDOWN_FORCED = 2,
    /// The VMM had ended before the call.
    MVM_SHUTDOWN_ALREADY_EXITED = 3,
}

/// How a process ended. Set `size` to `sizeof(mvm_exit)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_exit {
    /// In: `sizeof(mvm_exit)`.
    pub size: u32,
    /// In which way.
    pub kind: mvm_exit_kind,
    /// The exit code or the signal.
    pub value: i32,
}

/// # Virtual machines
///
/// Releases the handle. The VM keeps running; `mvm_open` returns another handle. NULL is allowed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_release(vm: *mut mvm_vm) -> mvm_status {
    guard(|| handle::close::<OwnedVm, _>(vm).map(drop))
}

/// Starts the guest. A VM that is stopped or failed gets a new VMM first. A running VM is left as it is.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is paused), `MVM_ERR_VMM_REFUSED` (for example: the file is not a kernel; the VM is
/// unchanged), `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_BUSY` (another VM uses a disk, a file, a socket
/// or a device of this one), `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed),
/// `MVM_ERR_NO_RESOURCES`. If the start of a stopped VM fails, the VM is stopped.
/// Blocks: up to `start_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_start(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.start()?))
}

/// Pauses the guest. Its memory and devices stay. A paused VM is left as it is.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is not running), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_pause(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.pause()?))
}

/// Resumes the guest. A running VM is left as it is.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is not paused), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_resume(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.resume()?))
}

/// Ends the VM in up to three steps, and reports how it ended:
///
/// 1. The guest gets Ctrl-Alt-Del, which asks it to power off. This step is skipped when the guest cannot receive it:
///    not on x86_64, not running, turned off in the spec, or keyboard controller disabled. A paused guest is not
///    resumed for this.
/// 2. The VMM gets SIGTERM. It ends Firecracker at once, and the guest is not told.
/// 3. The VMM gets SIGKILL.
///
/// `grace_ms` is the grace time. With step 1, the guest has all of it; then steps 2 and 3 follow, 100 ms apart. Without
/// step 1, SIGTERM comes first and SIGKILL after `grace_ms`. With 0, SIGKILL comes at once. `poll_ms` is the longest
/// time between two checks of the process; 0 sets no such limit. The end of the process is noticed at once either way.
///
/// The process is reaped, and its sockets are removed. Console and log stay until `mvm_destroy`. The VM can be started
/// again. A second caller joins the first, and gets the same outcome. If the second caller's grace time ends first, the
/// VM is killed then. If another operation runs on the VM, the shutdown waits for it, but not longer than the grace
/// time. `outcome` may be NULL. `mvm_shutdown_report` returns more.
///
/// Errors: `MVM_ERR_INTERRUPTED` (a power-off request that the guest already received stays in effect),
/// `MVM_ERR_TIMEOUT` (the VMM outlived SIGKILL by `kill_ms`: it is stuck in the kernel), `MVM_ERR_NOT_FOUND`
/// (destroyed).
/// Blocks: up to `grace_ms` + 100 ms + `kill_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_shutdown(
    vm: *mut mvm_vm,
    grace_ms: u64,
    poll_ms: u64,
    outcome: *mut mvm_shutdown_outcome,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(outcome, mvm_shutdown_outcome::MVM_SHUTDOWN_NONE) };
        let vm = &handle::get::<OwnedVm, _>(vm)?.vm;
        let report = vm.shutdown(argument::milliseconds(grace_ms), argument::poll_interval(poll_ms))?;
        out.write(report.outcome.into());
        Ok(())
    })
}

/// Returns the name of an `mvm_shutdown_outcome`, as in JSON: the constant without its prefix, in lower case, such as
/// `"graceful"`. Any other number is `"unknown"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_outcome_name(outcome: i32) -> *const c_char {
    let name = match outcome {
        0 => c"none",
        1 => c"graceful",
        2 => c"forced",
        3 => c"already_exited",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Returns the report of the last shutdown of this VM as a JSON object, or `null` when there was none:
///
/// ```text
///     { "outcome": "graceful", "rung": "guest", "exit": {"code": 0}, "guest_powered_off": true,
///       "asked": [{"rung": "guest", "at_us": 3, "delivered": true}], "elapsed_us": 81234 }
/// ```
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_shutdown_report(vm: *mut mvm_vm, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedVm, _>(vm)?.vm.last_shutdown_json());
        Ok(())
    })
}

/// Kills the VMM at once. A call that is running on the VM ends with `MVM_ERR_VMM_EXITED`. A VM without a VMM is left
/// as it is.
///
/// Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: up to `kill_ms`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_kill(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.kill()?))
}

/// Waits until the VMM has ended, at most `timeout_ms`. Returns at once when no VMM runs. `*exit` receives how the VMM
/// ended.
///
/// Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_BAD_STATE` (no end of a VMM is known),
/// `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: up to `timeout_ms`. No other call waits for this one. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_wait(vm: *mut mvm_vm, timeout_ms: u64, exit: *mut mvm_exit) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::sized_out(exit, "exit") }?;
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.wait(argument::milliseconds(timeout_ms))?.into());
        Ok(())
    })
}

/// Returns a file descriptor that becomes readable when the present VMM has ended, for epoll, libuv or Go's netpoller.
/// It is a pidfd: poll it, do not read it.
///
/// Errors: `MVM_ERR_BAD_STATE` (no VMM runs), `MVM_ERR_NO_RESOURCES`.
/// Blocks: never. Ownership: `*fd` is the caller's, close-on-exec, for `close`; -1 after an error. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_exit_fd(vm: *mut mvm_vm, fd: *mut i32) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(fd, -1, "fd") }?;
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.exit_fd()?.into_raw_fd());
        Ok(())
    })
}

/// Kills the VM if it runs, and removes everything that belongs to it. All its handles stay valid until they are
/// released; calls on them return `MVM_ERR_NOT_FOUND`. A second destroy succeeds. The id can be used again. A disk with
/// "keep" is moved to its place first.
///
/// Errors: `MVM_ERR_TIMEOUT` (stuck in the kernel, or a large disk that is to be kept), `MVM_ERR_ALREADY_EXISTS`
/// (something is where a disk is to be kept), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`. The call can be repeated.
/// Blocks: up to twice `kill_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_destroy(vm: *mut mvm_vm) -> mvm_status {
    guard(|| {
        let owned = handle::get::<OwnedVm, _>(vm)?;
        Ok(owned.runtime.destroy(&owned.vm)?)
    })
}

/// Changes the VM's id to `id`, in any state. Its directory is renamed. The next owner finds the VM under the new id.
/// Firecracker itself keeps the id that it was started with.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (not a valid id), `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_TIMEOUT` (another call is
/// running on the VM), `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`. After an error the VM has
/// its former id.
/// Blocks: up to `request_ms` while another call is running on the VM. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_rename(vm: *mut mvm_vm, id: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let id = unsafe { argument::text(id, "id") }?;
        let owned = handle::get::<OwnedVm, _>(vm)?;
        Ok(owned.runtime.rename(&owned.vm, id)?)
    })
}

/// Ends every call that is running on this VM, in any thread, with `MVM_ERR_INTERRUPTED`. The VM keeps running. If no
/// call is running, nothing happens, now or later. `mvm_cancel_raise` ends the calls of one task only.
///
/// This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the other calls return soon after. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_interrupt(vm: *mut mvm_vm) -> mvm_status {
    guard_in_handler(|| handle::reach(vm, |owned: &OwnedVm| owned.vm.interrupt()))
}

/// Sends any request to Firecracker's API. `method` is "GET", "PUT", "PATCH" or "DELETE". `path` begins with '/'.
/// `body` is JSON, or NULL. `*response` receives the body of the answer, which is often empty. `response` may be NULL.
///
/// Errors: `MVM_ERR_VMM_REFUSED` (with `http_status` and `fault_message`), `MVM_ERR_INVALID_ARGUMENT`,
/// `MVM_ERR_BAD_STATE` (no VMM runs), and those of `mvm_start`.
/// Blocks: up to `request_ms`. Ownership: `*response` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_request(
    vm: *mut mvm_vm,
    method: *const c_char,
    path: *const c_char,
    body: *const c_char,
    response: *mut *mut c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::optional_out(response, ptr::null_mut()) };
        // SAFETY: as above.
        let (method, path) = unsafe { (argument::text(method, "method")?, argument::text(path, "path")?) };
        // SAFETY: as above.
        let body = unsafe { argument::optional_text(body, "body") }?.map(str::as_bytes);
        let vm = &handle::get::<OwnedVm, _>(vm)?.vm;
        let answer = vm.request(Method::parse(method)?, &RequestPath::parse(path)?, body)?;
        out.write_text(&String::from_utf8_lossy(&answer.body));
        Ok(())
    })
}

/// Returns what the VM is doing. The VMM is not asked, so this takes microseconds.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_state(vm: *mut mvm_vm, state: *mut mvm_vm_state) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(state, mvm_vm_state::MVM_STATE_NONE, "state") }?;
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.known_state()?.into());
        Ok(())
    })
}

/// Copies the id of the VM into `buffer`, which has room for `length` bytes. `MVM_ID_SIZE` bytes are enough for every
/// id. If there is too little room, `buffer` receives the empty string.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (too little room), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_id(vm: *mut mvm_vm, buffer: *mut c_char, length: usize) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        unsafe { argument::empty_string(buffer, length, "buffer") }?;
        let id = handle::get::<OwnedVm, _>(vm)?.vm.summary()?.id;
        // SAFETY: as above.
        unsafe { argument::write_string(buffer, length, id.as_str(), "buffer") }
    })
}

/// Returns the process id of the VMM. It is for people to read: once the VMM has ended, another process may have this
/// id. `mvm_exit_fd` returns a descriptor that always means this VMM.
///
/// Errors: `MVM_ERR_BAD_STATE` (no VMM runs; `*pid` is 0), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`,
/// `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pid(vm: *mut mvm_vm, pid: *mut i32) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(pid, 0, "pid") }?;
        out.write(handle::get::<OwnedVm, _>(vm)?.vm.pid()?);
        Ok(())
    })
}

/// Keeps `data` with the VM: text of your own, at most 4096 bytes, which the library stores and never reads. It
/// replaces the former text. NULL or "" removes it. Encode bytes that are not text.
///
/// The text is in the VM's journal. It stays over `mvm_rename` and every start, and the next owner of the state
/// directory finds it. `mvm_runtime_list` and `mvm_info` show it. For a new VM it may stand in the spec: `"mvm":
/// {"owner_data": "…"}`. For `mvm_restore`, `mvm_clone` and `mvm_pool_take` it may stand in the options:
/// `"owner_data"`. A restored VM does not get the text of the VM in the snapshot.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (too long), `MVM_ERR_TIMEOUT` (another call is running on the VM),
/// `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_NO_RESOURCES` (the disk is full), `MVM_ERR_IO`.
/// After an error the former text stays.
/// Blocks: up to `request_ms` while another call is running on the VM. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_owner_data_set(vm: *mut mvm_vm, data: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let data = unsafe { argument::optional_text(data, "data") }?.unwrap_or_default();
        Ok(handle::get::<OwnedVm, _>(vm)?.vm.set_owner_data(OwnerData::parse(data)?)?)
    })
}

/// Returns the text that `mvm_owner_data_set` keeps with the VM, or "".
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: never. Ownership: `*data` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_owner_data(vm: *mut mvm_vm, data: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(data, ptr::null_mut(), "data") }?;
        out.write_text(&handle::get::<OwnedVm, _>(vm)?.vm.owner_data()?);
        Ok(())
    })
}

/// Returns the name of an `mvm_vm_state`, as in JSON: the constant without its prefix, in lower case, such as
/// `"running"`. Any other number is `"unknown"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_state_name(state: i32) -> *const c_char {
    let name = match state {
        0 => c"none",
        1 => c"created",
        2 => c"running",
        3 => c"paused",
        4 => c"stopped",
        5 => c"failed",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Returns everything that is known of the VM as a JSON object: id, state, pid, exit, the VMM and its version, paths of
/// directory, API socket, console and log, the times of the last start, the report of the last shutdown. docs/json.md
/// lists all keys.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_info(vm: *mut mvm_vm, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedVm, _>(vm)?.vm.info()?);
        Ok(())
    })
}

impl Sized32 for mvm_exit {
    const FIRST_SIZE: usize = 12;

    fn empty(size: u32) -> Self {
        Self { size, kind: mvm_exit_kind::MVM_EXIT_NONE, value: 0 }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

impl From<ExitStatus> for mvm_exit {
    fn from(exit: ExitStatus) -> Self {
        let (kind, value) = failure::exit_parts(Some(exit));
        Self { size: 0, kind, value }
    }
}

impl From<State> for mvm_vm_state {
    fn from(state: State) -> Self {
        match state {
            State::Created => Self::MVM_STATE_CREATED,
            State::Running => Self::MVM_STATE_RUNNING,
            State::Paused => Self::MVM_STATE_PAUSED,
            State::Stopped => Self::MVM_STATE_STOPPED,
            State::Failed => Self::MVM_STATE_FAILED,
        }
    }
}

impl From<Outcome> for mvm_shutdown_outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Graceful => Self::MVM_SHUTDOWN_GRACEFUL,
            Outcome::Forced => Self::MVM_SHUTDOWN_FORCED,
            Outcome::AlreadyExited => Self::MVM_SHUTDOWN_ALREADY_EXITED,
        }
    }
}
