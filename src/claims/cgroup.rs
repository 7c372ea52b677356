//! A cgroup as something that a VM owns: one in each hierarchy that is to limit it. Made anew for each VMM, under a name
//! that nothing else has, and gone with everything that is left in it.
//!
//! Which hierarchies, and with what limits, is for the maker to say.

use super::{Found, Thing};
use crate::process::Process;
use crate::sys::cgroup::{self, CHILDREN_HAVE};
use crate::sys::deadline::Deadline;
use crate::sys::pidfd::Signal;
use crate::sys::random;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The cgroup in which those of VMs are made unless another one is named.
pub(crate) const USUAL_PARENT: &str = "mvm";

/// A cgroup of a VM's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cgroup {
    path: PathBuf,
    /// Of no use once it is made.
    #[serde(skip)]
    making: Making,
}

/// How a cgroup is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Making {
    /// The controllers that it cannot do without, by their names in version 2, which its parent has to hand down.
    pub(crate) controllers: Vec<&'static str>,
    /// Those that tell what is used, where the parent has them.
    pub(crate) useful: Vec<&'static str>,
    /// Whether it needs CPUs and memory nodes before a process enters, as in version 1.
    pub(crate) wants_cpuset: bool,
    pub(crate) settings: Vec<Setting>,
}

/// A file of a cgroup, and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether it is passed over where the kernel does not have the file.
    pub(crate) is_optional: bool,
}

/// What could not be done with a cgroup.
#[derive(Debug, Error)]
enum Step {
    #[error("cannot write {value:?} to {}", file.display())]
    Write { file: PathBuf, value: String, source: io::Error },
    #[error("cannot create {}; let this user write there, or set \"cgroup_parent\"", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "cannot write \"+{controller}\" to {}, because processes are in that cgroup, and cgroup v2 gives controllers only to \
         children of a cgroup without processes: move them to a child of it, or set \"cgroup_parent\" to another cgroup",
        file.display()
    )]
    ProcessesInside { file: PathBuf, controller: &'static str, source: io::Error },
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("process {pid} in {} has not ended {after:?} after SIGKILL", path.display())]
    Stuck { path: PathBuf, pid: i32, after: Duration },
    #[error("this process is itself in {}", path.display())]
    Inside { path: PathBuf },
}

const PREFIX: &str = "mvm-";
const DIGITS: usize = 16;
/// How often the parent may be removed, by the last VM in it, while this one is being made.
const ATTEMPTS: u32 = 100;
/// How long what is left in a cgroup may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The name of one VMM's cgroups.
///
/// # Errors
/// When the kernel gives no random numbers.
pub(crate) fn another_name() -> io::Result<String> {
    random::name().map(|name| format!("{PREFIX}{name}"))
}

impl Cgroup {
    pub(crate) fn new(path: PathBuf, making: Making) -> Self {
        Self { path, making }
    }

    /// Those of VMs that the process is in that has the number `pid` now.
    pub(crate) fn of_process(pid: i32) -> Vec<Self> {
        let places = cgroup::cgroups_of(pid).unwrap_or_default();
        let all = places.into_iter().map(|path| Self::new(path, Making::default()));
        all.filter(Self::is_well_named).collect()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How it is made.
    #[cfg(test)]
    pub(crate) fn making(&self) -> &Making {
        &self.making
    }

    /// Whether it is called as the library calls those of VMs, and nobody else anything.
    pub(crate) fn is_well_named(&self) -> bool {
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let name = self.path.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.strip_prefix(PREFIX)).unwrap_or_default();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        self.path.is_absolute()
            && self.path.components().all(is_plain)
            && digits.len() == DIGITS
            && digits.bytes().all(is_digit)
    }

