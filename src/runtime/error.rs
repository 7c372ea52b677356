//! What can go wrong with a runtime.

use super::PlaceholderError;
use crate::journal::StateError;
use crate::keeper::KeeperError;
use crate::operation::Operation;
use crate::process::{self, Identity};
use crate::settings;
use crate::snapshot::{self, SnapshotIdError};
use crate::vm::{self, Conflict, IdError, VmId};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a runtime did not do what was wanted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A VM that is to end with its owner, and nobody to see to that.
    #[error(
        "\"on_owner_exit\": \"kill\" needs the keeper: set \"keeper\" in the runtime's options to the path of mvm-keeper"
    )]
    NoKeeper,
    /// A VM whose page faults are to be served by a process, and nobody to do that.
    #[error(
        "\"memory\": \"pager\" needs the keeper: set \"keeper\" in the runtime's options to the path of mvm-keeper, or \
         \"run_in\": \"thread\" in \"pager\""
    )]
    NoPager,
    /// The keeper.
    #[error(transparent)]
    Keeper(KeeperError),
    /// The control groups of the options.
    #[error(transparent)]
    Cgroup(process::Error),
    /// The options of a call.
    #[error("the options of mvm_{} are not usable", operation.name())]
    Options {
        /// Which call.
        operation: Operation,
        /// What is wrong with them.
        source: settings::Error,
    },
    /// VMs that would use the same file, socket or device.
    #[error("cannot {}", operation.phrase())]
    Shared {
        /// What was wanted.
        operation: Operation,
        /// Which.
        source: Conflict,
    },
    /// What the options say for each VM.
    #[error("the options of mvm_{} are not usable", operation.name())]
    Placeholder {
        /// What was wanted.
        operation: Operation,
        /// What is wrong with them.
        source: PlaceholderError,
    },
    /// A list of clones that is too long or too short.
    #[error("cannot clone a snapshot: {key:?} has {given} elements, and must have {count}, one for each VM")]
    CloneCount {
        /// The key.
        key: &'static str,
        /// How many elements it has.
        given: usize,
        /// How many it should have.
        count: usize,
    },
    /// A pool of nothing, or of two things.
    #[error("cannot open a pool: set either \"snapshot\" or \"spec\" in its options")]
    PoolOfWhat,
    /// There is a pool of this name.
    #[error("cannot open pool {name}: it is open already")]
    PoolExists {
        /// Its name.
        name: VmId,
    },
    /// It was destroyed, or released.
    #[error("pool {name} was closed")]
    PoolClosed {
        /// Its name.
        name: VmId,
    },
    /// Nobody waits there.
    #[error(
        "no member is ready in pool {name}: wait, open it with a larger \"size\", or set \"when_empty\": \"make\""
    )]
    PoolEmpty {
        /// Its name.
        name: VmId,
    },
    /// The id of a snapshot.
    #[error(transparent)]
    SnapshotId(#[from] SnapshotIdError),
    /// A snapshot.
    #[error("cannot {operation} a snapshot")]
    Snapshot {
        /// What was wanted.
        operation: Operation,
        /// Why not.
        source: Box<snapshot::Error>,
    },
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
    /// A state directory that is not to be trusted, or is not where it was.
    #[error(transparent)]
    State(#[from] StateError),
    /// A /proc that is not of this process's PID namespace.
    #[error(
        "/proc is that of another PID namespace: it calls this process {seen}, which is {pid} here; mount this \
         namespace's own with `mount -t proc proc /proc`"
    )]
    ForeignProc {
        /// What this process calls itself.
        pid: i32,
        /// What /proc calls it.
        seen: i32,
    },
    /// Another runtime owns the state directory.
    #[error("the state directory {} is open in another runtime{}", path.display(), OwnedBy(*owner))]
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
    #[error("cannot {operation} VM {id}: there is a VM of this id already")]
    AlreadyExists {
        /// What was wanted.
        operation: Operation,
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
    /// The cancel token of the calling thread was raised.
    #[error("the call was cancelled")]
    Cancelled,
    /// The VM.
    #[error(transparent)]
    Vm(#[from] vm::Error),
}

impl Error {
    /// An operation on a snapshot that has failed, for `map_err`.
    pub(super) fn of_snapshot(operation: Operation) -> impl Fn(snapshot::Error) -> Self {
        move |source| Self::Snapshot { operation, source: Box::new(source) }
    }

    /// The options of a call that are wrong, for `map_err`.
    pub(super) fn of_options(operation: Operation) -> impl Fn(settings::Error) -> Self {
        move |source| Self::Options { operation, source }
    }

    pub(super) fn of_placeholder(operation: Operation) -> impl Fn(PlaceholderError) -> Self {
        move |source| Self::Placeholder { operation, source }
    }

    pub(super) fn of_sharing(operation: Operation) -> impl Fn(Conflict) -> Self {
        move |source| Self::Shared { operation, source }
    }

    /// What was going on, for programs: the request or the step that failed, or else the operation.
    pub fn stage(&self) -> Cow<'static, str> {
        match self {
            Self::Options { operation, .. }
            | Self::Placeholder { operation, .. }
            | Self::Shared { operation, .. }
            | Self::Snapshot { operation, .. }
            | Self::AlreadyExists { operation, .. } => operation.name().into(),
            Self::CloneCount { .. } => Operation::Clone.name().into(),
            Self::PoolOfWhat | Self::PoolExists { .. } => Operation::OpenPool.name().into(),
            Self::PoolEmpty { .. } | Self::PoolClosed { .. } => Operation::Take.name().into(),
            Self::NotFound { .. } => Operation::Open.name().into(),
            Self::NoKeeper | Self::NoPager | Self::Keeper(_) => "keeper".into(),
            Self::Cgroup(source) => source.stage().into(),
            Self::SnapshotId(_) | Self::Id(_) => "id".into(),
            Self::Directory { .. } | Self::Busy { .. } | Self::State(_) => "state directory".into(),
            Self::System { .. } | Self::ForeignProc { .. } => "system".into(),
            Self::Closed | Self::Cancelled => "".into(),
            Self::Vm(error) => error.stage(),
        }
    }
}

/// Who has a state directory, and what to do about it.
struct OwnedBy(Option<Identity>);

impl fmt::Display for OwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(owner) if owner.is_running() => {
                write!(f, ", in process {}: close that runtime, or use another directory", owner.pid)
            }
            Some(owner) => write!(
                f,
                ": process {} opened it and has ended, but a process that it forked still holds the lock; end that process",
                owner.pid
            ),
            None => f.write_str(": close that runtime, or use another directory"),
        }
    }
}
