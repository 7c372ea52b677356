//! Files with holes: where their data is, and making holes. What the data means is for others to know.

use super::checked;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The stretches of `file` that hold data, in order, with nothing between them but holes. A file system that knows no
/// holes calls all of it data. It moves the file's own position.
///
/// # Errors
/// Whatever `lseek(2)` reports.
pub fn data_extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while let Some(start) = seek(file, at, libc::SEEK_DATA)? {
        // A file that is cut off meanwhile has no hole any more, not even the one at its end.
        let Some(end) = seek(file, start, libc::SEEK_HOLE)? else { break };
        extents.push(start..end);
        at = end;
    }
    Ok(extents)
}

/// The offset of the first byte that is not in a hole; the file's length when there is none. It moves the file's own
/// position.
///
/// # Errors
/// Whatever `lseek(2)` reports.
pub fn first_data(file: &File) -> io::Result<u64> {
    match seek(file, 0, libc::SEEK_DATA)? {
        Some(offset) => Ok(offset),
        None => Ok(file.metadata()?.len()),
    }
}

/// Gives the blocks before `end` back to the file system; offsets stay as they are. A block that `end` divides is
/// kept.
///
/// # Errors
/// `EOPNOTSUPP` on a file system without holes.
pub fn punch_head(file: &File, end: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(end - end % BLOCK).unwrap_or(libc::off_t::MAX);
    if length == 0 {
        return Ok(());
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, length) }).map(drop)
}

/// The size of a block on every file system in use, or a multiple of it.
const BLOCK: u64 = 4096;

/// Where data or a hole begins, at `from` or after it; nothing when there is none before the file's end.
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointer is passed.
    let offset = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(offset) {
        Ok(offset) => Ok(Some(offset)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::sys::file::replace;
    use std::fs::OpenOptions;
    use std::io::{Read, Seek, SeekFrom};
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_punched_out_is_gone_and_offsets_stay() {
        let path = Scratch::new();
        replace(&path, &[7; 20_000]).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        punch_head(&file, 9000).unwrap();
        assert_eq!(first_data(&file).unwrap(), 8192);
        file.seek(SeekFrom::Start(8192)).unwrap();
        assert_eq!((file.metadata().unwrap().len(), Read::bytes(&file).count()), (20_000, 11_808));
        punch_head(&file, 20_480).unwrap();
        assert_eq!(first_data(&file).unwrap(), 20_000);
    }

    #[test]
    fn data_is_found_between_holes() {
        let path = Scratch::new();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        assert!(data_extents(&file).unwrap().is_empty());
        file.set_len(1 << 20).unwrap();
        assert!(data_extents(&file).unwrap().is_empty());
        for offset in [8192, 12_288, 65_536, (1 << 20) - 4096] {
            file.write_all_at(&[1; 4096], offset).unwrap();
        }
        let extents = data_extents(&file).unwrap();
        assert_eq!(extents, [8192..16_384, 65_536..69_632, (1 << 20) - 4096..1 << 20]);
    }
}
