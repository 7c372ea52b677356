//! The program for the jail: what it must be, which one it is, and its copy.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::error::JailerError;
use super::plan::Plan;
use crate::fault::Fault;
use crate::release::{Manner, Release};
use crate::start;

#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    pub(super) name: String,
    pub(super) maker: Maker,
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// It is this very program, or a copy of it.
    Ours,
    Foreign,
}

/// So much of a program's beginning says what it is.
const HEAD: u64 = 64 << 10;

impl Program {
    pub(super) fn checked(path: &str, faults: &[Fault]) -> Result<Self, JailerError> {
        let canonical =
            fs::canonicalize(path).map_err(|error| JailerError::Canonicalize(PathBuf::from(path), error))?;
        if !canonical.is_file() {
            return Err(JailerError::NotAFile(canonical));
        }
        let name = canonical.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| JailerError::ExtractFileName(canonical.clone()))?;
        Release::pass_for(&start::version_told(faults, Some(&name)));
        if Release::told().jailer() == Manner::Old && !name.contains("firecracker") {
            return Err(JailerError::ExecFileName(name));
        }
        let maker = maker_of(&canonical).unwrap_or(Maker::Foreign);
        Ok(Self { path: canonical, name, maker })
    }

    /// A link is not followed, and not written through; what is there already is written over, and not cut.
    pub(super) fn copy_into_jail(&self, plan: &Plan) -> Result<(), JailerError> {
        let from = &self.path;
        let to = &plan.root.join(&self.name);
        let mut original = File::open(from).map_err(|error| JailerError::Open(from.clone(), error))?;
        let about = original.metadata().map_err(|error| JailerError::Metadata(from.clone(), error))?;
        let mut options = File::options();
        options.write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).mode(about.mode());
        let mut copy = options.open(to).map_err(|error| JailerError::Open(to.clone(), error))?;
        let links = copy.metadata().map_err(|error| JailerError::Metadata(to.clone(), error))?.nlink();
        if links > 1 {
            return Err(JailerError::HardLink(to.clone()));
        }
        plan.unless_forbidden(|| fchown(&copy, Some(plan.uid), Some(plan.gid)))
            .map_err(|error| JailerError::ChangeFileOwner(to.clone(), error))?;
        let copied = match self.maker {
            Maker::Ours => copy_what_runs(&mut original, &mut copy),
            Maker::Foreign => io::copy(&mut original, &mut copy).map(drop),
        };
        copied.map_err(|error| JailerError::Copy(from.clone(), to.clone(), error))
    }
}

/// Copies are told by their length and their head, which says where everything else is.
fn maker_of(path: &Path) -> io::Result<Maker> {
    let length_and_head = |path: &Path| {
        let mut file = File::open(path)?;
        io::Result::Ok((file.metadata()?.len(), head(&mut file)?))
    };
    let is_ours = length_and_head(path)? == length_and_head(Path::new("/proc/self/exe"))?;
    Ok(if is_ours { Maker::Ours } else { Maker::Foreign })
}

/// Ours is executed by nobody, and most of it may be there for debuggers, which a jail for each of many VMs would pay
/// for: a hole stands for that.
fn copy_what_runs(original: &mut File, copy: &mut File) -> io::Result<()> {
    let length = original.metadata()?.len();
    let loaded = loaded_length(&head(original)?).unwrap_or(length);
    original.rewind()?;
    io::copy(&mut original.take(loaded), copy)?;
    copy.set_len(copy.metadata()?.len().max(length))
}

fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Up to where an ELF file of 64 bits has what is loaded.
fn loaded_length(head: &[u8]) -> Option<u64> {
    const LOAD: u64 = 1;
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)))
    };
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let end = |index: u64| {
        let at = usize::try_from(first.checked_add(index * size)?).ok()?;
        let end = number(at.checked_add(8)?, 8)?.checked_add(number(at.checked_add(32)?, 8)?)?;
        Some(if number(at, 4)? == LOAD { end } else { 0 })
    };
    (0..count).try_fold(0, |longest, index| Some(end(index)?.max(longest)))
}
