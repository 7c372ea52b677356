//! Memory that comes before anybody asks for it: a working set that is replayed, or everything. Faults go first.

use super::figures::{Count, State};
use super::server::{Hands, Server};
use super::{Ahead, PagerError, Plan, working_set};
use crate::sys::deadline::Deadline;
use crate::sys::poll::{self, Interest};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

/// Pieces grow from the shortest to the longest while nobody faults, and begin anew when somebody does: a piece that is
/// under way is what a fault may have to wait for.
const SHORTEST: u64 = 64 << 10;
const LONGEST: u64 = 2 << 20;
/// So many pieces between two looks at whether to go on: a look costs as much as a page.
const BETWEEN_LOOKS: u64 = 16;
/// Between two tries while the memory is changing.
const PACE: Duration = Duration::from_millis(1);

/// Does what `plan` wants ahead, until it is done or the server stops.
pub(super) fn stream(server: &Server<'_>, plan: &Plan) -> Result<(), PagerError> {
    let mut streaming = Streaming { server, hands: Hands::default(), piece: SHORTEST, pieces: 0, faults: 0 };
    let named = plan.working_set.as_deref().filter(|_| plan.ahead != Ahead::Nothing);
    let working_set = named.map(|path| working_set::load(path, plan.bytes)).unwrap_or_default();
    for offsets in working_set {
        let before = server.figures.of(Count::AheadBytes);
        if streaming.fill(&offsets)? == Pace::Stopped {
            return Ok(());
        }
        let replayed = (server.figures.of(Count::AheadBytes) - before) / server.layout.page;
        server.figures.add(Count::ReplayedPages, replayed);
        server.figures.show();
    }
    if plan.ahead != Ahead::Everything {
        return server.check();
    }
    for region in &server.layout.regions {
        if streaming.fill(&(region.offset..region.end_offset()))? == Pace::Stopped {
            return Ok(());
        }
    }
    server.figures.note_state(State::Complete);
    server.check()
}

struct Streaming<'a> {
    server: &'a Server<'a>,
    hands: Hands,
    piece: u64,
    pieces: u64,
    faults: u64,
}

#[derive(PartialEq, Eq)]
enum Pace {
    Done,
    Stopped,
}

impl Streaming<'_> {
    fn fill(&mut self, offsets: &Range<u64>) -> Result<Pace, PagerError> {
        let page = self.server.layout.page;
        for region in &self.server.layout.regions {
            let start = offsets.start.max(region.offset) / page;
            let end = offsets.end.min(region.end_offset()).div_ceil(page);
            if self.fill_pages(start..end)? == Pace::Stopped {
                return Ok(Pace::Stopped);
            }
        }
        Ok(Pace::Done)
    }

    fn fill_pages(&mut self, pages: Range<u64>) -> Result<Pace, PagerError> {
        let mut at = pages.start;
        while at < pages.end {
            if self.pieces.is_multiple_of(BETWEEN_LOOKS) {
                self.server.check()?;
                if self.server.stop.is_raised() {
                    return Ok(Pace::Stopped);
                }
            }
            self.pieces += 1;
            let end = pages.end.min(at + (self.next_piece() / self.server.layout.page).max(1));
            let left = self.server.fill_ahead(at..end, &mut self.hands)?;
            if left.start == at {
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
