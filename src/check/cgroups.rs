//! The control groups of VMs: those that the options name, and those that would be made for VMs with limits.

use super::Purpose::Cgroups;
use super::Status::{Limited, No};
use super::{Finding, Subject};
use crate::causes::with_causes;
use crate::host::cgroups::{CgroupError, CgroupLimits, for_limits};
use crate::json::object;
use crate::process;
use crate::sys::cgroup::is_writable;
use std::path::{Path, PathBuf};

pub(super) fn look(subject: &Subject<'_>) -> Vec<Finding> {
    let named = (!subject.cgroups.is_empty()).then(|| usable(subject.cgroups));
    named.into_iter().chain([limits(subject.cgroup_parent)]).collect()
}

/// The cgroups that the options name.
fn usable(named: &[PathBuf]) -> Finding {
    match process::Cgroups::open(named) {
        Ok(_) => Finding::yes("cgroup", Cgroups, "processes can be put into the cgroup of the options"),
        Err(error) => Finding::yes("cgroup", Cgroups, with_causes(&error))
            .but(No, "make the cgroup, and let this user write to its cgroup.procs and to that of the cgroup above both"),
    }
}

/// Each limit by itself, as a VM would have it.
fn limits(parent: Option<&Path>) -> Finding {
    let none = CgroupLimits::default;
    let all = [
        ("cpu", CgroupLimits { cpus: Some(1.0), ..none() }),
        ("cpuset", CgroupLimits { cpuset_cpus: Some("0".to_owned()), ..none() }),
        ("memory", CgroupLimits { memory_mib: Some(128), ..none() }),
        ("pids", CgroupLimits { pids: Some(64), ..none() }),
    ];
    let (mut possible, mut missing, mut why) = (Vec::new(), Vec::new(), None);
    for (name, limits) in all {
        match can_be_made(&limits, parent) {
            Ok(()) => possible.push(name),
            Err(problem) => {
                missing.push(name);
                why.get_or_insert(problem);
            }
        }
    }
    let finding =
        Finding::yes("cgroup_limits", Cgroups, format!("VMs can have limits by {}", possible.join(", ")))
            .seeing(object! { "possible": possible.clone(), "missing": missing.clone() });
    match why {
        None => finding,
        Some(why) if possible.is_empty() => finding.reading("VMs can have no limits".to_owned()).but(No, why),
        Some(why) => {
            finding.reading(format!("VMs can have no limits by {}", missing.join(", "))).but(Limited, why)
        }
    }
}

fn can_be_made(limits: &CgroupLimits, parent: Option<&Path>) -> Result<(), String> {
    let cgroups = for_limits(limits, parent).map_err(|error: CgroupError| with_causes(&error))?;
    for cgroup in &cgroups {
        let existing = cgroup.path().ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
        if !is_writable(existing) {
            return Err(format!(
                "let this user create cgroups in {}, or set \"cgroup_parent\" to one that belongs to it (systemd: Delegate=yes)",
                existing.display()
            ));
        }
    }
    Ok(())
}
