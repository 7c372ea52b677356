//! The guest's memory: real pages at guest addresses, which a snapshot writes out and a restored guest faults in. What
//! the guest keeps in it is the guest's business.

use std::fs::File;
use std::io;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mvm::sys::mapping::{Mapping, PageSize};
use mvm::sys::sparse;
use mvm::sys::userfault::Userfault;

use crate::config::{HugePageConfig, MachineConfig, MemoryHotplugConfig, VmmConfig};
use crate::proc;

const PAGE: usize = 4096;
/// Where the hole for devices begins in a guest's address space, and where memory goes on above it.
pub(crate) const MEMORY_HOLE: Range<u64> = 3 << 30..4 << 30;
/// Above everything else that a guest can address.
const HOTPLUGGABLE: u64 = 512 << 30;

/// Where a guest has memory, in the order of the snapshot's file.
#[derive(Debug)]
pub(crate) struct Layout {
    regions: Vec<(u64, usize)>,
    pages: PageSize,
    tracks: Tracking,
}

/// Whether it is known which pages the guest has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    Off,
    On,
}

#[derive(Debug)]
pub(crate) struct GuestMemory {
    regions: Vec<Region>,
    /// As long as it is open, somebody else serves the page faults.
    _served: Option<Userfault>,
}

#[derive(Debug)]
struct Region {
    address: u64,
    position: u64,
    memory: Mapping,
    backing: Backing,
    dirty: Option<Bitmap>,
    /// How much of it the guest has; all but of hotpluggable memory.
    plugged: AtomicUsize,
    /// Where the file that stands behind it has no hole.
    data: Vec<Range<u64>>,
}

/// What stands behind a page that was never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    Zeros,
    File,
    Handler,
}

/// What stands in the file that a snapshot's memory is written into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Nothing,
    SomethingElse,
}

/// How much of a snapshot's memory file can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// The second half meets a full disk.
    ForHalf,
}

/// A bit for each page.
#[derive(Debug)]
struct Bitmap(Vec<AtomicU64>);

impl Layout {
    pub(crate) fn of(machine: &MachineConfig, hotplug: Option<&MemoryHotplugConfig>) -> Self {
        let size = machine.mem_size_mib << 20;
        let below = usize::try_from(MEMORY_HOLE.start).map_or(size, |hole| size.min(hole));
        let mut regions = vec![(0, below), (MEMORY_HOLE.end, size - below)];
        regions.push((HOTPLUGGABLE, hotplug.map_or(0, |memory| memory.total_size_mib << 20)));
        regions.retain(|(_, size)| *size > 0);
        let pages = match machine.huge_pages {
            HugePageConfig::None => PageSize::Small,
            HugePageConfig::Hugetlbfs2M => PageSize::Huge,
        };
        let tracks = if machine.track_dirty_pages { Tracking::On } else { Tracking::Off };
        Self { regions, pages, tracks }
    }

    pub(crate) fn of_snapshot(config: &VmmConfig, tracks: Tracking) -> Self {
        let machine = config.machine_config.clone().unwrap_or_default();
        Self { tracks, ..Self::of(&machine, config.memory_hotplug.as_ref()) }
    }

    /// In bytes; the length of a snapshot's memory file.
    pub(crate) fn size(&self) -> u64 {
        self.regions.iter().map(|(_, size)| *size as u64).sum()
    }

    pub(crate) fn pages(&self) -> PageSize {
        self.pages
    }

    fn build(
        &self,
        backing: Backing,
        map: impl Fn(u64, usize) -> io::Result<Mapping>,
    ) -> io::Result<Vec<Region>> {
        let mut position = 0;
        let region = |&(address, size): &(u64, usize)| {
            let memory = map(position, size)?;
            let dirty = (self.tracks == Tracking::On).then(|| Bitmap::new(size / PAGE));
            let plugged = AtomicUsize::new(if address == HOTPLUGGABLE { 0 } else { size });
            let region = Region { address, position, memory, backing, dirty, plugged, data: Vec::new() };
            position += size as u64;
            Ok(region)
        };
        self.regions.iter().map(region).collect()
    }
}

impl GuestMemory {
    /// A fresh machine's: zeros.
    pub(crate) fn new(layout: &Layout) -> io::Result<Self> {
        let regions = layout.build(Backing::Zeros, |_, size| Mapping::unreserved(size, layout.pages))?;
        Ok(Self { regions, _served: None })
    }

    /// A restored one's, from a file that is long enough.
    pub(crate) fn of_file(layout: &Layout, file: &File) -> io::Result<Self> {
        let mut regions =
            layout.build(Backing::File, |position, size| Mapping::of_file(file, position, size))?;
        let data = sparse::data_extents(file)?;
        regions.iter_mut().for_each(|region| region.data.clone_from(&data));
        Ok(Self { regions, _served: None })
    }

