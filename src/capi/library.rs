//! The library itself: its version, and the strings that it has given out.

use super::argument;
use std::ffi::{CStr, c_char};

/// # The library
///
/// Returns the version of the library that is loaded: `major * 1000000 + minor * 1000 + patch`. `MVM_VERSION_NUMBER` is
/// the version of the header.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_version() -> u32 {
    const NUMBER: u32 = version_number();
    NUMBER
}

/// The same as text, such as `"0.1.0"`. The string is constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_version_string() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => c"unknown",
    };
    TEXT.as_ptr()
}

/// Frees a string that the library has returned. NULL is allowed. Do not use the C library's `free`.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_string_free(string: *mut c_char) {
    // SAFETY: the caller passes NULL, or a string of the library's, once (contract page).
    unsafe { argument::free_text(string) };
}

/// Panics, so that the tests can see what becomes of it.
#[cfg(feature = "test-hooks")]
#[expect(clippy::panic, reason = "that is what it is for")]
#[unsafe(no_mangle)]
pub extern "C" fn mvm_test_panic() -> super::status::mvm_status {
    super::guard::guard(|| panic!("a panic made for a test"))
}

const fn version_number() -> u32 {
    number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
        + number(env!("CARGO_PKG_VERSION_MINOR")) * 1000
        + number(env!("CARGO_PKG_VERSION_PATCH"))
}

const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => 0,
    }
}
