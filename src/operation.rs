//! What a caller can want done: one list, so that an error, a busy VM and a log line call it the same.

use std::fmt;

/// An operation on a VM, or on something that VMs are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a runtime.
    OpenRuntime,
    /// Looking at what a host can do.
    Check,
    /// Finding a VM by its id.
    Open,
    /// Creating a VM.
    Create,
    /// Taking over a VM of a former owner.
    Adopt,
    /// Removing what former owners left.
    Reap,
    /// Starting a guest.
    Start,
    /// Pausing a guest.
    Pause,
    /// Resuming a guest.
    Resume,
    /// Sending a request to the VMM.
    Request,
    /// Shutting a VM down.
    Shutdown,
    /// Killing a VM.
    Kill,
    /// Waiting for the end of a VM.
    Wait,
    /// Giving a descriptor for the end of a VM.
    WatchExit,
    /// Destroying a VM.
    Destroy,
    /// Giving a VM another id.
    Rename,
    /// Keeping something for a VM's owner.
    SetOwnerData,
    /// Saying what a VM is.
    Describe,
    /// Reading a console.
    ReadConsole,
    /// Reading metrics.
    Metrics,
    /// Reading the metrics of all VMs.
    RuntimeMetrics,
    /// Having the VMM write its metrics.
    FlushMetrics,
    /// Taking a snapshot.
    Snapshot,
    /// Saying what a snapshot is.
    SnapshotInfo,
    /// Deleting a snapshot.
    DeleteSnapshot,
    /// Checking a snapshot's files.
    VerifySnapshot,
    /// Making a diff a full snapshot.
    MergeSnapshot,
    /// Restoring a VM.
    Restore,
    /// Cloning a snapshot.
    Clone,
    /// Storing a working set.
    StoreWorkingSet,
    /// Opening a pool.
    OpenPool,
    /// Taking a VM out of a pool.
    Take,
    /// Setting a balloon.
    SetBalloon,
    /// Reading a balloon's statistics.
    BalloonStatistics,
    /// Changing how much memory is plugged in.
    HotplugMemory,
    /// Changing a drive.
    UpdateDrive,
    /// Changing a network interface.
    UpdateNetwork,
    /// Attaching a device.
    AttachDevice,
    /// Detaching a device.
    DetachDevice,
}

impl Operation {
    /// The name that programs know it by: that of the C function without its prefix.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What a sentence says after "cannot", before the thing it is done to.
    pub fn phrase(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenRuntime => ("runtime_open", "open"),
            Self::Check => ("runtime_check", "check the host of"),
            Self::Open => ("open", "open"),
            Self::Create => ("create", "create"),
            Self::Adopt => ("adopt", "adopt"),
            Self::Reap => ("runtime_reap", "reap"),
            Self::Start => ("start", "start"),
            Self::Pause => ("pause", "pause"),
            Self::Resume => ("resume", "resume"),
            Self::Request => ("request", "send a request to"),
            Self::Shutdown => ("shutdown", "shut down"),
            Self::Kill => ("kill", "kill"),
            Self::Wait => ("wait", "wait for"),
            Self::WatchExit => ("exit_fd", "watch"),
            Self::Destroy => ("destroy", "destroy"),
            Self::Rename => ("rename", "rename"),
            Self::SetOwnerData => ("owner_data_set", "set the owner data of"),
            Self::Describe => ("info", "describe"),
            Self::ReadConsole => ("console_read", "read the console of"),
            Self::Metrics => ("metrics", "read the metrics of"),
            Self::RuntimeMetrics => ("runtime_metrics", "read the metrics of"),
            Self::FlushMetrics => ("metrics_flush", "flush the metrics of"),
            Self::Snapshot => ("snapshot_create", "take a snapshot of"),
            Self::SnapshotInfo => ("snapshot_info", "describe"),
            Self::DeleteSnapshot => ("snapshot_delete", "delete"),
            Self::VerifySnapshot => ("snapshot_verify", "verify"),
            Self::MergeSnapshot => ("snapshot_merge", "merge"),
            Self::Restore => ("restore", "restore"),
            Self::Clone => ("clone", "clone"),
            Self::StoreWorkingSet => ("working_set_store", "store the working set of"),
            Self::OpenPool => ("pool_open", "open"),
            Self::Take => ("pool_take", "take"),
            Self::SetBalloon => ("balloon_set", "set the balloon of"),
            Self::BalloonStatistics => ("balloon_statistics", "read the balloon statistics of"),
            Self::HotplugMemory => ("memory_hotplug", "hotplug memory of"),
            Self::UpdateDrive => ("drive_update", "update a drive of"),
            Self::UpdateNetwork => ("network_update", "update a network interface of"),
            Self::AttachDevice => ("device_attach", "attach a device to"),
            Self::DetachDevice => ("device_detach", "detach a device from"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phrase())
    }
}
