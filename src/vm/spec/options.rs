//! The section `"mvm"` of a spec: what the library itself does for a VM.

use super::disks::DiskOptions;
use super::{SpecError, limits};
use crate::host::cgroups::CgroupLimits;
use crate::journal::OnOwnerExit;
use crate::process::Processes;
use crate::settings::{self, Section};
use crate::sys::user;
use crate::vm::OwnerData;
use crate::vm::sharing::Sharing;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The key of what belongs to one VM alone, and to none that is restored from a snapshot of it.
pub(in crate::vm) const OWNER_DATA_KEY: &str = "owner_data";

/// The section `"mvm"`.
#[derive(Debug, Default)]
pub(in crate::vm) struct MvmSection {
    pub(in crate::vm) firecracker: Option<PathBuf>,
    pub(in crate::vm) arguments: Vec<String>,
    pub(in crate::vm) shutdown: Shutdown,
    pub(in crate::vm) deadlines: Deadlines,
    pub(in crate::vm) on_owner_exit: OnOwnerExit,
    pub(in crate::vm) console: Console,
    /// Whether it may use what other VMs use.
    pub(in crate::vm) sharing: Sharing,
    /// What keeps its VMM apart from the host; nothing when it is not jailed.
    pub(in crate::vm) jail: Option<JailOptions>,
    /// The control groups that its processes are started in.
    pub(in crate::vm) cgroup: Option<Vec<PathBuf>>,
    /// What it may use of the host, by cgroups of its own.
    pub(in crate::vm) limits: Option<CgroupLimits>,
    /// The cgroup in which those are made.
    pub(in crate::vm) cgroup_parent: Option<PathBuf>,
    /// What the owner keeps with the VM from the beginning.
    pub(in crate::vm) owner_data: OwnerData,
    /// Where the templates are.
    pub(super) catalogue: Option<PathBuf>,
    /// The root disk; nothing in a settled spec.
    pub(super) rootfs: Option<DiskOptions>,
    /// Other disks, or all of them in a settled spec, by the ids of their devices.
    pub(super) disks: Vec<(String, DiskOptions)>,
}

/// `"mvm"."jail"`: what keeps a VMM apart from the host.
#[derive(Debug, Default)]
pub(in crate::vm) struct JailOptions {
    /// The program `jailer`.
    pub(in crate::vm) jailer: Option<PathBuf>,
    /// The user that the VMM runs as, and the group; nothing for one that is leased.
    pub(in crate::vm) uid: Option<u32>,
    /// Its network namespace, as a file.
    pub(in crate::vm) netns: Option<PathBuf>,
    /// The processes that it sees.
    pub(in crate::vm) processes: Processes,
    pub(in crate::vm) resource_limits: ResourceLimits,
}

/// `"mvm"."jail"."resource_limits"`, in the words of `jailer`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::vm) struct ResourceLimits {
    pub(in crate::vm) fsize: Option<u64>,
    no_file: Option<u64>,
}

/// `"mvm"."shutdown"`.
#[derive(Debug, Default)]
pub(in crate::vm) struct Shutdown {
    pub(in crate::vm) guest: GuestRung,
}

/// `"mvm"."console"`.
#[derive(Clone, Copy, Debug)]
pub(in crate::vm) struct Console {
    pub(super) limit_bytes: u64,
}

/// How the guest is asked to power off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vm) enum GuestRung {
    #[default]
    CtrlAltDel,
    Off,
}

/// `"mvm"."deadlines"`: how long each kind of call may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::vm) struct Deadlines {
    create_ms: u64,
    start_ms: u64,
    request_ms: u64,
    kill_ms: u64,
}

/// Arguments of the VMM by which the library holds it; with another value it would lose it.
const OWN_ARGUMENTS: [&str; 6] =
    ["--id", "--api-sock", "--log-path", "--metrics-path", "--config-file", "--no-api"];

