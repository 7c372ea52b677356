//! The spec of a VM: a Firecracker config file, and one section `"mvm"` for what the library itself does.
//!
//! Firecracker's sections become the requests that configure a VMM, in the order in which Firecracker itself
//! reads a config file. A section that is not known here is sent on, and the VMM judges it.

mod disks;
mod limits;
mod options;

pub use disks::DiskProblem;
pub(crate) use disks::settle;
pub(super) use disks::{Disk, DiskKind, refuse_disks, without_copies};
pub(crate) use options::is_of_a_jail;
pub(super) use options::{Console, GuestRung, JailOptions, MvmSection, OWNER_DATA_KEY};

use super::sharing::{Access, HostUse};
use crate::firecracker::http::{Method, RequestPath};
use crate::firecracker::{
    Belongs, ConfigSection, DeviceId, Feature, HostKey, HostThing, Request, SECTIONS, SERIAL_KEY, Shape,
    VSOCK_KEY, huge_memory_mib,
};
use crate::host::VmmPath;
use crate::journal::{self, Record, SpecRecord};
use crate::json;
use crate::process::Rights;
use crate::settings;
use crate::sys::socket;
use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The vsock socket of a VM that has siblings, in its VMM's working directory.
pub(super) const OWN_VSOCK: &str = "vsock.sock";

/// The directories of links, in a VMM's working directory.
pub(super) const LINKING: [&str; 2] = [ConfigSection::Drives.name(), ConfigSection::Pmem.name()];

/// What a VM is to be.
#[derive(Debug, Default)]
pub struct Spec {
    /// The PUTs that configure a VMM, in order.
    pub(super) requests: Vec<Put>,
    /// Whether a section is sent on of which the library does not know what it does.
    pub(super) has_unknown: bool,
    /// What the VMM's version must have for them.
    pub(super) features: Vec<Feature>,
    /// The files that the VMM knows by names in its working directory.
    pub(super) names: Vec<VmmPath>,
    /// What it names on the host besides files that the VMM only reads.
    pub(super) uses: Vec<HostUse>,
    /// Those of them that the VMM only reads.
    reads: Vec<VmmPath>,
    /// How many MiB of huge pages its memory takes; nothing when it takes none.
    pub(super) huge_memory_mib: Option<u64>,
    /// What its devices are called.
    pub(super) device_ids: Vec<String>,
    /// Where the guest's console goes when not to the VMM's standard output.
    pub(super) console: Option<PathBuf>,
    /// The disks that the library provides.
    pub(super) disks: Vec<Disk>,
    pub(super) options: MvmSection,
}

/// One PUT.
#[derive(Debug)]
pub(super) struct Put {
    /// Its section; nothing when the library does not know it.
    pub(super) section: Option<ConfigSection>,
    pub(super) request: Request,
    /// The socket that the VMM binds for it, and leaves behind.
    pub(super) socket: Option<PathBuf>,
    /// The files that it names to the VMM by links.
    pub(super) links: Vec<Link>,
    /// Those of them that the VMM only reads.
    reads: Vec<VmmPath>,
    /// Where its owner looks for the socket that a jailed VMM binds.
    pub(super) looked_for_at: Option<PathBuf>,
    /// What it names on the host.
    pub(super) uses: Vec<HostUse>,
}

/// A file of the host's that the VMM knows by a name in its working directory. So a
/// snapshot names no path of the host: whoever restores it puts under the same name what it is to find there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As the VMM names it: `drives/rootfs`.
    pub name: VmmPath,
    /// On the host.
    pub target: PathBuf,
}

