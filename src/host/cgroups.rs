//! What a VM may use of this host, and which cgroups see to that: in each hierarchy that has a controller for it one, and one
//! by which all of them can be ended.
//!
//! Here it is only found out what is to be made, and whether it can be; making and removing is the claims' business.

mod device;
mod error;

pub use error::CgroupError;

use crate::claims::{Cgroup, Making, Setting, USUAL_PARENT, another_name};
use crate::sys::cgroup::{self, CHILDREN_HAVE, CONTROLLERS, Hierarchy, Version, hierarchies};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// What a VM may use of this host. Nothing is as much as there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CgroupLimits {
    /// How many CPUs' time.
    pub(crate) cpus: Option<f64>,
    /// Its share of the CPUs when there are not enough for all, by version 2: from 1 to 10,000, usually 100.
    pub(crate) cpu_weight: Option<u64>,
    /// The CPUs that it may run on, as the kernel lists them.
    pub(crate) cpuset_cpus: Option<String>,
    /// The memory nodes that it may use.
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) swap_mib: Option<u64>,
    /// How many processes and threads.
    pub(crate) pids: Option<u64>,
    pub(crate) io: Vec<IoLimits>,
}

/// What it may read from one device and write to it, in a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IoLimits {
    /// The device, or a file or directory on it.
    pub(crate) path: PathBuf,
    pub(crate) read_bytes: Option<u64>,
    pub(crate) write_bytes: Option<u64>,
    pub(crate) read_ops: Option<u64>,
    pub(crate) write_ops: Option<u64>,
}

/// What the kernel limits by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
    Io,
}

/// Those of version 2 that tell what is used.
const USEFUL: [Controller; 4] = [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Io];
/// What the quota of CPU time is counted in, in microseconds.
const PERIOD: u64 = 100_000;
const MIB: u64 = 1 << 20;

/// The cgroups for one VMM that is to have `limits`, in `parent` or where they are made otherwise. They are made in this order,
/// and the last one is the first from which processes are ended.
///
/// # Errors
/// What is missing for that on this machine, and what to do about it.
pub(crate) fn for_limits(limits: &CgroupLimits, parent: Option<&Path>) -> Result<Vec<Cgroup>, CgroupError> {
    let hierarchies = hierarchies().map_err(CgroupError::Unknown)?;
    for_limits_in(limits, parent, &hierarchies)
}

fn for_limits_in(
    limits: &CgroupLimits,
    parent: Option<&Path>,
    hierarchies: &[Hierarchy],
) -> Result<Vec<Cgroup>, CgroupError> {
    let parent = below_roots(parent, hierarchies)?;
    let wanted = limits.controllers();
    let is_of_version_1 = |controller: &Controller| {
        let name = controller.name(Version::One);
        hierarchies.iter().any(|one| one.version == Version::One && one.has(name))
    };
    let (old, new) = wanted.into_iter().partition::<Vec<_>, _>(is_of_version_1);
    let unified = hierarchies.iter().find(|one| one.version == Version::Two);
    let is_missing = |one: &&Controller| unified.is_none_or(|root| !root.has(one.name(Version::Two)));
    let missing = new.iter().filter(is_missing).copied().collect::<Vec<_>>();
    if !missing.is_empty() {
        let keys = missing.iter().map(|controller| controller.keys()).collect();
        let root = unified.map(|unified| unified.root.clone());
        return Err(CgroupError::Missing { keys, controllers: names_of(&missing), root });
    }
    let name = another_name().map_err(CgroupError::Unknown)?;
    let place = |root: &Hierarchy| root.root.join(&parent).join(&name);
    let mut cgroups = Vec::new();
    for root in hierarchies.iter().filter(|one| one.version == Version::One) {
        let own = old.iter().filter(|one| root.has(one.name(Version::One))).copied().collect::<Vec<_>>();
        if own.is_empty() {
            continue;
        }
        let settings = limits.settings(&own, Version::One)?;
        // Where several controllers share a hierarchy.
        let wants_cpuset = root.has(Controller::Cpuset.name(Version::One));
        cgroups.push(Cgroup::new(place(root), Making { wants_cpuset, settings, ..Making::default() }));
    }
    match unified {
        Some(root) if !new.is_empty() || may_make_in(root, &parent) => {
            check_parent(root, &parent, &new)?;
            let is_useful = |one: &Controller| !new.contains(one) && root.has(one.name(Version::Two));
            let useful = USEFUL.into_iter().filter(is_useful).collect::<Vec<_>>();
            let settings = limits.settings(&new, Version::Two)?;
            let (controllers, useful) = (names_of(&new), names_of(&useful));
            let making = Making { controllers, useful, wants_cpuset: false, settings };
            cgroups.push(Cgroup::new(place(root), making));
        }
        _ => {
            // By which all its processes can be stopped before they are killed.
            let freezer = hierarchies.iter().find(|one| one.version == Version::One && one.has("freezer"));
            let freezer = freezer.filter(|root| may_make_in(root, &parent));
            let is_new = |root: &&Hierarchy| cgroups.iter().all(|one| one.path() != place(root));
            cgroups.extend(freezer.filter(is_new).map(|root| Cgroup::new(place(root), Making::default())));
        }
    }
    if cgroups.is_empty() { Err(CgroupError::None) } else { Ok(cgroups) }
}

