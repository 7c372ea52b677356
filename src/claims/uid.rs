//! The number of a user that a jailed VMM runs as: leased from a range, and no other VM of this host has it meanwhile.
//!
//! A lease is a link in one directory of the host, named by the number; it leads nowhere, and says whose it is. Making a link
//! is atomic, so of two that want a number one gets it. A reboot ends all leases, as it ends all VMMs.

use super::{Found, Thing};
use crate::sys::{random, user};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Where the leases of all runtimes of this host are.
pub(crate) const LEASES: &str = "/run/mvm/uids";

/// A leased number of a user, which is that of a group too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uid {
    number: u32,
    /// What tells this lease from all others of that number.
    token: String,
}

impl Uid {
    /// One of `numbers` that nobody has leased now; it is leased when it is made. Nothing when all are.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(crate) fn free_one_of(numbers: &RangeInclusive<u32>) -> io::Result<Option<Self>> {
        // A random one is not soon given to another VM when its VM has ended.
        let token = random::name()?;
        let seed =
            token.bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let (first, last) = (u64::from(*numbers.start()), u64::from(*numbers.end()));
        let count = (last + 1).saturating_sub(first);
        let candidates = (0..count).map(|step| first + seed.wrapping_add(step) % count);
        let numbers = candidates.filter_map(|number| u32::try_from(number).ok());
        let mut free = numbers.filter(|number| place_of(*number).symlink_metadata().is_err());
        Ok(free.next().map(|number| Self { number, token }))
    }

    /// The lease of the user that the process with the number `pid` runs as, if there is one.
    pub(crate) fn of_process(pid: i32) -> Option<Self> {
        let number = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let token = fs::read_link(place_of(number)).ok()?.into_os_string().into_string().ok()?;
        Some(Self { number, token })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn place(&self) -> PathBuf {
        place_of(self.number)
    }
}

/// Makes the directory of the leases, or sees that nobody but root and this process's user can change what is in it.
fn prepare(leases: &Path) -> io::Result<()> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    DirBuilder::new().mode(0o700).recursive(true).create(leases)?;
    for directory in leases.parent().into_iter().chain([leases]) {
        let about = directory.symlink_metadata()?;
        let is_trusted = about.uid() == 0 || about.uid() == user::effective_user();
        if !about.is_dir() || !is_trusted || about.mode() & OTHERS_MAY_WRITE != 0 {
            let what = format!(
                "{} must be a directory of root's that nobody else may write to: check what is in it, and remove it",
                directory.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    Ok(())
}

fn place_of(number: u32) -> PathBuf {
    Path::new(LEASES).join(number.to_string())
}

impl Thing for Uid {
    fn find(&self, _working_directory: &Path) -> io::Result<Found> {
        match fs::read_link(self.place()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) => Err(error),
            Ok(token) if token == Path::new(&self.token) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign),
        }
    }

    fn is_makeable(&self, _working_directory: &Path) -> bool {
        true
    }

    fn make(&self, _working_directory: &Path) -> io::Result<()> {
        prepare(Path::new(LEASES))?;
        symlink(&self.token, self.place())
    }

    fn undo(&self, working_directory: &Path) -> io::Result<()> {
        if self.find(working_directory)? != Found::Ours {
            return Ok(());
        }
        match fs::remove_file(self.place()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn describe(&self, _working_directory: &Path) -> String {
        format!("the lease {}", self.place().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    #[allow(clippy::print_stderr)]
    fn leases_are_not_made_where_somebody_else_could_take_them_away() {
        if user::effective_user() != 0 {
            eprintln!("skipped: leases are made by root");
            return;
        }
        let scratch = Scratch::new();
        let (above, leases) = (scratch.join("mvm"), scratch.join("mvm/uids"));
        prepare(&leases).unwrap();
        let refuses = || {
            let error = prepare(&leases).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        };
        for directory in [&above, &leases] {
            chown(directory, Some(12_345), None).unwrap();
            refuses();
            chown(directory, Some(0), None).unwrap();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o770)).unwrap();
            refuses();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
            prepare(&leases).unwrap();
        }
        fs::rename(&above, scratch.join("elsewhere")).unwrap();
        symlink(scratch.join("elsewhere"), &above).unwrap();
        refuses();
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn a_number_is_leased_once_and_only_its_holder_gives_it_back() {
        if user::effective_user() != 0 {
            eprintln!("skipped: leases are made by root");
            return;
        }
        // Numbers that nobody else leases: tests run beside each other.
        let numbers = 2_147_400_000..=2_147_400_001;
        let nowhere = Path::new("");
        let one = Uid::free_one_of(&numbers).unwrap().unwrap();
        one.make(nowhere).unwrap();
        let other = Uid::free_one_of(&numbers).unwrap().unwrap();
        assert_ne!(one.number(), other.number());
        let rival = Uid { number: one.number(), token: "another".into() };
        assert_eq!(rival.make(nowhere).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rival.undo(nowhere).unwrap();
        assert_eq!(one.find(nowhere).unwrap(), Found::Ours);
        other.make(nowhere).unwrap();
        assert_eq!(Uid::free_one_of(&numbers).unwrap(), None);
        for lease in [&one, &other, &one] {
            lease.undo(nowhere).unwrap();
            assert_eq!(lease.find(nowhere).unwrap(), Found::Absent);
        }
    }
}
