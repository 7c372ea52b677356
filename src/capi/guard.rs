//! No panic crosses the boundary, and its text goes to the error instead of the host's stderr.

use super::failure::Failure;
use super::handle;
use super::status::mvm_status;
use crate::sys::mask::KeptErrno;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// Runs the body of an entry point: a failure or a panic becomes a status and this thread's last error.
pub(super) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> mvm_status {
    let mut body = Some(body);
    guard_once(&mut || body.take().map_or(Ok(()), |body| body()))
}

/// One for all entry points, which would be larger by it otherwise.
#[inline(never)]
fn guard_once(body: &mut dyn FnMut() -> Result<(), Failure>) -> mvm_status {
    // In a forked child another thread of the parent may be installing it for ever; every handle is refused there.
    if handle::own_process().is_ok() {
        HOOK.call_once(install_hook);
    }
    DEPTH.set(DEPTH.get() + 1);
    let ended = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    match ended {
        Ok(Ok(())) => mvm_status::MVM_OK,
        Ok(Err(failure)) => failure.record(),
        Err(payload) => {
            discard(payload);
            Failure::internal(&TEXT.try_with(RefCell::take).unwrap_or_default()).record()
        }
    }
}

/// The same for what a signal handler of the host may call: `body` allocates nothing, no details are kept, and `errno`
/// is as before.
pub(super) fn guard_in_handler(body: impl FnOnce() -> mvm_status) -> mvm_status {
    let _errno = KeptErrno::keep();
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(mvm_status::MVM_ERR_INTERNAL)
}

static HOOK: Once = Once::new();

thread_local! {
    /// How many entry points are on this thread's stack; a panic anywhere else is not ours to keep quiet.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// In a C host this std is the library's own; a Rust host shares it, and keeps its hook for its own panics.
fn install_hook() {
    let hosts = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if DEPTH.get() == 0 {
            hosts(info);
        } else {
            let _ended = TEXT.try_with(|text| text.replace(text_of(info)));
        }
    }));
}

fn text_of(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("a panic without a text");
    info.location().map_or_else(|| what.to_owned(), |place| format!("{what} (at {place})"))
}

/// A payload's own drop may panic too; forgetting it would leak.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::failure;

    #[test]
    fn a_panic_is_a_status_with_its_text_and_place() {
        let status = guard(|| panic!("the {} is on fire", "printer"));
        assert_eq!(status, mvm_status::MVM_ERR_INTERNAL);
        let message = failure::text(&failure::last().message);
        assert!(message.contains("the printer is on fire") && message.contains("guard.rs"), "{message}");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("boom");
            }
        }
        assert_eq!(guard(|| panic::panic_any(Bomb)), mvm_status::MVM_ERR_INTERNAL);
    }
}
