//! A unix socket as something that a VM owns.

use super::{Found, Thing};
use crate::sys::socket;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A socket file, relative to the VMM's working directory or absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Thing for Socket {
    fn find(&self, working_directory: &Path) -> io::Result<Found> {
        let path = working_directory.join(&self.path);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(error),
            Ok(_) if socket::is_dead(&path) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign),
        }
    }

    fn is_makeable(&self, working_directory: &Path) -> bool {
        // In its own directory it meets none but former sockets of its own.
        self.path.is_relative() || matches!(self.find(working_directory), Ok(Found::Absent))
    }

    fn undo(&self, working_directory: &Path) -> io::Result<()> {
        match self.path.is_absolute() {
            true => socket::remove_dead(&self.path),
            // A VMM may put a link where its directory was: none leads out of it.
            false => socket::remove_dead_below(working_directory, &self.path),
        }
        Ok(())
    }

    fn describe(&self, working_directory: &Path) -> String {
        format!("the socket {}", working_directory.join(&self.path).display())
    }
}
