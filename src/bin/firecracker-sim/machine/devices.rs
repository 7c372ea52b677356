//! What can be asked of a started machine's devices: plugged in and out, patched, looked at.

use std::mem;

use super::{Machine, json, log_preview};
use crate::api::{
    Action, BalloonUpdateConfig, BalloonUpdateStatsConfig, BlockDeviceUpdateConfig, DeviceKind,
    NetworkInterfaceUpdateConfig, Outcome, PmemDeviceUpdateConfig,
};
use crate::config::{
    BalloonDeviceConfig, BlockDeviceConfig, MemoryHotplugConfig, NetworkInterfaceConfig, PmemConfig,
    RateLimiterConfig,
};
use crate::error::{
    ActionError, BalloonError, BlockError, DriveError, NetworkInterfaceError, PmemConfigError,
    VirtioMemError, VmmError,
};
use crate::guest::Guest;
use crate::metrics;
use crate::resources::{open_disk, open_pmem};

/// What the host says to a guest that it asks for free pages no longer.
const HINTING_DONE: u32 = 1;
const PAGES_PER_MIB: u32 = 256;

impl Machine {
    pub(super) fn handle_device(&mut self, action: Action, guest: &Guest) -> Outcome {
        let has_drivers = guest.state().script.has_drivers;
        match action {
            Action::BalloonConfig => {
                return self.balloon().map(|config| Some(json(config))).map_err(ActionError::InternalVmm);
            }
            Action::BalloonStats => {
                return self.balloon_stats(has_drivers).map(Some).map_err(ActionError::InternalVmm);
            }
            Action::HintingStatus => {
                return self.hinting_status(has_drivers).map(Some).map_err(ActionError::BalloonUpdate);
            }
            Action::MemoryHotplugStatus => {
                return self.memory_hotplug_status().map(Some).map_err(ActionError::InternalVmm);
            }
            Action::UpdateBalloon(update) => {
                self.update_balloon(&update, guest).map_err(ActionError::BalloonUpdate)?;
            }
            Action::UpdateBalloonStats(update) => {
                self.update_balloon_stats(&update).map_err(ActionError::BalloonUpdate)?;
            }
            Action::StartHinting => self.start_hinting(has_drivers).map_err(ActionError::BalloonUpdate)?,
            Action::StopHinting => self.stop_hinting(has_drivers).map_err(ActionError::BalloonUpdate)?,
            Action::UpdateMemoryHotplug(update) => self
                .update_memory_hotplug(update.requested_size_mib, guest)
                .map_err(ActionError::MemoryHotplugUpdate)?,
            Action::InsertDrive(config) => self.plug_drive(config)?,
            Action::InsertPmem(config) => self.plug_pmem(config)?,
            Action::InsertNetworkInterface(config) => self.plug_network_interface(config)?,
            Action::HotUnplug(kind, id) => self.unplug(kind, &id)?,
            Action::UpdateDrive(update) => self.update_drive(update).map_err(DriveError::DeviceUpdate)?,
            Action::UpdatePmem(update) => self.update_pmem(&update).map_err(PmemConfigError::DeviceUpdate)?,
            Action::UpdateNetworkInterface(update) => {
                self.update_network_interface(&update).map_err(NetworkInterfaceError::DeviceUpdate)?;
            }
            _ => return Err(ActionError::OperationNotSupportedPostBoot),
        }
        Ok(None)
    }

    fn plug_drive(&mut self, config: BlockDeviceConfig) -> Result<(), ActionError> {
        let in_use = self.resources.drives.iter().any(|drive| drive.drive_id == config.drive_id);
        self.check_plug(in_use)?;
        Ok(self.resources.insert_drive(config)?)
    }

    fn plug_pmem(&mut self, config: PmemConfig) -> Result<(), ActionError> {
        let in_use = self.resources.pmem.iter().any(|pmem| pmem.id == config.id);
        self.check_plug(in_use)?;
        let id = config.id.clone();
        self.resources.insert_pmem(config)?;
        let Some(pmem) = self.resources.pmem.last().filter(|pmem| pmem.id == id) else { return Ok(()) };
        if let Err(error) = open_pmem(pmem) {
            self.resources.pmem.pop();
            return Err(PmemConfigError::CreateDevice(error).into());
        }
        Ok(())
    }

    fn plug_network_interface(&mut self, config: NetworkInterfaceConfig) -> Result<(), ActionError> {
        let in_use =
            self.resources.network_interfaces.iter().any(|one| one.config.iface_id == config.iface_id);
        self.check_plug(in_use)?;
        Ok(self.resources.insert_network_interface(config)?)
    }

    fn check_plug(&self, in_use: bool) -> Result<(), ActionError> {
        log_preview("PCI device hotplug");
        if !self.pci_enabled {
            return Err(ActionError::PciNotEnabled);
        }
        if in_use { Err(ActionError::DeviceIdInUse) } else { Ok(()) }
    }

