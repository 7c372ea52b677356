//! Memory that comes before anybody asks for it: a working set that is replayed, or everything. Faults go first.
//!
//! A working set is often thousands of single pages. One that is copied costs 1.5 µs, and each further one in the same
//! call 0.9: so nothing is gained by copying what lies between them, and what else is done for each page counts. As
//! many threads as serve faults take parts of the set in turns, in its order: the guest finds first what it wants first.
//! What is not in memory is asked for some parts earlier: a copy that has to wait for the disk has it read thirty pages
//! around, one such copy after the other.

use super::figures::{Count, State};
use super::handshake::Layout;
use super::image::Image;
use super::server::{Hands, Purpose, Server};
use super::{Ahead, PagerError, Plan};
use crate::sys::deadline::Deadline;
use crate::sys::poll::{self, Interest};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Pieces grow from the shortest to the longest while nobody faults, and begin anew when somebody does: a piece that is
/// under way is what a fault may have to wait for.
const SHORTEST: u64 = 64 << 10;
const LONGEST: u64 = 2 << 20;
/// So many pieces, or bytes, between two looks at whether to go on: a look costs as much as a page.
const PIECES_BETWEEN_LOOKS: u64 = 64;
const BYTES_BETWEEN_LOOKS: u64 = 16 << 20;
/// Between two tries while the memory is changing.
const PACE: Duration = Duration::from_millis(1);
/// How much a thread takes at once: so many ranges of a working set, and so many bytes of anything.
const RANGES_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 4 << 20;
/// So many parts are being read from the disk while one is put in place.
const PARTS_IN_ADVANCE: usize = 4;
/// One in so many ranges is looked at to find out whether a part is in memory: each look costs a tenth of a copy.
const LOOKED_AT: usize = 16;

/// What is to be put in place, for as many threads as come to do it.
#[derive(Debug)]
pub(super) struct Stream {
    parts: Vec<Part>,
    threads: usize,
    /// How many parts were taken.
    taken: AtomicUsize,
    /// How many were asked for, where they had to be read.
    asked_for: AtomicUsize,
    /// How many threads found no more.
    through: AtomicUsize,
    /// Whether all memory is there in the end.
    is_everything: bool,
}

#[derive(Debug)]
struct Part {
    offsets: Vec<Range<u64>>,
    purpose: Purpose,
}

impl Stream {
    /// What `plan` wants of memory of this `layout`, of which `working_set` names a part.
    pub(super) fn new(plan: &Plan, layout: &Layout, working_set: &[Range<u64>]) -> Self {
        let mut parts = parts_of(working_set);
        let is_everything = plan.ahead == Ahead::Everything;
        for region in layout.regions.iter().filter(|_| is_everything) {
            let starts = (region.offset..region.end_offset()).step_by(BYTES_AT_ONCE);
            parts.extend(starts.map(|start| {
                let end = region.end_offset().min(start + BYTES_AT_ONCE as u64);
                Part { offsets: std::iter::once(start..end).collect(), purpose: Purpose::Ahead }
            }));
        }
        let threads = plan.workers.max(1).min(parts.len());
        let [taken, asked_for, through] = [0; 3].map(AtomicUsize::new);
        Self { parts, threads, taken, asked_for, through, is_everything }
    }

    /// How many threads are to work at it.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The life of a thread: it puts parts in place as long as there are any, or until `server` stops.
    pub(super) fn work(&self, server: &Server<'_>) -> Result<(), PagerError> {
        let mut thread = Thread::of(server);
        loop {
            let number = self.taken.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(number) else { break };
            self.ask_for(number + PARTS_IN_ADVANCE, server.image);
            for offsets in &part.offsets {
                if thread.fill(offsets, part.purpose)? == Pace::Stopped {
                    return Ok(());
                }
            }
        }
        let is_last = self.through.fetch_add(1, Ordering::AcqRel) + 1 == self.threads;
        if is_last && self.is_everything {
            server.figures.note_state(State::Complete);
        }
        server.figures.show();
        server.check()
    }

