//! What can go wrong with a VM.

mod restore;

pub use super::turn::NoTurn;
pub use restore::RestoreError;

use super::id::VmId;
use super::snapshot::WhyFull;
use super::spec::Link;
use super::{Conflict, SpecError, State};
use crate::claims;
use crate::firecracker;
use crate::host::{CgroupError, DiskError, LendError};
use crate::journal::{self, StateError};
use crate::observe::metrics;
use crate::operation::Operation;
use crate::pager;
use crate::process;
use crate::snapshot;
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// An operation on a VM that has failed.
#[derive(Debug, Error)]
#[error("cannot {operation} VM {id}")]
pub struct Error {
    /// Which VM.
    pub id: VmId,
    /// What was wanted.
    pub operation: Operation,
    /// Why it failed.
    #[source]
    pub reason: Box<Reason>,
}

/// Why an operation on a VM has failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// The spec.
    #[error(transparent)]
    Spec(#[from] Arc<SpecError>),
    /// The files of the metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The state directory.
    #[error(transparent)]
    StateDirectory(#[from] StateError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// No executable is named.
    #[error(
        "the path of Firecracker is not known; set \"firecracker\" in the runtime's options, or in the spec's \"mvm\" section"
    )]
    NoBinary,
    /// The operation does not fit the state.
    #[error("it is {state}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
    State {
        /// What the VM is.
        state: State,
        /// What would help.
        advice: Option<&'static str>,
    },
    /// The VM was destroyed.
    #[error("it was destroyed")]
    Destroyed,
    /// The operation did not get its turn.
    #[error(transparent)]
    Turn(#[from] NoTurn),
    /// Another VM has what it would use.
    #[error(transparent)]
    InUse(#[from] Conflict),
    /// The VMM failed at it.
    #[error(transparent)]
    Vmm(#[from] firecracker::Error),
    /// The VMM failed at it, with a file that it knows by another name.
    #[error("{} is known to the VMM as {}", link.target.display(), link.name)]
    LinkedFile {
        /// The file, and what the VMM calls it.
        link: Link,
        /// What the VMM did.
        source: firecracker::Error,
    },
    /// The snapshot cannot be restored so.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A disk could not be copied.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A diff that might lack pages.
    #[error("a diff might lack pages; take a full snapshot, or set \"when_uncertain\": \"full\"")]
    NoDiff(#[source] WhyFull),
    /// A drive that cannot be copied, found out before the guest was paused.
    #[error(
        "the snapshot would hold a copy of drive {drive:?}; to take it without the copy, use \"disks\": \"reference\""
    )]
    Drive {
        /// The drive.
        drive: String,
        /// Why it cannot be copied.
        source: DiskError,
    },
    /// The cgroups that its limits need.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// Something that the VM was to own on the host.
    #[error(transparent)]
    Claim(#[from] claims::NotMade),
    /// Something could not be lent to a jailed VMM.
    #[error(transparent)]
    Lend(#[from] LendError),
    /// A jail needs more than this process may do.
    #[error(
        "a jail needs capabilities that this process has not: {}; run it as root, or with AmbientCapabilities= in its \
         systemd unit, or leave \"jail\" out", missing.join(", ")
    )]
    NoPrivilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// There is no program `jailer`.
    #[error(
        "cannot use {} as the jailer: set \"jailer\" in \"mvm\".\"jail\", or in \"jail\" of the runtime's options",
        path.display()
    )]
    Jailer {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A VMM that needs shared libraries, of which there are none in a jail.
    #[error(
        "{} is linked to shared libraries, and a jail has none: use a static build of Firecracker, as its releases are",
        program.display()
    )]
    NotStatic {
        /// The executable.
        program: PathBuf,
        /// What became of it.
        source: firecracker::Error,
    },
    /// The host has too few huge pages.
    #[error(
        "its memory needs {wanted} huge pages of 2 MiB, and {available} are available: set some aside (sysctl vm.nr_hugepages), or \
         leave \"huge_pages\" out of \"machine-config\""
    )]
    HugePages {
        /// How many it needs.
        wanted: u64,
        /// How many there are.
        available: u64,
    },
    /// The VMM may write no file of the length of a snapshot.
    #[error(
        "its memory has {bytes} bytes, and \"fsize\" in \"resource_limits\" of its jail allows files of {limit}: Firecracker \
         would be killed at that length; create the VM with a higher limit"
    )]
    LongerThanAllowed {
        /// How long it would be.
        bytes: u64,
        /// How long a file may be.
        limit: u64,
    },
    /// All users that a VMM may run as are taken.
    #[error(
        "no user is free for the jail: those from {first} to {last} are leased to other VMs of this host; give \"uids\" in \
         \"jail\" of the runtime's options a larger range"
    )]
    NoUid {
        /// The first one.
        first: u32,
        /// The last one.
        last: u32,
    },
    /// The pager could not be started, or asked.
    #[error(transparent)]
    Pager(#[from] pager::PagerHandleError),
    /// The pager has ended or failed, and the VMM was ended.
    #[error("its pager has failed: {said}")]
    PagerLost {
        /// The last of what the pager said.
        said: String,
    },
    /// The VMM's process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The wait ended before the VM did.
    #[error("it has not ended within {after:?}; it is {state}")]
    StillRunning {
        /// How long was waited.
        after: Duration,
        /// What the VM is.
        state: State,
    },
    /// The guest has not done what it was asked.
    #[error(
        "the guest has not followed within {after:?}: it was asked for {wanted} MiB, and is at {now} MiB"
    )]
    NotFollowed {
        /// How many MiB were wanted.
        wanted: u64,
        /// How many there are.
        now: u64,
        /// How long was waited.
        after: Duration,
    },
    /// The kernel has killed the VMM, which had used what its limit allows.
    #[error(
        "its VMM had used all the memory that mvm.limits.memory_mib allows, and the kernel has killed it; set a higher limit"
    )]
    OutOfMemory(#[source] firecracker::Error),
    /// The kernel has refused the VMM a thread.
    #[error(
        "its VMM was refused a thread, because it had as many as mvm.limits.pids allows; set a higher limit"
    )]
    OutOfThreads(#[source] firecracker::Error),
    /// A file or directory.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory of this name is there already.
    #[error(
        "{} exists already, and could not be adopted; mvm_runtime_report says why",
        path.display()
    )]
    DirectoryExists {
        /// The directory.
        path: PathBuf,
    },
    /// There is no VMM that could be asked.
    #[error("no VMM runs, the VM is {state}")]
    NoVmm {
        /// What the VM is.
        state: State,
    },
}

