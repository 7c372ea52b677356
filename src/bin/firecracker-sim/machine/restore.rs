//! Building a machine from a snapshot: the state file first, then the memory, then the devices, each of which
//! opens its file or socket on the host again.

use std::sync::Arc;

use super::{Machine, handler};
use crate::api::{LoadSnapshot, MemBackendType};
use crate::config::{HugePageConfig, MachineConfigUpdate, VmmConfig};
use crate::error::{
    GuestMemoryError, NetworkInterfaceError, RestoreDeviceError, RestoreError, StateFileError,
};
use crate::fault::{Handshake, RequestFault};
use crate::guest::{GuestState, Serial};
use crate::log::{self, Speaker};
use crate::memory::{GuestMemory, Layout, Tracking};
use crate::proc;
use crate::resources::{bound_vsock, open_pmem, opened_drive};
use crate::snapshot;

/// What a restored guest is made of; its console is where this process was told, or on its stdout: a snapshot does
/// not say.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) guest: GuestState,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) serial: Serial,
}

impl Machine {
    /// On a failure the machine is left half built; the process has to end.
    pub(super) fn restore(&mut self, request: &LoadSnapshot) -> Result<Restored, RestoreError> {
        let mut state = snapshot::read(&request.snapshot_path)?;
        apply_overrides(&mut state.config, request)?;
        compare_vendors(&state.cpu_vendor);
        let memory = restored_memory(&state.config, request, self.handshake())?;
        let serial = self.open_serial().map_err(RestoreError::Console)?;
        let transport = if self.pci_enabled { "PCI" } else { "MMIO" };
        self.rebuild(&state.config, request.tracks).map_err(|error| RestoreError::Build(transport, error))?;
        self.requested_size_mib = state.requested_size_mib;
        if let Some(hotplug) = &state.config.memory_hotplug {
            memory.plug(state.requested_size_mib, hotplug.slot_size_mib);
        }
        renew_identity(&memory);
        Ok(Restored { guest: state.guest, memory: Arc::new(memory), serial })
    }

    fn handshake(&self) -> Handshake {
        let asked_for = self.faults.iter().find_map(|fault| match fault {
            RequestFault::Handshake(handshake) => Some(*handshake),
            _ => None,
        });
        asked_for.unwrap_or_default()
    }

    fn rebuild(&mut self, config: &VmmConfig, tracks: Tracking) -> Result<(), RestoreDeviceError> {
        let resources = &mut self.resources;
        if let Some(machine) = config.machine_config.clone() {
            let update =
                MachineConfigUpdate { track_dirty_pages: Some(tracks == Tracking::On), ..machine.into() };
            // A state that this simulator wrote has sizes that it accepts.
            let _ = resources.update_machine(&update);
        }
        resources.boot_source = Some(config.boot_source.clone());
        resources.balloon.clone_from(&config.balloon);
        resources.entropy.clone_from(&config.entropy);
        resources.memory_hotplug.clone_from(&config.memory_hotplug);
        for drive in &config.drives {
            resources.drives.push(opened_drive(drive.clone()).map_err(RestoreDeviceError::Block)?);
        }
        for interface in &config.network_interfaces {
            resources.insert_network_interface(interface.clone()).map_err(as_network_device_error)?;
        }
        if let Some(mmds) = &config.mmds_config {
            // As above: these interfaces are the ones that were just put back.
            let _ = resources.set_mmds_config(mmds);
        }
        if let Some(vsock) = &config.vsock {
            resources.vsock = Some(bound_vsock(vsock.clone()).map_err(RestoreDeviceError::Vsock)?);
        }
        for pmem in &config.pmem_devices {
            open_pmem(pmem).map_err(RestoreDeviceError::Pmem)?;
            resources.pmem.push(pmem.clone());
        }
        Ok(())
    }
}

/// Where Firecracker tells a guest that it was restored; with a page-fault handler these pages are the first.
const VMCLOCK: u64 = 0xd_f000;
const VMGENID: u64 = 0xd_e000;

fn renew_identity(memory: &GuestMemory) {
    memory.set_word(VMCLOCK, memory.word(VMCLOCK).wrapping_add(1));
    memory.set_word(VMGENID, memory.word(VMGENID).wrapping_add(1));
}

fn restored_memory(
    config: &VmmConfig,
    request: &LoadSnapshot,
    handshake: Handshake,
) -> Result<GuestMemory, GuestMemoryError> {
    let layout = Layout::of_snapshot(config, request.tracks);
    let path = &request.memory.backend_path;
    match request.memory.backend_type {
        MemBackendType::File => {
            let huge = config.machine_config.as_ref().map(|machine| machine.huge_pages);
            if huge == Some(HugePageConfig::Hugetlbfs2M) {
                return Err(GuestMemoryError::HugetlbfsSnapshot);
            }
            snapshot::read_memory(path, &layout)
        }
        MemBackendType::Uffd => handler::served_memory(path, &layout, handshake),
    }
}

/// As Firecracker has it, a snapshot of another vendor's processor is loaded, with a warning.
fn compare_vendors(snapshotted: &str) {
    let here = &proc::look().cpu_vendor;
    let place = "src/vmm/src/persist.rs:239";
    log::info(Speaker::Main, place, &format!("Host CPU vendor ID: {:?}", here.as_bytes()));
    log::info(Speaker::Main, place, &format!("Snapshot CPU vendor ID: {:?}", snapshotted.as_bytes()));
    if here != snapshotted {
        log::warn(Speaker::Main, place, "Host CPU vendor ID differs from the snapshotted one");
    }
}

fn apply_overrides(config: &mut VmmConfig, request: &LoadSnapshot) -> Result<(), StateFileError> {
    for wanted in &request.network_overrides {
        let mut interfaces = config.network_interfaces.iter_mut();
        let interface = interfaces.find(|interface| interface.iface_id == wanted.iface_id);
        interface
            .ok_or(StateFileError::UnknownNetworkDevice)?
            .host_dev_name
            .clone_from(&wanted.host_dev_name);
    }
    if let Some(wanted) = &request.vsock_override {
        let vsock = config.vsock.as_mut().ok_or(StateFileError::UnknownVsockDevice)?;
        vsock.uds_path.clone_from(&wanted.uds_path);
    }
    Ok(())
}

fn as_network_device_error(error: NetworkInterfaceError) -> RestoreDeviceError {
    match error {
        NetworkInterfaceError::CreateNetworkDevice(error) => RestoreDeviceError::Net(error),
        other => RestoreDeviceError::OtherNet(other),
    }
}
