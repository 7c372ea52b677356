//! The options of a runtime, as JSON.

use super::Error;
use crate::settings::{self, KnownKeys};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What holds for all VMs of a runtime.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    /// The VMM of those VMs whose spec names none.
    pub(super) firecracker: Option<PathBuf>,
    /// The program `mvm-keeper`.
    pub(super) keeper: Option<PathBuf>,
    /// How many events wait for somebody to take them.
    pub(super) event_queue: usize,
}

const KNOWN: KnownKeys = &[("options", &["firecracker", "keeper", "event_queue"])];

impl Default for Options {
    fn default() -> Self {
        Self { firecracker: None, keeper: None, event_queue: 4096 }
    }
}

impl Options {
    /// Reads them; nothing is an empty object.
    pub(super) fn parse(json: Option<&str>, base: &Path) -> Result<Self, Error> {
        let value = settings::parse(json.unwrap_or("{}")).map_err(Error::Options)?;
        let options: Self = settings::read(value, "options", KNOWN).map_err(Error::Options)?;
        let absolute = |path: Option<PathBuf>| path.map(|path| base.join(path));
        Ok(Self {
            firecracker: absolute(options.firecracker),
            keeper: absolute(options.keeper),
            event_queue: options.event_queue,
        })
    }
}