    /// The last VM in the usual parent may take it away at any moment.
    fn make_directories(&self, parent: &Path) -> Result<(), Step> {
        let mut attempts = ATTEMPTS;
        loop {
            let made = self.make_parent(parent).and_then(|()| make_directory(&self.path));
            attempts -= 1;
            match made {
                // It was made before, when something else could not be.
                Err(Step::Create { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(());
                }
                Err(Step::Create { source, .. } | Step::Write { source, .. })
                    if attempts > 0 && is_gone(&source) => {}
                made => return made,
            }
        }
    }

    fn make_parent(&self, parent: &Path) -> Result<(), Step> {
        let made = fs::create_dir_all(parent);
        made.map_err(|source| Step::Create { path: parent.to_path_buf(), source })?;
        if self.making.wants_cpuset {
            inherit_cpuset(parent)?;
        }
        let handed_down = cgroup::read(parent, CHILDREN_HAVE).unwrap_or_default();
        let is_missing = |name: &&&str| handed_down.split(' ').all(|own| own != **name);
        for controller in self.making.controllers.iter().filter(is_missing) {
            hand_down(parent, controller)?;
        }
        for controller in self.making.useful.iter().filter(is_missing) {
            // It tells less then.
            let _not_there = hand_down(parent, controller);
        }
        Ok(())
    }

    fn set(&self) -> Result<(), Step> {
        if self.making.wants_cpuset {
            inherit_cpuset(&self.path)?;
        }
        for Setting { file, value, is_optional } in &self.making.settings {
            match write(&self.path, file, value) {
                Err(Step::Write { source, .. })
                    if *is_optional && source.kind() == io::ErrorKind::NotFound => {}
                set => set?,
            }
        }
        Ok(())
    }

    /// Whether the parent is one that goes with the last VM in it: the usual one, at the top of a hierarchy.
    fn is_in_usual_parent(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).ok().map(|about| about.dev());
        let Some(parent) = self.path.parent().filter(|parent| parent.ends_with(USUAL_PARENT)) else {
            return false;
        };
        let top = parent.parent();
        top.is_some_and(|top| top.parent().and_then(device) != device(top))
    }

    /// Lets what is in it have all the CPU time that there is. A process needs some to end after SIGKILL, and to give back its
    /// memory: with little of it, it seems to be stuck.
    pub(crate) fn lift_quota(&self) {
        if matches!(self.find(Path::new("/")), Ok(Found::Ours)) {
            let _where_there_is_one = cgroup::write(&self.path, "cpu.max", "max");
            let _where_there_is_one = cgroup::write(&self.path, "cpu.cfs_quota_us", "-1");
        }
    }

    /// Ends what is in it and in the cgroups below it, and removes all of them.
    fn remove(&self) -> Result<(), Step> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let target = deepest(&self.path);
            let removed = fs::remove_dir(&target);
            match removed {
                Ok(()) if target == self.path => return Ok(()),
                Ok(()) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !self.path.exists() {
                        return Ok(());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    self.lift_quota();
                    kill_all(&self.path)?;
                    kill_all(&target)?;
                }
                Err(source) => return Err(Step::Remove { path: target, source }),
            }
            if deadline.has_passed() {
                let pid = cgroup::processes(&target).ok().and_then(|all| all.first().copied());
                return Err(Step::Stuck { path: target, pid: pid.unwrap_or_default(), after: PATIENCE });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Thing for Cgroup {
    fn find(&self, _working_directory: &Path) -> io::Result<Found> {
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(error),
            Ok(_) if self.is_well_named() && cgroup::is_cgroup(&self.path) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign),
        }
    }

    fn is_makeable(&self, _working_directory: &Path) -> bool {
        // Nothing else has its name.
        true
    }

    fn make(&self, _working_directory: &Path) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        self.make_directories(parent).and_then(|()| self.set()).map_err(io::Error::from)
    }

    fn undo(&self, working_directory: &Path) -> io::Result<()> {
        if self.find(working_directory)? == Found::Ours {
            self.remove()?;
        }
        if self.is_well_named() && self.is_in_usual_parent() {
            // As long as there is another VM in it, it stays.
            let _removed = self.path.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    fn describe(&self, _working_directory: &Path) -> String {
        format!("the cgroup {}", self.path.display())
    }
}

impl From<Step> for io::Error {
    /// The kind decides what a program is told.
    fn from(step: Step) -> Self {
        let kind = match &step {
            Step::Write { source, .. }
            | Step::Create { source, .. }
            | Step::Remove { source, .. }
            | Step::ProcessesInside { source, .. } => source.kind(),
            Step::Stuck { .. } => io::ErrorKind::TimedOut,
            Step::Inside { .. } => io::ErrorKind::ResourceBusy,
        };
        Self::new(kind, step)
    }
}

/// Whether a cgroup was removed that was there a moment ago.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn make_directory(path: &Path) -> Result<(), Step> {
    fs::create_dir(path).map_err(|source| Step::Create { path: path.to_path_buf(), source })
}

