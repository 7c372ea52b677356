//! The name of a VM: what Firecracker, its jailer and a file system all take as it is.

use std::fmt;
use thiserror::Error;

/// 1 to 64 ASCII letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(String);

/// Why a string names no VM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// It is empty.
    #[error("a VM id cannot be empty: it has 1 to {LONGEST} letters, digits and '-'")]
    Empty,
    /// It is too long.
    #[error("the VM id is {0} characters long, and at most {LONGEST} are allowed")]
    TooLong(usize),
    /// It has a character that some of those who read it do not take.
    #[error("the VM id {id:?} has {character:?} in it: only letters, digits and '-' are allowed")]
    Character {
        /// The id.
        id: String,
        /// The character.
        character: char,
    },
}

const LONGEST: usize = 64;

impl VmId {
    /// Checks `id`; nothing is ever changed to make it fit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(id: &str) -> Result<Self, IdError> {
        if id.is_empty() {
            return Err(IdError::Empty);
        }
        if id.len() > LONGEST {
            return Err(IdError::TooLong(id.chars().count()));
        }
        match id.chars().find(|character| !character.is_ascii_alphanumeric() && *character != '-') {
            None => Ok(Self(id.to_owned())),
            Some(character) => Err(IdError::Character { id: id.to_owned(), character }),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_firecracker_takes_is_an_id() {
        for id in ["a", "A-9", "-", &"x".repeat(64)] {
            assert!(VmId::parse(id).is_ok(), "{id}");
        }
    }

    #[test]
    fn what_anybody_on_the_way_would_misread_is_not() {
        for id in ["", ".", "..", "a/b", "_", "a b", "a\n", "ä", "a\0", &"x".repeat(65)] {
            assert!(VmId::parse(id).is_err(), "{id:?}");
        }
    }
}
