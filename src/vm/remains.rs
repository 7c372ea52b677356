//! What is left of a VMM whose owner is gone: found, ended, cleaned up after. Everything here may be done again, by
//! the next owner or by two helpers at once.
//!
//! A process is found by the identity in the journal. One that its owner had no time to note is found by the
//! console: a VMM holds the lock of the file that it prints to from before it executes until it is gone.

use crate::firecracker::VmmFiles;
use crate::journal::{Record, VmmRecord};
use crate::process::{self, ExitStatus, Identity, Limits, Process, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::pidfd::Signal;
use crate::sys::procfs;
use crate::sys::socket;
use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why the remains of a VMM could not be dealt with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemainsError {
    /// Somebody holds the console.
    #[error(
        "a process that cannot be seen from here still prints to {}: it is another user's or another container's; \
         end it there",
        console.display()
    )]
    Unseen {
        /// The console.
        console: PathBuf,
    },
    /// The journal names a process that works elsewhere.
    #[error(
        "its journal names process {pid}, which does not work in {}: this is a copy of the VM's directory",
        directory.display()
    )]
    Elsewhere {
        /// The process.
        pid: i32,
        /// The directory.
        directory: PathBuf,
    },
    /// The console, or `/proc`.
    #[error("cannot look for what still prints to {}", console.display())]
    Search {
        /// The console.
        console: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process.
    #[error("cannot end what is left of its VMM")]
    Process(#[from] process::Error),
}

/// The VMM that `record` speaks of, if it is still there; a zombie counts, because it can tell how it ended.
pub(crate) fn find_vmm(
    record: &Record,
    files: &VmmFiles,
    boot: &str,
) -> Result<Option<Process>, RemainsError> {
    let Some(vmm) = record.vmm.as_ref().filter(|_| record.boot == boot) else { return Ok(None) };
    let Some(process) = vmm.process.map(Process::find).transpose()?.flatten() else {
        return find_by_console(&files.console());
    };
    // One that is ending does not tell where it works any more.
    match procfs::works_in(process.pid(), files.working_directory()) {
        Some(false) => {
            let (pid, directory) = (process.pid(), files.working_directory().to_path_buf());
            Err(RemainsError::Elsewhere { pid, directory })
        }
        Some(true) | None => Ok(Some(process)),
    }
}

/// Ends the VMM that `record` speaks of, and removes the sockets that it leaves behind.
pub(crate) fn end_vmm(
    record: &Record,
    files: &VmmFiles,
    boot: &str,
) -> Result<Option<ExitStatus>, RemainsError> {
    let exit = find_vmm(record, files, boot)?.map(|process| end(&process)).transpose()?;
    record.vmm.iter().for_each(|vmm| remove_sockets(vmm, files));
    Ok(exit)
}

/// Removes the sockets of a VMM that is gone.
pub(crate) fn remove_sockets(vmm: &VmmRecord, files: &VmmFiles) {
    vmm.sockets.iter().for_each(|path| socket::remove_dead(&files.working_directory().join(path)));
}

/// How long a process may take to end after SIGKILL, and one that is being started to show itself.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

fn end(process: &Process) -> Result<ExitStatus, process::Error> {
    if let Some(exit) = process.exit_status()? {
        return Ok(exit);
    }
    process.send(Signal::Kill)?;
    let limits = Limits { deadline: Deadline::after(PATIENCE), interrupt: None };
    match process.wait(limits)? {
        Waited::Exited(exit) => Ok(exit),
        _ => Err(process::Error::Stuck { pid: process.pid(), after: PATIENCE }),
    }
}

/// A child that has not yet executed prints nowhere, and is waited for.
fn find_by_console(console: &Path) -> Result<Option<Process>, RemainsError> {
    let failed = |source| RemainsError::Search { console: console.into(), source };
    let deadline = Deadline::after(PATIENCE);
    while is_held(console).map_err(failed)? {
        for pid in procfs::printing_to(console).map_err(failed)? {
            let Ok(identity) = Identity::of(pid) else { continue };
            // Looked at once more when it is held: the number may have changed hands in between.
            if let Some(process) = Process::find(identity)?
                && procfs::prints_to(pid, console)
            {
                return Ok(Some(process));
            }
        }
        if deadline.has_passed() {
            return Err(RemainsError::Unseen { console: console.into() });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(None)
}

/// Whether a VMM, or what is about to become one, is alive.
fn is_held(console: &Path) -> io::Result<bool> {
    let file = match file::open_plain(OpenOptions::new().read(true), console) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