    /// A restored one's, whose pages are a handler's to bring.
    pub(crate) fn to_be_served(layout: &Layout) -> io::Result<Self> {
        let regions = layout.build(Backing::Handler, |_, size| Mapping::unreserved(size, layout.pages))?;
        Ok(Self { regions, _served: None })
    }

    pub(crate) fn register(&self, faults: &Userfault) -> io::Result<()> {
        self.regions.iter().try_for_each(|region| faults.register(&region.memory))
    }

    pub(crate) fn keep(&mut self, faults: Userfault) {
        self._served = Some(faults);
    }

    /// For each region its address in this process, its size, and where its content stands in the snapshot.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (u64, usize, u64)> {
        self.regions.iter().map(|region| (region.memory.address(), region.memory.size(), region.position))
    }

    /// The word at a guest's address; where there is no memory it is 0.
    pub(crate) fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        if let Some((region, offset)) = self.find(address) {
            region.memory.read(offset, &mut bytes);
        }
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn set_word(&self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    /// Writes as far as there is memory at this address.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let Some((region, offset)) = self.find(address) else { return };
        region.memory.write(offset, bytes);
        region.mark_written(offset, bytes.len());
    }

    /// Reads so many bytes of a file into the guest's memory.
    pub(crate) fn read_from(
        &self,
        address: u64,
        file: &File,
        position: u64,
        length: usize,
    ) -> io::Result<()> {
        let (region, offset) = self.find(address).ok_or(io::ErrorKind::InvalidInput)?;
        region.memory.read_from(&(offset..offset.saturating_add(length)), file, position)?;
        region.mark_written(offset, length);
        Ok(())
    }

    /// Gives the highest `above` bytes below the hole back, except for the highest `below`: a balloon that grows.
    pub(crate) fn inflate(&self, below: usize, above: usize) -> io::Result<()> {
        let Some(region) = self.regions.first() else { return Ok(()) };
        let size = region.memory.size();
        let offsets = size.saturating_sub(above)..size.saturating_sub(below);
        if offsets.is_empty() {
            return Ok(());
        }
        match region.backing {
            Backing::File => region.memory.replace_by_zeros(&offsets),
            Backing::Zeros | Backing::Handler => region.memory.discard(&offsets),
        }
    }

    /// Gives the guest so much of its hotpluggable memory, in whole slots, and takes back what is above.
    pub(crate) fn plug(&self, size_mib: usize, slot_size_mib: usize) {
        let hotpluggable = self.regions.iter().find(|region| region.address == HOTPLUGGABLE);
        let Some(region) = hotpluggable.filter(|_| slot_size_mib > 0) else { return };
        let plugged = (size_mib.next_multiple_of(slot_size_mib) << 20).min(region.memory.size());
        region.plugged.store(plugged, Ordering::Relaxed);
        // What the guest has no more of is never asked for.
        let _ = region.memory.discard(&(plugged..region.memory.size()));
    }

    /// Whether an existing memory file may be emptied: no page of ours comes from one.
    pub(crate) fn is_independent_of_files(&self) -> bool {
        self.regions.iter().all(|region| region.backing != Backing::File)
    }

    /// Writes everything to a file of the right length. Firecracker writes every byte; here pages of zeros that were
    /// never touched stay holes, which read the same and make a test's snapshot cheap.
    pub(crate) fn dump(&self, file: &File, target: Target, room: Room) -> io::Result<()> {
        for region in &self.regions {
            let ranges = match (region.backing, target) {
                (Backing::Zeros | Backing::File, Target::Nothing) => region.not_zero()?,
                _ => iter::once(0..region.plugged()).collect(),
            };
            region.write(file, &ranges, self.limit(room))?;
        }
        self.regions.iter().filter_map(|region| region.dirty.as_ref()).for_each(|dirty| drop(dirty.take()));
        Ok(())
    }

    /// Writes what has changed since the last snapshot; when that fails it counts as changed still.
    pub(crate) fn dump_dirty(&self, file: &File, room: Room) -> io::Result<()> {
        let mut taken = Vec::new();
        let mut written = Ok(());
        for region in &self.regions {
            let pages = match &region.dirty {
                Some(dirty) => dirty.take(),
                None => region.memory.resident()?,
            };
            if written.is_ok() {
                written = region.write(file, &runs(&pages), self.limit(room));
            }
            taken.push(pages);
        }
        if written.is_err() {
            for (region, pages) in self.regions.iter().zip(&taken) {
                region.mark(pages);
            }
        }
        written
    }

    /// Puts it into swap.
    pub(crate) fn page_out(&self) -> io::Result<()> {
        self.regions.iter().try_for_each(|region| region.memory.page_out())
    }

    fn limit(&self, room: Room) -> u64 {
        match room {
            Room::Enough => u64::MAX,
            Room::ForHalf => self.regions.iter().map(|region| region.memory.size() as u64).sum::<u64>() / 2,
        }
    }

    fn find(&self, address: u64) -> Option<(&Region, usize)> {
        self.regions.iter().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.address)?).ok()?;
            (offset < region.memory.size()).then_some((region, offset))
        })
    }
}

