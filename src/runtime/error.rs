//! What can go wrong with a runtime.

use crate::settings;
use crate::vm::{self, IdError, VmId};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a runtime did not do what was wanted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The options.
    #[error("cannot open the runtime: its options are not usable")]
    Options(#[source] settings::Error),
    /// The state directory.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another runtime owns the state directory.
    #[error(
        "the state directory {} belongs to another runtime{}: close that one, or use another directory",
        path.display(), owner.map(|pid| format!(", of process {pid}")).unwrap_or_default()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
        /// The process that has it open, where it says so.
        owner: Option<u32>,
    },
    /// The id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// There is a VM of this name.
    #[error("cannot create VM {id}: there is one")]
    AlreadyExists {
        /// Its id.
        id: VmId,
    },
    /// There is no VM of this name.
    #[error("there is no VM {id}")]
    NotFound {
        /// The id.
        id: VmId,
    },
    /// The runtime was closed meanwhile.
    #[error("the runtime was closed")]
    Closed,
    /// The VM.
    #[error(transparent)]
    Vm(#[from] vm::Error),
}
