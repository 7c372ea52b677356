//! A child process of the caller's own, with the same ladder and no guest.

use super::argument;
use super::failure::Failure;
use super::guard::{guard, guard_in_handler};
use super::handle;
use super::status::mvm_status;
use super::vm::{mvm_exit, mvm_shutdown_outcome};
use crate::process::{Job, JobOptions, Stdio};
use crate::sys::file;
use std::ffi::c_char;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

/// A child process. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_process {
    _private: [u8; 0],
}

/// # Processes of your own
///
/// Starts a program as a child, held by a pidfd. `argv` is NULL-terminated. Its first string is the path of the
/// executable; no search path is used. `envp` is the child's whole environment, NULL-terminated. NULL is an empty one;
/// pass `environ` for your own. `stdio` is three descriptors for the child's input, output and error; -1 is
/// `/dev/null`. NULL is three times `/dev/null`. The descriptors stay yours.
///
/// The child starts with all signals at their default and none blocked. It inherits no other descriptor. It has a
/// session of its own, so a Ctrl-C at the terminal does not reach it. `options` is a JSON object, or NULL:
///
/// ```text
///     { "directory": "/srv", "session": "new" or "inherited", "kill_ms": 5000 }
/// ```
///
/// Errors: `MVM_ERR_NOT_FOUND` (no such program or directory), `MVM_ERR_PERMISSION`, `MVM_ERR_NO_RESOURCES`,
/// `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_IO`. After an error there is no process.
/// Blocks: until the program executes. Ownership: `*process` is the caller's, for `mvm_process_release`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_process_spawn(
    argv: *const *const c_char,
    envp: *const *const c_char,
    stdio: *const i32,
    options: *const c_char,
    process: *mut *mut mvm_process,
) -> mvm_status {
    guard(|| {
        // SAFETY: arrays, strings and places are as the contract page says.
        let out = unsafe { argument::out(process, ptr::null_mut(), "process") }?;
        // SAFETY: as above.
        let (argv, envp) = unsafe { (argument::string_array(argv), argument::string_array(envp)) };
        // SAFETY: as above.
        let (stdio, options) =
            unsafe { (argument::three_descriptors(stdio), argument::optional_text(options, "options")?) };
        let streams = borrowed_streams(stdio)?;
        handle::own_process()?;
        let job = Job::spawn(&argv, &envp, streams.each_ref().map(as_stdio), &JobOptions::parse(options)?)?;
        out.write(handle::open(Arc::new(job))?);
        Ok(())
    })
}

/// Ends the process: sends SIGTERM, waits up to `grace_ms`, then sends SIGKILL. With `grace_ms` 0, SIGKILL comes at
/// once. `poll_ms` and `outcome` are as for `mvm_shutdown`. The child is reaped.
///
/// Errors: `MVM_ERR_INTERRUPTED`, `MVM_ERR_TIMEOUT` (the process outlived SIGKILL by `kill_ms`), `MVM_ERR_PERMISSION`.
/// Blocks: up to `grace_ms` + `kill_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_process_shutdown(
    process: *mut mvm_process,
    grace_ms: u64,
    poll_ms: u64,
    outcome: *mut mvm_shutdown_outcome,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(outcome, mvm_shutdown_outcome::MVM_SHUTDOWN_NONE) };
        let job = handle::get::<Job, _>(process)?;
        let report = job.shutdown(argument::milliseconds(grace_ms), argument::poll_interval(poll_ms))?;
        out.write(report.outcome.into());
        Ok(())
    })
}

/// Waits until the process has ended, at most `timeout_ms`. `*exit` receives how it ended. The child is reaped.
///
/// Errors: `MVM_ERR_TIMEOUT`, `MVM_ERR_INTERRUPTED`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: up to `timeout_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_process_wait(
    process: *mut mvm_process,
    timeout_ms: u64,
    exit: *mut mvm_exit,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::sized_out(exit, "exit") }?;
        out.write(handle::get::<Job, _>(process)?.wait(argument::milliseconds(timeout_ms))?.into());
        Ok(())
    })
}

/// Returns the process id. It is for people to read: once this process was reaped, another one may have this id.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_process_pid(process: *mut mvm_process, pid: *mut i32) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(pid, 0, "pid") }?;
        out.write(handle::get::<Job, _>(process)?.pid());
        Ok(())
    })
}

/// Ends every call that is running on this process, in any thread, with `MVM_ERR_INTERRUPTED`. The process keeps
/// running. This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_process_interrupt(process: *mut mvm_process) -> mvm_status {
    guard_in_handler(|| handle::reach(process, Job::interrupt))
}

/// Releases the handle. The process keeps running, and you must reap it when it ends. NULL is allowed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_process_release(process: *mut mvm_process) -> mvm_status {
    guard(|| handle::close::<Job, _>(process).map(drop))
}

fn borrowed_streams(stdio: [i32; 3]) -> Result<[Option<OwnedFd>; 3], Failure> {
    let [input, output, error] = stdio.map(|fd| match fd {
        -1 => Ok(None),
        fd => file::duplicate_number(fd).map(Some),
    });
    let bad = |source| Failure::argument(format!("a descriptor of \"stdio\" cannot be used: {source}"));
    Ok([input.map_err(bad)?, output.map_err(bad)?, error.map_err(bad)?])
}

fn as_stdio(stream: &Option<OwnedFd>) -> Stdio<'_> {
    stream.as_ref().map_or(Stdio::Null, |fd| Stdio::File(fd.as_fd()))
}
