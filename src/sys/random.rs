//! Random bytes from the kernel.

use rustix::rand::GetRandomFlags;
use std::io;

/// So many of them.
///
/// # Errors
/// Whatever `getrandom(2)` reports.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // Up to 256 bytes always come at once.
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

/// A name that nothing else has: sixteen hexadecimal digits.
///
/// # Errors
/// Those of [`bytes`].
pub fn name() -> io::Result<String> {
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes()?)))
}
