//! Huge pages that the host has set aside, from which a guest's memory can be taken.

use std::path::Path;

/// How many bytes one has.
pub(crate) const BYTES: u64 = 2 << 20;

/// How many there are and how many of them a VMM that is started now could get; nothing on a kernel without any.
pub(crate) fn pool() -> Option<Pool> {
    let number = |name: &str| -> Option<u64> {
        let path = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").join(name);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let total = number("nr_hugepages")?;
    let unreserved = number("free_hugepages")?.saturating_sub(number("resv_hugepages").unwrap_or_default());
    let more = number("nr_overcommit_hugepages").unwrap_or_default();
    let beyond = number("surplus_hugepages").unwrap_or_default();
    Some(Pool { total, available: unreserved + more.saturating_sub(beyond) })
}

/// Huge pages of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) total: u64,
    /// Those that nobody has or was promised, and those that the kernel would make on demand.
    pub(crate) available: u64,
}
