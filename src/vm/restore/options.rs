//! How to restore, as JSON, and what that means for the VMM, the guest and the pager.

use super::Restoration;
use crate::firecracker::{Feature, Version};
use crate::pager;
use crate::settings::{self, KnownKeys};
use crate::snapshot::{Check, Snapshot};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// How to restore.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    pub(super) memory: Memory,
    pub(super) after: After,
    pub(super) verify: Check,
    pub(super) track_dirty_pages: Option<bool>,
    pub(super) clock_realtime: Option<bool>,
    pub(super) network_overrides: Vec<NetworkOverride>,
    pub(super) vsock_override: Option<VsockOverride>,
    pub(super) drives: Vec<DriveOverride>,
    pub(super) mmds: Option<Map<String, Value>>,
    pub(super) pager: PagerOptions,
    /// Instead of that section of the snapshot's spec.
    pub(super) mvm: Option<Value>,
    pub(super) deadline_ms: u64,
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

/// What becomes of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::vm) enum After {
    #[default]
    GoOn,
    StayPaused,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkOverride {
    pub(super) iface_id: String,
    pub(super) host_dev_name: Option<String>,
    /// Told to the guest, whose device Firecracker leaves as it was.
    pub(super) guest_mac: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct VsockOverride {
    pub(super) uds_path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::vm) struct DriveOverride {
    pub(in crate::vm) drive_id: String,
    pub(in crate::vm) path_on_host: PathBuf,
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

/// Who serves the page faults.
#[derive(Debug)]
pub(in crate::vm) struct Paging {
    pub(in crate::vm) plan: pager::Plan,
    pub(in crate::vm) run_in: RunIn,
}

impl Options {
    pub(super) fn load_body(
        &self,
        snapshot: &Snapshot,
        memory: &Path,
        vsock: Option<&Path>,
        version: Version,
    ) -> Value {
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
    pub(super) fn mmds_of(&self, restoration: &Restoration<'_>) -> Option<Value> {
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

    pub(super) fn paging(&self, snapshot: &Snapshot, layers: Vec<PathBuf>) -> Paging {
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
