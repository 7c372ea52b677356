//! Directories and files to which something happens, told by the kernel. Only for what may take its time: closing one waits
//! for a grace period of the kernel, some milliseconds.

use crate::sorted::SortedMap;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Watched directories; readable when something has happened in one of them.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

/// What is to be told of a directory, or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A name has come into the directory.
    Arrival,
    /// The file, or one in the directory, was written to.
    Writing,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    /// What was to be told.
    At(Watch),
    /// What was watched is gone, and the watch with it.
    Gone(Watch),
    /// More than the kernel has kept.
    MoreThanWasKept,
}

/// One watched directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch(i32);

impl Inotify {
    /// Makes an empty set, close-on-exec.
    ///
    /// # Errors
    /// When no descriptor is left, or the user's limit of instances is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }

    /// Watches the directory or file at `path`; the watch goes when it does.
    ///
    /// # Errors
    /// When it is not there, or the user's limit of watches is reached.
    pub fn watch(&self, path: &Path, happening: Happening) -> io::Result<Watch> {
        let mask = match happening {
            Happening::Arrival => WatchFlags::MOVED_TO | WatchFlags::CREATE,
            Happening::Writing => WatchFlags::MODIFY,
        };
        Ok(Watch(inotify::add_watch(&self.0, path, mask)?))
    }

    /// Takes what has happened so far, each thing once.
    ///
    /// # Errors
    /// Whatever `read(2)` reports, except that nothing has happened.
    pub fn happenings(&self) -> io::Result<Vec<Happened>> {
        let mut happened = SortedMap::new();
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                // The latter is how an end of file is told, which there is none of.
                Err(Errno::AGAIN | Errno::INVAL) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let flags = event.events();
            let what = if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                Happened::MoreThanWasKept
            } else if flags.contains(ReadFlags::IGNORED) {
                Happened::Gone(Watch(event.wd()))
            } else {
                Happened::At(Watch(event.wd()))
            };
            happened.insert(what, ());
        }
        Ok(happened.into_keys())
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn arrivals_and_writings_are_told_by_directory() {
        let root = Scratch::new();
        std::fs::create_dir(&root).unwrap();
        let inotify = Inotify::new().unwrap();
        let arrivals = inotify.watch(&root, Happening::Arrival).unwrap();
        assert!(inotify.happenings().unwrap().is_empty());
        std::fs::create_dir(root.join("a")).unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::At(arrivals)]);
        let writings = inotify.watch(&root.join("a"), Happening::Writing).unwrap();
        std::fs::write(root.join("a/file"), "text").unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::At(writings)]);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(inotify.happenings().unwrap(), [Happened::Gone(arrivals), Happened::Gone(writings)]);
    }
}