/// The parent, from the root of each hierarchy on.
fn below_roots(parent: Option<&Path>, hierarchies: &[Hierarchy]) -> Result<PathBuf, CgroupError> {
    let Some(parent) = parent else { return Ok(USUAL_PARENT.into()) };
    let wrong = || CgroupError::Parent { path: parent.to_path_buf() };
    let strip = |one: &Hierarchy| parent.strip_prefix(&one.root).ok().map(Path::to_path_buf);
    let below = hierarchies.iter().find_map(strip);
    let below = match below {
        Some(below) => below,
        None if parent.starts_with("/sys/fs/cgroup") => return Err(wrong()),
        None => parent.strip_prefix("/").map_err(|_| wrong())?.to_path_buf(),
    };
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain { Ok(below) } else { Err(wrong()) }
}

/// Whether the parent may be made there, or something in it.
fn may_make_in(root: &Hierarchy, parent: &Path) -> bool {
    let place = root.root.join(parent);
    let existing = place.ancestors().find(|path| path.exists());
    existing.is_some_and(|existing| existing.starts_with(&root.root) && cgroup::is_writable(existing))
}

/// Whether cgroups in `parent` can have `controllers`. What is above it is not changed.
fn check_parent(unified: &Hierarchy, parent: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    let path = unified.root.join(parent);
    let above = path.parent().unwrap_or(&path);
    let exists = path.is_dir();
    if !exists && !above.is_dir() {
        return Err(CgroupError::NoParent { path: above.to_path_buf() });
    }
    let lacking = |path: &Path, file: &str| {
        let text = cgroup::read(path, file).unwrap_or_default();
        let names = names_of(controllers).into_iter();
        names.filter(|name| text.split(' ').all(|own| own != *name)).collect::<Vec<_>>()
    };
    // The cgroup that is to hand them down, and does not yet.
    let giving = if exists { &path } else { above };
    let missing = lacking(giving, CHILDREN_HAVE);
    let absent = if exists { lacking(&path, CONTROLLERS) } else { missing.clone() };
    // The kernel's own root may have both, processes and children with controllers.
    let is_root = !giving.join("cgroup.events").exists();
    let has_processes = || cgroup::processes(giving).is_ok_and(|all| !all.is_empty());
    let is_blocked = !missing.is_empty() && !is_root && has_processes();
    if is_blocked && (!exists || absent.is_empty()) {
        return Err(CgroupError::ProcessesInside { path: giving.to_path_buf(), controllers: missing });
    }
    match absent.is_empty() {
        true => Ok(()),
        false => Err(CgroupError::NotHandedDown { above: above.to_path_buf(), path, controllers: absent }),
    }
}

fn names_of(controllers: &[Controller]) -> Vec<&'static str> {
    controllers.iter().map(|controller| controller.name(Version::Two)).collect()
}

