//! What a machine is made of, and the rules by which each part is accepted. The files and sockets that
//! Firecracker opens when a part is configured are opened here, at the same moment; a TAP is only checked by
//! its name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use serde_json::Value;

use crate::config::{
    BalloonDeviceConfig, BlockDeviceConfig, BootSourceConfig, EntropyDeviceConfig, FileEngineType,
    HugePageConfig, MachineConfig, MachineConfigUpdate, MemoryHotplugConfig, MmdsConfig, MmdsVersion,
    NetworkInterfaceConfig, PmemConfig, SerialConfig, StaticCpuTemplate, VmmConfig, VsockDeviceConfig,
    default_block_size_mib, default_slot_size_mib,
};
use crate::error::{
    BalloonConfigError, BlockError, BootSourceConfigError, DriveError, MachineConfigError,
    MemoryHotplugConfigError, MmdsConfigError, MmdsDatastoreError, NetError, NetworkInterfaceError,
    PmemConfigError, PmemError, TapError, VhostUserBlockError, VirtioBlockError, VsockConfigError,
    VsockUnixBackendError,
};
use crate::machine::log_preview;
use crate::metrics;

/// The first address that the guest finds its metadata at, unless told otherwise.
const MMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const MAX_VCPUS: u8 = 32;
const MAX_COMMAND_LINE: usize = 2048;
pub(crate) const DEFAULT_COMMAND_LINE: &str =
    "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";
/// The kernel's IFNAMSIZ, its NUL included.
const MAX_INTERFACE_NAME: usize = 16;
const MIN_MTU: u16 = 68;

#[derive(Debug, Default)]
pub(crate) struct Resources {
    pub(crate) machine: MachineConfig,
    pub(crate) boot_source: Option<BootSourceConfig>,
    pub(crate) drives: Vec<BlockDeviceConfig>,
    pub(crate) network_interfaces: Vec<NetworkInterface>,
    pub(crate) pmem: Vec<PmemConfig>,
    pub(crate) vsock: Option<Vsock>,
    pub(crate) balloon: Option<BalloonDeviceConfig>,
    pub(crate) entropy: Option<EntropyDeviceConfig>,
    pub(crate) memory_hotplug: Option<MemoryHotplugConfig>,
    pub(crate) mmds: Mmds,
    pub(crate) serial_out_path: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct NetworkInterface {
    pub(crate) config: NetworkInterfaceConfig,
    /// Where this interface's guest reaches its metadata, if it may.
    pub(crate) mmds_address: Option<Ipv4Addr>,
}

/// The socket is bound as long as the device exists; its file is left behind.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) config: VsockDeviceConfig,
    _listener: UnixListener,
}

#[derive(Debug, Default)]
pub(crate) struct Mmds {
    version: MmdsVersion,
    imds_compat: bool,
    contents: Option<Value>,
    pub(crate) size_limit: usize,
}

impl Resources {
    pub(crate) fn set_boot_source(&mut self, config: BootSourceConfig) -> Result<(), BootSourceConfigError> {
        File::open(&config.kernel_image_path).map_err(BootSourceConfigError::InvalidKernelPath)?;
        if let Some(path) = &config.initrd_path {
            File::open(path).map_err(BootSourceConfigError::InvalidInitrdPath)?;
        }
        check_command_line(config.boot_args.as_deref().unwrap_or(DEFAULT_COMMAND_LINE))?;
        self.boot_source = Some(config);
        Ok(())
    }

    pub(crate) fn update_machine(&mut self, update: &MachineConfigUpdate) -> Result<(), MachineConfigError> {
        let current = &self.machine;
        let machine = MachineConfig {
            vcpu_count: update.vcpu_count.unwrap_or(current.vcpu_count),
            mem_size_mib: update.mem_size_mib.unwrap_or(current.mem_size_mib),
            smt: update.smt.unwrap_or(current.smt),
            cpu_template: update
                .cpu_template
                .or(current.cpu_template)
                .filter(|one| *one != StaticCpuTemplate::None),
            track_dirty_pages: update.track_dirty_pages.unwrap_or(current.track_dirty_pages),
            huge_pages: update.huge_pages.unwrap_or(current.huge_pages),
        };
        let odd_siblings = machine.smt && machine.vcpu_count > 1 && machine.vcpu_count % 2 == 1;
        if machine.vcpu_count == 0 || machine.vcpu_count > MAX_VCPUS || odd_siblings {
            return Err(MachineConfigError::InvalidVcpuCount);
        }
        let half_a_page = machine.huge_pages == HugePageConfig::Hugetlbfs2M && machine.mem_size_mib % 2 == 1;
        if machine.mem_size_mib == 0 || half_a_page {
            return Err(MachineConfigError::InvalidMemorySize);
        }
        if self.balloon.as_ref().is_some_and(|balloon| machine.mem_size_mib < balloon.amount_mib as usize) {
            return Err(MachineConfigError::IncompatibleBalloonSize);
        }
        self.machine = machine;
        Ok(())
    }

