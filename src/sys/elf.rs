//! What an executable says of itself, before anybody runs it.

use super::file;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Whether the program at `path` needs no dynamic linker.
///
/// # Errors
/// Whatever reading reports, and `InvalidData` for what is no 64-bit little-endian ELF file.
pub fn is_static(path: &Path) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    const HEADER: usize = 64;
    const ENTRY: u64 = 56;
    let path = path.canonicalize()?;
    let file = file::open_plain(OpenOptions::new().read(true), &path)?;
    let mut header = [0_u8; HEADER];
    file.read_exact_at(&mut header, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let [.., a, b, c, d, e, f, g, h] = header[..40] else { return Err(io::ErrorKind::InvalidData.into()) };
    let start = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, start.saturating_add(index * ENTRY))?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_program_that_names_a_linker_is_not_static() {
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
    }

    #[test]
    fn what_is_no_program_is_neither() {
        let scratch = Scratch::new();
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0x7f; 100]] {
            std::fs::write(&scratch, bytes).unwrap();
            assert!(is_static(scratch.as_ref()).is_err());
        }
        assert!(is_static(Path::new("/dev/null")).is_err());
    }
}