impl MvmSection {
    fn read(mut given: Section, base: &Path) -> Result<Self, settings::Error> {
        let options = Self {
            firecracker: given.take("firecracker")?.map(|path: PathBuf| base.join(path)),
            arguments: given.take_or("arguments", Vec::new())?,
            shutdown: Shutdown::read(given.section("shutdown")?)?,
            deadlines: Deadlines::read(given.section("deadlines")?)?,
            on_owner_exit: given.choose("on_owner_exit", OnOwnerExit::WORDS)?,
            console: Console::read(given.section("console")?)?,
            sharing: given
                .choose("sharing", &[("refused", Sharing::Refused), ("allowed", Sharing::Allowed)])?,
            jail: given.optional_section("jail")?.map(|given| JailOptions::read(given, base)).transpose()?,
            cgroup: given
                .paths("cgroup")?
                .map(|paths| paths.into_iter().map(|path| base.join(path)).collect()),
            limits: given.optional_section("limits")?.map(|given| limits::read(given, base)).transpose()?,
            cgroup_parent: given.take("cgroup_parent")?,
            owner_data: given.take(OWNER_DATA_KEY)?.unwrap_or_default(),
            catalogue: given.take("catalogue")?.map(|path: PathBuf| base.join(path)),
            rootfs: given
                .optional_section("rootfs")?
                .map(|rootfs| DiskOptions::read(rootfs, base))
                .transpose()?,
            disks: DiskOptions::read_all(&mut given, base)?,
        };
        given.finish().map(|()| options)
    }
}

impl MvmSection {
    /// Whether the VMM is to have another filter of system calls than Firecracker's own, or none.
    pub(in crate::vm) fn changes_the_filter(&self) -> bool {
        const CHANGING: [&str; 2] = ["--no-seccomp", "--seccomp-filter"];
        let changes =
            |argument: &String| CHANGING.iter().any(|name| name == argument || is_assigned(argument, name));
        self.arguments.iter().any(changes)
    }
}

impl JailOptions {
    fn read(mut given: Section, base: &Path) -> Result<Self, settings::Error> {
        let absolute = |path: PathBuf| base.join(path);
        let jail = Self {
            jailer: given.take("jailer")?.map(absolute),
            uid: given.take("uid")?,
            netns: given.take("netns")?.map(absolute),
            processes: given
                .choose("processes", &[("of_the_host", Processes::OfTheHost), ("own", Processes::Own)])?,
            resource_limits: ResourceLimits::read(given.section("resource_limits")?)?,
        };
        given.finish().map(|()| jail)
    }
}

impl ResourceLimits {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let limits = Self { fsize: given.take("fsize")?, no_file: given.take("no-file")? };
        given.finish().map(|()| limits)
    }

    /// As `jailer` takes them.
    pub(in crate::vm) fn arguments(self) -> Vec<String> {
        let written = |name: &str, limit: Option<u64>| limit.map(|limit| format!("{name}={limit}"));
        written("fsize", self.fsize).into_iter().chain(written("no-file", self.no_file)).collect()
    }
}

impl Shutdown {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let guest = [("ctrl-alt-del", GuestRung::CtrlAltDel), ("off", GuestRung::Off)];
        let shutdown = Self { guest: given.choose("guest", &guest)? };
        given.finish().map(|()| shutdown)
    }
}

impl Deadlines {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let default = Self::default();
        let deadlines = Self {
            create_ms: given.take_or("create_ms", default.create_ms)?,
            start_ms: given.take_or("start_ms", default.start_ms)?,
            request_ms: given.take_or("request_ms", default.request_ms)?,
            kill_ms: given.take_or("kill_ms", default.kill_ms)?,
        };
        given.finish().map(|()| deadlines)
    }

    pub(in crate::vm) fn create(&self) -> Duration {
        Duration::from_millis(self.create_ms)
    }

    pub(in crate::vm) fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub(in crate::vm) fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    pub(in crate::vm) fn kill(&self) -> Duration {
        Duration::from_millis(self.kill_ms)
    }
}

impl Console {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let console = Self { limit_bytes: given.take_or("limit_bytes", Self::default().limit_bytes)? };
        given.finish().map(|()| console)
    }

    /// How long the console and the VMM's own output may grow; 0 is for ever.
    pub(in crate::vm) fn limit(self) -> Option<u64> {
        (self.limit_bytes != 0).then_some(self.limit_bytes)
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { limit_bytes: 1 << 20 }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { create_ms: 10_000, start_ms: 30_000, request_ms: 30_000, kill_ms: 5_000 }
    }
}

