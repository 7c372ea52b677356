//! A directory that is held open: what stands in it is reached by a single name, whatever happens to the path that led
//! there. No link is followed.

use super::file::{c_path, identity};
use super::mount::Tree;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// A directory, held open.
#[derive(Debug)]
pub struct Directory(File);

/// What a name in a directory stands for, as far as the directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else: a file, a link, a socket…
    Other,
    /// The file system does not say.
    Unknown,
}

/// The names in a directory, piece by piece.
#[derive(Debug)]
pub struct Names {
    buffer: Vec<u8>,
}

const READING: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Directory {
    /// Opens the directory at `path`. The last part of the path must not be a link.
    ///
    /// # Errors
    /// Whatever opening reports: `ELOOP` or `NotADirectory` for a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(rustix::fs::CWD, &c_path(path)?, READING, Mode::empty())?;
        Ok(Self(fd.into()))
    }

    /// The root directory of a mount.
    ///
    /// # Errors
    /// Whatever opening reports.
    pub fn of(tree: &Tree) -> io::Result<Self> {
        let fd = rustix::fs::openat(tree, c".", READING, Mode::empty())?;
        Ok(Self(fd.into()))
    }

    /// Opens the directory called `name` in this one, unless another file system is mounted there.
    ///
    /// # Errors
    /// Whatever opening reports, and `CrossesDevices` for a mount point.
    pub fn open_directory(&self, name: &OsStr) -> io::Result<Self> {
        let name = single(name)?;
        match self.open_without_crossing(&name) {
            // Older kernels (before 5.6) and some sandboxes do not have the call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            opened => return opened,
        }
        let child = self.enter(OsStr::from_bytes(name.as_bytes()))?;
        match child.metadata()?.dev() == self.metadata()?.dev() {
            true => Ok(child),
            false => Err(io::ErrorKind::CrossesDevices.into()),
        }
    }

    /// Opens the directory called `name` in this one, whatever is mounted there.
    ///
    /// # Errors
    /// Whatever opening reports: `ELOOP` or `NotADirectory` for a link.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        self.open_at(&single(name)?, READING).map(|fd| Self(fd.into()))
    }

    /// Opens the directory at `path` below this one. No part of the path may be a link, or lead upwards.
    ///
    /// # Errors
    /// Whatever opening reports, and `InvalidInput` for a path that is not below.
    pub fn open_below(&self, path: &Path) -> io::Result<Self> {
        let mut directory = Self(self.0.try_clone()?);
        for part in path.components() {
            match part {
                Component::Normal(name) => directory = directory.open_directory(name)?,
                Component::CurDir => {}
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(directory)
    }

    /// Opens the plain file called `name`, with the flags of `open(2)`; one that is made is its owner's alone. A FIFO is
    /// not waited for.
    ///
    /// # Errors
    /// Whatever opening reports, `ELOOP` for a link, and `InvalidInput` for what is no plain file.
    pub fn open_file(&self, name: &OsStr, flags: libc::c_int) -> io::Result<File> {
        let own = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()) | own;
        let file = File::from(self.open_at(&single(name)?, flags)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        }
    }

    /// Makes the directory called `name`, for its owner alone.
    ///
    /// # Errors
    /// Whatever making it reports, `AlreadyExists` for anything that has the name.
    pub fn make_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, &single(name)?, Mode::RWXU)?)
    }

    /// Removes what is called `name` and is no directory.
    ///
    /// # Errors
    /// Whatever removing it reports: `IsADirectory` for a directory, and on some file systems `EPERM`.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        self.unlink(name, AtFlags::empty())
    }

    /// Removes the empty directory called `name`.
    ///
    /// # Errors
    /// Whatever removing it reports: `DirectoryNotEmpty`, `NotADirectory`, `ResourceBusy` for a mount point.
    pub fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        self.unlink(name, AtFlags::REMOVEDIR)
    }

    /// Gives what is called `name` the name `new` in the directory `other`.
    ///
    /// # Errors
    /// Whatever renaming reports.
    pub fn rename(&self, name: &OsStr, other: &Self, new: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, &single(name)?, &other.0, &single(new)?)?)
    }

    /// Lets its owner list, change and enter it, whoever may not so far.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn make_usable(&self) -> io::Result<()> {
        const ALL: u32 = 0o700;
        let mode = self.metadata()?.mode();
        if mode & ALL == ALL { Ok(()) } else { self.0.set_permissions(Permissions::from_mode(ALL)) }
    }

    /// The same for the directory called `name`, which cannot be opened as it is.
    ///
    /// # Errors
    /// When it is somebody else's, or no directory.
    pub fn make_child_usable(&self, name: &OsStr) -> io::Result<()> {
        let child = self.open_at(&single(name)?, READING | OFlags::PATH)?;
        let path = format!("/proc/self/fd/{}", child.as_raw_fd());
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
    }

    /// Lets everybody go through the directory called `name`, whatever stands in it.
    ///
    /// # Errors
    /// When it is somebody else's, or no directory.
    pub fn let_pass(&self, name: &OsStr) -> io::Result<()> {
        self.enter(name)?.0.set_permissions(Permissions::from_mode(0o755))
    }

    /// Makes a node called `name` for the same device as `device` is one for. It is this process's, and `group`'s with
    /// `mode`, whatever the umask is.
    ///
    /// # Errors
    /// `EPERM` without `CAP_MKNOD` or `CAP_CHOWN`, `AlreadyExists` for anything that has the name, and `InvalidInput` when
    /// another thing has it right afterwards.
    pub fn make_node(&self, name: &OsStr, device: &Metadata, (group, mode): (u32, u32)) -> io::Result<()> {
        let kind = if device.file_type().is_block_device() {
            FileType::BlockDevice
        } else {
            FileType::CharacterDevice
        };
        let name = single(name)?;
        rustix::fs::mknodat(&self.0, &name, kind, Mode::empty(), device.rdev())?;
        // Whoever may change this directory may have put another thing there.
        let node = File::from(self.open_at(&name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?);
        let made = node.metadata()?;
        let is_one = made.rdev() == device.rdev() && made.file_type() == device.file_type();
        if !is_one || made.nlink() != 1 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        std::os::unix::fs::chown(&path, None, Some(group))?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// Whatever `fstat(2)` reports.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Whether `path` leads to it.
    pub fn is_at(&self, path: &Path) -> bool {
        let is_it =
            |own: &Metadata| std::fs::metadata(path).is_ok_and(|there| identity(&there) == identity(own));
        self.metadata().as_ref().is_ok_and(is_it)
    }

    /// Begins to list it from the start.
    ///
    /// # Errors
    /// Whatever `lseek(2)` reports.
    pub fn rewind(&self) -> io::Result<()> {
        io::Seek::rewind(&mut &self.0)
    }

    /// Where `name` stands in it, as long as it is held, whatever happens to its path.
    pub fn place_of(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }

    fn open_without_crossing(&self, name: &CStr) -> io::Result<Self> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        Ok(Self(rustix::fs::openat2(&self.0, name, READING, Mode::empty(), resolve)?.into()))
    }

    /// What is made by that is its owner's alone.
    fn open_at(&self, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn unlink(&self, name: &OsStr, flags: AtFlags) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, &single(name)?, flags)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Names {
    /// With room for a few hundred names at once.
    pub fn new() -> Self {
        Self { buffer: vec![0; 32 << 10] }
    }

    /// Some more names in `directory`; none at the end.
    ///
    /// # Errors
    /// Whatever `getdents(2)` reports.
    pub fn next_of(&mut self, directory: &Directory) -> io::Result<Vec<(OsString, Kind)>> {
        loop {
            let read = self.read(directory)?;
            let names = parse(self.buffer.get(..read).unwrap_or_default());
            // A signal cuts the answer short, perhaps after "." and "..".
            if read == 0 || !names.is_empty() {
                return Ok(names);
            }
        }
    }

    fn read(&mut self, directory: &Directory) -> io::Result<usize> {
        let (fd, buffer) = (directory.0.as_raw_fd(), &mut self.buffer);
        loop {
            // SAFETY: the kernel writes at most as many bytes as the buffer has.
            let read = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
            match usize::try_from(read).map_err(|_| io::Error::last_os_error()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// Records of `getdents64`: a number and an offset of eight bytes, the record's length, a kind, and the name.
fn parse(mut records: &[u8]) -> Vec<(OsString, Kind)> {
    const LENGTH: usize = 16;
    const KIND: usize = 18;
    const NAME: usize = 19;
    let mut names = Vec::new();
    while let Some((&[low, high], Some(&kind))) =
        records.get(LENGTH..LENGTH + 2).and_then(|two| two.first_chunk()).map(|two| (two, records.get(KIND)))
    {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some((record, rest)) = records.split_at_checked(length).filter(|_| length > NAME) else { break };
        records = rest;
        let name = record[NAME..].split(|byte| *byte == 0).next().unwrap_or_default();
        let kind = match kind {
            libc::DT_DIR => Kind::Directory,
            libc::DT_UNKNOWN => Kind::Unknown,
            _ => Kind::Other,
        };
        if !matches!(name, b"" | b"." | b"..") {
            names.push((OsString::from_vec(name.to_vec()), kind));
        }
    }
    names
}

/// A name without a part before or behind it.
fn single(name: &OsStr) -> io::Result<CString> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(io::ErrorKind::InvalidInput.into()),
        bytes if bytes.contains(&b'/') => Err(io::ErrorKind::InvalidInput.into()),
        _ => c_path(Path::new(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// As when a signal comes after each name, "." and ".." included.
    #[test]
    fn an_answer_that_was_cut_short_is_not_taken_for_the_end() {
        let scratch = Scratch::new();
        std::fs::create_dir(&scratch).unwrap();
        let directory = Directory::open(&scratch).unwrap();
        let made = ["one", "other", "third"].map(OsString::from);
        made.iter().for_each(|name| directory.make_directory(name).unwrap());
        let mut names = Names { buffer: vec![0; 32] };
        let next = || names.next_of(&directory).unwrap().pop().map(|(name, _)| name);
        let mut seen = std::iter::from_fn(next).collect::<Vec<_>>();
        seen.sort();
        assert_eq!(seen, made);
    }
}