    /// A custom template takes the place of a static one, and is not shown.
    pub(crate) fn set_custom_cpu_template(&mut self) {
        self.machine.cpu_template = None;
    }

    pub(crate) fn insert_drive(&mut self, config: BlockDeviceConfig) -> Result<(), DriveError> {
        if config.is_root_device && self.pmem.iter().any(|pmem| pmem.root_device) {
            return Err(DriveError::AddingSecondRootDevice);
        }
        let position = self.drives.iter().position(|drive| drive.drive_id == config.drive_id);
        let has_root = self.drives.first().is_some_and(|drive| drive.is_root_device);
        if config.is_root_device && has_root && position != Some(0) {
            return Err(DriveError::RootBlockDeviceAlreadyAdded);
        }
        let drive = opened_drive(config).map_err(DriveError::CreateBlockDevice)?;
        metrics::add_device("block", &drive.drive_id);
        match position {
            Some(index) => {
                let root = drive.is_root_device;
                self.drives[index] = drive;
                if root {
                    self.drives.swap(0, index);
                }
            }
            // The root device is always the first.
            None if drive.is_root_device => self.drives.insert(0, drive),
            None => self.drives.push(drive),
        }
        Ok(())
    }

    pub(crate) fn insert_pmem(&mut self, config: PmemConfig) -> Result<(), PmemConfigError> {
        if config.root_device && self.drives.first().is_some_and(|drive| drive.is_root_device) {
            return Err(PmemConfigError::AddingSecondRootDevice);
        }
        let position = self.pmem.iter().position(|pmem| pmem.id == config.id);
        let replaces_root = position.is_some_and(|index| self.pmem[index].root_device);
        if config.root_device && !replaces_root && self.pmem.iter().any(|pmem| pmem.root_device) {
            return Err(PmemConfigError::RootPmemDeviceAlreadyExist);
        }
        match position {
            Some(index) => self.pmem[index] = config,
            None => self.pmem.push(config),
        }
        Ok(())
    }

