//! What a host can do for a runtime, before there is one.

use super::options::RuntimeOptions;
use super::{Error, Runtime, current_directory};
use crate::check::{CheckReport, Subject};
use crate::operation::Operation;
use std::path::Path;

impl Runtime {
    /// Looks at what this host can do for a runtime that would be opened with these arguments: what it cannot, and what to
    /// do about it. Nothing is changed, and the directory may be open in another runtime.
    ///
    /// # Errors
    /// When the options are wrong.
    pub fn check(directory: Option<&Path>, options: Option<&str>) -> Result<CheckReport, Error> {
        let base = current_directory()?;
        let options = RuntimeOptions::parse(options, &base, Operation::Check)?;
        let directory = directory.map(|directory| base.join(directory));
        Ok(CheckReport::of(&Subject {
            directory: directory.as_deref(),
            firecracker: options.firecracker.as_deref(),
            jailer: options.jail.jailer.as_deref(),
            keeper: options.keeper.as_deref(),
            cgroups: &options.cgroup,
            cgroup_parent: options.cgroup_parent.as_deref(),
            tools: &options.tools,
        }))
    }
}
