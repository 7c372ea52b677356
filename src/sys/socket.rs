//! A connection over a unix stream socket: never blocks, never raises SIGPIPE, reaches any path, carries descriptors.

use super::directory::Directory;
use super::{checked, checked_len};
use std::fs::OpenOptions;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// The longest path that fits into a socket address, without its NUL.
pub const LONGEST_PATH: usize = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;

/// A connected socket on which nothing waits: what cannot be done now is `WouldBlock`.
#[derive(Debug)]
pub struct UnixConnection(OwnedFd);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process; 0 when it lives in another pid namespace.
    pub pid: i32,
    /// Its effective user, at the time when it connected or began to listen.
    pub user: u32,
}

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

    /// Connects to the socket at `path` itself: where a link stands, somebody else would be spoken to.
    ///
    /// # Errors
    /// Those of [`UnixConnection::connect`], and `InvalidInput` for what is no socket.
    pub fn connect_without_links(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let socket = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !socket.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a socket"));
        }
        connect_directly(&Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string()))
    }

    /// The process that listens at the other end, or has connected from there, as far as it can be seen from here.
    ///
    /// # Errors
    /// Whatever `getsockopt(2)` reports.
    pub fn peer_pid(&self) -> io::Result<i32> {
        self.peer().map(|peer| peer.pid)
    }

    /// The same process, and its user.
    ///
    /// # Errors
    /// Whatever `getsockopt(2)` reports.
    pub fn peer(&self) -> io::Result<Peer> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        #[expect(clippy::cast_possible_truncation, reason = "a ucred has twelve bytes")]
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let (fd, place) = (self.0.as_raw_fd(), (&raw mut credentials).cast());
        // SAFETY: `credentials` is writable for the `length` bytes that are stated, and both outlive the call.
        checked(unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut length)
        })?;
        Ok(Peer { pid: credentials.pid, user: credentials.uid })
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

    /// The same, and the descriptor that came with it, close-on-exec. Of several the first is taken.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come in.
    pub fn receive_with_descriptor(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut control = Control::EMPTY;
        let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut message = control.message(&mut data);
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: `message` points to `data` and `control`, which outlive the call, and these to writable bytes of the
        // lengths that are stated.
        let taken = checked_len(unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, flags) })?;
        let mut descriptors = received(&message).into_iter();
        Ok((taken, descriptors.next()))
    }

    /// Sends `bytes`, as many as fit, and a duplicate of `descriptor` along with them.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits now, `BrokenPipe` when the peer has closed.
    pub fn send_with_descriptor(&self, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
        let mut control = Control::EMPTY;
        let mut data = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut message = control.message(&mut data);
        attach(&mut message, descriptor);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `message` points to `data` and `control`, which outlive the call; nothing of it is written to.
        checked_len(unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const message, flags) })
    }
}

/// Room for what comes with a message, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Control {
    const EMPTY: Self = Self([0; 64]);

    fn message(&mut self, data: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: msghdr is plain data, for which zeroes are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (data, 1);
        (message.msg_control, message.msg_controllen) = (self.0.as_mut_ptr().cast(), self.0.len());
        message
    }
}

/// What came with a message that `recvmsg` has filled in.
fn received(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the header says where the kernel has written its control data, and how much.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros give headers that lie whole within the control data, which is aligned for them.
        let (level, kind, length) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        // SAFETY: no pointer is passed.
        let payload = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the data follows its header.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for at in 0..payload / size_of::<RawFd>() {
                // SAFETY: as many descriptors were written there; each was just made for this process alone.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) });
            }
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}

fn attach(message: &mut libc::msghdr, descriptor: BorrowedFd<'_>) {
    const BYTES: libc::c_uint = RawFd::BITS / 8;
    // SAFETY: no pointer is passed to CMSG_SPACE and CMSG_LEN. The control data has room for a header and one
    // descriptor, and is aligned for the header, so that CMSG_FIRSTHDR gives its beginning.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(BYTES) as _;
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(BYTES) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor.as_raw_fd());
    }
}

impl From<UnixStream> for UnixConnection {
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}

/// Has further connections refused; those that are waiting can still be accepted.
pub fn refuse(listener: &UnixListener) {
    // SAFETY: no pointer is passed. It can fail only for what is no socket that listens.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) };
}

/// Removes the socket at `path` when nobody listens at it any more: whoever binds one leaves it behind, and somebody
/// else may have bound the path anew. What is no socket is not touched.
pub fn remove_dead(path: &Path) {
    if is_dead(path) {
        let _gone = std::fs::remove_file(path);
    }
}

/// The same for the socket at `path` below `directory`: no part of the path leads out of it, or is a link.
pub fn remove_dead_below(directory: &Path, path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let Ok(parent) = Directory::open(directory).and_then(|directory| directory.open_below(parent)) else {
        return;
    };
    if is_dead(&parent.place_of(name)) {
        let _gone = parent.remove_file(name);
    }
}

/// Whether there is a socket at `path` at which nobody listens.
pub fn is_dead(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixConnection::connect(path).is_err_and(refused)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_comes_with_the_first_of_the_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (UnixConnection::from(near), UnixConnection::from(far));
        let sent = std::fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(near.send_with_descriptor(b"two parts", sent.as_fd()).unwrap(), 9);
        let mut buffer = [0; 4];
        let (length, descriptor) = far.receive_with_descriptor(&mut buffer).unwrap();
        assert_eq!((length, &buffer), (4, b"two "));
        let text = std::io::read_to_string(std::fs::File::from(descriptor.unwrap())).unwrap();
        assert!(text.starts_with(&std::process::id().to_string()));
        let (length, descriptor) = far.receive_with_descriptor(&mut [0; 64]).unwrap();
        assert!(length == 5 && descriptor.is_none());
        assert_eq!(far.receive_with_descriptor(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(far.peer_pid().unwrap(), std::process::id().cast_signed());
        drop(near);
        assert_eq!(far.receive_with_descriptor(&mut buffer).unwrap().0, 0);
    }
}
