//! What is left of a VMM whose owner is gone: found, ended, cleaned up after. Everything here may be done again, by
//! the next owner or by two helpers at once.
//!
//! A process is found by the identity in the journal. One that its owner had no time to note is found by the
//! console: a VMM holds the lock of the file that it prints to from before it executes until it is gone.

use super::Spec;
use crate::claims::{self, Cgroup, Claim};
use crate::firecracker::VmmFiles;
use crate::firecracker::companions::{end_companions, is_console_held};
use crate::journal::{self, Record, VmmRecord};
use crate::process::{self, ExitStatus, Limits, Process, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::procfs::{self, ProcessStat};
use crate::sys::session;
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
        "a process that this process cannot see still prints to {}: it belongs to another user or another container; \
         end it there",
        console.display()
    )]
    Unseen {
        /// The console.
        console: PathBuf,
    },
    /// The journal names a process that works elsewhere.
    #[error(
        "its journal names process {pid}, whose working directory is not {}: this is a copy of the VM's directory",
        directory.display()
    )]
    Elsewhere {
        /// The process.
        pid: i32,
        /// The directory.
        directory: PathBuf,
    },
    /// The journal names a process that does not say where it works.
    #[error(
        "its journal names process {pid}, and this process has no permission to check whether that is its VMM; it was \
         not signalled: run the owner as the user who started the VM, or end the process as that user"
    )]
    Unproven {
        /// The process.
        pid: i32,
    },
    /// The console, or `/proc`.
    #[error("cannot search for processes that still print to {}", console.display())]
    Search {
        /// The console.
        console: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process.
    #[error("cannot end the leftovers of its VMM")]
    Process(#[from] process::Error),
}

/// The VMM that `record` speaks of, if it is still there; a zombie counts, because it can tell how it ended. A journal is
/// believed only for what can be seen: a process that it names works in the VM's directory, or prints to its console,
/// and where it names none, nobody holds the console.
pub(crate) fn find_vmm(
    record: &Record,
    files: &VmmFiles,
    boot: &str,
) -> Result<Option<Process>, RemainsError> {
    let vmm = record.vmm.as_ref().filter(|_| record.boot == boot);
    let Some(identity) = vmm.and_then(|vmm| vmm.process) else { return find_by_console(&files.console()) };
    // Who prints there when this one is gone ran beside it, and is no VMM.
    let Some(process) = Process::find(identity)? else { return Ok(None) };
    let pid = process.pid();
    // Looked at after the process is held, so that the number is its own.
    match procfs::works_in(pid, files.working_directory()) {
        Some(true) => Ok(Some(process)),
        _ if procfs::prints_to(pid, &files.console()) => Ok(Some(process)),
        // One that is ending does not tell where it works any more. It needs no signal, and gets none.
        None if ends_by_itself(&process)? => Ok(Some(process)),
        seen => match find_by_console(&files.console())? {
            Some(process) => Ok(Some(process)),
            None if seen.is_none() => Err(RemainsError::Unproven { pid }),
            None => {
                let directory = files.working_directory().to_path_buf();
                Err(RemainsError::Elsewhere { pid, directory })
            }
        },
    }
}

fn ends_by_itself(process: &Process) -> Result<bool, process::Error> {
    if process.exit_status()?.is_some() {
        return Ok(true);
    }
    if !ProcessStat::of(process.pid()).is_ok_and(|stat| stat.is_ending) {
        return Ok(false);
    }
    let limits = Limits { deadline: Deadline::after(PATIENCE), interrupt: None };
    Ok(matches!(process.wait(limits)?, Waited::Exited(_)))
}

/// Ends the VMM that `record` speaks of and what ran beside it, and undoes what it claimed on this host.
pub(crate) fn end_vmm(
    record: &Record,
    files: &VmmFiles,
    boot: &str,
) -> Result<Option<ExitStatus>, RemainsError> {
    let exit = kill_vmm(record, files, boot)?;
    if let Some(vmm) = &record.vmm {
        await_pager(vmm, boot == record.boot)?;
        let spec = spec_in(files).unwrap_or_default();
        let credible =
            vmm.claims.iter().filter(|claim| is_credible(claim, &spec)).cloned().collect::<Vec<_>>();
        claims::undo_all(&credible, files.working_directory());
    }
    Ok(exit)
}

/// A pager ends when its VMM has, and stores its working set: time for that is given, before what is in the VM's cgroup is
/// killed.
fn await_pager(vmm: &VmmRecord, is_of_this_boot: bool) -> Result<(), RemainsError> {
    let has_cgroup = vmm.claims.iter().any(|claim| claim.cgroup().is_some());
    let noted = vmm.pager.as_ref().and_then(|pager| pager.process).filter(|_| has_cgroup && is_of_this_boot);
    if let Some(pager) = noted.map(Process::find).transpose()?.flatten() {
        let _ended_or_late =
            pager.wait(Limits { deadline: Deadline::after(PAGERS_PATIENCE), interrupt: None })?;
    }
    Ok(())
}

/// The same, and its claims stay.
pub(crate) fn kill_vmm(
    record: &Record,
    files: &VmmFiles,
    boot: &str,
) -> Result<Option<ExitStatus>, RemainsError> {
    let found = find_vmm(record, files, boot)?;
    let session = found.as_ref().and_then(|process| session::session_of(process.pid()));
    if found.is_some() {
        record.lift_quotas();
    }
    let exit = found.map(|process| end(&process)).transpose()?;
    let noted = record.vmm.as_ref().filter(|_| record.boot == boot).and_then(|vmm| vmm.process);
    if let Some(leader) = session.or(noted.map(|process| process.pid)) {
        end_companions(leader, files, || is_current(record, files))?;
    }
    Ok(exit)
}

/// Whether the journal still names the VMM that `record` does. Before the next one is made, it says so.
fn is_current(record: &Record, files: &VmmFiles) -> bool {
    let process = |record: &Record| record.vmm.as_ref().map(|vmm| vmm.process);
    journal::read::<Record>(&journal::journal_file(files.directory()))
        .is_ok_and(|now| (now.runs, process(&now)) == (record.runs, process(record)))
}

/// Whether what a journal claims may be the VM's: a socket below its VMM's working directory, or one that its spec names; a
/// cgroup that is called as none but those of VMs are.
pub(super) fn is_credible(claim: &Claim, spec: &Spec) -> bool {
    match claim {
        Claim::Socket(socket) => socket.path().is_relative() || spec.binds(socket.path()),
        Claim::Cgroup(cgroup) => cgroup.is_well_named(),
        Claim::Link(link) => spec.vsock_looked_for_at() == Some(link.at()),
        // Only the lease of the same random token is undone.
        Claim::Uid(_) => true,
    }
}

fn spec_in(files: &VmmFiles) -> Option<Spec> {
    let record = journal::read(&journal::spec_file(files.directory())).ok()?;
    Spec::of_record_file(&record).ok()
}

/// Ends every process that prints to the VM's console, or works in its VMM's directory, whatever its journal says; gives
/// their numbers.
pub(crate) fn end_whatever_runs(files: &VmmFiles) -> Result<Vec<i32>, RemainsError> {
    let (console, own) = (files.console(), std::process::id().cast_signed());
    let failed = |source| RemainsError::Search { console: console.clone(), source };
    let is_one = |pid: i32| {
        pid != own
            && (procfs::prints_to(pid, &console)
                || procfs::works_in(pid, files.working_directory()) == Some(true))
    };
    let (mut ended, mut cgroups) = (Vec::new(), Vec::new());
    loop {
        let mut found = procfs::processes().map_err(failed)?.filter(|pid| is_one(*pid));
        let Some(process) = found.find_map(|pid| Process::hold(pid, is_one).transpose()).transpose()? else {
            break;
        };
        cgroups.extend(cgroups_of(&process));
        end(&process)?;
        ended.push(process.pid());
    }
    // A child that has not executed yet, or one that cannot be seen.
    match find_by_console(&console) {
        Ok(None) | Err(RemainsError::Search { .. }) => {}
        Ok(Some(process)) => {
            cgroups.extend(cgroups_of(&process));
            end(&process)?;
            ended.push(process.pid());
        }
        Err(error) => return Err(error),
    }
    // No journal tells of them that could be believed.
    claims::undo_all(&cgroups, files.working_directory());
    Ok(ended)
}

/// The cgroups of a VM's own that a process is in.
fn cgroups_of(process: &Process) -> impl Iterator<Item = Claim> {
    Cgroup::of_process(process.pid()).into_iter().map(Claim::Cgroup)
}

/// How long a process may take to end after SIGKILL, and one that is being started to show itself.
const PATIENCE: Duration = Duration::from_secs(5);
const PAGERS_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

fn end(process: &Process) -> Result<ExitStatus, process::Error> {
    if let Some(exit) = process.exit_status()? {
        return Ok(exit);
    }
    process.kill(PATIENCE)
}

/// A child that has not yet executed prints nowhere, and is waited for.
fn find_by_console(console: &Path) -> Result<Option<Process>, RemainsError> {
    let failed = |source| RemainsError::Search { console: console.into(), source };
    let deadline = Deadline::after(PATIENCE);
    while is_console_held(console).map_err(failed)? {
        for pid in procfs::printing_to(console).map_err(failed)? {
            if let Some(process) = Process::hold(pid, |pid| procfs::prints_to(pid, console))? {
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
