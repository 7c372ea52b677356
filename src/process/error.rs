//! What can go wrong with a child process.

use crate::sys::pidfd::Signal;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a child process could not be started, asked or ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The program did not come to run.
    #[error("cannot start {}: {step} failed", program.display())]
    Spawn {
        /// The executable.
        program: PathBuf,
        /// How far it came.
        step: SpawnStep,
        /// Why it stopped there.
        source: io::Error,
    },
    /// A control group that it was to be started in.
    #[error(
        "cannot start a process in the cgroup {}: create the directory first, let this user write to its cgroup.procs \
         (Delegate=yes in a systemd unit), and leave its cgroup.subtree_control empty",
        path.display()
    )]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mount that it was to have for itself.
    #[error("cannot start {}: mounting something at {} for it alone failed", program.display(), at.display())]
    Mount {
        /// The executable.
        program: PathBuf,
        /// Where.
        at: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A string for the child has a NUL inside.
    #[error("cannot start {}: {what} contains a NUL byte", program.display())]
    Nul {
        /// The executable.
        program: PathBuf,
        /// Which string.
        what: &'static str,
    },
    /// There is not even a name of a program.
    #[error("cannot start a process from an empty argument list: the first argument names the program")]
    NoProgram,
    /// A signal could not be sent.
    #[error("cannot send {signal:?} to process {pid}")]
    Signal {
        /// To whom.
        pid: i32,
        /// Which.
        signal: Signal,
        /// Why.
        source: io::Error,
    },
    /// The kernel would not say how the process is.
    #[error("cannot watch process {pid}")]
    Wait {
        /// Which process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// It has not ended within the time given.
    #[error("process {pid} has not ended within {after:?}")]
    StillRunning {
        /// Which process.
        pid: i32,
        /// The time given.
        after: Duration,
    },
    /// It outlived SIGKILL.
    #[error(
        "process {pid} has not ended {after:?} after SIGKILL: it is stuck in the kernel, most often in I/O on a \
         device or network file system that does not answer; it ends when that I/O ends"
    )]
    Stuck {
        /// Which process.
        pid: i32,
        /// How long it was waited for.
        after: Duration,
    },
    /// Another thread interrupted the call.
    #[error("the call on process {pid} was interrupted")]
    Interrupted {
        /// Which process.
        pid: i32,
    },
}

impl Error {
    /// What was going on, for programs.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Spawn { .. } | Self::Nul { .. } | Self::NoProgram => "spawn",
            Self::Cgroup { .. } => "cgroup",
            Self::Mount { .. } => "mount",
            Self::Signal { .. } => "signal",
            Self::Wait { .. } | Self::StillRunning { .. } | Self::Interrupted { .. } => "wait",
            Self::Stuck { .. } => "kill",
        }
    }
}

/// The steps between a command and a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnStep {
    /// Opening `/dev/null` for the standard streams that were not given.
    OpenNull,
    /// Making the process.
    Clone,
    /// Entering its working directory.
    ChangeDirectory,
    /// Giving it its standard input, output and error.
    Stdio,
    /// Executing the program.
    Execute,
}

impl fmt::Display for SpawnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenNull => "opening /dev/null",
            Self::Clone => "making the process",
            Self::ChangeDirectory => "entering its working directory",
            Self::Stdio => "giving it its standard streams",
            Self::Execute => "executing it",
        })
    }
}

impl From<crate::sys::spawn::Step> for SpawnStep {
    fn from(step: crate::sys::spawn::Step) -> Self {
        use crate::sys::spawn::Step;
        match step {
            Step::Clone => Self::Clone,
            Step::ChangeDirectory => Self::ChangeDirectory,
            Step::Stdio => Self::Stdio,
            // The cgroup and the mount are named by errors of their own.
            Step::EnterCgroup(_) | Step::Mount(_) | Step::Execute => Self::Execute,
        }
    }
}
