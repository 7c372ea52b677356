//! The jailer's conversations: how it is called, and what can be seen of a jail and of the process in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::thread::{CapabilitySet, capabilities};

use super::vmm::Scratch;

/// How the jailer is called, before its own further arguments.
const USUAL: &str =
    "--id j --exec-file {dir}/firecracker --uid 1234 --gid 1235 --chroot-base-dir {dir}/jails";
/// What every VMM in a jail is called with.
const API: &str = "-- --api-sock /api";
/// What a process that starts a jailer has, and the VMM is not to get.
pub(crate) const VARIABLE: (&str, &str) = ("MVM_CONFORMANCE", "this is the caller's");
pub(crate) const FILE: &str = "inherited";

/// Puts the jailer, the program for the jail, and the place for jails into the scratch.
pub(crate) fn set_up(scratch: &Scratch, program: &Path, jailer: &Path) -> io::Result<()> {
    if scratch.path.join(FILE).exists() {
        return Ok(());
    }
    symlink(jailer, scratch.path.join("jailer"))?;
    let here = scratch.path.join("firecracker");
    fs::hard_link(program, &here).or_else(|_| fs::copy(program, &here).map(drop))?;
    fs::create_dir_all(scratch.path.join("jails"))?;
    File::create(scratch.path.join(FILE)).map(drop)
}

/// The usual ones, when wanted, and `words`.
pub(crate) fn arguments(usual: bool, words: &str) -> Vec<String> {
    let (own, vmm) = words.split_once("-- ").unwrap_or((words, ""));
    let line = if usual { format!("{USUAL} {own} {API} {vmm}") } else { words.to_owned() };
    line.split_whitespace().map(str::to_owned).collect()
}

/// Whether this process may do what a jailer does.
pub(crate) fn may_be_made() -> bool {
    let wanted = [
        CapabilitySet::SYS_ADMIN,
        CapabilitySet::MKNOD,
        CapabilitySet::CHOWN,
        CapabilitySet::SETUID,
        CapabilitySet::SETGID,
    ];
    let effective = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    wanted.into_iter().all(|one| effective.contains(one)) && rustix::process::geteuid().is_root()
}

/// Where a controller of version 1 is mounted; version 2 is the controller without a name.
pub(crate) fn hierarchy_of(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let [_, directory, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let is_it = match controller {
            "" => kind == "cgroup2",
            one => kind == "cgroup" && options.split(',').any(|option| option == one),
        };
        is_it.then(|| PathBuf::from(directory))
    })
}

/// What a conversation has left there.
pub(crate) fn remove_cgroups(name: &str) {
    for hierarchy in ["cpu", "pids", ""].into_iter().filter_map(hierarchy_of) {
        let _ = fs::remove_dir(hierarchy.join(name).join("j"));
        let _ = fs::remove_dir(hierarchy.join(name));
    }
}

/// The path of the process, in the hierarchy of a controller; version 2 is `unified`.
pub(crate) fn cgroup(pid: u32, controller: &str) -> io::Result<String> {
    let controller = if controller == "unified" { "" } else { controller };
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let found = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then(|| path.to_owned())
    });
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub(crate) fn network(pid: u32, scratch: &Scratch) -> io::Result<String> {
    let is_it = fs::read_link(format!("/proc/{pid}/ns/net"))? == fs::read_link(scratch.fill_in("{netns}"))?;
    Ok(if is_it { "{netns}" } else { "another" }.to_owned())
}

/// Mode, owner, and the numbers of a device.
pub(crate) fn appearance(path: &str) -> io::Result<String> {
    let about = fs::symlink_metadata(path)?;
    let (uid, gid) = (about.uid(), about.gid());
    let numbers = match about.file_type().is_char_device() {
        true => format!(" {},{}", libc::major(about.rdev()), libc::minor(about.rdev())),
        false => String::new(),
    };
    Ok(format!("{:o} {uid}:{gid}{numbers}", about.mode()))
}

pub(crate) fn names_in(path: &str) -> io::Result<String> {
    let names = mvm::sys::file::names_in(Path::new(path))?;
    Ok(names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(" "))
}

pub(crate) fn status(pid: u32, field: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(words(line.ok_or(io::ErrorKind::NotFound)?))
}

/// Soft and hard; of `open-files` and the like.
pub(crate) fn limit(pid: u32, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let name = format!("Max {}", name.replace('-', " "));
    let line = text.lines().find_map(|line| line.strip_prefix(name.as_str()));
    let values = words(line.ok_or(io::ErrorKind::NotFound)?);
    Ok(values.rsplit_once(' ').map_or(values.clone(), |(values, _unit)| values.to_owned()))
}

/// Where something is mounted, in its view.
pub(crate) fn mounts(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.collect::<Vec<_>>().join(" "))
}

pub(crate) fn inherited(pid: u32, scratch: &Scratch) -> io::Result<String> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let mut found = Vec::new();
    if !environment.is_empty() {
        found.push("environment");
    }
    let file = mvm::sys::file::identity(&fs::metadata(scratch.path.join(FILE))?);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let about = fs::metadata(entry?.path());
        if about.is_ok_and(|about| mvm::sys::file::identity(&about) == file) {
            found.push("descriptor");
        }
    }
    Ok(if found.is_empty() { "nothing".to_owned() } else { found.join(" ") })
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
