//! A VMM that has failed because of its VM's limits: told as that, and not as a signal from nowhere, or a thread that could not be
//! started.

use super::{Error, Reason, Vm};
use crate::firecracker;
use crate::journal::Record;
use crate::observe::cgroup_usage::{oom_kills, refused_threads};
use crate::operation::Operation;
use crate::process::ExitStatus;

impl Vm {
    /// The error of an operation at which the VMM failed.
    pub(super) fn vmm_failed(&self, operation: Operation) -> impl Fn(firecracker::Error) -> Error + '_ {
        move |error| self.error(operation, self.why_vmm_failed(error))
    }

    /// Why the VMM failed.
    pub(super) fn why_vmm_failed(&self, error: firecracker::Error) -> Reason {
        match error {
            firecracker::Error::Exited { exit, .. } if was_out_of_memory(exit, &self.recorded()) => {
                Reason::OutOfMemory(error)
            }
            firecracker::Error::Exited { .. } | firecracker::Error::Refused { .. }
                if refused_threads(&self.recorded().own_cgroups()) > 0 =>
            {
                Reason::OutOfThreads(error)
            }
            error => error.into(),
        }
    }
}

/// Whether a VMM that has ended so was killed because of its limit. It is asked before the VM's cgroups are removed.
pub(super) fn was_out_of_memory(exit: ExitStatus, record: &Record) -> bool {
    const KILLED: i32 = libc::SIGKILL;
    matches!(exit, ExitStatus::Signal(KILLED)) && oom_kills(&record.own_cgroups()) > 0
}
