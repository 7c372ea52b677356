//! Memory for one restored VM: its page faults are served from the files of a snapshot (userfaultfd).
//!
//! A pager serves one VM, so that tenants share nothing and one that fails takes one VM with it; which it does: a guest
//! that waits for ever for a page is worse than one that has ended. It runs as a program, `mvm-keeper pager`, that
//! outlives its owner, or as threads of the owner. All that it needs to know stands in the VM's directory.

mod ahead;
mod error;
mod figures;
mod handle;
mod handshake;
mod image;
mod life;
mod pages;
mod server;
mod window;
mod working_set;

pub use error::PagerError;
pub use figures::{Figures, State};
pub use handle::{PagerHandle, PagerHandleError, bind, last_words, store_working_set};
pub use handshake::Senseless;
pub use life::serve;

use crate::journal;
use crate::json::words;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a pager is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Memory files, the base first: of those that have data at a page the last one counts, and a page that is a hole
    /// in all of them is zeros. They must not change as long as the VM runs.
    pub layers: Vec<PathBuf>,
    /// The size of the guest's memory, which each of the files has.
    pub bytes: u64,
    /// How many threads serve faults.
    pub workers: usize,
    /// How much may be put in place around a fault, at most; 0 for nothing but the page.
    pub fault_around_bytes: u64,
    /// What is put in place before it is asked for.
    pub ahead: Ahead,
    /// Whether it is recorded what the guest touches first; not where a working set is replayed.
    pub record: Option<Recording>,
    /// The file of the working set, to be replayed or to be written.
    pub working_set: Option<PathBuf>,
    /// Whether the VMM may give memory back while it runs.
    pub removals: Removals,
}

/// What is put in place before it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing: memory comes on demand.
    Nothing,
    /// What the working set names.
    WorkingSet,
    /// That first, where there is one, and then all the rest.
    Everything,
}

words!(Ahead { Nothing: "nothing", WorkingSet: "working_set", Everything: "everything" });

/// How much of a working set is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// At most this many bytes.
    pub limit_bytes: u64,
    /// For this long after the VMM has come.
    pub for_ms: u64,
}

/// Whether a VMM may give memory back, as it does for a balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removals {
    /// It may: copies and removals keep out of each other's way, for a lock's price.
    Possible,
    /// It has no device that could.
    Impossible,
}

words!(Removals { Possible: "possible", Impossible: "impossible" });

impl Plan {
    /// Writes it where the pager of the VM of `directory` reads it.
    ///
    /// # Errors
    /// Whatever the file system reports.
    pub fn write(&self, directory: &Path) -> Result<(), journal::Error> {
        journal::write(&plan_file(directory), self)
    }

    /// What is to be recorded. Where a working set is replayed nothing is: what it spares the guest would be missing
    /// from the next one.
    fn recording(&self) -> Option<&Recording> {
        let is_there = self.working_set.as_ref().is_some_and(|path| path.exists());
        self.record.as_ref().filter(|_| self.ahead == Ahead::Nothing || !is_there)
    }

    fn read(directory: &Path) -> Result<Self, PagerError> {
        journal::read(&plan_file(directory)).map_err(PagerError::Plan)
    }
}

/// The file of a [`Plan`] in a VM's directory.
pub(crate) fn plan_file(directory: &Path) -> PathBuf {
    directory.join("pager.json")
}

/// The socket that the VMM connects to, in its working directory.
pub fn socket_file(directory: &Path) -> PathBuf {
    journal::vmm_directory(directory).join(SOCKET)
}

/// What the VMM calls its pager's socket.
pub(crate) const SOCKET: &str = "pager.sock";

/// What a pager that is a program has to say.
pub fn log_file(directory: &Path) -> PathBuf {
    directory.join("pager.log")
}

/// All files of a pager in a VM's directory, whether they are there or not.
pub(crate) fn files(directory: &Path) -> [PathBuf; 4] {
    [plan_file(directory), socket_file(directory), log_file(directory), figures::stat_file(directory)]
}
