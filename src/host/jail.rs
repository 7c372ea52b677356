//! What a jailed VMM finds in its root directory: nothing but what it was lent, under the names that a VMM outside of a jail
//! would use too.
//!
//! A file is lent by a mount that the VMM alone has, so it is neither copied nor linked, and the host sees no mount. Its
//! owner stays what it was: where the VMM's user may not open it, the mount shows it as that user's. A device is lent as a
//! node of its own. The directory belongs to the VMM's user, who may put anything into it: nothing in it is believed, no
//! link in it is followed, and a directory that was used is never used again.

use super::VmmPath;
use crate::sys::deadline::Deadline;
use crate::sys::directory::{Directory, Names};
use crate::sys::mount::{Graft, Rights, Tree};
use crate::sys::user_namespace::{TakenFor, UserNamespace};
use crate::sys::{file, removal, user};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown, lchown,
};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The root directory of a jailed VMM, and its user.
#[derive(Clone, Debug)]
pub(crate) struct Jail {
    root: PathBuf,
    /// Its number, which is that of its group too.
    user: u32,
}

/// Something of the host's that a VMM is to find in its jail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loan<'a> {
    pub(crate) name: &'a VmmPath,
    pub(crate) target: &'a Path,
    pub(crate) rights: Rights,
    pub(crate) whose: Whose,
    pub(crate) filter: Filter,
}

/// Which system calls the VMM can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Those that Firecracker's own filter lets through, which change no mode, owner or name of a file.
    Firecrackers,
    /// Perhaps all of them.
    Unknown,
}

/// Whose a file is that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The VM's, so it may be given to its user.
    Own,
    /// The operator's, who finds it as it was.
    Operators,
}

/// What was lent.
#[derive(Debug)]
pub(crate) enum Lent {
    /// A device, which is there.
    Device,
    /// A mount, which is yet to be made in the VMM's mount namespace.
    Mount(Mount),
}

/// A mount for a jail.
#[derive(Debug)]
pub(crate) struct Mount {
    tree: Tree,
    name: PathBuf,
    rights: Rights,
}

/// Why something could not be lent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LendError {
    /// It cannot be opened.
    #[error("cannot lend {} to a jailed VMM", path.display())]
    Target {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is nothing that can be lent.
    #[error("cannot lend {} to a jailed VMM: it is a directory; name a file, a device or a socket", path.display())]
    Directory {
        /// What.
        path: PathBuf,
    },
    /// Its owner may not do that either.
    #[error(
        "cannot lend {} to a jailed VMM: not even its owner may {}; change its mode", path.display(),
        if *.rights == Rights::Read { "read it" } else { "read and write it" }
    )]
    Mode {
        /// What.
        path: PathBuf,
        /// What is wanted.
        rights: Rights,
    },
    /// Its owner may do more with it than a VMM should.
    #[error(
        "cannot lend {} to user {user}, as whom the VMM runs, for writing: \"arguments\" in \"mvm\" switch Firecracker's seccomp \
         filter off or replace it, and a VMM without that filter could make a program of the file that runs as its owner. \
         Give the file to that user (\"uid\" in \"mvm\".\"jail\" chooses the number), have the VM use a copy (\"disks\" in \
         \"mvm\"), or leave the filter on", path.display()
    )]
    Unfiltered {
        /// What.
        path: PathBuf,
        /// To whom.
        user: u32,
    },
    /// It cannot be shown as another one's.
    #[error(
        "cannot lend {} to user {user}, as whom the VMM runs: that user may not open it, and this file system or kernel \
         cannot show it as that user's (an idmapped mount, Linux 5.12). Give the file to that user (\"uid\" in \
         \"mvm\".\"jail\" chooses the number), or have the VM use a copy", path.display()
    )]
    Mapping {
        /// What.
        path: PathBuf,
        /// To whom.
        user: u32,
        /// Why not.
        source: io::Error,
    },
    /// The place in the jail.
    #[error("cannot make {name} in the jail")]
    Place {
        /// The name.
        name: VmmPath,
        /// Why not.
        source: io::Error,
    },
}

