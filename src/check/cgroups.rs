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

/// Adds one limit to others.
type With = fn(CgroupLimits) -> CgroupLimits;

/// Each limit by itself, as a VM would have it.
fn limits(parent: Option<&Path>) -> Finding {
    let each: [(&str, With); 4] = [
        ("cpu", |limits| CgroupLimits { cpus: Some(1.0), ..limits }),
        ("cpuset", |limits| CgroupLimits { cpuset_cpus: Some("0".to_owned()), ..limits }),
        ("memory", |limits| CgroupLimits { memory_mib: Some(128), ..limits }),
        ("pids", |limits| CgroupLimits { pids: Some(64), ..limits }),
    ];
    let none = CgroupLimits::default;
    let (possible, missing): (Vec<_>, Vec<_>) =
        each.into_iter().partition(|(_, with)| can_be_made(&with(none()), parent).is_ok());
    // All that is missing at once, so that the advice has to be followed once.
    let wanted = missing.iter().fold(none(), |limits, (_, with)| with(limits));
    let why = if missing.is_empty() { None } else { can_be_made(&wanted, parent).err() };
    let [possible, missing] =
        [possible, missing].map(|some| some.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
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
