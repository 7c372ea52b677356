//! Pools of VMs made ahead of need.

use super::argument::{self, Sized32};
use super::guard::guard;
use super::handle::{self, OwnedPool};
use super::runtime::mvm_runtime;
use super::status::mvm_status;
use super::vm::mvm_vm;
use crate::runtime::{PoolCounts, Runtime};
use std::ffi::c_char;
use std::ptr;

/// A pool of VMs. See "Handles" on the first page.
#[derive(Debug)]
pub struct mvm_pool {
    _private: [u8; 0],
}

/// What a pool holds, and what it did. Set `size` to `sizeof(mvm_pool_counts)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_pool_counts {
    /// In: `sizeof(mvm_pool_counts)`.
    pub size: u32,
    /// How many members are ready to be taken.
    pub ready: u32,
    /// How many members it is to have: `"size"` in its options.
    pub pool_size: u64,
    /// How many VMs were taken out of it.
    pub taken: u64,
    /// How often a VM was wanted and none was ready.
    pub missed: u64,
    /// How many members could not be created; `mvm_pool_info` says why the last one could not.
    pub failed: u64,
}

/// # Warm pools
///
/// Opens the pool `name`. A thread of the pool creates its members. `name` has 1 to 53 letters, digits and '-', and
/// begins with a letter or a digit. Members are VMs with the id `<name>-<number>`, which `mvm_runtime_list` shows.
/// `options` is a JSON object:
///
/// ```text
///     { "snapshot": "base",          members are restored from it, and wait paused; or
///       "spec": {…},                 members are configured by it, and wait without being started
///       "restore": {…},              with "snapshot": the options of mvm_restore
///       "size": 4,                   how many members wait
///       "refill_per_second": 20,     the most members that are created in a second
///       "when_empty": "make" }       mvm_pool_take waits while a member is created; or "fail"
/// ```
///
/// Paths and host devices in "restore" and "spec" may hold the placeholders of `mvm_clone`.
///
/// Members outlive their owner, as other VMs do. The next pool of the same name takes over members that were created
/// with the same options, and destroys the others. `mvm_runtime_reap` removes members of pools that are not open.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (the name), `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NOT_FOUND` (no such snapshot),
/// `MVM_ERR_ALREADY_EXISTS` (the pool is open), `MVM_ERR_NO_RESOURCES`. If members cannot be created, `mvm_pool_info`
/// reports why.
/// Blocks: as `mvm_destroy` for each former member that is destroyed. Ownership: `*pool` is the caller's, for
/// `mvm_pool_release`. Since 0.1.
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

/// Takes a VM out of the pool and gives it the id `id`. Its guest is resumed, or started when it was not started.
/// `options` is a JSON object, or NULL:
///
/// ```text
///     { "after": "resume",           or "stay_paused": the VM stays as it waited
///       "drives": [{"drive_id": "data", "path_on_host": "/srv/data-7"}],   other files for drives
///       "mmds": {…},                 merged into the guest's metadata
///       "owner_data": "tenant 7" }   text of your own (mvm_owner_data_set)
/// ```
///
/// Errors: `MVM_ERR_ALREADY_EXISTS`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_INVALID_CONFIG`, `MVM_ERR_NO_RESOURCES` (the
/// pool is empty, and "when_empty" is "fail"), `MVM_ERR_INTERRUPTED` (`mvm_runtime_interrupt` with `id`), and those of
/// `mvm_restore` and `mvm_start`. A VM that could not be handed over is destroyed.
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

/// Returns what the pool holds, and what it did, as a JSON object: `{"name": "web", "snapshot": "base", "size": 4,
/// "ready": 3, "taken": 17, "missed": 1, "failed": 0, "last_error": null}`.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed).
/// Blocks: never. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pool_info(pool: *mut mvm_pool, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedPool, _>(pool)?.pool.info()?);
        Ok(())
    })
}

/// Returns what the pool holds, and what it did, in numbers.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed). Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_pool_count(pool: *mut mvm_pool, counts: *mut mvm_pool_counts) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::sized_out(counts, "counts") }?;
        out.write(handle::get::<OwnedPool, _>(pool)?.pool.counts()?.into());
        Ok(())
    })
}

/// Destroys the pool and its members. VMs that were taken out of it are not members any more, and keep running. The
/// handle stays valid until it is released; calls on it return `MVM_ERR_NOT_FOUND`. A second destroy succeeds.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, and those of `mvm_destroy`. After an error the pool is closed, and all other members
/// are destroyed. The call can be repeated.
/// Blocks: for a member that is just being created, and as `mvm_destroy` for each member. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_pool_destroy(pool: *mut mvm_pool) -> mvm_status {
    guard(|| {
        let owned = handle::get::<OwnedPool, _>(pool)?;
        Ok(owned.runtime.destroy_pool(&owned.pool)?)
    })
}

/// Closes the pool and releases the handle. Its members stay as they are. `mvm_pool_open` takes them over into the next
/// pool of this name, in this process or a later one. NULL is allowed.
///
/// Errors: `MVM_ERR_BAD_HANDLE`. Blocks: for a member that is just being created. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_pool_release(pool: *mut mvm_pool) -> mvm_status {
    guard(|| {
        let released = handle::close::<OwnedPool, _>(pool)?;
        released.iter().for_each(|owned| owned.runtime.release_pool(&owned.pool));
        Ok(())
    })
}

impl From<PoolCounts> for mvm_pool_counts {
    fn from(counts: PoolCounts) -> Self {
        Self {
            size: 0,
            ready: u32::try_from(counts.ready).unwrap_or(u32::MAX),
            pool_size: counts.size as u64,
            taken: counts.taken,
            missed: counts.missed,
            failed: counts.failed,
        }
    }
}

impl Sized32 for mvm_pool_counts {
    const FIRST_SIZE: usize = 40;

    fn empty(size: u32) -> Self {
        Self { size, ready: 0, pool_size: 0, taken: 0, missed: 0, failed: 0 }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_size_of_the_counts_is_what_0_1_had() {
        assert_eq!(size_of::<mvm_pool_counts>(), mvm_pool_counts::FIRST_SIZE);
    }
}
