//! Disks that the library provides: `"mvm"."rootfs"` and `"mvm"."disks"`. Each is a copy of an image, which is the VM's own, or
//! the image itself, which many VMs read.
//!
//! Once, when a VM is created, a spec is settled: images are looked up, and the devices of Firecracker's sections get their
//! paths. What the catalogue says later does not change what the VM is.

use super::SpecError;
use super::options::{self, MvmSection};
use crate::firecracker::ConfigSection;
use crate::host::disk::{Check, Finish, Format, Space};
use crate::host::{CatalogueError, VmmPath, catalogue};
use crate::journal::SpecRecord;
use crate::json::object;
use crate::settings::{self, Section};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What is said of one disk.
#[derive(Clone, Debug, Default)]
pub(in crate::vm) struct DiskOptions {
    template: Option<String>,
    from: Option<PathBuf>,
    read_only: Option<bool>,
    size_mib: Option<u64>,
    format: Option<Format>,
    verify: Verify,
    digest: Option<String>,
    keep: Option<PathBuf>,
    space: Space,
}

/// What is checked of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verify {
    #[default]
    Nothing,
    Sha256,
    FsVerity,
}

const SPACE: [(&str, Space); 2] = [("as_needed", Space::AsNeeded), ("reserved", Space::Reserved)];
const VERIFY: [(&str, Verify); 3] =
    [("nothing", Verify::Nothing), ("sha256", Verify::Sha256), ("fs_verity", Verify::FsVerity)];

/// A disk of a settled spec.
#[derive(Clone, Debug)]
pub(in crate::vm) struct Disk {
    /// What the VMM calls it.
    pub(in crate::vm) name: VmmPath,
    /// Its image.
    pub(in crate::vm) from: PathBuf,
    pub(in crate::vm) kind: DiskKind,
}

/// Whose a disk is.
#[derive(Clone, Debug)]
pub(in crate::vm) enum DiskKind {
    /// The VM's: a copy of its image. It is removed with the VM, or moved to where it is kept.
    Own { finish: Finish, keep: Option<PathBuf> },
    /// Everybody's who reads it: the image itself.
    Shared { check: Option<Check> },
}

/// What is wrong with what is said of a disk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DiskProblem {
    /// No image, or two.
    #[error("name one image: \"template\" for an image of the catalogue, or \"from\" for the path of a file")]
    Source,
    /// A template without a catalogue.
    #[error(
        "\"template\" names an image of a catalogue: set \"catalogue\" in the runtime's options or in \"mvm\""
    )]
    NoCatalogue,
    /// The catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The device names a file too.
    #[error("the device has {0:?} too: leave it out, because the library fills it in")]
    HasFile(&'static str),
    /// Two devices have its id.
    #[error("more than one device has the id {0:?}")]
    Twice(String),
    /// It is read-only and is not.
    #[error("\"read_only\" says something else than {0:?} of the device")]
    ReadOnly(&'static str),
    /// What only a copy can have.
    #[error("{0:?} is for a disk of the VM's own, and with \"read_only\" the image itself is used")]
    Shared(&'static str),
    /// A check without a digest, or a digest without a check.
    #[error(
        "\"verify\" and \"digest\" belong together: the manifest of a template may hold the digest, and \"digest\" holds it otherwise"
    )]
    NoDigest,
    /// What is no digest.
    #[error(
        "{0:?} is not a digest: use 64 hexadecimal digits for SHA-256, and \"sha256:\" or \"sha512:\" before the digits for fs-verity"
    )]
    Digest(String),
    /// Of a VM that is restored.
    #[error(
        "a restored VM has the disks of its snapshot; to give it another file, use \"drives\" in the options"
    )]
    Restored,
    /// A device that is to be the root device, and is not.
    #[error(
        "the device {0:?} has \"is_root_device\": false: remove that, or give the root device an id of its own"
    )]
    NotRoot(String),
}

