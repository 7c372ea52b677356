//! What can go wrong, with the wording of Firecracker's fault messages (`Display`) and of its last words on
//! stderr (`Debug`): both are what a caller sees, so names and texts follow Firecracker's letter for letter.

use std::io;

use thiserror::Error;

use crate::args::ArgumentError;
use crate::log::{LevelFilterFromStrError, LoggerUpdateError};
use crate::metrics::MetricsConfigError;

mod device;
mod snapshot;

pub(crate) use device::*;
pub(crate) use snapshot::*;

/// What ends the process with an exit code other than 0.
#[derive(Debug, Error)]
pub(crate) enum MainError {
    #[error("Arguments parsing error: {0} \\n\\nFor more information try --help.")]
    ParseArguments(#[from] ArgumentError),
    #[error("When printing Snapshot Data format: {0}")]
    PrintSnapshotDataFormat(#[from] SnapshotVersionError),
    #[error("Invalid value for logger level: {0}.Possible values: [Error, Warning, Info, Debug]")]
    InvalidLogLevel(LevelFilterFromStrError),
    #[error("Could not initialize logger: {0}")]
    LoggerInitialization(LoggerUpdateError),
    #[error("Could not initialize metrics: {0}")]
    MetricsInitialization(MetricsConfigError),
    #[error("Seccomp error: {0}")]
    SeccompFilter(FilterError),
    #[error("RunWithApiError error: {0}")]
    RunWithApi(ApiServerError),
    #[error("RunWithoutApiError error: {0}")]
    RunWithoutApiError(RunWithoutApiError),
    /// The simulator's own: what it cannot set up on this host.
    #[error("Simulator error: {0}")]
    Simulator(io::Error),
}

/// Firecracker's exit codes that it names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    GenericError = 1,
    UnexpectedError = 2,
    BadConfiguration = 152,
    ArgParsing = 153,
}

#[derive(Debug, Error)]
pub(crate) enum FilterError {
    #[error("Filter file open error: {0}")]
    FileOpen(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum SnapshotVersionError {
    #[error("Unable to open snapshot state file: {0}")]
    OpenSnapshot(io::Error),
    #[error("Invalid data format version of snapshot file: {0}")]
    SnapshotVersion(SnapshotError),
}

#[derive(Debug, Error)]
pub(crate) enum ApiServerError {
    #[error("Failed to open the API socket at: {0}. Check that it is not already used.")]
    FailedToBindSocket(String),
    #[error("Failed to bind and run the HTTP server: {0}")]
    FailedToBindAndRunHttpServer(ServerError),
    #[error("Failed to build MicroVM from Json: {0}")]
    BuildFromJson(BuildFromJsonError),
    #[error("Failed to build MicroVM: {0}.")]
    BuildMicroVmError(BuildMicrovmError),
    #[error("MicroVM stopped with an error: {0:?}")]
    MicroVMStoppedWithError(ExitCode),
}

#[derive(Debug, Error)]
pub(crate) enum ServerError {
    #[error("IO error: {0}")]
    IOError(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum RunWithoutApiError {
    #[error("MicroVMStopped without an error: {0:?}")]
    Shutdown(ExitCode),
    #[error("Failed to build MicroVM from Json: {0}")]
    BuildMicroVMFromJson(BuildFromJsonError),
}

#[derive(Debug, Error)]
pub(crate) enum BuildFromJsonError {
    #[error("Configuration for VMM from one single json failed: {0}")]
    ParseFromJson(ResourcesError),
    #[error("Could not Start MicroVM from one single json: {0}")]
    StartMicroVM(StartMicrovmError),
}

#[derive(Debug, Error)]
pub(crate) enum BuildMicrovmError {
    #[error("Populating MMDS from file failed: {0}.")]
    PopulateMmds(MmdsDatastoreError),
    #[error("Loading snapshot failed.")]
    Restore,
}

/// The errors of a configuration file; the same causes have other headings when they come by the API.
#[derive(Debug, Error)]
pub(crate) enum ResourcesError {
    #[error("Balloon device error: {0}")]
    BalloonDevice(#[from] BalloonConfigError),
    #[error("Block device error: {0}")]
    BlockDevice(#[from] DriveError),
    #[error("Boot source error: {0}")]
    BootSource(#[from] BootSourceConfigError),
    #[error("File operation error: {0}")]
    File(io::Error),
    #[error("Invalid JSON: {0}")]
    InvalidJson(#[from] serde_json::Error),
    #[error("Logger error: {0}")]
    Logger(#[from] LoggerUpdateError),
    #[error("Metrics error: {0}")]
    Metrics(#[from] MetricsConfigError),
    #[error("MMDS error: {0}")]
    Mmds(#[from] MmdsDatastoreError),
    #[error("MMDS config error: {0}")]
    MmdsConfig(#[from] MmdsConfigError),
    #[error("Network device error: {0}")]
    NetDevice(#[from] NetworkInterfaceError),
    #[error("VM config error: {0}")]
    MachineConfig(#[from] MachineConfigError),
    #[error("Vsock device error: {0}")]
    VsockDevice(#[from] VsockConfigError),
    #[error("Pmem device error: {0}")]
    PmemConfig(#[from] PmemConfigError),
    #[error("Memory hotplug config error: {0}")]
    MemoryHotplugConfig(#[from] MemoryHotplugConfigError),
}

/// What an API request can fail with once its body was understood.
#[derive(Debug, Error)]
pub(crate) enum ActionError {
    #[error("Balloon config error: {0}")]
    BalloonConfig(#[from] BalloonConfigError),
    #[error("Balloon update error: {0}")]
    BalloonUpdate(VmmError),
    #[error("Boot source error: {0}")]
    BootSource(#[from] BootSourceConfigError),
    #[error("Create snapshot error: {0}")]
    CreateSnapshot(#[from] CreateSnapshotError),
    #[error("Drive config error: {0}")]
    DriveConfig(#[from] DriveError),
    #[error("Pmem config error: {0}")]
    PmemConfig(#[from] PmemConfigError),
    #[error("Memory hotplug config error: {0}")]
    MemoryHotplugConfig(#[from] MemoryHotplugConfigError),
    #[error("Memory hotplug update error: {0}")]
    MemoryHotplugUpdate(VmmError),
    #[error("Internal VMM error: {0}")]
    InternalVmm(VmmError),
    #[error("Load snapshot error: {0}")]
    LoadSnapshot(#[from] LoadSnapshotError),
    #[error("Logger error: {0}")]
    Logger(#[from] LoggerUpdateError),
    #[error("Machine config error: {0}")]
    MachineConfig(#[from] MachineConfigError),
    #[error("Metrics error: {0}")]
    Metrics(#[from] MetricsConfigError),
    #[error("MMDS error: {0}")]
    Mmds(MmdsDatastoreError),
    #[error("MMMDS config error: {0}")]
    MmdsConfig(#[from] MmdsConfigError),
    #[error("MMDS limit exceeded error: {0}")]
    MmdsLimitExceeded(MmdsDatastoreError),
    #[error("Network config error: {0}")]
    NetworkConfig(#[from] NetworkInterfaceError),
    #[error(
        "The requested operation is not supported: Diff snapshots are not allowed on uVMs with dirty page tracking \
         disabled."
    )]
    UntrackedDiff,
    #[error("The requested operation is not supported after starting the microVM.")]
    OperationNotSupportedPostBoot,
    #[error("The requested operation is not supported before starting the microVM.")]
    OperationNotSupportedPreBoot,
    #[error("Start microvm error: {0}")]
    StartMicrovm(#[from] StartMicrovmError),
    #[error("Vsock config error: {0}")]
    VsockConfig(#[from] VsockConfigError),
    #[error("Device ID in use")]
    DeviceIdInUse,
    #[error("Device not found")]
    DeviceNotFound,
    #[error("Cannot unplug root device")]
    CannotUnplugRootDevice,
    #[error("PCI is not enabled")]
    PciNotEnabled,
}

impl From<MmdsDatastoreError> for ActionError {
    fn from(error: MmdsDatastoreError) -> Self {
        match error {
            MmdsDatastoreError::DataStoreLimitExceeded => Self::MmdsLimitExceeded(error),
            MmdsDatastoreError::NotInitialized => Self::Mmds(error),
        }
    }
}

#[derive(Debug, Error)]
pub(crate) enum VmmError {
    #[error("Failed perform action on device: Device not found")]
    FindDeviceError,
    #[error("Failed to message the vCPUs.")]
    VcpuMessage,
    #[error("Metrics error: {0}")]
    Metrics(io::Error),
    #[error("Block: {0}")]
    Block(#[from] BlockError),
    #[error("Balloon: {0}")]
    Balloon(#[from] BalloonError),
    #[error("Failed to create memory hotplug device: {0}")]
    VirtioMem(#[from] VirtioMemError),
}

#[derive(Debug, Error)]
pub(crate) enum StartMicrovmError {
    #[error("Invalid Memory Configuration: {0}")]
    GuestMemory(MemoryError),
    #[error("Cannot start microvm without kernel configuration.")]
    MissingKernelConfig,
    #[error("Failed to create device manager: {0}")]
    CreateDeviceManager(DeviceManagerError),
    #[error("System configuration error: {0}")]
    ConfigureSystem(ConfigurationError),
    #[error("Cannot create pmem device: {0}")]
    CreatePmemDevice(PmemError),
}

#[derive(Debug, Error)]
pub(crate) enum DeviceManagerError {
    /// Firecracker's heading for a serial console's file that it cannot open.
    #[error("Error with EventFd: {0}")]
    EventFd(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum ConfigurationError {
    #[error("Cannot load kernel due to invalid memory configuration or invalid kernel image: {0}")]
    KernelLoader(KernelLoaderError),
}

#[derive(Debug, Error)]
pub(crate) enum KernelLoaderError {
    #[error("Kernel Loader: failed to load ELF kernel image: {0}")]
    Elf(ElfError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ElfError {
    #[error("Kernel Loader: Unable to read elf header")]
    ReadElfHeader,
    #[error("Kernel Loader: Invalid Elf magic number")]
    InvalidElfMagicNumber,
    #[error("Kernel Loader: Trying to load big-endian binary on little-endian machine")]
    BigEndianElfOnLittle,
    #[error("Kernel Loader: Invalid program header size")]
    InvalidProgramHeaderSize,
    #[error("Kernel Loader: Invalid program header offset")]
    InvalidProgramHeaderOffset,
    #[error("Kernel Loader: Invalid entry address")]
    InvalidEntryAddress,
    #[error("Kernel Loader: Unable to read program header")]
    ReadProgramHeader,
    #[error("Kernel Loader: Unable to read kernel image")]
    ReadKernelImage,
}
