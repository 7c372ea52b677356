//! Page faults of a process that are served by another one (userfaultfd): the server's half, and the half of whoever
//! has the memory. Which page holds what is for others to know.

use super::mapping::{FileMapping, Mapping};
use super::{checked, checked_len};
use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A userfaultfd on which nothing waits: what cannot be done now is `WouldBlock`.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

/// What has happened to the memory.
#[derive(Debug)]
pub enum Event {
    /// A thread waits for the page at `address`.
    Fault {
        /// Where; it need not be the beginning of the page.
        address: u64,
        /// Whether it is the page that is missing, and nothing subtler.
        kind: FaultKind,
    },
    /// The owner of the memory gives these addresses back; they read as zeros from now on.
    Remove(Range<u64>),
    /// These addresses are no memory any more.
    Unmap(Range<u64>),
    /// The memory has moved.
    Remap {
        /// From these addresses.
        from: Range<u64>,
        /// To here.
        to: u64,
    },
    /// The process has forked, and this serves the child's memory.
    Fork(Userfault),
    /// One that this library does not know.
    Unknown(u8),
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A page that is not there.
    Missing,
    /// The leave to write, or a mapping of what is there: nobody asked for these to be told.
    Other,
}

/// Why pages were not put in place.
#[derive(Debug)]
pub enum CopyError {
    /// The memory is changing, or what comes next is there already: go on after this many bytes, when the events
    /// that are waiting have been read.
    Again {
        /// How many bytes are in place.
        copied: usize,
    },
    /// There is a page already.
    Exists,
    /// The process, or its memory, is gone.
    Gone,
    /// Anything else.
    Failed(io::Error),
}

/// How many events are taken at once.
pub const BATCH: usize = 16;

