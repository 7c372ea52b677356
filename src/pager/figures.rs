//! What a pager has done so far: counted in a file that its owner reads at any time, without asking.

use crate::sys::file;
use crate::sys::mapping::SharedCounters;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A look at a pager's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How far it is.
    pub state: State,
    /// Faults that were served.
    pub faults: u64,
    /// Times that a fault had to wait because the memory was changing.
    pub deferred: u64,
    /// Bytes that were put in place for the faults themselves, with what came in the same piece; zeros count.
    pub fault_bytes: u64,
    /// Bytes that were put in place around them.
    pub around_bytes: u64,
    /// Bytes that were put in place ahead of any fault: replayed, or streamed.
    pub ahead_bytes: u64,
    /// Pages of zeros, for which nothing was copied.
    pub zero_pages: u64,
    /// Pages that the VMM has given back.
    pub removed_pages: u64,
    /// Pages that are in place.
    pub present_pages: u64,
    /// Pages that the guest's memory has.
    pub total_pages: u64,
    /// The size of a page, in bytes.
    pub page_bytes: u64,
    /// Pages in the working set that is being recorded.
    pub recorded_pages: u64,
    /// Pages that were put in place because a working set names them.
    pub replayed_pages: u64,
    /// Pages that were put in place before anybody asked for them. Which of them would have been asked for cannot be
    /// known, so this is the most that faults may have been avoided.
    pub avoided_faults: u64,
}

/// How far a pager is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// No VMM has come yet.
    #[default]
    Waiting = 0,
    /// It serves.
    Serving,
    /// Everything is in place; it goes on for pages that are given back.
    Complete,
    /// Its VM has ended.
    Ended,
    /// It could not go on, and has ended its VM.
    Failed,
}

/// What is counted, each in its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    State,
    Faults,
    Deferred,
    FaultBytes,
    AroundBytes,
    AheadBytes,
    ZeroPages,
    RemovedPages,
    PresentPages,
    TotalPages,
    PageBytes,
    RecordedPages,
    ReplayedPages,
    AvoidedFaults,
}

/// The counting side.
#[derive(Debug)]
pub(super) struct Counters(SharedCounters);

const COUNTS: usize = Count::AvoidedFaults as usize + 1;

impl Figures {
    /// Those of the pager that serves, or has served, the VM of `directory`.
    ///
    /// # Errors
    /// `NotFound` when there has been none, and `InvalidData` for a file that no pager has written.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let file = file::open_plain(OpenOptions::new().read(true), &stat_file(directory))?;
        file.take(2 * BYTES as u64).read_to_end(&mut bytes)?;
        if bytes.len() != BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = |count: Count| {
            let word = bytes.chunks_exact(8).nth(count as usize).and_then(|word| word.try_into().ok());
            word.map_or(0, u64::from_ne_bytes)
        };
        Ok(Self {
            state: State::of(count(Count::State)).ok_or(io::ErrorKind::InvalidData)?,
            faults: count(Count::Faults),
            deferred: count(Count::Deferred),
            fault_bytes: count(Count::FaultBytes),
            around_bytes: count(Count::AroundBytes),
            ahead_bytes: count(Count::AheadBytes),
            zero_pages: count(Count::ZeroPages),
            removed_pages: count(Count::RemovedPages),
            present_pages: count(Count::PresentPages),
            total_pages: count(Count::TotalPages),
            page_bytes: count(Count::PageBytes),
            recorded_pages: count(Count::RecordedPages),
            replayed_pages: count(Count::ReplayedPages),
            avoided_faults: count(Count::AvoidedFaults),
        })
    }
}

const BYTES: usize = COUNTS * 8;

impl State {
    fn of(number: u64) -> Option<Self> {
        let all = [Self::Waiting, Self::Serving, Self::Complete, Self::Ended, Self::Failed];
        all.into_iter().find(|state| *state as u64 == number)
    }
}

impl Counters {
    /// All zero, in `directory`. The file takes its place when it is whole: whoever reads meanwhile finds none, or that
    /// of the last pager.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let (place, aside) = (stat_file(directory), directory.join(UNFINISHED));
        let counters = file::create_anew(&aside).and_then(|file| SharedCounters::new(&file, COUNTS));
        let placed = counters.and_then(|counters| fs::rename(&aside, &place).map(|()| Self(counters)));
        placed.inspect_err(|_| drop(fs::remove_file(&aside)))
    }

    pub(super) fn add(&self, count: Count, amount: u64) {
        self.change(count, |counter| counter.fetch_add(amount, Ordering::Relaxed));
    }

    pub(super) fn subtract(&self, count: Count, amount: u64) {
        self.change(count, |counter| counter.fetch_sub(amount, Ordering::Relaxed));
    }

    pub(super) fn note(&self, count: Count, amount: u64) {
        self.change(count, |counter| counter.swap(amount, Ordering::Relaxed));
        self.show();
    }

    /// Has others see what was counted: a call to the kernel, so it is for who has counted all that belongs together.
    pub(super) fn show(&self) {
        self.0.show();
    }

    /// A state is followed by later ones alone: what has failed is never complete.
    pub(super) fn note_state(&self, state: State) {
        self.change(Count::State, |counter| counter.fetch_max(state as u64, Ordering::Relaxed));
        self.show();
    }

    pub(super) fn of(&self, count: Count) -> u64 {
        self.0.at(count as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn change(&self, count: Count, how: impl Fn(&AtomicU64) -> u64) {
        self.0.at(count as usize).map(how);
    }
}

/// The file of the figures in a VM's directory.
pub(super) fn stat_file(directory: &Path) -> PathBuf {
    directory.join("pager.stat")
}

/// The same before it is whole.
const UNFINISHED: &str = "pager.stat.new";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn figures_are_whole_whenever_somebody_reads_them() {
        let directory = Scratch::new();
        fs::create_dir(&directory).unwrap();
        assert_eq!(Figures::read(&directory).unwrap_err().kind(), io::ErrorKind::NotFound);
        let over = AtomicBool::new(false);
        drop(Counters::new(&directory).unwrap());
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    Figures::read(&directory)?;
                }
                Ok::<_, io::Error>(())
            });
            (0..2000).for_each(|_| drop(Counters::new(&directory).unwrap()));
            over.store(true, Ordering::Relaxed);
            reading.join().unwrap().unwrap();
        });
    }
}
