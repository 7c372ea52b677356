//! Writing to a descriptor that somebody else has given, of whatever kind: never waits, never raises SIGPIPE.

use super::deadline::Deadline;
use super::poll::{self, Interest};
use super::{checked, checked_len};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

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
        sent => return sent.map(drop),
    }
    let [ready] = poll::wait([Interest::Writable(fd)], Deadline::after(Duration::ZERO))?;
    if !ready {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    without_sigpipe(|| {
        // SAFETY: as above.
        checked_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }).map(drop)
    })
}

/// A signal that `write` raises goes to the thread that writes: it is held back there, and taken away again unless
/// one was pending before.
fn without_sigpipe(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let sigpipe = only_sigpipe()?;
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let was_pending = is_pending()?;
    // SAFETY: both sets outlive the call; `before` is written whole.
    let held = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const sigpipe, before.as_mut_ptr()) };
    if held != 0 {
        return Err(io::Error::from_raw_os_error(held));
    }
    let written = write();
    if !was_pending && written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time outlive the call; no information about the signal is wanted.
        unsafe { libc::sigtimedwait(&raw const sigpipe, std::ptr::null_mut(), &raw const at_once) };
    }
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    written
}

fn only_sigpipe() -> io::Result<libc::sigset_t> {
    // SAFETY: a sigset_t is plain data that sigemptyset makes a set of.
    unsafe {
        let mut set = std::mem::zeroed();
        checked(libc::sigemptyset(&raw mut set))?;
        checked(libc::sigaddset(&raw mut set, libc::SIGPIPE))?;
        Ok(set)
    }
}

fn is_pending() -> io::Result<bool> {
    // SAFETY: a sigset_t is plain data, which sigpending fills.
    unsafe {
        let mut set = std::mem::zeroed();
        checked(libc::sigpending(&raw mut set))?;
        Ok(libc::sigismember(&raw const set, libc::SIGPIPE) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

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
        assert!(!is_pending().unwrap());
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(left);
        assert_eq!(write_at_once(right.as_fd(), b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
