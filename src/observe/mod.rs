//! What can be seen of VMs from outside: the text that they print, what they count and use, what happens to them.

pub(crate) mod cgroup_usage;
pub mod console;
pub mod events;
pub(crate) mod exposition;
pub(crate) mod latency;
pub mod logging;
pub mod metrics;
pub(crate) mod prometheus;
pub(crate) mod usage;
