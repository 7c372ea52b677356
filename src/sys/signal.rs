//! Signals, for this package's own executables and their tests.
//!
//! The library in an operator's process never touches a signal: nothing outside `src/bin` and `tests` may use
//! this.

use super::mask;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A signal that [`wait`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The signal's number, such as `libc::SIGHUP`.
    pub number: libc::c_int,
    /// How it was sent (`si_code`): 0 for `kill(2)`.
    pub code: libc::c_int,
}

/// Keeps these signals from acting on the calling thread, and on the threads it starts from now on.
///
/// Blocked signals sent to the process stay pending until [`wait`] takes them.
///
/// # Errors
/// When the kernel refuses the mask.
pub fn block(signals: &[libc::c_int]) -> io::Result<()> {
    change_mask(libc::SIG_BLOCK, signals)
}

/// Waits for one of these signals, which the calling thread must have blocked, and takes it.
///
/// # Errors
/// When a number is no signal. An interruption by another signal is no error: the wait goes on.
pub fn wait(signals: &[libc::c_int]) -> io::Result<Received> {
    let set = set_of(signals)?;
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `set` is an initialised signal set and `info` is writable for one `siginfo_t`; both outlive
        // the call.
        let number = unsafe { libc::sigwaitinfo(&raw const set, info.as_mut_ptr()) };
        if number > 0 {
            // SAFETY: it was zeroed, which is a valid `siginfo_t`, and the kernel has filled it in.
            let info = unsafe { info.assume_init() };
            return Ok(Received { number, code: info.si_code });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether this signal, which the calling thread must have blocked, waits for it: sent to the thread itself, or to the
/// process.
///
/// # Errors
/// When the number is no signal.
pub fn is_pending(signal: libc::c_int) -> io::Result<bool> {
    mask::is_pending(signal)
}

/// Makes the whole process ignore a signal.
///
/// # Errors
/// When the number is no signal, or one that cannot be ignored.
pub fn ignore(signal: libc::c_int) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Raises a signal on the calling thread with its default action, whatever was blocked or ignored before.
///
/// Returns only when the default action does not end the process.
///
/// # Errors
/// When the number is no signal.
pub fn raise_with_default_action(signal: libc::c_int) -> io::Result<()> {
    // SIGKILL and SIGSTOP have no other action, and the kernel refuses to set one.
    if signal != libc::SIGKILL && signal != libc::SIGSTOP {
        set_disposition(signal, libc::SIG_DFL)?;
    }
    change_mask(libc::SIG_UNBLOCK, &[signal])?;
    // SAFETY: `raise` takes any number and touches no memory of ours.
    if unsafe { libc::raise(signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal to a process.
///
/// The caller must still be the parent that has not waited for it: otherwise the number may name another
/// process.
///
/// # Errors
/// When there is no such process, or it may not be signalled.
pub fn send(process: u32, signal: libc::c_int) -> io::Result<()> {
    // 0 and -1 would mean "my group" and "everybody".
    let process = libc::pid_t::try_from(process).ok().filter(|process| *process > 0);
    let Some(process) = process else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: `kill` takes any numbers and touches no memory of ours.
    if unsafe { libc::kill(process, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn change_mask(how: libc::c_int, signals: &[libc::c_int]) -> io::Result<()> {
    let set = set_of(signals)?;
    // SAFETY: `set` is an initialised signal set that outlives the call; a null old set is allowed.
    match unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn set_disposition(signal: libc::c_int, action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: callers pass SIG_IGN or SIG_DFL only, so no code of ours ever runs in a signal handler.
    if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_of(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is writable for one `sigset_t`, which `sigemptyset` initialises whole.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in signals {
        // SAFETY: `set` is an initialised signal set; an invalid number is reported, not written.
        if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_signal_is_an_error() {
        assert!(block(&[9999]).is_err());
        assert!(ignore(libc::SIGKILL).is_err());
    }

    #[test]
    fn nobody_is_signalled_by_way_of_a_process_group() {
        assert_eq!(send(0, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(u32::MAX, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
