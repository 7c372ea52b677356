//! What ends a pager, and with it the VM that it serves.

use super::handshake::Senseless;
use crate::journal;
use crate::process;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a pager could not serve, or go on serving.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PagerError {
    /// What it was to do.
    #[error("cannot tell what memory to serve")]
    Plan(#[source] journal::Error),
    /// A plan that makes no sense.
    #[error("cannot serve memory by a plan in which {what}")]
    Senseless {
        /// What is wrong.
        what: &'static str,
    },
    /// A memory file.
    #[error("cannot read the guest's memory from {}: keep the snapshot's files for as long as a VM runs on them", path.display())]
    Layer {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A memory file of another guest.
    #[error("{} has {has} bytes, and the guest's memory has {wants}: the file belongs to another snapshot, or was cut off", path.display())]
    Size {
        /// Which file.
        path: PathBuf,
        /// Its length.
        has: u64,
        /// The guest's memory.
        wants: u64,
    },
    /// A memory file that has become shorter.
    #[error("{} was cut off: byte {offset}, which the guest needs, is missing; a memory file must not change while a VM runs on it", path.display())]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// What was wanted.
        offset: u64,
    },
    /// What the VMM said at the beginning.
    #[error("cannot understand the VMM's description of its memory: it is not a known VMM")]
    Handshake(#[source] Senseless),
    /// A fault where there is no memory.
    #[error("the VMM asks for a page at {address:#x}, which is outside of its memory")]
    Outside {
        /// Where.
        address: u64,
    },
    /// An event of a kind that was not asked for.
    #[error("the VMM's memory was {what}, which no known VMM does")]
    Unexpected {
        /// What happened to the memory.
        what: &'static str,
    },
    /// The kernel does not take a page.
    #[error("cannot put a page in place at byte {offset} of the guest's memory")]
    Place {
        /// Where in the guest's memory.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// The memory is gone, and the VMM is not.
    #[error("the VMM has no memory any more, but has not ended")]
    Gone,
    /// The process of the VMM, or the owner's.
    #[error("cannot open the process of the VMM, or of the owner")]
    Process(#[source] process::Error),
    /// Anything else that the system refuses.
    #[error("cannot {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl PagerError {
    /// For `map_err`: the system refused to do `what`.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
