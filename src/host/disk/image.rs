//! Disks made from images: copied, held against a digest, and grown. An image is opened once and never written to; a disk
//! that was not finished is removed.

use super::ext4;
use super::{
    Blocks, Copied, How, check_room, copy_content, hexadecimal, length, look_at, open, refusal, sha256,
};
use crate::host::error::{DiskError, Task};
use crate::process::Limits;
use crate::sys::{file, filesystem, mask, sparse, verity};
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// In what a disk differs from its image, and what is checked before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finish {
    /// How long it is to be; nothing: as long as the image.
    pub(crate) bytes: Option<u64>,
    pub(crate) format: Format,
    pub(crate) check: Option<Check>,
    pub(crate) space: Space,
}

/// When a disk gets its space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Space {
    /// When it is written to. By then there may be none left.
    #[default]
    AsNeeded,
    /// All of it from the beginning.
    Reserved,
}

/// What an image holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// An ext4 file system, which grows with its disk.
    #[default]
    Ext4,
    /// Whatever it may be. Only the disk grows.
    Raw,
}

/// The digest that an image must have, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Of its content, read from its beginning to its end.
    Sha256(String),
    /// The kernel's, with the algorithm before a colon.
    FsVerity(String),
}

/// The directories in which programs are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools(Vec<PathBuf>);

impl Tools {
    /// These directories; the usual ones when there are none.
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        if directories.is_empty() { Self::default() } else { Self(directories) }
    }

    /// Where `program` is.
    pub(super) fn find(&self, program: &'static str, task: &Task) -> Result<PathBuf, DiskError> {
        let missing = || DiskError::NoTool { task: task.clone(), program, searched: self.0.clone() };
        self.locate(program).ok_or_else(missing)
    }

    /// Those that a disk cannot be grown without and that are not there.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ext4::PROGRAMS.into_iter().filter(|program| self.locate(program).is_none()).collect()
    }

    fn locate(&self, program: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        };
        self.0.iter().map(|directory| directory.join(program)).find(is_program)
    }
}

impl Default for Tools {
    fn default() -> Self {
        Self(["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"].map(PathBuf::from).into())
    }
}

/// Makes `to`, a new file for its owner alone, from the image `from`. It is not synced.
///
/// # Errors
/// What could not be done; there is no `to` then, unless there was one before.
pub(crate) fn make(
    (from, to): (&Path, &Path),
    finish: &Finish,
    tools: &Tools,
    limits: Limits<'_>,
) -> Result<Copied, DiskError> {
    let task = Task::Copy { from: from.into(), to: to.into() };
    let image = open(from, OpenOptions::new().read(true), &task)?;
    let before = stamp(&image, &task)?;
    let growth = growth_of(&image, (from, to), finish, tools)?;
    let bytes = finish.bytes.unwrap_or(before.bytes);
    if finish.space == Space::Reserved {
        check_reservable(to, bytes)?;
    }
    if let Some(Check::FsVerity(wanted)) = &finish.check {
        check_verity(&image, from, wanted)?;
    }
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to);
    let disk = made.map_err(|error| refusal(to, &task).unwrap_or_else(|| DiskError::io(&task, error)))?;
    let is_replaced = || fs::metadata(from).map_or(true, |now| file::identity(&now) != before.identity);
    let blocks = if finish.space == Space::Reserved { Blocks::Own } else { Blocks::MayBeShared };
    let copied = match copy_content(&image, (&disk, to), blocks, &task, limits) {
        // Also when its end was met too early.
        Ok(_) | Err(DiskError::Io { .. }) if stamp(&image, &task)? != before || is_replaced() => {
            Err(DiskError::Changed { task: task.clone(), image: from.into() })
        }
        copied => copied,
    };
    let finished = copied.and_then(|copied| {
        if let Some(Check::Sha256(wanted)) = &finish.check {
            // The copy is nobody else's, so that it is what was checked.
            compare(from, wanted, sha256(to, limits)?)?;
        }
        if let Some(growth) = &growth {
            growth.carry_out(&disk, limits)?;
        }
        if finish.space == Space::Reserved {
            reserve(&disk, (to, bytes), limits)?;
        }
        let about = disk.metadata().map_err(|error| DiskError::io(&task, error))?;
        Ok(Copied { bytes: about.len(), allocated: about.blocks() * super::SECTOR, ..copied })
    });
    match &finished {
        Ok(Copied { allocated, how, .. }) => {
            let how = if *how == How::Reflink { "a reflink" } else { "a copy of all data" };
            log::info!("{} is {how} of {}; it takes {allocated} bytes", to.display(), from.display());
        }
        Err(_) => drop(fs::remove_file(to)),
    }
    finished
}

