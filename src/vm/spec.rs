//! The spec of a VM: a Firecracker config file, and one section `"mvm"` for what the library itself does.
//!
//! Firecracker's sections become the requests that configure a VMM, in the order in which Firecracker itself
//! reads a config file. A section that is not known here is sent on, and the VMM judges it.

mod options;

pub(super) use options::{Console, GuestRung, Options};

use crate::firecracker::http::{Method, RequestError, RequestPath};
use crate::firecracker::{
    self, Belongs, ConfigSection, Feature, HostThing, Request, SECTIONS, SERIAL_KEY, Shape, VSOCK_KEY,
};
use crate::journal::{self, Record, SpecRecord};
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
    pub(super) names: Vec<PathBuf>,
    /// Where the guest's console goes when not to the VMM's standard output.
    pub(super) console: Option<PathBuf>,
    pub(super) options: Options,
}

/// One PUT.
#[derive(Debug)]
pub(super) struct Put {
    /// Its section; nothing when the library does not know it.
    pub(super) section: Option<ConfigSection>,
    pub(super) request: Request,
    /// The socket that the VMM binds for it, and leaves behind.
    pub(super) socket: Option<PathBuf>,
    /// The file that it names to the VMM by a link.
    pub(super) link: Option<Link>,
}

/// A file of the host's that the VMM knows by a name in its working directory. So a
/// snapshot names no path of the host: whoever restores it puts under the same name what it is to find there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Relative to the VMM's working directory: `drives/rootfs`.
    pub name: PathBuf,
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
    #[error("{path}: {wanted} is wanted here")]
    Kind {
        /// Where.
        path: String,
        /// What should be there.
        wanted: &'static str,
    },
    /// An element of a list without the id that names it.
    #[error("{path}: the key {key:?} is missing; it names the device")]
    NoId {
        /// The element.
        path: String,
        /// The key that it should have.
        key: &'static str,
    },
    /// An id that cannot stand in a request's path.
    #[error("{path}: {id:?} is no device id: only letters, digits and '_' are allowed")]
    Id {
        /// The element's key.
        path: String,
        /// The id.
        id: String,
    },
    /// Two devices with one id: Firecracker would silently keep the second.
    #[error("{path}: the id {id:?} is used twice")]
    DoubleId {
        /// The second element's key.
        path: String,
        /// The id.
        id: String,
    },
    /// A unix socket path that no address can hold.
    #[error(
        "{path}: the socket path {socket:?} is {} bytes long, and a socket address holds {}",
        socket.len(), socket::LONGEST_PATH
    )]
    SocketPath {
        /// The key.
        path: &'static str,
        /// Its value.
        socket: String,
    },
    /// An argument that the library sets itself.
    #[error("mvm.arguments: {0:?} is set by the library itself")]
    Argument(String),
    /// A section's name that cannot be sent on.
    #[error("the section {section:?} cannot be sent on to Firecracker")]
    Section {
        /// Its name.
        section: String,
        /// Why not.
        source: RequestError,
    },
    /// The spec of a VM that was found.
    #[error("what the VM was created with cannot be read again")]
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
        let (mut requests, mut features) = (Vec::new(), Vec::new());
        for section in SECTIONS {
            match sections.remove(section.name()) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    features.extend(section.feature());
                    add_requests(section, value, base, &mut requests)?;
                }
            }
        }
        let names = requests.iter().filter_map(|put| Some(put.link.as_ref()?.name.clone())).collect();
        let console = console_elsewhere(&requests);
        let has_unknown = !sections.is_empty();
        for (name, value) in sections {
            add_unknown_section(&name, value, &mut requests)?;
        }
        Ok(Self { requests, has_unknown, features, names, console, options })
    }

    /// What the journal tells of a spec that cannot be read.
    pub(super) fn of_record(record: &Record) -> Self {
        let console = Console { limit_bytes: record.console_limit.unwrap_or(0) };
        let options = Options { on_owner_exit: record.on_owner_exit, console, ..Options::default() };
        Self { options, ..Self::default() }
    }

    /// Reads again what a VM was made with.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn of_record_file(record: &SpecRecord) -> Result<Self, SpecError> {
        let mut spec = Self::parse(&record.spec, &record.base)?;
        let is_own = |link: &mut Link| record.own_files.contains(&link.name);
        spec.requests.iter_mut().for_each(|put| drop(put.link.take_if(is_own)));
        let has_siblings = record.own_files.iter().any(|name| name == Path::new(OWN_VSOCK));
        let vsock = spec.requests.iter_mut().find(|put| put.section == Some(ConfigSection::Vsock));
        vsock.filter(|_| has_siblings).map_or(Ok(()), Put::bind_in_own_directory)?;
        Ok(spec)
    }

    /// The files that it names to the VMM by links.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.requests.iter().filter_map(|put| put.link.as_ref())
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
    /// Whether it says what the VMM itself does, of which a snapshot holds nothing.
    pub(super) fn is_of_the_vmm(&self) -> bool {
        self.section.is_some_and(|section| section.belongs() == Belongs::ToTheVmm)
    }

    fn body(&self) -> Option<Value> {
        serde_json::from_slice(self.request.body.as_deref()?).ok()
    }

    /// Lets a vsock device bind its socket in the VM's directory, wherever the spec would have it.
    fn bind_in_own_directory(&mut self) -> Result<(), SpecError> {
        let mut section = self.body().unwrap_or_default();
        section[VSOCK_KEY] = OWN_VSOCK.into();
        self.request = Request::put(ConfigSection::Vsock, None, &section)
            .map_err(not_sent(ConfigSection::Vsock.name()))?;
        self.socket = Some(OWN_VSOCK.into());
        Ok(())
    }
}

