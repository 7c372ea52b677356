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
        // SAFETY: the path is a NUL-terminated string, and `attributes` is as long as is said; both outlive the call.
        let changed = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of_val(&attributes),
            )
        };
        if changed == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
pub(super) fn carry_out(order: Order<'_>) -> bool {
    const FROM_DESCRIPTOR: libc::c_uint = 4;
    let (nothing, at) = (std::ptr::null::<libc::c_char>(), order.at.as_ptr());
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
    let flags = libc::MS_REMOUNT | libc::MS_BIND | order.rights.flags();
    // SAFETY: as above.
    moved == 0 && unsafe { libc::syscall(libc::SYS_mount, nothing, at, nothing, flags, nothing) } == 0
}