fn write(path: &Path, file: &str, value: &str) -> Result<(), Step> {
    let written = cgroup::write(path, file, value);
    written.map_err(|source| Step::Write { file: path.join(file), value: value.to_owned(), source })
}

/// Lets the children of the cgroup at `parent` have `controller`.
fn hand_down(parent: &Path, controller: &'static str) -> Result<(), Step> {
    match write(parent, CHILDREN_HAVE, &format!("+{controller}")) {
        Err(Step::Write { file, source, .. })
            if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP)) =>
        {
            Err(Step::ProcessesInside { file, controller, source })
        }
        written => written,
    }
}

/// Gives a cgroup of version 1 the CPUs and memory nodes of its parent, where it has none: it takes no process without.
fn inherit_cpuset(path: &Path) -> Result<(), Step> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_empty = |path: &Path| cgroup::read(path, file).is_ok_and(|text| text.is_empty());
        // Those between the one that has some and this one, which get them from the top.
        let empty = path.ancestors().take_while(|path| is_empty(path)).collect::<Vec<_>>();
        let Some(from) = empty.last().and_then(|path| path.parent()) else { continue };
        let value = cgroup::read(from, file).unwrap_or_default();
        empty.iter().rev().try_for_each(|path| write(path, file, &value))?;
    }
    Ok(())
}

/// The cgroup that has no children, below or at `path`.
fn deepest(path: &Path) -> PathBuf {
    std::iter::successors(Some(path.to_path_buf()), |path| cgroup::any_child(path)).last().unwrap_or_default()
}