/// What is wrong with a spec.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The JSON.
    #[error("the spec is not usable")]
    Json(#[from] settings::Error),
    /// A section of the wrong kind.
    #[error("{path}: this must be {wanted}")]
    Kind {
        /// Where.
        path: String,
        /// What should be there.
        wanted: &'static str,
    },
    /// An element of a list without the id that names it.
    #[error("{path}: the key {key:?} is missing; it is the id of the device")]
    NoId {
        /// The element.
        path: String,
        /// The key that it should have.
        key: &'static str,
    },
    /// A unix socket path that no address can hold.
    #[error(
        "{path}: the socket path {socket:?} is {} bytes long, and at most {} are possible: use a shorter path",
        socket.len(), socket::LONGEST_PATH
    )]
    SocketPath {
        /// The key.
        path: &'static str,
        /// Its value.
        socket: String,
    },
    /// A disk that the library cannot provide so.
    #[error("{key}")]
    Disk {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        problem: DiskProblem,
    },
    /// An argument that the library sets itself.
    #[error("mvm.arguments: the library sets {0:?} itself; remove it")]
    Argument(String),
    /// Cgroups of the caller's, and of the library's.
    #[error(
        "mvm.cgroup and mvm.limits exclude each other: mvm.cgroup names a cgroup of yours in which the VM is started, with your \
         limits; for mvm.limits the library makes one, in mvm.cgroup_parent"
    )]
    CgroupAndLimits,
    /// A place for cgroups that nobody makes.
    #[error(
        "mvm.cgroup_parent has a meaning only with mvm.limits; for a cgroup without limits, set mvm.limits to {{}}"
    )]
    ParentOfNothing,
    /// The spec of a VM that was found.
    #[error("cannot read the spec that the VM was created with")]
    Journal(#[from] journal::Error),
    /// A file that the spec names and the library reads.
    #[error("{key}: cannot read {}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Spec {
    /// Reads a spec. Relative host paths in it are relative to `base`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(json: &str, base: &Path) -> Result<Self, SpecError> {
        let Value::Object(mut sections) = settings::parse(json)? else {
            return Err(SpecError::Kind { path: "the spec".into(), wanted: "an object" });
        };
        let own = sections.remove("mvm").filter(|own| !own.is_null()).unwrap_or_else(|| Map::new().into());
        let options = options::read(own, base)?;
        let surroundings = Surroundings { base, is_jailed: options.jail.is_some() };
        let device_ids = device_ids(&sections);
        let huge_memory_mib = sections.get(ConfigSection::MachineConfig.name()).and_then(huge_memory_mib);
        let disk =
            |(id, disk): &(String, disks::DiskOptions)| disk.settled(disks::device_name(&sections, id));
        let disks = options.disks.iter().filter_map(disk).collect();
        let (mut requests, mut features) = (Vec::new(), Vec::new());
        for section in SECTIONS {
            match sections.remove(section.name()) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    features.extend(section.feature());
                    add_requests(section, value, surroundings, &mut requests)?;
                }
            }
        }
        let names = requests.iter().flat_map(|put| &put.links).map(|link| link.name.clone()).collect();
        let reads = requests.iter_mut().flat_map(|put: &mut Put| std::mem::take(&mut put.reads)).collect();
        let console = console_elsewhere(&requests);
        let unknown = sections.into_iter().filter(|(_, value)| !value.is_null());
        let unknown = unknown.flat_map(|(name, value)| unknown_section(&name, value)).collect::<Vec<_>>();
        let has_unknown = !unknown.is_empty();
        requests.extend(unknown);
        let uses = requests.iter_mut().flat_map(|put| std::mem::take(&mut put.uses)).collect();
        Ok(Self {
            requests,
            has_unknown,
            features,
            names,
            uses,
            reads,
            huge_memory_mib,
            device_ids,
            console,
            disks,
            options,
        })
    }

    /// What the journal tells of a spec that cannot be read.
    pub(super) fn of_record(record: &Record) -> Self {
        let console = Console { limit_bytes: record.console_limit.unwrap_or(0) };
        let options = MvmSection { on_owner_exit: record.on_owner_exit, console, ..MvmSection::default() };
        Self { options, ..Self::default() }
    }

    /// Reads again what a VM was made with.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn of_record_file(record: &SpecRecord) -> Result<Self, SpecError> {
        let mut spec = Self::parse(&record.spec, &record.base)?;
        let is_own = |link: &Link| record.own_files.iter().any(|own| own == link.name.as_path());
        spec.requests.iter_mut().for_each(|put| put.links.retain(|link| !is_own(link)));
        let has_siblings = record.own_files.iter().any(|name| name == Path::new(OWN_VSOCK));
        let vsock = spec.requests.iter_mut().find(|put| put.section == Some(ConfigSection::Vsock));
        vsock.filter(|_| has_siblings).into_iter().for_each(Put::bind_in_own_directory);
        for used in &mut spec.uses {
            used.is_own = match &used.link {
                Some(link) => record.own_files.iter().any(|own| own == link.as_path()),
                None => has_siblings && used.thing == HostThing::BoundSocket,
            };
        }
        Ok(spec)
    }

    /// What it names on the host that others may not use too, or not without care.
    pub(crate) fn uses(&self) -> &[HostUse] {
        &self.uses
    }

    /// The files that it names to the VMM by links.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.requests.iter().flat_map(|put| &put.links)
    }

    /// What a VMM may do with the file that it calls `name`.
    pub(super) fn rights_to(&self, name: &VmmPath) -> Rights {
        if self.reads.contains(name) { Rights::Read } else { Rights::Write }
    }

    /// Where its owner looks for the vsock's socket of a jailed VMM.
    pub(super) fn vsock_looked_for_at(&self) -> Option<&Path> {
        self.requests.iter().find_map(|put| put.looked_for_at.as_deref())
    }

    /// The images that its disks are made from.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Path> {
        self.disks.iter().map(|disk| disk.from.as_path())
    }

    /// Whether it has metrics written to a place of its own.
    pub(super) fn has_own_metrics(&self) -> bool {
        self.requests.iter().any(|put| put.section == Some(ConfigSection::Metrics))
    }

    /// Whether it has the VMM bind `socket`.
    pub(super) fn binds(&self, socket: &Path) -> bool {
        self.requests.iter().any(|put| put.socket.as_deref() == Some(socket))
    }

    /// The VMM that it names.
    pub(crate) fn firecracker(&self) -> Option<&Path> {
        self.options.firecracker.as_deref()
    }
}

