//! Removing a directory with all that is in it, however deep, wide or hostile it is: with four descriptors and a small
//! stack, within a time.
//!
//! What lies deep is moved up before it is emptied, so no path has to be walked back. No link is followed, and no mount
//! point is entered.

use super::deadline::Deadline;
use super::directory::{Directory, Kind, Names};
use super::random;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Removes what stands at `path`, which may be nothing; a link is removed itself. What can be removed is removed, also
/// after something could not be.
///
/// # Errors
/// `TimedOut` when the time is up: what is left can be removed by another call. Otherwise the first thing that could not
/// be done.
pub fn remove_all(path: &Path, deadline: Deadline) -> io::Result<()> {
    let opened = match Directory::open(path) {
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) if is_no_directory(&error) => return gone(std::fs::remove_file(path)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_closed(path).map_err(|_| error),
        opened => opened,
    };
    let emptied = opened.and_then(|directory| empty(&directory, None, deadline));
    emptied.and_then(|()| gone(std::fs::remove_dir(path)))
}

/// Removes what is in `directory`, except what is called `kept`.
///
/// # Errors
/// As of [`remove_all`].
pub fn empty(directory: &Directory, kept: Option<&OsStr>, deadline: Deadline) -> io::Result<()> {
    directory.make_usable().or_else(|error| match error.raw_os_error() {
        // A directory of somebody else's may be usable all the same.
        Some(libc::EPERM | libc::EROFS) => Ok(()),
        _ => Err(error),
    })?;
    let mut removal = Removal {
        root: directory,
        names: Names::new(),
        moved: Moved { token: random::name()?, count: 0 },
        deadline,
    };
    loop {
        match removal.pass(kept)? {
            Pass { left: None, .. } => return Ok(()),
            Pass { left: Some(problem), progress: false } => return Err(problem),
            Pass { .. } => {}
        }
    }
}

/// A removal that is under way.
struct Removal<'a> {
    /// What is to be empty in the end.
    root: &'a Directory,
    names: Names,
    moved: Moved,
    deadline: Deadline,
}

/// The names that are given to what is moved up.
struct Moved {
    token: String,
    count: u64,
}

/// What came of looking at each name once.
#[derive(Default)]
struct Pass {
    /// Something is left: because it could not be removed, or was only moved up.
    left: Option<io::Error>,
    /// Something was removed or moved.
    progress: bool,
}

impl Pass {
    fn note(&mut self, removed: io::Result<()>) {
        match removed {
            Ok(()) => self.progress = true,
            Err(error) if is_gone(&error) => {}
            Err(error) => drop(self.left.get_or_insert(error)),
        }
    }
}

impl Removal<'_> {
    /// Removes each name in the root, or what is in it.
    fn pass(&mut self, kept: Option<&OsStr>) -> io::Result<Pass> {
        let mut pass = Pass::default();
        self.root.rewind()?;
        loop {
            let names = self.names.next_of(self.root)?;
            if names.is_empty() {
                return Ok(pass);
            }
            for (name, kind) in names.iter().filter(|(name, _)| Some(name.as_os_str()) != kept) {
                self.look_at_time()?;
                match remove_leaf(self.root, name, *kind) {
                    Err(error) if is_not_empty(&error) => {
                        let emptied = self.descend(name, &mut pass);
                        pass.note(emptied.and_then(|()| self.root.remove_directory(name)));
                    }
                    removed => pass.note(removed),
                }
            }
        }
    }

    /// Empties the directory called `name` in the root: what is not empty in it is moved up, into the root. Where that
    /// cannot be done, as with what came with a lower layer of overlayfs, it goes down instead, and another pass begins
    /// from the root.
    fn descend(&mut self, name: &OsStr, pass: &mut Pass) -> io::Result<()> {
        let mut below = open_usable(self.root, name)?;
        let mut above: Option<(Directory, OsString)> = None;
        loop {
            match self.empty_or_go_down(&below, pass)? {
                None => break,
                Some((name, next)) => {
                    above = Some((std::mem::replace(&mut below, next), name));
                }
            }
        }
        if let Some((parent, name)) = above {
            pass.note(parent.remove_directory(&name));
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        Ok(())
    }

    /// Gives the first directory in `directory` that can be neither removed nor moved up.
    fn empty_or_go_down(
        &mut self,
        directory: &Directory,
        pass: &mut Pass,
    ) -> io::Result<Option<(OsString, Directory)>> {
        loop {
            let names = self.names.next_of(directory)?;
            if names.is_empty() {
                return Ok(None);
            }
            for (name, kind) in names {
                self.look_at_time()?;
                let removed = match remove_leaf(directory, &name, kind) {
                    Err(error) if is_not_empty(&error) => self.move_up(directory, &name, pass),
                    removed => removed,
                };
                match removed {
                    Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                        match open_usable(directory, &name) {
                            Ok(next) => return Ok(Some((name, next))),
                            Err(error) => pass.note(Err(error)),
                        }
                    }
                    removed => pass.note(removed),
                }
            }
        }
    }

    /// What was moved up is still there.
    fn move_up(&mut self, directory: &Directory, name: &OsStr, pass: &mut Pass) -> io::Result<()> {
        let new = self.moved.next();
        match directory.rename(name, self.root, &new) {
            // To be moved, a directory is written to.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                directory.make_child_usable(name)?;
                directory.rename(name, self.root, &new)
            }
            renamed => renamed,
        }?;
        pass.left.get_or_insert(io::ErrorKind::DirectoryNotEmpty.into());
        Ok(())
    }

    fn look_at_time(&self) -> io::Result<()> {
        if self.deadline.has_passed() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Moved {
    fn next(&mut self) -> OsString {
        self.count += 1;
        format!(".{}-{}", self.token, self.count).into()
    }
}

/// The directory at `path`, which its owner may not enter so far.
fn open_closed(path: &Path) -> io::Result<Directory> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Directory::open(parent)?.make_child_usable(name)?;
    Directory::open(path)
}

/// Opens a directory in which something is to be removed.
fn open_usable(directory: &Directory, name: &OsStr) -> io::Result<Directory> {
    let opened = match directory.open_directory(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            directory.make_child_usable(name)?;
            directory.open_directory(name)?
        }
        opened => opened?,
    };
    // Without that, what is in it says why it cannot be removed.
    let _tried = opened.make_usable();
    Ok(opened)
}

/// Removes anything but a directory that is not empty.
fn remove_leaf(directory: &Directory, name: &OsStr, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Directory => directory.remove_directory(name),
        Kind::Other => directory.remove_file(name),
        Kind::Unknown => match directory.remove_directory(name) {
            Err(error) if is_no_directory(&error) => directory.remove_file(name),
            removed => removed,
        },
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP))
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST))
}

#[cfg(test)]
mod tests;
