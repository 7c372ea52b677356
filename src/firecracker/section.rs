//! The sections of a Firecracker config file: one table of what each is called, where the API takes it, and which of
//! its keys name something on the host.
//!
//! Who reads a config file, and what becomes of the host's files, is the business of the room above.

use super::device_id::given_id;
use super::http::RequestPath;
use super::{DeviceId, Feature};
use crate::host::VmmPath;
use serde_json::Value;
use std::path::Path;

/// A section of a config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSection {
    /// The VMM's log.
    Logger,
    /// The VMM's metrics.
    Metrics,
    /// vCPUs and memory.
    MachineConfig,
    /// A CPU template.
    CpuConfig,
    /// The kernel.
    BootSource,
    /// Block devices.
    Drives,
    /// Network interfaces.
    NetworkInterfaces,
    /// The vsock device.
    Vsock,
    /// The balloon device.
    Balloon,
    /// How the guest reaches its metadata.
    MmdsConfig,
    /// The metadata.
    Mmds,
    /// The entropy device.
    Entropy,
    /// Persistent memory devices.
    Pmem,
    /// The serial console.
    Serial,
    /// Memory that is plugged in later.
    MemoryHotplug,
}

/// How a section is written, and where the API takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One object, PUT to this path.
    One(&'static str),
    /// A list of devices, each PUT below the section's name under the id that this key holds.
    List {
        /// The key.
        id_key: &'static str,
    },
}

/// Whose a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// The microVM's: a snapshot holds it.
    ToTheMachine,
    /// The VMM's own: no snapshot holds it, and whoever restores one says it anew.
    ToTheVmm,
}

/// A key whose value names something on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The key.
    pub key: &'static str,
    /// What it names.
    pub names: HostThing,
}

/// What a key names on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostThing {
    /// A file that the VMM only reads.
    Input,
    /// A file that the VMM writes to.
    Output,
    /// A disk, which the guest writes to unless the flag at this key is set.
    Disk {
        /// The key of the flag.
        read_only: &'static str,
    },
    /// A socket that the VMM binds, and leaves behind.
    BoundSocket,
    /// A socket at which somebody serves one device.
    ServedSocket,
    /// A network device. Not a path.
    NetworkDevice,
}

/// The sections, in the order in which Firecracker reads them itself.
pub const SECTIONS: [ConfigSection; 15] = {
    use ConfigSection as S;
    [
        S::Logger,
        S::Metrics,
        S::MachineConfig,
        S::CpuConfig,
        S::BootSource,
        S::Drives,
        S::NetworkInterfaces,
        S::Vsock,
        S::Balloon,
        S::MmdsConfig,
        S::Mmds,
        S::Entropy,
        S::Pmem,
        S::Serial,
        S::MemoryHotplug,
    ]
};

/// What is known of a section.
struct Row {
    name: &'static str,
    shape: Shape,
    host: &'static [HostKey],
    since: Option<Feature>,
    belongs: Belongs,
}

impl Row {
    const fn one(name: &'static str, path: &'static str, host: &'static [HostKey]) -> Self {
        Self { name, shape: Shape::One(path), host, since: None, belongs: Belongs::ToTheMachine }
    }

    const fn list(name: &'static str, id_key: &'static str, host: &'static [HostKey]) -> Self {
        Self { name, shape: Shape::List { id_key }, host, since: None, belongs: Belongs::ToTheMachine }
    }

    const fn of_the_vmm(self) -> Self {
        Self { belongs: Belongs::ToTheVmm, ..self }
    }

    const fn since(self, feature: Feature) -> Self {
        Self { since: Some(feature), ..self }
    }
}

const fn host(key: &'static str, names: HostThing) -> HostKey {
    HostKey { key, names }
}

/// The key of the interfaces at which a guest reaches its metadata: a list of their ids.
const MMDS_INTERFACES: &str = "network_interfaces";
/// How many MiB of huge pages a machine of this configuration takes, if it takes any.
pub fn huge_memory_mib(machine: &Value) -> Option<u64> {
    const USUAL_MIB: u64 = 128;
    let wants = machine.get("huge_pages").and_then(Value::as_str) == Some("2M");
    let size = machine.get("mem_size_mib").map_or(Some(USUAL_MIB), Value::as_u64);
    size.filter(|_| wants)
}

/// The key of a disk's file.
pub const DISK_KEY: &str = "path_on_host";
/// The key of a vsock's socket.
pub const VSOCK_KEY: &str = "uds_path";
/// The key of a network interface's device on the host.
pub const NETWORK_DEVICE_KEY: &str = "host_dev_name";
/// The key of the file that the guest's console goes to.
pub const SERIAL_KEY: &str = "serial_out_path";

impl ConfigSection {
    const fn row(self) -> Row {
        use HostThing as H;
        match self {
            Self::Logger => {
                Row::one("logger", "/logger", const { &[host("log_path", H::Output)] }).of_the_vmm()
            }
            Self::Metrics => {
                Row::one("metrics", "/metrics", const { &[host("metrics_path", H::Output)] }).of_the_vmm()
            }
            Self::MachineConfig => Row::one("machine-config", "/machine-config", &[]),
            Self::CpuConfig => Row::one("cpu-config", "/cpu-config", &[]),
            Self::BootSource => Row::one(
                "boot-source",
                "/boot-source",
                const { &[host("kernel_image_path", H::Input), host("initrd_path", H::Input)] },
            ),
            Self::Drives => Row::list(
                "drives",
                "drive_id",
                const { &[host(DISK_KEY, H::Disk { read_only: "is_read_only" }), host("socket", H::ServedSocket)] },
            ),
            Self::NetworkInterfaces => Row::list(
                "network-interfaces",
                "iface_id",
                const { &[host(NETWORK_DEVICE_KEY, H::NetworkDevice)] },
            ),
            Self::Vsock => Row::one("vsock", "/vsock", const { &[host(VSOCK_KEY, H::BoundSocket)] }),
            Self::Balloon => Row::one("balloon", "/balloon", &[]),
            Self::MmdsConfig => Row::one("mmds-config", "/mmds/config", &[]),
            Self::Mmds => Row::one("mmds", "/mmds", &[]),
            Self::Entropy => Row::one("entropy", "/entropy", &[]),
            Self::Pmem => {
                Row::list("pmem", "id", const { &[host(DISK_KEY, H::Disk { read_only: "read_only" })] })
                    .since(Feature::Pmem)
            }
            Self::Serial => Row::one("serial", "/serial", const { &[host(SERIAL_KEY, H::Output)] })
                .since(Feature::Serial)
                .of_the_vmm(),
            Self::MemoryHotplug => {
                Row::one("memory-hotplug", "/hotplug/memory", &[]).since(Feature::MemoryHotplug)
            }
        }
    }