/// What [`is_of_a_jail`] wants.
const A_JAILS_USER: &str = "the number of a user, from 1 to 4294967294, and not that of this process's user: a jail keeps a VMM from what \
                            is that user's, and root's";

/// Whether a jailed VMM may run as `uid`: it is neither root's nor the owner's, and none that says nothing to chown(2).
pub(crate) fn is_of_a_jail(uid: u32) -> bool {
    uid != 0 && uid != u32::MAX && uid != user::effective_user()
}

pub(super) fn read(own: Value, base: &Path) -> Result<MvmSection, SpecError> {
    let options = MvmSection::read(Section::of(own, "mvm")?, base)?;
    options.limits.as_ref().map_or(Ok(()), limits::check)?;
    if options.jail.as_ref().and_then(|jail| jail.uid).is_some_and(|uid| !is_of_a_jail(uid)) {
        return Err(SpecError::Kind { path: "mvm.jail.uid".into(), wanted: A_JAILS_USER });
    }
    match (&options.cgroup, &options.limits, &options.cgroup_parent) {
        (Some(_), Some(_), _) => return Err(SpecError::CgroupAndLimits),
        (_, None, Some(_)) => return Err(SpecError::ParentOfNothing),
        _ => {}
    }
    let taken =
        |argument: &&String| OWN_ARGUMENTS.iter().any(|own| own == argument || is_assigned(argument, own));
    match options.arguments.iter().find(taken) {
        None => Ok(options),
        Some(argument) => Err(SpecError::Argument(argument.clone())),
    }
}

fn is_assigned(argument: &str, name: &str) -> bool {
    argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;
    use serde_json::json;

    fn with_limits(limits: &Value) -> Result<MvmSection, SpecError> {
        read(json!({ "limits": limits, "jail": {} }), Path::new("/"))
    }

    #[test]
    fn the_reference_has_the_section_of_the_library() {
        let io = json!([{ "path": "/", "read_ops_per_second": 1 }]);
        reference::hold(reference::SPEC, || with_limits(&json!({ "io": io })));
    }

    #[test]
    fn a_jail_has_a_user_that_neither_root_nor_the_owner_is() {
        for uid in [0, u32::MAX, user::effective_user()] {
            let error = read(json!({ "jail": { "uid": uid } }), Path::new("/")).unwrap_err();
            assert!(error.to_string().contains("mvm.jail.uid"), "{error}");
        }
        assert!(is_of_a_jail(u32::MAX - 1));
    }

    #[test]
    fn limits_that_no_kernel_takes_are_refused_by_their_keys() {
        for (limits, key) in [
            (json!({ "cpus": 0 }), "limits.cpus"),
            (json!({ "cpus": -1.5 }), "limits.cpus"),
            (json!({ "cpu_weight": 0 }), "limits.cpu_weight"),
            (json!({ "cpu_weight": 10_001 }), "limits.cpu_weight"),
            (json!({ "memory_mib": 0 }), "limits.memory_mib"),
            (json!({ "swap_mib": 5 }), "limits.swap_mib"),
            (json!({ "pids": 0 }), "limits.pids"),
            (json!({ "io": [{ "path": "/" }] }), "limits.io[0]"),
            (json!({ "memory": 5 }), "memory_mib"),
        ] {
            let error = with_limits(&limits).unwrap_err();
            let text = crate::causes::with_causes(&error);
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn a_cgroup_of_the_callers_and_one_of_the_librarys_exclude_each_other() {
        let of = |own: Value| read(own, Path::new("/")).map(drop).map_err(|error| error.to_string());
        let both = of(json!({ "cgroup": "/x", "limits": {} })).unwrap_err();
        assert!(both.contains("mvm.cgroup") && both.contains("mvm.limits"), "{both}");
        let parent = of(json!({ "cgroup_parent": "/x" })).unwrap_err();
        assert!(parent.contains("mvm.cgroup_parent") && parent.contains("mvm.limits"), "{parent}");
        of(json!({ "cgroup_parent": "/x", "limits": {} })).unwrap();
    }

    #[test]
    fn the_reference_has_the_options_of_a_disk() {
        reference::hold(reference::DISK, || {
            DiskOptions::read(Section::of(Value::Null, "disk")?, Path::new("/"))
        });
    }
}
