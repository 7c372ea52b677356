//! Directories that came with a lower layer of overlayfs, as in an image: the kernel renames none of them, so they are
//! removed where they stand, and copied instead of renamed.

use super::{PATIENCE, clear};
use crate::host::{DiskError, disk};
use crate::journal::{self, Record, Stage, aside, journal_file};
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::directory::Directory;
use crate::sys::{file, removal};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

/// Removes the directory of a VM where it stands. It is made one whose creation was under way first: whoever finds it half
/// removed undoes it.
pub(super) fn remove(path: &Path, deadline: Deadline) -> io::Result<()> {
    let journal = journal_file(path);
    if let Ok(mut record) = journal::read::<Record>(&journal) {
        (record.stage, record.vmm) = (Stage::Creating, None);
        journal::write(&journal, &record).map_err(io::Error::other)?;
    }
    removal::empty(&Directory::open(path)?, journal.file_name(), deadline)?;
    removal::remove_all(path, deadline)
}

/// Lets the directory of a VM without a VMM be called `to`: a copy of it, which comes whole, takes its place.
pub(super) fn rename(from: &Path, to: &Path, limits: Limits<'_>) -> io::Result<()> {
    /// What the library makes has two levels.
    const LEVELS: usize = 8;
    let aside = aside::making_of(to);
    clear(&aside, &[], limits.deadline)?;
    let copied = copy(from, &aside, LEVELS, limits).and_then(|()| file::rename_to_new(&aside, to));
    copied.inspect_err(|_| drop(clear(&aside, &[], Deadline::after(PATIENCE))))?;
    remove(from, limits.deadline)
}

/// Files, links and directories; what else a VMM has left there is of no use any more.
fn copy(from: &Path, to: &Path, levels: usize, limits: Limits<'_>) -> io::Result<()> {
    let levels = levels.checked_sub(1).ok_or_else(|| {
        io::Error::other(format!("{} lies deeper than anything that the library makes", from.display()))
    })?;
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        let kind = entry.symlink_metadata()?.file_type();
        if kind.is_dir() {
            copy(&entry, &to, levels, limits)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&entry)?, &to)?;
        } else if kind.is_file() {
            disk::copy(&entry, &to, limits).map_err(why)?;
        }
    }
    Ok(())
}

fn why(error: DiskError) -> io::Error {
    match error {
        DiskError::TimeIsUp { .. } => io::ErrorKind::TimedOut.into(),
        other => io::Error::other(other),
    }
}
