//! The content of one file for another, without a way through this process's memory.

use super::{checked, mask};
use rustix::io::retry_on_intr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes `to` share the blocks of `from`, all at once, on file systems that can.
///
/// # Errors
/// `EOPNOTSUPP`, `EXDEV` or `EINVAL` where that is not possible; `to` is then as it was.
pub fn reflink(from: &File, to: &File) -> io::Result<()> {
    mask::without_sigxfsz(|| Ok(retry_on_intr(|| rustix::fs::ioctl_ficlone(to, from))?))
}

/// Copies up to `length` bytes at `offset` of one file to the same place of another, within the kernel; says how
/// many it were. Neither file's position is moved.
///
/// # Errors
/// Whatever `copy_file_range(2)` reports.
pub fn copy_range(from: &File, to: &File, offset: u64, length: usize) -> io::Result<usize> {
    let (mut source, mut target) = (offset, offset);
    mask::without_sigxfsz(|| {
        let copy = || rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length);
        Ok(retry_on_intr(copy)?)
    })
}

/// Has `length` bytes at `offset` written to the disk, and waits until they are. That they survive a power loss is for an
/// `fsync` to see to, which has little left to do then.
///
/// # Errors
/// Whatever `sync_file_range(2)` reports.
pub fn write_back(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let place = |value: u64| libc::off64_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let how =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::sync_file_range(file.as_raw_fd(), place(offset)?, place(length)?, how) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_range_is_copied_to_its_place() {
        let paths = [Scratch::new(), Scratch::new()];
        let make =
            |path: &Scratch| File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let [from, to] = paths.each_ref().map(make);
        from.write_all_at(b"0123456789", 0).unwrap();
        assert_eq!(copy_range(&from, &to, 4, 100).unwrap(), 6);
        assert_eq!(std::fs::read(&paths[1]).unwrap(), b"\0\0\0\x00456789");
        write_back(&to, 0, 10).unwrap();
        assert!(write_back(&to, u64::MAX, 1).is_err());
    }
}
