//! `"mvm"."limits"`: what a VM may use of the host.

use super::SpecError;
use crate::host::cgroups::{CgroupLimits, IoLimits};
use crate::settings::{self, Section};
use std::path::{Path, PathBuf};

/// The least time of a CPU that the kernel gives, by the hundredth.
const LEAST_CPUS: f64 = 0.01;
/// More than any machine has, and few enough to be counted in microseconds.
const MOST_CPUS: f64 = 1e6;

pub(super) fn read(mut given: Section, base: &Path) -> Result<CgroupLimits, settings::Error> {
    let limits = CgroupLimits {
        cpus: given.take("cpus")?,
        cpu_weight: given.take("cpu_weight")?,
        cpuset_cpus: given.take("cpuset_cpus")?,
        cpuset_mems: given.take("cpuset_mems")?,
        memory_mib: given.take("memory_mib")?,
        swap_mib: given.take("swap_mib")?,
        pids: given.take("pids")?,
        io: given.sections("io")?.into_iter().map(|one| io(one, base)).collect::<Result<_, _>>()?,
    };
    given.finish().map(|()| limits)
}

fn io(mut given: Section, base: &Path) -> Result<IoLimits, settings::Error> {
    let limits = IoLimits {
        path: base.join(given.need::<PathBuf>("path")?),
        read_bytes: given.take("read_bytes_per_second")?,
        write_bytes: given.take("write_bytes_per_second")?,
        read_ops: given.take("read_ops_per_second")?,
        write_ops: given.take("write_ops_per_second")?,
    };
    given.finish().map(|()| limits)
}

/// Refuses numbers that no kernel takes.
pub(super) fn check(limits: &CgroupLimits) -> Result<(), SpecError> {
    let wrong = |key: &str, wanted| Err(SpecError::Kind { path: format!("mvm.limits.{key}"), wanted });
    if limits.cpus.is_some_and(|cpus| !(LEAST_CPUS..=MOST_CPUS).contains(&cpus)) {
        return wrong("cpus", "a number of CPUs, at least 0.01, as in 1.5");
    }
    if limits.cpu_weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
        return wrong("cpu_weight", "a whole number from 1 to 10000");
    }
    if limits.memory_mib == Some(0) {
        return wrong("memory_mib", "a whole number of MiB, at least 1");
    }
    if limits.pids == Some(0) {
        return wrong("pids", "a whole number, at least 1");
    }
    if limits.memory_mib.is_none() && limits.swap_mib.is_some_and(|mib| mib != 0) {
        return wrong("swap_mib", "0, or memory_mib must be set too");
    }
    let is_idle = |io: &IoLimits| {
        [io.read_bytes, io.write_bytes, io.read_ops, io.write_ops].iter().all(Option::is_none)
    };
    match limits.io.iter().position(is_idle) {
        Some(index) => wrong(
            &format!("io[{index}]"),
            "an object with at least one of read_bytes_per_second, write_bytes_per_second, read_ops_per_second and \
             write_ops_per_second",
        ),
        None => Ok(()),
    }
}
