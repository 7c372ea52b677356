//! Which memory a guest touches first, in its order: recorded on behalf of one VM, replayed for those restored after it.

use super::Recording;
use crate::journal;
use crate::sorted::sorted_by;
use crate::sys::deadline::Deadline;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// What is being recorded.
#[derive(Debug)]
pub(super) struct Recorder {
    ranges: Vec<Range<u64>>,
    bytes: u64,
    limit: u64,
    until: Deadline,
}

/// The file of a working set.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The size of the memory that it belongs to.
    bytes: u64,
    /// Where each stretch begins in the memory files, and how long it is.
    ranges: Vec<(u64, u64)>,
}

/// How long a stretch may become that is not one in the order of touching.
const LONGEST_MERGED: u64 = 2 << 20;

impl Recorder {
    /// Nothing yet.
    pub(super) fn new(recording: &Recording) -> Self {
        let until = Deadline::after(Duration::from_millis(recording.for_ms));
        Self { ranges: Vec::new(), bytes: 0, limit: recording.limit_bytes, until }
    }

    /// Notes what was put in place for a fault; says whether there was room.
    pub(super) fn note(&mut self, offsets: Range<u64>) -> bool {
        if self.is_full() {
            return false;
        }
        self.bytes += offsets.end - offsets.start;
        match self.ranges.last_mut().filter(|last| last.end == offsets.start) {
            Some(last) => last.end = offsets.end,
            None => self.ranges.push(offsets),
        }
        true
    }

    /// Whether nothing more is to be recorded.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.limit || self.until.has_passed()
    }

    /// When it is over at the latest.
    pub(super) fn until(&self) -> Deadline {
        self.until
    }

    /// What was noted so far.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        self.ranges.clone()
    }
}

/// Stores `ranges` of a memory of `bytes` bytes at `path`, and returns the number of contiguous ranges.
pub(super) fn store(path: &Path, bytes: u64, ranges: Vec<Range<u64>>) -> Result<usize, journal::Error> {
    let merged = merge(ranges);
    let ranges = merged.iter().map(|range| (range.start, range.end - range.start)).collect();
    journal::write(path, &Stored { bytes, ranges })?;
    Ok(merged.len())
}

/// The working set at `path`, for a memory of `bytes` bytes. Without a usable one the VM is only slower.
pub(super) fn load(path: &Path, bytes: u64) -> Vec<Range<u64>> {
    if !path.exists() {
        return Vec::new();
    }
    let stored = match journal::read::<Stored>(path) {
        Ok(stored) => stored,
        Err(error) => {
            log::warn!("the working set is not replayed: {}", crate::causes::with_causes(&error));
            return Vec::new();
        }
    };
    let inside = |(start, length): (u64, u64)| {
        let end = start.checked_add(length).filter(|end| *end <= bytes)?;
        Some(start..end)
    };
    let ranges = stored.ranges.into_iter().map(inside).collect::<Option<Vec<_>>>();
    ranges.filter(|_| stored.bytes == bytes).unwrap_or_else(|| {
        log::warn!("the working set is not replayed: {} belongs to another guest's memory", path.display());
        Vec::new()
    })
}

/// Joins what lies side by side, up to a length that still keeps the order of touching: each copy costs a call.
fn merge(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let by_place = sorted_by((0..).zip(ranges).collect(), |(_, range): &(u64, Range<u64>)| range.start);
    let mut merged = Vec::<(u64, Range<u64>)>::new();
    for (order, range) in by_place {
        let joins = |last: &Range<u64>| {
            last.end >= range.start && range.end.saturating_sub(last.start) <= LONGEST_MERGED
        };
        match merged.last_mut().filter(|(_, last)| joins(last)) {
            Some((first, last)) => (*first, last.end) = (order.min(*first), last.end.max(range.end)),
            None => merged.push((order, range)),
        }
    }
    sorted_by(merged, |(order, _)| *order).into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const PAGE: u64 = 4096;

    #[test]
    fn what_lies_side_by_side_is_one_stretch_in_the_order_of_its_first_touch() {
        let page = |number: u64| number * PAGE..(number + 1) * PAGE;
        let merged = merge(vec![page(900), page(5), page(1), page(6), page(901), page(4)]);
        assert_eq!(merged, [900 * PAGE..902 * PAGE, 4 * PAGE..7 * PAGE, page(1)]);
    }

    #[test]
    fn a_working_set_is_read_as_stored_and_a_damaged_or_foreign_one_is_none() {
        let path = Scratch::new();
        assert!(load(&path, 1 << 20).is_empty());
        let mut recorder = Recorder::new(&Recording { limit_bytes: 3 * PAGE, for_ms: u64::MAX });
        assert!(
            recorder.note(8 * PAGE..9 * PAGE) && recorder.note(9 * PAGE..10 * PAGE) && recorder.note(0..PAGE)
        );
        assert!(!recorder.note(PAGE..2 * PAGE) && recorder.is_full());
        assert_eq!(store(&path, 1 << 20, recorder.ranges()).unwrap(), 2);
        assert_eq!(load(&path, 1 << 20), [8 * PAGE..10 * PAGE, 0..PAGE]);
        assert!(load(&path, 1 << 21).is_empty());
        let mut text = std::fs::read(&path).unwrap();
        text[60] ^= 1;
        std::fs::write(&path, text).unwrap();
        assert!(load(&path, 1 << 20).is_empty());
    }
}
