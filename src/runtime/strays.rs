//! VMMs whose VM's directory was moved away or deleted while they ran: no journal tells of them any more.

use crate::claims::{self, Cgroup, Claim};
use crate::firecracker::MARKER;
use crate::journal::owner;
use crate::process::{self, Process};
use crate::sys::{file, procfs};
use crate::vm::directory::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A VMM without a VM.
#[derive(Debug)]
pub(super) struct Stray {
    process: Process,
    /// Where it works, as the kernel calls it.
    pub(super) place: PathBuf,
}

impl Stray {
    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Ends it.
    pub(super) fn end(&self) -> Result<(), process::Error> {
        const PATIENCE: Duration = Duration::from_secs(5);
        // No journal tells of them any more.
        let cgroups = Cgroup::of_process(self.pid()).into_iter().map(Claim::Cgroup).collect::<Vec<_>>();
        self.process.kill(PATIENCE)?;
        claims::undo_all(&cgroups, &self.place);
        Ok(())
    }
}

/// Those of the state directory in which `vms` is the directory of VMs, as far as they can be seen.
pub(super) fn find(vms: &Path) -> Vec<Stray> {
    let own = std::process::id().cast_signed();
    let real = fs::canonicalize(vms).unwrap_or_else(|_| vms.to_path_buf());
    let is_one = |pid: i32| pid != own && is_stray(pid, [vms, &real]);
    let numbers = procfs::processes().into_iter().flatten();
    let held = numbers.filter_map(|pid| Process::hold(pid, is_one).ok().flatten());
    held.filter_map(|process| Some(Stray { place: procfs::working_path(process.pid())?, process })).collect()
}

fn is_stray(pid: i32, vms: [&Path; 2]) -> bool {
    let Some(place) = procfs::working_path(pid) else { return false };
    let is_below = |path: &Path| vms.iter().any(|vms| path.starts_with(vms));
    let was_made_here = || procfs::variable_of(pid, MARKER).is_some_and(|path| is_below(Path::new(&path)));
    (is_below(&place) || was_made_here()) && !is_in_place(pid, &place, vms) && !is_of_another_owner(pid, vms)
}

/// Whether it works in the directory of a VM that is there: the journal in it tells of it.
fn is_in_place(pid: i32, place: &Path, vms: [&Path; 2]) -> bool {
    let below = vms.iter().find_map(|vms| place.strip_prefix(vms).ok());
    let name = below.and_then(|below| below.components().next()).map(|name| name.as_os_str());
    name.is_some_and(|name| matches!(Entry::of(name), Entry::Vm(_)))
        && procfs::works_in(pid, place) == Some(true)
}

/// Whether it works in a state directory that was moved as a whole, and is found there.
fn is_of_another_owner(pid: i32, [vms, _]: [&Path; 2]) -> bool {
    let state = PathBuf::from(format!("/proc/{pid}/cwd/../../.."));
    let place = |path: &Path| fs::metadata(path).ok().as_ref().map(file::identity);
    owner::lock_file(&state).exists() && place(&state) != vms.parent().and_then(place)
}
