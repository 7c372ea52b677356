//! What the host lends a VM: its files under the names of the VMM, disks and their images, its cgroups, its CPU and its
//! devices.

pub(crate) mod catalogue;
pub(crate) mod cgroups;
pub(crate) mod cpu;
pub(crate) mod devices;
pub(crate) mod disk;
mod error;
pub(crate) mod files;
pub(crate) mod huge_pages;
pub(crate) mod jail;

pub use catalogue::CatalogueError;
pub use cgroups::CgroupError;
pub use devices::{Device, DeviceError};
pub use error::{DiskError, NotPlain, Task};
pub use files::VmmPath;
pub use jail::LendError;
