//! What a VM, a pool or a snapshot may be called: what Firecracker, its jailer, a file system and a command line all
//! take as it is.

use thiserror::Error;

/// What is wrong with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    /// It is empty.
    #[error("it is empty: use 1 to {LONGEST} letters, digits and '-'")]
    Empty,
    /// It is too long.
    #[error("it is {0} characters long, and at most {LONGEST} are allowed")]
    TooLong(usize),
    /// It has a character that some of those who read it do not take.
    #[error("it contains {0:?}: only letters, digits and '-' are allowed")]
    Character(char),
    /// It begins as an option does: Firecracker, the jailer and most programs would take it for one.
    #[error("it begins with '-', and must begin with a letter or a digit")]
    Dash,
}

/// The longest id there may be.
pub(crate) const LONGEST: usize = 64;

/// Checks that `id` is 1 to 64 ASCII letters, digits and `-`, and does not begin with `-`; nothing is ever changed to make it
/// fit.
pub(crate) fn check(id: &str) -> Result<(), Fault> {
    if id.is_empty() {
        return Err(Fault::Empty);
    }
    if id.len() > LONGEST {
        return Err(Fault::TooLong(id.chars().count()));
    }
    if id.starts_with('-') {
        return Err(Fault::Dash);
    }
    let wrong = id.chars().find(|character| !character.is_ascii_alphanumeric() && *character != '-');
    wrong.map_or(Ok(()), |character| Err(Fault::Character(character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_firecracker_takes_is_an_id() {
        for id in ["a", "A-9", "9-", &"x".repeat(64)] {
            assert_eq!(check(id), Ok(()), "{id}");
        }
    }

    #[test]
    fn what_anybody_on_the_way_would_misread_is_not() {
        for id in [
            "",
            ".",
            "..",
            "a/b",
            "_",
            "a b",
            "a\n",
            "ä",
            "a\0",
            "-",
            "--",
            "-h",
            "--version",
            &"x".repeat(65),
        ] {
            assert!(check(id).is_err(), "{id:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_id_is_always_one_plain_file_name(id in "\\PC{0,70}") {
            if check(&id).is_ok() {
                let name = std::path::Path::new(&id).file_name();
                proptest::prop_assert_eq!(name, Some(std::ffi::OsStr::new(&id)));
            }
        }
    }
}
