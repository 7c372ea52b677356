//! Ending one call, or the calls of one task, and no others.

use super::argument;
use super::guard::{guard, guard_in_handler};
use super::handle;
use super::status::mvm_status;
use crate::process::Cancel;
use std::ptr;
use std::sync::Arc;

/// A cancel token. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_cancel {
    _private: [u8; 0],
}

/// # Ending calls early
///
/// Creates a cancel token. A call that is bound to a token ends with `MVM_ERR_INTERRUPTED` when the token is raised, and
/// no other call does:
///
/// ```text
///     mvm_cancel_create(&cancel);
///     mvm_cancel_bind(cancel);               on the thread that makes the call
///     status = mvm_snapshot_create(vm, "s1", NULL, NULL);
///     mvm_cancel_bind(NULL);
///     mvm_cancel_release(cancel);
/// ```
///
/// Another thread, or a signal handler, ends the snapshot by `mvm_cancel_raise(cancel)`. One token may be bound on
/// several threads, for all calls of one task. `mvm_interrupt` ends all calls on a VM, whoever made them.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Ownership: `*cancel` is the caller's, for `mvm_cancel_release`.
/// Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_cancel_create(cancel: *mut *mut mvm_cancel) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(cancel, ptr::null_mut(), "cancel") }?;
        out.write(handle::open(Arc::new(Cancel::default()))?);
        Ok(())
    })
}

/// Binds the later calls of this thread to the token, instead of the token that was bound before. NULL binds them to
/// none. Only calls that can block check a token. In a language that moves code between threads, bind, call and unbind
/// in one C function.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. After an error the former token stays bound. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_cancel_bind(cancel: *mut mvm_cancel) -> mvm_status {
    guard(|| {
        let token = if cancel.is_null() { None } else { Some(handle::get::<Cancel, _>(cancel)?) };
        drop(Cancel::bind_thread(token.as_deref().cloned()));
        Ok(())
    })
}

/// Raises the token for good. Every call that is bound to it ends with `MVM_ERR_INTERRUPTED`. Every later call that is
/// bound to it returns `MVM_ERR_INTERRUPTED` before it does anything. The VM keeps running.
///
/// This function may be called in a signal handler. Its failures leave no details for `mvm_last_error`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never; the calls return soon after. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_cancel_raise(cancel: *mut mvm_cancel) -> mvm_status {
    guard_in_handler(|| handle::reach(cancel, Cancel::raise))
}

/// Releases the handle. Threads that are bound to the token stay bound to it. NULL is allowed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_cancel_release(cancel: *mut mvm_cancel) -> mvm_status {
    guard(|| handle::close::<Cancel, _>(cancel).map(drop))
}
