//! The directory of a VM: it comes whole, with a journal in it, and goes whole.
//!
//! What stands under a VM's id always says what it owns; where it is made and removed, [`aside`] says.

mod layered;

use super::spec::{LINKING, Link};
use super::{VmId, metrics_files};
use crate::firecracker::VmmFiles;
use crate::host::disk::{Finish, Tools};
use crate::host::files::View;
use crate::host::{DiskError, VmmPath, disk};
use crate::journal::{self, aside, journal_file, spec_file};
use crate::pager;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::{file, removal};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the name of an entry beside the VMs' directories says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A VM.
    Vm(VmId),
    /// What is left of an unfinished making or removal of this VM.
    Leftover(VmId),
    /// Nothing of the library's.
    Foreign,
}

impl Entry {
    pub(crate) fn of(name: &OsStr) -> Self {
        if let Some(id) = name.to_str().and_then(|name| VmId::parse(name).ok()) {
            return Self::Vm(id);
        }
        let id = aside::stands_beside(name).and_then(|id| VmId::parse(id).ok());
        id.map_or(Self::Foreign, Self::Leftover)
    }
}

/// Why a directory was not made.
#[derive(Debug)]
pub(super) enum NotMade {
    /// There is one.
    Exists,
    /// The file system.
    Directory(io::Error),
    /// The journal in it.
    Journal(journal::Error),
    /// A disk in it.
    Copy(DiskError),
}

/// Files of the host's that a VM's directory holds under the names by which its VMM knows them.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// By a link.
    pub(super) links: Vec<Link>,
    /// By a copy, which is the VM's own.
    pub(super) copies: Vec<OwnDisk>,
}

/// A disk that is made for one VM.
#[derive(Debug)]
pub(super) struct OwnDisk {
    /// Its name, and the file that it is made from.
    pub(super) link: Link,
    /// In what it differs from that.
    pub(super) finish: Finish,
}

impl Content {
    /// The names.
    pub(super) fn names(&self) -> Vec<VmmPath> {
        let own = self.copies.iter().map(|copy| &copy.link);
        self.links.iter().chain(own).map(|link| link.name.clone()).collect()
    }
}

/// Makes the directory of `files` with `content` and with what `fill` puts into it.
pub(super) fn make(
    files: &VmmFiles,
    content: &Content,
    (tools, limits): (&Tools, Limits<'_>),
    fill: impl FnOnce(&Path) -> Result<(), journal::Error>,
) -> Result<(), NotMade> {
    let directory = files.directory();
    let aside = aside::making_of(directory);
    let made = make_aside(&files.moved_to(aside.clone()), content, (tools, limits))
        .and_then(|()| fill(&aside).map_err(NotMade::Journal))
        .and_then(|()| match file::rename_to_new(&aside, directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(NotMade::Exists),
            renamed => renamed.map_err(NotMade::Directory),
        });
    made.inspect_err(|_| drop(clear(&aside, &content.names(), Deadline::after(PATIENCE))))
}

fn make_aside(
    files: &VmmFiles,
    content: &Content,
    (tools, limits): (&Tools, Limits<'_>),
) -> Result<(), NotMade> {
    let mut new = DirBuilder::new();
    new.mode(0o700);
    let (aside, view) = (files.directory(), files.view());
    let made = clear(aside, &content.names(), limits.deadline).and_then(|()| new.create(aside));
    made.and_then(|()| new.create(files.working_directory())).map_err(NotMade::Directory)?;
    new.recursive(true);
    let place = |link: &Link| {
        let place = view.on_host(&link.name);
        let made = match place.parent().filter(|parent| !parent.exists()) {
            Some(parent) => new.create(parent),
            None => Ok(()),
        };
        made.map(|()| place).map_err(NotMade::Directory)
    };
    for link in &content.links {
        symlink(&link.target, place(link)?).map_err(NotMade::Directory)?;
    }
    for OwnDisk { link, finish } in &content.copies {
        disk::make((&link.target, &place(link)?), finish, tools, limits).map_err(NotMade::Copy)?;
    }
    Ok(())
}

/// How long a removal may take for which no call has set a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Removes `directory` and all that is in it; that it is not there is no error. What cannot be removed in time stays
/// aside, for the next removal of this id and for who opens or reaps the state directory.
pub(crate) fn remove(directory: &Path, names: &[VmmPath], deadline: Deadline) -> io::Result<()> {
    let aside = aside::removal_of(directory);
    clear(&aside, names, deadline)?;
    match fs::rename(directory, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => layered::remove(directory, deadline),
        renamed => match renamed.and_then(|()| clear(&aside, names, deadline)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                log::warn!("{} is large, and the rest of it is removed later", aside.display());
                Ok(())
            }
            removed => removed,
        },
    }
}

/// Lets the directory `from` be called `to`, where nothing may be. `is_in_use` says whether a VMM works in it.
pub(super) fn rename(from: &Path, to: &Path, is_in_use: bool, limits: Limits<'_>) -> io::Result<()> {
    match file::rename_to_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices && is_in_use => Err(io::Error::other(
            "it came with a lower layer of overlayfs, where no directory is renamed that is in use: end the VM first",
        )),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => layered::rename(from, to, limits),
        renamed => renamed,
    }
}

/// Removes what stands at `path`. The files that are known, among them `names`, go by name, because listing a directory takes a
/// descriptor, and a process that has run out of them must be able to clean up after itself.
pub(crate) fn clear(path: &Path, names: &[VmmPath], deadline: Deadline) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A link is removed itself: what it leads to is not ours.
        Ok(about) if !about.is_dir() => return fs::remove_file(path),
        _ => {}
    }
    let files = VmmFiles::new(path.to_path_buf());
    let (working, metrics) = (files.working_directory(), metrics_files(&files).first());
    // A VMM may have put a link where one of them was, and names below it would be another one's.
    let places = LINKING.map(|name| working.join(name));
    let is_link = |place: &Path| place.symlink_metadata().is_ok_and(|about| about.is_symlink());
    if is_link(working) || places.iter().any(|place| is_link(place)) {
        return removal::remove_all(path, deadline);
    }
    for file in [journal_file(path), spec_file(path)]
        .into_iter()
        .chain(files.all())
        .chain(metrics)
        .chain(pager::files(path))
    {
        let _gone_or_told_below = fs::remove_file(file);
    }
    for name in names {
        let _gone_or_told_below = fs::remove_file(View::plain(working).on_host(name));
    }
    for directory in places.iter().map(PathBuf::as_path).chain([working]) {
        let _gone_or_told_below = fs::remove_dir(directory);
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => removal::remove_all(path, deadline),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_an_entry_is() {
        let of = |name: &str| Entry::of(OsStr::new(name));
        let id = VmId::parse("web-1").unwrap();
        assert_eq!(of("web-1"), Entry::Vm(id.clone()));
        assert_eq!((of(".web-1.new"), of(".web-1.gone")), (Entry::Leftover(id.clone()), Entry::Leftover(id)));
        for name in ["", ".", ".new", "..new", ".a_b.gone", ".web-1", "web-1.new", "lost+found", "a b"] {
            assert_eq!(of(name), Entry::Foreign, "{name}");
        }
    }
}
