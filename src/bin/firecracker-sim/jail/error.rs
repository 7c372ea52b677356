//! Why the jailer goes no further, in its words.

use std::io;
use std::path::PathBuf;

use crate::args::{ArgumentError, IdError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum JailerError {
    #[error("Failed to parse arguments: {0}")]
    ArgumentParsing(ArgumentError),
    #[error("Failed to canonicalize path {0}: {1}")]
    Canonicalize(PathBuf, io::Error),
    #[error("Failed to inherit cgroups configurations from file {1} in path {0}")]
    CgroupInheritFromParent(PathBuf, String),
    #[error("Cgroup invalid file: {0}")]
    CgroupInvalidFile(String),
    #[error("Invalid format for cgroups: {0}")]
    CgroupFormat(String),
    #[error("Hierarchy not found: {0}")]
    CgroupHierarchyMissing(String),
    #[error("Controller {0} is unavailable")]
    CgroupControllerUnavailable(String),
    #[error("{0} is an invalid cgroup version specifier")]
    CgroupInvalidVersion(String),
    #[error("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'")]
    CgroupInvalidParentPath(),
    #[error(
        "Failed to move process to cgroup ({0}): {1}.\nHint: If you intended to create a child cgroup under \
         {0}, pass any --cgroup parameters."
    )]
    CgroupMove(PathBuf, io::Error),
    #[error("Failed to change owner for {0}: {1}")]
    ChangeFileOwner(PathBuf, io::Error),
    #[error("Failed to chdir into chroot directory: {0}")]
    ChdirNewRoot(io::Error),
    #[error("Failed to change permissions on {0}: {1}")]
    Chmod(PathBuf, io::Error),
    #[error("Failed cloning into a new child process: {0}")]
    Clone(io::Error),
    #[error("Failed to copy {0} to {1}: {2}")]
    Copy(PathBuf, PathBuf, io::Error),
    #[error("Failed to create directory {0}: {1}")]
    CreateDir(PathBuf, io::Error),
    #[error("Failed to daemonize: {0}")]
    Daemonize(io::Error),
    #[error("Failed to duplicate fd: {0}")]
    Dup2(io::Error),
    /// Until 1.12.
    #[error("Invalid filename. The filename of `--exec-file` option must contain \"firecracker\": {0}")]
    ExecFileName(String),
    #[error("Failed to exec into Firecracker: {0}")]
    Exec(io::Error),
    #[error("Failed to extract filename from path {0}")]
    ExtractFileName(PathBuf),
    #[error("Failed to open file {0}: {1}")]
    FileOpen(PathBuf, io::Error),
    #[error("Invalid gid: {0}")]
    Gid(String),
    #[error("Detected hard link at: {0}")]
    HardLink(PathBuf),
    #[error("Invalid instance ID: {0}")]
    InvalidInstanceId(IdError),
    #[error("Cannot get metadata for a file: {0}: {1}")]
    Metadata(PathBuf, io::Error),
    #[error("File {0} doesn't have a parent")]
    MissingParent(PathBuf),
    #[error("Failed to create the jail root directory before pivoting root: {0}")]
    MkdirOldRoot(io::Error),
    #[error("Failed to create {1} via mknod inside the jail: {0}")]
    MknodDev(io::Error, String),
    #[error("Failed to bind mount the jail root directory: {0}")]
    MountBind(io::Error),
    #[error("Failed to change the propagation type to slave: {0}")]
    MountPropagationSlave(io::Error),
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    #[error("Failed to open {0}: {1}")]
    Open(PathBuf, io::Error),
    #[error("Failed to pivot root: {0}")]
    PivotRoot(io::Error),
    #[error("Failed to read file {0} into a string: {1}")]
    ReadToString(PathBuf, io::Error),
    #[error("Invalid resource argument: {0}")]
    ResLimitArgument(String),
    #[error("Invalid format for resources limits: {0}")]
    ResLimitFormat(String),
    #[error("Invalid limit value for resource: {0}: {1}")]
    ResLimitValue(String, String),
    #[error("Failed to remove old jail root directory: {0}")]
    RmOldRootDir(io::Error),
    #[error("Failed to change current directory: {0}")]
    SetCurrentDir(io::Error),
    #[error("Failed to join network namespace: netns: {0}")]
    SetNetNs(io::Error),
    #[error("Failed to set limit for resource: {0}")]
    Setrlimit(String),
    #[error("Failed to daemonize: setsid: {0}")]
    SetSid(io::Error),
    #[error("Invalid uid: {0}")]
    Uid(String),
    #[error("Failed to unmount the old jail root: {0}")]
    UmountOldRoot(io::Error),
    #[error("Failed to unshare into new mount namespace: {0}")]
    UnshareNewNs(io::Error),
    #[error("Failed to write to {0}: {1}")]
    Write(PathBuf, io::Error),
}
