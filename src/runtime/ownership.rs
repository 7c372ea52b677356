//! Who owns a state directory: one process at a time, told by a lock that goes when the process does.

use super::Error;
use crate::process::Identity;
use crate::sys::deadline::Deadline;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lock of a state directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ownership(File);

/// A child of the former owner that was just being started holds a copy of its descriptor until it executes.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Ownership {
    /// Takes the lock of `directory` for the process `owner`.
    pub(super) fn take(directory: &Path, owner: Identity, boot: &str) -> Result<Self, Error> {
        let path = lock_file(directory);
        let failed = |source| Error::Directory { action: "lock", path: path.clone(), source };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let deadline = Deadline::after(PATIENCE);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let owner = read_owner(&mut file, boot);
            if owner.is_some_and(|owner| owner.is_there()) || deadline.has_passed() {
                return Err(Error::Busy { path: directory.into(), owner });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let Identity { pid, started } = owner;
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| {
            let text = format!("{pid} {started} {boot}\n");
            file.write_all(text.as_bytes())
        });
        noted.map_err(failed)?;
        Ok(Self(file))
    }
}

impl Drop for Ownership {
    /// Unlocks by word and not by closing: a child that was forked, or is just being started, holds a copy of the
    /// descriptor.
    fn drop(&mut self) {
        let _unlocked = self.0.set_len(0).and_then(|()| self.0.unlock());
    }
}

/// The file that an owner locks, and that says who it is.
pub(crate) fn lock_file(directory: &Path) -> PathBuf {
    directory.join("lock")
}

#[expect(dead_code, reason = "the keeper will ask")]
/// Who says in the lock file that it owns the directory; of another boot is nobody.
pub(crate) fn recorded_owner(directory: &Path, boot: &str) -> Option<Identity> {
    read_owner(&mut File::open(lock_file(directory)).ok()?, boot)
}

fn read_owner(file: &mut File, boot: &str) -> Option<Identity> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(128).read_to_string(&mut text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let identity = Identity { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
    (words.next()? == boot).then_some(identity)
}
