//! Serving one VMM's memory: what is put in place where, and what was given back. Several threads do it at once; who
//! runs them, and what becomes of the VMM when one of them fails, is for others.
//!
//! A copy that was decided on before pages are given back must not land after they are gone. While the event is unread
//! the kernel refuses copies; so events are read under an exclusive lock, and copies decided and made under a shared
//! one. A page that the guest waits for is tried again until it is in place: nothing else here is worth a retry.

use super::figures::{Count, Counters};
use super::handshake::{Layout, Region};
use super::image::Image;
use super::pages::Pages;
use super::window::{self, Reach};
use super::working_set::Recorder;
use super::{PagerError, Plan, Removals};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::poll::{self, Interest};
use crate::sys::sync::lock;
use crate::sys::userfault::{self, CopyError, Event, FaultKind, Userfault};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Memory that is served.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) layout: Layout,
    pub(super) figures: &'a Counters,
    /// Raised when the VMM has ended, or something has failed.
    pub(super) stop: EventFd,
    /// What is being recorded, and raised when that is over.
    pub(super) recorder: Option<Mutex<Recorder>>,
    pub(super) recorded: EventFd,
    userfault: Userfault,
    pub(super) image: &'a Image,
    reach: Reach,
    /// Pages that are in place, or that somebody is putting there.
    present: Pages,
    /// Pages that were given back: from then on they are zeros.
    removed: Pages,
    removals: Option<RwLock<()>>,
    /// Who waits for events: one at a time, so that an event wakes one.
    turn: Mutex<()>,
    /// How many events the one whose turn it is takes.
    batch: usize,
}

/// What one thread has at hand.
#[derive(Debug, Default)]
pub(super) struct Hands {
    pending: VecDeque<u64>,
    buffer: Vec<u8>,
}

/// What some pages are put in place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for them.
    Fault,
    /// They lie around such a page.
    Around,
    /// They will be asked for, some day.
    Ahead,
    /// The same, for a working set names them.
    Replay,
}

impl Purpose {
    /// Whether nobody waits for more than these pages. Whoever puts many in place shows the figures now and then.
    fn is_ahead(self) -> bool {
        matches!(self, Self::Ahead | Self::Replay)
    }
}

/// In how large pieces the surroundings of a fault come, at first: whoever waits for the next page is woken by each.
const FIRST_PIECE: u64 = 64 << 10;
/// Between two tries while the memory is changing, once that takes long.
const PACE: Duration = Duration::from_millis(1);
const QUICK_TRIES: u32 = 64;

impl<'a> Server<'a> {
    /// Serves what `userfault` tells of.
    pub(super) fn new(
        plan: &Plan,
        (layout, userfault): (Layout, Userfault),
        image: &'a Image,
        figures: &'a Counters,
    ) -> Result<Self, PagerError> {
        let flag = || EventFd::new().map_err(PagerError::system("create an eventfd"));
        let pages = plan.bytes / layout.page;
        Ok(Self {
            figures,
            stop: flag()?,
            recorder: plan.recording().map(|recording| Mutex::new(Recorder::new(recording))),
            recorded: flag()?,
            userfault,
            image,
            reach: Reach::new(layout.page, plan.fault_around_bytes),
            present: Pages::none_of(pages),
            removed: Pages::none_of(pages),
            removals: (plan.removals == Removals::Possible).then(RwLock::default),
            turn: Mutex::default(),
            batch: if plan.workers > 1 { 1 } else { userfault::BATCH },
            layout,
        })
    }

    /// The life of a worker: serves faults until `stop` is raised.
    pub(super) fn work(&self) -> Result<(), PagerError> {
        let mut hands = Hands::default();
        loop {
            let turn = lock(&self.turn);
            let interests = [self.userfault.as_fd(), self.stop.as_fd()].map(Interest::Readable);
            let woken = poll::wait(interests, Deadline::NEVER);
            if let [_, true] = woken.map_err(PagerError::system("wait for page faults"))? {
                return Ok(());
            }
            self.take_events(&mut hands.pending)?;
            drop(turn);
            while let Some(address) = hands.pending.pop_front() {
                self.serve_fault(address, &mut hands)?;
            }
        }
    }