/// The requests for `section`.
fn add_requests(
    section: ConfigSection,
    value: Value,
    base: &Path,
    requests: &mut Vec<Put>,
) -> Result<(), SpecError> {
    let name = section.name();
    let Shape::List { id_key } = section.shape() else {
        let value = if section == ConfigSection::CpuConfig { inline_cpu_config(value, base)? } else { value };
        requests.push(put(section, value, (name, None), base)?);
        return Ok(());
    };
    let Value::Array(elements) = value else { return Err(wanted(name, "a list")) };
    let mut seen = Vec::new();
    for (index, element) in elements.into_iter().enumerate() {
        let place = format!("{name}[{index}]");
        let id = device_id(&element, id_key, &place, &mut seen)?;
        requests.push(put(section, element, (&place, Some(&id)), base)?);
    }
    Ok(())
}

/// One PUT, with its host paths made absolute.
fn put(
    section: ConfigSection,
    mut value: Value,
    (place, id): (&str, Option<&str>),
    base: &Path,
) -> Result<Put, SpecError> {
    let (mut socket, mut link) = (None, None);
    let object = value.as_object_mut().ok_or_else(|| wanted(place, "an object"))?;
    for host in section.host_keys() {
        let Some(Value::String(named)) = object.get_mut(host.key) else { continue };
        if named.is_empty() || host.names == HostThing::NetworkDevice {
            continue;
        }
        let path = base.join(&*named);
        *named = path.to_string_lossy().into_owned();
        match (host.names, id) {
            (HostThing::BoundSocket, _) => socket = Some(checked_socket_path(named)?),
            (HostThing::Disk { .. }, Some(id)) => {
                let name = format!("{}/{id}", section.name());
                link = Some(Link { target: path, name: PathBuf::from(&name) });
                *named = name;
            }
            _ => {}
        }
    }
    let request = Request::put(section, id, &value).map_err(not_sent(section.name()))?;
    Ok(Put { section: Some(section), request, socket, link })
}

/// Where the section `serial` leads the console.
fn console_elsewhere(requests: &[Put]) -> Option<PathBuf> {
    let serial = requests.iter().find(|put| put.section == Some(ConfigSection::Serial))?;
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

fn device_id(
    element: &Value,
    key: &'static str,
    place: &str,
    seen: &mut Vec<String>,
) -> Result<String, SpecError> {
    let id = match element.get(key) {
        Some(Value::String(id)) => id,
        Some(_) => return Err(wanted(&format!("{place}.{key}"), "a string")),
        None if element.is_object() => return Err(SpecError::NoId { path: place.into(), key }),
        None => return Err(wanted(place, "an object")),
    };
    let path = format!("{place}.{key}");
    if !firecracker::is_device_id(id) {
        return Err(SpecError::Id { path, id: id.chars().take(64).collect() });
    }
    if seen.contains(id) {
        return Err(SpecError::DoubleId { path, id: id.clone() });
    }
    seen.push(id.clone());
    Ok(id.clone())
}

/// A section of a newer Firecracker: one PUT to its name, or one for each element under its id.
fn add_unknown_section(name: &str, value: Value, requests: &mut Vec<Put>) -> Result<(), SpecError> {
    checked_name(name)?;
    match value {
        Value::Null => {}
        Value::Array(elements) => {
            for element in elements {
                let id = ["id", "drive_id", "iface_id"].iter().find_map(|key| element.get(key)?.as_str());
                let path = id.map_or_else(|| format!("/{name}"), |id| format!("/{name}/{id}"));
                requests.push(unknown_put(name, &path, &element)?);
            }
        }
        value => requests.push(unknown_put(name, &format!("/{name}"), &value)?),
    }
    Ok(())
}

/// A section's name is one part of a path, and its id another.
fn checked_name(name: &str) -> Result<(), SpecError> {
    match name.contains('/') {
        false => Ok(()),
        true => {
            let source = RequestError::Character { path: name.to_owned(), character: '/' };
            Err(SpecError::Section { section: name.to_owned(), source })
        }
    }
}

fn unknown_put(name: &str, path: &str, value: &Value) -> Result<Put, SpecError> {
    let path = RequestPath::parse(path).map_err(not_sent(name))?;
    let request = Request::new(Method::Put, path, Some(value.to_string().as_bytes()));
    Ok(Put { section: None, request, socket: None, link: None })
}

fn not_sent(section: &str) -> impl Fn(RequestError) -> SpecError + '_ {
    |source| SpecError::Section { section: section.to_owned(), source }
}

fn wanted(path: &str, wanted: &'static str) -> SpecError {
    SpecError::Kind { path: path.into(), wanted }
}

#[cfg(test)]
mod tests;