impl Controller {
    fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Cpu, _) => "cpu",
            (Self::Cpuset, _) => "cpuset",
            (Self::Memory, _) => "memory",
            (Self::Pids, _) => "pids",
            (Self::Io, Version::One) => "blkio",
            (Self::Io, Version::Two) => "io",
        }
    }

    /// What it is wanted for.
    fn keys(self) -> &'static str {
        match self {
            Self::Cpu => "cpus and cpu_weight",
            Self::Cpuset => "cpuset_cpus and cpuset_mems",
            Self::Memory => "memory_mib and swap_mib",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

impl CgroupLimits {
    fn controllers(&self) -> Vec<Controller> {
        let wanted = [
            (Controller::Cpu, self.cpus.is_some() || self.cpu_weight.is_some()),
            (Controller::Cpuset, self.cpuset_cpus.is_some() || self.cpuset_mems.is_some()),
            (Controller::Memory, self.memory_mib.is_some() || self.swap_mib.is_some()),
            (Controller::Pids, self.pids.is_some()),
            (Controller::Io, !self.io.is_empty()),
        ];
        wanted.into_iter().filter_map(|(controller, is_wanted)| is_wanted.then_some(controller)).collect()
    }

    fn settings(&self, controllers: &[Controller], version: Version) -> Result<Vec<Setting>, CgroupError> {
        let mut settings = Vec::new();
        for controller in controllers {
            match controller {
                Controller::Cpu => self.cpu_settings(version, &mut settings),
                Controller::Cpuset => {
                    settings.extend(self.cpuset_cpus.iter().map(|cpus| setting("cpuset.cpus", cpus)));
                    settings.extend(self.cpuset_mems.iter().map(|mems| setting("cpuset.mems", mems)));
                }
                Controller::Memory => self.memory_settings(version, &mut settings),
                Controller::Pids => settings.extend(self.pids.map(|pids| setting("pids.max", pids))),
                Controller::Io => self.io_settings(version, &mut settings)?,
            }
        }
        Ok(settings)
    }

    fn cpu_settings(&self, version: Version, settings: &mut Vec<Setting>) {
        let quota = self.cpus.map(|cpus| Duration::from_micros(PERIOD).mul_f64(cpus).as_micros());
        let quota = quota.map(|quota| u64::try_from(quota).unwrap_or(u64::MAX));
        match version {
            Version::One => {
                // Half of what is usual there is half of what is usual here.
                let shares = self.cpu_weight.map(|weight| (weight * 1024 / 100).max(2));
                settings.extend(shares.map(|shares| setting("cpu.shares", shares)));
                settings.extend(quota.iter().map(|_| setting("cpu.cfs_period_us", PERIOD)));
                settings.extend(quota.map(|quota| setting("cpu.cfs_quota_us", quota)));
            }
            Version::Two => {
                settings.extend(self.cpu_weight.map(|weight| setting("cpu.weight", weight)));
                settings.extend(quota.map(|quota| setting("cpu.max", format!("{quota} {PERIOD}"))));
            }
        }
    }

    fn memory_settings(&self, version: Version, settings: &mut Vec<Setting>) {
        let bytes = |mib: u64| mib.saturating_mul(MIB);
        // What is in swap is in no diff of a VM whose pages are not tracked.
        let swap = self.swap_mib.or(self.memory_mib.map(|_| 0));
        // That none is used is only asked for where the kernel can see to it.
        let is_optional = self.swap_mib.is_none_or(|mib| mib == 0);
        let swap_setting = |file, value: u64| Setting { file, value: value.to_string(), is_optional };
        match version {
            Version::One => {
                let limit = self.memory_mib.map(bytes);
                settings.extend(limit.map(|limit| setting("memory.limit_in_bytes", limit)));
                settings.extend(limit.zip(swap).map(|(limit, swap)| {
                    swap_setting("memory.memsw.limit_in_bytes", limit.saturating_add(bytes(swap)))
                }));
                settings.extend(swap.filter(|mib| *mib == 0).map(|_| swap_setting("memory.swappiness", 0)));
            }
            Version::Two => {
                settings.extend(self.memory_mib.map(|mib| setting("memory.max", bytes(mib))));
                settings.extend(swap.map(|mib| swap_setting("memory.swap.max", bytes(mib))));
                // A VMM without its pager is of no use, nor is a pager without its VMM.
                let all_at_once = setting("memory.oom.group", 1);
                settings.extend(self.memory_mib.map(|_| Setting { is_optional: true, ..all_at_once }));
            }
        }
    }

    fn io_settings(&self, version: Version, settings: &mut Vec<Setting>) -> Result<(), CgroupError> {
        for limits in &self.io {
            let device = device::number_of(&limits.path)
                .map_err(|source| CgroupError::Device { path: limits.path.clone(), source })?;
            let parts = [
                ("rbps", "blkio.throttle.read_bps_device", limits.read_bytes),
                ("wbps", "blkio.throttle.write_bps_device", limits.write_bytes),
                ("riops", "blkio.throttle.read_iops_device", limits.read_ops),
                ("wiops", "blkio.throttle.write_iops_device", limits.write_ops),
            ];
            let given = parts.into_iter().filter_map(|(new, old, limit)| Some((new, old, limit?)));
            match version {
                Version::One => {
                    settings.extend(given.map(|(_, old, limit)| setting(old, format!("{device} {limit}"))));
                }
                Version::Two => {
                    let all = given.map(|(new, _, limit)| format!(" {new}={limit}")).collect::<String>();
                    settings.push(setting("io.max", format!("{device}{all}")));
                }
            }
        }
        Ok(())
    }
}

fn setting(file: &'static str, value: impl fmt::Display) -> Setting {
    Setting { file, value: value.to_string(), is_optional: false }
}

#[cfg(test)]
mod tests;
