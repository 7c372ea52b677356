//! The metrics, in the shape Firecracker writes them: what happened since the last line, one JSON object a
//! line. The simulator counts what it does itself; what only a real device could count stays 0.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::log::open_without_blocking;
use mvm::sys::sync::lock;

/// The body of `PUT /metrics`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct MetricsConfig {
    pub(crate) metrics_path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsConfigError {
    #[error("Cannot initialize the metrics system due to bad user input: {0}")]
    InitializationFailure(String),
}

#[derive(Default)]
struct Metrics {
    file: Option<File>,
    /// Keyed by group and field; a group may be a device's own (`block_rootfs`).
    counters: HashMap<(String, &'static str), u64>,
    /// Devices that have a group of their own, in the order they came: the general group's name, and their
    /// own.
    devices: Vec<(&'static str, String)>,
}

static METRICS: LazyLock<Mutex<Metrics>> = LazyLock::new(Mutex::default);

/// The groups and their fields, in Firecracker's order.
#[rustfmt::skip]
const GROUPS: &[(&str, &str)] = &[
    ("api_server", "process_startup_time_us process_startup_time_cpu_us"),
    (
        "balloon",
        "activate_fails inflate_count stats_updates_count stats_update_fails deflate_count \
         event_fails free_page_report_count free_page_report_freed free_page_report_fails \
         free_page_hint_count free_page_hint_freed free_page_hint_fails",
    ),
    (
        "block",
        "activate_fails cfg_fails no_avail_buffer event_fails execute_fails invalid_reqs_count \
         flush_count queue_event_count rate_limiter_event_count update_count update_fails read_bytes \
         write_bytes read_count write_count read_agg write_agg rate_limiter_throttled_events \
         io_engine_throttled_events remaining_reqs_count",
    ),
    ("deprecated_api", "deprecated_http_api_calls"),
    (
        "get_api_requests",
        "instance_info_count machine_cfg_count mmds_count vmm_version_count hotplug_memory_count",
    ),
    (
        "i8042",
        "error_count missed_read_count missed_write_count read_count reset_count write_count",
    ),
    (
        "uart",
        "error_count flush_count missed_read_count missed_write_count read_count write_count \
         rate_limiter_dropped_bytes",
    ),
    (
        "latencies_us",
        "full_create_snapshot diff_create_snapshot load_snapshot pause_vm resume_vm \
         vmm_full_create_snapshot vmm_diff_create_snapshot vmm_load_snapshot vmm_pause_vm \
         vmm_resume_vm",
    ),
    ("logger", "missed_metrics_count metrics_fails missed_log_count rate_limited_log_count"),
    (
        "mmds",
        "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token rx_no_token \
         rx_count tx_bytes tx_count tx_errors tx_frames connections_created connections_destroyed",
    ),
    (
        "net",
        "activate_fails cfg_fails mac_address_updates no_rx_avail_buffer no_tx_avail_buffer \
         event_fails rx_queue_event_count rx_event_rate_limiter_count rx_rate_limiter_throttled \
         rx_tap_event_count rx_bytes_count rx_packets_count rx_fails rx_count tap_read_fails \
         tap_write_fails tap_write_agg tx_bytes_count tx_malformed_frames tx_fails tx_count \
         tx_packets_count tx_queue_event_count tx_rate_limiter_event_count tx_rate_limiter_throttled \
         tx_spoofed_mac_count tx_remaining_reqs_count",
    ),
    (
        "patch_api_requests",
        "drive_count drive_fails network_count network_fails machine_cfg_count machine_cfg_fails \
         mmds_count mmds_fails hotplug_memory_count hotplug_memory_fails pmem_count pmem_fails",
    ),
    (
        "put_api_requests",
        "actions_count actions_fails boot_source_count boot_source_fails drive_count drive_fails \
         logger_count logger_fails machine_cfg_count machine_cfg_fails cpu_cfg_count cpu_cfg_fails \
         metrics_count metrics_fails network_count network_fails mmds_count mmds_fails vsock_count \
         vsock_fails pmem_count pmem_fails serial_count serial_fails hotplug_memory_count \
         hotplug_memory_fails",
    ),
    ("seccomp", "num_faults"),
    (
        "vcpu",
        "exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures kvmclock_ctrl_fails \
         exit_io_in_agg exit_io_out_agg exit_mmio_read_agg exit_mmio_write_agg",
    ),
    ("vmm", "panic_count"),
    ("signals", "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill"),
    (
        "vsock",
        "activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails ev_queue_event_fails \
         muxer_event_fails conn_event_fails rx_queue_event_count tx_queue_event_count rx_bytes_count \
         tx_bytes_count rx_packets_count tx_packets_count conns_added conns_killed conns_removed \
         killq_resync tx_flush_fails tx_write_fails rx_read_fails",
    ),
    (
        "entropy",
        "activate_fails entropy_event_fails entropy_event_count entropy_bytes host_rng_fails \
         entropy_rate_limiter_throttled rate_limiter_event_count",
    ),
    (
        "pmem",
        "activate_fails cfg_fails event_fails queue_event_count rate_limiter_throttled_events \
         rate_limiter_event_count",
    ),
    ("interrupts", "triggers config_updates"),
    (
        "memory_hotplug",
        "activate_fails queue_event_fails queue_event_count plug_agg plug_count plug_bytes plug_fails \
         unplug_agg unplug_count unplug_bytes unplug_fails unplug_discard_fails unplug_all_agg \
         unplug_all_count unplug_all_fails state_agg state_count state_fails",
    ),
];

/// These keep their value from one line to the next: they say how much, not how often.
const STORED: &[&str] = &["api_server", "latencies_us", "seccomp", "signals", "vmm"];

/// How often a started machine writes its metrics unasked.
const PERIOD: Duration = Duration::from_secs(60);

/// Where `FlushMetrics` writes to. It can be set once.
pub(crate) fn configure(config: &MetricsConfig) -> Result<(), MetricsConfigError> {
    let file = open_without_blocking(&config.metrics_path)
        .map_err(|error| MetricsConfigError::InitializationFailure(error.to_string()))?;
    let mut metrics = lock(&METRICS);
    if metrics.file.is_some() {
        let reason = "Reinitialization of metrics not allowed.".to_owned();
        return Err(MetricsConfigError::InitializationFailure(reason));
    }
    metrics.file = Some(file);
    Ok(())
}

pub(crate) fn count(group: &str, field: &'static str) {
    add(group, field, 1);
}

pub(crate) fn add(group: &str, field: &'static str, amount: u64) {
    *lock(&METRICS).counters.entry((group.to_owned(), field)).or_default() += amount;
}

pub(crate) fn store(group: &str, field: &'static str, value: u64) {
    lock(&METRICS).counters.insert((group.to_owned(), field), value);
}

pub(crate) fn store_elapsed(field: &'static str, elapsed: Duration) -> u64 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    store("latencies_us", field, micros);
    micros
}

/// Gives a device a group of its own beside the general one.
pub(crate) fn add_device(group: &'static str, id: &str) {
    let own = format!("{group}_{id}");
    let mut metrics = lock(&METRICS);
    if !metrics.devices.iter().any(|(_, known)| *known == own) {
        metrics.devices.push((group, own));
    }
}

/// Writes one line, if a file was set, and starts to count afresh.
pub(crate) fn flush() -> std::io::Result<()> {
    let mut metrics = lock(&METRICS);
    let line = metrics.line(SystemTime::now());
    let Some(file) = &mut metrics.file else { return Ok(()) };
    file.write_all(line.as_bytes())?;
    metrics.counters.retain(|(group, field), _| is_stored(group, field));
    Ok(())
}

/// Calls `write` once a period, from now on until the process ends.
pub(crate) fn write_periodically(write: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let periods = move || {
        loop {
            thread::sleep(PERIOD);
            write();
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(periods).map(drop)
}

impl Metrics {
    fn line(&self, now: SystemTime) -> String {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = format!("{{\"utc_timestamp_ms\":{}", since.as_millis());
        for (group, fields) in GROUPS {
            for (_, own) in self.devices.iter().filter(|(general, _)| general == group) {
                self.write_group(&mut line, own, fields);
            }
            self.write_group(&mut line, group, fields);
        }
        line.push_str("}\n");
        line
    }

    fn write_group(&self, line: &mut String, group: &str, fields: &'static str) {
        // Writing to a string cannot fail.
        let _ = write!(line, ",\"{group}\":{{");
        for (index, field) in fields.split(' ').enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = if field.ends_with("_agg") {
                write!(line, "{comma}\"{field}\":{{\"min_us\":0,\"max_us\":0,\"sum_us\":0}}")
            } else {
                let value = self.counters.get(&(group.to_owned(), field)).copied().unwrap_or_default();
                write!(line, "{comma}\"{field}\":{value}")
            };
        }
        line.push('}');
    }
}

/// SIGPIPE is the one signal that ends nothing, and so the one that is counted.
fn is_stored(group: &str, field: &str) -> bool {
    STORED.contains(&group) && field != "sigpipe"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_with_a_group_for_each_device() {
        let mut metrics = Metrics::default();
        metrics.devices.push(("block", "block_rootfs".to_owned()));
        metrics.counters.insert(("put_api_requests".to_owned(), "drive_count"), 3);
        let line = metrics.line(UNIX_EPOCH + Duration::from_millis(5));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["utc_timestamp_ms"], 5);
        assert_eq!(json["put_api_requests"]["drive_count"], 3);
        assert_eq!(json["block_rootfs"]["read_agg"]["max_us"], 0);
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn of_the_signals_only_sigpipe_is_counted_afresh() {
        assert!(is_stored("signals", "sighup") && is_stored("seccomp", "num_faults"));
        assert!(!is_stored("signals", "sigpipe") && !is_stored("uart", "write_count"));
    }
}
