//! Copies of whole files that keep their holes, diffs laid over them, and their checksums; disks made from images. Each obeys
//! the limits of its call, and a file that was not finished is removed.
//!
//! Which files, and why, is for the rooms above to know.

mod ext4;
mod image;
mod keeping;

pub(crate) use image::{Check, Finish, Format, Space, Tools, check, make};
pub(crate) use keeping::keep;

use super::error::{DiskError, NotPlain, Task};
use crate::process::Limits;
use crate::sys::{file, filesystem, mask, sparse, transfer};
use hmac_sha256::Hash;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What came of copying a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Its length.
    pub(crate) bytes: u64,
    /// How much of the disk the copy takes; shared blocks count.
    pub(crate) allocated: u64,
    pub(crate) how: How,
}

/// Whose blocks a copy may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    /// Those of the original, until one of the two is written to.
    MayBeShared,
    /// Its own.
    Own,
}

/// How a file was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The copy shares the blocks of the original until one of them is written to.
    Reflink,
    /// All data was written anew; holes were kept.
    Sparse,
}

/// How much is done between two looks at the limits: a few milliseconds' worth.
const CHUNK: u64 = 4 << 20;
/// How much is written to the disk between two looks: a fraction of a second's worth.
const WRITTEN_BACK: u64 = 16 << 20;
/// How much is read into memory at once.
const PIECE: usize = 1 << 20;
/// `st_blocks` counts in these, whatever the file system's own block is.
const SECTOR: u64 = 512;

/// Makes `to`, a new file for its owner alone, with the content of `from`. It is not synced.
///
/// # Errors
/// What could not be done; there is no `to` then, unless there was one before.
pub(crate) fn copy(from: &Path, to: &Path, limits: Limits<'_>) -> Result<Copied, DiskError> {
    let task = Task::Copy { from: from.into(), to: to.into() };
    let source = open(from, OpenOptions::new().read(true), &task)?;
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to);
    let target = made.map_err(|error| refusal(to, &task).unwrap_or_else(|| DiskError::io(&task, error)))?;
    copy_content(&source, (&target, to), Blocks::MayBeShared, &task, limits)
        .inspect_err(|_| drop(fs::remove_file(to)))
}

/// Whether the file that `path` is, or leads to, can be copied.
///
/// # Errors
/// What a copy of it would fail with.
pub(crate) fn check_source(path: &Path) -> Result<(), DiskError> {
    let read = |file: PathBuf| Task::Read { file };
    let file = fs::canonicalize(path).map_err(|error| {
        let wanted = fs::read_link(path).unwrap_or_else(|_| path.into());
        DiskError::io(&read(wanted), error)
    })?;
    open(&file, OpenOptions::new().read(true), &read(file.clone())).map(drop)
}

/// Whether a file of so many bytes, all of them data, may fit where `path` is to be.
///
/// # Errors
/// When it is certain that it does not.
pub(crate) fn check_room(path: &Path, bytes: u64) -> Result<(), DiskError> {
    let directory = path.parent().unwrap_or(path);
    match filesystem::room(directory) {
        Ok(Some(room)) if room < bytes => Err(DiskError::NoRoom { path: path.into(), bytes, room }),
        _ => Ok(()),
    }
}

/// Writes what `diff` holds over `onto`, which is as long; holes leave it as it is. It is not synced.
///
/// # Errors
/// What could not be done; `onto` may have been changed in parts.
pub(crate) fn apply(diff: &Path, onto: &Path, limits: Limits<'_>) -> Result<(), DiskError> {
    let task = Task::Apply { diff: diff.into(), onto: onto.into() };
    let source = open(diff, OpenOptions::new().read(true), &task)?;
    let target = open(onto, OpenOptions::new().read(true).write(true), &task)?;
    let (diff, base) = (length(&source, &task)?, length(&target, &task)?);
    if diff != base {
        return Err(DiskError::Lengths { task, diff, base });
    }
    let extents = sparse::data_extents(&source).map_err(|error| DiskError::io(&task, error))?;
    Transfer::new(&source, &target).all(&extents, &task, limits)
}

