//! Living with the host's signal handlers: holding them back for moments, and being called by one.

/// All signals held back from the calling thread, and from what it starts meanwhile; its own mask comes back on drop.
#[expect(missing_debug_implementations, reason = "a set of signals says nothing in words")]
pub struct HeldSignals(libc::sigset_t);

impl HeldSignals {
    /// Holds them.
    pub fn hold() -> Self {
        // SAFETY: a sigset_t is plain data; sigfillset makes it a set; both pointers outlive the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled by `hold` and outlives the call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
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
