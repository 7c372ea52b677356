//! What std does not offer on files and their descriptors: keeping clear of 0, 1 and 2, replacing a file at once,
//! and a rename that replaces nothing.

use super::mask;
use rustix::fs::{CWD, IFlags, MemfdFlags, RenameFlags};
use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A descriptor of the same file that is above 2, close-on-exec.
///
/// A host may run with 0–2 closed, and then its next `open` lands there; such a descriptor handed to a child
/// would be overwritten by another one on its way in.
///
/// # Errors
/// When no descriptor is left.
pub fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate_above_stdio(std::os::fd::AsFd::as_fd(&fd)) }
}

/// A duplicate above 2, close-on-exec.
///
/// # Errors
/// When no descriptor is left, or `fd` is not open.
pub fn duplicate_above_stdio(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// The same for a descriptor that came in as a number from outside.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn duplicate_number(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: `fd` is not -1; the borrow lasts for one fcntl, which answers EBADF when nothing is open there.
    duplicate_above_stdio(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Opens a plain file, and nothing else: a link is not followed, a FIFO not waited for, a device not touched. Who may
/// write into a directory may be a VMM that its guest has taken over.
///
/// # Errors
/// Whatever opening reports, and `InvalidInput` for what is no plain file.
pub fn open_plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
}

/// A file that no directory holds, and that goes with the last descriptor of it. `name` is for people who look into /proc.
///
/// # Errors
/// When no descriptor is left.
pub fn in_memory(name: &CStr) -> io::Result<File> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(above_stdio(fd)?.into())
}

/// Opens what `path` leads to as a place alone: nothing can be read, and nothing is waited for.
///
/// # Errors
/// Whatever opening reports.
pub fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

/// Which file it is, by whatever name: its device and its inode.
pub fn identity(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// The number of a device as the kernel writes it: `major:minor`.
pub fn device_name(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// The names of what stands in the directory at `path`, in order.
///
/// # Errors
/// Whatever the file system reports.
pub fn names_in(path: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Replaces the file at `path` by one that holds `bytes`, at once: written aside and renamed. Nothing is synced to
/// the disk, so after a power loss the file may be the old one, the new one, or empty.
///
/// The two files change places, and then the old one is removed: ext4 takes a rename onto a file for a wish to have
/// the new one on the disk soon, which costs four times as much.
///
/// # Errors
/// Whatever the file system reports; the file is then as it was, and nothing is left aside.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(ASIDE);
    let aside = Path::new(&aside);
    let written = create_anew(aside).and_then(|mut file| mask::without_sigxfsz(|| file.write_all(bytes)));
    written.and_then(|()| change_places(aside, path)).inspect_err(|_| drop(std::fs::remove_file(aside)))
}

/// Makes an empty file, for its owner alone; one that a caller who was killed has left there goes.
///
/// # Errors
/// Whatever the file system reports.
pub fn create_anew(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// Lets the files at `new` and `old` change places; where there is no old one, the new one takes its place.
///
/// # Errors
/// Whatever the file system reports.
pub fn exchange_or_rename(new: &Path, old: &Path) -> io::Result<()> {
    rename(new, old, RenameFlags::EXCHANGE).or_else(|_| std::fs::rename(new, old))
}

fn change_places(new: &Path, old: &Path) -> io::Result<()> {
    match exchange(new, old) {
        // It is done, and what is left of the old one harms nobody.
        Ok(()) => {
            let _removed = std::fs::remove_file(new);
            Ok(())
        }
        // There is no old one, or the file system cannot do it.
        Err(_) => std::fs::rename(new, old),
    }
}

/// What [`replace`] adds to the name of the file that it writes aside.
pub const ASIDE: &str = ".new";

/// Tells the file system that the subdirectories of `directory` have nothing to do with each other, as those of /home, so
/// that it spreads them over the disk.
///
/// Ext4 does not give the number of a file that was removed to another one for a minute or more, and with each new file
/// looks at all such numbers in the same part of the disk: where directories come and go by the hundred, that takes longer
/// than all the rest.
///
/// # Errors
/// Whatever the file system reports; most know no such thing.
pub fn spread_subdirectories(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    let flags = rustix::fs::ioctl_getflags(&directory)?;
    Ok(rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
}

/// Renames `from` to `to`, which must not be there.
///
/// # Errors
/// `AlreadyExists` when it is.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    rename(from, to, RenameFlags::NOREPLACE)
}

/// Lets what stands at the two paths change places, at once.
///
/// # Errors
/// `NotFound` when one of them is not there, `InvalidInput` where the file system cannot do it.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rename(one, other, RenameFlags::EXCHANGE)
}

fn rename(from: &Path, to: &Path, how: RenameFlags) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, how)?)
}

/// The path as C takes it.
///
/// # Errors
/// `InvalidInput` for one with a NUL inside.
pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
