//! The library's log, for C: a queue that is read like events, or a descriptor of the caller's.

use super::argument::{self, Sized32};
use super::failure::Failure;
use super::guard::guard;
use super::handle;
use super::status::mvm_status;
use crate::observe::logging::{self, Descriptor, Destination, Line, Queue};
use crate::sys::{file, output};
use log::{Level, LevelFilter};
use std::ffi::c_char;
use std::os::fd::{AsFd, IntoRawFd};
use std::time::UNIX_EPOCH;

/// How severe a line of the log is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_log_level {
    /// No line. As a level to log at: nothing is logged.
    MVM_LOG_OFF = 0,
    /// Something has failed.
    MVM_LOG_ERROR = 1,
    /// Something needs attention.
    MVM_LOG_WARN = 2,
    /// What happens to VMs.
    MVM_LOG_INFO = 3,
    /// Each request to a VMM.
    MVM_LOG_DEBUG = 4,
}

/// One line of the log. Set `size` to `sizeof(mvm_log_line)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_log_line {
    /// In: `sizeof(mvm_log_line)`.
    pub size: u32,
    /// How severe the line is; `MVM_LOG_OFF` when there is no line.
    pub level: mvm_log_level,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many lines before it were lost.
    pub dropped: u64,
    /// The part of the library that wrote it.
    pub target: [c_char; 64],
    /// The text.
    pub text: [c_char; 1024],
}

/// # The log
///
/// Keeps the library's log in a queue of `capacity` lines, for `mvm_log_next`. Lines less severe than `level` (an
/// `mvm_log_level`) are discarded. When the queue is full, the oldest lines are dropped. `MVM_LOG_OFF` turns the log
/// off; it is off at first. There is one log for the process.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT` (not a level), `MVM_ERR_BAD_STATE` (a Rust program has already set a logger of
/// its own), `MVM_ERR_NO_RESOURCES`. Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_log_to_queue(level: i32, capacity: usize) -> mvm_status {
    guard(|| {
        handle::own_process()?;
        lead(level, || Ok(Destination::Queue(Queue::new(capacity)?)))
    })
}

/// Writes the log to a duplicate of `fd`: a file, a pipe, a socket or a terminal. Each line is one write. A line that
/// would have to wait is dropped, and the next line says how many were dropped. No SIGPIPE is raised.
///
/// Errors: as `mvm_log_to_queue`; `MVM_ERR_IO` (`fd` is not open). Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_log_to_fd(level: i32, fd: i32) -> mvm_status {
    guard(|| {
        handle::own_process()?;
        lead(level, || {
            let given = file::duplicate_number(fd)?;
            Ok(Destination::Descriptor(Descriptor::new(output::without_waiting(given.as_fd())?)))
        })
    })
}

/// Takes the next line from the queue. If there is none, the call succeeds, and `line->level` is `MVM_LOG_OFF`.
///
/// Errors: `MVM_ERR_INVALID_ARGUMENT`. Blocks: never. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_log_next(line: *mut mvm_log_line) -> mvm_status {
    guard(|| {
        handle::own_process()?;
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::sized_out(line, "line") }?;
        logging::next().iter().for_each(|line| out.write(encode(line)));
        Ok(())
    })
}

/// Returns a file descriptor that is readable while the queue holds lines. Poll it, do not read it.
///
/// Errors: `MVM_ERR_IO` (the log does not go to a queue), `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
/// Blocks: never. Ownership: `*fd` is the caller's, close-on-exec, for `close`; -1 after an error. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_log_queue_fd(fd: *mut i32) -> mvm_status {
    guard(|| {
        handle::own_process()?;
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(fd, -1, "fd") }?;
        out.write(logging::queue_fd()?.into_raw_fd());
        Ok(())
    })
}

/// Returns the name of an `mvm_log_level`: the constant without its prefix, in lower case, such as `"warn"`. Any other
/// number is `"unknown"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_log_level_name(level: i32) -> *const c_char {
    let name = match level {
        0 => c"off",
        1 => c"error",
        2 => c"warn",
        3 => c"info",
        4 => c"debug",
        _ => c"unknown",
    };
    name.as_ptr()
}

fn lead(level: i32, destination: impl FnOnce() -> std::io::Result<Destination>) -> Result<(), Failure> {
    let level = match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => return Err(Failure::argument(format!("{level} is not an mvm_log_level"))),
    };
    let destination = if level == LevelFilter::Off { Destination::Nowhere } else { destination()? };
    Ok(logging::lead(level, destination)?)
}

fn encode(line: &Line) -> mvm_log_line {
    let time = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    mvm_log_line {
        size: 0,
        level: match line.level {
            Level::Error => mvm_log_level::MVM_LOG_ERROR,
            Level::Warn => mvm_log_level::MVM_LOG_WARN,
            Level::Info => mvm_log_level::MVM_LOG_INFO,
            Level::Debug | Level::Trace => mvm_log_level::MVM_LOG_DEBUG,
        },
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        dropped: line.dropped,
        target: argument::fixed(&line.target),
        text: argument::fixed(&line.text),
    }
}

impl Sized32 for mvm_log_line {
    const FIRST_SIZE: usize = 1112;

    fn empty(size: u32) -> Self {
        let level = mvm_log_level::MVM_LOG_OFF;
        Self { size, level, time_ms: 0, dropped: 0, target: [0; 64], text: [0; 1024] }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_size_of_a_line_is_what_0_1_had() {
        assert_eq!(size_of::<mvm_log_line>(), mvm_log_line::FIRST_SIZE);
    }
}
