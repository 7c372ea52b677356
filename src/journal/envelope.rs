//! The form in which the library keeps its own files: a line that says what they are, a checksum, and JSON.
//!
//! The checksum is against accidents: a flipped bit must not turn one process's number into another's.

use crate::json;
use crate::sys::file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a file of the library's own could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds nothing, as after a power loss.
    #[error("{} is empty: its content is lost", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else's file.
    #[error("{} is not a journal of this library", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// Written by a newer library.
    #[error("{} has version {version}, and this library reads version {VERSION}: use a newer library", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Written by a library from before the first release.
    #[error("{} has version {version}, and this library reads version {OLDEST} to {VERSION}: use the library that wrote it", path.display())]
    Older {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Truncated or altered.
    #[error("{} is damaged: its checksum does not match its content", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// Whole, and yet not what it should be.
    #[error("{} does not have the content of a journal", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

const MAGIC: &str = "mvm-journal";
/// Moves with every key that comes, goes or changes its meaning, so that an older library says "newer" and not "damaged". A
/// new key has a default, for files that were written before it.
pub(super) const VERSION: u32 = 3;
/// The oldest version that can be read.
const OLDEST: u32 = 2;
/// Longer than any that is written here, and short enough to be read whole.
const LONGEST: u64 = 64 << 20;

/// Reads what [`write`] has written.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let content = read_value(path)?;
    json::of(content).map_err(|source| Error::Content { path: path.into(), source })
}

fn read_value(path: &Path) -> Result<Value, Error> {
    let bytes = read_file(path).map_err(|source| Error::Read { path: path.into(), source })?;
    if bytes.is_empty() {
        return Err(Error::Empty { path: path.into() });
    }
    let foreign = || Error::Foreign { path: path.into() };
    let end_of_line = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(foreign)?;
    let (line, body) = bytes.split_at(end_of_line);
    let words =
        std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC)).ok_or_else(foreign)?;
    let (version, sum) =
        words.strip_prefix(' ').and_then(|words| words.split_once(' ')).ok_or_else(foreign)?;
    let version = version.parse::<u32>().map_err(|_| foreign())?;
    if version > VERSION {
        return Err(Error::Newer { path: path.into(), version });
    }
    if version < OLDEST {
        return Err(Error::Older { path: path.into(), version });
    }
    if sum != checksum(body) {
        return Err(Error::Damaged { path: path.into() });
    }
    json::parse(body).map_err(|source| Error::Content { path: path.into(), source })
}

/// Replaces the file at `path` by one that says `content`.
///
/// # Errors
/// Whatever the file system reports; the file is as it was then.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), Error> {
    let body = serde_json::to_string(content);
    let body = body.map_err(|error| Error::Write { path: path.into(), source: error.into() })?;
    write_text(path, &body)
}

fn write_text(path: &Path, body: &str) -> Result<(), Error> {
    let body = format!("\n{body}\n");
    let text = format!("{MAGIC} {VERSION} {}{body}", checksum(body.as_bytes()));
    file::replace(path, text.as_bytes()).map_err(|source| Error::Write { path: path.into(), source })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = file::open_plain(OpenOptions::new().read(true), path)?;
    let length = file.metadata()?.len().min(LONGEST);
    // With room for one byte more, its end is found by a read and not by asking for more room.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// FNV-1a: each step is a bijection of the state, so no single altered byte goes unnoticed.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{sum:016x}")
}