    fn unplug(&mut self, kind: DeviceKind, id: &str) -> Result<(), ActionError> {
        log_preview("PCI device hot-unplug");
        if !self.pci_enabled {
            return Err(ActionError::PciNotEnabled);
        }
        let resources = &mut self.resources;
        let found = match kind {
            DeviceKind::Drive => resources.drives.iter().position(|drive| drive.drive_id == id),
            DeviceKind::Pmem => resources.pmem.iter().position(|pmem| pmem.id == id),
            DeviceKind::NetworkInterface => {
                resources.network_interfaces.iter().position(|one| one.config.iface_id == id)
            }
        };
        let index = found.ok_or(ActionError::DeviceNotFound)?;
        let is_root = match kind {
            DeviceKind::Drive => resources.drives[index].is_root_device,
            DeviceKind::Pmem => resources.pmem[index].root_device,
            DeviceKind::NetworkInterface => false,
        };
        if is_root {
            return Err(ActionError::CannotUnplugRootDevice);
        }
        match kind {
            DeviceKind::Drive => drop(resources.drives.remove(index)),
            DeviceKind::Pmem => drop(resources.pmem.remove(index)),
            DeviceKind::NetworkInterface => drop(resources.network_interfaces.remove(index)),
        }
        Ok(())
    }

    fn update_drive(&mut self, update: BlockDeviceUpdateConfig) -> Result<(), VmmError> {
        let drives = &mut self.resources.drives;
        let drive = drives
            .iter_mut()
            .find(|drive| drive.drive_id == update.drive_id)
            .ok_or(VmmError::FindDeviceError)?;
        let is_vhost_user = drive.socket.is_some();
        if update.path_on_host.is_none() && update.rate_limiter.is_none() {
            // Firecracker takes such an update for one of a vhost-user drive.
            return if is_vhost_user { Ok(()) } else { Err(BlockError::InvalidBlockBackend.into()) };
        }
        if is_vhost_user {
            return Err(BlockError::InvalidBlockBackend.into());
        }
        if let Some(path) = update.path_on_host {
            open_disk(&path, drive.is_read_only.unwrap_or(false))?;
            drive.path_on_host = Some(path);
            metrics::count("block", "update_count");
            metrics::count(&format!("block_{}", drive.drive_id), "update_count");
        }
        drive.rate_limiter = RateLimiterConfig::updated(drive.rate_limiter, update.rate_limiter);
        Ok(())
    }

    fn update_pmem(&mut self, update: &PmemDeviceUpdateConfig) -> Result<(), VmmError> {
        if update.rate_limiter.is_none() {
            return Ok(());
        }
        let pmem = self
            .resources
            .pmem
            .iter_mut()
            .find(|pmem| pmem.id == update.id)
            .ok_or(VmmError::FindDeviceError)?;
        pmem.rate_limiter = RateLimiterConfig::updated(pmem.rate_limiter, update.rate_limiter);
        Ok(())
    }

    fn update_network_interface(&mut self, update: &NetworkInterfaceUpdateConfig) -> Result<(), VmmError> {
        let mut configs = self.resources.network_interfaces.iter_mut().map(|interface| &mut interface.config);
        let config =
            configs.find(|config| config.iface_id == update.iface_id).ok_or(VmmError::FindDeviceError)?;
        config.rx_rate_limiter = RateLimiterConfig::updated(config.rx_rate_limiter, update.rx_rate_limiter);
        config.tx_rate_limiter = RateLimiterConfig::updated(config.tx_rate_limiter, update.tx_rate_limiter);
        Ok(())
    }

    fn balloon(&self) -> Result<&BalloonDeviceConfig, VmmError> {
        self.resources.balloon.as_ref().ok_or(VmmError::FindDeviceError)
    }

    fn balloon_mut(&mut self) -> Result<&mut BalloonDeviceConfig, VmmError> {
        self.resources.balloon.as_mut().ok_or(VmmError::FindDeviceError)
    }

    fn balloon_stats(&self, has_drivers: bool) -> Result<String, VmmError> {
        let balloon = self.balloon()?;
        if balloon.stats_polling_interval_s == 0 {
            return Err(BalloonError::StatisticsDisabled.into());
        }
        let target = balloon.amount_mib;
        let actual = if has_drivers { target } else { 0 };
        let reported = if has_drivers { self.guests_statistics(actual) } else { String::new() };
        Ok(format!(
            r#"{{"target_pages":{},"actual_pages":{},"target_mib":{target},"actual_mib":{actual}{reported}}}"#,
            target.saturating_mul(PAGES_PER_MIB),
            actual.saturating_mul(PAGES_PER_MIB),
        ))
    }

