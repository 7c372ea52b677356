//! Memory that others change too: a guest's, as a VMM has it, files that the kernel copies from, and counters in a
//! file. Nobody gets a slice of any of them; they are reached by atomics, or by the kernel alone.

mod file;

use super::{checked, mask};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Private memory that begins as zeros.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

/// In which units memory is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB, of those that were set aside in `/proc/sys/vm/nr_hugepages`.
    Huge,
}

impl PageSize {
    /// In bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Small => 4096,
            Self::Huge => 2 << 20,
        }
    }
}

impl Mapping {
    /// Maps `size` bytes, a multiple of the pages' size.
    ///
    /// # Errors
    /// `ENOMEM` when there is not as much, of huge pages above all.
    pub fn new(size: usize, pages: PageSize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let flags = flags
            | match pages {
                PageSize::Small => libc::MAP_NORESERVE,
                PageSize::Huge => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping is asked for, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, size }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Where it begins in this process.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The byte at `offset`; past the end it is 0.
    pub fn byte(&self, offset: usize) -> u8 {
        self.at(offset).map_or(0, |byte| byte.load(Ordering::Relaxed))
    }

    /// Changes the byte at `offset`; past the end nothing happens.
    pub fn write_byte(&self, offset: usize, value: u8) {
        if let Some(byte) = self.at(offset) {
            byte.store(value, Ordering::Relaxed);
        }
    }

    /// Fills `buffer` from `offset` on, as far as there is memory.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        for (step, piece) in buffer.chunks_mut(WORD).enumerate() {
            let offset = offset.saturating_add(step * WORD);
            match self.word_at(offset).filter(|_| piece.len() == WORD) {
                Some(word) => piece.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()),
                None => piece.iter_mut().enumerate().for_each(|(at, byte)| *byte = self.byte(offset + at)),
            }
        }
    }

    /// Writes `bytes` from `offset` on, as far as there is memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (step, piece) in bytes.chunks(WORD).enumerate() {
            let offset = offset.saturating_add(step * WORD);
            match (self.word_at(offset), <[u8; WORD]>::try_from(piece)) {
                (Some(word), Ok(value)) => word.store(u64::from_ne_bytes(value), Ordering::Relaxed),
                _ => piece.iter().enumerate().for_each(|(at, byte)| self.write_byte(offset + at, *byte)),
            }
        }
    }

    /// Gives whole pages back (`MADV_DONTNEED`): they read as zeros, or are asked for anew where faults are served.
    /// Then it waits until whoever serves them has taken note.
    ///
    /// # Errors
    /// `EINVAL` when the offsets are not those of pages in it.
    pub fn discard(&self, offsets: &Range<usize>) -> io::Result<()> {
        if offsets.start > offsets.end || offsets.end > self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the offsets lie in the mapping, to whose content no reference is ever given out.
        let start = unsafe { self.start.add(offsets.start) };
        // SAFETY: as above; atomics read zeros, or new content, from now on.
        let advised = unsafe { libc::madvise(start.as_ptr().cast(), offsets.len(), libc::MADV_DONTNEED) };
        checked(advised).map(drop)
    }

    /// Asks the kernel to put all of it into swap; where there is none, nothing happens.
    ///
    /// # Errors
    /// Whatever `madvise(2)` reports.
    pub fn page_out(&self) -> io::Result<()> {
        // SAFETY: it is the whole mapping, whose content stays what it is.
        let advised = unsafe { libc::madvise(self.start.as_ptr().cast(), self.size, libc::MADV_PAGEOUT) };
        checked(advised).map(drop)
    }

    fn at(&self, offset: usize) -> Option<&AtomicU8> {
        if offset >= self.size {
            return None;
        }
        // SAFETY: the offset lies in the mapping, which lives as long as `self`, and all accesses are atomic.
        Some(unsafe { AtomicU8::from_ptr(self.start.add(offset).as_ptr()) })
    }

    fn word_at(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(WORD) || offset.checked_add(WORD)? > self.size {
            return None;
        }
        // SAFETY: the word lies in the mapping, which lives as long as `self`; a mapping begins at a page, so that
        // the word is aligned. Mixed with accesses of bytes it may be torn, and nothing worse.
        Some(unsafe { AtomicU64::from_ptr(self.start.add(offset).as_ptr().cast()) })
    }
}

