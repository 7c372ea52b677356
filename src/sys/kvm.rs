//! The one question to /dev/kvm that changes nothing: which API it speaks.

use super::checked;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The version of the API behind an open `/dev/kvm`; 12 on every kernel since 2.6.22.
///
/// # Errors
/// `ENOTTY` when it is another device.
pub fn api_version(kvm: &File) -> io::Result<i32> {
    const KVM_GET_API_VERSION: u32 = 0xAE00;
    // SAFETY: the request takes no pointer.
    checked(unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION as libc::Ioctl, 0) })
}
