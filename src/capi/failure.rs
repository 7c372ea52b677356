//! From the errors of the rooms below to a status and the details that `mvm_last_error` copies.
//!
//! The one place where errors become numbers: every match is exhaustive, so a new error asks for its decision.

use super::argument::{Sized32, fixed};
use super::status::{mvm_error, mvm_exit_kind, mvm_status};
use crate::causes::with_causes;
use crate::firecracker;
use crate::host::DiskError;
use crate::journal;
use crate::keeper::KeeperError;
use crate::observe::logging::Taken;
use crate::observe::metrics;
use crate::pager;
use crate::process::{self, ExitStatus};
use crate::runtime;
use crate::settings;
use crate::snapshot;
use crate::vm::{self, IdError, NoTurn, OwnerDataError, Reason};
use std::borrow::Cow;
use std::cell::RefCell;
use std::error::Error;
use std::ffi::CStr;
#[cfg(test)]
use std::ffi::c_char;
use std::io;

/// A call that has failed, with all that is known of it.
#[derive(Debug)]
pub(super) struct Failure(Box<Details>);

#[derive(Debug)]
struct Details {
    facts: Facts,
    message: String,
    recorded: bool,
}

/// What a program can tell apart.
#[derive(Debug)]
struct Facts {
    status: mvm_status,
    os_errno: i32,
    http_status: u16,
    exit: Option<ExitStatus>,
    stage: Cow<'static, str>,
    fault: String,
    output: String,
}

thread_local! {
    static LAST: RefCell<Option<Box<Details>>> = const { RefCell::new(None) };
}

impl Failure {
    /// Becomes this thread's last error.
    pub(super) fn record(self) -> mvm_status {
        let status = self.0.facts.status;
        if self.0.recorded {
            // A thread that is ending has no place for an error any more; the status is told all the same.
            let _ended = LAST.try_with(|last| last.replace(Some(self.0)));
        }
        status
    }

    /// The failure to copy a failure does not replace it.
    pub(super) fn unrecorded(mut self) -> Self {
        self.0.recorded = false;
        self
    }

    pub(super) fn null(name: &str) -> Self {
        Self::argument(format!("the argument {name:?} is NULL"))
    }

    pub(super) fn not_utf8(name: &str) -> Self {
        Self::argument(format!("the argument {name:?} is not UTF-8"))
    }

    pub(super) fn too_small(name: &str, size: usize, least: usize) -> Self {
        let message =
            format!("the size of {name:?} is {size}: set it to the sizeof of the struct, at least {least}");
        Self::argument(message)
    }

    pub(super) fn argument(message: String) -> Self {
        Self::new(Facts::of(mvm_status::MVM_ERR_INVALID_ARGUMENT), message)
    }

    pub(super) fn bad_handle(kind: &str, value: usize) -> Self {
        let message = match value {
            0 => format!("the {kind} handle is NULL"),
            _ => format!("{value:#x} is not a {kind} handle, or was released"),
        };
        Self::new(Facts::of(mvm_status::MVM_ERR_BAD_HANDLE), message)
    }

    pub(super) fn forked(owner: u32, me: u32) -> Self {
        let message = format!(
            "process {me} was forked from process {owner}, which uses the library: use it in that process, or execute a \
             program after the fork"
        );
        Self::new(Facts::of(mvm_status::MVM_ERR_FORKED), message)
    }

    pub(super) fn internal(text: &str) -> Self {
        let message = format!("a bug in the library, please report it: {text}");
        Self::new(Facts::of(mvm_status::MVM_ERR_INTERNAL), message)
    }

    fn new(facts: Facts, message: String) -> Self {
        Self(Box::new(Details { facts, message, recorded: true }))
    }

    fn of(facts: Facts, error: &dyn Error) -> Self {
        Self::new(facts, with_causes(error))
    }
}

impl Facts {
    fn of(status: mvm_status) -> Self {
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

    fn of_io(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or_default();
        Self { os_errno: errno, ..Self::of(status_of_io(error)) }
    }

    fn at(self, stage: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: stage.into(), ..self }
    }

