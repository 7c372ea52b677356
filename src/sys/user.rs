//! Who this process is.

use rustix::process;
use rustix::thread::{self, CapabilitySet};
use std::fs;

/// Its effective user.
pub fn effective_user() -> u32 {
    process::geteuid().as_raw()
}

/// What a process may do that is not root's alone, with the name that manuals use.
pub type Capability = (CapabilitySet, &'static str);

/// What it takes to jail a process.
pub const NEEDED_BY_A_JAIL: [Capability; 9] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_CHROOT, "CAP_SYS_CHROOT"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::MKNOD, "CAP_MKNOD"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
];

/// What it takes to create network interfaces and firewall rules.
pub const NEEDED_BY_NETWORKS: [Capability; 1] = [(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN")];

/// Those of `wanted` that the calling thread has not.
pub fn missing_capabilities(wanted: &[Capability]) -> Vec<&'static str> {
    let has = thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    // Whoever is in a user namespace of its own makes no device nodes, whatever it has.
    let usable = |one| has.contains(one) && (one != CapabilitySet::MKNOD || maps_everybody());
    wanted.iter().filter(|(one, _)| !usable(*one)).map(|(_, name)| *name).collect()
}

/// Its effective group.
pub fn effective_group() -> u32 {
    process::getegid().as_raw()
}

/// Whether it is in the group `group`, or that is root's.
pub fn is_trusted_group(group: u32) -> bool {
    let own = || process::getgroups().unwrap_or_default().iter().any(|one| one.as_raw() == group);
    group == 0 || group == process::getegid().as_raw() || own()
}

/// What the group with the number `group` is called on this host; the number where /etc/group does not have it.
pub fn group_name(group: u32) -> String {
    let name = field_of("/etc/group", group, 0);
    name.unwrap_or_else(|| group.to_string())
}

/// Whether /etc/group has the effective user in `group`.
pub fn is_listed_in(group: u32) -> bool {
    let user = field_of("/etc/passwd", effective_user(), 0);
    let members = field_of("/etc/group", group, 3).unwrap_or_default();
    user.is_some_and(|user| members.split(',').any(|member| member == user))
}

/// A field of the line for `number` in a file such as /etc/passwd.
fn field_of(path: &str, number: u32, field: usize) -> Option<String> {
    let (file, number) = (fs::read_to_string(path).ok()?, number.to_string());
    let line = file.lines().find(|line| line.split(':').nth(2) == Some(number.as_str()))?;
    line.split(':').nth(field).map(str::to_owned)
}

/// Whether `user` stands for all users that have no number in the user namespace of this process.
pub fn is_unmapped(user: u32) -> bool {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    let overflow = overflow.and_then(|text| text.trim().parse::<u32>().ok());
    overflow == Some(user) && !maps_everybody()
}

fn maps_everybody() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
