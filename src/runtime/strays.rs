//! VMMs whose VM's directory was moved away or deleted while they ran: no journal tells of them any more.

use crate::claims::{self, Cgroup, Claim, Uid};
use crate::firecracker::MARKER;
use crate::journal::{self, owner};
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
        let cgroups = Cgroup::of_process(self.pid()).into_iter().map(Claim::Cgroup);
        let owned = cgroups.chain(Uid::of_process(self.pid()).map(Claim::Uid)).collect::<Vec<_>>();
        self.process.kill(PATIENCE)?;
        claims::undo_all(&owned, &self.place);
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
    held.filter_map(|process| Some(Stray { place: place_of(process.pid())?, process })).collect()
}

fn is_stray(pid: i32, vms: [&Path; 2]) -> bool {
    let Some(place) = place_of(pid) else { return false };
    let is_below = |path: &Path| vms.iter().any(|vms| path.starts_with(vms));
    let was_made_here = || procfs::variable_of(pid, MARKER).is_some_and(|path| is_below(Path::new(&path)));
    (is_below(&place) || was_made_here())
        && !is_in_place(pid, &place, vms)
        && !is_of_another_owner(pid, &place, vms)
}

/// Where it works. A VMM in a jail says that it is the root of the file system, and has no environment; but its console lies
/// beside its working directory.
fn place_of(pid: i32) -> Option<PathBuf> {
    let place = procfs::working_path(pid)?;
    if !is_root_of_a_jail(&place) {
        return Some(place);
    }
    let console = procfs::stdout_path(pid)?;
    Some(console.parent().map_or(place, journal::vmm_directory))
}

/// Or that of the host's file system.
fn is_root_of_a_jail(place: &Path) -> bool {
    [Path::new("/"), Path::new("/ (deleted)")].contains(&place)
}

/// Whether it works in the directory of a VM that is there: the journal in it tells of it.
fn is_in_place(pid: i32, place: &Path, vms: [&Path; 2]) -> bool {
    let below = vms.iter().find_map(|vms| place.strip_prefix(vms).ok());
    let name = below.and_then(|below| below.components().next()).map(|name| name.as_os_str());
    // A jailer calls the same directory otherwise before it is the root of a jail.
    let works_in = |directory: &Path| procfs::works_in(pid, directory) == Some(true);
    let works_there = |name| {
        let own = vms.iter().map(|vms| journal::vmm_directory(&vms.join(name)));
        works_in(place) || own.into_iter().any(|own| works_in(&own))
    };
    name.is_some_and(|name| matches!(Entry::of(name), Entry::Vm(_)) && works_there(name))
}

/// Whether it works in a state directory that was moved as a whole, and is found there.
fn is_of_another_owner(pid: i32, working: &Path, [vms, _]: [&Path; 2]) -> bool {
    // From the root of a jail nothing leads upwards, and what is there is the VMM's.
    let is_jailed = procfs::working_path(pid).is_some_and(|path| is_root_of_a_jail(&path));
    let working = if is_jailed { working.to_path_buf() } else { PathBuf::from(format!("/proc/{pid}/cwd")) };
    let state = working.join("../../..");
    let place = |path: &Path| fs::metadata(path).ok().as_ref().map(file::identity);
    owner::lock_file(&state).exists() && place(&state) != vms.parent().and_then(place)
}
