//! The name of a snapshot.

use crate::id::{self, Fault};
use std::fmt;
use thiserror::Error;

/// 1 to 64 ASCII letters, digits and `-`, the first of which is not `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(String);

/// Why a string names no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{id:?} is not a valid snapshot id")]
pub struct SnapshotIdError {
    /// The string.
    id: String,
    /// What is wrong with it.
    source: Fault,
}

impl SnapshotId {
    /// Checks `id`; nothing is ever changed to make it fit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(id: &str) -> Result<Self, SnapshotIdError> {
        let checked = id::check(id).map_err(|source| SnapshotIdError { id: id.to_owned(), source });
        checked.map(|()| Self(id.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
