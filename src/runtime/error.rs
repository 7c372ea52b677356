//! What can go wrong with a runtime.

use crate::keeper::KeeperError;
use crate::process::Identity;
use crate::settings;
use crate::vm::{self, IdError, VmId};
use std::fmt;
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
    /// A VM that is to end with its owner, and nobody to see to that.
    #[error(
        "\"on_owner_exit\": \"kill\" needs the keeper: set \"keeper\" in the runtime's options to the path of mvm-keeper"
    )]
    NoKeeper,
    /// The keeper.
    #[error(transparent)]
    Keeper(KeeperError),
    /// The options of a reaping.
    #[error("cannot reap: the options are not usable")]
    ReapOptions(#[source] settings::Error),
    /// The system.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
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
    #[error("the state directory {} belongs to another runtime{}", path.display(), OwnedBy(*owner))]
    Busy {
        /// The directory.
        path: PathBuf,
        /// The process that has it open, where it says so.
        owner: Option<Identity>,
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

/// Who has a state directory, and what to do about it.
struct OwnedBy(Option<Identity>);

impl fmt::Display for OwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(owner) if owner.is_running() => {
                write!(f, ", of process {}: close that one, or use another directory", owner.pid)
            }
            Some(owner) => write!(
                f,
                ": process {} has opened it and is gone, but a process that it forked still holds the lock; end that",
                owner.pid
            ),
            None => f.write_str(": close that one, or use another directory"),
        }
    }
}
