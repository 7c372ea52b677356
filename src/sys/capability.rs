//! What the kernel lets the calling thread do beyond its user's rights.

use std::fs;
use std::io;

/// A set of capabilities, one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

/// One of them: its name, and its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(pub &'static str, u8);

/// To give files to another user.
pub const CHOWN: Capability = Capability("CAP_CHOWN", 0);
/// To use files whatever their mode says.
pub const DAC_OVERRIDE: Capability = Capability("CAP_DAC_OVERRIDE", 1);
/// To change modes of other users' files.
pub const FOWNER: Capability = Capability("CAP_FOWNER", 3);
/// To signal processes of other users.
pub const KILL: Capability = Capability("CAP_KILL", 5);
/// To change groups.
pub const SETGID: Capability = Capability("CAP_SETGID", 6);
/// To change users.
pub const SETUID: Capability = Capability("CAP_SETUID", 7);
/// To change networks: interfaces, routes, firewalls.
pub const NET_ADMIN: Capability = Capability("CAP_NET_ADMIN", 12);
/// To change the root directory.
pub const SYS_CHROOT: Capability = Capability("CAP_SYS_CHROOT", 18);
/// To look into processes of other users.
pub const SYS_PTRACE: Capability = Capability("CAP_SYS_PTRACE", 19);
/// To mount, and much else.
pub const SYS_ADMIN: Capability = Capability("CAP_SYS_ADMIN", 21);
/// To raise hard limits.
pub const SYS_RESOURCE: Capability = Capability("CAP_SYS_RESOURCE", 24);
/// To make device nodes.
pub const MKNOD: Capability = Capability("CAP_MKNOD", 27);

impl Capabilities {
    /// Those that the calling thread has now.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn effective() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Whether `one` is among them.
    pub fn has(self, one: Capability) -> bool {
        self.0 & (1 << one.1) != 0
    }
}