/// Whether the image at `path`, which is used as it is, has the digest that it must have.
///
/// # Errors
/// When it has another one, or cannot be read.
pub(crate) fn check(path: &Path, check: &Check, limits: Limits<'_>) -> Result<(), DiskError> {
    match check {
        Check::Sha256(wanted) => compare(path, wanted, sha256(path, limits)?),
        Check::FsVerity(wanted) => {
            let task = Task::Checksum { file: path.into() };
            look_at(limits, &task)?;
            check_verity(&open(path, OpenOptions::new().read(true), &task)?, path, wanted)
        }
    }
}

/// What tells that a file was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

fn stamp(image: &File, task: &Task) -> Result<Stamp, DiskError> {
    let of = |about: Metadata| Stamp {
        identity: file::identity(&about),
        bytes: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
    };
    image.metadata().map(of).map_err(|error| DiskError::io(task, error))
}

/// Whether the file system of `disk` can set `bytes` aside, and keeps its word.
fn check_reservable(disk: &Path, bytes: u64) -> Result<(), DiskError> {
    check_room(disk, bytes)?;
    let directory = disk.parent().unwrap_or(disk);
    match filesystem::room(directory) {
        Ok(Some(_)) => Ok(()),
        // Those that copy what is written to need new blocks all the same.
        _ => Err(DiskError::NoReservation { path: directory.into() }),
    }
}

/// Has the file system set aside what the disk has no blocks for yet.
fn reserve(disk: &File, (path, bytes): (&Path, u64), limits: Limits<'_>) -> Result<(), DiskError> {
    /// Between two looks at the limits.
    const STEP: u64 = 1 << 30;
    let task = Task::Reserve { file: path.into(), bytes };
    let mut at = 0;
    while at < bytes {
        look_at(limits, &task)?;
        let end = bytes.min(at.saturating_add(STEP));
        mask::without_sigxfsz(|| sparse::reserve(disk, at..end))
            .map_err(|error| DiskError::io(&task, error))?;
        at = end;
    }
    Ok(())
}

/// What is to be done to the copy; whatever would make it fail is found out before anything is copied.
fn growth_of(
    image: &File,
    (from, to): (&Path, &Path),
    finish: &Finish,
    tools: &Tools,
) -> Result<Option<ext4::Growth>, DiskError> {
    let Some(wanted) = finish.bytes else { return Ok(None) };
    let task = Task::Grow { file: to.into(), bytes: wanted };
    let bytes = length(image, &task)?;
    if wanted < bytes {
        return Err(DiskError::TooSmall { image: from.into(), bytes, wanted });
    }
    if wanted == bytes {
        return Ok(None);
    }
    ext4::Growth::plan(image, (from, to), (wanted, finish.format), tools).map(Some)
}

fn check_verity(image: &File, path: &Path, wanted: &str) -> Result<(), DiskError> {
    let measured = verity::measure(image);
    let found = measured.map_err(|source| DiskError::NoVerity { image: path.into(), source })?;
    compare(path, wanted, format!("{}:{}", found.algorithm, hexadecimal(&found.bytes)))
}

fn compare(image: &Path, wanted: &str, found: String) -> Result<(), DiskError> {
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(DiskError::Digest { image: image.into(), wanted: wanted.to_owned(), found })
}
