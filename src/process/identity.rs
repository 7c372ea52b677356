//! Which process a number meant: numbers are given out again, a number with its birth is not.

use crate::sys::pidfd::Pidfd;
use crate::sys::procfs::ProcessStat;
use serde::{Deserialize, Serialize};
use std::io;

/// One process of one boot of the machine, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// When it began, in clock ticks since the boot.
    pub started: u64,
}

impl Identity {
    /// That of the process which has the number `pid` now.
    ///
    /// # Errors
    /// When there is none, or `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started: ProcessStat::of(pid)?.started })
    }

    /// That of the calling process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id().cast_signed())
    }

    /// Whether it is still there, be it as a zombie.
    pub fn is_there(&self) -> bool {
        Self::of(self.pid).is_ok_and(|present| present == *self)
    }

    /// Whether it still runs. Somebody else's child is not reaped by the look.
    pub fn is_running(&self) -> bool {
        // Its identity is looked at while its number is held.
        Pidfd::open(self.pid)
            .is_ok_and(|pidfd| self.is_there() && pidfd.has_ended().is_ok_and(|ended| !ended))
    }
}
