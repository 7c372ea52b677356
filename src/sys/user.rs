//! Who this process is.

use rustix::process;
use std::fs;

/// Its effective user.
pub fn effective_user() -> u32 {
    process::geteuid().as_raw()
}

/// Whether it is in the group `group`, or that is root's.
pub fn is_trusted_group(group: u32) -> bool {
    let own = || process::getgroups().unwrap_or_default().iter().any(|one| one.as_raw() == group);
    group == 0 || group == process::getegid().as_raw() || own()
}

/// What the group with the number `group` is called on this host; the number where /etc/group does not have it.
pub fn group_name(group: u32) -> String {
    let number = group.to_string();
    let file = fs::read_to_string("/etc/group").unwrap_or_default();
    let is_it = |line: &&str| line.split(':').nth(2) == Some(number.as_str());
    let name = file.lines().find(is_it).and_then(|line| line.split(':').next());
    name.map_or(number.clone(), str::to_owned)
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
