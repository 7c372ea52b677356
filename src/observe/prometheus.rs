//! What is known of one VM, as samples for Prometheus: what the host says of it, and what its VMM has counted.
//!
//! Gathering it is the business of others; so is the text's form.

mod core;
mod everything;

use super::cgroup_usage::{CgroupUsage, IoUsage};
use super::exposition::{Exposition, Seconds, counter, gauge, label};
use super::metrics::Known;
use super::usage::Usage;
use serde_json::Value;

/// Which samples are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Set {
    /// Those that operators watch.
    #[default]
    Core,
    /// Besides, every number that Firecracker counts.
    All,
}

/// What is known of one VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) id: &'a str,
    pub(crate) state: &'a str,
    /// Whether a VMM runs.
    pub(crate) is_up: bool,
    pub(crate) known: Option<&'a Known>,
    pub(crate) usage: Option<&'a Usage>,
    /// What is used in cgroups of its own.
    pub(crate) cgroup: Option<&'a CgroupUsage>,
    pub(crate) paging: Option<Paging>,
}

/// What the pager of a VM has done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    pub(crate) faults: u64,
    /// What was put in place for faults themselves, around them, and ahead of them.
    pub(crate) fault_bytes: u64,
    pub(crate) around_bytes: u64,
    pub(crate) ahead_bytes: u64,
    /// How much of the memory is in place, and how much there is.
    pub(crate) present_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) has_failed: bool,
}

impl Sample<'_> {
    /// Adds it to the text. No two VMs may have the same id.
    pub(crate) fn add_to(&self, exposition: &mut Exposition, set: Set) {
        let vm = label("vm", self.id);
        let state = format!("{vm},{}", label("state", self.state));
        exposition.add(gauge("mvm_vm_state", "1 for the state that the VM is in."), &state, 1);
        let help = "Whether a VMM runs for the VM.";
        exposition.add(gauge("mvm_vm_up", help), &vm, u8::from(self.is_up));
        self.usage.iter().for_each(|usage| add_usage(exposition, &vm, usage));
        self.cgroup.iter().for_each(|usage| add_cgroup(exposition, &vm, usage));
        self.paging.iter().for_each(|paging| add_paging(exposition, &vm, paging));
        let Some(Known { totals, unread }) = self.known else { return };
        let help = "Lines of metrics from Firecracker that were added up since the VM was created.";
        exposition.add(counter("mvm_vm_metrics_flushes_total", help), &vm, totals.flushes);
        let help = "Lines of metrics that were damaged, too long or too many since the VM was created.";
        exposition.add(counter("mvm_vm_metrics_damaged_total", help), &vm, totals.damaged);
        let help = "Bytes of metrics that were not read because they were too many.";
        exposition.add(counter("mvm_vm_metrics_skipped_bytes_total", help), &vm, totals.skipped);
        let help = "Bytes of metrics that Firecracker has written and that are not added up yet.";
        exposition.add(gauge("mvm_vm_metrics_unread_bytes", help), &vm, unread);
        if let Some(told_ms) = totals.document.get("utc_timestamp_ms").and_then(Value::as_u64) {
            let help = "When Firecracker has last written metrics, in seconds since 1970.";
            let told = Seconds(told_ms.saturating_mul(1000));
            exposition.add(gauge("mvm_vm_metrics_last_flush_timestamp_seconds", help), &vm, told);
        }
        core::add(exposition, &vm, totals);
        if set == Set::All {
            everything::add(exposition, &vm, &totals.document);
        }
    }
}

fn add_usage(exposition: &mut Exposition, vm: &str, usage: &Usage) {
    let help = "CPU time of the VMM process, its guest included. It begins again with each start.";
    for (mode, micros) in [("system", usage.cpu_system_us), ("user", usage.cpu_user_us)] {
        let labels = format!("{vm},{}", label("mode", mode));
        exposition.add(counter("mvm_vm_cpu_seconds_total", help), &labels, Seconds(micros));
    }
    let help = "Resident memory of the VMM process, its guest included.";
    exposition.add(gauge("mvm_vm_resident_memory_bytes", help), vm, usage.rss_bytes);
    exposition.add(gauge("mvm_vm_threads", "Threads of the VMM process."), vm, usage.threads);
}