const WORD: usize = size_of::<u64>();

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`, and every borrow of it has ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

// SAFETY: the memory is owned like that of a box, and reached by atomics and the kernel alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A file that the kernel reads from by address, and this process never: so a file that is cut off meanwhile is an
/// error of the call that met it, and no signal.
#[derive(Debug)]
pub struct FileMapping {
    start: NonNull<u8>,
    size: usize,
}

impl FileMapping {
    /// Maps the first `size` bytes of `file`.
    ///
    /// # Errors
    /// Whatever `mmap(2)` reports.
    pub fn new(file: &File, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: a new mapping is asked for, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, file.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, size }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the page at `offset` is in memory, so that a copy of it waits for no disk. The kernel tells that to who
    /// may write to the file, and says yes to all others.
    pub fn is_resident(&self, offset: u64) -> bool {
        let page = PageSize::Small.bytes() as u64;
        let start = offset / page * page;
        let Some((place, length)) = self.place_of(&(start..start.saturating_add(1))) else { return true };
        let mut is_there = 1_u8;
        // SAFETY: the place is that of a page of the mapping, and `is_there` is the byte for it.
        let asked = unsafe { libc::mincore(place.cast(), length, &raw mut is_there) };
        asked != 0 || is_there & 1 == 1
    }

    /// Has the kernel begin to read what stands at `offsets`, which are those of pages. It is a wish: nothing happens
    /// where it cannot be done.
    pub fn will_need(&self, offsets: &Range<u64>) {
        let Some((place, length)) = self.place_of(offsets) else { return };
        // SAFETY: the place lies in the mapping, whose content this does not change.
        let _wish = unsafe { libc::madvise(place.cast(), length, libc::MADV_WILLNEED) };
    }

    fn place_of(&self, offsets: &Range<u64>) -> Option<(*mut u8, usize)> {
        self.address_of(offsets)?;
        let [start, end] = [offsets.start, offsets.end].map(usize::try_from);
        let (start, end) = (start.ok()?, end.ok()?);
        Some((self.start.as_ptr().wrapping_add(start), end - start))
    }

    /// The address of what stands at `offsets`, for the kernel; nothing when they reach past what is mapped.
    pub(super) fn address_of(&self, offsets: &Range<u64>) -> Option<u64> {
        let is_inside = offsets.start <= offsets.end && offsets.end <= self.size as u64;
        is_inside.then(|| self.start.as_ptr().addr() as u64 + offsets.start)
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`, and nobody but the kernel ever looks into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

// SAFETY: the memory is never looked into from here.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

/// Numbers that this process counts, and shows in a file that others read.
///
/// Who may write to the file may cut it off. So it is the kernel that copies the numbers to where the file is mapped,
/// which then is an error and no SIGBUS; and it is no write, of which those who watch the file would hear.
#[derive(Debug)]
pub struct SharedCounters {
    memory: File,
    counts: NonNull<u8>,
    shown: NonNull<u8>,
    count: usize,
}

impl SharedCounters {
    /// `count` zeros in `file`, whose blocks are had at once: a full disk is an error here and not one later.
    ///
    /// # Errors
    /// Whatever the file system reports.
    pub fn new(file: &File, count: usize) -> io::Result<Self> {
        let size = count * WORD;
        let length = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        file.set_len(0)?;
        mask::without_sigxfsz(|| {
            loop {
                // SAFETY: no pointer is passed.
                match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
                    0 => return Ok(()),
                    libc::EINTR => {}
                    error => return Err(io::Error::from_raw_os_error(error)),
                }
            }
        })?;
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is NUL-terminated.
        let memory = checked(unsafe { libc::memfd_create(c"mvm-counters".as_ptr(), flags) })?;
        // SAFETY: the call above has just made the descriptor, and nobody else owns it.
        let memory = unsafe { File::from_raw_fd(memory) };
        mask::without_sigxfsz(|| memory.set_len(size as u64))?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: no pointer is passed.
        checked(unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        let counts = map_shared(&memory, size)?;
        match map_shared(file, size) {
            Ok(shown) => Ok(Self { memory, counts, shown, count }),
            Err(error) => {
                // SAFETY: the mapping was made above, and nobody has seen it.
                unsafe { libc::munmap(counts.as_ptr().cast(), size) };
                Err(error)
            }
        }
    }

    /// The counter at `index`.
    pub fn at(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.count {
            return None;
        }
        // SAFETY: the word lies in the mapping, is aligned as a page is, and is accessed by atomics alone.
        Some(unsafe { AtomicU64::from_ptr(self.counts.add(index * WORD).as_ptr().cast()) })
    }

    /// Has the file show what has been counted. One that was cut off shows nothing any more.
    pub fn show(&self) {
        let (shown, size) = (self.shown.as_ptr().cast(), self.count * WORD);
        // SAFETY: the kernel writes within the mapping, which lives as long as `self` and is never looked into from
        // here.
        let _nobody_reads_it = unsafe { libc::pread(self.memory.as_raw_fd(), shown, size, 0) };
    }
}

impl Drop for SharedCounters {
    fn drop(&mut self) {
        for mapping in [self.counts, self.shown] {
            // SAFETY: the mapping was made in `new`, and every borrow of it has ended.
            unsafe { libc::munmap(mapping.as_ptr().cast(), self.count * WORD) };
        }
    }
}

// SAFETY: the memory is reached by atomics and the kernel alone.
unsafe impl Send for SharedCounters {}
// SAFETY: as above.
unsafe impl Sync for SharedCounters {}

fn map_shared(file: &File, size: usize) -> io::Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping is asked for, at an address of the kernel's choice.
    let start =
        unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
        Some(start) => Ok(start),
        None => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_until_it_is_discarded() {
        let memory = Mapping::new(3 * 4096, PageSize::Small).unwrap();
        let text = (0..=255).cycle().take(5001).collect::<Vec<u8>>();
        for offset in [0, 1, 8, 4093] {
            memory.write(offset, &text);
            let mut read = vec![0; text.len()];
            memory.read(offset, &mut read);
            assert_eq!(read, text, "at {offset}");
        }
        memory.discard(&(4096..8192)).unwrap();
        assert_eq!((memory.byte(4095), memory.byte(4096), memory.byte(8192)), (text[2], 0, text[4099]));
        memory.write(3 * 4096 - 3, b"past the end");
        assert_eq!((memory.byte(3 * 4096 - 1), memory.byte(3 * 4096)), (b's', 0));
        for offsets in [0..3 * 4096 + 1, 17..4096] {
            assert!(memory.discard(&offsets).is_err(), "{offsets:?}");
        }
    }
}
