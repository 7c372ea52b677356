//! Whether a diff is certain to hold every page that has changed since its parent. Where it is not, a full snapshot is
//! taken in its place, or none, as the caller has chosen.
//!
//! What a guest has given back by a balloon or unplugged is no change: it may find there what was there before, or
//! zeros, and does not rely on either.

use super::{SnapshotOptions, WhenUncertain};
use crate::firecracker::{Feature, ProblemOf, Version};
use crate::journal::{SnapshotRecord, WhyNoParent};
use crate::operation::Operation;
use crate::snapshot::{self, HeldSnapshot, Kind, SnapshotId, Unfinished};
use crate::sys::procfs;
use crate::sys::sync::lock;
use crate::vm::{Error, Reason, Vm};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a diff would not be certain to hold every page that has changed since its parent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WhyFull {
    /// There is no parent yet.
    #[error("no snapshot was taken of this VM since its VMM was started")]
    NoneTaken,
    /// Firecracker clears its list of changed pages before it has made sure that they are on disk.
    #[error(
        "the last attempt to take a snapshot failed or was cut off, after which Firecracker may have forgotten which \
         pages had changed"
    )]
    AttemptFailed,
    /// What the caller has sent by itself is not known here.
    #[error("a request that the caller sent may have taken a snapshot, or changed the memory")]
    ForeignRequest,
    /// The memory itself is another one.
    #[error("memory was plugged in or out since the last snapshot")]
    MemoryPlugged,
    /// What it would build upon.
    #[error("the last snapshot of this VM, {id}, was deleted, or cannot be used")]
    ParentGone {
        /// The parent.
        id: String,
        /// What is wrong with it; nothing when another one has its name.
        source: Option<Box<snapshot::Error>>,
    },
    /// A VMM that was started by others.
    #[error("the release of the running Firecracker is not known")]
    UnknownRelease,
    /// Older ones refuse.
    #[error("Firecracker {0} cannot take a diff of a VM without \"track_dirty_pages\"")]
    Untracked(Version),
    /// A release with a fault.
    #[error("Firecracker {version} writes wrong diffs: {problem}")]
    Misplaced {
        /// The release.
        version: Version,
        /// Its fault.
        problem: ProblemOf,
    },
    /// `mincore(2)` does not see them.
    #[error(
        "pages of its memory are in swap, and without \"track_dirty_pages\" Firecracker leaves those out of a diff"
    )]
    Swapped,
    /// Somebody else's process, or a kernel that does not tell.
    #[error(
        "it is not known whether pages of its memory are in swap, and without \"track_dirty_pages\" Firecracker \
         leaves those out of a diff"
    )]
    SwapUnknown(#[source] io::Error),
    /// In a diff, a hole means "unchanged".
    #[error("the file system of {} does not keep holes in files exactly as they were made", path.display())]
    NoHoles {
        /// The directory of all snapshots.
        path: PathBuf,
    },
}

/// What is taken.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    /// The whole memory; with the reason when a diff was wanted.
    Full(Option<WhyFull>),
    Diff {
        parent: Box<HeldSnapshot<'a>>,
        tracking: Tracking,
    },
}

/// How Firecracker tells which pages have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// KVM has noted them.
    Exact,
    /// It takes those for changed that are in memory: more than have changed, but for those in swap.
    PagesInMemory,
}

impl Plan<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Plan::Full(_) => Kind::Full,
            Plan::Diff { .. } => Kind::Diff,
        }
    }

    pub(super) fn parent(&self) -> Option<String> {
        match self {
            Plan::Full(_) => None,
            Plan::Diff { parent, .. } => Some(parent.snapshot.manifest.id.clone()),
        }
    }

    pub(super) fn why_full(&self) -> Option<&WhyFull> {
        match self {
            Plan::Full(why) => why.as_ref(),
            Plan::Diff { .. } => None,
        }
    }
}

