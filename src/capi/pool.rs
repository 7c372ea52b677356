//! Pools of VMs made ahead of need.

use super::argument;
use super::guard::guard;
use super::handle::{self, OwnedPool};
use super::runtime::mvm_runtime;
use super::status::mvm_status;
use super::vm::mvm_vm;
use crate::runtime::Runtime;
use std::ffi::c_char;
use std::ptr;

/// A pool of VMs. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_pool {
    _private: [u8; 0],
}

/// # Warm pools
///
/// Opens the pool `name` and has it filled, by a thread of its own. `name` has 1 to 53 letters, digits and '-', and
/// begins with a letter or a digit. Members are VMs called `<name>-<number>`, which `mvm_runtime_list` shows. `options` is a JSON object:
///
/// ```text
///     { "snapshot": "base",          members are restored from it, and held; or
///       "spec": {…},                 members are configured by it, and not started
///       "restore": {…},              the options of mvm_restore, for "snapshot"
///       "size": 4,                   how many wait
///       "refill_per_second": 20,     at most so many are made
///       "when_empty": "make" }       a taker waits while one is made; or "fail"
/// ```
///
/// Paths and host devices in "restore" and "spec" may hold the placeholders of `mvm_clone`.
///
/// Members outlive their owner as other VMs do. Whoever opens a pool of the same name takes over those that are what it
/// wants, and destroys the others; `mvm_runtime_reap` removes those of pools that are not open.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (the name), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NOT_FOUND` (no such snapshot),
/// `MVM_ERR_ALREADY_EXISTS` (it is open), `MVM_ERR_NO_RESOURCES`. That members cannot be made is told by `mvm_pool_info`.
/// Blocks: as `mvm_destroy` for each member of a former owner's that does not fit. Ownership: `*pool` is the caller's, for `mvm_pool_close`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pool_open(
    runtime: *mut mvm_runtime,
    name: *const c_char,
    options: *const c_char,
    pool: *mut *mut mvm_pool,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(pool, ptr::null_mut(), "pool") }?;
        // SAFETY: as above.
        let (name, options) = unsafe { (argument::text(name, "name")?, argument::text(options, "options")?) };
        let runtime = handle::get::<Runtime, _>(runtime)?;
        let pool = runtime.open_pool(name, options)?;
        out.write(handle::open_pool(&runtime, pool)?);
        Ok(())
    })
}

/// Takes a VM out of the pool, which is called `id` from now on, and lets its guest go on, or starts it. `options` is a
/// JSON object, or NULL:
///
/// ```text
///     { "after": "go_on",            or "stay_paused": it is left as it waited
///       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-7"}],   other files for drives
///       "mmds": {…} }                merged into the guest's metadata
/// ```
///
/// Errors: `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NO_RESOURCES` (it is
/// empty, and "when_empty" is "fail"), `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` for `id`), and those of
/// `mvm_restore` and `mvm_start`; the VM is gone then.
/// Blocks: for one or two requests; for a restore when the pool is empty. Ownership: `*vm` is the caller's, for
/// `mvm_release`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pool_take(
    pool: *mut mvm_pool,
    id: *const c_char,
    options: *const c_char,
    vm: *mut *mut mvm_vm,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings and places are as the contract page says.
        let out = unsafe { argument::out(vm, ptr::null_mut(), "vm") }?;
        // SAFETY: as above.
        let (id, options) =
            unsafe { (argument::text(id, "id")?, argument::optional_text(options, "options")?) };
        let owned = handle::get::<OwnedPool, _>(pool)?;
        let vm = owned.runtime.take(&owned.pool, id, options)?;
        out.write(handle::open_vm(&owned.runtime, vm)?);
        Ok(())
    })
}

/// Says what the pool holds and has done, as a JSON object: `{"name": "web", "snapshot": "base", "size": 4, "ready": 3,
/// "taken": 17, "missed": 1, "failed": 0, "last_error": null}`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pool_info(pool: *mut mvm_pool, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedPool, _>(pool)?.pool.info());
        Ok(())
    })
}

/// Closes the pool, destroys the VMs that wait in it, and forgets the handle. NULL is fine. Releasing the runtime instead
/// leaves them waiting for the next owner.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, and those of `mvm_destroy`; the pool is closed all the same.
/// Blocks: for a member that is being made, and as `mvm_destroy` for each. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_pool_close(pool: *mut mvm_pool) -> mvm_status {
    guard(|| match handle::close::<OwnedPool, _>(pool)? {
        Some(owned) => Ok(owned.runtime.close_pool(&owned.pool)?),
        None => Ok(()),
    })
}
