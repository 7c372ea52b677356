//! Growing a disk, and the ext4 file system on it by the programs that its authors provide.
//!
//! A disk is grown while it is being made, under a name that nobody uses. So one whose growth was cut off is not there: it is
//! made anew, from its image.

use super::image::{Format, Tools};
use crate::host::error::{DiskError, Task};
use crate::process::{self, ExitStatus, Limits, NoAnswer};
use crate::sys::mask;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How a disk is grown.
#[derive(Debug)]
pub(super) struct Growth {
    task: Task,
    disk: PathBuf,
    bytes: u64,
    /// Of a file system: the program that checks it, and the one that grows it.
    programs: Option<[PathBuf; 2]>,
}

const CHECKER: &str = "e2fsck";
const GROWER: &str = "resize2fs";
/// All that is run to grow a file system.
pub(super) const PROGRAMS: [&str; 2] = [CHECKER, GROWER];

impl Growth {
    /// How the copy `to` of `image`, which is called `from`, is grown to `bytes`.
    pub(super) fn plan(
        image: &File,
        (from, to): (&Path, &Path),
        (bytes, format): (u64, Format),
        tools: &Tools,
    ) -> Result<Self, DiskError> {
        let task = Task::Grow { file: to.into(), bytes };
        let programs = match format {
            Format::Raw => None,
            Format::Ext4 => {
                let found = FileSystem::of(image).map_err(|error| DiskError::io(&task, error))?;
                found.ok_or_else(|| DiskError::NotExt4 { task: task.clone(), image: from.into() })?;
                Some([tools.find(CHECKER, &task)?, tools.find(GROWER, &task)?])
            }
        };
        Ok(Self { task, disk: to.into(), bytes, programs })
    }

    /// Grows the disk, which is open as `file`.
    pub(super) fn carry_out(&self, file: &File, limits: Limits<'_>) -> Result<(), DiskError> {
        let failed = |error| DiskError::io(&self.task, error);
        let lengthen = || mask::without_sigxfsz(|| file.set_len(self.bytes)).map_err(failed);
        let Some([checker, grower]) = &self.programs else { return lengthen() };
        // resize2fs demands it. It replays the journal of a file system that was not unmounted, too.
        let (exit, output) = self.run(checker, &["-f".into(), "-p".into()], limits)?;
        if !matches!(exit, ExitStatus::Code(SOUND | MENDED)) {
            return Err(self.failed(CHECKER, exit, output));
        }
        lengthen()?;
        let (exit, output) = self.run(grower, &[], limits)?;
        let is_grown = FileSystem::of(file).map_err(failed)?.is_some_and(|grown| grown.fills(self.bytes));
        if exit != ExitStatus::Code(0) || !is_grown {
            return Err(self.failed(GROWER, exit, output));
        }
        Ok(())
    }

    fn run(
        &self,
        program: &Path,
        options: &[OsString],
        limits: Limits<'_>,
    ) -> Result<(ExitStatus, String), DiskError> {
        let arguments = options.iter().cloned().chain([self.disk.clone().into()]).collect::<Vec<_>>();
        let task = self.task.clone();
        match process::run(program, &arguments, "the growth of a file system", limits) {
            Ok(finished) => Ok((finished.exit, finished.output)),
            Err(NoAnswer::Process(source)) => Err(DiskError::Tool { task, source }),
            Err(NoAnswer::Output { source, .. }) => Err(DiskError::Io { task, source }),
            Err(NoAnswer::TimeIsUp { .. }) => Err(DiskError::TimeIsUp { task }),
            Err(NoAnswer::Interrupted { .. }) => Err(DiskError::Interrupted { task }),
        }
    }

    fn failed(&self, program: &'static str, exit: ExitStatus, output: String) -> DiskError {
        DiskError::ToolFailed { task: self.task.clone(), program, exit, output }
    }
}

/// What e2fsck answers when there was nothing to mend, and when it has mended all.
const SOUND: i32 = 0;
const MENDED: i32 = 1;

/// An ext2, 3 or 4 file system, as its superblock has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileSystem {
    bytes: u64,
    /// How much of it has tables of its own.
    group_bytes: u64,
}

impl FileSystem {
    /// That in `file`; nothing when there is none.
    fn of(file: &File) -> io::Result<Option<Self>> {
        const SUPERBLOCK: u64 = 1024;
        let mut block = [0; 1024];
        match file.read_exact_at(&mut block, SUPERBLOCK) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            read => read.map(|()| Self::parse(&block)),
        }
    }

    fn parse(superblock: &[u8; 1024]) -> Option<Self> {
        const MAGIC: [u8; 2] = [0x53, 0xEF];
        const HAS_64_BITS: u32 = 0x80;
        // 64 KiB.
        const LARGEST_BLOCK: u32 = 6;
        let word = |at: usize| {
            let bytes = superblock.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        let block_size = word(0x18);
        if superblock.get(0x38..0x3a) != Some(&MAGIC) || block_size > LARGEST_BLOCK {
            return None;
        }
        let bytes_of = |blocks: u64| blocks.saturating_mul(1024 << block_size);
        let high = if word(0x60) & HAS_64_BITS == 0 { 0 } else { word(0x150) };
        let bytes = bytes_of((u64::from(high) << 32) | u64::from(word(0x4)));
        Some(Self { bytes, group_bytes: bytes_of(word(0x20).into()) })
    }

    /// Whether a disk of `bytes` is full of it. resize2fs leaves out a last group that its tables would fill.
    fn fills(self, bytes: u64) -> bool {
        self.bytes <= bytes && self.bytes.saturating_add(self.group_bytes) > bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn superblock(words: &[(usize, u32)]) -> [u8; 1024] {
        let mut block = [0; 1024];
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xEF]);
        for (at, word) in words {
            block[*at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        block
    }

    #[test]
    fn a_superblock_says_how_long_its_file_system_is() {
        let small = FileSystem::parse(&superblock(&[(0x4, 16_384), (0x18, 2), (0x20, 32_768)])).unwrap();
        assert_eq!((small.bytes, small.group_bytes), (64 << 20, 128 << 20));
        let large = superblock(&[(0x4, 1), (0x18, 2), (0x20, 32_768), (0x60, 0x80), (0x150, 1)]);
        assert_eq!(FileSystem::parse(&large).unwrap().bytes, (16 << 40) + 4096);
        assert_eq!(FileSystem::parse(&[0; 1024]), None);
    }

    #[test]
    fn a_file_system_that_was_not_grown_does_not_fill_its_disk() {
        let group_bytes = 128 << 20;
        let file_system = FileSystem { bytes: 64 << 20, group_bytes };
        assert!(file_system.fills(64 << 20) && file_system.fills(100 << 20));
        assert!(!file_system.fills(2 << 30) && !file_system.fills(32 << 20));
    }

    proptest! {
        #[test]
        fn no_superblock_makes_the_parser_panic(words in proptest::collection::vec((0_usize..0x3f0, any::<u32>()), 0..20)) {
            let _any = FileSystem::parse(&superblock(&words)).map(|found| found.fills(1 << 30));
        }
    }
}