impl Vm {
    /// What is to be taken, as far as it can be told before the guest is paused. Needs the turn.
    pub(super) fn plan(
        &self,
        options: &SnapshotOptions,
        configuration: &Value,
        unfinished: &Unfinished<'_>,
    ) -> Result<Plan<'_>, Error> {
        if options.kind == Kind::Full {
            return Ok(Plan::Full(None));
        }
        if !unfinished.keeps_holes().map_err(self.failed(Operation::Snapshot))? {
            let path = self.shared.snapshots.directory().to_path_buf();
            return self.instead(options, WhyFull::NoHoles { path });
        }
        match self.parent().and_then(|parent| Ok((parent, self.tracking(configuration)?))) {
            Ok((parent, tracking)) => Ok(Plan::Diff { parent: Box::new(parent), tracking }),
            Err(why) => self.instead(options, why),
        }
    }

    /// The same plan, or what is taken instead when pages of a paused guest have turned out to be in swap. It is asked
    /// before Firecracker looks for the pages in memory and after: what is swapped out between stays there, because
    /// nothing touches the memory of a paused guest.
    pub(super) fn reconsider<'a>(
        &'a self,
        plan: Plan<'a>,
        options: &SnapshotOptions,
    ) -> Result<Plan<'a>, Error> {
        let is_certain = match &plan {
            Plan::Diff { tracking: Tracking::PagesInMemory, .. } => self.require_no_swap(),
            Plan::Diff { tracking: Tracking::Exact, .. } | Plan::Full(_) => Ok(()),
        };
        match is_certain {
            Ok(()) => Ok(plan),
            Err(why) => self.instead(options, why),
        }
    }

    fn instead(&self, options: &SnapshotOptions, why: WhyFull) -> Result<Plan<'_>, Error> {
        match options.when_uncertain {
            WhenUncertain::Full => Ok(Plan::Full(Some(why))),
            WhenUncertain::Fail => Err(self.error(Operation::Snapshot, Reason::NoDiff(why))),
        }
    }

    /// What a diff is a diff to; it is not deleted meanwhile.
    fn parent(&self) -> Result<HeldSnapshot<'_>, WhyFull> {
        let (last, why) = {
            let record = self.recorded();
            (record.last_snapshot.clone(), record.why_no_parent)
        };
        let Some(last) = last else { return Err(why.into()) };
        let gone = |source| WhyFull::ParentGone { id: last.id.clone(), source };
        let known = SnapshotId::parse(&last.id).map_err(|_| gone(None))?;
        let held = self.shared.snapshots.hold(&known).map_err(|error| gone(Some(Box::new(error))))?;
        // Another one may have got its name.
        let is_the_same = |found: &SnapshotRecord| *found == last;
        if is_the_same(&held.snapshot.manifest.record()) { Ok(held) } else { Err(gone(None)) }
    }

    fn tracking(&self, configuration: &Value) -> Result<Tracking, WhyFull> {
        let version = lock(&self.core).version.ok_or(WhyFull::UnknownRelease)?;
        if let Some(problem) = version.misplaces_pages().filter(|_| may_have_several_slots(configuration)) {
            return Err(WhyFull::Misplaced { version, problem });
        }
        let tracks = configuration.pointer("/machine-config/track_dirty_pages").and_then(Value::as_bool);
        match tracks {
            Some(true) => Ok(Tracking::Exact),
            _ if version.has(Feature::UntrackedDiff) => Ok(Tracking::PagesInMemory),
            _ => Err(WhyFull::Untracked(version)),
        }
    }

    fn require_no_swap(&self) -> Result<(), WhyFull> {
        let unknown = |error| WhyFull::SwapUnknown(error);
        let process = lock(&self.core).life.running().cloned();
        let process = process.ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
        let swapped = procfs::swapped_bytes(process.pid()).map_err(unknown)?;
        // As long as it has not ended, nobody else has its number.
        if !matches!(process.exit_status(), Ok(None)) {
            return Err(unknown(io::ErrorKind::NotFound.into()));
        }
        if swapped == 0 { Ok(()) } else { Err(WhyFull::Swapped) }
    }
}

impl From<WhyNoParent> for WhyFull {
    fn from(why: WhyNoParent) -> Self {
        match why {
            WhyNoParent::NoneTaken => Self::NoneTaken,
            WhyNoParent::AttemptFailed => Self::AttemptFailed,
            WhyNoParent::ForeignRequest => Self::ForeignRequest,
            WhyNoParent::MemoryPlugged => Self::MemoryPlugged,
        }
    }
}

/// Whether KVM may have more than one slot of memory, because of the hole for devices or for what can be plugged in.
fn may_have_several_slots(configuration: &Value) -> bool {
    const LARGEST_SLOT_MIB: u64 = 3 << 10;
    let size = configuration.pointer("/machine-config/mem_size_mib").and_then(Value::as_u64);
    let is_hotpluggable = configuration.get("memory-hotplug").is_some_and(|section| !section.is_null());
    is_hotpluggable || size.is_none_or(|size| size > LARGEST_SLOT_MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_above_the_hole_or_to_be_plugged_has_slots_of_its_own() {
        let slots = |size: u64, hotplug: Value| {
            may_have_several_slots(
                &json!({ "machine-config": { "mem_size_mib": size }, "memory-hotplug": hotplug }),
            )
        };
        assert!(!slots(3072, Value::Null));
        assert!(slots(3073, Value::Null));
        assert!(slots(128, json!({ "total_size_mib": 128 })));
        assert!(may_have_several_slots(&json!({})));
    }
}