    pub(crate) fn insert_network_interface(
        &mut self,
        mut config: NetworkInterfaceConfig,
    ) -> Result<(), NetworkInterfaceError> {
        if let Some(mac) = &config.guest_mac {
            let in_use = self
                .network_interfaces
                .iter()
                .map(|other| &other.config)
                .any(|other| other.guest_mac.as_ref() == Some(mac) && other.iface_id != config.iface_id);
            if in_use {
                return Err(NetworkInterfaceError::GuestMacAddressInUse(mac.0.clone()));
            }
        }
        // Firecracker lets go of the old interface before it tries the new one, and does not bring it back.
        if let Some(index) =
            self.network_interfaces.iter().position(|one| one.config.iface_id == config.iface_id)
        {
            self.network_interfaces.swap_remove(index);
        }
        config.host_dev_name = self.opened_tap(&config.host_dev_name).map_err(NetError::TapOpen)?;
        if let Some(mtu) = config.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(NetError::InvalidMtu(mtu).into());
        }
        config.rx_rate_limiter = config.rx_rate_limiter.and_then(|limiter| limiter.in_force());
        config.tx_rate_limiter = config.tx_rate_limiter.and_then(|limiter| limiter.in_force());
        metrics::add_device("net", &config.iface_id);
        self.network_interfaces.push(NetworkInterface { config, mmds_address: None });
        Ok(())
    }

    pub(crate) fn set_vsock(&mut self, config: VsockDeviceConfig) -> Result<(), VsockConfigError> {
        if let Some(old) = self.vsock.take() {
            fs::remove_file(&old.config.uds_path).map_err(VsockUnixBackendError::UnixBind)?;
        }
        self.vsock = Some(bound_vsock(config)?);
        Ok(())
    }

    pub(crate) fn set_balloon(&mut self, config: BalloonDeviceConfig) -> Result<(), BalloonConfigError> {
        if config.amount_mib as usize > self.machine.mem_size_mib {
            return Err(BalloonConfigError::TooManyPagesRequested);
        }
        self.balloon = Some(config);
        Ok(())
    }

    pub(crate) fn set_entropy(&mut self, config: &EntropyDeviceConfig) {
        self.entropy = Some(EntropyDeviceConfig {
            rate_limiter: config.rate_limiter.and_then(|limiter| limiter.in_force()),
        });
    }

    pub(crate) fn set_memory_hotplug(
        &mut self,
        config: MemoryHotplugConfig,
    ) -> Result<(), MemoryHotplugConfigError> {
        use MemoryHotplugConfigError as Refused;
        let MemoryHotplugConfig { total_size_mib: total, block_size_mib: block, slot_size_mib: slot } =
            config;
        if block < default_block_size_mib() {
            return Err(Refused::BlockSizeTooSmall(default_block_size_mib()));
        }
        if !block.is_power_of_two() {
            return Err(Refused::BlockSizeNotPowerOfTwo);
        }
        if slot < default_slot_size_mib() {
            return Err(Refused::SlotSizeTooSmall(default_slot_size_mib()));
        }
        if slot % block != 0 {
            return Err(Refused::SlotSizeNotMultipleOfBlockSize(block));
        }
        if total < slot {
            return Err(Refused::TotalSizeTooSmall(slot));
        }
        if total % slot != 0 {
            return Err(Refused::TotalSizeNotMultipleOfSlotSize(slot));
        }
        self.memory_hotplug = Some(config);
        Ok(())
    }

    pub(crate) fn set_mmds_config(&mut self, config: &MmdsConfig) -> Result<(), MmdsConfigError> {
        let address = config.ipv4_address.unwrap_or(MMDS_ADDRESS);
        if !address.is_link_local() || matches!(address.octets()[2], 0 | 255) {
            return Err(MmdsConfigError::InvalidIpv4Addr);
        }
        if config.network_interfaces.is_empty() {
            return Err(MmdsConfigError::EmptyNetworkIfaceList);
        }
        let known = |id: &String| self.network_interfaces.iter().any(|one| one.config.iface_id == *id);
        if !config.network_interfaces.iter().all(known) {
            return Err(MmdsConfigError::InvalidNetworkInterfaceId);
        }
        for interface in &mut self.network_interfaces {
            let listed = config.network_interfaces.contains(&interface.config.iface_id);
            interface.mmds_address = listed.then_some(address);
        }
        self.mmds.version = config.version;
        self.mmds.imds_compat = config.imds_compat;
        Ok(())
    }

    pub(crate) fn set_serial(&mut self, config: SerialConfig) {
        self.serial_out_path = config.serial_out_path;
    }

    /// Only a machine whose guest can ask for metadata has any, once it runs.
    pub(crate) fn serves_mmds(&self) -> bool {
        self.network_interfaces.iter().any(|interface| interface.mmds_address.is_some())
    }

    pub(crate) fn to_config(&self) -> VmmConfig {
        VmmConfig {
            balloon: self.balloon.clone(),
            drives: self.drives.clone(),
            boot_source: self.boot_source.clone().unwrap_or_default(),
            machine_config: Some(self.machine.clone()),
            mmds_config: self.mmds_config(),
            network_interfaces: self
                .network_interfaces
                .iter()
                .map(|interface| interface.config.clone())
                .collect(),
            vsock: self
                .vsock
                .as_ref()
                .map(|vsock| VsockDeviceConfig { vsock_id: None, ..vsock.config.clone() }),
            entropy: self.entropy.clone(),
            pmem_devices: self.pmem.clone(),
            memory_hotplug: self.memory_hotplug.clone(),
            cpu_config: None,
            logger: None,
            metrics: None,
        }
    }

    fn mmds_config(&self) -> Option<MmdsConfig> {
        let with_mmds =
            || self.network_interfaces.iter().filter(|interface| interface.mmds_address.is_some());
        let ipv4_address = with_mmds().next()?.mmds_address;
        Some(MmdsConfig {
            version: self.mmds.version,
            network_interfaces: with_mmds().map(|interface| interface.config.iface_id.clone()).collect(),
            ipv4_address,
            imds_compat: self.mmds.imds_compat,
        })
    }

    /// The name of the TAP that the kernel would give us for this one.
    fn opened_tap(&self, name: &str) -> Result<String, TapError> {
        if name.len() >= MAX_INTERFACE_NAME {
            return Err(TapError::InvalidIfname);
        }
        let refused =
            |errno| TapError::IfreqExecuteError(io::Error::from_raw_os_error(errno), name.to_owned());
        let illegal = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace();
        if name == "." || name == ".." || name.contains(illegal) {
            return Err(refused(libc::EINVAL));
        }
        let in_use = |name: &str| self.network_interfaces.iter().any(|one| one.config.host_dev_name == name);
        let pattern = if name.is_empty() { "tap%d" } else { name };
        if let Some((before, after)) = pattern.split_once("%d") {
            let numbered =
                (0..).map(|number: u32| format!("{before}{number}{after}")).find(|name| !in_use(name));
            return numbered.ok_or_else(|| refused(libc::ENFILE));
        }
        if in_use(name) {
            return Err(refused(libc::EBUSY));
        }
        Ok(name.to_owned())
    }
}

