//! What each error of the rooms below means to a program: the one place where errors become numbers. Every match is
//! exhaustive, so a new error asks for its decision.

use crate::capi::status::mvm_status;
use crate::firecracker;
use crate::host::{CgroupError, DiskError, LendError, Task};
use crate::journal;
use crate::keeper::KeeperError;
use crate::observe::metrics;
use crate::pager;
use crate::process::{self, ExitStatus};
use crate::runtime;
use crate::snapshot;
use crate::vm::{self, NoTurn, Reason};
use std::borrow::Cow;
use std::io;

/// What a program can tell apart.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) status: mvm_status,
    pub(super) os_errno: i32,
    pub(super) http_status: u16,
    pub(super) exit: Option<ExitStatus>,
    pub(super) stage: Cow<'static, str>,
    pub(super) fault: String,
    pub(super) output: String,
}

impl Facts {
    pub(super) fn of(status: mvm_status) -> Self {
        Self {
            status,
            os_errno: 0,
            http_status: 0,
            exit: None,
            stage: Cow::Borrowed(""),
            fault: String::new(),
            output: String::new(),
        }
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or_default();
        Self { os_errno: errno, ..Self::of(status_of_io(error)) }
    }

    pub(super) fn at(self, stage: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: stage.into(), ..self }
    }

    pub(super) fn of_runtime(error: &runtime::Error) -> Self {
        match error {
            runtime::Error::Options { .. }
            | runtime::Error::CloneCount { .. }
            | runtime::Error::PoolOfWhat
            | runtime::Error::Placeholder { .. }
            | runtime::Error::Shared { .. }
            | runtime::Error::NoKeeper
            | runtime::Error::NoPager => Self::of(mvm_status::MVM_ERR_INVALID_CONFIG),
            runtime::Error::PoolExists { .. } | runtime::Error::AlreadyExists { .. } => {
                Self::of(mvm_status::MVM_ERR_ALREADY_EXISTS)
            }
            runtime::Error::PoolEmpty { .. } => Self::of(mvm_status::MVM_ERR_NO_RESOURCES),
            runtime::Error::SnapshotId(_) | runtime::Error::Id(_) => {
                Self::of(mvm_status::MVM_ERR_INVALID_ARGUMENT)
            }
            runtime::Error::Snapshot { source, .. } => Self::of_snapshot(source),
            runtime::Error::Directory { source, .. } | runtime::Error::System { source, .. } => {
                Self::of_io(source)
            }
            runtime::Error::Keeper(KeeperError::Output { source, .. } | KeeperError::Thread(source)) => {
                Self::of_io(source)
            }
            runtime::Error::Keeper(KeeperError::Program(source)) => Self::of_process(source),
            runtime::Error::Keeper(KeeperError::Unusable { source, .. }) => match source {
                process::NoAnswer::Process(source) => Self::of_process(source),
                process::NoAnswer::Output { source, .. } => Self::of_io(source),
                process::NoAnswer::TimeIsUp { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
                process::NoAnswer::Interrupted { .. } => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            },
            runtime::Error::Keeper(KeeperError::Another { .. }) => {
                Self::of(mvm_status::MVM_ERR_INVALID_CONFIG)
            }
            runtime::Error::Cgroup(source) => Self::of_process(source),
            runtime::Error::State(source) => Self::of_state(source),
            runtime::Error::ForeignProc { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            runtime::Error::Busy { .. } => Self::of(mvm_status::MVM_ERR_BUSY),
            runtime::Error::NotFound { .. } | runtime::Error::PoolClosed { .. } => {
                Self::of(mvm_status::MVM_ERR_NOT_FOUND)
            }
            runtime::Error::Closed | runtime::Error::Cancelled => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            runtime::Error::Vm(error) => Self::of_vm(error),
        }
        .at(error.stage())
    }

    pub(super) fn of_vm(error: &vm::Error) -> Self {
        match &*error.reason {
            Reason::Spec(source) => Self::of_spec(source),
            Reason::Metrics(source) => Self::of_metrics(source),
            Reason::Journal(source) => Self::of_journal(source),
            Reason::StateDirectory(source) => Self::of_state(source),
            Reason::NoBinary => Self::of(mvm_status::MVM_ERR_INVALID_CONFIG),
            Reason::State { .. } | Reason::NoVmm { .. } => Self::of(mvm_status::MVM_ERR_BAD_STATE),
            Reason::NoDiff(why) => Self::of_why_full(why),
            Reason::Destroyed => Self::of(mvm_status::MVM_ERR_NOT_FOUND),
            Reason::Turn(NoTurn::Busy { .. }) => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            Reason::Turn(NoTurn::Interrupted) => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            Reason::InUse(_) => Self::of(mvm_status::MVM_ERR_BUSY),
            Reason::Vmm(source)
            | Reason::LinkedFile { source, .. }
            | Reason::OutOfMemory(source)
            | Reason::OutOfThreads(source)
            | Reason::NotStatic { source, .. } => Self::of_firecracker(source),
            Reason::HugePages { .. } => Self::of(mvm_status::MVM_ERR_NO_RESOURCES),
            Reason::LongerThanAllowed { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            Reason::Restore(source) => Self::of_restore(source),
            Reason::Snapshot(source) => Self::of_snapshot(source),
            Reason::Disk(source) | Reason::Drive { source, .. } => Self::of_disk(source),
            Reason::Cgroups(source) => Self::of_cgroups(source),
            Reason::Claim(error) => Self::of_io(&error.source),
            Reason::Lend(source) => Self::of_loan(source),
            Reason::NoPrivilege { .. } => Self::of(mvm_status::MVM_ERR_PERMISSION),
            Reason::Jailer { source, .. } => Self::of_io(source),
            Reason::NoUid { .. } => Self::of(mvm_status::MVM_ERR_NO_RESOURCES),
            Reason::Pager(source) => Self::of_pager(source),
            Reason::PagerLost { said } => {
                Self { output: said.clone(), ..Self::of(mvm_status::MVM_ERR_VMM_EXITED) }
            }
            Reason::NotFollowed { .. } | Reason::StillRunning { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            Reason::Process(source) => Self::of_process(source),
            Reason::File { source, .. } => Self::of_io(source),
            Reason::DirectoryExists { .. } => Self::of(mvm_status::MVM_ERR_ALREADY_EXISTS),
        }
        .at(error.stage())
    }

    fn of_why_full(why: &vm::WhyFull) -> Self {
        use vm::WhyFull as W;
        match why {
            W::NoneTaken
            | W::AttemptFailed
            | W::ForeignRequest
            | W::MemoryPlugged
            | W::ParentGone { .. }
            | W::Swapped
            | W::SwapUnknown(_) => Self::of(mvm_status::MVM_ERR_BAD_STATE),
            W::UnknownRelease | W::Untracked(_) | W::Misplaced { .. } | W::NoHoles { .. } => {
                Self::of(mvm_status::MVM_ERR_UNSUPPORTED)
            }
        }
    }

    fn of_restore(error: &vm::RestoreError) -> Self {
        use vm::RestoreError as E;
        match error {
            E::OtherCpu { .. } | E::OtherVersion { .. } | E::HugePages { .. } => {
                Self::of(mvm_status::MVM_ERR_UNSUPPORTED)
            }
            E::NoSuchDevice { .. } | E::SharedDisk { .. } => Self::of(mvm_status::MVM_ERR_INVALID_CONFIG),
            E::SocketTaken { .. } => Self::of(mvm_status::MVM_ERR_ALREADY_EXISTS),
        }
    }

    fn of_snapshot(error: &snapshot::Error) -> Self {
        use snapshot::Error as E;
        match error {
            E::Exists { .. } => Self::of(mvm_status::MVM_ERR_ALREADY_EXISTS),
            E::Busy { .. } | E::Dependents { .. } | E::InUse { .. } => Self::of(mvm_status::MVM_ERR_BUSY),
            E::NotFound { .. } => Self::of(mvm_status::MVM_ERR_NOT_FOUND),
            E::Manifest { .. }
            | E::Content { .. }
            | E::Cycle { .. }
            | E::Sizes { .. }
            | E::Missing { .. }
            | E::NotPlain { .. }
            | E::Length { .. }
            | E::Altered { .. }
            | E::Holes { .. }
            | E::Touched { .. } => Self::of(mvm_status::MVM_ERR_DAMAGED),
            // A parent that is gone or altered damages its child; one that cannot be read for now does not.
            E::Parent { source, .. } => match &**source {
                E::File { .. } | E::Parent { .. } => Self::of_snapshot(source),
                _ => Self::of(mvm_status::MVM_ERR_DAMAGED),
            },
            E::NoChecksum { .. } | E::HolesUntold { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            E::NotADiff { .. } => Self::of(mvm_status::MVM_ERR_BAD_STATE),
            E::Note { source, .. } => Self::of_journal(source),
            E::File { source, .. } => Self::of_io(source),
            E::Disk(source) => Self::of_disk(source),
        }
    }

    fn of_disk(error: &DiskError) -> Self {
        match error {
            DiskError::NotPlain { .. } | DiskError::Lengths { .. } => {
                Self::of(mvm_status::MVM_ERR_UNSUPPORTED)
            }
            DiskError::NoRoom { .. } => {
                Self { os_errno: libc::ENOSPC, ..Self::of(mvm_status::MVM_ERR_NO_RESOURCES) }
            }
            DiskError::Io { task: Task::Keep { .. }, source }
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Self { status: mvm_status::MVM_ERR_ALREADY_EXISTS, ..Self::of_io(source) }
            }
            DiskError::NoSpace { source, .. } | DiskError::Io { source, .. } => Self::of_io(source),
            DiskError::Kept { .. } => Self::of(mvm_status::MVM_ERR_BAD_STATE),
            DiskError::Changed { .. } => Self::of(mvm_status::MVM_ERR_BUSY),
            DiskError::Digest { .. } => Self::of(mvm_status::MVM_ERR_DAMAGED),
            DiskError::TooSmall { .. } | DiskError::NotExt4 { .. } | DiskError::NoPlace { .. } => {
                Self::of(mvm_status::MVM_ERR_INVALID_CONFIG)
            }
            DiskError::NoVerity { source, .. } => Self {
                os_errno: source.raw_os_error().unwrap_or_default(),
                ..Self::of(mvm_status::MVM_ERR_UNSUPPORTED)
            },
            DiskError::NoTool { .. } | DiskError::NoReservation { .. } => {
                Self::of(mvm_status::MVM_ERR_UNSUPPORTED)
            }
            DiskError::Tool { source, .. } => Self::of_process(source),
            DiskError::ToolFailed { exit, output, .. } => {
                Self { exit: Some(*exit), output: output.clone(), ..Self::of(mvm_status::MVM_ERR_IO) }
            }
            DiskError::Interrupted { .. } => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            DiskError::TimeIsUp { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
        }
    }

    fn of_cgroups(error: &CgroupError) -> Self {
        match error {
            CgroupError::Unknown(source) | CgroupError::Device { source, .. } => Self::of_io(source),
            CgroupError::None
            | CgroupError::Missing { .. }
            | CgroupError::NotHandedDown { .. }
            | CgroupError::ProcessesInside { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            CgroupError::NoParent { .. } | CgroupError::Parent { .. } => {
                Self::of(mvm_status::MVM_ERR_INVALID_CONFIG)
            }
        }
    }

    fn of_loan(error: &LendError) -> Self {
        match error {
            LendError::Target { source, .. } | LendError::Place { source, .. } => Self::of_io(source),
            LendError::Directory { .. } | LendError::Unfiltered { .. } => {
                Self::of(mvm_status::MVM_ERR_INVALID_CONFIG)
            }
            LendError::Mode { .. } => Self::of(mvm_status::MVM_ERR_PERMISSION),
            LendError::Mapping { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
        }
    }

    fn of_pager(error: &pager::PagerHandleError) -> Self {
        match error {
            pager::PagerHandleError::Output { source, .. }
            | pager::PagerHandleError::Threads(source)
            | pager::PagerHandleError::Ask { source, .. } => Self::of_io(source),
            pager::PagerHandleError::Program(source) => Self::of_process(source),
            pager::PagerHandleError::Refused(_) => Self::of(mvm_status::MVM_ERR_BAD_STATE),
        }
    }

    fn of_spec(error: &vm::SpecError) -> Self {
        use vm::SpecError as E;
        match error {
            E::File { source, .. } => Self::of_io(source),
            E::Journal(source) => Self::of_journal(source),
            E::Json(_)
            | E::Kind { .. }
            | E::NoId { .. }
            | E::SocketPath { .. }
            | E::Argument(_)
            | E::CgroupAndLimits
            | E::ParentOfNothing => Self::of(mvm_status::MVM_ERR_INVALID_CONFIG),
            E::Disk { problem, .. } => Self::of_disk_problem(problem),
        }
    }

    fn of_disk_problem(problem: &vm::DiskProblem) -> Self {
        use crate::host::CatalogueError as C;
        use vm::DiskProblem as P;
        match problem {
            P::Catalogue(C::Read { source, .. }) => Self::of_io(source),
            P::Catalogue(C::NotFound { .. }) => Self::of(mvm_status::MVM_ERR_NOT_FOUND),
            P::Catalogue(C::Length { .. }) => Self::of(mvm_status::MVM_ERR_DAMAGED),
            P::Catalogue(C::Name(_) | C::Manifest { .. } | C::OtherName { .. } | C::NotAFile { .. })
            | P::Source
            | P::NoCatalogue
            | P::HasFile(_)
            | P::Twice(_)
            | P::ReadOnly(_)
            | P::Shared(_)
            | P::NoDigest
            | P::Restored
            | P::Digest(_)
            | P::NotRoot(_) => Self::of(mvm_status::MVM_ERR_INVALID_CONFIG),
        }
    }

    fn of_state(error: &journal::StateError) -> Self {
        use journal::StateError as E;
        match error {
            E::Foreign { .. } | E::Writable { .. } | E::Link { .. } | E::SecondName { .. } => {
                Self::of(mvm_status::MVM_ERR_PERMISSION)
            }
            E::Use { source, .. } => Self::of_io(source),
            E::Displaced { .. } => Self::of(mvm_status::MVM_ERR_IO),
        }
    }

    fn of_journal(error: &journal::Error) -> Self {
        use journal::Error as E;
        match error {
            E::Read { source, .. } | E::Write { source, .. } => Self::of_io(source),
            E::Newer { .. } | E::Older { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            E::Empty { .. } | E::Foreign { .. } | E::Damaged { .. } | E::Content { .. } => {
                Self::of(mvm_status::MVM_ERR_IO)
            }
        }
    }

    fn of_metrics(error: &metrics::Error) -> Self {
        use metrics::Error as E;
        match error {
            E::Lock { source, .. }
            | E::Read { source, .. }
            | E::Store { source, .. }
            | E::Make { source, .. } => Self::of_io(source),
            E::Busy { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            E::Interrupted => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
        }
    }

    fn of_firecracker(error: &firecracker::Error) -> Self {
        use firecracker::Error as E;
        match error {
            E::Binary { source, .. } => Self::of_io(source),
            E::NotFirecracker { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            E::VersionTimeout { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            E::TooOld { .. } | E::Unsupported { .. } => Self::of(mvm_status::MVM_ERR_UNSUPPORTED),
            E::Process(source) => Self::of_process(source),
            E::Output { source, .. } => Self::of_io(source),
            E::Exited { exit, output, .. } => {
                Self { exit: Some(*exit), output: output.clone(), ..Self::of(mvm_status::MVM_ERR_VMM_EXITED) }
            }
            E::Timeout { output, .. } => {
                Self { output: output.clone(), ..Self::of(mvm_status::MVM_ERR_TIMEOUT) }
            }
            E::Interrupted { .. } => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            E::Request(_) => Self::of(mvm_status::MVM_ERR_INVALID_ARGUMENT),
            E::Refused { status, fault, .. } => Self {
                http_status: *status,
                fault: fault.clone(),
                ..Self::of(mvm_status::MVM_ERR_VMM_REFUSED)
            },
            E::Response { .. } | E::UnexpectedBody { .. } => Self::of(mvm_status::MVM_ERR_VMM_PROTOCOL),
            E::Connection { source, .. } => {
                let facts = Self::of_io(source);
                match facts.status {
                    mvm_status::MVM_ERR_NO_RESOURCES | mvm_status::MVM_ERR_PERMISSION => facts,
                    _ => Self { status: mvm_status::MVM_ERR_VMM_PROTOCOL, ..facts },
                }
            }
        }
    }

    pub(super) fn of_process(error: &process::Error) -> Self {
        match error {
            process::Error::Spawn { source, .. }
            | process::Error::Cgroup { source, .. }
            | process::Error::Mount { source, .. } => Self::of_io(source),
            process::Error::Signal { source, .. } => Self::of_io(source),
            process::Error::Wait { source, .. } => Self::of_io(source),
            process::Error::Nul { .. } | process::Error::NoProgram => {
                Self::of(mvm_status::MVM_ERR_INVALID_ARGUMENT)
            }
            process::Error::StillRunning { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            process::Error::Stuck { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
            process::Error::Interrupted { .. } => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
        }
    }
}

fn status_of_io(error: &io::Error) -> mvm_status {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => mvm_status::MVM_ERR_PERMISSION,
        Some(libc::ENOENT) => mvm_status::MVM_ERR_NOT_FOUND,
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EFBIG
            | libc::EAGAIN
            | libc::ENOBUFS,
        ) => mvm_status::MVM_ERR_NO_RESOURCES,
        None if error.kind() == io::ErrorKind::PermissionDenied => mvm_status::MVM_ERR_PERMISSION,
        _ => mvm_status::MVM_ERR_IO,
    }
}
