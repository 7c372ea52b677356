//! The pagers of running VMs: a VM whose pager is gone would stand still at its next page fault, and is ended.

use crate::journal::{PagerRecord, Record};
use crate::process::{Identity, Process};
use crate::sys::epoll::{Epoll, Heard};
use crate::sys::poll::Interest;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The pagers that were seen, as long as they live, by the directories of their VMs.
pub(super) struct Pagers {
    living: BTreeMap<PathBuf, (Identity, Process)>,
    ends: Epoll,
}

impl Pagers {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { living: BTreeMap::new(), ends: Epoll::new()? })
    }

    /// Looks at the VM in `directory`; says whether it has a pager that is gone.
    pub(super) fn note(&mut self, directory: &Path, record: &Record) -> io::Result<bool> {
        let pager = record.vmm.as_ref().and_then(|vmm| vmm.pager.as_ref());
        let Some(PagerRecord { process: Some(identity) }) = pager else { return Ok(false) };
        if self.living.get(directory).is_some_and(|(known, _)| known == identity) {
            return Ok(false);
        }
        let Some(process) = Process::find(*identity).map_err(io::Error::other)? else { return Ok(true) };
        self.ends.watch(process.pidfd(), 0, Heard::Always)?;
        self.living.insert(directory.to_path_buf(), (*identity, process));
        Ok(false)
    }

    /// The directories of VMs whose pagers have ended since the last look.
    pub(super) fn gone(&mut self) -> Vec<PathBuf> {
        let has_ended = |process: &Process| !matches!(process.exit_status(), Ok(None));
        let gone = self.living.extract_if(.., |_, (_, process)| has_ended(process));
        gone.map(|(directory, _)| directory).collect()
    }

    /// Readable when one has ended.
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest::Readable(self.ends.as_fd())
    }
}
