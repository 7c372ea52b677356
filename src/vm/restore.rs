//! Restoring a VM from a snapshot: checked before anything is started, then loaded by a new VMM and, unless it is to
//! be held, let go on.
//!
//! What a snapshot holds and whether its files are whole is the store's business, and who serves the page faults the
//! pager's.

use super::identity::GuestIdentity;
use super::record::Content;
use super::turn::Turn;
use super::{Error, Link, State, Vm};
use crate::firecracker::http::{Method, RequestPath};
use crate::firecracker::{Binary, Feature, Version};
use crate::journal::{PagerRecord, RestoredRecord, SpecRecord};
use crate::observe::events::What;
use crate::pager;
use crate::settings::{self, KnownKeys};
use crate::snapshot::{Access, Check, Drive, Manifest, Snapshot};
use crate::sys::deadline::Deadline;
use crate::sys::mapping::PageSize;
use crate::sys::socket;
use crate::sys::sync::lock;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How to restore.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    memory: Memory,
    after: After,
    verify: Check,
    track_dirty_pages: Option<bool>,
    clock_realtime: Option<bool>,
    network_overrides: Vec<NetworkOverride>,
    vsock_override: Option<VsockOverride>,
    drives: Vec<DriveOverride>,
    mmds: Option<Map<String, Value>>,
    pager: PagerOptions,
    /// Instead of that section of the snapshot's spec.
    mvm: Option<Value>,
    deadline_ms: u64,
}

/// Where the guest's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Memory {
    /// The VMM maps the snapshot's file.
    #[default]
    File,
    /// The library's pager serves each page fault.
    Pager,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum After {
    #[default]
    GoOn,
    StayPaused,
}

#[derive(Clone, Debug, Deserialize)]
struct NetworkOverride {
    iface_id: String,
    host_dev_name: Option<String>,
    /// Told to the guest, whose device Firecracker leaves as it was.
    guest_mac: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct VsockOverride {
    uds_path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct DriveOverride {
    pub(super) drive_id: String,
    pub(super) path_on_host: PathBuf,
}

/// `"pager"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct PagerOptions {
    pub(super) run_in: RunIn,
    workers: usize,
    fault_around_bytes: u64,
    ahead: pager::Ahead,
    record: Option<pager::Recording>,
}

/// Where the pager runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunIn {
    /// In a process of its own, which outlives the owner.
    #[default]
    Process,
    /// In threads of the owner; the VM ends with it.
    Thread,
}

const KNOWN: KnownKeys = &[
    (
        "options",
        &[
            "memory",
            "after",
            "verify",
            "track_dirty_pages",
            "clock_realtime",
            "network_overrides",
            "vsock_override",
            "drives",
            "mmds",
            "pager",
            "mvm",
            "deadline_ms",
        ],
    ),
    ("options.vsock_override", &["uds_path"]),
    ("options.pager", &["run_in", "workers", "fault_around_bytes", "ahead", "record"]),
    ("options.pager.record", &["limit_bytes", "for_ms"]),
];

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: Memory::default(),
            after: After::default(),
            verify: Check::default(),
            track_dirty_pages: None,
            clock_realtime: None,
            network_overrides: Vec::new(),
            vsock_override: None,
            drives: Vec::new(),
            mmds: None,
            pager: PagerOptions::default(),
            mvm: None,
            deadline_ms: 30_000,
        }
    }
}

impl Default for PagerOptions {
    fn default() -> Self {
        let (run_in, ahead, record) = Default::default();
        Self { run_in, workers: 1, fault_around_bytes: 2 << 20, ahead, record }
    }
}

impl Options {
    /// Reads them; relative paths are relative to `base`.
    pub(crate) fn parse(options: Value, base: &Path) -> Result<Self, settings::Error> {
        let mut options: Self = settings::read(options, "options", KNOWN)?;
        options.drives.iter_mut().for_each(|drive| drive.path_on_host = base.join(&drive.path_on_host));
        options.vsock_override.iter_mut().for_each(|vsock| vsock.uds_path = base.join(&vsock.uds_path));
        Ok(options)
    }

