//! The programs that run VMs: Firecracker, its jailer, the keeper.

use super::Purpose::{Disks, Jail, Keeper, Run};
use super::Status::{Limited, No};
use super::{Finding, Subject};
use crate::causes::with_causes;
use crate::firecracker::{Binaries, Binary};
use crate::host::disk::Tools;
use crate::json::object;
use crate::keeper;
use crate::process::{self, Limits};
use crate::sys::deadline::Deadline;
use crate::sys::elf;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may take to say its version: it takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn look(subject: &Subject<'_>) -> Vec<Finding> {
    let limits = Limits { deadline: Deadline::after(PATIENCE), interrupt: None };
    let found = subject.firecracker.map(|path| Binaries::default().find(path, limits));
    let binary = found.as_ref().and_then(|found| found.as_ref().ok());
    let firecracker = match &found {
        None => Finding::yes("firecracker", Run, "the options name no Firecracker")
            .but(Limited, "set \"firecracker\", or name one in each spec"),
        Some(Err(error)) => Finding::yes("firecracker", Run, with_causes(error))
            .but(No, "install a static build of Firecracker's releases, and set \"firecracker\" to its path"),
        Some(Ok(binary)) => usable(binary),
    };
    vec![firecracker, jailer(binary, subject.jailer, limits), keeper_program(subject.keeper)]
}

fn usable(binary: &Binary) -> Finding {
    let version = binary.version();
    let problems = version.known_problems().collect::<Vec<_>>();
    let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let path = binary.path().display();
    let finding = Finding::yes("firecracker", Run, format!("{path} is Firecracker {version}"))
        .seeing(object! { "path": path.to_string(), "version": version.to_string(), "known_problems": told });
    match problems.iter().filter_map(|problem| problem.mended_by()).max() {
        Some(newer) => {
            finding.but(Limited, format!("{newer} mends known problems of this release: install it"))
        }
        None => finding,
    }
}

/// The jailer of the same release: the one that was named, or the one beside Firecracker.
fn jailer(binary: Option<&Binary>, named: Option<&Path>, limits: Limits<'_>) -> Finding {
    let Some(binary) = binary else {
        return Finding::yes("jailer", Jail, "without Firecracker there is no jailer to look at")
            .but(No, "see firecracker");
    };
    let path = named.map_or_else(|| binary.path().with_file_name("jailer"), Path::to_path_buf);
    let shown = path.display();
    let said = match process::ask(&path, "--version", limits) {
        Ok(said) => said.lines().next().unwrap_or_default().to_owned(),
        Err(error) => {
            return Finding::yes("jailer", Jail, with_causes(&error))
                .but(No, format!("install the jailer of the same release as {shown}"));
        }
    };
    let wanted = format!("Jailer v{}", binary.version());
    let is_static = elf::is_static(binary.path()).ok();
    let finding = Finding::yes("jailer", Jail, format!("{shown} is {said:?}")).seeing(
        object! { "path": shown.to_string(), "said": said.as_str(), "firecracker_is_static": is_static },
    );
    if !said.starts_with("Jailer v") {
        return finding.but(No, "put the jailer of Firecracker's release there");
    }
    if is_static == Some(false) {
        let advice = "a jail has no shared libraries: use a static build of Firecracker, as its releases are";
        return finding.but(No, advice);
    }
    if !said.starts_with(&wanted) {
        return finding
            .but(Limited, format!("use the jailer of Firecracker's release, {}", binary.version()));
    }
    finding
}

fn keeper_program(path: Option<&Path>) -> Finding {
    let Some(path) = path else {
        return Finding::yes("keeper", Keeper, "the options name no keeper").but(
            Limited,
            "set \"keeper\" to mvm-keeper: it is needed to end VMs with their owner, for pagers that outlive it, and to bound \
             consoles while there is none",
        );
    };
    match keeper::check_program(path) {
        Ok(()) => Finding::yes("keeper", Keeper, format!("{} is the keeper of this library", path.display())),
        Err(error) => Finding::yes("keeper", Keeper, with_causes(&error))
            .but(No, "set \"keeper\" to the mvm-keeper that was built with this library"),
    }
}

/// What grows the file systems of disks.
pub(super) fn tools(directories: &[PathBuf]) -> Finding {
    let missing = Tools::new(directories.to_vec()).missing();
    match missing.is_empty() {
        true => Finding::yes("disk_tools", Disks, "disks can be grown"),
        false => Finding::yes(
            "disk_tools",
            Disks,
            format!("disks cannot be grown: {} is missing", missing.join(" and ")),
        )
        .but(Limited, "install e2fsprogs, or set \"tools\" to the directory of its programs"),
    }
}
