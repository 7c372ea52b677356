//! Reading what a VMM and its guest have printed, by absolute offset.
//!
//! Who writes the file, and when it begins anew, is the business of the rooms above.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Reads from `offset` of the file into `buffer`; zero bytes when nothing has been printed past `offset` yet.
///
/// # Errors
/// Whatever opening and reading the file report.
pub(crate) fn read(path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    if i64::try_from(offset).is_err() {
        return Ok(0); // No file reaches so far, and the kernel would not take the offset.
    }
    loop {
        match File::open(path)?.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The last `most` bytes of the file as text; empty when it is not there or cannot be read.
pub(crate) fn tail(path: &Path, most: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
