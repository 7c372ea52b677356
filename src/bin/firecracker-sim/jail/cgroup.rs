//! The cgroups that the jailer makes, of version 1 and 2: which file of which cgroup gets which value, and who is put
//! into them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process;

use super::error::JailerError;

const MOUNTS: &str = "/proc/mounts";

/// What was asked for, by cgroup.
#[derive(Debug)]
pub(super) struct Cgroups {
    version: Version,
    cgroups: BTreeMap<PathBuf, Vec<Property>>,
    /// How many cgroups of version 1 lie between the hierarchy and the VM's own.
    parents: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Debug)]
struct Property {
    file: String,
    controller: String,
    value: String,
}

/// Where hierarchies are mounted, and with which options.
#[derive(Debug)]
struct Mounts(Vec<(PathBuf, String)>);

impl Cgroups {
    /// Each property is written `<controller>.<file>=<value>`.
    pub(super) fn asked_for(
        properties: &[String],
        version: u8,
        parent: &Path,
        id: &str,
    ) -> Result<Self, JailerError> {
        let mounts = Mounts::of_version(version)?;
        let version = match version {
            1 => Version::One,
            2 => Version::Two,
            other => return Err(JailerError::CgroupInvalidVersion(other.to_string())),
        };
        let mut cgroups: BTreeMap<PathBuf, Vec<Property>> = BTreeMap::new();
        for text in properties {
            let property = Property::parse(text)?;
            let hierarchy = match version {
                Version::One => mounts.with_option(&property.controller),
                Version::Two => mounts.first().filter(|mount| has_controller(mount, &property.controller)),
            };
            let missing = || JailerError::CgroupControllerUnavailable(property.controller.clone());
            let cgroup = hierarchy.ok_or_else(missing)?.join(parent).join(id);
            cgroups.entry(cgroup).or_default().push(property);
        }
        Ok(Self { version, cgroups, parents: parent.components().count() })
    }

    /// All values are written before anybody moves: some are needed for others to be moved at all.
    pub(super) fn enter(&self) -> Result<(), JailerError> {
        for (cgroup, properties) in &self.cgroups {
            fs::create_dir_all(cgroup).map_err(|error| JailerError::CreateDir(cgroup.clone(), error))?;
            match self.version {
                Version::One => {
                    for property in properties {
                        inherit(cgroup, &property.file, self.parents)?;
                        write_line(&cgroup.join(&property.file), &property.value)?;
                    }
                }
                Version::Two => {
                    for property in properties {
                        enable(cgroup.parent(), &property.controller)?;
                        write_line(&cgroup.join(&property.file), &property.value)?;
                    }
                }
            }
        }
        let members = match self.version {
            Version::One => "tasks",
            Version::Two => "cgroup.procs",
        };
        self.cgroups.keys().try_for_each(|cgroup| write_line(&cgroup.join(members), process::id()))
    }
}

/// Without any property, an existing parent of version 2 is the cgroup itself.
pub(super) fn enter_parent(parent: &Path) -> Result<(), JailerError> {
    let mounts = Mounts::of_version(2)?;
    let Some(cgroup) = mounts.first().map(|mount| mount.join(parent)).filter(|cgroup| cgroup.exists()) else {
        return Ok(());
    };
    fs::write(cgroup.join("cgroup.procs"), process::id().to_string())
        .map_err(|error| JailerError::CgroupMove(cgroup, error))
}

/// Whether a path leads out of what it is joined to, or is written in another way than need be.
pub(super) fn strays(path: &Path) -> bool {
    let stray = |part| matches!(part, Component::CurDir | Component::ParentDir | Component::RootDir);
    path.components().any(stray)
}

impl Property {
    fn parse(text: &str) -> Result<Self, JailerError> {
        let parts: Vec<&str> = text.split('=').collect();
        let [file, value] = parts[..] else { return Err(JailerError::CgroupFormat(text.to_owned())) };
        if value.is_empty() {
            return Err(JailerError::CgroupFormat(text.to_owned()));
        }
        if strays(Path::new(file)) {
            return Err(JailerError::CgroupInvalidFile(text.to_owned()));
        }
        let controller = file.split_once('.').map(|(controller, _)| controller.to_owned());
        let controller = controller.ok_or_else(|| JailerError::CgroupInvalidFile(file.to_owned()))?;
        Ok(Self { file: file.to_owned(), controller, value: value.to_owned() })
    }
}

impl Mounts {
    fn of_version(version: u8) -> Result<Self, JailerError> {
        let text = fs::read_to_string(MOUNTS)
            .map_err(|error| JailerError::FileOpen(PathBuf::from(MOUNTS), error))?;
        let kind = match version {
            1 => "cgroup",
            2 => "cgroup2",
            _ => "",
        };
        let mounts = text.lines().filter_map(|line| {
            let [_, directory, this, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            (this == kind).then(|| (PathBuf::from(directory), options.to_owned()))
        });
        let mounts: Vec<_> = mounts.collect();
        if mounts.is_empty() {
            let reason = "No hierarchy found for this cgroup version.";
            return Err(JailerError::CgroupHierarchyMissing(reason.to_owned()));
        }
        Ok(Self(mounts))
    }

    fn first(&self) -> Option<&Path> {
        self.0.first().map(|(directory, _)| directory.as_path())
    }

    fn with_option(&self, wanted: &str) -> Option<&Path> {
        let has = |options: &str| options.split(',').any(|option| option == wanted);
        self.0.iter().find(|(_, options)| has(options)).map(|(directory, _)| directory.as_path())
    }
}

fn has_controller(hierarchy: &Path, controller: &str) -> bool {
    let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
    controllers.lines().flat_map(|line| line.split(' ')).any(|one| one == controller)
}

/// Version 1 leaves some files of a new cgroup empty, in which nothing can be set before they say what the parent's do.
fn inherit(cgroup: &Path, file: &str, retries: usize) -> Result<(), JailerError> {
    let of_parent = cgroup.with_file_name(file);
    let mut line = read_line(&of_parent)?;
    if line.is_empty() && retries > 0 {
        let parent = of_parent.parent().ok_or_else(|| JailerError::MissingParent(of_parent.clone()))?;
        // Somebody else may have done it at this very moment.
        let _ = inherit(parent, file, retries - 1);
        line = read_line(&of_parent)?;
    }
    if line.is_empty() {
        return Err(JailerError::CgroupInheritFromParent(cgroup.to_owned(), file.to_owned()));
    }
    write_line(&cgroup.join(file), line)
}

/// Version 2 has a controller where all the parents pass it on.
fn enable(cgroup: Option<&Path>, controller: &str) -> Result<(), JailerError> {
    let Some(cgroup) = cgroup else { return Ok(()) };
    let passed_on = cgroup.join("cgroup.subtree_control");
    if !passed_on.exists() {
        return Ok(());
    }
    enable(cgroup.parent(), controller)?;
    write_line(&passed_on, format!("+{controller}"))
}

fn read_line(path: &Path) -> Result<String, JailerError> {
    let text = fs::read_to_string(path).map_err(|error| JailerError::ReadToString(path.to_owned(), error))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn write_line(path: &Path, value: impl Display) -> Result<(), JailerError> {
    fs::write(path, format!("{value}\n")).map_err(|error| JailerError::Write(path.to_owned(), error))
}
