//! The pagers of running VMs: a VM whose pager is gone would stand still at its next page fault, and is ended.

use crate::journal::Record;
use crate::process::{Identity, Process};
use crate::sorted::SortedMap;
use crate::sys::epoll::{Epoll, Heard};
use crate::sys::poll::Interest;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The pagers that were seen, as long as they live, by the directories of their VMs.
pub(super) struct Pagers {
    living: SortedMap<PathBuf, (Identity, Process)>,
    ends: Epoll,
}

impl Pagers {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { living: SortedMap::new(), ends: Epoll::new()? })
    }

    /// Looks at the VM in `directory`; gives its pager if that is gone.
    pub(super) fn note(&mut self, directory: &Path, record: &Record) -> io::Result<Option<Identity>> {
        let Some(identity) = pager_of(record) else { return Ok(None) };
        if self.living.get(directory).is_some_and(|(known, _)| *known == identity) {
            return Ok(None);
        }
        let Some(process) = Process::find(identity).map_err(io::Error::other)? else {
            return Ok(Some(identity));
        };
        self.ends.watch(process.pidfd(), 0, Heard::Always)?;
        self.living.insert(directory.to_path_buf(), (identity, process));
        Ok(None)
    }

    /// Those that have ended since the last look, and the directories in which they served.
    pub(super) fn gone(&mut self) -> Vec<(PathBuf, Identity)> {
        let gone = self.living.keep(|(_, process)| matches!(process.exit_status(), Ok(None)));
        gone.into_iter().map(|(directory, (identity, _))| (directory, identity)).collect()
    }

    /// Readable when one has ended.
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest::Readable(self.ends.as_fd())
    }
}

/// Who serves the page faults of a VM, as its journal says.
pub(super) fn pager_of(record: &Record) -> Option<Identity> {
    record.vmm.as_ref()?.pager.as_ref()?.process
}
