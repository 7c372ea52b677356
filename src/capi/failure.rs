//! A call that has failed, as C learns of it: a status, and the details that `mvm_last_error` copies. Which error becomes
//! which status is the business of [`facts`].

mod facts;

use super::argument::{Sized32, fixed};
use super::status::{mvm_error, mvm_exit_kind, mvm_status};
use crate::causes::with_causes;
use crate::firecracker;
use crate::observe::logging::Taken;
use crate::process::{self, ExitStatus};
use crate::runtime;
use crate::settings;
use crate::vm::{self, IdError, OwnerDataError};
use facts::Facts;
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