    /// A pager that outlives its owner is wanted.
    pub(crate) fn wants_pager_process(&self) -> bool {
        self.memory == Memory::Pager && self.pager.run_in == RunIn::Process
    }

    /// The guest is to be held.
    pub(crate) fn held(mut self) -> Self {
        self.after = After::StayPaused;
        self
    }
}

/// What is restored, and what it is to become.
#[derive(Debug)]
pub(crate) struct Restoration<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) options: &'a Options,
    /// What the VM would be made of if it were not restored.
    pub(crate) spec: SpecRecord,
    /// What distinguishes it from its siblings.
    pub(crate) identity: GuestIdentity,
    /// Where its vsock socket goes unless the options say.
    pub(crate) vsock: VsockPlace,
    /// The pool that it is to wait in.
    pub(crate) pool: Option<&'a str>,
}

/// Where the vsock socket of a restored VM goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VsockPlace {
    /// Where that of the snapshot's VM was.
    AsItWas,
    /// Into its own directory, for it has siblings.
    OwnDirectory,
}

/// What the VMM is asked for, in order.
#[derive(Debug)]
pub(super) struct Loading {
    load: Value,
    /// Drives that the VMM does not find by a name of ours, and the paths of those that they become.
    patches: Vec<(String, PathBuf)>,
    mmds: Option<Value>,
    after: After,
    vsock: Option<PathBuf>,
    pub(super) pager: Option<Paging>,
}

/// Who serves the page faults.
#[derive(Debug)]
pub(super) struct Paging {
    pub(super) plan: pager::Plan,
    pub(super) run_in: RunIn,
}

const OPERATION: &str = "restore";
/// The vsock socket of a VM that has siblings.
const OWN_VSOCK: &str = "vsock.sock";

impl Vm {
    /// Makes it, with a VMM that has loaded the snapshot. After an error nothing of it is left.
    pub(crate) fn restore(&self, restoration: &Restoration<'_>) -> Result<(), Error> {
        let options = restoration.options;
        let turn = self.take_turn(OPERATION, Deadline::after(Duration::from_millis(options.deadline_ms)))?;
        let binary = self.suitable_binary(OPERATION, &turn)?;
        let (snapshot, store) = (restoration.snapshot, &self.shared.snapshots);
        let failed = self.snapshot_error(OPERATION);
        self.check_loadable(restoration, &binary, &turn)?;
        snapshot.check(store, options.verify, turn.limits()).map_err(&failed)?;
        let layers = snapshot.layers(store).map_err(&failed)?;
        let vsock = self.vsock_of(restoration, &binary)?;
        let Disks { content, patches } = self.disks_of(restoration)?;
        let pager = (options.memory == Memory::Pager).then(|| options.paging(snapshot, layers.clone()));
        {
            let mut record = lock(&self.record);
            let generation_id = restoration.identity.generation_id().to_owned();
            record.restored = Some(RestoredRecord { snapshot: snapshot.manifest.id.clone(), generation_id });
            record.pool = restoration.pool.map(str::to_owned);
        }
        let mut vmm = self.vmm_to_be(&binary);
        vmm.sockets.extend(vsock.bound.clone());
        vmm.pager = pager.as_ref().map(|_| PagerRecord { process: None });
        let directory = self.make_directory(&restoration.spec, content, vmm, &turn)?;
        let memory = self.memory_of(restoration, &layers, &turn)?;
        let loading = Loading {
            load: options.load_body(snapshot, &memory, vsock.overridden.as_deref(), binary.version()),
            patches,
            mmds: options.mmds_of(restoration),
            after: options.after,
            vsock: vsock.bound,
            pager,
        };
        self.launch(OPERATION, &binary, super::launch::Preparation::Snapshot(&loading), &turn)?;
        if layers.len() > 1 && options.memory == Memory::File {
            // The VMM has mapped it.
            let _gone = std::fs::remove_file(&memory);
        }
        directory.keep();
        self.appear(What::Restored(snapshot.manifest.id.clone()));
        if self.state() == State::Running {
            self.tell(What::Resumed);
        }
        self.shared.events.log();
        Ok(())
    }

