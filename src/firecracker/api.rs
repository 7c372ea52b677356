//! The requests of Firecracker's API, each in one place: method, path, and how its body is spelled.
//!
//! When which of them is sent is the business of the room above.

use super::http::{Method, RequestPath};
use super::section::{ConfigSection, DISK_KEY, NETWORK_DEVICE_KEY, SECTIONS, VSOCK_KEY};
use super::{DeviceId, Feature, Version, with_given_ids};
use crate::host::VmmPath;
use crate::json::{self, object};
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: RequestPath,
    /// Its body, if it has one.
    pub body: Option<Vec<u8>>,
}

/// How much of the memory a snapshot is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotType {
    /// All of it.
    Full,
    /// What has changed since the last one.
    Diff,
}

/// A snapshot that is to be loaded.
#[derive(Clone, Debug)]
pub struct SnapshotLoad<'a> {
    /// The file of the VMM's state.
    pub state: &'a Path,
    /// Where the memory comes from.
    pub memory: MemoryBackend<'a>,
    /// Whether it is to be noted which pages change from now on.
    pub track_dirty_pages: bool,
    /// The ids of network interfaces, and the devices that they get on this host.
    pub network_devices: Vec<(&'a str, &'a str)>,
    /// Another place for the vsock's socket.
    pub vsock: Option<&'a Path>,
    /// Whether the guest's clock is advanced by the time that has gone by.
    pub advance_clock: bool,
}

/// Where the memory of a restored guest comes from.
#[derive(Clone, Copy, Debug)]
pub enum MemoryBackend<'a> {
    /// From this file, which the VMM maps.
    File(&'a Path),
    /// From who listens at this socket, page by page.
    Userfault(&'a Path),
}

/// A value that is set by one request and shown by another.
#[derive(Clone, Debug)]
pub struct Adjustment {
    /// The request that sets it.
    pub set: Request,
    /// The request that shows what has become of it.
    pub show: Request,
    /// Where the answer to that shows it.
    pub key: &'static str,
}

/// What `GET /` says that a microVM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It has not been started.
    NotStarted,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
}

impl Request {
    /// Any request.
    pub fn new(method: Method, path: RequestPath, body: Option<&[u8]>) -> Self {
        Self { method, path, body: body.map(<[u8]>::to_vec) }
    }

    /// Starts the guest.
    pub fn start() -> Self {
        Self::action("InstanceStart")
    }

    /// Asks the guest to power off, by the keys that ask a PC to.
    pub fn send_ctrl_alt_del() -> Self {
        Self::action("SendCtrlAltDel")
    }

    /// Has the metrics written down.
    pub fn flush_metrics() -> Self {
        Self::action("FlushMetrics")
    }

    /// Pauses the guest.
    pub fn pause() -> Self {
        Self::vm_state("Paused")
    }

    /// Resumes the guest.
    pub fn resume() -> Self {
        Self::vm_state("Resumed")
    }

    /// Asks what the microVM does; [`InstanceState::of_answer`] reads the answer.
    pub fn describe_instance() -> Self {
        Self::get("/")
    }

    /// Asks for the release; [`version_of_answer`] reads the answer.
    pub fn describe_version() -> Self {
        Self::get("/version")
    }

    /// Asks for the configuration.
    pub fn describe_configuration() -> Self {
        Self::get("/vm/config")
    }

    /// Configures a section, or a device of it.
    pub fn put(section: ConfigSection, mut body: Value) -> Self {
        let id = section.id_key().and_then(|key| body.get(key)?.as_str());
        let path = section.request_path(id);
        section.spell_ids(&mut body);
        Self::with_body(Method::Put, path, &body)
    }

    /// Changes a device of `section`: whatever `change` names.
    pub fn update_device(section: ConfigSection, id: &str, mut change: Map<String, Value>) -> Self {
        change.extend(section.id_key().map(|key| (key.to_owned(), id.into())));
        let mut body = Value::Object(change);
        section.spell_ids(&mut body);
        Self::with_body(Method::Patch, section.request_path(Some(id)), &body)
    }