    /// Puts those of `pages` in place that are not, as far as that can be done now, and gives those that are to be
    /// tried again.
    pub(super) fn fill_ahead(
        &self,
        pages: Range<u64>,
        purpose: Purpose,
        hands: &mut Hands,
    ) -> Result<Range<u64>, PagerError> {
        let _copies = self.copies();
        let Some(run) = self.present.claim(pages.clone(), Some(&self.removed)) else {
            return Ok(pages.end..pages.end);
        };
        let left = self.fill(run.clone(), purpose, hands)?;
        self.present.remove_all(left.clone());
        Ok(if left.is_empty() { run.end..pages.end } else { left.start..pages.end })
    }

    /// Whether the memory files are as long as ever.
    pub(super) fn check(&self) -> Result<(), PagerError> {
        self.image.check()
    }

    /// Reads what has happened: adds faults to `pending`, and notes what was given back. Says how much that was.
    fn take_events(&self, pending: &mut VecDeque<u64>) -> Result<usize, PagerError> {
        let mut events = Vec::with_capacity(self.batch);
        let _no_copies =
            self.removals.as_ref().map(|lock| lock.write().unwrap_or_else(PoisonError::into_inner));
        match self.userfault.read(self.batch, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            read => read.map_err(PagerError::system("read page faults"))?,
        }
        let count = events.len();
        for event in events {
            match event {
                Event::Fault { address, kind: FaultKind::Missing } => pending.push_back(address),
                Event::Remove(addresses) => self.note_removed(&addresses),
                Event::Fault { .. } | Event::Unknown(_) => {
                    return Err(PagerError::Unexpected { what: "protected" });
                }
                Event::Unmap(_) => return Err(PagerError::Unexpected { what: "unmapped" }),
                Event::Remap { .. } => return Err(PagerError::Unexpected { what: "moved" }),
                Event::Fork(_) => return Err(PagerError::Unexpected { what: "forked" }),
            }
        }
        Ok(count)
    }

    fn note_removed(&self, addresses: &Range<u64>) {
        for region in &self.layout.regions {
            let start = addresses.start.max(region.addresses.start);
            let end = addresses.end.min(region.addresses.end);
            if start < end {
                let pages = self.page_at(region, start)..self.page_at(region, end);
                self.removed.add_all(pages.clone());
                self.figures.add(Count::RemovedPages, pages.end - pages.start);
                self.figures.subtract(Count::PresentPages, self.present.remove_all(pages));
                self.figures.show();
            }
        }
    }

    fn serve_fault(&self, address: u64, hands: &mut Hands) -> Result<(), PagerError> {
        let region = self.layout.region_at(address).ok_or(PagerError::Outside { address })?;
        let page = self.page_at(region, address);
        let mut tries = 0;
        let window = loop {
            if let Some(window) = self.try_fault(region, page, hands)? {
                break window;
            }
            tries += 1;
            self.figures.add(Count::Deferred, 1);
            if self.take_events(&mut hands.pending)? == 0 && self.is_to_stop_after_a_moment(tries)? {
                return Ok(());
            }
        };
        self.figures.add(Count::Faults, 1);
        self.figures.show();
        self.fill_around(window, page, hands)?;
        self.image.check()
    }

    /// Puts `page` in place, and what follows it in the first piece of its window; gives the window, or nothing when
    /// the memory is changing.
    fn try_fault(
        &self,
        region: &Region,
        page: u64,
        hands: &mut Hands,
    ) -> Result<Option<Range<u64>>, PagerError> {
        let _copies = self.copies();
        let window = window::around(&self.present, &region.pages(self.layout.page), page, self.reach);
        // Even one that should be there: somebody may be at it, and take longer.
        self.present.add(page);
        let piece_end = window.end.min(page + self.reach.block);
        let follows = (page + 1..piece_end).find(|page| !self.present.add(*page)).unwrap_or(piece_end);
        let left = self.fill(page..follows.max(page + 1), Purpose::Fault, hands)?;
        self.present.remove_all(left.clone());
        Ok((left.start > page).then_some(window))
    }

