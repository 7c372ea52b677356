//! What runs beside a VMM because of it: a Firecracker that a wrapper waits for instead of executing it, or helpers that a
//! wrapper has started before it did. They end with the VMM.
//!
//! They are known by two things that a child inherits: they print to the VM's console, whose lock they hold, or are in the
//! VMM's session and work in its directory. A cgroup of the VM's own tells more, where there is one, and takes what is
//! left afterwards; a subreaper would be a property of the whole host process. Where there is none, whoever leaves the
//! session, the directory and the console stays: it has done all that a program can do to be let alone.

use super::VmmFiles;
use crate::process::{self, Limits, Process, Waited};
use crate::sorted::sorted_by;
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::pidfd::Signal;
use crate::sys::{procfs, session};
use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Ends what ran beside the VMM with the number `leader`, which has ended. Where nothing is left it takes some system
/// calls; otherwise each process is looked at again when it is held, so that nobody is ended who only has its number.
/// `is_current` says, when they are held, whether this is still the VM's last VMM: the next one prints there too.
///
/// # Errors
/// When one outlives SIGKILL.
pub(crate) fn end_companions(
    leader: i32,
    files: &VmmFiles,
    is_current: impl Fn() -> bool,
) -> Result<(), process::Error> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Deadline::after(PATIENCE);
    let console = files.console();
    // What forks while it is being ended is found by the next look.
    while session::group_exists(leader) || is_console_held(&console).unwrap_or(false) {
        let companions = find(leader, files);
        if companions.is_empty() || !is_current() {
            return Ok(());
        }
        companions.iter().try_for_each(|process| process.send(Signal::Kill))?;
        for process in &companions {
            log::info!("process {} was started beside VMM {leader}, and was killed with it", process.pid());
            match process.wait(Limits { deadline, interrupt: None })? {
                Waited::Exited(_) => {}
                _ => return Err(process::Error::Stuck { pid: process.pid(), after: PATIENCE }),
            }
        }
    }
    Ok(())
}

/// Whether a VMM, or what is about to become one, is alive: it holds the lock of the console.
pub(crate) fn is_console_held(console: &Path) -> io::Result<bool> {
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

fn find(leader: i32, files: &VmmFiles) -> Vec<Process> {
    let (console, directory) = (files.console(), files.working_directory());
    let is_one = |pid: i32| {
        procfs::prints_to(pid, &console)
            || session::session_of(pid) == Some(leader) && procfs::works_in(pid, directory) == Some(true)
    };
    let printing = procfs::printing_to(&console).unwrap_or_default();
    let mut numbers = session::members(leader).unwrap_or_default();
    numbers.extend(printing);
    let mut numbers = sorted_by(numbers, |pid| u64::from(pid.cast_unsigned()));
    numbers.dedup();
    numbers.retain(|pid| *pid != std::process::id().cast_signed());
    numbers.into_iter().filter_map(|pid| Process::hold(pid, is_one).ok().flatten()).collect()
}
