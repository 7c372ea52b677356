//! Which VMs' files are written to: told by inotify, or looked for every so often where the kernel has no watch left.

use crate::journal::{VMS, owner};
use crate::sys::deadline::Deadline;
use crate::sys::inotify::{Happening, Inotify, Watch};
use crate::sys::poll::Interest;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directories that are watched.
pub(super) struct Watching {
    inotify: Option<Inotify>,
    vms: BTreeMap<Watch, PathBuf>,
    /// Some directory is not watched, so all have to be looked at.
    has_gaps: bool,
}

/// Between two looks at everything, where something is not watched.
const PACE: Duration = Duration::from_millis(250);

impl Watching {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        Self { inotify: Inotify::new().ok(), vms: BTreeMap::new(), has_gaps: false }
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

    /// Watches the directory of a VM, if that was not done before.
    pub(super) fn watch(&mut self, vm: &Path) {
        self.vms.retain(|_, known| known.exists());
        let watch = self.inotify.as_ref().map(|inotify| inotify.watch(vm, Happening::Writing));
        match watch {
            Some(Ok(watch)) => drop(self.vms.insert(watch, vm.to_path_buf())),
            // Gone again since it was listed.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            _ => self.has_gaps = true,
        }
    }

    /// Readable when something was written.
    pub(super) fn interest(&self) -> Interest<'_> {
        self.inotify.as_ref().map_or(Interest::Nothing, |inotify| Interest::Readable(inotify.as_fd()))
    }

    /// When to look at everything without being told.
    pub(super) fn look_again(&self) -> Deadline {
        if self.has_gaps { Deadline::after(PACE) } else { Deadline::NEVER }
    }

    /// The VMs' directories that were written to; nothing when there is more to see than that.
    pub(super) fn written(&self) -> io::Result<Option<Vec<PathBuf>>> {
        let happenings = self.inotify.as_ref().map_or(Ok(Vec::new()), Inotify::happenings)?;
        let known = |watch: Option<Watch>| watch.and_then(|watch| self.vms.get(&watch)).cloned();
        Ok(happenings.into_iter().map(known).collect())
    }
}
