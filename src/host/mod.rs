//! What the host lends a VM: copies of disks, and its CPU.

pub(crate) mod cpu;
pub(crate) mod disk;
mod error;

pub use error::{DiskError, NotPlain, Task};
