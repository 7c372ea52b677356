//! Holding signals back for the moments in which a handler of the host must not run.

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
