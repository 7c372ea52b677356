//! The root of the jail: how a process gets there, and what it finds.

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, chroot};
use std::path::{Path, PathBuf};

use mvm::sys::confinement::{self, Namespace};
use rustix::fs::{CWD, FileType, Mode, makedev, mkdir, mknodat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use rustix::process::pivot_root;

use super::error::JailerError;
use super::plan::{Plan, Powers};
use super::print;

const OLD_ROOT: &str = "old_root";
const FOLDERS: [&str; 4] = ["/", "/dev", "/dev/net", "/run"];

/// What the jail's paths are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// Nothing else: the jail, if there is one, is the root of our file system.
    FileSystem,
    /// The jail is just where we are.
    WorkingDirectory,
}

impl Root {
    /// An absolute path of the jail's, as it is to be used.
    pub(crate) fn inside(self, path: &str) -> PathBuf {
        match self {
            Self::FileSystem => PathBuf::from(path),
            Self::WorkingDirectory => Path::new(".").join(path.trim_start_matches('/')),
        }
    }
}

pub(super) fn enter(plan: &Plan) -> Result<Root, JailerError> {
    match plan.powers {
        Powers::OfJailer => pivot_into(&plan.root).map(|()| Root::FileSystem),
        Powers::Few => change_into(&plan.root),
    }
}

/// Makes the folders and the devices of a jail.
pub(super) fn furnish(plan: &Plan, root: Root) -> Result<(), JailerError> {
    FOLDERS.iter().try_for_each(|folder| make_folder(plan, &root.inside(folder)))?;
    make_device(plan, root, "/dev/net/tun", 10, 200)?;
    make_device(plan, root, "/dev/kvm", 10, 232)?;
    if let Err(error) = make_device(plan, root, "/dev/urandom", 1, 9) {
        print(&format!("Warning! Could not create /dev/urandom device inside jailer: {error}.\n"));
        print("MMDS version 2 will not be available to use.\n");
    }
    match plan.userfaultfd_minor {
        Some(minor) => make_device(plan, root, "/dev/userfaultfd", 10, minor),
        None => Ok(()),
    }
}

/// Leaves nothing of the old root in reach, in a mount namespace of its own.
fn pivot_into(root: &Path) -> Result<(), JailerError> {
    confinement::leave(Namespace::Mounts).map_err(JailerError::UnshareNewNs)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| JailerError::MountPropagationSlave(error.into()))?;
    // The new root has to be a mount.
    mount_bind_recursive(root, root).map_err(|error| JailerError::MountBind(error.into()))?;
    env::set_current_dir(root).map_err(JailerError::SetCurrentDir)?;
    mkdir(OLD_ROOT, Mode::RUSR | Mode::WUSR).map_err(|error| JailerError::MkdirOldRoot(error.into()))?;
    pivot_root(".", OLD_ROOT).map_err(|error| JailerError::PivotRoot(error.into()))?;
    env::set_current_dir("/").map_err(JailerError::ChdirNewRoot)?;
    unmount(OLD_ROOT, UnmountFlags::DETACH).map_err(|error| JailerError::UmountOldRoot(error.into()))?;
    fs::remove_dir(OLD_ROOT).map_err(JailerError::RmOldRootDir)
}

fn change_into(root: &Path) -> Result<Root, JailerError> {
    env::set_current_dir(root).map_err(JailerError::SetCurrentDir)?;
    let (reached, what) = match chroot(".") {
        Ok(()) => {
            env::set_current_dir("/").map_err(JailerError::ChdirNewRoot)?;
            (Root::FileSystem, "its root is changed, and nothing else is confined")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            (Root::WorkingDirectory, "it is the working directory, and nothing is confined")
        }
        Err(error) => return Err(JailerError::PivotRoot(error)),
    };
    let _ = writeln!(io::stderr(), "firecracker-sim: this is no jail, for want of CAP_SYS_ADMIN: {what}");
    Ok(reached)
}

fn make_folder(plan: &Plan, folder: &Path) -> Result<(), JailerError> {
    fs::create_dir_all(folder).map_err(|error| JailerError::CreateDir(folder.to_owned(), error))?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(|error| JailerError::Chmod(folder.to_owned(), error))?;
    own(plan, folder)
}

fn make_device(plan: &Plan, root: Root, path: &str, major: u32, minor: u32) -> Result<(), JailerError> {
    let device = root.inside(path);
    let mode = Mode::RUSR | Mode::WUSR;
    let make = || mknodat(CWD, &device, FileType::CharacterDevice, mode, makedev(major, minor));
    plan.unless_forbidden(make).map_err(|error| JailerError::MknodDev(error, path.to_owned()))?;
    if device.exists() { own(plan, &device) } else { Ok(()) }
}

fn own(plan: &Plan, path: &Path) -> Result<(), JailerError> {
    plan.unless_forbidden(|| chown(path, Some(plan.uid), Some(plan.gid)))
        .map_err(|error| JailerError::ChangeFileOwner(path.to_owned(), error))
}
