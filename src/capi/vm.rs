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

/// "No limit", for every time in milliseconds.
pub const MVM_FOREVER: u64 = u64::MAX;

/// A good `grace_ms`: the polite window of a shutdown.
pub const MVM_DEFAULT_GRACE_MS: u64 = 2000;

/// A good `poll_ms`: the longest sleep without a look.
pub const MVM_DEFAULT_POLL_MS: u64 = 50;

/// Room for every id of a VM, a snapshot or a pool, and its NUL.
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
    /// The guest is held.
    MVM_STATE_PAUSED = 3,
    /// It was ended, or powered itself off. It can be started again.
    MVM_STATE_STOPPED = 4,
    /// Its VMM ended otherwise: it crashed, or the guest did. It can be started again.
    MVM_STATE_FAILED = 5,
}

/// How a shutdown ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_shutdown_outcome {
    /// Nothing has ended: the call failed.
    MVM_SHUTDOWN_NONE = 0,
    /// It ended by itself within the window: the guest powered off, or the process followed SIGTERM.
    MVM_SHUTDOWN_GRACEFUL = 1,
    /// The window closed first, or there was none, or somebody killed it.
    MVM_SHUTDOWN_FORCED = 2,
    /// It had ended before it was asked.
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
/// Forgets the handle. The VM goes on; `mvm_open` gives another handle. NULL is fine.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_release(vm: *mut mvm_vm) -> mvm_status {
    guard(|| handle::close::<OwnedVm, _>(vm).map(drop))
}

/// Starts the guest. A VM that was stopped or has failed gets a new VMM first. One that runs is left alone.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is paused), `MVM_ERR_VMM_REFUSED` (a kernel that is none; the VM is as it was),
/// `MVM_ERR_VMM_EXITED`, `MVM_ERR_VMM_PROTOCOL`, `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND`
/// (destroyed), `MVM_ERR_NO_RESOURCES`. A start from stopped that fails leaves it stopped.
/// Blocks: up to `start_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_start(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.start()?))
}

/// Holds the guest; its memory and devices stay. One that is held is left alone.
///
/// Errors: `MVM_ERR_BAD_STATE` (it does not run), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_pause(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.pause()?))
}

/// Lets the guest go on. One that runs is left alone.
///
/// Errors: `MVM_ERR_BAD_STATE` (it is not paused), and those of `mvm_start`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_resume(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.resume()?))
}

/// Ends the VM, and says truly how. The ladder:
///
///  1. the guest is asked to power off by Ctrl-Alt-Del, where it can hear it: x86_64, running, not turned off in
/// ```text
///     the spec, keyboard controller not disabled. A paused guest is not resumed for this;
/// ```
///  2. the VMM gets SIGTERM, which ends Firecracker at once and tells the guest nothing;
///  3. the VMM gets SIGKILL.
///
/// `grace_ms` is the polite window. The guest has all of it; when it closes, rungs 2 and 3 follow, 100 ms apart.
/// Without rung 1 it is exactly: SIGTERM, wait up to `grace_ms`, SIGKILL. 0 goes straight to SIGKILL.
/// `poll_ms` is the longest sleep without a look; 0 asks for none, and the end is noticed at once either way.
///
/// The process is reaped and its socket removed; console and log stay until `mvm_destroy`, and the VM can be
/// started again. A second caller joins the first and gets the same outcome; when its own window closes before the
/// first caller's, the VM is killed then. An operation in flight on the VM is
/// waited for no longer than the window. `outcome` may be NULL; `mvm_shutdown_report` tells more.
///
/// Errors: `MVM_ERR_INTERRUPTED` (nothing is undone: what the guest was asked, it was asked), `MVM_ERR_TIMEOUT`
/// (it outlived SIGKILL by `kill_ms`: stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
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

/// Returns the name of an `mvm_shutdown_outcome`, the constant's own without its prefix, as JSON has it: `"graceful"`;
/// `"unknown"` for any other number. The string is constant and never freed.
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

/// Gives the report of the last shutdown of this VM as a JSON object, `null` when there was none:
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

/// Kills the VMM at once, whatever is in flight on it; that other call ends with `MVM_ERR_VMM_EXITED`. One that
/// has ended is left alone.
///
/// Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: up to `kill_ms`. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_kill(vm: *mut mvm_vm) -> mvm_status {
    guard(|| Ok(handle::get::<OwnedVm, _>(vm)?.vm.kill()?))
}

