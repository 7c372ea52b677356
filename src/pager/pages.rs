//! Which pages are so: one bit for each, changed by many threads at once.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of pages, by their number in the guest's memory.
#[derive(Debug)]
pub(super) struct Pages {
    words: Box<[AtomicU64]>,
}

impl Pages {
    /// None of `count` pages.
    pub(super) fn none_of(count: u64) -> Self {
        Self { words: (0..count.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether `page` is in the set.
    pub(super) fn has(&self, page: u64) -> bool {
        self.word(page).is_some_and(|word| word.load(Ordering::Acquire) & bit(page) != 0)
    }

    /// Adds `page`; says whether it was not there before.
    pub(super) fn add(&self, page: u64) -> bool {
        self.word(page).is_some_and(|word| word.fetch_or(bit(page), Ordering::AcqRel) & bit(page) == 0)
    }

    /// Adds all of `pages`.
    pub(super) fn add_all(&self, pages: Range<u64>) {
        for page in pages {
            self.add(page);
        }
    }

    /// Takes `pages` out; says how many there were.
    pub(super) fn remove_all(&self, pages: Range<u64>) -> u64 {
        let removed = |page: &u64| {
            self.word(*page)
                .is_some_and(|word| word.fetch_and(!bit(*page), Ordering::AcqRel) & bit(*page) != 0)
        };
        pages.filter(removed).count() as u64
    }

    /// The first pages of `range` that follow each other, were not in the set and are in it now. Those in `except` are
    /// left alone.
    pub(super) fn claim(&self, range: Range<u64>, except: Option<&Self>) -> Option<Range<u64>> {
        let is_free = |page: u64| except.is_none_or(|except| !except.has(page));
        let first = range.clone().find(|page| is_free(*page) && self.add(*page))?;
        let end = (first + 1..range.end).find(|page| !is_free(*page) || !self.add(*page));
        Some(first..end.unwrap_or(range.end))
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(page / BITS).ok()?)
    }
}

const BITS: u64 = 64;

fn bit(page: u64) -> u64 {
    1 << (page % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_claimed_once_and_not_past_what_is_there() {
        let (pages, except) = (Pages::none_of(130), Pages::none_of(130));
        assert!(pages.add(64) && !pages.add(64) && pages.has(64) && !pages.has(63));
        except.add_all(100..102);
        assert_eq!(pages.claim(60..128, Some(&except)), Some(60..64));
        assert_eq!(pages.claim(60..128, Some(&except)), Some(65..100));
        assert_eq!(pages.claim(60..128, Some(&except)), Some(102..128));
        assert_eq!(pages.claim(60..100, None), None);
        assert_eq!(pages.claim(100..130, None), Some(100..102));
        assert_eq!(pages.remove_all(0..63), 3);
        assert!(!pages.has(1000) && !pages.add(1000));
    }
}
