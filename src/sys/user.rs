//! Who this process is.

use std::fs;

/// Its effective user.
pub fn effective_user() -> u32 {
    // SAFETY: no pointer is passed, and it cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether it is in the group `group`, or that is root's.
pub fn is_trusted_group(group: u32) -> bool {
    /// The kernel's own limit.
    const MOST: u16 = u16::MAX;
    // SAFETY: no pointer is passed, and it cannot fail.
    if group == 0 || group == unsafe { libc::getegid() } {
        return true;
    }
    let mut groups = vec![0; usize::from(MOST)];
    // SAFETY: the kernel writes at most `MOST` numbers, for which there is room.
    let count = unsafe { libc::getgroups(MOST.into(), groups.as_mut_ptr()) };
    groups.iter().take(usize::try_from(count).unwrap_or_default()).any(|one| *one == group)
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
