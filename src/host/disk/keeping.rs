//! A disk that outlives its VM: moved out of the VM's directory to a place of the operator's.

use super::open;
use crate::host::error::{DiskError, Task};
use crate::process::Limits;
use crate::sys::{file, user};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// Moves the disk `from` to `at`, where nothing may be, and makes it survive a power loss. One that is not there was moved
/// before. Only its owner may read it there.
///
/// # Errors
/// What could not be done; the disk is where it was then, or at `at` when only the last write to the disk failed.
pub(crate) fn keep(from: &Path, at: &Path, limits: Limits<'_>) -> Result<(), DiskError> {
    let task = Task::Keep { file: from.into(), at: at.into() };
    let failed = |error| DiskError::io(&task, error);
    match from.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    // A VMM may have put something else there. It has ended, and nothing takes the place of what is looked at here.
    let disk = open(from, OpenOptions::new().read(true), &task)?;
    let about = disk.metadata().map_err(failed)?;
    let (user, group) = (user::effective_user(), user::effective_group());
    if (about.uid(), about.gid()) != (user, group) {
        // A VMM in a jail was its owner.
        fchown(&disk, Some(user), Some(group)).map_err(failed)?;
    }
    disk.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    super::sync(&disk, from, limits)?;
    file::rename_to_new(from, at).map_err(failed)?;
    let sync = |directory: Option<&Path>| File::open(directory.unwrap_or(at))?.sync_all();
    sync(at.parent()).and_then(|()| sync(from.parent())).map_err(failed)
}
