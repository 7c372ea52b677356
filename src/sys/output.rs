//! Writing to a descriptor that somebody else has given, of whatever kind: never waits, never raises SIGPIPE.

use super::checked_len;
use super::deadline::Deadline;
use super::mask;
use super::poll::{self, Interest};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

/// A descriptor of the same file that does not wait, of which nobody else has one: pipes and terminals are opened anew,
/// so that the giver's own goes on waiting as it did. What cannot be opened anew is duplicated.
///
/// # Errors
/// When no descriptor is left, or `fd` is not open.
pub fn without_waiting(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let kind = std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd())).map(|about| about.file_type());
    if kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device()) {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        if let Ok(anew) = options.open(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
            return super::file::above_stdio(anew.into());
        }
    }
    super::file::duplicate_above_stdio(fd)
}

/// What a pipe that is ready takes without waiting.
const AT_ONCE: usize = libc::PIPE_BUF;

/// Writes `bytes`, as much of them as a pipe takes in one piece, in one call.
///
/// # Errors
/// `WouldBlock` when they would have to wait, `BrokenPipe` when nobody reads any more, and whatever else
/// `write(2)` reports.
pub fn write_at_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let bytes = bytes.get(..AT_ONCE).unwrap_or(bytes);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `bytes` is readable for its whole length.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    match checked_len(sent) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {}
        sent => return whole(sent?, bytes),
    }
    let [ready] = poll::wait([Interest::Writable(fd)], Deadline::after(Duration::ZERO))?;
    if !ready {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let write = || {
        // SAFETY: as above.
        whole(checked_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })?, bytes)
    };
    // It may be a pipe or a plain file.
    mask::without_sigpipe(|| mask::without_sigxfsz(write))
}

fn whole(written: usize, bytes: &[u8]) -> io::Result<()> {
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_is_opened_anew_and_the_givers_end_waits_as_before() {
        let (_reader, writer) = io::pipe().unwrap();
        let anew = without_waiting(writer.as_fd()).unwrap();
        let is_waiting = |fd: BorrowedFd<'_>| {
            // SAFETY: no pointer is passed.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK == 0 }
        };
        assert!(is_waiting(writer.as_fd()) && !is_waiting(anew.as_fd()));
        while write_at_once(anew.as_fd(), &[7; 4096]).is_ok() {}
    }

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut written = 0;
        let full = loop {
            match write_at_once(writer.as_fd(), &[7; 3000]) {
                Ok(()) => written += 3000,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut all = vec![0; written];
        reader.read_exact(&mut all).unwrap();
        write_at_once(writer.as_fd(), b"more").unwrap();
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_no_signal() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let gone = write_at_once(writer.as_fd(), b"x").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
        assert!(!mask::is_pending(libc::SIGPIPE).unwrap());
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(left);
        assert_eq!(write_at_once(right.as_fd(), b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
