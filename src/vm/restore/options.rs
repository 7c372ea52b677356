//! How to restore, as JSON, and what that means for the VMM, the guest and the pager.

use super::Restoration;
use crate::firecracker::Version;
use crate::firecracker::api::{MemoryBackend, SnapshotLoad};
use crate::pager;
use crate::settings::{self, Section};
use crate::snapshot::{Check, Manifest, Snapshot};
use crate::vm::OwnerData;
use crate::vm::spec::OWNER_DATA_KEY;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// How to restore.
#[derive(Clone, Debug)]
pub(crate) struct RestoreOptions {
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
    /// What the owner keeps with the new VM.
    pub(super) owner_data: Option<OwnerData>,
    pub(super) deadline_ms: u64,
}

/// Where the guest's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The VMM maps the snapshot's file.
    File,
    /// The library's pager serves each page fault.
    Pager,
}

/// What becomes of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vm) enum After {
    Resume,
    StayPaused,
}

#[derive(Clone, Debug)]
pub(super) struct NetworkOverride {
    pub(super) iface_id: String,
    pub(super) host_dev_name: Option<String>,
    /// Told to the guest, whose device Firecracker leaves as it was.
    pub(super) guest_mac: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct VsockOverride {
    pub(super) uds_path: PathBuf,
}

#[derive(Clone, Debug)]
pub(in crate::vm) struct DriveOverride {
    pub(in crate::vm) drive_id: String,
    pub(in crate::vm) path_on_host: PathBuf,
}

/// `"pager"`.
#[derive(Clone, Debug)]
pub(crate) struct PagerOptions {
    pub(super) run_in: RunIn,
    workers: usize,
    fault_around_bytes: u64,
    ahead: pager::Ahead,
    record: Option<pager::Recording>,
}

/// Where the pager runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunIn {
    /// In a process of its own, which outlives the owner.
    Process,
    /// In threads of the owner; the VM ends with it.
    Thread,
}

impl RestoreOptions {
    /// Reads them; relative paths are relative to `base`.
    pub(crate) fn read(mut given: Section, base: &Path) -> Result<Self, settings::Error> {
        let options = Self {
            memory: given.choose("memory", &[("file", Memory::File), ("pager", Memory::Pager)])?,
            after: After::take(&mut given)?,
            verify: Check::take(&mut given)?,
            track_dirty_pages: given.take("track_dirty_pages")?,
            clock_realtime: given.take("clock_realtime")?,
            network_overrides: NetworkOverride::take(&mut given)?,
            vsock_override: VsockOverride::take(&mut given, base)?,
            drives: DriveOverride::take(&mut given, base)?,
            mmds: given.take("mmds")?,
            pager: PagerOptions::read(given.section("pager")?)?,
            mvm: given.take_any("mvm"),
            owner_data: given.take(OWNER_DATA_KEY)?,
            deadline_ms: given.take_or("deadline_ms", 30_000)?,
        };
        given.finish().map(|()| options)
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

impl After {
    /// What the options of a call say.
    pub(in crate::vm) fn take(given: &mut Section) -> Result<Self, settings::Error> {
        given.choose("after", &[("resume", Self::Resume), ("stay_paused", Self::StayPaused)])
    }
}

impl NetworkOverride {
    fn take(given: &mut Section) -> Result<Vec<Self>, settings::Error> {
        let read = |mut given: Section| {
            let nic = Self {
                iface_id: given.need("iface_id")?,
                host_dev_name: given.take("host_dev_name")?,
                guest_mac: given.take("guest_mac")?,
            };
            given.finish().map(|()| nic)
        };
        given.sections("network_overrides")?.into_iter().map(read).collect()
    }
}

impl VsockOverride {
    fn take(given: &mut Section, base: &Path) -> Result<Option<Self>, settings::Error> {
        let Some(mut given) = given.optional_section("vsock_override")? else { return Ok(None) };
        let uds_path = base.join(given.need::<PathBuf>("uds_path")?);
        given.finish().map(|()| Some(Self { uds_path }))
    }
}

impl DriveOverride {
    /// What the options of a call say.
    pub(in crate::vm) fn take(given: &mut Section, base: &Path) -> Result<Vec<Self>, settings::Error> {
        let read = |mut given: Section| {
            let path_on_host = base.join(given.need::<PathBuf>("path_on_host")?);
            let drive = Self { drive_id: given.need("drive_id")?, path_on_host };
            given.finish().map(|()| drive)
        };
        given.sections("drives")?.into_iter().map(read).collect()
    }
}

impl PagerOptions {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let options = Self {
            run_in: given.choose("run_in", &[("process", RunIn::Process), ("thread", RunIn::Thread)])?,
            workers: usize::try_from(given.take_or("workers", 1_u64)?).unwrap_or(usize::MAX),
            fault_around_bytes: given.take_or("fault_around_bytes", 2 << 20)?,
            ahead: given.choose("ahead", pager::Ahead::WORDS)?,
            record: given.optional_section("record")?.map(recording).transpose()?,
        };
        given.finish().map(|()| options)
    }
}

fn recording(mut given: Section) -> Result<pager::Recording, settings::Error> {
    let recording = pager::Recording {
        limit_bytes: given.take_or("limit_bytes", 1 << 30)?,
        for_ms: given.take_or("for_ms", 10_000)?,
    };
    given.finish().map(|()| recording)
}

impl RestoreOptions {
    pub(super) fn load(
        &self,
        manifest: &Manifest,
        (state, memory): (&Path, &Path),
        vsock: Option<&Path>,
        version: Version,
    ) -> Value {
        let devices = self.network_overrides.iter();
        let devices = devices.filter_map(|nic| Some((&*nic.iface_id, nic.host_dev_name.as_deref()?)));
        let load = SnapshotLoad {
            state,
            memory: match self.memory {
                Memory::File => MemoryBackend::File(memory),
                Memory::Pager => MemoryBackend::Userfault(memory),
            },
            track_dirty_pages: self.track_dirty_pages.unwrap_or_else(|| manifest.tracks_dirty_pages()),
            network_devices: devices.collect(),
            vsock,
            advance_clock: self.clock_realtime == Some(true),
        };
        load.body(version)
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
            record: self.pager.record.clone(),
            working_set: Some(snapshot.working_set_file()),
            removals: if balloon { pager::Removals::Possible } else { pager::Removals::Impossible },
        };
        Paging { plan, run_in: self.pager.run_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_restore() {
        let given = r#"{"network_overrides":[{"iface_id":"a"}],"vsock_override":{"uds_path":"/a"},
            "drives":[{"drive_id":"a","path_on_host":"/a"}],"pager":{"record":{}}}"#;
        let read = || RestoreOptions::read(Section::parse(Some(given), "options")?, Path::new("/"));
        reference::hold(reference::RESTORE, read);
    }
}
