//! What making and loading a snapshot can fail with.

use std::fmt;
use std::io;

use thiserror::Error;

use super::{BlockError, NetError, NetworkInterfaceError, PmemError, VsockUnixBackendError};

#[derive(Debug, Error)]
pub(crate) enum CreateSnapshotError {
    #[error("Cannot write memory file: {0}")]
    Memory(#[from] MemoryError),
    #[error("Cannot serialize the microVM state: {0}")]
    SerializeMicrovmState(SnapshotError),
    #[error("Cannot save the microVM state: {0}")]
    MicrovmState(MicrovmStateError),
    #[error("Cannot perform {0} on the memory backing file: {1}")]
    MemoryBackingFile(&'static str, io::Error),
    #[error("Cannot perform {0} on the snapshot backing file: {1}")]
    SnapshotBackingFile(&'static str, io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum MemoryError {
    #[error("Cannot create mmap region: {0}")]
    MmapRegion(io::Error),
    #[error("Cannot dump memory: Guest memory error: {0}")]
    WriteMemory(io::Error),
    #[error("Volatile memory error: {0}")]
    VolatileMemory(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum MicrovmStateError {
    #[error("Operation not allowed: {0}")]
    NotAllowed(&'static str),
}

#[derive(Debug, Error)]
pub(crate) enum LoadSnapshotError {
    #[error("Loading a microVM snapshot not allowed after configuring boot-specific resources.")]
    LoadSnapshotNotAllowed,
    #[error("Failed to restore from snapshot: {0}")]
    RestoreFromSnapshot(#[from] RestoreError),
}

#[derive(Debug, Error)]
pub(crate) enum RestoreError {
    #[error("Failed to get snapshot state from file: {0}")]
    File(#[from] StateFileError),
    #[error("Failed to load guest memory: {0}")]
    GuestMemory(#[from] GuestMemoryError),
    #[error(
        "Failed to build microVM from snapshot: Failed to restore devices: Error restoring {0} devices: {1}"
    )]
    Build(&'static str, RestoreDeviceError),

    /// Firecracker's heading for a serial console's file that it cannot open.
    #[error(
        "Failed to build microVM from snapshot: Failed to restore devices: Error creating DeviceManager: Error with \
         EventFd: {0}"
    )]
    Console(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum StateFileError {
    #[error("Failed to open snapshot file: {0}")]
    Open(io::Error),
    #[error("Failed to load snapshot state from file: {0}")]
    Load(#[from] SnapshotError),
    #[error("Unknown Network Device.")]
    UnknownNetworkDevice,
    #[error("Unknown Vsock Device.")]
    UnknownVsockDevice,
}

#[derive(Debug, Error)]
pub(crate) enum SnapshotError {
    #[error("CRC64 validation failed")]
    Crc64,
    #[error("An error occurred during bitcode serialization: {0}")]
    Bitcode(NotAStateFile),
    #[error("IO Error: {0}")]
    Io(io::Error),
    #[error("Snapshot size exceeds limit of {0} bytes")]
    SizeLimitExceeded(usize),
}

/// The simulator's state files are not Firecracker's: each finds the other's unreadable, in these words.
#[derive(Error)]
#[error("bitcode error")]
pub(crate) struct NotAStateFile;

impl fmt::Debug for NotAStateFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(r#"Error("bitcode error")"#)
    }
}

#[derive(Debug, Error)]
pub(crate) enum GuestMemoryError {
    #[error("Error creating guest memory from file: Failed to load guest memory: {0}")]
    File(io::Error),
    #[error(
        "Error creating guest memory from file: Failed to restore guest memory: Total sum of memory regions \
         exceeds largest possible file offset"
    )]
    TooShort,
    #[error("Error creating guest memory from uffd: Failed to connect to UDS Unix stream: {0}")]
    UffdConnect(io::Error),
    #[error("Error creating guest memory from file: Failed to restore guest memory: {0}")]
    Map(MemoryError),
    #[error(
        "Error creating guest memory from file: Cannot restore hugetlbfs backed snapshot by mapping the memory file. \
         Please use uffd."
    )]
    HugetlbfsSnapshot,
    #[error("Error creating guest memory from uffd: Failed to restore guest memory: {0}")]
    UffdMap(MemoryError),
    #[error("Error creating guest memory from uffd: Failed to UFFD object: System error")]
    UffdCreate(io::Error),
    #[error(
        "Error creating guest memory from uffd: Failed to register memory address range with the userfaultfd object: \
         System error"
    )]
    UffdRegister(io::Error),
    #[error("Error creating guest memory from uffd: Failed to sends file descriptor: {0}")]
    UffdSend(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum RestoreDeviceError {
    #[error("VsockUnixBackend: {0}")]
    Vsock(VsockUnixBackendError),
    #[error("Block: {0}")]
    Block(BlockError),
    #[error("Net: Failed to create a network device: {0}")]
    Net(NetError),
    #[error("Net: {0}")]
    OtherNet(NetworkInterfaceError),
    /// The typing error is Firecracker's.
    #[error("Pmem: Error creating Pmem devie: {0}")]
    Pmem(PmemError),
}