    /// Gives a drive another file, or has the same one looked at anew, and makes the other changes too.
    pub fn exchange_drive(id: &str, file: &Path, mut change: Map<String, Value>) -> Self {
        change.insert(DISK_KEY.to_owned(), file.to_string_lossy().into());
        Self::update_device(ConfigSection::Drives, id, change)
    }

    /// Removes a device.
    pub fn remove_device(section: ConfigSection, id: &str) -> Self {
        Self { method: Method::Delete, path: section.request_path(Some(id)), body: None }
    }

    /// Replaces the guest's metadata.
    pub fn put_metadata(document: &Value) -> Self {
        Self::to_section(Method::Put, ConfigSection::Mmds, document)
    }

    /// Merges `document` into the guest's metadata.
    pub fn merge_metadata(document: &Value) -> Self {
        Self::to_section(Method::Patch, ConfigSection::Mmds, document)
    }

    /// Asks what the guest says of its memory.
    pub fn balloon_statistics() -> Self {
        Self::get("/balloon/statistics")
    }

    /// Takes a snapshot into two files.
    pub fn create_snapshot(kind: SnapshotType, state: &Path, memory: &Path) -> Self {
        let kind = match kind {
            SnapshotType::Full => "Full",
            SnapshotType::Diff => "Diff",
        };
        let body = object! { "snapshot_type": kind, "snapshot_path": state.to_string_lossy(), "mem_file_path": memory.to_string_lossy() };
        Self::with_body(Method::Put, RequestPath::fixed("/snapshot/create"), &body)
    }

    /// Loads a snapshot of which [`SnapshotLoad::body`] says how, and resumes its guest when `then` says so.
    pub fn load_snapshot(mut body: Value, then: AfterLoad) -> Self {
        body["resume_vm"] = (then == AfterLoad::Resume).into();
        Self::with_body(Method::Put, RequestPath::fixed("/snapshot/load"), &body)
    }

    /// Whether it may start, pause or resume the guest, or replace it.
    pub fn may_change_state(&self) -> bool {
        self.method != Method::Get && matches!(self.path.section(), "actions" | "vm" | "snapshot")
    }

    /// Whether it may take a snapshot, or change the memory in a way that Firecracker does not track. What a later
    /// Firecracker may know besides is not known here, so only what is known to be harmless is.
    pub fn may_change_what_a_diff_holds(&self) -> bool {
        let harmless =
            ["actions", "balloon", "drives", "logger", "metrics", "mmds", "network-interfaces", "pmem", "vm"];
        self.method != Method::Get && !harmless.contains(&self.path.section())
    }

    fn action(action: &str) -> Self {
        Self::with_body(Method::Put, RequestPath::fixed("/actions"), &object! { "action_type": action })
    }

    fn vm_state(state: &str) -> Self {
        Self::with_body(Method::Patch, RequestPath::fixed("/vm"), &object! { "state": state })
    }

    fn get(path: &'static str) -> Self {
        Self { method: Method::Get, path: RequestPath::fixed(path), body: None }
    }

    /// To a section that is no list.
    fn to_section(method: Method, section: ConfigSection, body: &Value) -> Self {
        Self::with_body(method, section.request_path(None), body)
    }

    fn with_body(method: Method, path: RequestPath, body: &Value) -> Self {
        Self { method, path, body: Some(body.to_string().into_bytes()) }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, with_given_ids(self.path.as_str()))
    }
}

/// What becomes of a guest that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLoad {
    /// It goes on.
    Resume,
    /// It stays paused.
    StayPaused,
}