    /// The rest of a fault's window: what follows the page, and then what is before it.
    fn fill_around(&self, window: Range<u64>, page: u64, hands: &mut Hands) -> Result<(), PagerError> {
        if window.end - window.start == 1 {
            return Ok(());
        }
        let mut piece = (FIRST_PIECE / self.layout.page).max(1);
        for part in [page + 1..window.end, window.start..page] {
            let mut at = part.start;
            while at < part.end {
                let _copies = self.copies();
                let Some(run) = self.present.claim(at..part.end.min(at + piece), None) else {
                    at = part.end.min(at + piece);
                    continue;
                };
                let left = self.fill(run.clone(), Purpose::Around, hands)?;
                if !left.is_empty() {
                    self.present.remove_all(left);
                    return Ok(());
                }
                (at, piece) = (run.end, piece * 2);
            }
        }
        Ok(())
    }

    /// Puts `pages` in place, which are the caller's to put there; gives those that could not be because the memory is
    /// changing.
    fn fill(&self, pages: Range<u64>, purpose: Purpose, hands: &mut Hands) -> Result<Range<u64>, PagerError> {
        let mut at = pages.start;
        while at < pages.end {
            let (end, filled) = self.fill_from_one_source(at..pages.end, hands)?;
            let done = match filled {
                Ok(()) => end - at,
                Err(CopyError::Again { copied: 0 }) => return Ok(at..pages.end),
                Err(CopyError::Again { copied }) => copied as u64 / self.layout.page,
                Err(CopyError::Exists) => {
                    self.wake(at)?;
                    at += 1;
                    continue;
                }
                // The kernel takes no stretch of which the VMM has protected a part, as it does with memory that is not
                // plugged in.
                Err(CopyError::Gone) if end - at > 1 => {
                    let half = at + (end - at) / 2;
                    let left = self.fill(at..half, purpose, hands)?;
                    if !left.is_empty() {
                        return Ok(left.start..pages.end);
                    }
                    at = half;
                    continue;
                }
                Err(CopyError::Gone) => return Err(PagerError::Gone),
                Err(CopyError::Failed(source)) => return Err(self.why(at, source)),
            };
            self.note_filled(at..at + done, purpose);
            if !purpose.is_ahead() {
                self.figures.show();
            }
            at += done;
        }
        Ok(at..at)
    }

    /// One call to the kernel, for as many of `pages` as have one source; says how far that is.
    fn fill_from_one_source(
        &self,
        pages: Range<u64>,
        hands: &mut Hands,
    ) -> Result<(u64, Result<(), CopyError>), PagerError> {
        let page = self.layout.page;
        let (offset, address) = (pages.start * page, self.address_of(pages.start)?);
        if self.removed.has(pages.start) {
            let end = pages.clone().find(|page| !self.removed.has(*page)).unwrap_or(pages.end);
            return Ok((end, self.zero(address, end - pages.start, hands)));
        }
        let kept = pages.clone().find(|page| self.removed.has(*page)).unwrap_or(pages.end);
        let (end, layer) = self.image.stretch(&(offset..kept * page));
        let whole = end / page;
        match layer {
            _ if whole == pages.start => {
                hands.buffer.resize(usize::try_from(page).unwrap_or(0), 0);
                self.image.read(offset, &mut hands.buffer)?;
                Ok((whole + 1, self.userfault.copy(address, &hands.buffer).map(drop)))
            }
            None => Ok((whole, self.zero(address, whole - pages.start, hands))),
            Some(layer) => {
                let copied = self.userfault.copy_from_file(address, layer.mapping(), &(offset..whole * page));
                Ok((whole, copied.map(drop)))
            }
        }
    }

