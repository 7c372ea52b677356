//! Mounts that stand nowhere yet: made here, and put into a mount namespace by a child that is about to execute in it
//! ([`super::spawn`]) or that only visits it ([`super::visit`]). So no mount is ever seen on the host.

use super::file;
use super::user_namespace::UserNamespace;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A mount that stands nowhere. It is gone when it is dropped, unless it was put somewhere.
#[derive(Debug)]
pub struct Tree(OwnedFd);

/// A mount, and where it is to stand.
#[derive(Debug)]
pub struct Graft {
    /// The mount.
    pub tree: Tree,
    /// Where: a file for a file, a directory for a directory.
    pub at: CString,
    /// What may be done by way of it.
    pub rights: Rights,
}

/// What may be done by way of a mount. No program gains rights by being executed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// All that may be done in a file system: executing programs, and opening devices.
    All,
}

impl Tree {
    /// What `file`, which may have been opened as a path alone, is: a file, a socket or a directory.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self(file::above_stdio(mount::open_tree(file, c"", flags)?)?))
    }

    /// An empty file system in memory.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn empty() -> io::Result<Self> {
        let filesystem = mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        mount::fsconfig_set_string(filesystem.as_fd(), c"mode", c"0700")?;
        mount::fsconfig_create(filesystem.as_fd())?;
        let made =
            mount::fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Self(file::above_stdio(made)?))
    }

    /// Has what belongs to one user on the disk belong to another by way of this mount, as `namespace` says.
    ///
    /// # Errors
    /// `EINVAL` on file systems that cannot do that, `ENOSYS` before Linux 5.12.
    pub fn show_owner(&self, namespace: &UserNamespace) -> io::Result<()> {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::from(namespace.as_fd().as_raw_fd().unsigned_abs()),
        };
        if set(self.as_fd(), &attributes) { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Rights {
    /// The flags of `mount(2)`.
    fn flags(self) -> libc::c_ulong {
        const FOR_DATA: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        match self {
            Self::Read => FOR_DATA | libc::MS_RDONLY,
            Self::Write => FOR_DATA,
            Self::All => libc::MS_NOSUID,
        }
    }

    /// The same for `mount_setattr(2)`: what is set, and what is cleared that the mount has from the one that it shows.
    fn attributes(self) -> libc::mount_attr {
        const FOR_DATA: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let (attr_set, attr_clr) = match self {
            Self::Read => (FOR_DATA | libc::MOUNT_ATTR_RDONLY, 0),
            Self::Write => (FOR_DATA, 0),
            Self::All => (libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC),
        };
        libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 }
    }
}

/// A graft as a child carries it out, which must not allocate.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    tree: BorrowedFd<'a>,
    at: &'a CStr,
    rights: Rights,
}

impl<'a> Order<'a> {
    pub(super) fn of(graft: &'a Graft) -> Self {
        Self { tree: graft.tree.as_fd(), at: &graft.at, rights: graft.rights }
    }
}

/// Keeps the mounts of the calling child's new mount namespace from being seen elsewhere; false leaves why in `errno`.
pub(super) fn keep_to_itself() -> bool {
    let (nothing, flags) = (std::ptr::null::<libc::c_char>(), libc::MS_REC | libc::MS_SLAVE);
    // SAFETY: the strings are NUL-terminated, or NULL where nothing is read.
    unsafe { libc::syscall(libc::SYS_mount, nothing, c"/".as_ptr(), nothing, flags, nothing) == 0 }
}

/// Puts a mount where it is to stand in the mount namespace of the calling child; false leaves why in `errno`.
///
/// What may be done by way of it is settled before: where it is to stand, a VMM may put a link to another mount meanwhile.
pub(super) fn carry_out(order: Order<'_>) -> bool {
    const FROM_DESCRIPTOR: libc::c_uint = 4;
    let (nothing, at) = (std::ptr::null::<libc::c_char>(), order.at.as_ptr());
    let is_settled = set(order.tree, &order.rights.attributes());
    // SAFETY: the C library's errno of the calling thread is always readable.
    if !is_settled && unsafe { *libc::__errno_location() } != libc::ENOSYS {
        return false;
    }
    // SAFETY: the strings are NUL-terminated; no memory of ours is written.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            order.tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            at,
            FROM_DESCRIPTOR,
        )
    };
    if moved != 0 || is_settled {
        return moved == 0;
    }
    // Before Linux 5.12 only a mount that stands somewhere has a say.
    let flags = libc::MS_REMOUNT | libc::MS_BIND | order.rights.flags();
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_mount, nothing, at, nothing, flags, nothing) == 0 }
}

/// Sets attributes of a mount, wherever it stands; false leaves why in `errno`.
fn set(tree: BorrowedFd<'_>, attributes: &libc::mount_attr) -> bool {
    let (path, length) = (c"".as_ptr(), size_of_val(attributes));
    let (tree, attributes) = (tree.as_raw_fd(), std::ptr::from_ref(attributes));
    // SAFETY: the path is a NUL-terminated string, and `attributes` is as long as is said; both outlive the call.
    unsafe {
        libc::syscall(libc::SYS_mount_setattr, tree, path, libc::AT_EMPTY_PATH, attributes, length) == 0
    }
}