    /// What a guest with a driver says of itself: an idle one, a tenth of whose memory is its kernel's.
    fn guests_statistics(&self, balloon_mib: u32) -> String {
        let total = (self.resources.machine.mem_size_mib as u64) << 20;
        let total = total - total / 10;
        let free = total.saturating_sub(u64::from(balloon_mib) << 20) / 2;
        format!(
            r#","swap_in":0,"swap_out":0,"major_faults":0,"minor_faults":0,"free_memory":{free},"total_memory":{total},"available_memory":{free},"disk_caches":0,"hugetlb_allocations":0,"hugetlb_failures":0"#
        )
    }

    /// A guest with a driver gives the top of its memory away at once, and takes it back at once.
    fn update_balloon(&mut self, update: &BalloonUpdateConfig, guest: &Guest) -> Result<(), VmmError> {
        let memory = self.resources.machine.mem_size_mib;
        let balloon = self.balloon_mut()?;
        if !guest.state().script.has_drivers {
            return Err(BalloonError::DeviceNotActive.into());
        }
        if update.amount_mib as usize > memory {
            return Err(BalloonError::TooMuchMemoryRequested(update.amount_mib).into());
        }
        let before = mem::replace(&mut balloon.amount_mib, update.amount_mib);
        let [before, after] = [before, update.amount_mib].map(|mib| (mib as usize) << 20);
        // As in Firecracker, pages that cannot be given back stay, and nobody is told.
        let _ = guest.memory().inflate(before, after);
        metrics::count("balloon", if after > before { "inflate_count" } else { "deflate_count" });
        Ok(())
    }

    fn update_balloon_stats(&mut self, update: &BalloonUpdateStatsConfig) -> Result<(), VmmError> {
        let balloon = self.balloon_mut()?;
        let (old, new) = (balloon.stats_polling_interval_s, update.stats_polling_interval_s);
        if old != new && (old == 0 || new == 0) {
            return Err(BalloonError::StatisticsStateChange.into());
        }
        balloon.stats_polling_interval_s = new;
        Ok(())
    }

    fn start_hinting(&mut self, has_drivers: bool) -> Result<(), VmmError> {
        self.check_hinting()?;
        if !has_drivers {
            return Err(BalloonError::DeviceNotActive.into());
        }
        // 0 and 1 are no runs, they say that none goes on.
        self.hinting = self.hinting.wrapping_add(1).max(HINTING_DONE + 1);
        Ok(())
    }

    fn stop_hinting(&mut self, has_drivers: bool) -> Result<(), VmmError> {
        self.check_hinting()?;
        if !has_drivers {
            return Err(BalloonError::DeviceNotActive.into());
        }
        self.hinting = HINTING_DONE;
        Ok(())
    }

    fn hinting_status(&self, has_drivers: bool) -> Result<String, VmmError> {
        self.check_hinting()?;
        let guest =
            if has_drivers && self.hinting > 0 { self.hinting.to_string() } else { "null".to_owned() };
        Ok(format!(r#"{{"host_cmd":{},"guest_cmd":{guest}}}"#, self.hinting))
    }

    fn check_hinting(&self) -> Result<(), VmmError> {
        if self.balloon()?.free_page_hinting { Ok(()) } else { Err(BalloonError::HintingNotEnabled.into()) }
    }

    fn memory_hotplug_status(&self) -> Result<String, VmmError> {
        let config = self.resources.memory_hotplug.as_ref().ok_or(VmmError::FindDeviceError)?;
        let MemoryHotplugConfig { total_size_mib, block_size_mib, slot_size_mib } = config;
        // A guest with drivers plugs what it is given at once; another is never given any.
        let plugged = self.requested_size_mib;
        let sizes = [
            ("block", block_size_mib),
            ("total", total_size_mib),
            ("slot", slot_size_mib),
            ("plugged", &plugged),
            ("requested", &plugged),
        ];
        let fields: Vec<String> =
            sizes.iter().map(|(name, size)| format!("\"{name}_size_mib\":{}", size)).collect();
        Ok(format!("{{{}}}", fields.join(",")))
    }

    fn update_memory_hotplug(&mut self, requested_size_mib: usize, guest: &Guest) -> Result<(), VmmError> {
        let config = self.resources.memory_hotplug.as_ref().ok_or(VmmError::FindDeviceError)?;
        if !guest.state().script.has_drivers {
            return Err(VirtioMemError::DeviceNotActive.into());
        }
        if !requested_size_mib.is_multiple_of(config.block_size_mib)
            || requested_size_mib > config.total_size_mib
        {
            return Err(VirtioMemError::InvalidSize(requested_size_mib.saturating_mul(1 << 20)).into());
        }
        guest.memory().plug(requested_size_mib, config.slot_size_mib);
        self.requested_size_mib = requested_size_mib;
        Ok(())
    }
}