/// Kills whatever is in a cgroup. Where the kernel does not do that by itself, each process is killed, while they are all
/// frozen where they can be: none can become two then.
fn kill_all(path: &Path) -> Result<(), Step> {
    let numbers = cgroup::processes(path).unwrap_or_default();
    if numbers.contains(&std::process::id().cast_signed()) {
        return Err(Step::Inside { path: path.to_path_buf() });
    }
    if !numbers.is_empty() {
        log::info!("{} processes were left in {}, and are killed", numbers.len(), path.display());
    }
    if cgroup::write(path, "cgroup.kill", "1").is_ok() {
        return Ok(());
    }
    let freeze = |[one, two]: [&str; 2]| {
        let _where_it_can_be = cgroup::write(path, "freezer.state", one);
        let _where_it_can_be = cgroup::write(path, "cgroup.freeze", two);
    };
    freeze(["FROZEN", "1"]);
    let is_inside = |pid: i32| cgroup::processes(path).is_ok_and(|inside| inside.contains(&pid));
    for pid in cgroup::processes(path).unwrap_or_default() {
        if let Ok(Some(process)) = Process::hold(pid, is_inside) {
            let _or_gone = process.send(Signal::Kill);
        }
    }
    freeze(["THAWED", "0"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::{Hierarchy, Version};
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Stdio};

    fn at(path: &str) -> Cgroup {
        Cgroup::new(path.into(), Making::default())
    }

    #[test]
    fn only_what_the_library_has_named_is_taken_for_a_vms() {
        assert!(at("/sys/fs/cgroup/mvm/mvm-0123456789abcdef").is_well_named());
        for path in [
            "/sys/fs/cgroup/system.slice",
            "/sys/fs/cgroup/mvm/../mvm-0123456789abcdef",
            "mvm/mvm-0123456789abcdef",
            "/sys/fs/cgroup/mvm/mvm-0123456789abcdeF",
            "/sys/fs/cgroup/mvm/mvm-0123456789abcdef0",
            "/sys/fs/cgroup/mvm/mvm-",
            "/",
        ] {
            assert!(!at(path).is_well_named(), "{path}");
        }
        let name = another_name().unwrap();
        assert!(at(&format!("/{name}")).is_well_named(), "{name}");
    }

    /// A cgroup that is left with processes, in the hierarchy at `root`: two in it, and one in a child of it.
    fn leave(root: &Path) -> Option<(Cgroup, [Child; 2])> {
        let path = root.join(another_name().unwrap());
        fs::create_dir(&path).ok()?;
        let inner = path.join("inner");
        fs::create_dir(&inner).unwrap();
        let start = |path: &Path, script: &str| {
            let mut command = std::process::Command::new("sh");
            let mut child = command.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
            cgroup::write(path, "cgroup.procs", &child.id().to_string()).unwrap();
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            child
        };
        let two = start(&path, "read go; sleep 1000 & wait");
        let children = [two, start(&inner, "read go; exec sleep 1000")];
        while cgroup::processes(&path).unwrap().len() < 2 {
            std::thread::sleep(LOOK_AGAIN);
        }
        Some((Cgroup::new(path, Making::default()), children))
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn whatever_is_left_in_a_cgroup_is_killed_in_each_kind_of_hierarchy() {
        let hierarchies = cgroup::hierarchies().unwrap();
        let kinds = ["freezer", "pids", ""];
        let is_of = |one: &&Hierarchy, kind: &str| match kind {
            "" => one.version == Version::Two,
            _ => one.version == Version::One && one.has(kind),
        };
        for kind in kinds {
            let root = hierarchies.iter().find(|one| is_of(one, kind));
            let Some((left, children)) = root.and_then(|one| leave(&one.root)) else {
                eprintln!("skipped: no hierarchy of kind {kind:?} to make a cgroup in");
                continue;
            };
            let number = children[0].id().cast_signed();
            assert!(Cgroup::of_process(number).iter().any(|one| one.path() == left.path()));
            left.undo(Path::new("/")).unwrap();
            assert!(!left.path().exists(), "{kind}");
            for mut child in children {
                assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "{kind}");
            }
            left.undo(Path::new("/")).unwrap();
        }
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn what_is_to_be_killed_is_given_all_cpu_time() {
        let cases = [
            (Version::One, "cpu.cfs_quota_us", "1000", "-1"),
            (Version::Two, "cpu.max", "1000 100000", "max 100000"),
        ];
        let hierarchies = cgroup::hierarchies().unwrap();
        for (version, file, limited, free) in cases {
            let root = hierarchies.iter().find(|one| one.version == version && one.has("cpu"));
            let Some(path) = root.map(|one| one.root.join(another_name().unwrap())) else {
                eprintln!("skipped: no controller of CPU time of {version:?}");
                continue;
            };
            if fs::create_dir(&path).is_err() || cgroup::write(&path, file, limited).is_err() {
                eprintln!("skipped: {} cannot be limited", path.display());
            } else {
                assert_eq!(cgroup::read(&path, file).unwrap(), limited);
                at(&path.to_string_lossy()).lift_quota();
                assert_eq!(cgroup::read(&path, file).unwrap(), free);
            }
            let _or_never_made = fs::remove_dir(&path);
        }
        let scratch = crate::scratch::Scratch::new();
        let foreign = scratch.join(another_name().unwrap());
        fs::create_dir_all(&foreign).unwrap();
        fs::write(foreign.join("cpu.max"), "mine").unwrap();
        at(&foreign.to_string_lossy()).lift_quota();
        assert_eq!(fs::read_to_string(foreign.join("cpu.max")).unwrap(), "mine");
    }

    #[test]
    fn a_directory_that_is_no_cgroup_stays() {
        let scratch = crate::scratch::Scratch::new();
        let path = scratch.join(another_name().unwrap());
        fs::create_dir_all(&path).unwrap();
        let claim = Cgroup::new(path.clone(), Making::default());
        assert_eq!(claim.find(Path::new("/")).unwrap(), Found::Foreign);
        claim.undo(Path::new("/")).unwrap();
        assert!(path.exists());
    }
}
