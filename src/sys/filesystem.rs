//! How much room a file system has.

use std::io;
use std::path::Path;

/// Those that store every byte that is written, zeros included, and say how many more they take: ext2 to ext4, xfs, and
/// tmpfs. Others compress, or share.
const PLAIN: [i64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// How many bytes at most can be written at `path`, whoever writes them; nothing where that is not certain.
///
/// # Errors
/// Whatever `statfs(2)` reports.
pub fn room(path: &Path) -> io::Result<Option<u64>> {
    let about = rustix::fs::statfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the types differ between architectures")]
    let (kind, block) = (i64::from(about.f_type), u64::try_from(about.f_bsize).unwrap_or(0));
    // A tmpfs without a limit says that it has no blocks at all.
    let is_certain = PLAIN.contains(&kind) && about.f_blocks > 0;
    Ok(is_certain.then(|| about.f_bfree.saturating_mul(block)))
}

/// The room in a file system, for users that are not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub bytes: u64,
    /// How many are free.
    pub free_bytes: u64,
    /// How many files can still be made.
    pub free_files: u64,
}

/// The room in the file system of `path`.
///
/// # Errors
/// Whatever the file system reports.
pub fn space(path: &Path) -> io::Result<Space> {
    let about = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Ok(Space { bytes: bytes(about.f_blocks), free_bytes: bytes(about.f_bavail), free_files: about.f_favail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_says_nothing_certain_is_not_taken_at_its_word() {
        assert_eq!(room(Path::new("/proc")).unwrap(), None);
        assert!(room(Path::new("/nowhere/at/all")).is_err());
    }
}
