//! What operators are told of a snapshot.

use super::check::needed;
use super::{Access, Check, Drive, Error, Manifest, Snapshot, SnapshotId, Store, StoredFile};
use crate::causes;
use crate::host::cpu::HostCpu;
use crate::json::object;
use crate::process::Limits;
use crate::sys::mapping::PageSize;
use serde_json::Value;
use std::path::PathBuf;

/// One of several snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Its id.
    pub id: String,
    /// What its manifest says, or nothing when it is damaged.
    pub known: Option<KnownSnapshot>,
}

/// What a manifest says in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSnapshot {
    /// What a diff builds upon; a full snapshot has no parent.
    pub parent: Option<String>,
    /// The VM that it was taken of.
    pub vm: String,
    /// When it was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The guest's memory.
    pub memory_bytes: u64,
    /// What all its files take on the disk.
    pub allocated_bytes: u64,
}

impl Store {
    /// The first snapshot whose id comes after `after`.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) fn next(&self, after: &str) -> Result<Option<SnapshotSummary>, Error> {
        let names = self.names()?;
        let beyond = names.iter().filter(|name| name.as_str() > after);
        let mut found = beyond.filter_map(|name| SnapshotId::parse(name).ok()).map(|id| (self.find(&id), id));
        // One that is not found went meanwhile.
        let next = found.find(|(found, _)| !matches!(found, Err(Error::NotFound { .. })));
        Ok(next.map(|(found, id)| SnapshotSummary {
            id: id.as_str().to_owned(),
            known: found.ok().map(|snapshot| snapshot.manifest.known()),
        }))
    }

    /// All snapshots by their ids, and what stands among them damaged.
    pub(crate) fn list_json(&self) -> Value {
        let (snapshots, damaged) = self.list();
        let brief = |Snapshot { manifest, .. }: &Snapshot| {
            object! {
                "id": manifest.id.as_str(),
                "type": manifest.kind.word(),
                "parent": manifest.parent.clone(),
                "created_unix_ms": manifest.created_unix_ms,
                "vm": manifest.vm.as_str(),
                "memory_bytes": manifest.memory_bytes(),
                "allocated_bytes": manifest.allocated_bytes(),
            }
        };
        let problem = |(path, error): &(PathBuf, Error)| object! { "path": path.to_string_lossy(), "problem": causes::with_causes(error) };
        object! {
            "snapshots": snapshots.iter().map(brief).collect::<Vec<_>>(),
            "damaged": damaged.iter().map(problem).collect::<Vec<_>>(),
        }
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
            object! { "path": file.path.display().to_string(), "bytes": file.stored.bytes, "sha256": file.stored.sha256.clone() }
        });
        Ok(object! { "id": id.as_str(), "bytes": bytes, "files": files.collect::<Vec<_>>() })
    }

    /// All that is known of the snapshot called `id`; its files are not looked at.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be read.
    pub(crate) fn info(&self, id: &SnapshotId) -> Result<Value, Error> {
        let snapshot = self.find(id)?;
        let mut info = snapshot.describe();
        info["children"] = self.dependents(id)?.into();
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
        object! {
            "id": manifest.id.as_str(),
            "directory": self.directory.display().to_string(),
            "type": manifest.kind.word(),
            "parent": manifest.parent.clone(),
            "created_unix_ms": manifest.created_unix_ms,
            "vm": manifest.vm.as_str(),
            "firecracker": manifest.firecracker.as_str(),
            "snapshot_version": manifest.snapshot_version.clone(),
            "host": cpu(&manifest.host),
            "machine": machine(manifest),
            "configuration": manifest.configuration.clone(),
            "state": file(&manifest.state),
            "memory": file(&manifest.memory),
            "drives": manifest.drives.iter().map(drive).collect::<Vec<_>>(),
            "allocated_bytes": manifest.allocated_bytes(),
            "has_working_set": self.working_set_file().is_file(),
        }
    }
}

fn cpu(cpu: &HostCpu) -> Value {
    object! {
        "architecture": cpu.architecture.as_str(),
        "vendor": cpu.vendor.as_str(),
        "model": cpu.model.as_str(),
    }
}

fn machine(manifest: &Manifest) -> Value {
    object! {
        "vcpus": manifest.vcpus(),
        "memory_bytes": manifest.memory_bytes(),
        "huge_pages": match manifest.huge_pages() { PageSize::Small => "None", PageSize::Huge => "2M" },
        "cpu_template": manifest.cpu_template(),
        "interfaces": manifest.interfaces(),
        "vsock": manifest.vsock_path(),
        "has_mmds": manifest.has_mmds(),
        "has_balloon": manifest.has_balloon(),
        "has_memory_hotplug": manifest.has_memory_hotplug(),
    }
}

fn drive(drive: &Drive) -> Value {
    object! {
        "drive_id": drive.drive_id.as_str(),
        "path_on_host": drive.path_on_host.display().to_string(),
        "is_read_only": drive.access == Access::ReadOnly,
        "copy": drive.copy.as_ref().map(file),
    }
}

fn file(stored: &StoredFile) -> Value {
    object! {
        "name": stored.name.as_str(),
        "bytes": stored.bytes,
        "allocated_bytes": stored.allocated_bytes,
        "sha256": stored.sha256.clone(),
    }
}

impl Manifest {
    fn known(self) -> KnownSnapshot {
        KnownSnapshot {
            memory_bytes: self.memory_bytes(),
            allocated_bytes: self.allocated_bytes(),
            parent: self.parent,
            vm: self.vm,
            created_unix_ms: self.created_unix_ms,
        }
    }
}
