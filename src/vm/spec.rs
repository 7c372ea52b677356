//! The spec of a VM: a Firecracker config file, and one section `"mvm"` for what the library itself does.
//!
//! Firecracker's sections become the requests that configure a VMM, in the order in which Firecracker itself
//! reads a config file. A section that is not known here is sent on, and the VMM judges it.

mod disks;
mod limits;
mod options;
mod put;

pub use disks::DiskProblem;
pub(crate) use disks::settle;
pub(super) use disks::{Disk, DiskKind, refuse_disks, without_copies};
pub(crate) use options::is_of_a_jail;
pub(super) use options::{Console, GuestRung, JailOptions, MvmSection, OWNER_DATA_KEY};
pub(super) use put::{Put, Surroundings};

use super::sharing::HostUse;
use crate::firecracker::{ConfigSection, Feature, HostThing, SECTIONS, SERIAL_KEY, huge_memory_mib};
use crate::host::VmmPath;
use crate::journal::{self, Record, SpecRecord};
use crate::process::Rights;
use crate::settings;
use crate::sys::socket;
use put::{add_requests, unknown_section};
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

/// Where the section `serial` leads the console.
fn console_elsewhere(requests: &[Put]) -> Option<PathBuf> {
    let serial = requests.iter().find(|put| put.section == Some(ConfigSection::Serial))?;
    if let Some(link) = serial.links.first() {
        return Some(link.target.clone());
    }
    serial.body()?.get(SERIAL_KEY)?.as_str().map(PathBuf::from)
}

/// The ids of all devices of `sections`.
fn device_ids(sections: &Map<String, Value>) -> Vec<String> {
    let of_section = |section: ConfigSection| {
        let devices = sections.get(section.name()).and_then(Value::as_array).into_iter().flatten();
        devices.filter_map(move |device| device.get(section.id_key()?)?.as_str().map(str::to_owned))
    };
    SECTIONS.into_iter().flat_map(of_section).collect()
}

#[cfg(test)]
mod tests;
