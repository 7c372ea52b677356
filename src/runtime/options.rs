//! The options of a runtime, as JSON.

use super::Error;
use crate::operation::Operation;
use crate::settings::{self, Section};
use crate::sys::user;
use crate::vm::{JailDefaults, is_of_a_jail};
use std::path::{Path, PathBuf};

/// What holds for all VMs of a runtime.
#[derive(Debug)]
pub(super) struct RuntimeOptions {
    /// The VMM of those VMs whose spec names none.
    pub(super) firecracker: Option<PathBuf>,
    /// The program `mvm-keeper`.
    pub(super) keeper: Option<PathBuf>,
    /// The control groups of the keeper, and of those VMs whose spec names none.
    pub(super) cgroup: Vec<PathBuf>,
    /// The cgroup in which those of VMs with limits are made.
    pub(super) cgroup_parent: Option<PathBuf>,
    /// Where images are that specs name as templates.
    pub(super) catalogue: Option<PathBuf>,
    /// Where the programs are that grow disks; none: in the usual places.
    pub(super) tools: Vec<PathBuf>,
    /// What holds for the jails of all VMs.
    pub(super) jail: JailDefaults,
    /// How many events wait for somebody to take them.
    pub(super) event_queue: usize,
}

impl RuntimeOptions {
    /// Reads them; nothing is an empty object.
    pub(super) fn parse(json: Option<&str>, base: &Path, operation: Operation) -> Result<Self, Error> {
        Self::read(json, base).map_err(Error::of_options(operation))
    }

    fn read(json: Option<&str>, base: &Path) -> Result<Self, settings::Error> {
        let mut given = Section::parse(json, "options")?;
        let absolute = |path: PathBuf| base.join(path);
        let options = Self {
            firecracker: given.take("firecracker")?.map(absolute),
            keeper: given.take("keeper")?.map(absolute),
            cgroup: given.paths("cgroup")?.unwrap_or_default().into_iter().map(absolute).collect(),
            cgroup_parent: given.take("cgroup_parent")?,
            catalogue: given.take("catalogue")?.map(absolute),
            tools: given.paths("tools")?.unwrap_or_default().into_iter().map(absolute).collect(),
            jail: read_jail(given.section("jail")?, base)?,
            event_queue: usize::try_from(given.take_or("event_queue", 4096_u64)?).unwrap_or(usize::MAX),
        };
        given.finish().map(|()| options)
    }
}

fn read_jail(mut given: Section, base: &Path) -> Result<JailDefaults, settings::Error> {
    let jailer = given.take("jailer")?.map(|path: PathBuf| base.join(path));
    let mut uids = given.section("uids")?;
    let default = JailDefaults::default();
    let first = uids.take_or("first", *default.uids.start())?;
    let count = uids.take_or("count", default.uids.end() - default.uids.start() + 1)?;
    uids.finish()?;
    given.finish()?;
    let last = first.saturating_add(count.saturating_sub(1));
    if count == 0
        || !is_of_a_jail(first)
        || !is_of_a_jail(last)
        || (first..=last).contains(&user::effective_user())
    {
        let (path, found) = ("options.jail.uids".into(), format!("those from {first} to {last}"));
        return Err(settings::Error::Value {
            path,
            wanted: "numbers of users, from 1 to 4294967294, without that of this process's user",
            found,
        });
    }
    Ok(JailDefaults { jailer, uids: first..=last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_runtime() {
        reference::hold(reference::RUNTIME, || RuntimeOptions::read(None, Path::new("/")));
    }
}
