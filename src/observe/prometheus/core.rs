//! The numbers of Firecracker's that operators watch, under names that do not change with its versions.
//!
//! A device's own group, `block_rootfs`, has the label `device="rootfs"`. Groups of which a VM has no device are left out.

use super::super::exposition::{About, Exposition, Seconds, counter, gauge, label};
use super::super::metrics::Totals;
use serde_json::{Map, Value};

/// One family, and what it is made of.
struct Core {
    about: About<'static>,
    of: Source,
    unit: Unit,
    /// What distinguishes its samples of one VM; with one sample there is none.
    label: &'static str,
    /// The label's value, and the fields that are added up. `*_fails` is every field that ends so, `a.b` is in `a`.
    parts: &'static [(&'static str, &'static [&'static str])],
}

/// Whose numbers they are.
enum Source {
    Group(&'static str),
    /// Each device's that has a group of its own.
    Devices(&'static str),
}

#[derive(Clone, Copy)]
enum Unit {
    Count,
    /// Microseconds, told as seconds.
    Micros,
    /// The same of the last time; there is no sample when there was no such time.
    LastMicros,
}

type Parts = &'static [(&'static str, &'static [&'static str])];

const fn core(about: About<'static>, of: Source, parts: Parts) -> Core {
    Core { about, of, unit: Unit::Count, label: "", parts }
}

const fn by(label: &'static str, core: Core) -> Core {
    let Core { about, of, unit, label: _, parts } = core;
    Core { about, of, unit, label, parts }
}

const fn timed(unit: Unit, core: Core) -> Core {
    let Core { about, of, unit: _, label, parts } = core;
    Core { about, of, unit, label, parts }
}

use Source::{Devices, Group};
#[rustfmt::skip]
const CORE: &[Core] = &[
    core(counter("mvm_vm_block_read_bytes_total", "Bytes that the guest has read from the drive."), Devices("block"), &[("", &["read_bytes"])]),
    core(counter("mvm_vm_block_written_bytes_total", "Bytes that the guest has written to the drive."), Devices("block"), &[("", &["write_bytes"])]),
    core(counter("mvm_vm_block_reads_total", "Reads from the drive."), Devices("block"), &[("", &["read_count"])]),
    core(counter("mvm_vm_block_writes_total", "Writes to the drive."), Devices("block"), &[("", &["write_count"])]),
    core(counter("mvm_vm_block_flushes_total", "Flushes of the drive."), Devices("block"), &[("", &["flush_count"])]),
    timed(Unit::Micros, core(counter("mvm_vm_block_read_seconds_total", "Time that reads from the drive have taken."), Devices("block"), &[("", &["read_agg.sum_us"])])),
    timed(Unit::Micros, core(counter("mvm_vm_block_write_seconds_total", "Time that writes to the drive have taken."), Devices("block"), &[("", &["write_agg.sum_us"])])),
    core(counter("mvm_vm_block_errors_total", "Requests to the drive that were invalid or failed."), Devices("block"), &[("", &["execute_fails", "invalid_reqs_count", "event_fails"])]),
    by("by", core(counter("mvm_vm_block_throttled_total", "Times that requests to the drive had to wait for its rate limiter or the I/O engine."), Devices("block"), &[("rate_limiter", &["rate_limiter_throttled_events"]), ("io_engine", &["io_engine_throttled_events"])])),

    core(counter("mvm_vm_network_receive_bytes_total", "Bytes that the guest has received."), Devices("net"), &[("", &["rx_bytes_count"])]),
    core(counter("mvm_vm_network_receive_packets_total", "Packets that the guest has received."), Devices("net"), &[("", &["rx_packets_count"])]),
    core(counter("mvm_vm_network_receive_errors_total", "Failures to receive, or to read from the TAP."), Devices("net"), &[("", &["rx_fails", "tap_read_fails"])]),
    core(counter("mvm_vm_network_receive_no_buffer_total", "Times that a packet had to wait because the guest had no buffer for it: the TAP drops packets then."), Devices("net"), &[("", &["no_rx_avail_buffer"])]),
    core(counter("mvm_vm_network_transmit_bytes_total", "Bytes that the guest has sent."), Devices("net"), &[("", &["tx_bytes_count"])]),
    core(counter("mvm_vm_network_transmit_packets_total", "Packets that the guest has sent."), Devices("net"), &[("", &["tx_packets_count"])]),
    core(counter("mvm_vm_network_transmit_errors_total", "Failures to send, or to write to the TAP."), Devices("net"), &[("", &["tx_fails", "tap_write_fails"])]),
    by("reason", core(counter("mvm_vm_network_transmit_drops_total", "Packets of the guest that were dropped."), Devices("net"), &[("malformed", &["tx_malformed_frames"]), ("spoofed_mac", &["tx_spoofed_mac_count"])])),
    by("direction", core(counter("mvm_vm_network_throttled_total", "Times that packets had to wait for the rate limiter."), Devices("net"), &[("receive", &["rx_rate_limiter_throttled"]), ("transmit", &["tx_rate_limiter_throttled"])])),

    by("direction", core(counter("mvm_vm_vsock_bytes_total", "Bytes over vsock, as the guest sees them."), Group("vsock"), &[("receive", &["rx_bytes_count"]), ("transmit", &["tx_bytes_count"])])),
    by("direction", core(counter("mvm_vm_vsock_packets_total", "Packets over vsock, as the guest sees them."), Group("vsock"), &[("receive", &["rx_packets_count"]), ("transmit", &["tx_packets_count"])])),
    by("event", core(counter("mvm_vm_vsock_connections_total", "Connections over vsock that were added, removed or killed."), Group("vsock"), &[("added", &["conns_added"]), ("removed", &["conns_removed"]), ("killed", &["conns_killed"])])),
    core(counter("mvm_vm_vsock_errors_total", "Failures of the vsock device."), Group("vsock"), &[("", &["*_fails"])]),

    by("method", core(counter("mvm_vm_api_requests_total", "Requests that Firecracker's API has received."), Group(""), &[("get", &["get_api_requests.*_count"]), ("put", &["put_api_requests.*_count"]), ("patch", &["patch_api_requests.*_count"])])),
    by("method", core(counter("mvm_vm_api_failures_total", "Requests that Firecracker's API has refused or failed at."), Group(""), &[("put", &["put_api_requests.*_fails"]), ("patch", &["patch_api_requests.*_fails"])])),

    by("kind", core(counter("mvm_vm_vcpu_exits_total", "Exits of vCPUs to the VMM."), Group("vcpu"), &[("io_in", &["exit_io_in"]), ("io_out", &["exit_io_out"]), ("mmio_read", &["exit_mmio_read"]), ("mmio_write", &["exit_mmio_write"])])),
    core(counter("mvm_vm_vcpu_failures_total", "Failures of vCPUs."), Group("vcpu"), &[("", &["failures"])]),
    core(counter("mvm_vm_seccomp_faults_total", "System calls that seccomp has refused to Firecracker."), Group("seccomp"), &[("", &["num_faults"])]),
    core(counter("mvm_vm_panics_total", "Panics of Firecracker."), Group("vmm"), &[("", &["panic_count"])]),
    core(counter("mvm_vm_fatal_signals_total", "Signals that have ended Firecracker."), Group("signals"), &[("", &["sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sighup", "sigill"])]),

    by("direction", core(counter("mvm_vm_balloon_operations_total", "Times that the balloon was inflated or deflated."), Group("balloon"), &[("inflate", &["inflate_count"]), ("deflate", &["deflate_count"])])),
    core(counter("mvm_vm_balloon_errors_total", "Failures of the balloon."), Group("balloon"), &[("", &["*_fails"])]),

    timed(Unit::LastMicros, by("operation", core(gauge("mvm_vm_last_operation_seconds", "How long Firecracker took for the last of these operations."), Group("latencies_us"), &[("full_snapshot", &["full_create_snapshot"]), ("diff_snapshot", &["diff_create_snapshot"]), ("load_snapshot", &["load_snapshot"]), ("pause", &["pause_vm"]), ("resume", &["resume_vm"])]))),

    core(counter("mvm_vm_console_lost_writes_total", "Writes to the console that were lost."), Group("uart"), &[("", &["missed_write_count"])]),
    core(counter("mvm_vm_console_dropped_bytes_total", "Bytes of the console that its rate limiter has dropped."), Group("uart"), &[("", &["rate_limiter_dropped_bytes"])]),
    by("kind", core(counter("mvm_vm_lost_reports_total", "Metrics and log lines that Firecracker has lost."), Group("logger"), &[("metrics", &["missed_metrics_count", "metrics_fails"]), ("log", &["missed_log_count", "rate_limited_log_count"])])),
];

