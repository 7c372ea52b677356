//! What happens to VMs: one descriptor to poll, one call to take the next event.

use super::argument::{self, Sized32};
use super::failure;
use super::guard::guard;
use super::handle;
use super::runtime::mvm_runtime;
use super::status::{mvm_exit_kind, mvm_status};
use crate::runtime::{Event, EventKind, Runtime};
use std::ffi::c_char;
use std::os::fd::IntoRawFd;
use std::time::UNIX_EPOCH;

/// What has happened.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mvm_event_kind {
    /// No event within the time.
    MVM_EVENT_NONE = 0,
    /// The VM was created.
    MVM_EVENT_CREATED = 1,
    /// Its guest was started.
    MVM_EVENT_STARTED = 2,
    /// The guest was paused.
    MVM_EVENT_PAUSED = 3,
    /// The guest was resumed.
    MVM_EVENT_RESUMED = 4,
    /// Its VMM has ended: `exit_kind` and `exit_value` say how.
    MVM_EVENT_EXITED = 5,
    /// The VM was destroyed.
    MVM_EVENT_DESTROYED = 6,
    /// The VM was running when the runtime was opened, and now belongs to this runtime.
    MVM_EVENT_ADOPTED = 7,
    /// The VM had no VMM when the runtime was opened. Start it again, or see `mvm_runtime_reap`.
    MVM_EVENT_ORPHAN_FOUND = 8,
    /// Something in the state directory is damaged or unknown, and was left alone. `text` says what.
    MVM_EVENT_DAMAGED = 9,
    /// The keeper has ended, and no other could be started. `text` says why.
    MVM_EVENT_KEEPER_LOST = 10,
    /// `count` events before this one were lost, because nobody took them in time.
    MVM_EVENT_DROPPED = 11,
    /// The VM has another id. `text` is the former one.
    MVM_EVENT_RENAMED = 12,
    /// A snapshot of the VM was taken. `text` is the snapshot's id.
    MVM_EVENT_SNAPSHOTTED = 13,
    /// The VM was restored from the snapshot `text`, and is paused.
    MVM_EVENT_RESTORED = 14,
    /// The pager of the VM has failed or ended, and the VM was killed. `text` says why.
    MVM_EVENT_PAGER_LOST = 15,
    /// The kernel has killed the VM, because it had used all the memory that the spec's `limits` allow.
    MVM_EVENT_OUT_OF_MEMORY = 16,
}

/// One event. Set `size` to `sizeof(mvm_event)` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mvm_event {
    /// In: `sizeof(mvm_event)`.
    pub size: u32,
    /// What has happened.
    pub kind: mvm_event_kind,
    /// 1 for the first event of the runtime, and one more for each.
    pub sequence: u64,
    /// When it was noticed, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many events were lost, for `MVM_EVENT_DROPPED`.
    pub count: u64,
    /// How the VMM ended, for `MVM_EVENT_EXITED`.
    pub exit_kind: mvm_exit_kind,
    /// The exit code or the signal.
    pub exit_value: i32,
    /// The VM's id, or "".
    pub vm: [c_char; 72],
    /// A text that says more, or "".
    pub text: [c_char; 512],
}

/// # Events
///
/// Takes the next event. If there is none, the call waits at most `timeout_ms`; 0 does not wait. If there is no event
/// in that time, the call succeeds, and `event->kind` is `MVM_EVENT_NONE`. This call notices and reaps VMMs that have
/// ended; other queries do so for their own VM. The end of a VMM is written to the VM's journal before its event is
/// returned, so the next owner reports the same. If another call is running on the VM just then, the journal is written
/// when that call ends.
///
/// The queue holds 4,096 events (the option `event_queue`). When it is full, the oldest events are dropped, and
/// `MVM_EVENT_DROPPED` says how many.
///
/// Errors: `MVM_ERR_INTERRUPTED` (the runtime was closed), `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`.
/// Blocks: up to `timeout_ms`, and for the disk when a VMM has ended. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_next_event(
    runtime: *mut mvm_runtime,
    timeout_ms: u64,
    event: *mut mvm_event,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::sized_out(event, "event") }?;
        let next = handle::get::<Runtime, _>(runtime)?.next_event(argument::milliseconds(timeout_ms))?;
        next.iter().for_each(|next| out.write(encode(next)));
        Ok(())
    })
}

