//! The name of a VM.

use crate::id::{self, Fault, LONGEST};
use std::borrow::Borrow;
use std::fmt;
use thiserror::Error;

/// 1 to 64 ASCII letters, digits and `-`, the first of which is not `-`.
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
    #[error("the VM id {id:?} contains {character:?}: only letters, digits and '-' are allowed")]
    Character {
        /// The id.
        id: String,
        /// The character.
        character: char,
    },
    /// It begins with `-`, and would be taken for an option.
    #[error("the VM id {0:?} begins with '-': it must begin with a letter or a digit")]
    Dash(String),
}

impl VmId {
    /// Checks `id`; nothing is ever changed to make it fit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(id: &str) -> Result<Self, IdError> {
        id::check(id).map(|()| Self(id.to_owned())).map_err(|fault| match fault {
            Fault::Empty => IdError::Empty,
            Fault::TooLong(characters) => IdError::TooLong(characters),
            Fault::Character(character) => IdError::Character { id: id.to_owned(), character },
            Fault::Dash => IdError::Dash(id.to_owned()),
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for VmId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
