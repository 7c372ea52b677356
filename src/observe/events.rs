//! What happens to VMs, in the order in which it was noticed: a bounded queue behind one descriptor that can be
//! polled for.
//!
//! The descriptor also becomes readable when a watched process ends; who that was and what it means is for the
//! room above to find out, in the thread of whoever asks for the next event.

use crate::process::ExitStatus;
use crate::sys::epoll::{Epoll, Heard};
use crate::sys::eventfd::EventFd;
use crate::sys::sync::lock;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use std::time::SystemTime;

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// 1 for the first event of a runtime, and one more for each.
    pub sequence: u64,
    /// When it was noticed.
    pub time: SystemTime,
    /// To which VM; empty when to none.
    pub vm: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The VM was created.
    Created,
    /// Its guest was started.
    Started,
    /// Its guest was paused.
    Paused,
    /// Its guest was resumed.
    Resumed,
    /// Its VMM has ended.
    Exited(ExitStatus),
    /// It was destroyed.
    Destroyed,
    /// It has another id. This is the former one.
    Renamed(String),
    /// It was running when the runtime was opened, and now belongs to this runtime.
    Adopted,
    /// It was found without a VMM when the runtime was opened.
    OrphanFound,
    /// Something in the state directory is damaged or unknown, and was left alone.
    Damaged(String),
    /// The keeper has ended, and no other could be started.
    KeeperLost(String),
    /// This snapshot of it was taken.
    Snapshotted(String),
    /// It was restored from this snapshot, and is paused.
    Restored(String),
    /// Its pager has failed or ended, and the VM was killed.
    PagerLost(String),
    /// The kernel has killed it, because it had used all the memory that its limit allows.
    OutOfMemory,
    /// The number of events before this one that were lost, because nobody took them in time.
    Dropped(u64),
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Started => f.write_str("started"),
            Self::Paused => f.write_str("paused"),
            Self::Resumed => f.write_str("resumed"),
            Self::Exited(exit) => write!(f, "its VMM has ended ({exit})"),
            Self::Destroyed => f.write_str("destroyed"),
            Self::Renamed(former) => write!(f, "renamed from {former}"),
            Self::Adopted => f.write_str("adopted while it was running"),
            Self::OrphanFound => f.write_str("found without a VMM"),
            Self::Snapshotted(snapshot) => write!(f, "snapshot {snapshot} was taken"),
            Self::Restored(snapshot) => write!(f, "restored from snapshot {snapshot}"),
            Self::OutOfMemory => {
                f.write_str("killed by the kernel: it had used all the memory that its limit allows")
            }
            Self::PagerLost(text) => write!(f, "its pager has failed or ended: {text}"),
            Self::Damaged(text) | Self::KeeperLost(text) => f.write_str(text),
            Self::Dropped(count) => write!(f, "{count} events were lost"),
        }
    }
}

/// The queue of one runtime.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<Queue>,
    /// Up while the queue holds something.
    waiting: EventFd,
    watched: Epoll,
}

#[derive(Debug)]
struct Queue {
    events: VecDeque<Event>,
    /// What is not in the log yet.
    unlogged: VecDeque<(String, EventKind)>,
    capacity: usize,
    next: u64,
    dropped: u64,
    /// The same over all time.
    dropped_in_all: u64,
}

/// How full the queue is, and what went through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) waiting: usize,
    pub(crate) capacity: usize,
    /// All events so far.
    pub(crate) all: u64,
    /// How many of them were lost, because nobody took them.
    pub(crate) dropped: u64,
}

/// The token of [`Events::waiting`] among those of the processes.
const WAITING: u64 = 0;

