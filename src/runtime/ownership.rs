//! Owning a state directory: one process at a time, by a lock that goes when the process does.

use super::Error;
use crate::journal::{StateDirectory, owner};
use crate::process::Identity;
use crate::sys::deadline::Deadline;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// The lock of a state directory, until it is dropped.
#[derive(Debug)]
pub(super) struct Ownership(File);

/// A child of the former owner that was just being started holds a copy of its descriptor until it executes.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Ownership {
    /// Takes the lock of the state directory at `directory` for the process `owner`.
    pub(super) fn take(
        state: &StateDirectory,
        directory: &Path,
        owner: Identity,
        boot: &str,
    ) -> Result<Self, Error> {
        let path = owner::lock_file(directory);
        let failed = |source| Error::Directory { action: "lock", path: path.clone(), source };
        let file = state.open_file(owner::LOCK, libc::O_RDWR | libc::O_CREAT)?;
        let deadline = Deadline::after(PATIENCE);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let owner = owner::read_owner(&file, boot);
            if owner.is_some_and(|owner| owner.is_running()) || deadline.has_passed() {
                return Err(Error::Busy { path: directory.into(), owner });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        owner::write_owner(&file, owner, boot).map_err(failed)?;
        Ok(Self(file))
    }
}

impl Drop for Ownership {
    /// Unlocks by word and not by closing: a child that was forked, or is just being started, holds a copy of the
    /// descriptor.
    fn drop(&mut self) {
        let _unlocked = owner::strike_out_owner(&self.0).and_then(|()| self.0.unlock());
    }
}
