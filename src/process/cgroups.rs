//! The control groups that a process is to be started in: one of version 2, or some of version 1, one for each hierarchy.

use super::Error;
use crate::sys::cgroup::Cgroup;
use std::path::PathBuf;

/// Control groups that can be used, held open.
#[derive(Debug, Default)]
pub struct Cgroups(Vec<Cgroup>);

impl Cgroups {
    /// The cgroups in `directories`; none means that of the host.
    ///
    /// # Errors
    /// The one that cannot be used.
    pub fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let open = |path: &PathBuf| {
            Cgroup::open(path).map_err(|source| Error::Cgroup { path: path.clone(), source })
        };
        directories.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn as_slice(&self) -> &[Cgroup] {
        &self.0
    }
}
