//! Snapshot files. The state file is the simulator's own: JSON between a first line and a CRC; the memory
//! file is as long as the guest's memory and sparse, and holds the guest's counter where a counting guest
//! would keep it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::api::{CreateSnapshotParams, MemBackendConfig};
use crate::config::VmmConfig;
use crate::error::{CreateSnapshotError, GuestMemoryError, NotAStateFile, SnapshotError, StateFileError};
use crate::guest::GuestState;

/// The version of the data format that Firecracker 1.16 reads and writes.
pub(crate) const VERSION: &str = "v10.0.0";

const FIRST_LINE: &[u8] = b"firecracker-sim state v10.0.0\n";
const CRC_SIZE: usize = 8;
/// Where the counter is in the guest's memory; smaller guests keep none.
const COUNTER_ADDRESS: u64 = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) config: VmmConfig,
    pub(crate) guest: GuestState,
}

pub(crate) fn write(request: &CreateSnapshotParams, state: &State) -> Result<(), CreateSnapshotError> {
    use CreateSnapshotError::{MemoryBackingFile, SnapshotBackingFile};
    let mut bytes = FIRST_LINE.to_vec();
    serde_json::to_writer(&mut bytes, state).map_err(|error| SnapshotBackingFile("write", error.into()))?;
    bytes.extend(crc64(&bytes).to_le_bytes());
    let mut file =
        File::create(&request.snapshot_path).map_err(|error| SnapshotBackingFile("open", error))?;
    file.write_all(&bytes).map_err(|error| SnapshotBackingFile("flush", error))?;
    file.sync_all().map_err(|error| SnapshotBackingFile("sync_all", error))?;

    // Firecracker writes into a file that is there already, and cuts it to the right length.
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&request.mem_file_path);
    let memory = opened.map_err(|error| MemoryBackingFile("open", error))?;
    memory.set_len(memory_size(&state.config)).map_err(|error| MemoryBackingFile("set_length", error))?;
    write_counter(&memory, state).map_err(|error| MemoryBackingFile("flush", error))
}

pub(crate) fn read(path: &Path) -> Result<State, StateFileError> {
    let bytes = std::fs::read(path).map_err(StateFileError::Open)?;
    Ok(parse(&bytes)?)
}

/// What `--describe-snapshot` looks at: everything but the CRC.
pub(crate) fn describe(bytes: &[u8]) -> Result<&'static str, SnapshotError> {
    let (contents, _) = without_crc(bytes)?;
    state_in(contents)?;
    Ok(VERSION)
}

/// Checks the memory that a guest is to be restored with, and takes its counter from it.
pub(crate) fn read_memory(backend: &MemBackendConfig, state: &mut State) -> Result<(), GuestMemoryError> {
    let memory = File::open(&backend.backend_path).map_err(GuestMemoryError::File)?;
    let length = memory.metadata().map_err(GuestMemoryError::File)?.len();
    if length < memory_size(&state.config) {
        return Err(GuestMemoryError::TooShort);
    }
    let mut counter = [0; 8];
    if memory.read_exact_at(&mut counter, COUNTER_ADDRESS).is_ok() {
        state.guest.counter = u64::from_le_bytes(counter);
    }
    Ok(())
}

pub(crate) fn reach_page_fault_handler(backend: &MemBackendConfig) -> Result<(), GuestMemoryError> {
    UnixStream::connect(&backend.backend_path).map_err(GuestMemoryError::UffdConnect)?;
    Err(GuestMemoryError::UffdNotSimulated)
}

fn parse(bytes: &[u8]) -> Result<State, SnapshotError> {
    let (contents, crc) = without_crc(bytes)?;
    let state = state_in(contents)?;
    if crc != crc64(contents).to_le_bytes() {
        return Err(SnapshotError::Crc64);
    }
    Ok(state)
}

fn state_in(contents: &[u8]) -> Result<State, SnapshotError> {
    let json = contents.strip_prefix(FIRST_LINE).ok_or(SnapshotError::Bitcode(NotAStateFile))?;
    serde_json::from_slice(json).map_err(|_| SnapshotError::Bitcode(NotAStateFile))
}

fn without_crc(bytes: &[u8]) -> Result<(&[u8], &[u8]), SnapshotError> {
    let too_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "File too short to contain CRC");
    let length = bytes.len().checked_sub(CRC_SIZE).ok_or_else(|| SnapshotError::Io(too_short()))?;
    Ok(bytes.split_at(length))
}

/// Hotpluggable memory has its place in the file, plugged or not.
fn memory_size(config: &VmmConfig) -> u64 {
    let memory = config.machine_config.as_ref().map_or(0, |machine| machine.mem_size_mib);
    let hotpluggable = config.memory_hotplug.as_ref().map_or(0, |memory| memory.total_size_mib);
    ((memory + hotpluggable) as u64) << 20
}

fn write_counter(memory: &File, state: &State) -> io::Result<()> {
    if memory_size(&state.config) < COUNTER_ADDRESS + 8 {
        return Ok(());
    }
    memory.write_all_at(&state.guest.counter.to_le_bytes(), COUNTER_ADDRESS)
}

/// CRC-64/XZ, bit by bit: a state file has a few hundred bytes.
fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc: u64, _| {
            let carry = crc & 1 == 1;
            (crc >> 1) ^ if carry { 0xC96C_5795_D787_0F42 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_standard_one() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA);
    }

    #[test]
    fn a_short_or_foreign_file_is_no_state_file() {
        assert!(matches!(parse(b"abc"), Err(SnapshotError::Io(_))));
        assert!(matches!(parse(b"something else, and long enough"), Err(SnapshotError::Bitcode(_))));
    }
}
