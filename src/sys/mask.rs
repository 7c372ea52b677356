//! Living with the host's signal handlers: holding them back for moments, being called by one, and raising none by a
//! write of the library's own.

use super::checked;
use std::io;
use std::mem::MaybeUninit;

/// All signals held back from the calling thread, and from what it starts meanwhile; its own mask comes back on drop.
#[expect(missing_debug_implementations, reason = "a set of signals says nothing in words")]
pub struct HeldSignals(#[expect(dead_code, reason = "it is there to be dropped")] Restored);

impl HeldSignals {
    /// Holds them.
    pub fn hold() -> Self {
        // SAFETY: a sigset_t is plain data; sigfillset makes it a set; both pointers outlive the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(Restored { before })
        }
    }
}

/// Makes a write that may be one too many for a pipe whose reader is gone: that is `EPIPE`, and no SIGPIPE.
///
/// # Errors
/// Those of `write`.
pub fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    without(libc::SIGPIPE, libc::EPIPE, write)
}

/// Makes writes that may pass the host's `RLIMIT_FSIZE`: that is `EFBIG`, and no SIGXFSZ, which would end the host.
///
/// # Errors
/// Those of `write`.
pub fn without_sigxfsz<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    without(libc::SIGXFSZ, libc::EFBIG, write)
}

/// A signal that `write` raises goes to the thread that writes: it is held back there, and taken away again unless
/// one was pending before.
fn without<T>(
    signal: libc::c_int,
    told_by: libc::c_int,
    write: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let set = set_of(signal)?;
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets outlive the call; `before` is written whole.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr()) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let _unblocked_again = Restored {
        // SAFETY: the call above has filled it.
        before: unsafe { before.assume_init() },
    };
    let was_pending = is_pending(signal)?;
    let written = write();
    if !was_pending && written.as_ref().is_err_and(|error| error.raw_os_error() == Some(told_by)) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time outlive the call; no information about the signal is wanted.
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const at_once) };
    }
    written
}

/// The mask of the calling thread, which comes back on drop, also when a write panics.
struct Restored {
    before: libc::sigset_t,
}

impl Drop for Restored {
    fn drop(&mut self) {
        // SAFETY: the set was filled by the kernel and outlives the call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

fn set_of(signal: libc::c_int) -> io::Result<libc::sigset_t> {
    // SAFETY: a sigset_t is plain data that sigemptyset makes a set of.
    unsafe {
        let mut set = std::mem::zeroed();
        checked(libc::sigemptyset(&raw mut set))?;
        checked(libc::sigaddset(&raw mut set, signal))?;
        Ok(set)
    }
}

/// Whether the signal waits for the calling thread, or for the process.
pub(super) fn is_pending(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: a sigset_t is plain data, which sigpending fills.
    unsafe {
        let mut set = std::mem::zeroed();
        checked(libc::sigpending(&raw mut set))?;
        Ok(libc::sigismember(&raw const set, signal) == 1)
    }
}

/// The calling thread's `errno`, which comes back on drop: a handler must leave it as it found it.
#[derive(Debug)]
pub struct KeptErrno(libc::c_int);

impl KeptErrno {
    /// Keeps it.
    pub fn keep() -> Self {
        // SAFETY: the C library's errno of the calling thread is always readable.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for KeptErrno {
    fn drop(&mut self) {
        // SAFETY: the C library's errno of the calling thread is always writable.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::thread;

    fn write_too_much() -> io::Result<()> {
        // /dev/full knows no limit of sizes; so the signal is raised as the kernel would.
        // SAFETY: raises a signal on the calling thread, which holds it back.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGXFSZ) };
        Err(io::Error::from_raw_os_error(libc::EFBIG))
    }

    #[test]
    fn a_write_that_is_too_long_leaves_no_signal_and_takes_none_of_the_hosts() {
        let own = thread::spawn(|| {
            let refused = without_sigxfsz(write_too_much);
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EFBIG));
            assert!(!is_pending(libc::SIGXFSZ).unwrap());
            let held = HeldSignals::hold();
            // SAFETY: as above.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGXFSZ) };
            without_sigxfsz(write_too_much).unwrap_err();
            assert!(is_pending(libc::SIGXFSZ).unwrap(), "the host's own signal was taken");
            let set = set_of(libc::SIGXFSZ).unwrap();
            // SAFETY: the set outlives the call. It is taken, so that the thread may end.
            unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
            drop(held);
        });
        own.join().unwrap();
    }

    #[test]
    fn what_can_be_written_is() {
        let mut null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        without_sigxfsz(|| null.write_all(b"text")).unwrap();
    }
}