    /// The section called `name`.
    pub fn named(name: &str) -> Option<Self> {
        SECTIONS.into_iter().find(|section| section.name() == name)
    }

    /// What it is called in a config file.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// How it is written, and where the API takes it.
    pub const fn shape(self) -> Shape {
        self.row().shape
    }

    /// The key that holds the id of each of its devices; nothing when it is no list.
    pub const fn id_key(self) -> Option<&'static str> {
        match self.shape() {
            Shape::List { id_key } => Some(id_key),
            Shape::One(_) => None,
        }
    }

    /// Its keys that name something on the host.
    pub const fn host_keys(self) -> &'static [HostKey] {
        self.row().host
    }

    /// What a Firecracker must have for it.
    pub const fn feature(self) -> Option<Feature> {
        self.row().since
    }

    /// Whose it is.
    pub const fn belongs(self) -> Belongs {
        self.row().belongs
    }

    /// The key of its disks' files, and that of the flag by which they are only read.
    pub fn disk_keys(self) -> Option<(&'static str, &'static str)> {
        self.host_keys().iter().find_map(|host| match host.names {
            HostThing::Disk { read_only } => Some((host.key, read_only)),
            _ => None,
        })
    }

    /// Where the API takes it, or the device of it that the user calls `id`.
    pub fn request_path(self, id: Option<&str>) -> RequestPath {
        match self.shape() {
            Shape::One(path) => RequestPath::fixed(path),
            Shape::List { .. } => RequestPath::device(self.name(), &DeviceId::of(id.unwrap_or_default())),
        }
    }

    /// The name below a VMM's working directory by which it knows the file of the device that the user calls `id`.
    pub fn file_name(self, id: &str) -> VmmPath {
        VmmPath::new(Path::new(self.name()).join(DeviceId::of(id).as_str()))
    }

    /// Has every device in `value`, which is this section, called as the API has it.
    pub(super) fn spell_ids(self, value: &mut Value) {
        let spelled = |id: &str| DeviceId::of(id).as_str().to_owned();
        self.change_ids(value, &spelled);
    }

    /// The opposite, for a device or a list of them; `known` are ids that may be too long to be spelled.
    pub fn restore_ids(self, value: &mut Value, known: &[String]) {
        self.change_ids(value, &|id| given_id(id, known).into_owned());
    }

    fn change_ids(self, value: &mut Value, change: &dyn Fn(&str) -> String) {
        match value {
            Value::Array(elements) => {
                elements.iter_mut().for_each(|element| self.change_ids(element, change));
            }
            Value::Object(object) if self == Self::MmdsConfig => {
                let ids = object.get_mut(MMDS_INTERFACES).and_then(Value::as_array_mut).into_iter().flatten();
                ids.for_each(|id| change_text(id, change));
            }
            Value::Object(object) => {
                let id = self.id_key().and_then(|key| object.get_mut(key));
                id.into_iter().for_each(|id| change_text(id, change));
            }
            _ => {}
        }
    }
}

fn change_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    if let Value::String(id) = value {
        *id = change(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_section_is_found_by_its_name() {
        for section in SECTIONS {
            assert_eq!(ConfigSection::named(section.name()), Some(section));
        }
        assert_eq!(ConfigSection::named("holodeck"), None);
    }

    #[test]
    fn a_device_has_a_path_of_its_own() {
        let path = |section: ConfigSection, id| section.request_path(id).as_str().to_owned();
        assert_eq!(path(ConfigSection::Drives, Some("rootfs")), "/drives/rootfs");
        assert_eq!(path(ConfigSection::Drives, Some("../a")), "/drives/mvm_id__2e_2e_2fa");
        assert_eq!(path(ConfigSection::MmdsConfig, None), "/mmds/config");
    }

    #[test]
    fn ids_are_spelled_wherever_a_section_has_them_and_nowhere_else() {
        for (section, given, spelled) in [
            (
                ConfigSection::Drives,
                json!([{ "drive_id": "a.b", "path_on_host": "a.b" }]),
                json!([{ "drive_id": "mvm_id_a_2eb", "path_on_host": "a.b" }]),
            ),
            (
                ConfigSection::MmdsConfig,
                json!({ "network_interfaces": ["eth-0", "eth1"], "version": "V2" }),
                json!({ "network_interfaces": ["mvm_id_eth_2d0", "eth1"], "version": "V2" }),
            ),
            (ConfigSection::Vsock, json!({ "vsock_id": "a.b" }), json!({ "vsock_id": "a.b" })),
        ] {
            let mut value = given.clone();
            section.spell_ids(&mut value);
            assert_eq!(value, spelled);
            section.restore_ids(&mut value, &[]);
            assert_eq!(value, given);
        }
    }
}