    fn zero(&self, address: u64, pages: u64, hands: &mut Hands) -> Result<(), CopyError> {
        let (length, huge) = (pages * self.layout.page, self.layout.page > SMALL);
        if !huge {
            let zeroed = self.userfault.zero(&(address..address + length));
            self.figures.add(Count::ZeroPages, if zeroed.is_ok() { pages } else { 0 });
            return zeroed;
        }
        hands.buffer.clear();
        hands.buffer.resize(usize::try_from(self.layout.page).unwrap_or(0), 0);
        let each = (0..pages).map(|page| address + page * self.layout.page);
        let mut copied = 0;
        for address in each {
            match self.userfault.copy(address, &hands.buffer) {
                Ok(length) => {
                    copied += length;
                    self.figures.add(Count::ZeroPages, 1);
                }
                Err(_) if copied > 0 => return Err(CopyError::Again { copied }),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note_filled(&self, pages: Range<u64>, purpose: Purpose) {
        let (count, page) = (pages.end - pages.start, self.layout.page);
        let (what, bytes) = match purpose {
            Purpose::Fault => (Count::FaultBytes, count * page),
            Purpose::Around => (Count::AroundBytes, count * page),
            Purpose::Ahead | Purpose::Replay => (Count::AheadBytes, count * page),
        };
        self.figures.add(what, bytes);
        self.figures.add(Count::PresentPages, count);
        if purpose == Purpose::Replay {
            self.figures.add(Count::ReplayedPages, count);
        }
        if purpose.is_ahead() {
            return self.figures.add(Count::AvoidedFaults, count);
        }
        self.figures.add(Count::AvoidedFaults, if purpose == Purpose::Fault { count - 1 } else { count });
        if let Some(recorder) = &self.recorder {
            let mut recorder = lock(recorder);
            if recorder.note(pages.start * page..pages.end * page) {
                self.figures.add(Count::RecordedPages, count);
            } else {
                self.recorded.raise();
            }
        }
    }

    /// Whoever waits for a page that somebody else has put in place.
    fn wake(&self, page: u64) -> Result<(), PagerError> {
        let address = self.address_of(page)?;
        match self.userfault.wake(&(address..address + self.layout.page)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PagerError::Gone),
            woken => woken.map_err(|source| self.why(page, source)),
        }
    }

    /// What a failed copy means: the file it came from may say more.
    fn why(&self, page: u64, source: io::Error) -> PagerError {
        let offset = page * self.layout.page;
        let (_, layer) = self.image.stretch(&(offset..offset + 1));
        layer.and_then(|layer| layer.explain(offset)).unwrap_or(PagerError::Place { offset, source })
    }

    /// Lets whoever changes the memory get on; says whether nothing is to be served any more.
    fn is_to_stop_after_a_moment(&self, tries: u32) -> Result<bool, PagerError> {
        if tries < QUICK_TRIES {
            std::thread::yield_now();
            return Ok(false);
        }
        let stopped = poll::wait([Interest::Readable(self.stop.as_fd())], Deadline::after(PACE));
        stopped.map(|[stopped]| stopped).map_err(PagerError::system("wait for the memory to settle"))
    }

    /// Held while copies are decided on and made.
    fn copies(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.removals.as_ref().map(|lock| lock.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn page_at(&self, region: &Region, address: u64) -> u64 {
        (region.offset + (address - region.addresses.start)) / self.layout.page
    }

    fn address_of(&self, page: u64) -> Result<u64, PagerError> {
        let offset = page * self.layout.page;
        let holds = |region: &&Region| (region.offset..region.end_offset()).contains(&offset);
        let region = self.layout.regions.iter().find(holds);
        region
            .map(|region| region.addresses.start + (offset - region.offset))
            .ok_or(PagerError::Outside { address: offset })
    }
}

const SMALL: u64 = 4096;