    /// Has the VMM load a snapshot.
    pub(super) fn load(
        &self,
        operation: &'static str,
        loading: &Loading,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let failed = self.vmm_error(operation);
        let (started, took) = {
            let mut own = lock(&self.vmm);
            let Some(vmm) = own.as_mut() else { return Ok(()) };
            vmm.await_ready(turn.limits()).map_err(&failed)?;
            loading.vsock.iter().for_each(|socket| vmm.leaves(socket.clone()));
            let began = std::time::Instant::now();
            for (method, path, body) in loading.requests() {
                let asked = vmm.demand(method, &path, Some(body.to_string().as_bytes()), turn.limits());
                asked.map_err(|source| self.load_error(source, loading))?;
            }
            (vmm.started(), began.elapsed())
        };
        let mut core = self.observed();
        core.timings.spawn = started.spawn;
        core.timings.socket = started.socket;
        core.timings.load = Some(took);
        if core.process.is_some() {
            core.state = if loading.after == After::GoOn { State::Running } else { State::Paused };
        }
        Ok(())
    }

    /// A VMM that was ended by its pager has not failed by itself.
    fn load_error(&self, source: crate::firecracker::Error, loading: &Loading) -> Error {
        let lost = loading.pager.as_ref().and_then(|_| self.pager_problem());
        match lost {
            Some(said) => Error::PagerLost { id: self.id(), operation: OPERATION, said },
            None => self.vmm_error(OPERATION)(source),
        }
    }

