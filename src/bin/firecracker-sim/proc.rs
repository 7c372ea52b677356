//! What `/proc` says of this process and its host, taken before a jail hides it.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};

/// As a snapshot's state keeps it.
#[derive(Debug)]
pub(crate) struct Proc {
    /// Which of this process's pages were touched; nothing where `/proc` is not to be had.
    pub(crate) pagemap: Option<File>,
    /// Empty where it is not told.
    pub(crate) cpu_vendor: String,
}

static SEEN: OnceLock<Proc> = OnceLock::new();

/// What was seen at the first call of either function.
pub(crate) fn look() -> &'static Proc {
    SEEN.get_or_init(|| Proc::seen_in(File::open("/proc").ok().as_ref()))
}

/// Looks into a `/proc` that is out of the reach of paths.
pub(crate) fn look_into(directory: Option<&File>) {
    SEEN.get_or_init(|| Proc::seen_in(directory));
}

impl Proc {
    fn seen_in(directory: Option<&File>) -> Self {
        let open = |name| openat(directory?, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let cpus = open("cpuinfo").and_then(|cpus| io::read_to_string(File::from(cpus)).ok());
        Self {
            pagemap: open("self/pagemap").map(File::from),
            cpu_vendor: cpu_vendor(&cpus.unwrap_or_default()),
        }
    }
}

fn cpu_vendor(cpus: &str) -> String {
    let vendor = cpus.lines().find_map(|line| line.strip_prefix("vendor_id")?.split_once(": "));
    vendor.map(|(_, vendor)| vendor.to_owned()).unwrap_or_default()
}
