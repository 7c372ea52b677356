//! What the jailer was asked for, checked in its order, and the limits among it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::cgroup::{self, Cgroups};
use super::error::JailerError;
use super::program::Program;
use super::root::Root;
use crate::args::{self, ArgumentError, Arguments};
use crate::fault::Fault;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) root: PathBuf,
    pub(super) program: Program,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) netns: Option<String>,
    pub(super) daemonize: bool,
    pub(super) new_pid_ns: bool,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) limits: Limits,
    pub(super) userfaultfd_minor: Option<u32>,
    pub(super) vmm_arguments: Vec<String>,
    pub(super) powers: Powers,
}

/// What this process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Powers {
    /// All that a jailer does, or what it fails to do it reports.
    OfJailer,
    /// Less: what is forbidden is left out.
    Few,
}

#[derive(Debug)]
pub(super) struct Limits {
    file_size: Option<u64>,
    files: u64,
}

impl Plan {
    pub(super) fn new(
        arguments: &Arguments,
        vmm_arguments: &[String],
        faults: &[Fault],
    ) -> Result<Self, JailerError> {
        let value = |name: &str| {
            let missing = || JailerError::ArgumentParsing(ArgumentError::MissingValue(name.to_owned()));
            arguments.value(name).ok_or_else(missing)
        };
        let id = value("id")?;
        args::check_id(id).map_err(JailerError::InvalidInstanceId)?;
        let program = Program::checked(value("exec-file")?, faults)?;
        let base = Path::new(value("chroot-base-dir")?);
        let canonical =
            base.canonicalize().map_err(|error| JailerError::Canonicalize(base.to_owned(), error))?;
        if !canonical.is_dir() {
            return Err(JailerError::NotADirectory(canonical));
        }
        let root = canonical.join(&program.name).join(id).join("root");
        let uid = value("uid")?;
        let uid = uid.parse().map_err(|_| JailerError::Uid(uid.to_owned()))?;
        let gid = value("gid")?;
        let gid = gid.parse().map_err(|_| JailerError::Gid(gid.to_owned()))?;
        let cgroups = cgroups(arguments, &program.name, id, value("cgroup-version")?)?;
        let limits = Limits::parse(arguments.values("resource-limit"))?;
        let effective = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
        Ok(Self {
            id: id.to_owned(),
            root,
            program,
            uid,
            gid,
            netns: arguments.value("netns").map(str::to_owned),
            daemonize: arguments.has("daemonize"),
            new_pid_ns: arguments.has("new-pid-ns"),
            cgroups,
            limits,
            userfaultfd_minor: userfaultfd_minor(),
            vmm_arguments: vmm_arguments.to_vec(),
            powers: match effective.contains(CapabilitySet::SYS_ADMIN) {
                true => Powers::OfJailer,
                false => Powers::Few,
            },
        })
    }

    /// With few powers, what is forbidden counts as done.
    pub(super) fn unless_forbidden<E: Into<io::Error>>(
        &self,
        act: impl FnOnce() -> Result<(), E>,
    ) -> io::Result<()> {
        match act().map_err(Into::into) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.powers == Powers::Few => {
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn program_inside(&self, root: Root) -> PathBuf {
        root.inside(&format!("/{}", self.program.name))
    }
}

impl Limits {
    fn parse(texts: &[String]) -> Result<Self, JailerError> {
        let mut limits = Self { file_size: None, files: 2048 };
        for text in texts {
            let format = || JailerError::ResLimitFormat(text.clone());
            let (name, value) = text.split_once('=').ok_or_else(format)?;
            let limit: u64 = value.parse().map_err(|error: std::num::ParseIntError| {
                JailerError::ResLimitValue(value.to_owned(), error.to_string())
            })?;
            match name {
                "fsize" => limits.file_size = Some(limit),
                "no-file" => limits.files = limit,
                _ => return Err(JailerError::ResLimitArgument(name.to_owned())),
            }
        }
        Ok(limits)
    }

    pub(super) fn install(&self) -> Result<(), JailerError> {
        let install = |resource, limit: u64, name: &str| {
            let limit = Some(limit).filter(|limit| *limit != libc::RLIM_INFINITY);
            setrlimit(resource, Rlimit { current: limit, maximum: limit })
                .map_err(|_| JailerError::Setrlimit(name.to_owned()))
        };
        if let Some(size) = self.file_size {
            install(Resource::Fsize, size, "size of file")?;
        }
        install(Resource::Nofile, self.files, "number of file descriptors")
    }
}

fn cgroups(
    arguments: &Arguments,
    program: &str,
    id: &str,
    version: &str,
) -> Result<Option<Cgroups>, JailerError> {
    let parent = Path::new(arguments.value("parent-cgroup").unwrap_or(program));
    if cgroup::strays(parent) {
        return Err(JailerError::CgroupInvalidParentPath());
    }
    let version: u8 = version.parse().map_err(|_| JailerError::CgroupInvalidVersion(version.to_owned()))?;
    let properties = arguments.values("cgroup");
    if !properties.is_empty() {
        return Cgroups::asked_for(properties, version, parent, id).map(Some);
    }
    if version == 2 {
        cgroup::enter_parent(parent)?;
    }
    Ok(None)
}

/// The number of the device, which the kernel gives anew at each boot.
fn userfaultfd_minor() -> Option<u32> {
    let text = fs::read_to_string("/proc/misc").ok()?;
    let line = text.lines().find(|line| line.split(' ').nth(1) == Some("userfaultfd"))?;
    line.split(' ').next()?.parse().ok()
}