impl Put {
    /// What adds a device to `section`.
    ///
    /// # Errors
    /// When it is no object.
    pub(super) fn of_device(
        section: ConfigSection,
        definition: Value,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, SpecError> {
        let id = section.id_key().and_then(|key| definition.get(key)?.as_str()).unwrap_or_default();
        let file = section.file_name(id);
        put(section, definition, (section.name(), Some(file)), surroundings)
    }

    /// Whether it says what the VMM itself does, of which a snapshot holds nothing.
    pub(super) fn is_of_the_vmm(&self) -> bool {
        self.section.is_some_and(|section| section.belongs() == Belongs::ToTheVmm)
    }

    fn body(&self) -> Option<Value> {
        json::parse(self.request.body.as_deref()?).ok()
    }

    /// Lets a vsock device bind its socket in the VM's directory, wherever the spec would have it.
    fn bind_in_own_directory(&mut self) {
        let mut section = self.body().unwrap_or_default();
        section[VSOCK_KEY] = OWN_VSOCK.into();
        self.request = Request::put(ConfigSection::Vsock, section);
        (self.socket, self.looked_for_at) = (Some(OWN_VSOCK.into()), None);
    }
}

/// The requests for `section`.
fn add_requests(
    section: ConfigSection,
    value: Value,
    surroundings: Surroundings<'_>,
    requests: &mut Vec<Put>,
) -> Result<(), SpecError> {
    let base = surroundings.base;
    let name = section.name();
    let Shape::List { id_key } = section.shape() else {
        let value = if section == ConfigSection::CpuConfig { inline_cpu_config(value, base)? } else { value };
        requests.push(put(section, value, (name, None), surroundings)?);
        return Ok(());
    };
    let Value::Array(elements) = value else { return Err(wanted(name, "a list")) };
    let named = |(index, element): (usize, Value)| {
        let id = device_id(&element, id_key, &format!("{name}[{index}]"))?;
        Ok((id, element))
    };
    let devices = elements.into_iter().enumerate().map(named).collect::<Result<Vec<_>, SpecError>>()?;
    for (index, (id, element)) in devices.iter().enumerate() {
        let mut file = section.file_name(id);
        // Of two devices with one id the VMM keeps the second, after it has opened the first.
        if devices.iter().skip(index + 1).any(|(later, _)| later == id) {
            log::warn!(
                "{name}[{index}]: the id {id:?} is used again, and Firecracker keeps the last device of an id"
            );
            file = file.numbered(index);
        }
        let place = format!("{name}[{index}]");
        requests.push(put(section, element.clone(), (&place, Some(file)), surroundings)?);
    }
    Ok(())
}

/// One PUT, with its host paths made absolute, or what a jailed VMM calls them. A disk's file gets the name `file` in the
/// VM's directory.
fn put(
    section: ConfigSection,
    mut value: Value,
    (place, file): (&str, Option<VmmPath>),
    surroundings: Surroundings<'_>,
) -> Result<Put, SpecError> {
    let (mut socket, mut looked_for_at) = (None, None);
    let (mut links, mut reads, mut uses) = (Vec::new(), Vec::new(), Vec::new());
    let object = value.as_object_mut().ok_or_else(|| wanted(place, "an object"))?;
    for host in section.host_keys() {
        let Some(Value::String(named)) = object.get_mut(host.key) else { continue };
        if named.is_empty() {
            continue;
        }
        let path = surroundings.base.join(&*named);
        let name = surroundings.name_of(section, host, file.as_ref());
        if host.names != HostThing::Input {
            let (key, thing) = (format!("{place}.{}", host.key), host.names);
            let link = name.clone().or_else(|| file.clone());
            let name = if thing == HostThing::NetworkDevice { PathBuf::from(&*named) } else { path.clone() };
            uses.push(HostUse { key, thing, name, link, access: Access::Own, is_own: false });
        }
        if host.names == HostThing::NetworkDevice {
            continue;
        }
        *named = path.to_string_lossy().into_owned();
        if host.names == HostThing::BoundSocket {
            socket = Some(checked_socket_path(named)?);
            if surroundings.is_jailed {
                *named = OWN_VSOCK.to_owned();
                (socket, looked_for_at) = (Some(OWN_VSOCK.into()), Some(path));
            }
        } else if let Some(name) = name {
            *named = name.to_string();
            if host.names == HostThing::Input {
                reads.push(name.clone());
            }
            links.push(Link { target: path, name });
        }
    }
    let reads_only = |key: &str| object.get(key) == Some(&Value::Bool(true));
    for used in &mut uses {
        if matches!(used.thing, HostThing::Disk { read_only } if reads_only(read_only)) {
            used.access = Access::Shared;
            reads.extend(used.link.clone());
        }
    }
    let request = Request::put(section, value);
    Ok(Put { section: Some(section), request, socket, links, reads, looked_for_at, uses })
}

/// What the paths of a spec are relative to, and whether its VMM will see any of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) base: &'a Path,
    pub(super) is_jailed: bool,
}

