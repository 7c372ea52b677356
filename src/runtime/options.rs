//! The options of a runtime, as JSON.

use super::Error;
use crate::settings::{self, KnownKeys};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What holds for all VMs of a runtime.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    /// The VMM of those VMs whose spec names none.
    pub(super) firecracker: Option<PathBuf>,
}

const KNOWN: KnownKeys = &[("options", &["firecracker"])];

impl Options {
    /// Reads them; nothing is an empty object.
    pub(super) fn parse(json: Option<&str>, base: &Path) -> Result<Self, Error> {
        let value = settings::parse(json.unwrap_or("{}")).map_err(Error::Options)?;
        let options: Self = settings::read(value, "options", KNOWN).map_err(Error::Options)?;
        Ok(Self { firecracker: options.firecracker.map(|path| base.join(path)) })
    }
}