impl Mmds {
    pub(crate) fn put(&mut self, contents: Value) -> Result<(), MmdsDatastoreError> {
        self.check_size(&contents)?;
        self.contents = Some(contents);
        Ok(())
    }

    pub(crate) fn patch(&mut self, patch: &Value) -> Result<(), MmdsDatastoreError> {
        let mut contents = self.contents.clone().ok_or(MmdsDatastoreError::NotInitialized)?;
        merge(&mut contents, patch);
        self.check_size(&contents)?;
        self.contents = Some(contents);
        Ok(())
    }

    pub(crate) fn to_json(&self) -> String {
        match &self.contents {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(contents) => contents.to_string(),
        }
    }

    fn check_size(&self, contents: &Value) -> Result<(), MmdsDatastoreError> {
        if contents.to_string().len() > self.size_limit {
            return Err(MmdsDatastoreError::DataStoreLimitExceeded);
        }
        Ok(())
    }
}

pub(crate) fn opened_drive(mut config: BlockDeviceConfig) -> Result<BlockDeviceConfig, BlockError> {
    match (&config.path_on_host, &config.socket) {
        (Some(path), None) => {
            let read_only = config.is_read_only.unwrap_or(false);
            open_disk(path, read_only)?;
            config.is_read_only = Some(read_only);
            config.io_engine = Some(config.io_engine.unwrap_or(FileEngineType::Sync));
            config.rate_limiter = config.rate_limiter.and_then(|limiter| limiter.in_force());
        }
        (None, Some(socket)) => {
            let virtio_only =
                config.is_read_only.is_some() || config.rate_limiter.is_some() || config.io_engine.is_some();
            if virtio_only {
                return Err(BlockError::InvalidBlockConfig);
            }
            log_preview("vhost-user-blk device");
            let connected = UnixStream::connect(socket);
            connected.map_err(|error| BlockError::VhostUserBackend(VhostUserBlockError::VhostUser(error)))?;
        }
        _ => return Err(BlockError::InvalidBlockConfig),
    }
    Ok(config)
}

pub(crate) fn open_disk(path: &str, read_only: bool) -> Result<(), BlockError> {
    let opened = OpenOptions::new().read(true).write(!read_only).open(path);
    opened
        .map_err(|error| BlockError::VirtioBackend(VirtioBlockError::BackingFile(error, path.to_owned())))?;
    Ok(())
}

/// Checked when the machine starts, or when the device is plugged into a running one.
pub(crate) fn open_pmem(config: &PmemConfig) -> Result<(), PmemError> {
    let opened = OpenOptions::new().read(true).write(!config.read_only).open(&config.path_on_host);
    let length = opened.and_then(|file| file.metadata()).map_err(PmemError::BackingFile)?.len();
    if length == 0 {
        return Err(PmemError::BackingFileZeroSize);
    }
    metrics::add_device("pmem", &config.id);
    Ok(())
}

pub(crate) fn bound_vsock(config: VsockDeviceConfig) -> Result<Vsock, VsockUnixBackendError> {
    let listener = UnixListener::bind(&config.uds_path).map_err(VsockUnixBackendError::UnixBind)?;
    Ok(Vsock { config, _listener: listener })
}

fn check_command_line(line: &str) -> Result<(), BootSourceConfigError> {
    // One byte is the NUL's.
    if line.trim().len() >= MAX_COMMAND_LINE {
        let reason = "Invalid cmdline capacity provided.".to_owned();
        return Err(BootSourceConfigError::InvalidKernelCommandLine(reason));
    }
    Ok(())
}

/// As RFC 7396 has it: null takes a key away, anything but an object replaces what was there.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_takes_away_what_is_null() {
        let mut contents = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut contents, &json!({"a": {"b": null, "e": 3}, "d": {"f": null}}));
        assert_eq!(contents, json!({"a": {"c": 2, "e": 3}, "d": {}}));
    }

    #[test]
    fn a_tap_without_a_name_gets_the_first_free_number() {
        let resources = Resources::default();
        assert_eq!(resources.opened_tap("").unwrap(), "tap0");
        assert_eq!(resources.opened_tap("fc%dx").unwrap(), "fc0x");
        assert!(matches!(resources.opened_tap("a/b"), Err(TapError::IfreqExecuteError(..))));
        assert!(matches!(resources.opened_tap("abcdefghijklmnop"), Err(TapError::InvalidIfname)));
    }
}