fn add_cgroup(exposition: &mut Exposition, vm: &str, usage: &CgroupUsage) {
    let mut add = |about, value: Option<u64>| {
        value.into_iter().for_each(|value| exposition.add(about, vm, value));
    };
    let help = "Memory that the VM's cgroup uses, page cache included.";
    add(gauge("mvm_vm_cgroup_memory_bytes", help), usage.memory_bytes);
    let help = "The most memory that the VM's cgroup has used.";
    add(gauge("mvm_vm_cgroup_memory_peak_bytes", help), usage.memory_peak_bytes);
    let help = "The memory limit of the VM's cgroup.";
    add(gauge("mvm_vm_cgroup_memory_limit_bytes", help), usage.memory_limit_bytes);
    add(gauge("mvm_vm_cgroup_swap_bytes", "Swap that the VM's cgroup uses."), usage.swap_bytes);
    let help = "Processes of the VM that were killed because of its memory limit.";
    add(counter("mvm_vm_cgroup_oom_kills_total", help), usage.oom_kills);
    add(gauge("mvm_vm_cgroup_pids", "Processes and threads in the VM's cgroup."), usage.pids);
    let help = "Periods in which the VM had used up its quota of CPU time.";
    add(counter("mvm_vm_cgroup_cpu_throttled_periods_total", help), usage.cpu_throttled_periods);
    let times = [
        ("mvm_vm_cgroup_cpu_seconds_total", "CPU time of the VM's cgroup.", usage.cpu_us),
        (
            "mvm_vm_cgroup_cpu_throttled_seconds_total",
            "Time that threads of the VM have waited for its quota of CPU time.",
            usage.cpu_throttled_us,
        ),
    ];
    for (name, help, micros) in times {
        micros.into_iter().for_each(|micros| exposition.add(counter(name, help), vm, Seconds(micros)));
    }
    let Some(IoUsage { read_bytes, written_bytes, reads, writes }) = usage.io else { return };
    let families = [
        (
            "mvm_vm_cgroup_io_bytes_total",
            "Bytes that the VM has read from disks of the host and written.",
            [read_bytes, written_bytes],
        ),
        (
            "mvm_vm_cgroup_io_operations_total",
            "Reads and writes of the VM at disks of the host.",
            [reads, writes],
        ),
    ];
    for (name, help, values) in families {
        for (direction, value) in ["read", "write"].iter().zip(values) {
            let labels = format!("{vm},{}", label("direction", direction));
            exposition.add(counter(name, help), &labels, value);
        }
    }
}

fn add_paging(exposition: &mut Exposition, vm: &str, paging: &Paging) {
    let help = "Page faults that the VM's pager has served. It begins again with each pager.";
    exposition.add(counter("mvm_vm_pager_faults_total", help), vm, paging.faults);
    let help = "Bytes of memory that the pager has put in place. It begins again with each pager.";
    let parts =
        [("fault", paging.fault_bytes), ("around", paging.around_bytes), ("ahead", paging.ahead_bytes)];
    for (reason, bytes) in parts {
        let labels = format!("{vm},{}", label("reason", reason));
        exposition.add(counter("mvm_vm_pager_placed_bytes_total", help), &labels, bytes);
    }
    let help = "Bytes of the restored memory that are in place.";
    exposition.add(gauge("mvm_vm_pager_present_bytes", help), vm, paging.present_bytes);
    let help = "Bytes of the restored memory.";
    exposition.add(gauge("mvm_vm_pager_memory_bytes", help), vm, paging.memory_bytes);
    let failed = u8::from(paging.has_failed);
    exposition.add(gauge("mvm_vm_pager_failed", "Whether the pager has failed."), vm, failed);
}

#[cfg(test)]
mod tests;
