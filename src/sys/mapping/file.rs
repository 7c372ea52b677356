//! Memory and files: what a file holds as memory of one's own, and memory written to a file without a copy in between.

use super::{Mapping, PageSize};
use crate::sys::{checked, checked_len, mask};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

impl Mapping {
    /// The same as [`Mapping::new`], but huge pages are not set aside either: SIGBUS meets who touches one too many.
    ///
    /// # Errors
    /// Whatever `mmap(2)` reports.
    pub fn unreserved(size: usize, pages: PageSize) -> io::Result<Self> {
        let huge = match pages {
            PageSize::Small => 0,
            PageSize::Huge => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
        };
        Self::map(size, libc::MAP_ANONYMOUS | huge, -1, 0)
    }

    /// Maps `size` bytes of `file` from `offset` on, private: what is written here does not come into the file. The
    /// file must be as long, and stay so, or SIGBUS meets who reads past its end.
    ///
    /// # Errors
    /// Whatever `mmap(2)` reports.
    pub fn of_file(file: &File, offset: u64, size: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::map(size, 0, file.as_raw_fd(), offset)
    }

    fn map(size: usize, kind: libc::c_int, fd: RawFd, offset: libc::off_t) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | kind;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping is asked for, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, fd, offset) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, size }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Has whole pages read as zeros from now on, whatever was below them.
    ///
    /// # Errors
    /// `EINVAL` when the offsets are not those of pages in it.
    pub fn replace_by_zeros(&self, offsets: &Range<usize>) -> io::Result<()> {
        let start = self.inside(offsets)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the offsets lie in the mapping, to whose content no reference is ever given out; the new pages go
        // with it when it is unmapped.
        let mapped = unsafe { libc::mmap(start.as_ptr().cast(), offsets.len(), access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has nobody reach whole pages any more: SIGSEGV meets who does.
    ///
    /// # Errors
    /// `EINVAL` when the offsets are not those of pages in it.
    pub fn protect(&self, offsets: &Range<usize>) -> io::Result<()> {
        let start = self.inside(offsets)?;
        // SAFETY: the offsets lie in the mapping, to whose content no reference is ever given out.
        checked(unsafe { libc::mprotect(start.as_ptr().cast(), offsets.len(), libc::PROT_NONE) }).map(drop)
    }

    /// Writes the memory at `offsets` into `file`, at `position`.
    ///
    /// # Errors
    /// `EINVAL` when the offsets do not lie in it, and whatever writing reports.
    pub fn write_to(&self, offsets: &Range<usize>, file: &File, position: u64) -> io::Result<()> {
        self.inside(offsets)?;
        let mut done = 0;
        while done < offsets.len() {
            let start = self.inside(&(offsets.start + done..offsets.end))?;
            let position =
                libc::off_t::try_from(position + done as u64).map_err(|_| io::ErrorKind::InvalidInput)?;
            let write = || {
                // SAFETY: the kernel reads within the mapping, which lives as long as `self`.
                checked_len(unsafe {
                    libc::pwrite(file.as_raw_fd(), start.as_ptr().cast(), offsets.len() - done, position)
                })
            };
            match mask::without_sigxfsz(write) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads `file` from `position` on into the memory at `offsets`. Unlike a write by hand, what cannot be had as memory
    /// is an error here and not SIGBUS.
    ///
    /// # Errors
    /// `EINVAL` when the offsets do not lie in it, `EFAULT` when there is no page left, `UnexpectedEof` when the file ends
    /// before, and whatever reading reports.
    pub fn read_from(&self, offsets: &Range<usize>, file: &File, position: u64) -> io::Result<()> {
        self.inside(offsets)?;
        let mut done = 0;
        while done < offsets.len() {
            let start = self.inside(&(offsets.start + done..offsets.end))?;
            let position =
                libc::off_t::try_from(position + done as u64).map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: the kernel writes within the mapping, which lives as long as `self` and to which no reference is
            // ever given out.
            let read = unsafe {
                libc::pread(file.as_raw_fd(), start.as_ptr().cast(), offsets.len() - done, position)
            };
            match checked_len(read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Which of its 4 KiB pages are in memory (`mincore(2)`): those that were touched, and of a file also those that
    /// somebody else has read.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn resident(&self) -> io::Result<Vec<bool>> {
        let mut pages = vec![0u8; self.size.div_ceil(PageSize::Small.bytes())];
        // SAFETY: `pages` has a byte for each page of the mapping.
        checked(unsafe { libc::mincore(self.start.as_ptr().cast(), self.size, pages.as_mut_ptr().cast()) })?;
        Ok(pages.into_iter().map(|page| page & 1 == 1).collect())
    }

    fn inside(&self, offsets: &Range<usize>) -> io::Result<NonNull<u8>> {
        if offsets.start > offsets.end || offsets.end > self.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the offset lies in the mapping, or is its end.
        Ok(unsafe { self.start.add(offsets.start) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::sys::deadline::Deadline;
    use crate::sys::mapping::FileMapping;
    use std::time::Duration;

    #[test]
    fn a_files_bytes_are_read_and_written_elsewhere_and_the_file_stays_as_it_was() {
        let path = Scratch::new();
        crate::sys::file::replace(&path, &[7; 3 * 4096]).unwrap();
        let memory = Mapping::of_file(&File::open(&path).unwrap(), 4096, 2 * 4096).unwrap();
        memory.write_byte(5, 9);
        memory.replace_by_zeros(&(4096..8192)).unwrap();
        assert_eq!((memory.byte(0), memory.byte(5), memory.byte(4096)), (7, 9, 0));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 3 * 4096]);
        let file = File::options().write(true).open(&path).unwrap();
        memory.write_to(&(4..8192), &file, 1).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[..4], [7, 7, 9, 7]);
        assert_eq!(bytes[4093..4095], [0, 0]);
        assert!(memory.write_to(&(0..8193), &file, 0).is_err());
        memory.read_from(&(8000..8100), &File::open(&path).unwrap(), 0).unwrap();
        assert_eq!((memory.byte(7999), memory.byte(8000), memory.byte(8002)), (0, 7, 9));
        assert!(memory.read_from(&(0..4096), &File::open(&path).unwrap(), 3 * 4096 - 1).is_err());
    }

    #[test]
    fn what_is_needed_comes_into_memory() {
        let path = Scratch::new();
        crate::sys::file::replace(&path, &[7; 64 * 4096]).unwrap();
        let file = File::open(&path).unwrap();
        let mapping = FileMapping::new(&file, 64 * 4096).unwrap();
        assert!(mapping.is_resident(5 * 4096 + 17) && mapping.is_resident(u64::MAX));
        file.sync_all().unwrap();
        // SAFETY: no pointer is passed.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        // What has no disk below it stays in memory.
        mapping.will_need(&(4096..3 * 4096));
        let deadline = Deadline::after(Duration::from_secs(10));
        while !(mapping.is_resident(4096) && mapping.is_resident(2 * 4096)) {
            assert!(!deadline.has_passed());
            std::thread::yield_now();
        }
        mapping.will_need(&(0..u64::MAX));
    }

    #[test]
    fn what_was_touched_is_resident() {
        let memory = Mapping::new(4 * 4096, PageSize::Small).unwrap();
        memory.write_byte(2 * 4096, 1);
        assert_eq!(memory.resident().unwrap(), [false, false, true, false]);
    }
}
