//! What can go wrong with a VM.

use super::id::VmId;
use super::restore::RestoreError;
use super::snapshot::WhyFull;
use super::spec::Link;
use super::{SpecError, State};
use crate::firecracker;
use crate::host::DiskError;
use crate::journal;
use crate::observe::metrics;
use crate::pager;
use crate::process;
use crate::snapshot;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Why a VM is not as it was wanted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec.
    #[error("cannot {operation} VM {id}")]
    Spec {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What is wrong.
        source: Arc<SpecError>,
    },
    /// The metrics.
    #[error("cannot keep the metrics of VM {id}")]
    Metrics {
        /// Which VM.
        id: VmId,
        /// Why not.
        source: metrics::Error,
    },
    /// The journal could not be written.
    #[error("cannot note what VM {id} owns")]
    Journal {
        /// Which VM.
        id: VmId,
        /// Why not.
        source: journal::Error,
    },
    /// No executable is named.
    #[error(
        "cannot create VM {id}: no Firecracker is named; set \"firecracker\" in the runtime's options, or in the \
         spec's \"mvm\" section"
    )]
    NoBinary {
        /// Which VM.
        id: VmId,
    },
    /// The operation does not fit the state.
    #[error("cannot {operation} VM {id}: it is {state}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
    State {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What it is.
        state: State,
        /// What would help.
        advice: Option<&'static str>,
    },
    /// The VM was destroyed.
    #[error("cannot {operation} VM {id}: it was destroyed")]
    Destroyed {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
    },
    /// The operation did not get its turn.
    #[error("cannot {operation} VM {id}")]
    Turn {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// Why not.
        source: NoTurn,
    },
    /// The VMM failed at it.
    #[error("cannot {operation} VM {id}")]
    Vmm {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What the VMM did.
        source: firecracker::Error,
    },
    /// The VMM failed at it, with a file that it knows by another name.
    #[error("cannot {operation} VM {id} with {}, which the VMM knows as {}", link.target.display(), link.name.display())]
    LinkedFile {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// The file, and what the VMM calls it.
        link: Box<Link>,
        /// What the VMM did.
        source: firecracker::Error,
    },
    /// The snapshot is not one that can be restored so.
    #[error("cannot restore VM {id}")]
    Restore {
        /// Which VM.
        id: VmId,
        /// Why not.
        source: Box<RestoreError>,
    },
    /// A snapshot.
    #[error("cannot {operation} VM {id}")]
    Snapshot {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What is wrong.
        source: Box<snapshot::Error>,
    },
    /// A disk could not be copied.
    #[error("cannot {operation} VM {id}")]
    Disk {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// Why not.
        source: Box<DiskError>,
    },
    /// A diff that might lack pages.
    #[error(
        "cannot take a diff snapshot of VM {id}; take a full one, or let the library take one by \
         \"when_uncertain\": \"full\""
    )]
    NoDiff {
        /// Which VM.
        id: VmId,
        /// Why not.
        source: WhyFull,
    },
    /// A drive that cannot be copied, found out before the guest was paused.
    #[error(
        "cannot take a snapshot of VM {id}: it would hold a copy of drive {drive:?}; to take it without one, use \
         \"disks\": \"reference\""
    )]
    Drive {
        /// Which VM.
        id: VmId,
        /// The drive.
        drive: String,
        /// Why it cannot be copied.
        source: Box<DiskError>,
    },
    /// What was to serve the page faults could not be started, or asked.
    #[error("cannot {operation} VM {id}")]
    Pager {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// Why not.
        source: pager::HeldError,
    },
    /// What served the page faults is gone or has failed, and the VMM was ended.
    #[error("cannot {operation} VM {id}: its pager has failed: {said}")]
    PagerLost {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// The last of what it said.
        said: String,
    },
    /// The VMM's process failed at it.
    #[error("cannot {operation} VM {id}")]
    Process {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What went wrong.
        source: process::Error,
    },
    /// The wait ended before the VM did.
    #[error("VM {id} has not ended within {after:?}; it is {state}")]
    StillRunning {
        /// Which VM.
        id: VmId,
        /// How long was waited.
        after: Duration,
        /// What it is.
        state: State,
    },
    /// The guest has not done what it was asked.
    #[error(
        "the guest has not followed within {after:?}: cannot {operation} VM {id}; wanted {wanted} MiB, and it has {now}"
    )]
    NotFollowed {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// How many MiB.
        wanted: u64,
        /// How many there are.
        now: u64,
        /// How long was waited.
        after: Duration,
    },
    /// The wait was interrupted.
    #[error("waiting for VM {id} was interrupted")]
    WaitInterrupted {
        /// Which VM.
        id: VmId,
    },
    /// The VM's directory.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory of this name is there already.
    #[error(
        "cannot {operation} VM {id}: {} is there already, and could not be adopted; the report of the runtime says why",
        path.display()
    )]
    DirectoryExists {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// There is no VMM that could be asked.
    #[error("cannot {operation} VM {id}: no VMM runs, the VM is {state}")]
    NoVmm {
        /// Which VM.
        id: VmId,
        /// What was wanted.
        operation: &'static str,
        /// What it is.
        state: State,
    },
}

impl Error {
    /// Whether Firecracker has answered, with a refusal: then nothing has changed.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Vmm { source: firecracker::Error::Refused { .. }, .. })
    }

    /// Whether Firecracker has refused the request `asked`.
    pub(super) fn is_refusal_of(&self, asked: &firecracker::Request) -> bool {
        use firecracker::Error as E;
        matches!(self, Self::Vmm { source: E::Refused { request, .. }, .. } if *request == asked.into())
    }

    /// Whether the end of a VM was not waited for.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Turn { source: NoTurn::Interrupted, .. }
                | Self::Process { source: process::Error::Interrupted { .. }, .. }
        )
    }

    /// Whether a call has ended while the VMM was still at it.
    pub(super) fn leaves_the_vmm_busy(&self) -> bool {
        use firecracker::Error as E;
        matches!(self, Self::Vmm { source: E::Timeout { .. } | E::Interrupted { .. }, .. })
    }
}

/// Why an operation did not get its turn.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NoTurn {
    /// Another operation outlasted the deadline.
    #[error("its {with} is still in flight; interrupt that, or wait")]
    Busy {
        /// What it is busy with.
        with: &'static str,
    },
    /// Another thread interrupted the wait.
    #[error("interrupted while waiting for its turn")]
    Interrupted,
}
