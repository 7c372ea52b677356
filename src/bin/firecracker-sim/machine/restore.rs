//! Building a machine from a snapshot: the state file first, then the memory, then the devices, each of which
//! opens its file or socket on the host again.

use super::Machine;
use crate::api::{LoadSnapshot, MemBackendType};
use crate::config::{MachineConfigUpdate, VmmConfig};
use crate::error::{NetworkInterfaceError, RestoreDeviceError, RestoreError, StateFileError};
use crate::resources::{bound_vsock, open_pmem, opened_drive};
use crate::snapshot::{self, State};

impl Machine {
    /// On a failure the machine is left half built; the process has to end.
    pub(super) fn restore(&mut self, request: &LoadSnapshot) -> Result<State, RestoreError> {
        let mut state = snapshot::read(&request.snapshot_path)?;
        apply_overrides(&mut state.config, request)?;
        match request.memory.backend_type {
            MemBackendType::File => snapshot::read_memory(&request.memory, &mut state)?,
            MemBackendType::Uffd => snapshot::reach_page_fault_handler(&request.memory)?,
        }
        let transport = if self.pci_enabled { "PCI" } else { "MMIO" };
        self.rebuild(&state.config, request.track_dirty_pages)
            .map_err(|error| RestoreError::Build(transport, error))?;
        Ok(state)
    }

    fn rebuild(&mut self, config: &VmmConfig, track_dirty_pages: bool) -> Result<(), RestoreDeviceError> {
        let resources = &mut self.resources;
        if let Some(machine) = config.machine_config.clone() {
            let update = MachineConfigUpdate { track_dirty_pages: Some(track_dirty_pages), ..machine.into() };
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