impl Userfault {
    /// Serves the faults that `fd` tells of, which may have come from another process.
    ///
    /// # Errors
    /// `InvalidInput` for what is no userfaultfd: its events could name descriptors that are not theirs. Whatever
    /// `/proc` and `fcntl(2)` report.
    pub fn serving(fd: OwnedFd) -> io::Result<Self> {
        // No path has this form, so that no file can pass for one.
        if std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))? != Path::new(KIND) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a userfaultfd"));
        }
        let flags = flags_of(&fd)?;
        // SAFETY: no pointer is passed.
        checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
        Ok(Self(fd))
    }

    /// Makes one for memory of this process, as a VMM does: it tells of removals, and is close-on-exec. Where there is
    /// `/dev/userfaultfd`, whoever may open it needs no other privilege, and whoever may not is refused.
    ///
    /// # Errors
    /// Whatever opening the device reports, and those of [`Userfault::by_system_call`].
    pub fn new() -> io::Result<Self> {
        match File::options().read(true).write(true).open("/dev/userfaultfd") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::by_system_call(),
            opened => {
                let device = opened?;
                // SAFETY: no pointer is passed.
                let fd =
                    unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as libc::Ioctl, FLAGS) };
                Self::of_new(fd)
            }
        }
    }

    /// The same by the system call, whether there is a device or not.
    ///
    /// # Errors
    /// `EPERM` without the privilege to have faults of the kernel itself served by a process.
    pub fn by_system_call() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
        Self::of_new(libc::c_int::try_from(fd).unwrap_or(-1))
    }

    /// The descriptor that a call has just made, or -1.
    fn of_new(fd: libc::c_int) -> io::Result<Self> {
        let fd = checked(fd)?;
        // SAFETY: the caller's call has just made `fd`, and nobody else owns it.
        let made = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        made.control(UFFDIO_API, &mut Api { api: API, features: FEATURE_EVENT_REMOVE, calls: 0 })?;
        Ok(made)
    }

    /// Has the missing pages of `mapping` served.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn register(&self, mapping: &Mapping) -> io::Result<()> {
        let range = Span::of(&(mapping.address()..mapping.address() + mapping.size() as u64));
        self.control(UFFDIO_REGISTER, &mut Registration { range, mode: REGISTER_MISSING, calls: 0 })
    }

    /// Adds the events that are waiting to `events`, at most [`BATCH`] of them and `most`. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there are none, and `InvalidData` when somebody who shares the descriptor has taken its
    /// `O_NONBLOCK` away: then it looks as if there were events all the time.
    pub fn read(&self, most: usize, events: &mut Vec<Event>) -> io::Result<()> {
        let mut messages = [MaybeUninit::<Message>::uninit(); BATCH];
        let room = most.min(BATCH) * size_of::<Message>();
        let data = libc::iovec { iov_base: messages.as_mut_ptr().cast(), iov_len: room };
        let length = loop {
            match self.read_now(&data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.waits()? => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it was made to wait"));
                }
                read => break read?,
            }
        };
        let whole = messages.iter().take(length / size_of::<Message>());
        // SAFETY: the kernel has written as many whole messages, for which any bytes are a value.
        events.extend(whole.map(|message| unsafe { message.assume_init() }.event()));
        Ok(())
    }

    /// Does not wait, whatever the descriptor's flags say; before Linux 6.10 it may.
    fn read_now(&self, data: &libc::iovec) -> io::Result<usize> {
        let (fd, flags) = (self.0.as_raw_fd(), libc::RWF_NOWAIT);
        // SAFETY: `data` says where the caller has writable bytes, and how many.
        match checked_len(unsafe { libc::preadv2(fd, std::ptr::from_ref(data), 1, -1, flags) }) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                // SAFETY: as above.
                checked_len(unsafe { libc::readv(fd, std::ptr::from_ref(data), 1) })
            }
            read => read,
        }
    }

    fn waits(&self) -> io::Result<bool> {
        flags_of(&self.0).map(|flags| flags & libc::O_NONBLOCK == 0)
    }

    /// Puts pages in place that hold `source`, from the address `destination` on, and wakes those who wait for them.
    /// Address and length are multiples of the page's size. Says how many bytes that were: all.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn copy(&self, destination: u64, source: &[u8]) -> Result<usize, CopyError> {
        self.copy_from(destination, source.as_ptr().addr() as u64, source.len() as u64)
    }

    /// The same with what stands at `offsets` of a file.
    ///
    /// # Errors
    /// See [`CopyError`]; `EFAULT` when the file ends before, or cannot be read there.
    pub fn copy_from_file(
        &self,
        destination: u64,
        file: &FileMapping,
        offsets: &Range<u64>,
    ) -> Result<usize, CopyError> {
        let Some(source) = file.address_of(offsets) else {
            return Err(CopyError::Failed(io::Error::from_raw_os_error(libc::EFAULT)));
        };
        self.copy_from(destination, source, offsets.end - offsets.start)
    }

    fn copy_from(&self, destination: u64, source: u64, length: u64) -> Result<usize, CopyError> {
        let mut order = Copy { destination, source, length, mode: 0, copied: 0 };
        // The kernel fills pages that are missing from memory that was registered, and touches no other: a
        // `Mapping` of this process, which promises nothing about its content, or memory of another one.
        let copied = self.control(UFFDIO_COPY, &mut order);
        copied
            .map(|()| usize::try_from(length).unwrap_or(usize::MAX))
            .map_err(|error| outcome(error, order.copied))
    }

    /// Puts pages of zeros in place. Huge pages cannot be had this way.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn zero(&self, addresses: &Range<u64>) -> Result<(), CopyError> {
        let mut order = Zero { range: Span::of(addresses), mode: 0, zeroed: 0 };
        self.control(UFFDIO_ZEROPAGE, &mut order).map_err(|error| outcome(error, order.zeroed))
    }

    /// Wakes those who wait for pages that are there already.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn wake(&self, addresses: &Range<u64>) -> io::Result<()> {
        self.control(UFFDIO_WAKE, &mut Span::of(addresses))
    }

    fn control<T>(&self, request: u32, order: &mut T) -> io::Result<()> {
        // SAFETY: every request is passed with its own structure, which is writable, as long as the number says, and
        // outlives the call. What it points to is readable for the length that stands beside the pointer.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(order)) })
            .map(drop)
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn flags_of(fd: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: no pointer is passed.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}

/// The kernel says a negative error, or how many bytes it came to. Some versions say nothing when they did not begin.
fn outcome(error: io::Error, done: i64) -> CopyError {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => CopyError::Again { copied: usize::try_from(done).unwrap_or_default() },
        Some(libc::EEXIST) => CopyError::Exists,
        // ENOSPC is what ESRCH was before Linux 4.13.
        Some(libc::ENOENT | libc::ESRCH | libc::ENOSPC) => CopyError::Gone,
        _ => CopyError::Failed(error),
    }
}

/// `struct uffd_msg`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    words: [u64; 3],
}

