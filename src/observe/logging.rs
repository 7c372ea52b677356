//! Where the library's own log goes when a C program asks for it: into a bounded queue, or to a descriptor.
//!
//! The log itself is that of the `log` crate, which a Rust program leads where it likes; without either it is silent.

use crate::sys::eventfd::EventFd;
use crate::sys::output;
use crate::sys::sync::lock;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// When it was written.
    pub time: SystemTime,
    /// Which room of the library says so.
    pub target: String,
    /// What.
    pub text: String,
    /// How many lines before this one were lost.
    pub dropped: u64,
}

/// Sends the log to `destination`. Lines less severe than `level` are discarded.
///
/// # Errors
/// When the program has a logger of the `log` crate already.
pub(crate) fn lead(level: LevelFilter, destination: Destination) -> Result<(), Taken> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // That there is another logger is found out below.
        let _installed = log::set_logger(&SINK);
    });
    if !std::ptr::addr_eq(std::ptr::from_ref(log::logger()), std::ptr::from_ref(&SINK)) {
        return Err(Taken);
    }
    *lock(&SINK.0) = destination;
    log::set_max_level(level);
    Ok(())
}

/// The program has led the log elsewhere, in Rust.
#[derive(Debug, thiserror::Error)]
#[error("this program has set a logger of the log crate, which receives the library's log")]
pub(crate) struct Taken;

/// Takes the oldest line of the queue; none when it is empty, or when the log goes elsewhere.
pub(crate) fn next() -> Option<Line> {
    match &mut *lock(&SINK.0) {
        Destination::Queue(queue) => queue.next(),
        Destination::Nowhere | Destination::Descriptor(_) => None,
    }
}

/// The caller's own descriptor that is readable while the queue holds lines.
///
/// # Errors
/// When there is no queue, or no descriptor is left.
pub(crate) fn queue_fd() -> io::Result<OwnedFd> {
    match &*lock(&SINK.0) {
        Destination::Queue(queue) => crate::sys::file::duplicate_above_stdio(queue.waiting.as_fd()),
        Destination::Nowhere | Destination::Descriptor(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the log does not go to a queue"))
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Destination {
    Nowhere,
    Queue(Queue),
    Descriptor(Descriptor),
}

/// Lines that wait for somebody to take them.
#[derive(Debug)]
pub(crate) struct Queue {
    lines: VecDeque<Line>,
    capacity: usize,
    dropped: u64,
    waiting: EventFd,
}

/// A descriptor that the program has given.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    dropped: u64,
}

/// A line has to go in one piece, with all that stands before it.
const LONGEST: usize = 3500;

struct Sink(Mutex<Destination>);

static SINK: Sink = Sink(Mutex::new(Destination::Nowhere));

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("mvm")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = Line {
            level: record.level(),
            time: SystemTime::now(),
            target: record.target().to_owned(),
            text: record.args().to_string().replace(['\n', '\r'], " "),
            dropped: 0,
        };
        match &mut *lock(&self.0) {
            Destination::Nowhere => {}
            Destination::Queue(queue) => queue.push(line),
            Destination::Descriptor(descriptor) => descriptor.write(&line),
        }
    }

    fn flush(&self) {}
}

impl Queue {
    /// An empty queue for `capacity` lines: the oldest make room for new ones.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self { lines: VecDeque::new(), capacity: capacity.max(1), dropped: 0, waiting: EventFd::new()? })
    }

    fn push(&mut self, line: Line) {
        if self.lines.len() == self.capacity {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
        self.waiting.raise();
    }

    fn next(&mut self) -> Option<Line> {
        let line = self.lines.pop_front();
        if self.lines.is_empty() {
            self.waiting.lower();
        }
        line.map(|line| Line { dropped: std::mem::take(&mut self.dropped), ..line })
    }
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, dropped: 0 }
    }

    /// A line that would have to wait is dropped, and the next one says how many were.
    fn write(&mut self, line: &Line) {
        let since = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let lost = if self.dropped > 0 { format!(" ({} lines lost)", self.dropped) } else { String::new() };
        let Line { level, target, text, .. } = line;
        let text = &text[..text.floor_char_boundary(LONGEST)];
        let text =
            format!("{}.{:06} {level} {target}:{lost} {text}\n", since.as_secs(), since.subsec_micros());
        match output::write_at_once(self.fd.as_fd(), text.as_bytes()) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }
}