impl SnapshotLoad<'_> {
    /// How the request says it to Firecracker `version`.
    pub fn body(&self, version: Version) -> Value {
        let (backend, path) = match self.memory {
            MemoryBackend::File(path) => ("File", path),
            MemoryBackend::Userfault(path) => ("Uffd", path),
        };
        let mut body = object! {
            "snapshot_path": self.state.to_string_lossy(),
            "mem_backend": object! { "backend_type": backend, "backend_path": path.to_string_lossy() },
        };
        let tracking = match version.has(Feature::TrackDirtyPagesOnLoad) {
            true => "track_dirty_pages",
            false => "enable_diff_snapshots",
        };
        body[tracking] = self.track_dirty_pages.into();
        let devices = self.network_devices.iter();
        let device = |id: &str, device: &str| object! { "iface_id": DeviceId::of(id).as_str(), NETWORK_DEVICE_KEY: device };
        let devices = devices.map(|(id, name)| device(id, name));
        let devices = devices.collect::<Vec<_>>();
        if !devices.is_empty() {
            body["network_overrides"] = devices.into();
        }
        if let Some(path) = self.vsock {
            body["vsock_override"] = object! { VSOCK_KEY: path.to_string_lossy() };
        }
        if self.advance_clock {
            body["clock_realtime"] = true.into();
        }
        body
    }
}

impl Adjustment {
    /// The balloon, which the guest fills.
    pub fn balloon(amount_mib: u64) -> Self {
        let body = object! { "amount_mib": amount_mib };
        let set = Request::to_section(Method::Patch, ConfigSection::Balloon, &body);
        Self { set, show: Request::balloon_statistics(), key: "actual_mib" }
    }

    /// Memory that is plugged in, which the guest takes.
    pub fn hotplugged_memory(size_mib: u64) -> Self {
        let body = object! { "requested_size_mib": size_mib };
        let set = Request::to_section(Method::Patch, ConfigSection::MemoryHotplug, &body);
        Self { set, show: Request::get("/hotplug/memory"), key: "plugged_size_mib" }
    }
}

impl InstanceState {
    /// What the answer to [`Request::describe_instance`] says.
    pub fn of_answer(body: &[u8]) -> Option<Self> {
        let answer = json::parse(body).ok()?;
        match answer.get("state")?.as_str()? {
            "Not started" => Some(Self::NotStarted),
            "Running" => Some(Self::Running),
            "Paused" => Some(Self::Paused),
            _ => None,
        }
    }
}

/// What the answer to [`Request::describe_version`] says.
pub fn version_of_answer(body: &[u8]) -> Option<Version> {
    let answer = json::parse(body).ok()?;
    Version::parse_number(answer.get("firecracker_version")?.as_str()?)
}

/// A disk of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredDisk {
    /// The section that it stands in.
    pub section: ConfigSection,
    /// Its id.
    pub id: String,
    /// Its file, as the VMM knows it.
    pub path: VmmPath,
    /// Whether the guest only reads it.
    pub is_read_only: bool,
}

/// Has every device in the answer to [`Request::describe_configuration`] called as the user calls it. `known` are ids
/// that may be too long to be spelled.
pub fn restore_ids(configuration: &mut Value, known: &[String]) {
    for section in SECTIONS {
        if let Some(value) = configuration.get_mut(section.name()) {
            section.restore_ids(value, known);
        }
    }
}

