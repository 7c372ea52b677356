//! What a call returns, and the details of the last failure of a thread.

use super::argument;
use super::failure::{self, Failure};
use super::guard::guard;
use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// What a call returns: 0, or why the call failed. The numbers never change. There is one status for each decision that
/// a caller can take.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_status {
    /// The call succeeded.
    MVM_OK = 0,
    /// A bug in the library: a panic was caught. The message has its text.
    MVM_ERR_INTERNAL = -1,
    /// The handle is NULL, was released, is of another kind, or never existed.
    MVM_ERR_BAD_HANDLE = -2,
    /// This process was forked after the library was first used. Only the parent may use the library.
    MVM_ERR_FORKED = -3,
    /// An argument is NULL, not UTF-8, or not one of the allowed values.
    MVM_ERR_INVALID_ARGUMENT = -4,
    /// A spec or options: not JSON, an unknown key, or an impossible value. The message names the key.
    MVM_ERR_INVALID_CONFIG = -5,
    /// The call is not possible in the present state of the VM.
    MVM_ERR_BAD_STATE = -6,
    /// There is no such VM, snapshot, pool or file.
    MVM_ERR_NOT_FOUND = -7,
    /// There is a VM, a snapshot or a pool with this id already.
    MVM_ERR_ALREADY_EXISTS = -8,
    /// Another runtime owns the state directory; or something depends on the snapshot, or works on it; or another VM
    /// uses the file, the socket or the device.
    MVM_ERR_BUSY = -9,
    /// The call did not finish within its limit.
    MVM_ERR_TIMEOUT = -10,
    /// The call was ended early: by `mvm_cancel_raise`, `mvm_interrupt`, or the closing of the runtime.
    MVM_ERR_INTERRUPTED = -11,
    /// Firecracker refused. Its own words are in `fault_message`.
    MVM_ERR_VMM_REFUSED = -12,
    /// The VMM ended while it was needed. The error says how, with its last output.
    MVM_ERR_VMM_EXITED = -13,
    /// The VMM, or a program in its place, does not speak as Firecracker does.
    MVM_ERR_VMM_PROTOCOL = -14,
    /// This machine, or this version of Firecracker, cannot do it.
    MVM_ERR_UNSUPPORTED = -15,
    /// The operating system forbids it. See `os_errno`.
    MVM_ERR_PERMISSION = -16,
    /// Descriptors, memory, processes or disk space have run out. The call may succeed later.
    MVM_ERR_NO_RESOURCES = -17,
    /// The operating system reports another error. See `os_errno`.
    MVM_ERR_IO = -18,
    /// A snapshot has changed since it was taken: a file is missing, cut off or altered. Use another snapshot.
    MVM_ERR_DAMAGED = -19,
}

/// How a process ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_exit_kind {
    /// The process has not ended.
    MVM_EXIT_NONE = 0,
    /// The process exited, with the code in `value`.
    MVM_EXIT_CODE = 1,
    /// The signal in `value` ended it.
    MVM_EXIT_SIGNAL = 2,
    /// The process has ended, but its status is not known. The host process took the status first (by `waitpid(-1)`, or
    /// with SIGCHLD ignored) on a kernel before 6.15; or no owner noted the end.
    MVM_EXIT_REAPED_BY_HOST = 3,
}

/// The details of a failure. Set `size` to `sizeof(mvm_error)` before the call; all texts are NUL-terminated
/// UTF-8, cut at a character where they are too long.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_error {
    /// In: `sizeof(mvm_error)`.
    pub size: u32,
    /// What the call returned.
    pub status: mvm_status,
    /// The `errno` behind it, or 0.
    pub os_errno: i32,
    /// The HTTP status with which Firecracker refused, or 0.
    pub http_status: i32,
    /// How the VMM ended, where it did.
    pub exit_kind: mvm_exit_kind,
    /// The exit code or signal, where there is one.
    pub exit_value: i32,
    /// What was going on: an operation (`start`), a step (`spawn`) or a request (`PUT /drives/rootfs`).
    pub stage: [c_char; 64],
    /// What was tried, on what, why it failed and what to do, with all its causes, in one line.
    pub message: [c_char; 1024],
    /// Firecracker's own fault message, where it refused.
    pub fault_message: [c_char; 1024],
    /// The last of what the VMM wrote about itself, where that explains something.
    pub output: [c_char; 2048],
}

/// # Errors
///
/// Copies the details of the calling thread's last failure into `*error`. A call that succeeds does not change them. If
/// no call has failed, `error->status` is `MVM_OK` and the texts are empty.
///
/// Call this on the thread that made the failed call, before its next call. In a language that moves code between
/// threads, make both calls in one C function.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (NULL, or a `size` smaller than that of this struct in 0.1). These do not change
/// the details.
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_last_error(error: *mut mvm_error) -> mvm_status {
    guard(|| {
        // SAFETY: the caller passes NULL, or a struct whose first `size` bytes are writable (contract page).
        let error = unsafe { argument::sized_out(error, "error") }.map_err(Failure::unrecorded)?;
        error.write(failure::last());
        Ok(())
    })
}

/// Returns the message of the calling thread's last failure. The string is never NULL, and is `""` when no call has
/// failed. It is the `message` of `mvm_last_error`, but never cut.
///
/// The string belongs to the library. It does not change until this thread calls this function again, or ends.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_last_error_message() -> *const c_char {
    thread_local! {
        static MESSAGE: RefCell<CString> = RefCell::default();
    }
    let mut message = c"".as_ptr();
    let _kept = guard(|| {
        let text = argument::owned_text(&failure::last_message());
        // A thread that is ending has no place for it any more.
        message = MESSAGE
            .try_with(|kept| kept.replace(text))
            .map_or(message, |_former| MESSAGE.try_with(|kept| kept.borrow().as_ptr()).unwrap_or(message));
        Ok(())
    });
    message
}

/// Returns the name of a status, such as `"MVM_ERR_TIMEOUT"`; `"unknown"` for any other number. The string is constant
/// and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_status_name(status: i32) -> *const c_char {
    failure::status_name(status).as_ptr()
}

/// Returns the name of an `mvm_exit_kind`, as in JSON: `"code"`, `"signal"`, `"reaped_by_host"`, `"none"`. Any other
/// number is `"unknown"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_exit_name(kind: i32) -> *const c_char {
    let name = match kind {
        0 => c"none",
        1 => c"code",
        2 => c"signal",
        3 => c"reaped_by_host",
        _ => c"unknown",
    };
    name.as_ptr()
}