impl Surroundings<'_> {
    /// What the VMM calls the file at the key `host`, when that is not its path on the host. `file` is what a disk there is
    /// called.
    fn name_of(self, section: ConfigSection, host: &HostKey, file: Option<&VmmPath>) -> Option<VmmPath> {
        match host.names {
            HostThing::Disk { .. } => file.cloned(),
            HostThing::NetworkDevice | HostThing::BoundSocket => None,
            _ if !self.is_jailed => None,
            HostThing::Input | HostThing::Output | HostThing::ServedSocket => Some(match file {
                Some(file) => VmmPath::new(format!("{file}.{}", host.key)),
                None => VmmPath::new(Path::new(section.name()).join(host.key)),
            }),
        }
    }
}

/// Where the section `serial` leads the console.
fn console_elsewhere(requests: &[Put]) -> Option<PathBuf> {
    let serial = requests.iter().find(|put| put.section == Some(ConfigSection::Serial))?;
    if let Some(link) = serial.links.first() {
        return Some(link.target.clone());
    }
    serial.body()?.get(SERIAL_KEY)?.as_str().map(PathBuf::from)
}

/// A path that the VMM can bind a socket at.
fn checked_socket_path(path: &str) -> Result<PathBuf, SpecError> {
    if path.len() > socket::LONGEST_PATH {
        return Err(SpecError::SocketPath { path: "vsock.uds_path", socket: path.to_owned() });
    }
    Ok(path.into())
}