impl DiskOptions {
    pub(super) fn read(mut given: Section, base: &Path) -> Result<Self, settings::Error> {
        let [(ext4, is_ext4), (raw, is_raw)] = catalogue::FORMATS;
        let formats = [("as_the_image", None), (ext4, Some(is_ext4)), (raw, Some(is_raw))];
        let options = Self {
            template: given.take("template")?,
            from: given.take("from")?.map(|path: PathBuf| base.join(path)),
            read_only: given.take("read_only")?,
            size_mib: given.take("size_mib")?,
            format: given.choose("format", &formats)?,
            verify: given.choose("verify", &VERIFY)?,
            digest: given.take("digest")?,
            keep: given.take("keep")?.map(|path: PathBuf| base.join(path)),
            space: given.choose("space", &SPACE)?,
        };
        given.finish().map(|()| options)
    }

    /// Those of the object at `"disks"`, with the ids of their devices.
    pub(super) fn read_all(given: &mut Section, base: &Path) -> Result<Vec<(String, Self)>, settings::Error> {
        let all = given.take::<Map<String, Value>>("disks")?.unwrap_or_default().into_iter();
        let read = |(id, value): (String, Value)| {
            let options = Self::read(Section::of(value, format!("mvm.disks.{id}"))?, base)?;
            Ok((id, options))
        };
        all.map(read).collect()
    }

    /// The disk of a settled spec; nothing when these are options of one that is not settled.
    pub(super) fn settled(&self, name: VmmPath) -> Option<Disk> {
        let from = self.from.clone()?;
        let check = self.check();
        let kind = if self.read_only == Some(true) {
            DiskKind::Shared { check }
        } else {
            let bytes = self.size_mib.map(|mib| mib.saturating_mul(1 << 20));
            let finish = Finish { bytes, format: self.format.unwrap_or_default(), check, space: self.space };
            DiskKind::Own { finish, keep: self.keep.clone() }
        };
        Some(Disk { name, from, kind })
    }

    fn check(&self) -> Option<Check> {
        let digest = self.digest.clone()?;
        match self.verify {
            Verify::Nothing => None,
            Verify::Sha256 => Some(Check::Sha256(digest)),
            Verify::FsVerity => Some(Check::FsVerity(digest)),
        }
    }

    /// What may not stand together.
    fn check_combination(&self) -> Result<(), DiskProblem> {
        if self.read_only == Some(true) {
            let own = [
                ("size_mib", self.size_mib.is_some()),
                ("keep", self.keep.is_some()),
                ("space", self.space == Space::Reserved),
            ];
            own.iter()
                .find(|(_, is_given)| *is_given)
                .map_or(Ok(()), |(key, _)| Err(DiskProblem::Shared(key)))?;
        }
        match (self.verify, &self.digest) {
            (Verify::Nothing, None) => Ok(()),
            (Verify::Nothing, Some(_)) | (_, None) => Err(DiskProblem::NoDigest),
            (Verify::Sha256, Some(digest)) if is_hexadecimal(digest, 64) => Ok(()),
            (Verify::FsVerity, Some(digest)) if is_fs_verity(digest) => Ok(()),
            (_, Some(digest)) => Err(DiskProblem::Digest(digest.chars().take(160).collect())),
        }
    }

    fn to_json(&self) -> Value {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        object! {
            "from": text(&self.from),
            "read_only": self.read_only,
            "size_mib": self.size_mib,
            "format": self.format.and_then(|format| word(&catalogue::FORMATS, format)),
            "verify": word(&VERIFY, self.verify),
            "digest": self.digest.clone(),
            "keep": text(&self.keep),
            "space": word(&SPACE, self.space),
        }
    }
}

