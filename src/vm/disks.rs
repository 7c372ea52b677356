//! A VM's disks that the library provides: what they are made from, what is checked before a VMM opens them, and what becomes
//! of them when the VM is destroyed. How it is done is the business of `host::disk`.

use super::record::OwnDisk;
use super::spec::{Disk, DiskKind, Link};
use super::{Error, Turn, Vm};
use crate::host::{DiskError, Task, VmmPath, disk};
use std::fs;
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
        for (name, at) in self.kept_disks() {
            let kept = disk::keep(&self.view().on_host(name), at, turn.limits());
            kept.map_err(self.failed(turn.operation()))?;
        }
        Ok(())
    }

    fn kept_disks(&self) -> impl Iterator<Item = (&VmmPath, &Path)> {
        self.spec.disks.iter().filter_map(|disk| match &disk.kind {
            DiskKind::Own { keep: Some(at), .. } => Some((&disk.name, at.as_path())),
            _ => None,
        })
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
