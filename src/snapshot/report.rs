//! What operators are told of a snapshot.

use super::check::needed;
use super::{Access, Check, Drive, Error, Manifest, Snapshot, SnapshotId, Store, StoredFile};
use crate::causes;
use crate::process::Limits;
use crate::sys::mapping::PageSize;
use serde_json::{Value, json};
use std::path::PathBuf;

impl Store {
    /// All snapshots by their ids, and what stands among them damaged.
    pub(crate) fn list_json(&self) -> Value {
        let (snapshots, damaged) = self.list();
        let brief = |Snapshot { manifest, .. }: &Snapshot| {
            json!({
                "id": manifest.id,
                "type": manifest.kind,
                "parent": manifest.parent,
                "created_unix_ms": manifest.created_unix_ms,
                "vm": manifest.vm,
                "memory_bytes": manifest.memory_bytes(),
                "allocated_bytes": manifest.allocated_bytes(),
            })
        };
        let problem = |(path, error): &(PathBuf, Error)| json!({ "path": path.to_string_lossy(), "problem": causes::with_causes(error) });
        json!({
            "snapshots": snapshots.iter().map(brief).collect::<Vec<_>>(),
            "damaged": damaged.iter().map(problem).collect::<Vec<_>>(),
        })
    }

    /// Reads all files that a restore of `id` needs, and says which they are.
    ///
    /// # Errors
    /// The first thing that is wrong, or that there is no checksum to compare with.
    pub(crate) fn verify(&self, id: &SnapshotId, limits: Limits<'_>) -> Result<Value, Error> {
        let snapshot = self.find(id)?;
        snapshot.check(self, Check::Always, limits)?;
        let chain = self.chain(&snapshot)?;
        let files = needed(&chain);
        let bytes = files.iter().map(|file| file.stored.bytes).sum::<u64>();
        let files = files.iter().map(|file| {
            json!({ "path": file.path.display().to_string(), "bytes": file.stored.bytes, "sha256": file.stored.sha256 })
        });
        Ok(json!({ "id": id.as_str(), "bytes": bytes, "files": files.collect::<Vec<_>>() }))
    }

    /// All that is known of the snapshot called `id`; its files are not looked at.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be read.
    pub(crate) fn info(&self, id: &SnapshotId) -> Result<Value, Error> {
        let snapshot = self.find(id)?;
        let mut info = snapshot.describe();
        info["children"] = json!(self.dependents(id)?);
        match self.chain(&snapshot) {
            Ok(chain) => info["chain"] = chain.iter().map(|one| one.manifest.id.as_str()).collect(),
            Err(error) => info["problem"] = causes::with_causes(&error).into(),
        }
        Ok(info)
    }
}

impl Snapshot {
    /// What the manifest says, for people and programs to read.
    pub(crate) fn describe(&self) -> Value {
        let manifest = &self.manifest;
        json!({
            "id": manifest.id,
            "directory": self.directory.display().to_string(),
            "type": manifest.kind,
            "parent": manifest.parent,
            "created_unix_ms": manifest.created_unix_ms,
            "vm": manifest.vm,
            "firecracker": manifest.firecracker,
            "snapshot_version": manifest.snapshot_version,
            "host": manifest.host,
            "machine": machine(manifest),
            "configuration": manifest.configuration,
            "state": file(&manifest.state),
            "memory": file(&manifest.memory),
            "drives": manifest.drives.iter().map(drive).collect::<Vec<_>>(),
            "allocated_bytes": manifest.allocated_bytes(),
            "has_working_set": self.working_set_file().is_file(),
        })
    }
}

fn machine(manifest: &Manifest) -> Value {
    json!({
        "vcpus": manifest.vcpus(),
        "memory_bytes": manifest.memory_bytes(),
        "huge_pages": match manifest.huge_pages() { PageSize::Small => "None", PageSize::Huge => "2M" },
        "cpu_template": manifest.cpu_template(),
        "interfaces": manifest.interfaces(),
        "vsock": manifest.vsock_path(),
        "has_mmds": manifest.has_mmds(),
        "has_balloon": manifest.has_balloon(),
        "has_memory_hotplug": manifest.has_memory_hotplug(),
    })
}

fn drive(drive: &Drive) -> Value {
    json!({
        "drive_id": drive.drive_id,
        "path_on_host": drive.path_on_host.display().to_string(),
        "is_read_only": drive.access == Access::ReadOnly,
        "copy": drive.copy.as_ref().map(file),
    })
}

fn file(stored: &StoredFile) -> Value {
    let StoredFile { name, bytes, allocated_bytes, sha256, .. } = stored;
    json!({ "name": name, "bytes": bytes, "allocated_bytes": allocated_bytes, "sha256": sha256 })
}