impl Message {
    fn event(self) -> Event {
        let [first, second, third] = self.words;
        match self.event {
            EVENT_PAGEFAULT => {
                let kind = if first & !FLAG_WRITE == 0 { FaultKind::Missing } else { FaultKind::Other };
                Event::Fault { address: second, kind }
            }
            EVENT_FORK => {
                #[expect(clippy::cast_possible_truncation, reason = "a descriptor in the word's first half")]
                let fd = (first as u32).cast_signed();
                // SAFETY: it is the kernel's message, for nothing else is read than a userfaultfd; reading it has just
                // made this descriptor, and nobody else owns it.
                Event::Fork(Userfault(unsafe { OwnedFd::from_raw_fd(fd) }))
            }
            EVENT_REMAP => Event::Remap { from: first..first.saturating_add(third), to: second },
            EVENT_REMOVE => Event::Remove(first..second),
            EVENT_UNMAP => Event::Unmap(first..second),
            unknown => Event::Unknown(unknown),
        }
    }
}

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    calls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct Span {
    start: u64,
    length: u64,
}

impl Span {
    fn of(addresses: &Range<u64>) -> Self {
        Self { start: addresses.start, length: addresses.end.saturating_sub(addresses.start) }
    }
}

/// `struct uffdio_register`.
#[repr(C)]
struct Registration {
    range: Span,
    mode: u64,
    calls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    destination: u64,
    source: u64,
    length: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct Zero {
    range: Span,
    mode: u64,
    zeroed: i64,
}

/// What `/proc` calls a userfaultfd.
const KIND: &str = "anon_inode:[userfaultfd]";
const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;
const API: u64 = 0xAA;
const FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const REGISTER_MISSING: u64 = 1;
const FLAG_WRITE: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
const USERFAULTFD_IOC_NEW: u32 = 0xAA00;
const UFFDIO_API: u32 = 0xC018_AA3F;
const UFFDIO_REGISTER: u32 = 0xC020_AA00;
const UFFDIO_WAKE: u32 = 0x8010_AA02;
const UFFDIO_COPY: u32 = 0xC028_AA03;
const UFFDIO_ZEROPAGE: u32 = 0xC020_AA04;
const _: () = assert!(size_of::<Message>() == 32 && size_of::<Api>() == 0x18 && size_of::<Span>() == 0x10);
const _: () = assert!(size_of::<Registration>() == 0x20 && size_of::<Copy>() == 0x28);
const _: () = assert!(size_of::<Zero>() == 0x20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::deadline::Deadline;
    use crate::sys::mapping::PageSize;
    use crate::sys::poll::{self, Interest};
    use std::io::Write;
    use std::time::Duration;

    /// The next event; the test fails when none comes.
    fn next(faults: &Userfault) -> Event {
        let soon = Deadline::after(Duration::from_secs(10));
        assert_eq!(poll::wait([Interest::Readable(faults.as_fd())], soon).unwrap(), [true]);
        let mut events = Vec::new();
        faults.read(1, &mut events).unwrap();
        events.pop().unwrap()
    }

    #[test]
    fn a_page_that_is_touched_is_asked_for_and_one_that_is_removed_is_told() {
        let Ok(faults) = Userfault::new() else {
            let _told = writeln!(io::stderr(), "skipped: this user may not have page faults served");
            return;
        };
        let memory = Mapping::new(4 * 4096, PageSize::Small).unwrap();
        faults.register(&memory).unwrap();
        std::thread::scope(|scope| {
            let touching = scope.spawn(|| memory.byte(2 * 4096 + 17));
            let Event::Fault { address, kind: FaultKind::Missing } = next(&faults) else {
                panic!("no fault")
            };
            assert_eq!(address & !4095, memory.address() + 2 * 4096);
            assert_eq!(faults.copy(address & !4095, &[7; 4096]).unwrap(), 4096);
            assert_eq!(touching.join().unwrap(), 7);
        });
        let first = memory.address()..memory.address() + 4096;
        faults.zero(&first).unwrap();
        assert!(matches!(faults.zero(&first), Err(CopyError::Exists)));
        assert!(matches!(
            faults.copy(memory.address() + 4096, &[3; 8192]),
            Err(CopyError::Again { copied: 4096 })
        ));
        std::thread::scope(|scope| {
            let discarding = scope.spawn(|| memory.discard(&(4096..8192)));
            let soon = Deadline::after(Duration::from_secs(10));
            assert_eq!(poll::wait([Interest::Readable(faults.as_fd())], soon).unwrap(), [true]);
            // As long as the event is unread nothing is put in place.
            assert!(matches!(
                faults.copy(memory.address() + 3 * 4096, &[3; 4096]),
                Err(CopyError::Again { copied: 0 })
            ));
            let Event::Remove(addresses) = next(&faults) else { panic!("no removal") };
            assert_eq!(addresses, memory.address() + 4096..memory.address() + 8192);
            discarding.join().unwrap().unwrap();
        });
        assert!(matches!(faults.copy(0x1000, &[0; 4096]), Err(CopyError::Gone)));
    }
}