/// Where snapshots are written, in a jail; and the same as the jailed VMM's root has it.
const SAVED: &str = "saved";
pub(crate) const SAVED_IN_ROOT: &CStr = c"/saved";

impl Jail {
    pub(crate) fn new(root: PathBuf, user: u32) -> Self {
        Self { root, user }
    }

    pub(crate) fn user(&self) -> u32 {
        self.user
    }

    /// Makes the root directory anew. One that was used is removed, with whatever its VMM has put there.
    pub(crate) fn make(&self, deadline: Deadline) -> io::Result<()> {
        removal::remove_all(&self.root, deadline)?;
        let mut new = DirBuilder::new();
        new.mode(0o700).create(&self.root)?;
        new.create(self.root.join(SAVED))
    }

    /// Makes the root directory if it is not there: an owner that made it anew may have been killed in between.
    pub(crate) fn make_if_gone(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Makes an empty file of the VMM's. To be called before the VMM is there.
    pub(crate) fn give_file(&self, name: &str) -> io::Result<()> {
        let path = self.root.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.give(name)
    }

    /// Gives what stands there to the VMM. To be called before the VMM is there.
    pub(crate) fn give(&self, name: &str) -> io::Result<()> {
        lchown(self.root.join(name), Some(self.user), Some(self.user))
    }

    /// Lends something. A mount is made by whoever starts the VMM, or visits it.
    ///
    /// # Errors
    /// What cannot be lent, and what to do about it.
    pub(crate) fn lend(&self, loan: &Loan<'_>) -> Result<Lent, LendError> {
        let failed = |source| LendError::Target { path: loan.target.to_path_buf(), source };
        let file = file::open_path(loan.target).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let kind = about.file_type();
        if kind.is_dir() {
            return Err(LendError::Directory { path: loan.target.to_path_buf() });
        }
        let misplaced = |source| LendError::Place { name: loan.name.clone(), source };
        let (parent, name) = self.place_of(loan.name).map_err(misplaced)?;
        if kind.is_block_device() || kind.is_char_device() {
            return self
                .make_node(&parent, &name, &about, loan.rights)
                .map(|()| Lent::Device)
                .map_err(misplaced);
        }
        self.make_placeholder(&parent, &name).map_err(misplaced)?;
        let tree = self.tree_of(&file, &about, loan)?;
        Ok(Lent::Mount(Mount { tree, name: loan.name.as_path().to_path_buf(), rights: loan.rights }))
    }

    /// Lends a directory of the library's, for the VMM to write snapshots to; what it writes is its user's until
    /// [`Jail::take_back`].
    pub(crate) fn lend_directory(&self, directory: &Path) -> io::Result<Mount> {
        let held = Directory::open(directory)?;
        let tree = Tree::of(held.as_fd())?;
        chown(directory, Some(self.user), Some(self.user))?;
        Ok(Mount { tree, name: SAVED.into(), rights: Rights::Write })
    }

    /// What the VMM calls a file in the directory that was lent to it.
    pub(crate) fn saved(file: &Path) -> PathBuf {
        Path::new(SAVED).join(file.file_name().unwrap_or_default())
    }

    /// Makes what the VMM has written to `directory` the library's own: plain files that have no other name. Of those that are
    /// called `expected` each may be there, and nothing else. The mount is gone already.
    pub(crate) fn take_back(directory: &Path, expected: &[&OsStr]) -> io::Result<()> {
        let (user, group) = (user::effective_user(), user::effective_group());
        let held = Directory::open(directory)?;
        fchown(&held, Some(user), Some(group))?;
        let mut names = Names::new();
        loop {
            let some = names.next_of(&held)?;
            if some.is_empty() {
                return Ok(());
            }
            some.iter().try_for_each(|(name, _)| take_back_file(&held, name, expected))?;
        }
    }

    /// The mount that shows `file` as it is to be lent.
    fn tree_of(&self, file: &File, about: &Metadata, loan: &Loan<'_>) -> Result<Tree, LendError> {
        let failed = |source| LendError::Target { path: loan.target.to_path_buf(), source };
        if may(about, self.user, loan.rights) {
            return Tree::of(file.as_fd()).map_err(failed);
        }
        if loan.whose == Whose::Own {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            chown(path, Some(self.user), Some(self.user)).map_err(failed)?;
            return Tree::of(file.as_fd()).map_err(failed);
        }
        if !may(about, about.uid(), loan.rights) {
            return Err(LendError::Mode { path: loan.target.to_path_buf(), rights: loan.rights });
        }
        // Whoever is shown as the owner of a file may change its mode: for that of a program that runs as its owner, too.
        if loan.rights != Rights::Read && loan.filter == Filter::Unknown {
            return Err(LendError::Unfiltered { path: loan.target.to_path_buf(), user: self.user });
        }
        let tree = Tree::of(file.as_fd()).map_err(failed)?;
        let mapping = |on_disk| TakenFor { on_disk, shown: self.user };
        let shown = UserNamespace::mapping(mapping(about.uid()), mapping(about.gid()))
            .and_then(|namespace| tree.show_owner(&namespace));
        shown.map_err(|source| {
            let path = loan.target.to_path_buf();
            LendError::Mapping { path, user: self.user, source }
        })?;
        Ok(tree)
    }

    /// The directory and the name of one of our names. A VMM may have put a link where its directory was: none is
    /// followed.
    fn place_of(&self, name: &VmmPath) -> io::Result<(Directory, OsString)> {
        let not_a_name = || io::Error::from(io::ErrorKind::InvalidInput);
        let path = name.as_path();
        let (parent, file) = path.parent().zip(path.file_name()).ok_or_else(not_a_name)?;
        let root = Directory::open(&self.root)?;
        if let Some(group) = parent.file_name() {
            match root.make_directory(group) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    // Its user is to go through it, and not to change it.
                    root.let_pass(group)?;
                }
            }
        }
        Ok((root.open_below(parent)?, file.to_os_string()))
    }

    /// What stands there is no directory of ours.
    fn make_placeholder(&self, parent: &Directory, name: &OsStr) -> io::Result<()> {
        remove_former(parent, name)?;
        parent.open_file(name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL).map(drop)
    }

    fn make_node(
        &self,
        parent: &Directory,
        name: &OsStr,
        device: &Metadata,
        rights: Rights,
    ) -> io::Result<()> {
        remove_former(parent, name)?;
        // The VMM's user is not its owner, who could change its mode.
        let mode = if rights == Rights::Read { 0o040 } else { 0o060 };
        parent.make_node(name, device, (self.user, mode))
    }
}

