//! One PUT of a spec: its body with host paths made absolute, or called as a jailed VMM calls them, and what it names on the
//! host.

use super::{Link, OWN_VSOCK, SpecError};
use crate::firecracker::http::{Method, RequestPath};
use crate::firecracker::{Belongs, ConfigSection, DeviceId, HostKey, HostThing, Request, Shape, VSOCK_KEY};
use crate::host::VmmPath;
use crate::json;
use crate::settings;
use crate::sys::socket;
use crate::vm::sharing::{Access, HostUse};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// One PUT.
#[derive(Debug)]
pub(in crate::vm) struct Put {
    /// Its section; nothing when the library does not know it.
    pub(in crate::vm) section: Option<ConfigSection>,
    pub(in crate::vm) request: Request,
    /// The socket that the VMM binds for it, and leaves behind.
    pub(in crate::vm) socket: Option<PathBuf>,
    /// The files that it names to the VMM by links.
    pub(in crate::vm) links: Vec<Link>,
    /// Those of them that the VMM only reads.
    pub(super) reads: Vec<VmmPath>,
    /// Where its owner looks for the socket that a jailed VMM binds.
    pub(in crate::vm) looked_for_at: Option<PathBuf>,
    /// What it names on the host.
    pub(in crate::vm) uses: Vec<HostUse>,
}

/// What the paths of a spec are relative to, and whether its VMM will see any of them.
#[derive(Clone, Copy, Debug)]
pub(in crate::vm) struct Surroundings<'a> {
    pub(in crate::vm) base: &'a Path,
    pub(in crate::vm) is_jailed: bool,
}

impl Put {
    /// What adds a device to `section`.
    ///
    /// # Errors
    /// When it is no object.
    pub(in crate::vm) fn of_device(
        section: ConfigSection,
        definition: Value,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, SpecError> {
        let id = section.id_key().and_then(|key| definition.get(key)?.as_str()).unwrap_or_default();
        let file = section.file_name(id);
        put(section, definition, (section.name(), Some(file)), surroundings)
    }

    /// Whether it says what the VMM itself does, of which a snapshot holds nothing.
    pub(in crate::vm) fn is_of_the_vmm(&self) -> bool {
        self.section.is_some_and(|section| section.belongs() == Belongs::ToTheVmm)
    }

    pub(super) fn body(&self) -> Option<Value> {
        json::parse(self.request.body.as_deref()?).ok()
    }

    /// Lets a vsock device bind its socket in the VM's directory, wherever the spec would have it.
    pub(super) fn bind_in_own_directory(&mut self) {
        let mut section = self.body().unwrap_or_default();
        section[VSOCK_KEY] = OWN_VSOCK.into();
        self.request = Request::put(ConfigSection::Vsock, section);
        (self.socket, self.looked_for_at) = (Some(OWN_VSOCK.into()), None);
    }
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

/// The requests for `section`.
pub(super) fn add_requests(
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

/// A section that the library does not know, perhaps of a newer Firecracker: one PUT to its name, or one for each
/// element under its id. What no request can carry is passed over, as Firecracker does with what it does not know.
pub(super) fn unknown_section(name: &str, value: Value) -> Vec<Put> {
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

fn device_id(element: &Value, key: &'static str, place: &str) -> Result<String, SpecError> {
    match element.get(key) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(_) => Err(wanted(&format!("{place}.{key}"), "a string")),
        None if element.is_object() => Err(SpecError::NoId { path: place.into(), key }),
        None => Err(wanted(place, "an object")),
    }
}

fn wanted(path: &str, wanted: &'static str) -> SpecError {
    SpecError::Kind { path: path.into(), wanted }
}
