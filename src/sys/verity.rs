//! fs-verity: files that the kernel itself holds against a digest with every read, and that nobody can change any more.

use super::checked;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The digest of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The algorithm, as `sha256`.
    pub algorithm: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The longest digest that there is: that of SHA-512.
const LONGEST: u16 = 64;

/// As in `<linux/fsverity.h>`, with room for the digest.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; LONGEST as usize],
}

/// `FS_IOC_MEASURE_VERITY`: `_IOWR('f', 134, struct fsverity_digest)`, whose fixed part has four bytes.
const MEASURE: libc::Ioctl = 0xC004_6686_u32 as libc::Ioctl;

/// The fs-verity digest of `file`.
///
/// # Errors
/// `ENODATA` when fs-verity is not enabled for the file; `ENOTTY` or `EOPNOTSUPP` where there is no fs-verity.
pub fn measure(file: &File) -> io::Result<Digest> {
    let mut measured = Measured { algorithm: 0, size: LONGEST, digest: [0; LONGEST as usize] };
    // SAFETY: the kernel writes at most `size` bytes behind the fixed part, and the struct has room for them.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), MEASURE, &raw mut measured) })?;
    let algorithm = match measured.algorithm {
        1 => "sha256",
        2 => "sha512",
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let bytes = measured.digest.iter().take(measured.size.into()).copied().collect();
    Ok(Digest { algorithm, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_it_has_no_digest() {
        let file = File::open("/proc/self/exe").unwrap();
        let errno = measure(&file).unwrap_err().raw_os_error();
        assert!(matches!(errno, Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP)), "{errno:?}");
    }
}
