//! The file named by `kernel_image_path`: accepted and refused as Firecracker's ELF loader does, and searched
//! for the script that a test guest carries. It is put into the guest's memory, and nothing in it is ever executed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::error::ElfError;
use crate::guest::Script;
use crate::memory::{GuestMemory, MEMORY_HOLE};

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const LOADABLE: u64 = 1;
/// No kernel may be entered below this address.
const LOWEST_ENTRY: u64 = 1 << 20;
/// Where a guest finds its command line.
const COMMAND_LINE: u64 = 0x20000;
const MARKER: &[u8] = b"#!mvm-guest\n";

/// A kernel that was accepted.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) script: Script,
    file: File,
    segments: Vec<Segment>,
}

/// What is to stand in the guest's memory, and where it stands in the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    position: u64,
    length: usize,
}

impl Kernel {
    pub(crate) fn put_into(&self, memory: &GuestMemory, command_line: &str) -> Result<(), ElfError> {
        for Segment { address, position, length } in &self.segments {
            let read = memory.read_from(*address, &self.file, *position, *length);
            read.map_err(|_| ElfError::ReadKernelImage)?;
        }
        memory.write(COMMAND_LINE, command_line.as_bytes());
        Ok(())
    }
}

/// Reads a kernel, and finds out what its guest will do.
pub(crate) fn load(path: &str, mem_size_mib: usize) -> Result<Kernel, ElfError> {
    let file = File::open(path).map_err(|_| ElfError::ReadElfHeader)?;
    let header = read_at::<HEADER_SIZE>(&file, 0).map_err(|_| ElfError::ReadElfHeader)?;
    if header[..4] != *b"\x7fELF" {
        return Err(ElfError::InvalidElfMagicNumber);
    }
    if header[5] != 1 {
        return Err(ElfError::BigEndianElfOnLittle);
    }
    if number(&header, 54, 2) != PROGRAM_HEADER_SIZE as u64 {
        return Err(ElfError::InvalidProgramHeaderSize);
    }
    let program_headers = number(&header, 32, 8);
    if program_headers < HEADER_SIZE as u64 {
        return Err(ElfError::InvalidProgramHeaderOffset);
    }
    if number(&header, 24, 8) < LOWEST_ENTRY {
        return Err(ElfError::InvalidEntryAddress);
    }
    let mut segments = Vec::new();
    for index in 0..number(&header, 56, 2) {
        let offset = program_headers.saturating_add(index * PROGRAM_HEADER_SIZE as u64);
        let segment =
            read_at::<PROGRAM_HEADER_SIZE>(&file, offset).map_err(|_| ElfError::ReadProgramHeader)?;
        segments.extend(read_segment(&file, &segment, mem_size_mib as u64)?);
    }
    let script = script_in(&file).map_err(|_| ElfError::ReadKernelImage)?;
    Ok(Kernel { script, file, segments })
}

fn read_segment(file: &File, segment: &[u8], mem_size_mib: u64) -> Result<Option<Segment>, ElfError> {
    let in_file = number(segment, 32, 8);
    if number(segment, 0, 4) != LOADABLE || in_file == 0 {
        return Ok(None);
    }
    let address = number(segment, 24, 8);
    let length = file.metadata().map_err(|_| ElfError::ReadKernelImage)?.len();
    let whole_in_file = number(segment, 8, 8).checked_add(in_file).is_some_and(|end| end <= length);
    let whole_in_memory =
        address.checked_add(in_file).is_some_and(|end| is_memory(address, end, mem_size_mib << 20));
    if !(whole_in_file && whole_in_memory) {
        return Err(ElfError::ReadKernelImage);
    }
    let length = usize::try_from(in_file).map_err(|_| ElfError::ReadKernelImage)?;
    Ok(Some(Segment { address, position: number(segment, 8, 8), length }))
}

fn is_memory(start: u64, end: u64, size: u64) -> bool {
    let below = size.min(MEMORY_HOLE.start);
    let above = MEMORY_HOLE.end + (size - below);
    end <= below || (start >= MEMORY_HOLE.end && end <= above)
}

/// A script goes from its marker to the first NUL, or to the end of the file.
fn script_in(mut file: &File) -> io::Result<Script> {
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    let Some(marker) = contents.windows(MARKER.len()).position(|window| window == MARKER) else {
        return Ok(Script::well_behaved());
    };
    let text = &contents[marker + MARKER.len()..];
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Script::parse(&String::from_utf8_lossy(text)))
}

fn read_at<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], offset: usize, size: usize) -> u64 {
    bytes[offset..offset + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_hole_below_four_gib() {
        assert!(is_memory(0, 128 << 20, 128 << 20));
        assert!(!is_memory(0, (128 << 20) + 1, 128 << 20));
        assert!(!is_memory(MEMORY_HOLE.start, MEMORY_HOLE.start + 1, 8 << 30));
        assert!(is_memory(MEMORY_HOLE.end, MEMORY_HOLE.end + 1, 4 << 30));
    }

    #[test]
    fn numbers_are_little_endian() {
        assert_eq!(number(&[9, 0x34, 0x12, 9], 1, 2), 0x1234);
    }
}
