//! Fault-around: which pages to put in place along with the one that is asked for. It decides, and does nothing.
//!
//! A fault costs as much as copying some 200 KiB, so what follows a run is worth having; what stands alone is not.

use super::pages::Pages;
use std::ops::Range;

/// In which units memory is had, and how far a window may reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// How many pages make a block of 64 KiB: 1 where a page is larger.
    pub(super) block: u64,
    /// How many pages a window may have; with one there is no fault-around.
    pub(super) longest: u64,
}

impl Reach {
    /// For pages of `page_bytes`, and windows of at most `around_bytes`.
    pub(super) fn new(page_bytes: u64, around_bytes: u64) -> Self {
        Self { block: (BLOCK / page_bytes).max(1), longest: (around_bytes / page_bytes).max(1) }
    }
}

/// The pages around `fault`, which is one of them, in the region that has the pages `region`. Some may be present.
///
/// A page alone, until another one of its block is there: then the block. Pages that are present right before it are a
/// run, and the window is as long as the run, so that it doubles from one fault to the next.
pub(super) fn around(present: &Pages, region: &Range<u64>, fault: u64, reach: Reach) -> Range<u64> {
    let run = (region.start..fault).rev().take_while_present(present, reach.longest);
    let ahead = fault..fault.saturating_add(run.max(1)).min(region.end);
    let start = fault - fault % reach.block;
    let block = start.max(region.start)..start.saturating_add(reach.block).min(region.end);
    let has_company = block.clone().any(|page| page != fault && present.has(page));
    if reach.longest < reach.block || !has_company {
        return ahead;
    }
    block.start..block.end.max(ahead.end)
}

const BLOCK: u64 = 64 << 10;

trait Run {
    fn take_while_present(self, present: &Pages, most: u64) -> u64;
}

impl<I: Iterator<Item = u64>> Run for I {
    fn take_while_present(self, present: &Pages, most: u64) -> u64 {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.take(most).take_while(|page| present.has(*page)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REACH: Reach = Reach { block: 16, longest: 512 };

    #[test]
    fn a_page_alone_stays_alone() {
        let present = Pages::none_of(4096);
        assert_eq!(around(&present, &(0..4096), 100, REACH), 100..101);
        present.add(200);
        assert_eq!(around(&present, &(0..4096), 100, REACH), 100..101);
    }

    #[test]
    fn a_second_page_of_a_block_brings_the_block() {
        let present = Pages::none_of(4096);
        present.add(98);
        assert_eq!(around(&present, &(0..4096), 100, REACH), 96..112);
        assert_eq!(around(&present, &(97..4096), 100, REACH), 97..112);
        assert_eq!(around(&present, &(0..105), 100, REACH), 96..105);
        assert_eq!(around(&present, &(0..4096), 100, Reach { longest: 1, ..REACH }), 100..101);
    }

    #[test]
    fn touching_page_after_page_takes_few_faults() {
        let (present, mut faults) = (Pages::none_of(65_536), 0);
        for page in 0..65_536 {
            if !present.has(page) {
                faults += 1;
                present.add_all(around(&present, &(0..65_536), page, REACH));
            }
        }
        assert!(faults < 160, "{faults} faults for 256 MiB");
    }

    #[test]
    fn huge_pages_come_one_by_one() {
        let (present, reach) = (Pages::none_of(64), Reach::new(2 << 20, 2 << 20));
        present.add_all(0..10);
        assert_eq!(around(&present, &(0..64), 10, reach), 10..11);
    }

    proptest! {
        #[test]
        fn a_window_has_the_fault_and_stays_in_its_region(
            start in 0_u64..300, length in 1_u64..300, fault in 0_u64..300, there in prop::collection::vec(0_u64..600, 0..300),
            block in prop::sample::select(vec![1_u64, 16]), longest in 1_u64..600,
        ) {
            let (region, fault) = (start..start + length, start + fault % length);
            let present = Pages::none_of(600);
            there.into_iter().filter(|page| *page != fault).for_each(|page| present.add_all(page..page + 1));
            let window = around(&present, &region, fault, Reach { block, longest });
            prop_assert!(window.contains(&fault));
            prop_assert!(window.start >= region.start && window.end <= region.end);
            prop_assert!(window.end - window.start <= longest.max(block) + block);
        }
    }
}