/// Returns a file descriptor that is readable while there is an event to take, for epoll, libuv or Go's netpoller. Poll it,
/// do not read it, and take events until there are none. It may wake up without an event. Closing the
/// runtime does not wake it: tell whoever polls.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NO_RESOURCES`.
/// Blocks: never. Ownership: `*fd` is the caller's own, close-on-exec, for `close`; -1 after an error. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_runtime_events_fd(runtime: *mut mvm_runtime, fd: *mut i32) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(fd, -1, "fd") }?;
        out.write(handle::get::<Runtime, _>(runtime)?.events_fd()?.into_raw_fd());
        Ok(())
    })
}

/// Returns the name of an `mvm_event_kind`: the constant without its prefix, in lower case, such as `"exited"` or
/// `"pager_lost"`. Any other number is `"unknown"`, such as the kind of an event of a newer library. The string is
/// constant and never freed.
///
/// Blocks: never. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mvm_event_name(kind: i32) -> *const c_char {
    let name = match kind {
        0 => c"none",
        1 => c"created",
        2 => c"started",
        3 => c"paused",
        4 => c"resumed",
        5 => c"exited",
        6 => c"destroyed",
        7 => c"adopted",
        8 => c"orphan_found",
        9 => c"damaged",
        10 => c"keeper_lost",
        11 => c"dropped",
        12 => c"renamed",
        13 => c"snapshotted",
        14 => c"restored",
        15 => c"pager_lost",
        16 => c"out_of_memory",
        _ => c"unknown",
    };
    name.as_ptr()
}

fn encode(event: &Event) -> mvm_event {
    let (kind, exit, count, text) = parts(&event.kind);
    let (exit_kind, exit_value) = failure::exit_parts(exit);
    let time = event.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    mvm_event {
        kind,
        sequence: event.sequence,
        time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        count,
        exit_kind,
        exit_value,
        vm: argument::fixed(&event.vm),
        text: argument::fixed(text),
        ..mvm_event::empty(0)
    }
}

fn parts(what: &EventKind) -> (mvm_event_kind, Option<crate::ExitStatus>, u64, &str) {
    use mvm_event_kind as kind;
    match what {
        EventKind::Created => (kind::MVM_EVENT_CREATED, None, 0, ""),
        EventKind::Started => (kind::MVM_EVENT_STARTED, None, 0, ""),
        EventKind::Paused => (kind::MVM_EVENT_PAUSED, None, 0, ""),
        EventKind::Resumed => (kind::MVM_EVENT_RESUMED, None, 0, ""),
        EventKind::Exited(exit) => (kind::MVM_EVENT_EXITED, Some(*exit), 0, ""),
        EventKind::Destroyed => (kind::MVM_EVENT_DESTROYED, None, 0, ""),
        EventKind::Adopted => (kind::MVM_EVENT_ADOPTED, None, 0, ""),
        EventKind::OrphanFound => (kind::MVM_EVENT_ORPHAN_FOUND, None, 0, ""),
        EventKind::Damaged(text) => (kind::MVM_EVENT_DAMAGED, None, 0, text),
        EventKind::KeeperLost(text) => (kind::MVM_EVENT_KEEPER_LOST, None, 0, text),
        EventKind::Renamed(text) => (kind::MVM_EVENT_RENAMED, None, 0, text),
        EventKind::Snapshotted(text) => (kind::MVM_EVENT_SNAPSHOTTED, None, 0, text),
        EventKind::Restored(text) => (kind::MVM_EVENT_RESTORED, None, 0, text),
        EventKind::PagerLost(text) => (kind::MVM_EVENT_PAGER_LOST, None, 0, text),
        EventKind::OutOfMemory => (kind::MVM_EVENT_OUT_OF_MEMORY, None, 0, ""),
        EventKind::Dropped(count) => (kind::MVM_EVENT_DROPPED, None, *count, ""),
    }
}

impl Sized32 for mvm_event {
    const FIRST_SIZE: usize = 624;

    fn empty(size: u32) -> Self {
        Self {
            size,
            kind: mvm_event_kind::MVM_EVENT_NONE,
            sequence: 0,
            time_ms: 0,
            count: 0,
            exit_kind: mvm_exit_kind::MVM_EXIT_NONE,
            exit_value: 0,
            vm: [0; 72],
            text: [0; 512],
        }
    }

    fn with_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_size_of_an_event_is_what_0_1_had() {
        assert_eq!(size_of::<mvm_event>(), mvm_event::FIRST_SIZE);
    }
}