impl Error {
    /// An error of an operation on the VM `id`.
    pub(crate) fn new(id: &VmId, operation: Operation, reason: impl Into<Reason>) -> Self {
        Self::of(id, operation, reason.into())
    }

    /// Once, and not at each of the many places where something can fail.
    #[cold]
    #[inline(never)]
    fn of(id: &VmId, operation: Operation, reason: Reason) -> Self {
        Self { id: id.clone(), operation, reason: Box::new(reason) }
    }

    /// What was going on, for programs: the request or the step that failed, or else the operation.
    pub fn stage(&self) -> Cow<'static, str> {
        let step = match &*self.reason {
            Reason::Vmm(source)
            | Reason::LinkedFile { source, .. }
            | Reason::OutOfMemory(source)
            | Reason::OutOfThreads(source)
            | Reason::NotStatic { source, .. } => source.stage(),
            Reason::Process(process::Error::Spawn { .. }) => Some("spawn".into()),
            Reason::Spec(_) => Some("spec".into()),
            Reason::Cgroups(_) => Some("cgroup".into()),
            Reason::Journal(_) => Some("journal".into()),
            Reason::Disk(_) | Reason::Drive { .. } => Some("disk".into()),
            Reason::Pager(_) | Reason::PagerLost { .. } => Some("pager".into()),
            _ => None,
        };
        step.unwrap_or(Cow::Borrowed(self.operation.name()))
    }

    /// Whether Firecracker has answered, with a refusal: then nothing has changed.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(&*self.reason, Reason::Vmm(firecracker::Error::Refused { .. }))
    }

    /// Whether Firecracker has refused the request `asked`.
    pub(super) fn is_refusal_of(&self, asked: &firecracker::Request) -> bool {
        use firecracker::Error as E;
        matches!(&*self.reason, Reason::Vmm(E::Refused { request, .. }) if *request == asked.into())
    }

    /// Whether another VM has leased the same at the same time.
    pub(super) fn is_of_a_lease_that_was_taken(&self) -> bool {
        matches!(&*self.reason, Reason::Claim(not_made) if not_made.is_of_a_lease_that_was_taken())
    }

    /// Whether the VM was destroyed before.
    pub(super) fn is_destroyed(&self) -> bool {
        matches!(&*self.reason, Reason::Destroyed)
    }

    /// Whether the end of a VM was not waited for.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(
            &*self.reason,
            Reason::Turn(NoTurn::Interrupted) | Reason::Process(process::Error::Interrupted { .. })
        )
    }

    /// Whether a call has ended while the VMM was still at it.
    pub(super) fn leaves_the_vmm_busy(&self) -> bool {
        use firecracker::Error as E;
        matches!(&*self.reason, Reason::Vmm(E::Timeout { .. } | E::Interrupted { .. }))
    }
}

impl From<SpecError> for Reason {
    fn from(error: SpecError) -> Self {
        Self::Spec(Arc::new(error))
    }
}