/// Makes the content of `file` at `path` survive a power loss. A plain `fsync` of a large file would hear of no limits.
///
/// # Errors
/// What could not be written, or the limits.
pub(crate) fn sync(file: &File, path: &Path, limits: Limits<'_>) -> Result<(), DiskError> {
    let task = Task::Sync { file: path.into() };
    for extent in sparse::data_extents(file).map_err(|error| DiskError::io(&task, error))? {
        let mut at = extent.start;
        while at < extent.end {
            look_at(limits, &task)?;
            let length = (extent.end - at).min(WRITTEN_BACK);
            // Where that is not possible, all is left to the fsync.
            let _begun = transfer::write_back(file, at, length);
            at += length;
        }
    }
    look_at(limits, &task)?;
    file.sync_all().map_err(|error| DiskError::io(&task, error))
}

/// The SHA-256 of the file's content, in hexadecimal digits.
///
/// # Errors
/// What could not be read, or the limits.
pub(crate) fn sha256(path: &Path, limits: Limits<'_>) -> Result<String, DiskError> {
    let task = Task::Checksum { file: path.into() };
    let file = open(path, OpenOptions::new().read(true), &task)?;
    let length = length(&file, &task)?;
    let extents = sparse::data_extents(&file).map_err(|error| DiskError::io(&task, error))?;
    let mut sum = Summation { file: &file, hash: Hash::new(), buffer: vec![0; PIECE], task: &task, limits };
    let mut end = 0;
    for extent in extents {
        sum.add_hole(end..extent.start)?;
        sum.add_data(extent.clone())?;
        end = extent.end;
    }
    sum.add_hole(end..length)?;
    Ok(hexadecimal(&sum.hash.finalize()))
}

/// Whether files in `directory` have their holes exactly where nothing was written. Where they do not (no holes at
/// all, blocks larger than a page), a diff of memory cannot be told from zeros.
///
/// # Errors
/// When no file can be made there.
pub(crate) fn tells_holes(directory: &Path) -> io::Result<bool> {
    const PAGE: u64 = 4096;
    // Beyond the largest blocks there are, and aligned to none but the smallest.
    const WRITTEN: Range<u64> = (4 << 20) + PAGE..(4 << 20) + 2 * PAGE;
    let path = directory.join(".holes");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    mask::without_sigxfsz(|| {
        file.set_len(2 * WRITTEN.start)?;
        file.write_all_at(&[1; 4096], WRITTEN.start)
    })?;
    sparse::data_extents(&file).map(|extents| extents == [WRITTEN])
}

fn open(path: &Path, options: &mut OpenOptions, task: &Task) -> Result<File, DiskError> {
    // Looked at before it is opened, which would start some devices.
    match refusal(path, task) {
        Some(refused) => Err(refused),
        None => file::open_plain(options, path).map_err(|error| DiskError::io(task, error)),
    }
}

/// Why what stands at `path` is not touched.
fn refusal(path: &Path, task: &Task) -> Option<DiskError> {
    let kind = path.symlink_metadata().ok()?.file_type();
    let what = match () {
        () if kind.is_file() => return None,
        () if kind.is_block_device() => NotPlain::BlockDevice,
        () if kind.is_symlink() => NotPlain::Link,
        () => NotPlain::Other,
    };
    Some(DiskError::NotPlain { task: task.clone(), path: path.into(), what })
}

fn length(file: &File, task: &Task) -> Result<u64, DiskError> {
    file.metadata().map(|about| about.len()).map_err(|error| DiskError::io(task, error))
}

/// Whether the call may go on.
fn look_at(limits: Limits<'_>, task: &Task) -> Result<(), DiskError> {
    if limits.interrupt.is_some_and(|flag| flag.is_raised()) {
        return Err(DiskError::Interrupted { task: task.clone() });
    }
    if limits.deadline.has_passed() {
        return Err(DiskError::TimeIsUp { task: task.clone() });
    }
    Ok(())
}