impl Events {
    /// An empty queue for `capacity` events: the oldest make room for new ones.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let (waiting, watched) = (EventFd::new()?, Epoll::new()?);
        watched.watch(waiting.as_fd(), WAITING, Heard::Always)?;
        let queue = Queue {
            events: VecDeque::new(),
            unlogged: VecDeque::new(),
            capacity: capacity.max(1),
            next: 1,
            dropped: 0,
            dropped_in_all: 0,
        };
        Ok(Self { queue: Mutex::new(queue), waiting, watched })
    }

    /// Adds what has happened.
    pub(crate) fn push(&self, vm: &str, kind: EventKind) {
        let mut queue = lock(&self.queue);
        if log::max_level() >= log::Level::Warn && queue.unlogged.len() < queue.capacity {
            queue.unlogged.push_back((vm.to_owned(), kind.clone()));
        }
        if queue.events.len() == queue.capacity {
            queue.events.pop_front();
            queue.dropped += 1;
            queue.dropped_in_all += 1;
        }
        let sequence = queue.next;
        queue.next += 1;
        queue.events.push_back(Event { sequence, time: SystemTime::now(), vm: vm.to_owned(), kind });
        self.waiting.raise();
    }

    /// Logs what was added since the last time. Apart from the adding, because a logger may wait, or ask for the state
    /// of a VM: whoever calls this holds no lock.
    pub(crate) fn log(&self) {
        if log::max_level() < log::Level::Warn {
            return;
        }
        let unlogged = std::mem::take(&mut lock(&self.queue).unlogged);
        for (vm, kind) in unlogged {
            match kind {
                EventKind::Damaged(_) | EventKind::KeeperLost(_) => log::warn!("{kind}"),
                EventKind::PagerLost(_) | EventKind::OutOfMemory => log::warn!("VM {vm}: {kind}"),
                _ => log::info!("VM {vm}: {kind}"),
            }
        }
    }

    /// Makes the descriptor readable, so that somebody asks for the next event.
    pub(crate) fn nudge(&self) {
        self.waiting.raise();
    }

    /// Takes the oldest event; how many were lost before it is told first.
    pub(crate) fn next(&self) -> Option<Event> {
        let mut queue = lock(&self.queue);
        if queue.dropped > 0 {
            let dropped = std::mem::take(&mut queue.dropped);
            let sequence = queue.events.front().map_or(queue.next, |event| event.sequence) - 1;
            let kind = EventKind::Dropped(dropped);
            return Some(Event { sequence, time: SystemTime::now(), vm: String::new(), kind });
        }
        let event = queue.events.pop_front();
        if queue.events.is_empty() {
            self.waiting.lower();
        }
        event
    }

    /// How full the queue is.
    pub(crate) fn figures(&self) -> Figures {
        let queue = lock(&self.queue);
        Figures {
            waiting: queue.events.len(),
            capacity: queue.capacity,
            all: queue.next - 1,
            dropped: queue.dropped_in_all,
        }
    }

    /// Lets the descriptor become readable when the process behind `pidfd` has ended.
    pub(crate) fn watch(&self, pidfd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        // Once, because a process that a debugger holds has ended and cannot be reaped.
        self.watched.watch(pidfd, token, Heard::Once)
    }

    /// Watches it no more.
    pub(crate) fn forget(&self, pidfd: BorrowedFd<'_>) {
        self.watched.forget(pidfd);
    }

    /// The tokens of watched processes that have ended since the last look.
    pub(crate) fn ended(&self) -> io::Result<Vec<u64>> {
        Ok(self.watched.ready()?.into_iter().filter(|token| *token != WAITING).collect())
    }
}

impl AsFd for Events {
    /// Readable when there is an event, or something to be noticed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::deadline::Deadline;
    use crate::sys::poll::{Interest, wait};
    use std::time::Duration;

    fn is_readable(events: &Events) -> bool {
        wait([Interest::Readable(events.as_fd())], Deadline::after(Duration::ZERO)).unwrap()[0]
    }

    #[test]
    fn the_descriptor_is_readable_as_long_as_there_are_events() {
        let events = Events::new(8).unwrap();
        assert!(!is_readable(&events));
        events.push("a", EventKind::Created);
        events.push("a", EventKind::Started);
        assert_eq!(events.next().unwrap().kind, EventKind::Created);
        assert!(is_readable(&events));
        assert_eq!(events.next().unwrap().sequence, 2);
        assert!(!is_readable(&events) && events.next().is_none());
    }

    #[test]
    fn what_nobody_takes_makes_room_and_is_counted() {
        let events = Events::new(2).unwrap();
        for _ in 0..5 {
            events.push("a", EventKind::Started);
        }
        assert_eq!(events.figures(), Figures { waiting: 2, capacity: 2, all: 5, dropped: 3 });
        let told = std::iter::from_fn(|| events.next()).map(|event| (event.sequence, event.kind));
        let started = |sequence| (sequence, EventKind::Started);
        assert_eq!(told.collect::<Vec<_>>(), [(3, EventKind::Dropped(3)), started(4), started(5)]);
    }
}