    /// What would make the VMM refuse, or the guest misbehave, is told before anything is started.
    fn check_loadable(
        &self,
        restoration: &Restoration<'_>,
        binary: &Binary,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let (manifest, options) = (&restoration.snapshot.manifest, restoration.options);
        let here = &self.shared.cpu;
        if !manifest.host.is_like(here) {
            let (snapshot, taken_on, here) =
                (manifest.id.clone(), manifest.host.to_string(), here.to_string());
            return Err(self.unfit(RestoreError::OtherCpu { snapshot, taken_on, here }));
        }
        let made = manifest.snapshot_version.as_deref().and_then(Version::parse_number);
        let version = self.shared.binaries.snapshot_version(binary, turn.limits());
        let loads = version.map_err(self.vmm_error(OPERATION))?;
        if let Some(made) = made.filter(|made| made.major != loads.major || made.minor > loads.minor) {
            return Err(self.unfit(RestoreError::OtherVersion {
                snapshot: manifest.id.clone(),
                made,
                made_by: manifest.firecracker.clone(),
                loads,
                by: binary.version(),
            }));
        }
        let wanted = [
            (
                options.network_overrides.iter().any(|nic| nic.host_dev_name.is_some()),
                Feature::NetworkOverrides,
            ),
            (options.clock_realtime == Some(true), Feature::ClockRealtime),
        ];
        for (_, feature) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            binary.version().require(feature).map_err(self.vmm_error(OPERATION))?;
        }
        let interfaces = manifest.interfaces();
        let unknown = options.network_overrides.iter().find(|nic| !interfaces.contains(&nic.iface_id));
        let unknown = unknown.map(|nic| ("network interface", &nic.iface_id));
        let drive =
            |wanted: &&DriveOverride| manifest.drives.iter().all(|drive| drive.drive_id != wanted.drive_id);
        let unknown = unknown.or_else(|| options.drives.iter().find(drive).map(|it| ("drive", &it.drive_id)));
        if let Some((kind, id)) = unknown {
            let snapshot = manifest.id.clone();
            return Err(self.unfit(RestoreError::NoSuchDevice { snapshot, kind, device: id.clone() }));
        }
        if manifest.huge_pages() == PageSize::Huge && options.memory == Memory::File {
            return Err(self.unfit(RestoreError::HugePages { snapshot: manifest.id.clone() }));
        }
        Ok(())
    }

    /// Where its vsock socket goes. Firecracker binds it while it loads, and fails when something is there.
    fn vsock_of(&self, restoration: &Restoration<'_>, binary: &Binary) -> Result<Vsock, Error> {
        let (manifest, options) = (&restoration.snapshot.manifest, restoration.options);
        let Some(was) = manifest.vsock_path().map(PathBuf::from) else { return Ok(Vsock::default()) };
        let chosen = options.vsock_override.as_ref().map(|vsock| vsock.uds_path.clone());
        let own = (restoration.vsock == VsockPlace::OwnDirectory).then(|| PathBuf::from(OWN_VSOCK));
        let overridden = chosen.or(own).filter(|chosen| *chosen != was);
        if overridden.is_some() {
            binary.version().require(Feature::VsockOverride).map_err(self.vmm_error(OPERATION))?;
        }
        let bound = overridden.clone().unwrap_or(was);
        // One below the VM's own directory, which is yet to be made, is nobody else's.
        if bound.is_absolute() {
            socket::remove_dead(&bound);
            if bound.symlink_metadata().is_ok() {
                return Err(self.unfit(RestoreError::SocketTaken { path: bound }));
            }
        }
        Ok(Vsock { overridden, bound: Some(bound) })
    }

    /// Which disks it gets under which names: what the options say, copies of those that the snapshot holds, and
    /// otherwise those that the snapshot's VM had.
    fn disks_of(&self, restoration: &Restoration<'_>) -> Result<Disks, Error> {
        let (mut content, mut patches) = (Content::default(), Vec::new());
        for drive in &restoration.snapshot.manifest.drives {
            let chosen = restoration.options.drives.iter().find(|it| it.drive_id == drive.drive_id);
            let copy = drive.copy.as_ref().filter(|_| chosen.is_none());
            let target = match (chosen, copy) {
                (Some(chosen), _) => chosen.path_on_host.clone(),
                (None, Some(copy)) => restoration.snapshot.directory.join(&copy.name),
                (None, None) => drive.path_on_host.clone(),
            };
            let shares = copy.is_none() && chosen.is_none() && drive.access == Access::Writable;
            if shares && restoration.vsock == VsockPlace::OwnDirectory {
                let snapshot = restoration.snapshot.manifest.id.clone();
                return Err(self.unfit(RestoreError::SharedDisk { snapshot, drive: drive.drive_id.clone() }));
            }
            if let Err(source) = std::fs::metadata(&target) {
                return Err(Error::Directory { action: "find the disk", path: target, source });
            }
            let is_ours = drive.path_in_vmm.is_relative();
            let name =
                if is_ours { drive.path_in_vmm.clone() } else { Path::new("drives").join(&drive.drive_id) };
            if !is_ours {
                if let Err(source) = std::fs::metadata(&drive.path_in_vmm) {
                    let path = drive.path_in_vmm.clone();
                    return Err(Error::Directory {
                        action: "find the disk that the VMM opens first",
                        path,
                        source,
                    });
                }
                if chosen.is_none() && copy.is_none() {
                    continue;
                }
                patches.push((drive.drive_id.clone(), name.clone()));
            }
            let place = if copy.is_some() { &mut content.copies } else { &mut content.links };
            place.push(Link { name, target });
        }
        Ok(Disks { content, patches })
    }

    fn unfit(&self, source: RestoreError) -> Error {
        Error::Restore { id: self.id(), source: Box::new(source) }
    }

    /// The file or the socket that the VMM gets its memory from.
    fn memory_of(
        &self,
        restoration: &Restoration<'_>,
        layers: &[PathBuf],
        turn: &Turn<'_>,
    ) -> Result<PathBuf, Error> {
        match (restoration.options.memory, layers) {
            (Memory::Pager, _) => Ok(PathBuf::from(pager::SOCKET)),
            (Memory::File, [only]) => Ok(only.clone()),
            (Memory::File, _) => {
                let place = self.files().memory();
                let flattened = self.shared.snapshots.flatten(restoration.snapshot, &place, turn.limits());
                flattened.map_err(self.snapshot_error(OPERATION)).map(|()| place)
            }
        }
    }
}

