//! What the host lends a VM: its files under the names of the VMM, disks and their images, its cgroups, and its CPU.

pub(crate) mod catalogue;
pub(crate) mod cgroups;
pub(crate) mod cpu;
pub(crate) mod disk;
mod error;
pub(crate) mod files;

pub use catalogue::CatalogueError;
pub use cgroups::CgroupError;
pub use error::{DiskError, NotPlain, Task};
pub use files::VmmPath;
