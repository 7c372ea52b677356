//! What a snapshot says of itself: of whom, when, where and by what it was taken, and which files belong to it.

use crate::host::VmmPath;
use crate::host::cpu::HostCpu;
use crate::journal::{SnapshotRecord, SpecRecord};
use crate::json::words;
use crate::sys::mapping::PageSize;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// The manifest of one snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The snapshot's id, which is also its directory's name.
    pub(crate) id: String,
    /// When it was taken, in milliseconds since 1970.
    pub(crate) created_unix_ms: u64,
    /// Random: it tells this snapshot from every other one that ever had its id.
    #[serde(default)]
    pub(crate) token: Option<String>,
    pub(crate) kind: Kind,
    /// What a diff builds upon.
    pub(crate) parent: Option<String>,
    /// The VM that it was taken of.
    pub(crate) vm: String,
    /// The spec of that VM.
    pub(crate) spec: SpecRecord,
    /// The version of the VMM, as `1.16.1`.
    pub(crate) firecracker: String,
    /// The version of the state file's format, as `10.0.0`.
    pub(crate) snapshot_version: Option<String>,
    /// Where it was taken.
    pub(crate) host: HostCpu,
    /// What the VMM answered to `GET /vm/config`.
    pub(crate) configuration: Value,
    pub(crate) drives: Vec<Drive>,
    pub(crate) state: StoredFile,
    pub(crate) memory: StoredFile,
}

/// How much of the memory a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All of it.
    #[default]
    Full,
    /// What was written to since the parent was taken.
    Diff,
}

words!(Kind { Full: "full", Diff: "diff" });

/// A drive of the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drive {
    pub(crate) drive_id: String,
    /// Where the state file says that the drive is.
    pub(crate) path_in_vmm: VmmPath,
    /// Where that is on the host.
    pub(crate) path_on_host: PathBuf,
    pub(crate) access: Access,
    /// What the snapshot holds of it.
    pub(crate) copy: Option<StoredFile>,
}

impl Drive {
    /// Whether nothing but a file below the VM's directory is ever made or removed for it.
    fn stays_inside(&self) -> bool {
        !self.path_in_vmm.is_ours() || self.path_in_vmm.stays_below()
    }
}

/// What a guest may do with a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    Writable,
}

words!(Access { ReadOnly: "read_only", Writable: "writable" });

/// A file that belongs to a snapshot, as it was when the snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredFile {
    /// Its name in the snapshot's directory.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// How many of them are data; the others are holes.
    pub(crate) allocated_bytes: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// In hexadecimal digits.
    pub(crate) sha256: Option<String>,
}

impl StoredFile {
    /// The file at `path`, of which nothing else is known yet.
    pub(crate) fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, bytes: 0, allocated_bytes: 0, modified_ns: 0, sha256: None }
    }
}

impl Manifest {
    /// Which snapshot it is, as journals say it; a merge changes nothing of that.
    pub(crate) fn record(&self) -> SnapshotRecord {
        let (id, token) = (self.id.clone(), self.token.clone());
        SnapshotRecord { id, created_unix_ms: self.created_unix_ms, token }
    }

    /// All files that belong to the snapshot.
    pub(crate) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let disks = self.drives.iter().filter_map(|drive| drive.copy.as_ref());
        [&self.state, &self.memory].into_iter().chain(disks)
    }

    /// How much of the disk they take.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.files().fold(0, |sum, file| sum.saturating_add(file.allocated_bytes))
    }

    /// Why this is not the manifest of a snapshot in a directory called `name`.
    pub(super) fn fault(&self, name: &str) -> Option<&'static str> {
        if self.id != name {
            return Some("is of another id: the directory was renamed or copied by hand");
        }
        if self.files().any(|file| !is_file_name(&file.name)) {
            return Some("names a file that is not in it");
        }
        if !self.drives.iter().all(Drive::stays_inside) {
            return Some("names a drive outside of its VM's directory");
        }
        match (self.kind, &self.parent) {
            (Kind::Full, None) => None,
            (Kind::Full, Some(_)) => Some("says that it is full, and names a parent"),
            (Kind::Diff, Some(parent)) if crate::id::check(parent).is_ok() => None,
            (Kind::Diff, _) => Some("says that it is a diff, and names no parent"),
        }
    }

    /// The size of the memory, that plugged in later included.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.bytes
    }

    pub(crate) fn vcpus(&self) -> Option<u64> {
        self.configured("/machine-config/vcpu_count")?.as_u64()
    }

    pub(crate) fn huge_pages(&self) -> PageSize {
        match self.configured("/machine-config/huge_pages").and_then(Value::as_str) {
            Some("2M") => PageSize::Huge,
            _ => PageSize::Small,
        }
    }

    /// The static CPU template, if the VM has one.
    pub(crate) fn cpu_template(&self) -> Option<&str> {
        self.configured("/machine-config/cpu_template")?.as_str().filter(|template| *template != "None")
    }

    /// Whether its VMM was told to note which pages change.
    pub(crate) fn tracks_dirty_pages(&self) -> bool {
        self.configured("/machine-config/track_dirty_pages").and_then(Value::as_bool) == Some(true)
    }

    /// The `iface_id` of each network interface.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let interfaces = self.configured("/network-interfaces").and_then(Value::as_array);
        let ids =
            interfaces.into_iter().flatten().filter_map(|interface| interface.get("iface_id")?.as_str());
        ids.map(str::to_owned).collect()
    }

    /// The path of the vsock's socket, as the VMM has it.
    pub(crate) fn vsock_path(&self) -> Option<&str> {
        self.configured("/vsock/uds_path")?.as_str()
    }

    pub(crate) fn has_mmds(&self) -> bool {
        self.configured("/mmds-config").is_some()
    }

    pub(crate) fn has_balloon(&self) -> bool {
        self.configured("/balloon").is_some()
    }

    pub(crate) fn has_memory_hotplug(&self) -> bool {
        self.configured("/memory-hotplug").is_some()
    }

    fn configured(&self, pointer: &str) -> Option<&Value> {
        self.configuration.pointer(pointer).filter(|value| !value.is_null())
    }
}

fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}