    /// Has those parts read up to this one that are not in memory, as far as nobody has done that yet.
    fn ask_for(&self, last: usize, image: &Image) {
        while self.asked_for.load(Ordering::Relaxed) <= last {
            let Some(part) = self.parts.get(self.asked_for.fetch_add(1, Ordering::Relaxed)) else { return };
            let mut sample = part.offsets.iter().step_by(LOOKED_AT);
            if !sample.all(|offsets| image.is_in_memory(offsets.start)) {
                part.offsets.iter().for_each(|offsets| image.will_need(offsets));
            }
        }
    }
}

/// A working set in its order, cut into parts.
fn parts_of(working_set: &[Range<u64>]) -> Vec<Part> {
    let (mut parts, mut bytes) = (Vec::<Part>::new(), 0);
    for range in working_set {
        bytes += range.end - range.start;
        let has_room =
            |part: &&mut Part| part.offsets.len() < RANGES_AT_ONCE && bytes <= BYTES_AT_ONCE as u64;
        match parts.last_mut().filter(has_room) {
            Some(part) => part.offsets.push(range.clone()),
            None => {
                bytes = range.end - range.start;
                parts.push(Part { offsets: vec![range.clone()], purpose: Purpose::Replay });
            }
        }
    }
    parts
}

struct Thread<'a> {
    server: &'a Server<'a>,
    hands: Hands,
    /// How long the next piece may be, in bytes.
    piece: u64,
    /// How many faults there were when it was chosen.
    faults: u64,
    pieces_since_look: u64,
    bytes_since_look: u64,
}

#[derive(PartialEq, Eq)]
enum Pace {
    Done,
    Stopped,
}

impl<'a> Thread<'a> {
    fn of(server: &'a Server<'a>) -> Self {
        let hands = Hands::default();
        Self { server, hands, piece: SHORTEST, faults: 0, pieces_since_look: 0, bytes_since_look: 0 }
    }

    fn fill(&mut self, offsets: &Range<u64>, purpose: Purpose) -> Result<Pace, PagerError> {
        let page = self.server.layout.page;
        for region in &self.server.layout.regions {
            let start = offsets.start.max(region.offset) / page;
            let end = offsets.end.min(region.end_offset()).div_ceil(page);
            if self.fill_pages(start..end, purpose)? == Pace::Stopped {
                return Ok(Pace::Stopped);
            }
        }
        Ok(Pace::Done)
    }

    fn fill_pages(&mut self, pages: Range<u64>, purpose: Purpose) -> Result<Pace, PagerError> {
        let page = self.server.layout.page;
        let mut at = pages.start;
        while at < pages.end {
            if self.pieces_since_look >= PIECES_BETWEEN_LOOKS || self.bytes_since_look >= BYTES_BETWEEN_LOOKS
            {
                (self.pieces_since_look, self.bytes_since_look) = (0, 0);
                self.server.figures.show();
                self.server.check()?;
                if self.server.stop.is_raised() {
                    return Ok(Pace::Stopped);
                }
            }
            let end = pages.end.min(at + (self.next_piece() / page).max(1));
            let left = self.server.fill_ahead(at..end, purpose, &mut self.hands)?;
            self.pieces_since_look += 1;
            self.bytes_since_look += (left.start - at) * page;
            if left.start == at {
                self.server.figures.show();
                let stop = Interest::Readable(self.server.stop.as_fd());
                poll::wait([stop], Deadline::after(PACE)).map_err(PagerError::system("wait"))?;
            }
            at = left.start;
        }
        Ok(Pace::Done)
    }

    fn next_piece(&mut self) -> u64 {
        let faults = self.server.figures.of(Count::Faults);
        self.piece = if faults == self.faults { (self.piece * 2).min(LONGEST) } else { SHORTEST };
        self.faults = faults;
        self.piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_set_is_taken_in_its_order_and_in_parts_of_few_ranges_and_bytes() {
        let pages = (0..130).rev().map(|page| page * 8192..page * 8192 + 4096);
        let long = [1 << 30, 2 << 30, 3 << 30].map(|start| start..start + (2 << 20));
        let working_set = pages.chain(long).collect::<Vec<_>>();
        let parts = parts_of(&working_set);
        assert_eq!(parts.iter().map(|part| part.offsets.len()).collect::<Vec<_>>(), [64, 64, 3, 2]);
        assert_eq!(parts.into_iter().flat_map(|part| part.offsets).collect::<Vec<_>>(), working_set);
    }
}
