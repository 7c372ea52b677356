//! What a restored VM would be made of if it were not restored: that is what it boots when it is started again.

use super::VsockPlace;
use super::options::RestoreOptions;
use crate::firecracker::{ConfigSection, DISK_KEY, NETWORK_DEVICE_KEY, VSOCK_KEY};
use crate::journal::SpecRecord;
use crate::settings;
use crate::snapshot::{Drive, Manifest};
use crate::vm::sharing::separate;
use crate::vm::spec::{OWNER_DATA_KEY, SpecError, refuse_disks, without_copies};
use serde_json::Value;

/// The spec of a VM that is restored from the snapshot of `manifest`: that of the snapshot's VM, with what `options`
/// change.
pub(crate) fn spec_of(
    manifest: &Manifest,
    options: &RestoreOptions,
    vsock: VsockPlace,
) -> Result<SpecRecord, SpecError> {
    let mut spec = settings::parse(&manifest.spec.spec)?;
    let find = |spec: &mut Value, section: ConfigSection, id: &str, change: (&str, Value)| {
        let devices = spec.get_mut(section.name()).and_then(Value::as_array_mut).into_iter().flatten();
        let has_id =
            |device: &&mut Value| device.get(section.id_key()?)?.as_str().filter(|it| *it == id).map(drop);
        let device = devices.into_iter().find(|device| has_id(device).is_some());
        if let Some(device) = device {
            device[change.0] = change.1;
        }
    };
    for drive in &options.drives {
        let path = drive.path_on_host.to_string_lossy().into();
        find(&mut spec, ConfigSection::Drives, &drive.drive_id, (DISK_KEY, path));
    }
    for nic in &options.network_overrides {
        if let Some(device) = &nic.host_dev_name {
            let change = (NETWORK_DEVICE_KEY, device.clone().into());
            find(&mut spec, ConfigSection::NetworkInterfaces, &nic.iface_id, change);
        }
    }
    let section = spec.get_mut(ConfigSection::Vsock.name()).and_then(Value::as_object_mut);
    if let (Some(vsock), Some(section)) = (&options.vsock_override, section) {
        section.insert(VSOCK_KEY.to_owned(), vsock.uds_path.to_string_lossy().into());
    }
    if let Some(own) = &options.mvm {
        refuse_disks(own)?;
    }
    match (&options.mvm, spec.as_object_mut()) {
        (Some(own), Some(spec)) => drop(spec.insert("mvm".to_owned(), own.clone())),
        // What is kept with a VM belongs to that one alone.
        (None, Some(spec)) => {
            if let Some(own) = spec.get_mut("mvm").and_then(Value::as_object_mut) {
                own.remove(OWNER_DATA_KEY);
                without_copies(own, |id| options.drives.iter().any(|drive| drive.drive_id == id));
            }
        }
        (_, None) => {}
    }
    let mut own_files = Vec::new();
    if let Some(spec) = spec.as_object_mut().filter(|_| vsock == VsockPlace::OwnDirectory) {
        own_files =
            separate(spec, |section, _| section != ConfigSection::Vsock || options.vsock_override.is_none());
    }
    let is_chosen = |drive: &&Drive| options.drives.iter().all(|it| it.drive_id != drive.drive_id);
    let copied = manifest.drives.iter().filter(|drive| drive.copy.is_some()).filter(is_chosen);
    own_files.extend(copied.map(|drive| drive.path_in_vmm.as_path().to_path_buf()));
    Ok(SpecRecord { spec: spec.to_string(), base: manifest.spec.base.clone(), own_files })
}
