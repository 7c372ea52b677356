//! What this process may do with a file, without opening it.

use rustix::fs::{Access, AtFlags, CWD};
use std::io;
use std::path::Path;

/// Whether it may be read and written to, by the effective user and with the capabilities of now. A link is followed.
///
/// # Errors
/// `EACCES` when not, `EPERM` when the device's use is forbidden to the cgroup, `EROFS`, `NotFound`.
pub fn may_read_and_write(path: &Path) -> io::Result<()> {
    check(path, Access::READ_OK | Access::WRITE_OK)
}

/// Whether something may be made in the directory at `path`.
///
/// # Errors
/// As above.
pub fn may_make_in(path: &Path) -> io::Result<()> {
    check(path, Access::WRITE_OK | Access::EXEC_OK)
}

fn check(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS)?)
}