impl Region {
    /// Behind `limit` the disk is full, even for pages that would stay holes.
    fn write(&self, file: &File, ranges: &[Range<usize>], limit: u64) -> io::Result<()> {
        let room = usize::try_from(limit.saturating_sub(self.position)).unwrap_or(usize::MAX);
        for range in ranges {
            let end = room.min(self.plugged());
            let range = range.start.min(end)..range.end.min(end);
            self.memory.write_to(&range, file, self.position + range.start as u64)?;
        }
        if room < self.memory.size() { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn mark_written(&self, offset: usize, length: usize) {
        let end = offset.saturating_add(length).min(self.memory.size());
        if let Some(dirty) = &self.dirty {
            (offset / PAGE..end.div_ceil(PAGE)).for_each(|page| dirty.set(page));
        }
    }

    fn plugged(&self) -> usize {
        self.plugged.load(Ordering::Relaxed)
    }

    fn mark(&self, pages: &[bool]) {
        let Some(dirty) = &self.dirty else { return };
        pages.iter().enumerate().filter(|(_, is_dirty)| **is_dirty).for_each(|(page, _)| dirty.set(page));
    }

    /// Pages that were touched, or that the file has. (`mincore` would forget what was swapped out.)
    fn not_zero(&self) -> io::Result<Vec<Range<usize>>> {
        const PRESENT_OR_SWAPPED: u8 = 0b1100_0000;
        let Some(pagemap) = &proc::look().pagemap else {
            return Ok(iter::once(0..self.memory.size()).collect());
        };
        let mut entries = vec![0; self.memory.size() / PAGE * 8];
        pagemap.read_exact_at(&mut entries, self.memory.address() / PAGE as u64 * 8)?;
        let mut pages: Vec<bool> =
            entries.chunks(8).map(|entry| entry[7] & PRESENT_OR_SWAPPED != 0).collect();
        let page_at =
            |position: u64| usize::try_from(position.saturating_sub(self.position)).map(|at| at / PAGE);
        for data in &self.data {
            let (first, behind) = (page_at(data.start), page_at(data.end + PAGE as u64 - 1));
            let behind = behind.unwrap_or(usize::MAX).min(pages.len());
            pages[first.unwrap_or(usize::MAX).min(behind)..behind].fill(true);
        }
        Ok(runs(&pages))
    }
}

impl Bitmap {
    fn new(pages: usize) -> Self {
        Self((0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, page: usize) {
        if let Some(word) = self.0.get(page / 64) {
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    /// Which pages are set; none is afterwards.
    fn take(&self) -> Vec<bool> {
        let words = self.0.iter().map(|word| word.swap(0, Ordering::Relaxed));
        words.flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1)).collect()
    }
}

/// The stretches of pages that are true, in bytes.
fn runs(pages: &[bool]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (page, _) in pages.iter().enumerate().filter(|(_, is_one)| **is_one) {
        let (start, end) = (page * PAGE, (page + 1) * PAGE);
        match ranges.last_mut().filter(|range| range.end == start) {
            Some(range) => range.end = end,
            None => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mem_size_mib: usize, track_dirty_pages: bool) -> GuestMemory {
        let machine = MachineConfig { mem_size_mib, track_dirty_pages, ..MachineConfig::default() };
        GuestMemory::new(&Layout::of(&machine, None)).unwrap()
    }

    #[test]
    fn memory_above_three_gib_goes_on_behind_the_hole() {
        let memory = memory(4096, false);
        let regions: Vec<_> = memory.mappings().map(|(_, size, position)| (size, position)).collect();
        assert_eq!(regions, [(3 << 30, 0), (1 << 30, 3 << 30)]);
        memory.set_word(MEMORY_HOLE.end + 8, 5);
        memory.set_word(MEMORY_HOLE.start, 6);
        assert_eq!((memory.word(MEMORY_HOLE.end + 8), memory.word(MEMORY_HOLE.start)), (5, 0));
    }

    #[test]
    fn a_diff_has_the_pages_that_were_written_since_and_keeps_them_when_it_fails() {
        let memory = memory(1, true);
        memory.set_word(3 * 4096, 1);
        let read_only = File::open("/dev/null").unwrap();
        assert!(memory.dump_dirty(&read_only, Room::Enough).is_err());
        let dirty = memory.regions[0].dirty.as_ref().unwrap();
        assert_eq!(runs(&dirty.take()).first(), Some(&(3 * 4096..4 * 4096)));
        assert!(runs(&dirty.take()).is_empty());
    }

    #[test]
    fn a_balloon_takes_the_top_of_the_memory() {
        let memory = memory(2, false);
        memory.set_word((2 << 20) - 8, 7);
        memory.set_word((1 << 20) - 8, 8);
        memory.inflate(0, 1 << 20).unwrap();
        assert_eq!((memory.word((2 << 20) - 8), memory.word((1 << 20) - 8)), (0, 8));
    }
}
