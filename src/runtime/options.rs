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
    /// How many events wait for somebody to take them.
    pub(super) event_queue: usize,
}

const KNOWN: KnownKeys = &[("options", &["firecracker", "event_queue"])];

impl Default for Options {
    fn default() -> Self {
        Self { firecracker: None, event_queue: 4096 }
    }
}

impl Options {
    /// Reads them; nothing is an empty object.
    pub(super) fn parse(json: Option<&str>, base: &Path) -> Result<Self, Error> {
        let value = settings::parse(json.unwrap_or("{}")).map_err(Error::Options)?;
        let options: Self = settings::read(value, "options", KNOWN).map_err(Error::Options)?;
        Ok(Self { firecracker: options.firecracker.map(|path| base.join(path)), ..options })
    }
}