/// Waits until the VMM has ended, at most `timeout_ms`; at once when none runs. `*exit` says how it ended.
///
/// Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: up to `timeout_ms`; it holds up nobody else. Since 0.1.
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

/// Gives a file descriptor that becomes readable when the present VMM has ended, for epoll, libuv or Go's
/// netpoller. It is a pidfd: poll it, do not read it.
///
/// Errors: `MVM_ERR_BAD_STATE` (no VMM runs), `MVM_ERR_NO_RESOURCES`.
/// Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
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

/// Kills the VM if it runs, and removes all that belongs to it. All its handles stay valid and answer
/// `MVM_ERR_NOT_FOUND`, until they are released; a second destroy is fine. The id is free again.
///
/// Errors: `MVM_ERR_TIMEOUT` (stuck in the kernel), `MVM_ERR_INTERRUPTED`, `MVM_ERR_IO`; it can be tried again.
/// Blocks: up to twice `kill_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_destroy(vm: *mut mvm_vm) -> mvm_status {
    guard(|| {
        let owned = handle::get::<OwnedVm, _>(vm)?;
        Ok(owned.runtime.destroy(&owned.vm)?)
    })
}

/// Calls the VM `id` from now on, whatever it is doing: its directory and what stands in it are found under the new
/// id, and so is the VM after the owner's death. Firecracker goes on calling the VM what it was started as.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (no id), `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_TIMEOUT` (another call is in
/// flight), `MVM_ERR_INTERRUPTED`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`; the VM is called what it was then.
/// Blocks: for a call in flight, up to `request_ms`. Since 0.1.
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

/// Ends every call in flight on this VM, whoever made it, with `MVM_ERR_INTERRUPTED`. The VM goes on. With no call in
/// flight nothing happens, now or later. To end one call and no other, see `mvm_cancel_raise`.
///
/// This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the other calls return soon after. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_interrupt(vm: *mut mvm_vm) -> mvm_status {
    guard_in_handler(|| handle::reach(vm, |owned: &OwnedVm| owned.vm.interrupt()))
}

/// Sends any request to the VMM's API: nothing of it is out of reach. `method` is "GET", "PUT", "PATCH" or
/// "DELETE", `path` begins with '/', `body` is JSON or NULL. `*response` is the body of the answer, often empty; it
/// may be NULL when it is not wanted.
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

/// Says what the VM is doing. The VMM is not asked, so this takes microseconds whatever else goes on.
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

/// Copies the id of the VM into `buffer`, which has room for `length` bytes; `MVM_ID_SIZE` is enough for every id. With too
/// little room `buffer` is the empty string.
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

/// Gives the number of the process of the VMM, for people to read: it may be another process's once this one has ended.
/// `mvm_exit_fd` gives what stays true.
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

/// Keeps `data` with the VM: text of the owner's own, at most 4096 bytes, which the library stores and never reads. It
/// replaces what was kept before; NULL or "" keeps nothing. Bytes that are not text have to be encoded.
///
/// The text is in the VM's journal. It stays over `mvm_rename` and every start, and the next owner of the state directory
/// finds it. `mvm_runtime_list` and `mvm_info` show it. A spec can say it for a new VM, in `"mvm": {"owner_data": "…"}`;
/// `"owner_data"` in the options of `mvm_restore`, `mvm_clone` and `mvm_pool_take` does the same. A VM that is restored from
/// a snapshot does not have the data of the VM that the snapshot was taken of.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (too long), `MVM_ERR_TIMEOUT` (another call is in flight), `MVM_ERR_INTERRUPTED`,
/// `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_NO_RESOURCES` (a full disk), `MVM_ERR_IO`; the former text stays then.
/// Blocks: for a call in flight, up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_owner_data_set(vm: *mut mvm_vm, data: *const c_char) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let data = unsafe { argument::optional_text(data, "data") }?.unwrap_or_default();
        Ok(handle::get::<OwnedVm, _>(vm)?.vm.set_owner_data(OwnerData::parse(data)?)?)
    })
}

/// Gives the text that `mvm_owner_data_set` keeps with the VM; "" when there is none.
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

/// Returns the name of an `mvm_vm_state`, the constant's own without its prefix, as JSON has it: `"running"`; `"unknown"`
/// for any other number. The string is constant and never freed.
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

/// Gives all that is known of the VM as a JSON object: id, state, pid, exit, the VMM and its version, paths of
/// directory, API socket, console and log, the times of the last start, the report of the last shutdown.
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
