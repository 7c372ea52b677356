//! What a VMM and its guest have printed: read by absolute offset, and kept from growing for ever.
//!
//! A file is bounded by giving its head back to the file system; the offsets of what remains stay as they are. Who
//! writes the file, and when it begins anew, is the business of the rooms above.

use crate::sys::{file, sparse};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The offset of its first byte: past the one that was asked for where that is gone.
    pub start: u64,
    /// How many bytes it has.
    pub length: usize,
}

/// Reads from `offset` of the file into `buffer`, or from the first byte after it that is still there; zero bytes
/// when nothing has been printed past `offset` yet.
///
/// # Errors
/// Whatever opening and reading the file report.
pub(crate) fn read(path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<Piece> {
    if i64::try_from(offset).is_err() {
        return Ok(Piece { start: offset, length: 0 }); // No file reaches so far.
    }
    let file = file::open_plain(OpenOptions::new().read(true), path)?;
    loop {
        let start = offset.max(sparse::first_data(&file)?);
        let length = match file.read_at(buffer, start) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        // What was given back meanwhile has been read as zeroes.
        if length == 0 || sparse::first_data(&file)? <= start {
            return Ok(Piece { start, length });
        }
    }
}

/// Keeps the last of the file, at most `limit` bytes and at least three quarters of that.
///
/// # Errors
/// Whatever the file system reports; that there is no such file is none.
pub(crate) fn bound(path: &Path, limit: u64) -> io::Result<()> {
    let file = match file::open_plain(OpenOptions::new().write(true), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let about = file.metadata()?;
    if about.len() <= limit || about.len() - sparse::first_data(&file)? <= limit {
        return Ok(());
    }
    sparse::punch_head(&file, about.len() - limit / 4 * 3)
}

/// The last `most` bytes of the file as text; empty when it is not there or cannot be read.
pub(crate) fn tail(path: &Path, most: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = file::open_plain(OpenOptions::new().read(true), path)?;
        let start = file.metadata()?.len().saturating_sub(most).max(sparse::first_data(&file)?);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    /// What stands at this offset of an endless text without zeroes.
    fn letter(offset: usize) -> u8 {
        u8::try_from(offset % 251).unwrap() + 1
    }

    proptest! {
        /// Whatever is printed and whenever it is bounded, a reader sees each byte that is there at its own offset.
        #[test]
        fn what_is_left_stands_where_it_was(
            prints in prop::collection::vec((0_usize..30_000, any::<bool>()), 1..20),
            limit in 4096_u64..40_000,
        ) {
            let path = Scratch::new();
            let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            let mut printed = 0_usize;
            for (length, bounded) in prints {
                let text = (printed..printed + length).map(letter).collect::<Vec<_>>();
                file.write_all(&text).unwrap();
                printed += length;
                if bounded {
                    bound(&path, limit).unwrap();
                    prop_assert!(file.metadata().unwrap().blocks() * 512 <= limit + 8192);
                }
            }
            let (mut offset, mut seen, mut buffer) = (0, 0, [0_u8; 1000]);
            loop {
                let piece = read(&path, offset, &mut buffer).unwrap();
                for (at, byte) in buffer[..piece.length].iter().enumerate() {
                    prop_assert_eq!(*byte, letter(usize::try_from(piece.start).unwrap() + at));
                }
                (offset, seen) = (piece.start + piece.length as u64, seen + piece.length);
                if piece.length == 0 { break }
            }
            prop_assert_eq!(offset, printed as u64);
            prop_assert!(seen as u64 >= (limit / 4 * 3).min(printed as u64));
        }
    }

    #[test]
    fn what_is_not_a_plain_file_is_left_alone() {
        let path = Scratch::new();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(bound(&path, 1).is_err());
        std::fs::remove_file(&path).unwrap();
        bound(&path, 1).unwrap();
    }
}
