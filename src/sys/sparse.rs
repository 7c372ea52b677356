//! Files with holes: where their data is, and making holes. What the data means is for others to know.

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::ops::Range;

/// The ranges of `file` that hold data, in order, with nothing between them but holes. A file system that knows no
/// holes calls all of it data. It moves the file's own position.
///
/// # Errors
/// Whatever `lseek(2)` reports.
pub fn data_extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while let Some(start) = seek(file, SeekFrom::Data(at))? {
        // A file that is cut off meanwhile has no hole any more, not even the one at its end.
        let Some(end) = seek(file, SeekFrom::Hole(start))? else { break };
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
    match seek(file, SeekFrom::Data(0))? {
        Some(offset) => Ok(offset),
        None => Ok(file.metadata()?.len()),
    }
}

/// Has the file system set blocks aside for `range` of the file, which becomes so long if it is shorter.
///
/// # Errors
/// `ENOSPC` and `EDQUOT` when there are too few, `EOPNOTSUPP` on a file system that cannot do it.
pub fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, length))?)
}

/// Gives the blocks before `end` back to the file system; offsets stay as they are. A block that `end` divides is
/// kept.
///
/// # Errors
/// `EOPNOTSUPP` on a file system without holes.
pub fn punch_head(file: &File, end: u64) -> io::Result<()> {
    let length = end - end % BLOCK;
    if length == 0 {
        return Ok(());
    }
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, mode, 0, length.min(i64::MAX as u64)))?)
}

/// The size of a block on every file system in use, or a multiple of it.
const BLOCK: u64 = 4096;

/// Where data or a hole begins, at an offset or after it; nothing when there is none before the file's end.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(offset) => Ok(Some(offset)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::sys::file::replace;
    use std::fs::OpenOptions;
    use std::io::{Read, Seek};
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_punched_out_is_gone_and_offsets_stay() {
        let path = Scratch::new();
        replace(&path, &[7; 20_000]).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        punch_head(&file, 9000).unwrap();
        assert_eq!(first_data(&file).unwrap(), 8192);
        file.seek(std::io::SeekFrom::Start(8192)).unwrap();
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