/// Adds what `totals` say of the VM with the label `vm`.
pub(super) fn add(exposition: &mut Exposition, vm: &str, totals: &Totals) {
    for core in CORE {
        match core.of {
            Source::Group("") => core.add(exposition, vm, Some(&totals.document)),
            Source::Group(group) => {
                core.add(exposition, vm, totals.document.get(group).and_then(Value::as_object));
            }
            Source::Devices(_) => {}
        }
    }
    for (group, fields) in &totals.document {
        let (Some((kind, device)), Some(fields)) = (group.split_once('_'), fields.as_object()) else {
            continue;
        };
        let mut cores =
            CORE.iter().filter(|core| matches!(core.of, Source::Devices(of) if of == kind)).peekable();
        if cores.peek().is_some() {
            let labels = format!("{vm},{}", label("device", device));
            cores.for_each(|core| core.add(exposition, &labels, Some(fields)));
        }
    }
}

impl Core {
    fn add(&self, exposition: &mut Exposition, labels: &str, fields: Option<&Map<String, Value>>) {
        let Some(fields) = fields else { return };
        for (value, names) in self.parts {
            let number = names.iter().map(|name| number(fields, name)).fold(0, u64::saturating_add);
            let own;
            let labels = match self.label {
                "" => labels,
                name => {
                    own = format!("{labels},{}", label(name, value));
                    &own
                }
            };
            match self.unit {
                Unit::Count => exposition.add(self.about, labels, number),
                Unit::LastMicros if number == 0 => {}
                Unit::Micros | Unit::LastMicros => exposition.add(self.about, labels, Seconds(number)),
            }
        }
    }
}

/// The number at `name`, or the sum of those that it matches; 0 for what was never told.
fn number(fields: &Map<String, Value>, name: &str) -> u64 {
    if let Some((outer, inner)) = name.split_once('.') {
        return fields.get(outer).and_then(Value::as_object).map_or(0, |fields| number(fields, inner));
    }
    match name.strip_prefix('*') {
        Some(suffix) => {
            let matching = fields.iter().filter(|(field, _)| field.ends_with(suffix));
            matching.filter_map(|(_, number)| number.as_u64()).fold(0, u64::saturating_add)
        }
        None => fields.get(name).and_then(Value::as_u64).unwrap_or_default(),
    }
}