/// The disks of the answer to [`Request::describe_configuration`].
pub fn disks_of(configuration: &Value) -> Vec<ConfiguredDisk> {
    let disk = |section: ConfigSection, device: &Value| {
        let (path, read_only) = section.disk_keys()?;
        Some(ConfiguredDisk {
            section,
            id: device.get(section.id_key()?)?.as_str()?.to_owned(),
            path: VmmPath::new(device.get(path)?.as_str()?),
            is_read_only: device.get(read_only).and_then(Value::as_bool) == Some(true),
        })
    };
    let of_section = |section: ConfigSection| {
        let devices = configuration.get(section.name()).and_then(Value::as_array).into_iter().flatten();
        devices.filter_map(move |device| disk(section, device))
    };
    SECTIONS.into_iter().flat_map(of_section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(request: &Request) -> String {
        let body = String::from_utf8(request.body.clone().unwrap_or_default()).unwrap();
        format!("{request} {body}")
    }

    #[test]
    fn requests_are_spelled_as_firecracker_reads_them() {
        for (request, wanted) in [
            (Request::start(), r#"PUT /actions {"action_type":"InstanceStart"}"#),
            (Request::send_ctrl_alt_del(), r#"PUT /actions {"action_type":"SendCtrlAltDel"}"#),
            (Request::pause(), r#"PATCH /vm {"state":"Paused"}"#),
            (Request::resume(), r#"PATCH /vm {"state":"Resumed"}"#),
            (Request::describe_instance(), "GET / "),
            (Adjustment::balloon(7).set, r#"PATCH /balloon {"amount_mib":7}"#),
            (Request::merge_metadata(&json!({ "a": 1 })), r#"PATCH /mmds {"a":1}"#),
            (
                Request::exchange_drive("rootfs", Path::new("drives/rootfs"), Map::new()),
                r#"PATCH /drives/rootfs {"drive_id":"rootfs","path_on_host":"drives/rootfs"}"#,
            ),
            (
                Request::put(ConfigSection::NetworkInterfaces, json!({ "iface_id": "eth-0" })),
                r#"PUT /network-interfaces/eth-0 {"iface_id":"mvm_id_eth_2d0"}"#,
            ),
        ] {
            assert_eq!(text(&request), wanted);
        }
    }

    #[test]
    fn what_may_change_the_state_is_known() {
        assert!(Request::pause().may_change_state() && Request::start().may_change_state());
        assert!(!Request::describe_configuration().may_change_state());
        assert!(!Request::put_metadata(&Value::Null).may_change_state());
        // Firecracker skips slashes.
        let path = RequestPath::parse("//snapshot/create").unwrap();
        let slashes = Request::new(Method::Put, path, None);
        assert!(slashes.may_change_state() && slashes.may_change_what_a_diff_holds());
    }

    #[test]
    fn a_loading_is_spelled_as_the_release_reads_it() {
        let load = SnapshotLoad {
            state: Path::new("state"),
            memory: MemoryBackend::File(Path::new("memory")),
            track_dirty_pages: true,
            network_devices: vec![("eth0", "tap7")],
            vsock: None,
            advance_clock: false,
        };
        let body = load.body(Version::new(1, 12, 0));
        assert_eq!(body["enable_diff_snapshots"], true);
        assert_eq!(body["network_overrides"][0], json!({ "iface_id": "eth0", "host_dev_name": "tap7" }));
        assert_eq!(load.body(Version::new(1, 16, 0))["track_dirty_pages"], true);
        let sent = text(&Request::load_snapshot(body, AfterLoad::Resume));
        assert!(sent.contains(r#""resume_vm":true"#), "{sent}");
    }

    #[test]
    fn a_release_says_which_it_is() {
        assert_eq!(version_of_answer(br#"{"firecracker_version":"1.16.1"}"#), Some(Version::new(1, 16, 1)));
        assert_eq!(
            version_of_answer(br#"{"firecracker_version":"1.17.0-dev"}"#),
            Some(Version::new(1, 17, 0))
        );
        assert_eq!(version_of_answer(br#"{"version":1}"#), None);
    }

    #[test]
    fn disks_are_found_in_a_configuration() {
        let configuration = json!({
            "drives": [{ "drive_id": "a", "path_on_host": "drives/a", "is_read_only": true }],
            "pmem": [{ "id": "p", "path_on_host": "pmem/p" }],
        });
        let disks = disks_of(&configuration);
        assert_eq!((disks[0].id.as_str(), disks[0].is_read_only), ("a", true));
        assert_eq!((disks[1].section, disks[1].is_read_only), (ConfigSection::Pmem, false));
    }
}
