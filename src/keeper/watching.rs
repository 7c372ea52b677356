//! Which VMs' files are written to: told by inotify, or looked for every so often where the kernel has no watch left.

use crate::journal::{self, VMS, owner};
use crate::sorted::SortedMap;
use crate::sys::deadline::Deadline;
use crate::sys::inotify::{Happened, Happening, Inotify, Watch};
use crate::sys::poll::Interest;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is watched.
pub(super) struct Watching {
    inotify: Option<Inotify>,
    vms: SortedMap<Watch, PathBuf>,
    /// The same directories.
    known: SortedMap<PathBuf, ()>,
    /// Something is not watched, so all has to be looked at.
    has_gaps: bool,
}

/// What is to be looked at.
pub(super) enum Written {
    /// These VMs' directories.
    Known(Vec<PathBuf>),
    /// These, and those that are new.
    KnownAndNew(Vec<PathBuf>),
    /// All of them.
    All,
}

/// What a directory is that is to be watched.
pub(super) enum Watched {
    /// One that is watched.
    Known,
    /// One that was not.
    New,
    /// One that was, by this name, which may be another one's now.
    Renamed(PathBuf),
}

/// Between two looks at everything, where something is not watched.
const PACE: Duration = Duration::from_millis(250);

impl Watching {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        let (vms, known) = (SortedMap::new(), SortedMap::new());
        Self { inotify: Inotify::new().ok(), vms, known, has_gaps: false }
    }

    /// Watches for VMs that come into the state directory `directory`, and for its owner to change. A directory that
    /// was removed and made anew has lost its watch, so this may be done again.
    pub(super) fn watch_for_arrivals(&mut self, directory: &Path) {
        let watched = self.inotify.as_ref().is_some_and(|inotify| {
            inotify.watch(&directory.join(VMS), Happening::Arrival).is_ok()
                && inotify.watch(&owner::lock_file(directory), Happening::Writing).is_ok()
        });
        self.has_gaps |= !watched;
    }

    /// Watches the directory of a VM.
    pub(super) fn watch(&mut self, vm: &Path) -> Watched {
        if self.known.contains_key(vm) {
            return Watched::Known;
        }
        // What the library keeps of it, and what its VMM writes.
        let both = self.inotify.as_ref().map(|inotify| {
            let own = inotify.watch(vm, Happening::Writing)?;
            Ok::<_, io::Error>([inotify.watch(&journal::vmm_directory(vm), Happening::Writing)?, own])
        });
        match both {
            Some(Ok(both)) => {
                self.known.insert(vm.to_path_buf(), ());
                let former = both.map(|watch| self.vms.insert(watch, vm.to_path_buf()));
                if let Some(former) = former.into_iter().flatten().find(|former| former != vm) {
                    self.known.remove(&former);
                    return Watched::Renamed(former);
                }
            }
            // Gone again since it was listed.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            _ => self.has_gaps = true,
        }
        Watched::New
    }

    /// Readable when something was written.
    pub(super) fn interest(&self) -> Interest<'_> {
        self.inotify.as_ref().map_or(Interest::Nothing, |inotify| Interest::Readable(inotify.as_fd()))
    }

    /// When to look at everything without being told.
    pub(super) fn look_again(&self) -> Deadline {
        if self.has_gaps { Deadline::after(PACE) } else { Deadline::NEVER }
    }

    /// What was written to since the last look.
    pub(super) fn written(&mut self) -> io::Result<Written> {
        let (mut written, mut is_new) = (Vec::new(), false);
        for happened in self.inotify.as_ref().map_or(Ok(Vec::new()), Inotify::happenings)? {
            match happened {
                Happened::MoreThanWasKept => return Ok(Written::All),
                Happened::At(watch) => match self.vms.get(&watch) {
                    Some(path) => written.push(path.clone()),
                    None => is_new = true,
                },
                Happened::Gone(watch) => {
                    if let Some(path) = self.vms.remove(&watch) {
                        self.known.remove(&path);
                    }
                }
            }
        }
        Ok(if is_new { Written::KnownAndNew(written) } else { Written::Known(written) })
    }
}