/// Looks up the images that a spec names, and gives its devices their paths. `catalogue` is where templates are unless the spec
/// says.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn settle(given: SpecRecord, catalogue: Option<&Path>) -> Result<SpecRecord, SpecError> {
    let Value::Object(mut sections) = settings::parse(&given.spec)? else { return Ok(given) };
    let options = options::read(sections.get("mvm").cloned().unwrap_or_default(), &given.base)?;
    if options.rootfs.is_none() && options.disks.is_empty() {
        return Ok(given);
    }
    let is_list =
        |section: &ConfigSection| sections.get(section.name()).is_none_or(|it| it.is_array() || it.is_null());
    if ![ConfigSection::Drives, ConfigSection::Pmem].iter().all(is_list) {
        // Whoever reads it says so.
        return Ok(given);
    }
    let MvmSection { rootfs, disks, catalogue: own_catalogue, .. } = options;
    let catalogue = own_catalogue.as_deref().or(catalogue);
    let root = rootfs.map(|disk| ("mvm.rootfs".to_owned(), root_id(&sections), disk));
    let has_root = root.is_some();
    let others = disks.into_iter().map(|(id, disk)| (format!("mvm.disks.{id}"), id, disk));
    let (mut own_files, mut settled) = (given.own_files, Map::new());
    for (index, (key, id, disk)) in root.into_iter().chain(others).enumerate() {
        let is_root = has_root && index == 0;
        let wrong = |problem| SpecError::Disk { key: key.clone(), problem };
        let disk = settle_one(&mut sections, (&id, is_root), disk, catalogue).map_err(wrong)?;
        if disk.read_only != Some(true) {
            own_files.push(device_name(&sections, &id).as_path().to_path_buf());
        }
        if settled.insert(id.clone(), disk.to_json()).is_some() {
            return Err(wrong(DiskProblem::Twice(id)));
        }
    }
    if let Some(own) = sections.get_mut("mvm").and_then(Value::as_object_mut) {
        own.remove("rootfs");
        own.insert("disks".to_owned(), settled.into());
    }
    Ok(SpecRecord { spec: Value::Object(sections).to_string(), base: given.base, own_files })
}

/// What the VMM calls the file of the device `id`.
pub(super) fn device_name(sections: &Map<String, Value>, id: &str) -> VmmPath {
    let section = if find(sections, ConfigSection::Pmem, id).is_empty() {
        ConfigSection::Drives
    } else {
        ConfigSection::Pmem
    };
    section.file_name(id)
}

/// What a restored VM has of them: only what it shares with others. Its own disks come from the snapshot; `is_chosen` says
/// which come from elsewhere.
pub(in crate::vm) fn without_copies(mvm: &mut Map<String, Value>, is_chosen: impl Fn(&str) -> bool) {
    let Some(disks) = mvm.get_mut("disks").and_then(Value::as_object_mut) else { return };
    disks.retain(|id, disk| disk.get("read_only") == Some(&Value::Bool(true)) && !is_chosen(id));
}

/// Whether `mvm`, which a restored VM is to have, says nothing of disks.
pub(in crate::vm) fn refuse_disks(mvm: &Value) -> Result<(), SpecError> {
    let mut said =
        ["rootfs", "disks"].into_iter().filter(|key| mvm.get(key).is_some_and(|said| !said.is_null()));
    let refused = |key| SpecError::Disk { key: format!("mvm.{key}"), problem: DiskProblem::Restored };
    said.next().map_or(Ok(()), |key| Err(refused(key)))
}