    fn of_runtime(error: &runtime::Error) -> Self {
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

    fn of_vm(error: &vm::Error) -> Self {
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
            Reason::Vmm(source) | Reason::LinkedFile { source, .. } => Self::of_firecracker(source),
            Reason::Restore(source) => Self::of_restore(source),
            Reason::Snapshot(source) => Self::of_snapshot(source),
            Reason::Disk(source) | Reason::Drive { source, .. } => Self::of_disk(source),
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
            DiskError::NoSpace { source, .. } | DiskError::Io { source, .. } => Self::of_io(source),
            DiskError::Interrupted { .. } => Self::of(mvm_status::MVM_ERR_INTERRUPTED),
            DiskError::TimeIsUp { .. } => Self::of(mvm_status::MVM_ERR_TIMEOUT),
        }
    }

    fn of_pager(error: &pager::HeldError) -> Self {
        match error {
            pager::HeldError::Output { source, .. }
            | pager::HeldError::Threads(source)
            | pager::HeldError::Ask { source, .. } => Self::of_io(source),
            pager::HeldError::Program(source) => Self::of_process(source),
            pager::HeldError::Refused(_) => Self::of(mvm_status::MVM_ERR_BAD_STATE),
        }
    }

    fn of_spec(error: &vm::SpecError) -> Self {
        use vm::SpecError as E;
        match error {
            E::File { source, .. } => Self::of_io(source),
            E::Journal(source) => Self::of_journal(source),
            E::Json(_) | E::Kind { .. } | E::NoId { .. } | E::SocketPath { .. } | E::Argument(_) => {
                Self::of(mvm_status::MVM_ERR_INVALID_CONFIG)
            }
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

    fn of_process(error: &process::Error) -> Self {
        match error {
            process::Error::Spawn { source, .. } | process::Error::Cgroup { source, .. } => {
                Self::of_io(source)
            }
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

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Self {
        Self::of(Facts::of_runtime(&error), &error)
    }
}

impl From<vm::Error> for Failure {
    fn from(error: vm::Error) -> Self {
        Self::of(Facts::of_vm(&error), &error)
    }
}

impl From<process::Error> for Failure {
    fn from(error: process::Error) -> Self {
        let stage = error.stage();
        Self::of(Facts::of_process(&error).at(stage), &error)
    }
}

impl From<settings::Error> for Failure {
    fn from(error: settings::Error) -> Self {
        Self::of(Facts::of(mvm_status::MVM_ERR_INVALID_CONFIG).at("options"), &error)
    }
}

impl From<OwnerDataError> for Failure {
    fn from(error: OwnerDataError) -> Self {
        Self::of(Facts::of(mvm_status::MVM_ERR_INVALID_ARGUMENT).at("owner_data"), &error)
    }
}

impl From<IdError> for Failure {
    fn from(error: IdError) -> Self {
        Self::of(Facts::of(mvm_status::MVM_ERR_INVALID_ARGUMENT).at("id"), &error)
    }
}

impl From<firecracker::http::RequestError> for Failure {
    fn from(error: firecracker::http::RequestError) -> Self {
        Self::of(Facts::of(mvm_status::MVM_ERR_INVALID_ARGUMENT).at("request"), &error)
    }
}

impl From<Taken> for Failure {
    fn from(error: Taken) -> Self {
        Self::of(Facts::of(mvm_status::MVM_ERR_BAD_STATE).at("log"), &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of(Facts::of_io(&error), &error)
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

/// This thread's last failure in the form in which C gets it.
pub(super) fn last() -> mvm_error {
    let none = || mvm_error::empty(0);
    LAST.try_with(|last| last.borrow().as_deref().map_or_else(none, encode)).unwrap_or_else(|_| none())
}

/// The whole message of this thread's last failure.
pub(super) fn last_message() -> String {
    LAST.try_with(|last| last.borrow().as_ref().map(|details| details.message.clone()).unwrap_or_default())
        .unwrap_or_default()
}

fn encode(details: &Details) -> mvm_error {
    let facts = &details.facts;
    let (exit_kind, exit_value) = exit_parts(facts.exit);
    mvm_error {
        size: 0,
        status: facts.status,
        os_errno: facts.os_errno,
        http_status: facts.http_status.into(),
        exit_kind,
        exit_value,
        stage: fixed(&facts.stage),
        message: fixed(&details.message),
        fault_message: fixed(&facts.fault),
        output: fixed(&facts.output),
    }
}

/// How a process ended, in two numbers.
pub(super) fn exit_parts(exit: Option<ExitStatus>) -> (mvm_exit_kind, i32) {
    match exit {
        None => (mvm_exit_kind::MVM_EXIT_NONE, 0),
        Some(ExitStatus::Code(code)) => (mvm_exit_kind::MVM_EXIT_CODE, code),
        Some(ExitStatus::Signal(signal)) => (mvm_exit_kind::MVM_EXIT_SIGNAL, signal),
        Some(ExitStatus::ReapedByHost) => (mvm_exit_kind::MVM_EXIT_REAPED_BY_HOST, 0),
    }
}

impl Sized32 for mvm_error {
    const FIRST_SIZE: usize = 4184;

    fn empty(size: u32) -> Self {
        Self {
            size,
            status: mvm_status::MVM_OK,
            os_errno: 0,
            http_status: 0,
            exit_kind: mvm_exit_kind::MVM_EXIT_NONE,
            exit_value: 0,
            stage: [0; 64],
            message: [0; 1024],
            fault_message: [0; 1024],
            output: [0; 2048],
        }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

/// The text in such an array, for tests.
#[cfg(test)]
pub(super) fn text(bytes: &[c_char]) -> String {
    let bytes = bytes.iter().take_while(|byte| **byte != 0).map(|byte| byte.to_ne_bytes()[0]);
    String::from_utf8(bytes.collect()).expect("always UTF-8")
}

/// The name of a status number.
pub(super) fn status_name(status: i32) -> &'static CStr {
    match status {
        0 => c"MVM_OK",
        -1 => c"MVM_ERR_INTERNAL",
        -2 => c"MVM_ERR_BAD_HANDLE",
        -3 => c"MVM_ERR_FORKED",
        -4 => c"MVM_ERR_INVALID_ARGUMENT",
        -5 => c"MVM_ERR_INVALID_CONFIG",
        -6 => c"MVM_ERR_BAD_STATE",
        -7 => c"MVM_ERR_NOT_FOUND",
        -8 => c"MVM_ERR_ALREADY_EXISTS",
        -9 => c"MVM_ERR_BUSY",
        -10 => c"MVM_ERR_TIMEOUT",
        -11 => c"MVM_ERR_INTERRUPTED",
        -12 => c"MVM_ERR_VMM_REFUSED",
        -13 => c"MVM_ERR_VMM_EXITED",
        -14 => c"MVM_ERR_VMM_PROTOCOL",
        -15 => c"MVM_ERR_UNSUPPORTED",
        -16 => c"MVM_ERR_PERMISSION",
        -17 => c"MVM_ERR_NO_RESOURCES",
        -18 => c"MVM_ERR_IO",
        -19 => c"MVM_ERR_DAMAGED",
        _ => c"unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        assert_eq!(text(&fixed::<6>("abcdefg")), "abcde");
        assert_eq!(text(&fixed::<6>("abcdäg")), "abcd");
        assert_eq!(text(&fixed::<6>("a\0b")), "a b");
    }

    #[test]
    fn the_first_size_of_the_error_is_what_0_1_had() {
        assert_eq!(size_of::<mvm_error>(), mvm_error::FIRST_SIZE);
    }

    #[test]
    fn the_message_is_one_line_with_all_causes() {
        let inner = io::Error::from_raw_os_error(libc::ENOSPC);
        let error =
            runtime::Error::Directory { action: "create the directory", path: "/x\ny".into(), source: inner };
        let failure = Failure::from(error);
        assert_eq!(failure.0.facts.status, mvm_status::MVM_ERR_NO_RESOURCES);
        assert!(failure.0.message.contains("/x y: No space left"), "{}", failure.0.message);
    }
}
