//! What `/proc` says of this process and its host, taken before a jail hides it.

use std::fs::{self, File};
use std::sync::OnceLock;

/// As a snapshot's state keeps it.
#[derive(Debug)]
pub(crate) struct Proc {
    /// Which of this process's pages were touched; nothing where `/proc` is not to be had.
    pub(crate) pagemap: Option<File>,
    /// Empty where it is not told.
    pub(crate) cpu_vendor: String,
}

/// Looks at the first call.
pub(crate) fn look() -> &'static Proc {
    static SEEN: OnceLock<Proc> = OnceLock::new();
    SEEN.get_or_init(|| Proc { pagemap: File::open("/proc/self/pagemap").ok(), cpu_vendor: cpu_vendor() })
}

fn cpu_vendor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find_map(|line| line.strip_prefix("vendor_id")?.split_once(": "));
    vendor.map(|(_, vendor)| vendor.to_owned()).unwrap_or_default()
}
