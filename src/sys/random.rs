//! Random bytes from the kernel.

use super::checked_len;
use std::io;

/// So many of them.
///
/// # Errors
/// Whatever `getrandom(2)` reports.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: `bytes` is writable for its whole length. Up to 256 bytes always come at once.
    checked_len(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) })?;
    Ok(bytes)
}
