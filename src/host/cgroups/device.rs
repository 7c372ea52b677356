//! The disk that a path is on, by the number under which the kernel limits its use.

use crate::sys::file;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The number of the whole disk at `path`, or on which `path` is, as `major:minor`.
///
/// # Errors
/// When there is nothing, or it is on no disk of its own.
pub(super) fn number_of(path: &Path) -> io::Result<String> {
    let about = fs::metadata(path)?;
    let device = if about.file_type().is_block_device() { about.rdev() } else { about.dev() };
    let number = file::device_name(device);
    let known = Path::new("/sys/dev/block").join(&number);
    if !known.exists() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is on no block device that the kernel knows, as on tmpfs, overlayfs, btrfs and over a network: name the \
             device itself, as /dev/nvme0n1",
        ));
    }
    // A partition has no limits of its own.
    if known.join("partition").exists() {
        return fs::read_to_string(known.join("../dev")).map(|text| text.trim().to_owned());
    }
    Ok(number)
}
