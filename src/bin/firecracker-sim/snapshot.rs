//! Snapshot files. The state file is the simulator's own: JSON between a first line and a CRC. The memory file is the
//! guest's memory, byte for byte, and so is what a restored guest begins with.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::api::{CreateSnapshotParams, SnapshotType};
use crate::config::VmmConfig;
use crate::error::{
    CreateSnapshotError, GuestMemoryError, MemoryError, NotAStateFile, SnapshotError, StateFileError,
};
use crate::guest::GuestState;
use crate::memory::{GuestMemory, Layout, Room, Target, Tracking};
use crate::release::Release;

/// Firecracker reads no longer ones.
const LONGEST: usize = 10_000_000;
const CRC_SIZE: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) config: VmmConfig,
    pub(crate) guest: GuestState,
    /// As `/proc/cpuinfo` has it.
    pub(crate) cpu_vendor: String,
    /// What the guest was asked to plug of its hotpluggable memory.
    pub(crate) requested_size_mib: usize,
}

/// The state first, then the memory. What has been written when something fails stays, as Firecracker leaves it.
pub(crate) fn write(
    request: &CreateSnapshotParams,
    state: &State,
    memory: &GuestMemory,
    room: Room,
) -> Result<(), CreateSnapshotError> {
    write_state(&request.snapshot_path, state)?;
    write_memory(request, state, memory, room)
}

pub(crate) fn read(path: &Path) -> Result<State, StateFileError> {
    let bytes = std::fs::read(path).map_err(StateFileError::Open)?;
    Ok(parse(&bytes)?)
}

/// What `--describe-snapshot` looks at: everything but the CRC.
pub(crate) fn describe(bytes: &[u8]) -> Result<&'static str, SnapshotError> {
    let (contents, _) = without_crc(bytes)?;
    json_in(contents)?;
    Ok(Release::told().snapshot_format())
}

/// The memory that a guest is restored with: the file's, as long as the guest does not write.
pub(crate) fn read_memory(path: &Path, layout: &Layout) -> Result<GuestMemory, GuestMemoryError> {
    let file = File::open(path).map_err(GuestMemoryError::File)?;
    let length = file.metadata().map_err(GuestMemoryError::File)?.len();
    if length < layout.size() {
        return Err(GuestMemoryError::TooShort);
    }
    GuestMemory::of_file(layout, &file).map_err(|error| GuestMemoryError::Map(MemoryError::MmapRegion(error)))
}

fn write_state(path: &Path, state: &State) -> Result<(), CreateSnapshotError> {
    use CreateSnapshotError::{SerializeMicrovmState, SnapshotBackingFile};
    let io = |error| SerializeMicrovmState(SnapshotError::Io(error));
    let json = serde_json::to_string(state).map_err(|error| io(error.into()))?;
    let mut bytes = format!("{}{}\n{json}", first_line(), json.len()).into_bytes();
    bytes.extend(crc64(&bytes).to_le_bytes());
    let mut file = File::create(path).map_err(|error| SnapshotBackingFile("open", error))?;
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(|error| SnapshotBackingFile("sync_all", error))
}

/// Nothing is synced: nobody needs a simulated guest after a power loss.
fn write_memory(
    request: &CreateSnapshotParams,
    state: &State,
    memory: &GuestMemory,
    room: Room,
) -> Result<(), CreateSnapshotError> {
    let refused = |operation| move |error| CreateSnapshotError::MemoryBackingFile(operation, error);
    let path = &request.mem_file_path;
    let is_full = request.snapshot_type == SnapshotType::Full;
    let existed = path.exists();
    // Firecracker writes into a file that is there already, and empties it only when its length is another. For a full
    // snapshot that is the same as emptying it, unless the memory comes from this very file.
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(refused("open"))?;
    let length = file.metadata().map_err(refused("get_metadata"))?.len();
    let size = Layout::of_snapshot(&state.config, Tracking::Off).size();
    let is_to_be_emptied = length != size || (is_full && memory.is_independent_of_files());
    if existed && is_to_be_emptied {
        file.set_len(0).map_err(refused("truncate"))?;
    }
    let target = if existed && !is_to_be_emptied { Target::SomethingElse } else { Target::Nothing };
    file.set_len(size).map_err(refused("set_length"))?;
    match request.snapshot_type {
        SnapshotType::Full => memory.dump(&file, target, room).map_err(MemoryError::WriteMemory)?,
        SnapshotType::Diff => memory.dump_dirty(&file, room).map_err(MemoryError::VolatileMemory)?,
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<State, SnapshotError> {
    let (contents, crc) = without_crc(bytes)?;
    let json = json_in(contents)?;
    if crc != crc64(contents).to_le_bytes() {
        return Err(SnapshotError::Crc64);
    }
    serde_json::from_slice(json).map_err(|_| SnapshotError::Bitcode(NotAStateFile))
}

/// The format, behind which comes the length of the JSON that follows on the next line.
fn first_line() -> String {
    format!("firecracker-sim state {}, ", Release::told().snapshot_format())
}

/// A file that was cut is no state file to Firecracker, one with a wrong byte has a wrong checksum.
fn json_in(contents: &[u8]) -> Result<&[u8], SnapshotError> {
    let foreign = || SnapshotError::Bitcode(NotAStateFile);
    let rest = contents.strip_prefix(first_line().as_bytes()).ok_or_else(foreign)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(foreign)?;
    let (length, json) = (&rest[..end], &rest[end + 1..]);
    let is_whole = length == json.len().to_string().as_bytes();
    if is_whole { Ok(json) } else { Err(foreign()) }
}

fn without_crc(bytes: &[u8]) -> Result<(&[u8], &[u8]), SnapshotError> {
    if bytes.len() > LONGEST {
        return Err(SnapshotError::SizeLimitExceeded(LONGEST));
    }
    let too_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "File too short to contain CRC");
    let length = bytes.len().checked_sub(CRC_SIZE).ok_or_else(|| SnapshotError::Io(too_short()))?;
    Ok(bytes.split_at(length))
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