fn copy_content(
    from: &File,
    (to, path): (&File, &Path),
    blocks: Blocks,
    task: &Task,
    limits: Limits<'_>,
) -> Result<Copied, DiskError> {
    let failed = |error| DiskError::io(task, error);
    look_at(limits, task)?;
    let is_shared = blocks == Blocks::MayBeShared && transfer::reflink(from, to).is_ok();
    let how = if is_shared { How::Reflink } else { How::Sparse };
    if how == How::Sparse {
        let length = length(from, task)?;
        let extents = sparse::data_extents(from).map_err(failed)?;
        check_room(path, extents.iter().map(|extent| extent.end - extent.start).sum())?;
        mask::without_sigxfsz(|| to.set_len(length)).map_err(failed)?;
        Transfer::new(from, to).all(&extents, task, limits)?;
    }
    let about = to.metadata().map_err(failed)?;
    Ok(Copied { bytes: about.len(), allocated: about.blocks() * SECTOR, how })
}

/// Data on its way to the same place of another file.
struct Transfer<'a> {
    from: &'a File,
    to: &'a File,
    /// For where the kernel does not copy between the two; empty as long as it does.
    buffer: Vec<u8>,
}

impl<'a> Transfer<'a> {
    fn new(from: &'a File, to: &'a File) -> Self {
        Self { from, to, buffer: Vec::new() }
    }

    fn all(&mut self, extents: &[Range<u64>], task: &Task, limits: Limits<'_>) -> Result<(), DiskError> {
        for extent in extents {
            let mut at = extent.start;
            while at < extent.end {
                look_at(limits, task)?;
                at += self.some(at..extent.end).map_err(|error| DiskError::io(task, error))?;
            }
        }
        Ok(())
    }

    /// Copies the first part of `range`; says how long it was.
    fn some(&mut self, range: Range<u64>) -> io::Result<u64> {
        if self.buffer.is_empty() {
            match transfer::copy_range(self.from, self.to, range.start, at_most(&range, CHUNK)) {
                Ok(copied) if copied > 0 => return Ok(copied as u64),
                // Reading and writing work everywhere, and otherwise say what is wrong.
                _ => self.buffer = vec![0; PIECE],
            }
        }
        let piece = &mut self.buffer[..at_most(&range, PIECE as u64)];
        self.from.read_exact_at(piece, range.start)?;
        mask::without_sigxfsz(|| self.to.write_all_at(piece, range.start))?;
        Ok(piece.len() as u64)
    }
}

/// A checksum that is being computed.
struct Summation<'a> {
    file: &'a File,
    hash: Hash,
    buffer: Vec<u8>,
    task: &'a Task,
    limits: Limits<'a>,
}

impl Summation<'_> {
    fn add_data(&mut self, mut data: Range<u64>) -> Result<(), DiskError> {
        while !data.is_empty() {
            look_at(self.limits, self.task)?;
            let piece = &mut self.buffer[..at_most(&data, PIECE as u64)];
            let read = self.file.read_exact_at(piece, data.start);
            read.map_err(|error| DiskError::io(self.task, error))?;
            self.hash.update(&*piece);
            data.start += piece.len() as u64;
        }
        Ok(())
    }

    /// What is known to be zeros is not read.
    fn add_hole(&mut self, mut hole: Range<u64>) -> Result<(), DiskError> {
        while !hole.is_empty() {
            look_at(self.limits, self.task)?;
            let zeros = &mut self.buffer[..at_most(&hole, PIECE as u64)];
            zeros.fill(0);
            self.hash.update(&*zeros);
            hole.start += zeros.len() as u64;
        }
        Ok(())
    }
}

fn at_most(range: &Range<u64>, limit: u64) -> usize {
    usize::try_from(range.end.saturating_sub(range.start).min(limit)).unwrap_or(usize::MAX)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests;
