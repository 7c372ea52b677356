//! Devices that change while the guest runs.

use super::argument;
use super::failure::Failure;
use super::guard::guard;
use super::handle::{self, OwnedVm};
use super::status::mvm_status;
use super::vm::mvm_vm;
use crate::vm::Device;
use std::ffi::c_char;
use std::path::Path;
use std::ptr;

/// The result of `mvm_balloon_set` when the balloon reports nothing.
pub const MVM_UNKNOWN: u64 = u64::MAX;

/// # Devices
///
/// Sets the size of the balloon to `amount_mib`: the guest gives that much memory to the balloon, or takes back what is
/// more. Waits up to `timeout_ms` until the guest has followed; 0 does not wait. `*actual_mib` (`actual_mib` may be
/// NULL) receives the size of the balloon after the call. It is `MVM_UNKNOWN` when the balloon's statistics are off
/// (`stats_polling_interval_s`); the call then does not wait.
///
/// Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it still may), `MVM_ERR_BAD_STATE` (not started),
/// `MVM_ERR_VMM_REFUSED` (no balloon, or more than the memory), and those of `mvm_request`.
/// Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_balloon_set(
    vm: *mut mvm_vm,
    amount_mib: u64,
    timeout_ms: u64,
    actual_mib: *mut u64,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(actual_mib, MVM_UNKNOWN) };
        let vm = &handle::get::<OwnedVm, _>(vm)?.vm;
        let actual = vm.set_balloon(amount_mib, argument::milliseconds(timeout_ms))?;
        out.write(actual.unwrap_or(MVM_UNKNOWN));
        Ok(())
    })
}

/// Returns what the guest reports about its memory: the JSON object of Firecracker's `GET /balloon/statistics`.
///
/// Errors: `MVM_ERR_VMM_REFUSED` (no balloon, or its statistics are off), and those of `mvm_request`.
/// Blocks: up to `request_ms`. Ownership: `*json` is the caller's, for `mvm_string_free`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_balloon_statistics(vm: *mut mvm_vm, json: *mut *mut c_char) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(json, ptr::null_mut(), "json") }?;
        out.write_text(&handle::get::<OwnedVm, _>(vm)?.vm.balloon_statistics()?);
        Ok(())
    })
}

/// Plugs memory in or out until `size_mib` of the spec's `memory-hotplug` are plugged in. Waits up to `timeout_ms`
/// until the guest has followed; 0 does not wait. `*plugged_mib` (`plugged_mib` may be NULL) receives how much is
/// plugged in after the call.
///
/// Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it still may), `MVM_ERR_BAD_STATE`, `MVM_ERR_VMM_REFUSED` (no
/// such memory, or not so much), and those of `mvm_request`. Blocks: up to `timeout_ms` and `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_memory_hotplug(
    vm: *mut mvm_vm,
    size_mib: u64,
    timeout_ms: u64,
    plugged_mib: *mut u64,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::optional_out(plugged_mib, 0) };
        let vm = &handle::get::<OwnedVm, _>(vm)?.vm;
        out.write(vm.set_hotplugged_memory(size_mib, argument::milliseconds(timeout_ms))?);
        Ok(())
    })
}

/// Gives the drive `drive_id` another file, another rate limit, or both. NULL keeps the present one. When a file has
/// grown, pass its path again: the guest then sees the new size. `rate_limiter` is JSON, as in a spec.
///
/// Errors: `MVM_ERR_NOT_FOUND` (no such file), `MVM_ERR_VMM_REFUSED` (no such drive), `MVM_ERR_BAD_STATE` (not
/// started), `MVM_ERR_BUSY` (another VM uses the file), `MVM_ERR_INVALID_CONFIG` (not JSON), and those of
/// `mvm_request`. After an error the drive is unchanged.
/// Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_drive_update(
    vm: *mut mvm_vm,
    drive_id: *const c_char,
    path_on_host: *const c_char,
    rate_limiter: *const c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let drive_id = unsafe { argument::text(drive_id, "drive_id") }?;
        // SAFETY: as above.
        let path = unsafe { argument::optional_text(path_on_host, "path_on_host") }?.map(Path::new);
        // SAFETY: as above.
        let limiter = unsafe { argument::optional_json(rate_limiter, "rate_limiter") }?;
        Ok(handle::get::<OwnedVm, _>(vm)?.vm.update_drive(drive_id, path, limiter)?)
    })
}

/// Limits the rates of the network interface `iface_id`: of what the guest receives and of what it sends. Each limit is
/// JSON, as in a spec. NULL keeps the present one.
///
/// Errors: `MVM_ERR_VMM_REFUSED` (no such interface), `MVM_ERR_BAD_STATE` (not started), `MVM_ERR_INVALID_CONFIG` (not
/// JSON), and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_network_update(
    vm: *mut mvm_vm,
    iface_id: *const c_char,
    rx_rate_limiter: *const c_char,
    tx_rate_limiter: *const c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let iface_id = unsafe { argument::text(iface_id, "iface_id") }?;
        // SAFETY: as above.
        let rx = unsafe { argument::optional_json(rx_rate_limiter, "rx_rate_limiter") }?;
        // SAFETY: as above.
        let tx = unsafe { argument::optional_json(tx_rate_limiter, "tx_rate_limiter") }?;
        Ok(handle::get::<OwnedVm, _>(vm)?.vm.update_network_interface(iface_id, rx, tx)?)
    })
}

/// Plugs a device into a running VM (Firecracker 1.16, started with `--enable-pci`). The guest finds the device at its
/// next scan of the PCI bus. `section` is the device's section of a spec: "drives", "pmem" or "network-interfaces".
/// `definition` is the device's JSON in that section.
///
/// Errors: `MVM_ERR_UNSUPPORTED` (Firecracker is too old), `MVM_ERR_VMM_REFUSED`, `MVM_ERR_BAD_STATE` (not started),
/// `MVM_ERR_BUSY` (another VM uses the file or network device), `MVM_ERR_INVALID_ARGUMENT` (the section),
/// `MVM_ERR_INVALID_CONFIG` (not JSON), and those of `mvm_request`.
/// Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_device_attach(
    vm: *mut mvm_vm,
    section: *const c_char,
    definition: *const c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let section = unsafe { argument::text(section, "section") }?;
        // SAFETY: as above.
        let definition = unsafe { argument::json(definition, "definition") }?;
        let owned = handle::get::<OwnedVm, _>(vm)?;
        Ok(owned.runtime.attach(&owned.vm, device(section)?, definition)?)
    })
}

/// Plugs out a device (Firecracker 1.16, started with `--enable-pci`). The guest must have removed the device first.
///
/// Errors: `MVM_ERR_UNSUPPORTED` (Firecracker is too old), `MVM_ERR_VMM_REFUSED` (no such device), `MVM_ERR_BAD_STATE`,
/// `MVM_ERR_INVALID_ARGUMENT` (the section), and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_device_detach(
    vm: *mut mvm_vm,
    section: *const c_char,
    id: *const c_char,
) -> mvm_status {
    guard(|| {
        // SAFETY: strings are as the contract page says.
        let (section, id) = unsafe { (argument::text(section, "section")?, argument::text(id, "id")?) };
        Ok(handle::get::<OwnedVm, _>(vm)?.vm.detach(device(section)?, id)?)
    })
}

fn device(section: &str) -> Result<Device, Failure> {
    let known = "\"drives\", \"pmem\" and \"network-interfaces\"";
    Device::of_section(section).ok_or_else(|| {
        Failure::argument(format!("no device is plugged in or out of {section:?}: only of {known}"))
    })
}
