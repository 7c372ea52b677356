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

/// What `mvm_balloon_set` gives when the balloon tells nothing.
pub const MVM_UNKNOWN: u64 = u64::MAX;

/// # Devices
///
/// Has the guest give `amount_mib` of its memory to the balloon, or take back what is more, and waits up to `timeout_ms`
/// until it has; 0 does not wait. `*actual_mib`, which may be NULL, is what the balloon holds then: `MVM_UNKNOWN` when its
/// statistics are off (`stats_polling_interval_s`), and then nothing is waited for.
///
/// Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it may still), `MVM_ERR_BAD_STATE` (not started),
/// `MVM_ERR_VMM_REFUSED` (no balloon, or more than there is memory), and those of `mvm_request`.
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

/// Gives what the guest says of its memory, as the JSON object that Firecracker's `GET /balloon/statistics` answers.
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

/// Plugs memory in or out until `size_mib` of the spec's `memory-hotplug` are plugged in, and waits up to `timeout_ms`
/// until the guest has followed; 0 does not wait. `*plugged_mib`, which may be NULL, is how much is plugged in then.
///
/// Errors: `MVM_ERR_TIMEOUT` (the guest has not followed; it may still), `MVM_ERR_BAD_STATE`, `MVM_ERR_VMM_REFUSED` (no
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

/// Gives the drive `drive_id` another file, another rate limit, or both; NULL leaves what there is. A file that has grown
/// is given once more, and the guest sees its new size. `rate_limiter` is JSON, as in a spec.
///
/// Errors: `MVM_ERR_NOT_FOUND` (no such file), `MVM_ERR_VMM_REFUSED` (no such drive), `MVM_ERR_BAD_STATE` (not started),
/// `MVM_ERR_INVALID_CONFIG` (no JSON), and those of `mvm_request`; the drive is what it was then.
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

/// Limits the rates of the network interface `iface_id`: what the guest receives and what it sends, each JSON as in a
/// spec; NULL leaves what there is.
///
/// Errors: `MVM_ERR_VMM_REFUSED` (no such interface), `MVM_ERR_BAD_STATE` (not started), `MVM_ERR_INVALID_CONFIG` (no JSON),
/// and those of `mvm_request`. Blocks: up to `request_ms`. Since 0.1.
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

/// Plugs a device into a VM that runs (Firecracker 1.16, started with `--enable-pci`); the guest finds it when it scans
/// its PCI bus anew. `section` is where the device would stand in a spec: "drives", "pmem" or "network-interfaces";
/// `definition` is the JSON that would stand there.
///
/// Errors: `MVM_ERR_UNSUPPORTED` (an older Firecracker), `MVM_ERR_VMM_REFUSED`, `MVM_ERR_BAD_STATE` (not started),
/// `MVM_ERR_INVALID_ARGUMENT` (the section), `MVM_ERR_INVALID_CONFIG` (no JSON), and those of `mvm_request`.
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

/// Plugs out a device that the guest has let go of before (Firecracker 1.16, started with `--enable-pci`).
///
/// Errors: `MVM_ERR_UNSUPPORTED` (an older Firecracker), `MVM_ERR_VMM_REFUSED` (no such device), `MVM_ERR_BAD_STATE`,
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
