//! What would make the VMM refuse a snapshot, or the guest misbehave: told before anything is started.

use super::options::{Memory, RestoreOptions};
use super::{Restoration, VsockPlace};
use crate::firecracker::{Binary, ConfigSection, Feature, Version};
use crate::host::VmmPath;
use crate::host::disk::Finish;
use crate::operation::Operation;
use crate::snapshot::{Access, Manifest};
use crate::sys::mapping::PageSize;
use crate::sys::socket;
use crate::vm::record::{Content, OwnDisk};
use crate::vm::spec::OWN_VSOCK;
use crate::vm::{Error, Link, Reason, RestoreError, Turn, Vm};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub(super) struct Vsock {
    /// What the VMM is told.
    pub(super) overridden: Option<PathBuf>,
    /// What it binds.
    pub(super) bound: Option<PathBuf>,
}

pub(super) struct Disks {
    pub(super) content: Content,
    pub(super) patches: Vec<(String, VmmPath)>,
}

impl Vm {
    /// What would make the VMM refuse, or the guest misbehave, is told before anything is started.
    pub(super) fn check_loadable(
        &self,
        restoration: &Restoration<'_>,
        binary: &Binary,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let (manifest, options) = (&restoration.snapshot.manifest, restoration.options);
        self.check_format(manifest, binary, turn)?;
        let here = &self.shared.cpu;
        if !manifest.host.is_like(here) {
            let (snapshot, taken_on) = (manifest.id.clone(), manifest.host.to_string());
            return Err(self.unfit(RestoreError::OtherCpu { snapshot, taken_on, here: here.to_string() }));
        }
        if manifest.huge_pages() == PageSize::Huge && options.memory == Memory::File {
            return Err(self.unfit(RestoreError::HugePages { snapshot: manifest.id.clone() }));
        }
        if let Some((kind, device)) = unknown_device(manifest, options) {
            let snapshot = manifest.id.clone();
            return Err(self.unfit(RestoreError::NoSuchDevice { snapshot, kind, device }));
        }
        let changes_taps = options.network_overrides.iter().any(|nic| nic.host_dev_name.is_some());
        let wanted = [
            (changes_taps, Feature::NetworkOverrides),
            (options.clock_realtime == Some(true), Feature::ClockRealtime),
        ];
        let mut wanted = wanted.into_iter().filter(|(is_wanted, _)| *is_wanted);
        let able = wanted.try_for_each(|(_, feature)| binary.version().require(feature));
        able.map_err(self.failed(Operation::Restore))
    }

    fn check_format(&self, manifest: &Manifest, binary: &Binary, turn: &Turn<'_>) -> Result<(), Error> {
        let made = manifest.snapshot_version.as_deref().and_then(Version::parse_number);
        let version = self.shared.binaries.snapshot_version(binary, turn.limits());
        let loads = version.map_err(self.failed(Operation::Restore))?;
        match made.filter(|made| made.major != loads.major || made.minor > loads.minor) {
            None => Ok(()),
            Some(made) => Err(self.unfit(RestoreError::OtherVersion {
                snapshot: manifest.id.clone(),
                made,
                made_by: manifest.firecracker.clone(),
                loads,
                by: binary.version(),
            })),
        }
    }

    /// Where its vsock socket goes. Firecracker binds it while it loads, and fails when something is there.
    pub(super) fn vsock_of(&self, restoration: &Restoration<'_>, binary: &Binary) -> Result<Vsock, Error> {
        let (manifest, options) = (&restoration.snapshot.manifest, restoration.options);
        let Some(was) = manifest.vsock_path().map(PathBuf::from) else { return Ok(Vsock::default()) };
        let chosen = options.vsock_override.as_ref().map(|vsock| vsock.uds_path.clone());
        let is_jailed = self.spec.options.jail.is_some();
        let chosen = chosen.filter(|_| !is_jailed);
        let has_own = is_jailed || restoration.vsock == VsockPlace::OwnDirectory;
        let own = has_own.then(|| PathBuf::from(OWN_VSOCK));
        let overridden = chosen.or(own).filter(|chosen| *chosen != was);
        if overridden.is_some() {
            binary.version().require(Feature::VsockOverride).map_err(self.failed(Operation::Restore))?;
        }
        let bound = overridden.clone().unwrap_or(was);
        // One below the VM's own directory, which is yet to be made, is nobody else's.
        let elsewhere = bound.is_absolute().then_some(&*bound).or(self.spec.vsock_looked_for_at());
        if let Some(place) = elsewhere {
            socket::remove_dead(place);
            if place.symlink_metadata().is_ok() {
                return Err(self.unfit(RestoreError::SocketTaken { path: place.to_path_buf() }));
            }
        }
        Ok(Vsock { overridden, bound: Some(bound) })
    }

    /// Which disks it gets under which names: what the options say, copies of those that the snapshot holds, and
    /// otherwise those that the snapshot's VM had.
    pub(super) fn disks_of(&self, restoration: &Restoration<'_>) -> Result<Disks, Error> {
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
                return Err(self.disk_not_found("find the disk", &target, source));
            }
            let is_ours = drive.path_in_vmm.is_ours();
            let name = if is_ours {
                drive.path_in_vmm.clone()
            } else {
                ConfigSection::Drives.file_name(&drive.drive_id)
            };
            if !is_ours {
                let opened_first = drive.path_in_vmm.as_path();
                if let Err(source) = std::fs::metadata(opened_first) {
                    let action = "find the disk that the VMM opens first";
                    return Err(self.disk_not_found(action, opened_first, source));
                }
                if chosen.is_none() && copy.is_none() {
                    continue;
                }
                patches.push((drive.drive_id.clone(), name.clone()));
            }
            let link = Link { name, target };
            match copy {
                Some(_) => content.copies.push(OwnDisk { link, finish: Finish::default() }),
                None => content.links.push(link),
            }
        }
        Ok(Disks { content, patches })
    }

    fn unfit(&self, reason: RestoreError) -> Error {
        self.error(Operation::Restore, reason)
    }

    fn disk_not_found(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        self.error(Operation::Restore, Reason::File { action, path: path.to_path_buf(), source })
    }
}

/// A device that is to be changed and that the snapshot has not.
fn unknown_device(manifest: &Manifest, options: &RestoreOptions) -> Option<(&'static str, String)> {
    let interfaces = manifest.interfaces();
    let nic = options.network_overrides.iter().find(|nic| !interfaces.contains(&nic.iface_id));
    let is_known = |wanted: &str| manifest.drives.iter().any(|drive| drive.drive_id == wanted);
    let drive = options.drives.iter().find(|wanted| !is_known(&wanted.drive_id));
    let nic = nic.map(|nic| ("network interface", nic.iface_id.clone()));
    nic.or_else(|| drive.map(|drive| ("drive", drive.drive_id.clone())))
}
