//! Files as the host names them and as a VMM does, and the one view that translates between the two.
//!
//! A plain path is the host's. What a VMM is told, and what it tells, is a [`VmmPath`], of which no file can be opened before a
//! view has said where it is. A snapshot holds such paths and no others: whoever restores it puts under the same name what
//! it is to find there.

use crate::sys::directory::Directory;
use crate::sys::file;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// A path as a VMM names it: relative to its working directory, or absolute in what it takes for its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmmPath(PathBuf);

/// The files of one VMM, as the host sees them: a directory of links and files under the VMM's names.
#[derive(Clone, Debug)]
pub(crate) struct View {
    names: PathBuf,
    root: Root,
}

/// What a VMM takes for its root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// The host's: its absolute paths are the host's.
    OfTheHost,
    /// A jail, in which it finds what it was lent and nothing else.
    Jail,
}

/// Another file under a name that a VMM knows already: to be kept when the VMM has taken it, or else taken back.
#[derive(Debug)]
#[must_use = "it is kept or taken back"]
pub(crate) struct Replaced {
    place: Place,
    former: Former,
}

/// A name in a directory that is held.
#[derive(Debug)]
struct Place {
    _parent: Directory,
    path: PathBuf,
}

#[derive(Debug)]
enum Former {
    /// The name leads where it did.
    Same,
    /// Nothing was there.
    Nothing,
    /// It stands here.
    Aside(PathBuf),
}

impl VmmPath {
    /// The path that a VMM names so.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// As it stands in a request.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Another name for another file of the same device.
    pub(crate) fn numbered(mut self, number: usize) -> Self {
        self.0.as_mut_os_string().push(format!(".{number}"));
        self
    }

    /// Whether it is a name in the VMM's working directory, which the library gives out.
    pub(crate) fn is_ours(&self) -> bool {
        self.0.is_relative()
    }

    /// Whether it leads nowhere but below the directory that it is relative to.
    pub(crate) fn stays_below(&self) -> bool {
        self.0.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    }
}

impl fmt::Display for VmmPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl View {
    /// The view of a VMM that works in the directory `names`, in the host's root.
    pub(crate) fn plain(names: &Path) -> Self {
        Self { names: names.to_path_buf(), root: Root::OfTheHost }
    }

    /// The view of a VMM in a jail, of whose files the host has a directory for itself: `names`.
    pub(crate) fn jailed(names: &Path) -> Self {
        Self { names: names.to_path_buf(), root: Root::Jail }
    }

    /// Where the host has what the VMM calls `name`; a link stays a link. A VMM in a jail may say what it likes: nothing
    /// that it names is outside of what it was lent.
    pub(crate) fn on_host(&self, name: &VmmPath) -> PathBuf {
        match self.root {
            Root::OfTheHost => self.names.join(&name.0),
            Root::Jail => {
                let parts = name.0.components().filter(|part| matches!(part, Component::Normal(_)));
                self.names.join(parts.collect::<PathBuf>())
            }
        }
    }

    /// All that the VMM was lent: its names, of which each stands in a directory.
    pub(crate) fn all(&self) -> io::Result<Vec<VmmPath>> {
        let mut found = Vec::new();
        for group in names_in_there(&self.names)? {
            let group = PathBuf::from(group);
            let names = file::names_in(&self.names.join(&group))?;
            found.extend(names.into_iter().map(|name| VmmPath(group.join(name))));
        }
        Ok(found)
    }

    /// Whether `name` stands for a file of the VM's own.
    pub(crate) fn is_own(&self, name: &VmmPath) -> bool {
        self.on_host(name).symlink_metadata().is_ok_and(|about| about.is_file())
    }

    /// The file of the host that the VMM opens as `name`: where links lead.
    pub(crate) fn target_of(&self, name: &VmmPath) -> PathBuf {
        let place = self.on_host(name);
        std::fs::canonicalize(&place).unwrap_or(place)
    }

    /// Lets the VMM find `target` as `name`, which is new.
    pub(crate) fn expose(&self, target: &Path, name: &VmmPath) -> io::Result<()> {
        symlink(target, self.place_of(name)?.path)
    }

    /// Has the VMM find nothing as `name` any more.
    pub(crate) fn conceal(&self, name: &VmmPath) {
        let _gone = self.place_of(name).and_then(|place| std::fs::remove_file(place.path));
    }