#[derive(Debug, Default)]
struct Vsock {
    /// What the VMM is told.
    overridden: Option<PathBuf>,
    /// What it binds.
    bound: Option<PathBuf>,
}

struct Disks {
    content: Content,
    patches: Vec<(String, PathBuf)>,
}

impl Options {
    fn load_body(&self, snapshot: &Snapshot, memory: &Path, vsock: Option<&Path>, version: Version) -> Value {
        let backend = if self.memory == Memory::File { "File" } else { "Uffd" };
        let mut body = json!({
            "snapshot_path": snapshot.state_file(),
            "mem_backend": { "backend_type": backend, "backend_path": memory },
            // What has to be changed first is changed while it is held.
            "resume_vm": false,
        });
        let tracking = match version.has(Feature::TrackDirtyPagesOnLoad) {
            true => "track_dirty_pages",
            false => "enable_diff_snapshots",
        };
        let tracked = self.track_dirty_pages.unwrap_or_else(|| snapshot.manifest.tracks_dirty_pages());
        body[tracking] = tracked.into();
        let networks = self.network_overrides.iter().filter_map(|nic| {
            let device = nic.host_dev_name.as_ref()?;
            Some(json!({ "iface_id": nic.iface_id, "host_dev_name": device }))
        });
        let networks = networks.collect::<Vec<_>>();
        if !networks.is_empty() {
            body["network_overrides"] = networks.into();
        }
        if let Some(path) = vsock {
            body["vsock_override"] = json!({ "uds_path": path });
        }
        if let Some(advance) = self.clock_realtime.filter(|advance| *advance) {
            body["clock_realtime"] = advance.into();
        }
        body
    }

    /// What the guest finds in its metadata: the caller's, and what tells it from its siblings.
    fn mmds_of(&self, restoration: &Restoration<'_>) -> Option<Value> {
        let manifest = &restoration.snapshot.manifest;
        if !manifest.has_mmds() {
            return None;
        }
        let macs =
            self.network_overrides.iter().filter_map(|nic| Some((&*nic.iface_id, nic.guest_mac.as_deref()?)));
        let mut document = self.mmds.clone().unwrap_or_default();
        document.insert("mvm".into(), restoration.identity.document(manifest, &macs.collect::<Vec<_>>()));
        Some(document.into())
    }

    fn paging(&self, snapshot: &Snapshot, layers: Vec<PathBuf>) -> Paging {
        let manifest = &snapshot.manifest;
        let balloon = manifest.has_balloon() || manifest.has_memory_hotplug();
        let plan = pager::Plan {
            layers,
            bytes: manifest.memory.bytes,
            workers: self.pager.workers.clamp(1, 64),
            fault_around_bytes: self.pager.fault_around_bytes,
            ahead: self.pager.ahead,
            record: self.pager.record,
            working_set: Some(snapshot.working_set_file()),
            removals: if balloon { pager::Removals::Possible } else { pager::Removals::Impossible },
        };
        Paging { plan, run_in: self.pager.run_in }
    }
}

impl Loading {
    fn requests(&self) -> Vec<(Method, RequestPath, Value)> {
        let fixed = RequestPath::fixed;
        let mut requests = vec![(Method::Put, fixed("/snapshot/load"), self.load.clone())];
        for (drive_id, path) in &self.patches {
            if let Ok(place) = RequestPath::parse(&format!("/drives/{drive_id}")) {
                requests.push((Method::Patch, place, json!({ "drive_id": drive_id, "path_on_host": path })));
            }
        }
        requests.extend(self.mmds.clone().map(|document| (Method::Put, fixed("/mmds"), document)));
        match (self.after, requests.as_mut_slice()) {
            (After::StayPaused, _) => {}
            (After::GoOn, [(_, _, load)]) => load["resume_vm"] = true.into(),
            (After::GoOn, _) => requests.push((Method::Patch, fixed("/vm"), json!({ "state": "Resumed" }))),
        }
        requests
    }
}

