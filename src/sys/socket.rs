//! Client side of a unix stream socket: never blocks, never raises SIGPIPE, and reaches any path.

use super::{checked, checked_len};
use std::fs::OpenOptions;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The longest path that fits into a socket address, without its NUL.
pub const LONGEST_PATH: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

/// A connected socket on which nothing waits: what cannot be done now is `WouldBlock`.
#[derive(Debug)]
pub struct UnixConnection(OwnedFd);

impl UnixConnection {
    /// Connects to the socket at `path`, which may be longer than a socket address holds.
    ///
    /// # Errors
    /// `ENOENT` and `ECONNREFUSED` while nobody listens there, `EAGAIN` when its backlog is full.
    pub fn connect(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST_PATH {
            return connect_directly(path);
        }
        // A name below an open directory is short however deep the directory lies.
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
        connect_directly(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
    }

    /// The process that listens at the other end, as far as it can be seen from here.
    ///
    /// # Errors
    /// Whatever `getsockopt(2)` reports.
    pub fn peer_pid(&self) -> io::Result<i32> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        #[expect(clippy::cast_possible_truncation, reason = "a ucred has twelve bytes")]
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let (fd, place) = (self.0.as_raw_fd(), (&raw mut credentials).cast());
        // SAFETY: `credentials` is writable for the `length` bytes that are stated, and both outlive the call.
        checked(unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut length)
        })?;
        Ok(credentials.pid)
    }

    /// Sends what fits, and says how much that was.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits now, `BrokenPipe` when the peer has closed.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `bytes` is readable for its whole length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        checked_len(sent)
    }

    /// Takes what has come in; zero bytes mean that the peer has closed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come in.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.0.as_raw_fd();
        // SAFETY: `buffer` is writable for its whole length.
        let taken = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        checked_len(taken)
    }
}

/// Removes the socket at `path` when nobody listens at it any more: whoever binds one leaves it behind, and somebody
/// else may have bound the path anew. What is no socket is not touched.
pub fn remove_dead(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixConnection::connect(path).is_err_and(refused) {
        let _gone = std::fs::remove_file(path);
    }
}

impl AsFd for UnixConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the constants of a socket address are small")]
fn connect_directly(path: &Path) -> io::Result<UnixConnection> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: sockaddr_un is plain data, for which zeroes are a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() > LONGEST_PATH || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = byte.cast_signed() as libc::c_char;
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = checked(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the call above has just made `fd`, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is an initialised sockaddr_un of `length` bytes that outlives the call.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(UnixConnection(socket))
}