    /// Lets the VMM find `target` as `name` from the next time on that it opens it.
    pub(crate) fn replace(&self, target: &Path, name: &VmmPath) -> io::Result<Replaced> {
        std::fs::metadata(target)?;
        let place = self.place_of(name)?;
        // A file that has grown may be the VM's own, to which no link is to lead.
        if is_same_file(target, &place.path) {
            return Ok(Replaced { place, former: Former::Same });
        }
        let aside = beside(&place.path);
        let _left_by_a_former_owner = std::fs::remove_file(&aside);
        symlink(target, &aside)?;
        file::exchange_or_rename(&aside, &place.path)?;
        let former = if aside.symlink_metadata().is_ok() { Former::Aside(aside) } else { Former::Nothing };
        Ok(Replaced { place, former })
    }

    /// The place of one of our names. A VMM may put a link where its directory was: none is followed.
    fn place_of(&self, name: &VmmPath) -> io::Result<Place> {
        let not_a_name = || io::Error::from(io::ErrorKind::InvalidInput);
        let (parent, file) = name.0.parent().zip(name.0.file_name()).ok_or_else(not_a_name)?;
        let working = Directory::open(&self.names)?;
        if let Some(Component::Normal(child)) = parent.components().next() {
            match working.make_directory(child) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let parent = working.open_below(parent)?;
        let path = parent.place_of(file);
        Ok(Place { _parent: parent, path })
    }
}

impl Replaced {
    /// The VMM has taken it.
    pub(crate) fn keep(self) {
        if let Former::Aside(aside) = self.former {
            let _gone = std::fs::remove_file(aside);
        }
    }

    /// The VMM has refused it.
    pub(crate) fn take_back(self) {
        let taken_back = match self.former {
            Former::Same => Ok(()),
            Former::Nothing => std::fs::remove_file(&self.place.path),
            Former::Aside(aside) => std::fs::rename(aside, &self.place.path),
        };
        taken_back
            .unwrap_or_else(|error| log::warn!("cannot put {} back: {error}", self.place.path.display()));
    }
}

/// Nothing when the directory is not there.
fn names_in_there(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match file::names_in(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Where a new link is made before it takes its place.
fn beside(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.new"))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let which = |path: &Path| std::fs::metadata(path).ok().as_ref().map(file::identity);
    which(one).is_some_and(|one| which(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn directory() -> Scratch {
        let scratch = Scratch::new();
        std::fs::create_dir(&scratch).unwrap();
        scratch
    }

    #[test]
    fn a_file_is_found_by_the_vmm_s_name_until_it_is_concealed() {
        let scratch = directory();
        let (view, name) = (View::plain(&scratch), VmmPath::new("drives/data"));
        let disk = scratch.join("disk");
        std::fs::write(&disk, "disk").unwrap();
        view.expose(&disk, &name).unwrap();
        assert_eq!(view.target_of(&name), std::fs::canonicalize(&disk).unwrap());
        view.conceal(&name);
        assert!(view.on_host(&name).symlink_metadata().is_err());
    }

    #[test]
    fn what_was_replaced_is_kept_or_taken_back() {
        let scratch = directory();
        let (view, name) = (View::plain(&scratch), VmmPath::new("drives/data"));
        let [one, two] = ["one", "two"].map(|disk| scratch.join(disk));
        [&one, &two].into_iter().for_each(|disk| std::fs::write(disk, "disk").unwrap());
        let leads_to = |disk: &Path| view.target_of(&name) == std::fs::canonicalize(disk).unwrap();
        view.replace(&one, &name).unwrap().take_back();
        assert!(view.on_host(&name).symlink_metadata().is_err());
        view.replace(&one, &name).unwrap().keep();
        view.replace(&two, &name).unwrap().take_back();
        assert!(leads_to(&one));
        view.replace(&two, &name).unwrap().keep();
        assert!(leads_to(&two));
        assert_eq!(std::fs::read_dir(scratch.join("drives")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_the_vm_s_own_is_not_replaced_by_a_link_to_itself() {
        let scratch = directory();
        let (view, name) = (View::plain(&scratch), VmmPath::new("data"));
        std::fs::write(view.on_host(&name), "own").unwrap();
        view.replace(&view.on_host(&name), &name).unwrap().keep();
        assert!(view.on_host(&name).symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn no_link_that_a_vmm_has_planted_is_followed() {
        let scratch = directory();
        let (view, name) = (View::plain(&scratch), VmmPath::new("drives/data"));
        let [disk, elsewhere] = ["disk", "elsewhere"].map(|name| scratch.join(name));
        std::fs::write(&disk, "disk").unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("data"), "precious").unwrap();
        symlink(&elsewhere, scratch.join("drives")).unwrap();
        assert!(view.expose(&disk, &name).is_err() && view.replace(&disk, &name).is_err());
        view.conceal(&name);
        assert_eq!(std::fs::read_to_string(elsewhere.join("data")).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    }
}