/// The spec of a VM that is restored from the snapshot of `manifest`: that of the snapshot's VM, with what `options`
/// change.
pub(crate) fn spec_of(
    manifest: &Manifest,
    options: &Options,
    vsock: VsockPlace,
) -> Result<SpecRecord, settings::Error> {
    let mut spec = settings::parse(&manifest.spec.spec)?;
    let find = |spec: &mut Value, section: &str, key: &str, id: &str, change: (&str, Value)| {
        let devices = spec.get_mut(section).and_then(Value::as_array_mut).into_iter().flatten();
        let device = devices.into_iter().find(|device| device.get(key).and_then(Value::as_str) == Some(id));
        if let Some(device) = device {
            device[change.0] = change.1;
        }
    };
    for drive in &options.drives {
        let path = drive.path_on_host.to_string_lossy().into();
        find(&mut spec, "drives", "drive_id", &drive.drive_id, ("path_on_host", path));
    }
    for nic in &options.network_overrides {
        if let Some(device) = &nic.host_dev_name {
            let change = ("host_dev_name", device.clone().into());
            find(&mut spec, "network-interfaces", "iface_id", &nic.iface_id, change);
        }
    }
    if let (Some(vsock), Some(section)) = (&options.vsock_override, spec.get_mut("vsock")) {
        section["uds_path"] = vsock.uds_path.to_string_lossy().into();
    }
    if let Some(own) = &options.mvm {
        spec["mvm"] = own.clone();
    }
    let is_chosen = |drive: &&Drive| options.drives.iter().all(|it| it.drive_id != drive.drive_id);
    let copied = manifest.drives.iter().filter(|drive| drive.copy.is_some()).filter(is_chosen);
    let mut own_files = copied.map(|drive| drive.path_in_vmm.clone()).collect::<Vec<_>>();
    if vsock == VsockPlace::OwnDirectory && options.vsock_override.is_none() {
        own_files.push(OWN_VSOCK.into());
    }
    Ok(SpecRecord { spec: spec.to_string(), base: manifest.spec.base.clone(), own_files })
}

/// Why a snapshot cannot be restored so.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Another kind of CPU.
    #[error(
        "snapshot {snapshot} was taken on another CPU ({taken_on}), and this one is {here}; its guest would crash here"
    )]
    OtherCpu {
        /// The snapshot.
        snapshot: String,
        /// Its CPU.
        taken_on: String,
        /// The present one.
        here: String,
    },
    /// Another format.
    #[error(
        "snapshot {snapshot} has the format {made} of Firecracker {made_by}, and Firecracker {by} reads {loads}; use \
         the release that made it"
    )]
    OtherVersion {
        /// The snapshot.
        snapshot: String,
        /// Its format.
        made: Version,
        /// What made it.
        made_by: String,
        /// The format that the present VMM reads.
        loads: Version,
        /// The present VMM.
        by: Version,
    },
    /// An override of nothing.
    #[error("snapshot {snapshot} has no {kind} {device:?}")]
    NoSuchDevice {
        /// The snapshot.
        snapshot: String,
        /// What kind of device.
        kind: &'static str,
        /// Its id.
        device: String,
    },
    /// Pages that Firecracker cannot map from a file.
    #[error(
        "snapshot {snapshot} has pages of 2 MiB, which Firecracker does not map from a file; set \"memory\": \"pager\""
    )]
    HugePages {
        /// The snapshot.
        snapshot: String,
    },
    /// The vsock socket.
    #[error(
        "its vsock socket {} is there already, and Firecracker would not bind it; end what uses it, or choose another \
         by \"vsock_override\"",
        path.display()
    )]
    SocketTaken {
        /// The socket.
        path: PathBuf,
    },
    /// A disk that several VMs would write to.
    #[error(
        "snapshot {snapshot} holds no copy of its writable drive {drive:?}, and siblings cannot share it; give each its \
         own by \"drives\", or take the snapshot with \"disks\": \"copy\""
    )]
    SharedDisk {
        /// The snapshot.
        snapshot: String,
        /// The drive.
        drive: String,
    },
}