fn settle_one(
    sections: &mut Map<String, Value>,
    (id, is_root): (&str, bool),
    mut disk: DiskOptions,
    catalogue: Option<&Path>,
) -> Result<DiskOptions, DiskProblem> {
    let mut boot_args = None;
    match (&disk.template, &disk.from) {
        (Some(_), Some(_)) | (None, None) => return Err(DiskProblem::Source),
        (None, Some(_)) => {}
        (Some(template), None) => {
            let image = catalogue::find(catalogue.ok_or(DiskProblem::NoCatalogue)?, template)?;
            disk.format = disk.format.or(Some(image.format));
            disk.from = Some(image.path);
            boot_args = image.boot_args;
            if disk.digest.is_none() {
                disk.digest = match disk.verify {
                    Verify::Nothing => None,
                    Verify::Sha256 => image.sha256,
                    Verify::FsVerity => image.fs_verity,
                };
            }
        }
    }
    let from = disk.from.as_ref().map(|from| from.to_string_lossy().into_owned());
    let is_pmem = !find(sections, ConfigSection::Pmem, id).is_empty();
    let section = if is_pmem { ConfigSection::Pmem } else { ConfigSection::Drives };
    let device = device(sections, section, id)?;
    let (file_key, read_only_key) = section.disk_keys().unwrap_or_default();
    if device.get(file_key).is_some_and(|path| !path.is_null()) {
        return Err(DiskProblem::HasFile(file_key));
    }
    let said = device.get(read_only_key).and_then(Value::as_bool);
    if disk.read_only.zip(said).is_some_and(|(one, other)| one != other) {
        return Err(DiskProblem::ReadOnly(read_only_key));
    }
    let read_only = disk.read_only.or(said).unwrap_or(false);
    disk.read_only = Some(read_only);
    disk.check_combination()?;
    device.insert(file_key.to_owned(), from.into());
    device.insert(read_only_key.to_owned(), read_only.into());
    let root_key = if is_pmem { "root_device" } else { "is_root_device" };
    match device.get(root_key) {
        None | Some(Value::Null) => drop(device.insert(root_key.to_owned(), is_root.into())),
        Some(Value::Bool(false)) if is_root => return Err(DiskProblem::NotRoot(id.to_owned())),
        Some(_) => {}
    }
    if is_root && let Some(boot_args) = boot_args {
        let source = sections.get_mut(ConfigSection::BootSource.name()).and_then(Value::as_object_mut);
        source.map(|source| source.entry("boot_args").or_insert_with(|| boot_args.into()));
    }
    Ok(disk)
}

/// The id of the root device, which may be yet to come.
fn root_id(sections: &Map<String, Value>) -> String {
    let devices = sections.get(ConfigSection::Drives.name()).and_then(Value::as_array).into_iter().flatten();
    let mut roots = devices.filter(|device| device.get("is_root_device") == Some(&Value::Bool(true)));
    let id = roots.find_map(|device| device.get("drive_id")?.as_str());
    id.unwrap_or("rootfs").to_owned()
}

/// The devices of `section` whose id is `id`, by their places.
fn find(sections: &Map<String, Value>, section: ConfigSection, id: &str) -> Vec<usize> {
    let devices = sections.get(section.name()).and_then(Value::as_array).into_iter().flatten();
    let is_it = |device: &Value| section.id_key().and_then(|key| device.get(key)?.as_str()) == Some(id);
    devices.enumerate().filter(|(_, device)| is_it(device)).map(|(index, _)| index).collect()
}

/// The device `id` of `section`; one is made where there is none.
fn device<'a>(
    sections: &'a mut Map<String, Value>,
    section: ConfigSection,
    id: &str,
) -> Result<&'a mut Map<String, Value>, DiskProblem> {
    let twice = || DiskProblem::Twice(id.to_owned());
    let place = match find(sections, section, id)[..] {
        [] => None,
        [only] => Some(only),
        _ => return Err(twice()),
    };
    let devices = sections.entry(section.name()).or_insert(Value::Null);
    if devices.is_null() {
        *devices = Vec::<Value>::new().into();
    }
    let devices = devices.as_array_mut().ok_or_else(twice)?;
    let place = place.unwrap_or_else(|| {
        let key = section.id_key().unwrap_or_default();
        devices.push(object! { key: id });
        devices.len() - 1
    });
    devices.get_mut(place).and_then(Value::as_object_mut).ok_or_else(twice)
}

/// The word that stands for `meaning`.
fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], meaning: T) -> Option<&'static str> {
    words.iter().find(|(_, known)| *known == meaning).map(|(word, _)| *word)
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_fs_verity(text: &str) -> bool {
    let of =
        |algorithm, length| text.strip_prefix(algorithm).is_some_and(|digits| is_hexadecimal(digits, length));
    of("sha256:", 64) || of("sha512:", 128)
}

#[cfg(test)]
mod tests;
