//! What the owner of a VM keeps with it: a text that the library stores and never reads.
//!
//! Who drives VMs from another engine needs no database of its own for them: the text is in the journal, and so it is
//! there for the next owner.

use super::{Error, Vm};
use crate::operation::Operation;
use crate::settings::Setting;
use serde_json::Value;
use thiserror::Error;

/// At most 4096 bytes of text without a NUL; empty when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerData(String);

/// The most bytes of owner data.
const LONGEST: usize = 4096;

/// Why a text cannot be owner data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OwnerDataError {
    /// It is too long.
    #[error(
        "the owner data has {0} bytes, and at most {LONGEST} are allowed: store the rest elsewhere, and a reference here"
    )]
    TooLong(usize),
    /// It has a NUL in it.
    #[error("the owner data contains a NUL: encode data that is not text")]
    Nul,
}

impl OwnerData {
    /// Checks `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, OwnerDataError> {
        match text.len() {
            _ if text.contains('\0') => Err(OwnerDataError::Nul),
            0..=LONGEST => Ok(Self(text.to_owned())),
            length => Err(OwnerDataError::TooLong(length)),
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Setting for OwnerData {
    const WANTED: &'static str = "a string of at most 4096 bytes without a NUL";
    fn of(value: Value) -> Option<Self> {
        Self::parse(value.as_str()?).ok()
    }
}

impl Vm {
    /// Keeps `data` with the VM, instead of what was kept before.
    ///
    /// # Errors
    /// When the VM was destroyed, or the disk is full; what was kept before stays then.
    pub fn set_owner_data(&self, data: OwnerData) -> Result<(), Error> {
        let mut turn = self.begin(Operation::SetOwnerData, self.spec.options.deadlines.request())?;
        self.note(&mut turn, |record| record.owner_data = data.into_text())
    }

    /// What is kept with the VM; empty when nothing is.
    ///
    /// # Errors
    /// When the VM was destroyed.
    pub fn owner_data(&self) -> Result<String, Error> {
        Ok(self.present(Operation::Describe)?.record.owner_data.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_data_is_text_of_a_limited_length() {
        assert!(OwnerData::parse("").is_ok() && OwnerData::parse(&"a".repeat(LONGEST)).is_ok());
        assert_eq!(
            OwnerData::parse(&"\u{e4}".repeat(LONGEST / 2 + 1)),
            Err(OwnerDataError::TooLong(LONGEST + 2))
        );
        assert_eq!(OwnerData::parse("a\0b"), Err(OwnerDataError::Nul));
    }
}