/// A config file may name a file with the template instead of holding it; the API takes only the template.
fn inline_cpu_config(value: Value, base: &Path) -> Result<Value, SpecError> {
    let Value::String(path) = value else { return Ok(value) };
    let path = base.join(path);
    match read_file(&path) {
        Ok(text) => Ok(settings::parse(&text)?),
        Err(source) => Err(SpecError::File { key: "cpu-config", path, source }),
    }
}

/// Reads a file, and only a file: opening a FIFO would wait for its writer.
fn read_file(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::read_to_string(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
    }
}

/// The ids of all devices of `sections`.
fn device_ids(sections: &Map<String, Value>) -> Vec<String> {
    let of_section = |section: ConfigSection| {
        let devices = sections.get(section.name()).and_then(Value::as_array).into_iter().flatten();
        devices.filter_map(move |device| device.get(section.id_key()?)?.as_str().map(str::to_owned))
    };
    SECTIONS.into_iter().flat_map(of_section).collect()
}

fn device_id(element: &Value, key: &'static str, place: &str) -> Result<String, SpecError> {
    match element.get(key) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(_) => Err(wanted(&format!("{place}.{key}"), "a string")),
        None if element.is_object() => Err(SpecError::NoId { path: place.into(), key }),
        None => Err(wanted(place, "an object")),
    }
}

/// A section that the library does not know, perhaps of a newer Firecracker: one PUT to its name, or one for each
/// element under its id. What no request can carry is passed over, as Firecracker does with what it does not know.
fn unknown_section(name: &str, value: Value) -> Vec<Put> {
    let puts = match value {
        Value::Array(elements) => {
            elements.into_iter().filter_map(|element| unknown_put(name, element, UNKNOWN_ID_KEYS)).collect()
        }
        value => unknown_put(name, value, &[]).into_iter().collect::<Vec<_>>(),
    };
    if puts.is_empty() {
        log::warn!("the section {name:?} is ignored, as Firecracker ignores sections that it does not know");
    }
    puts
}

/// The keys that hold ids, as far as anybody can know.
const UNKNOWN_ID_KEYS: &[&str] = &["id", "drive_id", "iface_id"];

fn unknown_put(section: &str, mut value: Value, id_keys: &[&str]) -> Option<Put> {
    let object = value.as_object_mut()?;
    let id = id_keys.iter().find(|key| object.get(**key).is_some_and(Value::is_string));
    let id = id.and_then(|key| object.get_mut(*key));
    let path = match id {
        Some(Value::String(id)) => {
            *id = DeviceId::of(id).as_str().to_owned();
            format!("/{section}/{id}")
        }
        _ => format!("/{section}"),
    };
    let path = RequestPath::parse(&path).ok().filter(|_| !section.is_empty() && !section.contains('/'))?;
    let request = Request::new(Method::Put, path, Some(value.to_string().as_bytes()));
    Some(Put {
        section: None,
        request,
        socket: None,
        links: Vec::new(),
        reads: Vec::new(),
        looked_for_at: None,
        uses: Vec::new(),
    })
}

fn wanted(path: &str, wanted: &'static str) -> SpecError {
    SpecError::Kind { path: path.into(), wanted }
}

#[cfg(test)]
mod tests;
