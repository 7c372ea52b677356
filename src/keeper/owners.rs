//! Whoever owns the state directory, and who did and still lives: VMs end with the process that made them.

use crate::process::{Identity, Process};
use crate::sys::epoll::{Epoll, Heard};
use std::io;
use std::os::fd::AsFd;

use crate::sys::poll::Interest;

/// The owners that were seen, as long as they live.
pub(super) struct Owners {
    living: Vec<(Identity, Process)>,
    ends: Epoll,
    /// The last that was seen.
    latest: Option<Identity>,
}

impl Owners {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { living: Vec::new(), ends: Epoll::new()?, latest: None })
    }

    /// Notes who owns the directory now. One who has come and gone unseen is told by [`Owners::gone`] as well.
    pub(super) fn note(&mut self, owner: Identity, gone: &mut Vec<Identity>) -> io::Result<()> {
        if self.latest.replace(owner) == Some(owner) || self.living.iter().any(|(known, _)| *known == owner) {
            return Ok(());
        }
        match Process::find(owner).map_err(io::Error::other)? {
            Some(process) => {
                self.ends.watch(process.pidfd(), 0, Heard::Always)?;
                self.living.push((owner, process));
            }
            None => gone.push(owner),
        }
        Ok(())
    }

    /// Those who have ended since the last look.
    pub(super) fn gone(&mut self) -> Vec<Identity> {
        let has_ended = |process: &Process| !matches!(process.exit_status(), Ok(None));
        let gone = self.living.extract_if(.., |(_, process)| has_ended(process));
        gone.map(|(identity, _)| identity).collect()
    }

    /// Whether one lives.
    pub(super) fn is_anybody_there(&self) -> bool {
        !self.living.is_empty()
    }

    /// Readable when one has ended.
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest::Readable(self.ends.as_fd())
    }
}