fn take_back_file(held: &Directory, name: &OsStr, expected: &[&OsStr]) -> io::Result<()> {
    let wrong = |what| Err(io::Error::other(format!("the VMM has left {name:?} there, {what}")));
    if !expected.contains(&name) {
        return wrong("for which nobody has asked");
    }
    let file = held.open_file(name, libc::O_RDONLY)?;
    if file.metadata()?.nlink() != 1 {
        return wrong("which has another name too");
    }
    fchown(&file, Some(user::effective_user()), Some(user::effective_group()))?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn remove_former(parent: &Directory, name: &OsStr) -> io::Result<()> {
    match parent.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Mount {
    /// The same, to be made below `root`.
    pub(crate) fn below(self, root: &Path) -> io::Result<Graft> {
        let at = file::c_path(&root.join(&self.name))?;
        Ok(Graft { tree: self.tree, at, rights: self.rights })
    }
}

/// Whether `user`, who is in the group of the same number alone, may do that, as far as the mode says.
fn may(about: &Metadata, user: u32, rights: Rights) -> bool {
    let wanted = if rights == Rights::Read { 0o4 } else { 0o6 };
    let shift = match () {
        () if about.uid() == user => 6,
        () if about.gid() == user => 3,
        () => 0,
    };
    (about.mode() >> shift) & wanted == wanted
}
