//! What a machine's parts can be refused for; the headings above these messages are the parent module's.

use std::io;

use thiserror::Error;

use super::VmmError;

#[derive(Debug, Error)]
#[expect(
    clippy::enum_variant_names,
    reason = "a configuration file's mistake is told with these names on stderr"
)]
pub(crate) enum BootSourceConfigError {
    #[error("The kernel file cannot be opened: {0}")]
    InvalidKernelPath(io::Error),
    #[error("The initrd file cannot be opened due to invalid path or invalid permissions. {0}")]
    InvalidInitrdPath(io::Error),
    #[error("The kernel command line is invalid: {0}")]
    InvalidKernelCommandLine(String),
}

#[derive(Debug, Error)]
pub(crate) enum MachineConfigError {
    #[error("The memory size (MiB) is smaller than the previously set balloon device target size.")]
    IncompatibleBalloonSize,
    #[error("The memory size (MiB) is either 0, or not a multiple of the configured page size.")]
    InvalidMemorySize,
    #[error(
        "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is \
         enabled."
    )]
    InvalidVcpuCount,
}

#[derive(Debug, Error)]
pub(crate) enum BalloonConfigError {
    #[error("No balloon device found.")]
    DeviceNotFound,
    #[error("Amount of pages requested is too large.")]
    TooManyPagesRequested,
}

#[derive(Debug, Error)]
pub(crate) enum BalloonError {
    #[error("Device not activated yet.")]
    DeviceNotActive,
    #[error("Attempting to use hinting when not enabled")]
    HintingNotEnabled,
    #[error("Received stats query when stats are disabled.")]
    StatisticsDisabled,
    #[error("Statistics cannot be enabled/disabled after activation.")]
    StatisticsStateChange,
    #[error("Requested memory should be less than {0}MiB")]
    TooMuchMemoryRequested(u32),
}

#[derive(Debug, Error)]
pub(crate) enum VirtioMemError {
    #[error("Size {0} is invalid: it must be a multiple of block size and less than the total size")]
    InvalidSize(usize),
    #[error("Device is not active")]
    DeviceNotActive,
}

#[derive(Debug, Error)]
pub(crate) enum DriveError {
    #[error("Attempt to add block as a root device while the root device defined as a pmem device")]
    AddingSecondRootDevice,
    #[error("Unable to create the virtio block device: {0}")]
    CreateBlockDevice(BlockError),
    #[error("Unable to patch the block device: {0} Please verify the request arguments.")]
    DeviceUpdate(VmmError),
    #[error("A root block device already exists!")]
    RootBlockDeviceAlreadyAdded,
}

#[derive(Debug, Error)]
pub(crate) enum BlockError {
    #[error("Invalid block config.")]
    InvalidBlockConfig,
    #[error("Running method expected different backend.")]
    InvalidBlockBackend,
    #[error("Virtio backend error: {0}")]
    VirtioBackend(VirtioBlockError),
    #[error("Vhost user backend error: {0}")]
    VhostUserBackend(VhostUserBlockError),
}

#[derive(Debug, Error)]
pub(crate) enum VirtioBlockError {
    #[error("Error manipulating the backing file: {0} {1}")]
    BackingFile(io::Error, String),
}

#[derive(Debug, Error)]
pub(crate) enum VhostUserBlockError {
    #[error("Vhost-user error: Failed to connect to UDS Unix stream: {0}")]
    VhostUser(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum PmemConfigError {
    #[error("Attempt to add pmem as a root device while the root device defined as a block device")]
    AddingSecondRootDevice,
    #[error("A root pmem device already exist")]
    RootPmemDeviceAlreadyExist,
    #[error("Unable to create the virtio-pmem device: {0}")]
    CreateDevice(PmemError),
    #[error("Unable to patch the pmem device: {0} Please verify the request arguments.")]
    DeviceUpdate(VmmError),
}

#[derive(Debug, Error)]
pub(crate) enum PmemError {
    #[error("Error accessing backing file: {0}")]
    BackingFile(io::Error),
    #[error("Error backing file size is 0")]
    BackingFileZeroSize,
}

#[derive(Debug, Error)]
pub(crate) enum NetworkInterfaceError {
    #[error("Could not create the network device: {0}")]
    CreateNetworkDevice(#[from] NetError),
    #[error("Unable to update the net device: {0}")]
    DeviceUpdate(VmmError),
    #[error("The MAC address is already in use: {0}")]
    GuestMacAddressInUse(String),
}

#[derive(Debug, Error)]
pub(crate) enum NetError {
    #[error("Open tap device failed: {0}")]
    TapOpen(#[from] TapError),
    #[error("MTU {0} is out of range [68, 65535]")]
    InvalidMtu(u16),
}

#[derive(Debug, Error)]
pub(crate) enum TapError {
    #[error("Invalid interface name")]
    InvalidIfname,
    #[error(
        "Error while creating ifreq structure: {0}. Invalid TUN/TAP Backend provided by {1}. Check our \
         documentation on setting up the network devices."
    )]
    IfreqExecuteError(io::Error, String),
}

#[derive(Debug, Error)]
pub(crate) enum VsockConfigError {
    #[error("Cannot create backend for vsock device: {0}")]
    CreateVsockBackend(#[from] VsockUnixBackendError),
}

#[derive(Debug, Error)]
pub(crate) enum VsockUnixBackendError {
    #[error("Error binding to the host-side Unix socket: {0}")]
    UnixBind(io::Error),
}

#[derive(Debug, Error)]
pub(crate) enum MmdsDatastoreError {
    #[error("The MMDS patch request doesn't fit.")]
    DataStoreLimitExceeded,
    #[error("The MMDS data store is not initialized.")]
    NotInitialized,
}

#[derive(Debug, Error)]
pub(crate) enum MmdsConfigError {
    #[error("The list of network interface IDs that allow forwarding MMDS requests is empty.")]
    EmptyNetworkIfaceList,
    #[error("The MMDS IPv4 address is not link local.")]
    InvalidIpv4Addr,
    #[error(
        "The list of network interface IDs provided contains at least one ID that does not correspond to any \
         existing network interface."
    )]
    InvalidNetworkInterfaceId,
}

#[derive(Debug, Error)]
pub(crate) enum MemoryHotplugConfigError {
    #[error("Block size must not be lower than {0} MiB")]
    BlockSizeTooSmall(usize),
    #[error("Block size must be a power of 2")]
    BlockSizeNotPowerOfTwo,
    #[error("Slot size must not be lower than {0} MiB")]
    SlotSizeTooSmall(usize),
    #[error("Slot size must be a multiple of block size ({0} MiB)")]
    SlotSizeNotMultipleOfBlockSize(usize),
    #[error("Total size must not be lower than slot size ({0} MiB)")]
    TotalSizeTooSmall(usize),
    #[error("Total size must be a multiple of slot size ({0} MiB)")]
    TotalSizeNotMultipleOfSlotSize(usize),
}
