//! A VM's disks that the library provides: what they are made from, what is checked before a VMM opens them, and what becomes
//! of them when the VM is destroyed. How it is done is the business of `host::disk`.

use super::record::OwnDisk;
use super::sharing::{Access, HostUse};
use super::spec::{Disk, DiskKind, Link};
use super::{Error, Reason, Spec, SpecError, Turn, Vm};
use crate::firecracker::{HostThing, VmmFiles};
use crate::host::files::View;
use crate::host::{DiskError, Task, VmmPath, disk};
use crate::journal::{self, SpecRecord};
use crate::process::Limits;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl Vm {
    /// The disks that are made for it.
    pub(super) fn own_disks(&self) -> Vec<OwnDisk> {
        let own = |disk: &Disk| match &disk.kind {
            DiskKind::Shared { .. } => None,
            DiskKind::Own { finish, .. } => {
                let link = Link { name: disk.name.clone(), target: disk.from.clone() };
                Some(OwnDisk { link, finish: finish.clone() })
            }
        };
        self.spec.disks.iter().filter_map(own).collect()
    }

    /// Whether the images that it shares with others are what they should be, and its own disks can be kept where they are to
    /// be.
    pub(super) fn check_disks(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let copied = self.spec.disks.iter().filter(|disk| matches!(disk.kind, DiskKind::Own { .. }));
        let copied = copied.map(HostUse::of_image).collect::<Vec<_>>();
        let held = (self.token, self.spec.options.sharing);
        let unwritten = self.shared.holdings.check(held, &copied, &self.view());
        unwritten.map_err(self.failed(turn.operation()))?;
        for disk in &self.spec.disks {
            let checked = match &disk.kind {
                DiskKind::Shared { check } => {
                    check.iter().try_for_each(|check| disk::check(&disk.from, check, turn.limits()))
                }
                DiskKind::Own { keep, .. } => keep.iter().try_for_each(|at| self.check_place(at)),
            };
            checked.map_err(self.failed(turn.operation()))?;
        }
        Ok(())
    }

    /// The same of the images alone, for a VM that is there already.
    pub(super) fn check_shared_disks(&self, turn: &Turn<'_>) -> Result<(), Error> {
        let checks = self.spec.disks.iter().filter_map(|disk| match &disk.kind {
            DiskKind::Shared { check } => Some((&disk.from, check.as_ref()?)),
            DiskKind::Own { .. } => None,
        });
        let mut checks = checks.map(|(from, check)| disk::check(from, check, turn.limits()));
        checks.find(Result::is_err).unwrap_or(Ok(())).map_err(self.failed(turn.operation()))
    }

    /// Moves its disks to where they are kept. It has no VMM any more. Disks of a VM that nobody took out of its pool hold
    /// nothing of anybody's.
    pub(super) fn keep_disks(&self, turn: &Turn<'_>) -> Result<(), Error> {
        if turn.own().record.pool.is_some() {
            return Ok(());
        }
        keep_all(&self.spec, &self.view(), turn.limits()).map_err(self.failed(turn.operation()))
    }

    /// Whether the disk called `name` may leave the VM while it lives.
    pub(super) fn check_not_kept(&self, name: &VmmPath, turn: &Turn<'_>) -> Result<(), Error> {
        let kept = self.kept_disks().find(|(kept, _)| *kept == name);
        let refused =
            |(_, at): (&VmmPath, &Path)| self.error(turn.operation(), DiskError::Kept { at: at.into() });
        kept.map_or(Ok(()), |kept| Err(refused(kept)))
    }

    /// A disk that is to be kept must be found after a power loss: so must the VM's directory, and what it says of the disk.
    pub(super) fn sync_kept_disks(&self, turn: &Turn<'_>) -> Result<(), Error> {
        if self.kept_disks().next().is_none() {
            return Ok(());
        }
        let files = self.files();
        let directory = files.directory();
        let vms = directory.parent().unwrap_or(directory);
        let places =
            [journal::spec_file(directory), journal::journal_file(directory), directory.into(), vms.into()];
        for path in places {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| {
                self.error(turn.operation(), Reason::File { action: "write to the disk", path, source })
            })?;
        }
        Ok(())
    }

    fn kept_disks(&self) -> impl Iterator<Item = (&VmmPath, &Path)> {
        kept_disks(&self.spec)
    }

    /// Whether a disk could be moved there.
    fn check_place(&self, at: &Path) -> Result<(), DiskError> {
        let no_place = |why| DiskError::NoPlace { at: at.into(), why };
        if at.symlink_metadata().is_ok() {
            return Err(no_place(
                "something is there already, and nothing is overwritten; name another path",
            ));
        }
        let vms = self.files().directory().parent().unwrap_or(Path::new("/")).to_path_buf();
        let io = |source| {
            let task = Task::Keep { file: vms.clone(), at: at.into() };
            DiskError::Io { task, source }
        };
        let parent = at.parent().unwrap_or(Path::new("/"));
        let parent = fs::canonicalize(parent).map_err(io)?;
        let (here, there) = (fs::metadata(&vms).map_err(io)?, fs::metadata(&parent).map_err(io)?);
        if here.dev() != there.dev() {
            return Err(no_place(
                "it is on another file system than the state directory, and disks are moved, not copied",
            ));
        }
        if parent.starts_with(fs::canonicalize(&vms).map_err(io)?) {
            return Err(no_place("that is where the library keeps VMs; name a directory of your own"));
        }
        Ok(())
    }
}

impl HostUse {
    /// The use of the image from which `disk` is made.
    fn of_image(disk: &Disk) -> Self {
        let id = disk.name.as_path().file_name().unwrap_or_default().to_string_lossy();
        Self {
            key: format!("mvm.disks.{id}.from"),
            thing: HostThing::Disk { read_only: "read_only" },
            name: disk.from.clone(),
            link: None,
            access: Access::Shared,
            is_own: false,
        }
    }
}

/// Moves the disks to where they are kept of a VM in `directory` whose journal cannot be believed.
///
/// # Errors
/// What could not be kept. A spec that cannot be read either says of nothing that it is to be kept.
pub(crate) fn keep_disks_in(directory: &Path, limits: Limits<'_>) -> Result<(), DiskError> {
    let record = journal::read::<SpecRecord>(&journal::spec_file(directory));
    let spec = record.map_err(SpecError::from).and_then(|record| Spec::of_record_file(&record));
    let Ok(spec) = spec else { return Ok(()) };
    let files = match &spec.options.jail {
        Some(_) => VmmFiles::jailed(directory.to_path_buf()),
        None => VmmFiles::new(directory.to_path_buf()),
    };
    keep_all(&spec, &files.view(), limits)
}

fn keep_all(spec: &Spec, view: &View, limits: Limits<'_>) -> Result<(), DiskError> {
    for (name, at) in kept_disks(spec) {
        match disk::keep(&view.on_host(name), at, limits) {
            // Its VMM has put something else there. It is not to hold up its own removal.
            Err(error @ DiskError::NotPlain { .. }) => log::warn!("{error}: nothing is kept"),
            kept => kept?,
        }
    }
    Ok(())
}

fn kept_disks(spec: &Spec) -> impl Iterator<Item = (&VmmPath, &Path)> {
    spec.disks.iter().filter_map(|disk| match &disk.kind {
        DiskKind::Own { keep: Some(at), .. } => Some((&disk.name, at.as_path())),
        _ => None,
    })
}
