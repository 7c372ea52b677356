//! What the samples of a VM are called, and that they can be read whatever a VMM says.

use super::super::exposition::tests::{Parsed, parse};
use super::super::metrics::Totals;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn known(document: Value) -> Known {
    let Value::Object(document) = document else { panic!("not an object") };
    let mut totals = Totals::default();
    (totals.flushes, totals.damaged, totals.skipped, totals.document) = (2, 1, 9, document);
    Known { totals, unread: 7 }
}

fn sample<'a>(id: &'a str, known: &'a Known) -> Sample<'a> {
    Sample { id, state: "running", is_up: true, known: Some(known), usage: None, cgroup: None, paging: None }
}

fn text(set: Set, samples: &[Sample<'_>]) -> String {
    let mut exposition = Exposition::default();
    samples.iter().for_each(|sample| sample.add_to(&mut exposition, set));
    exposition.text()
}

fn named<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(beginning)).collect()
}

#[test]
fn the_host_tells_state_and_usage() {
    let usage = Usage { cpu_user_us: 1_500_000, cpu_system_us: 20_000, rss_bytes: 4096, threads: 3 };
    let paging = Paging {
        faults: 3,
        fault_bytes: 0,
        around_bytes: 0,
        ahead_bytes: 4096,
        present_bytes: 8192,
        memory_bytes: 32768,
        has_failed: false,
    };
    let io = IoUsage { read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
    let cgroup = CgroupUsage {
        memory_bytes: Some(4096),
        oom_kills: Some(1),
        cpu_us: Some(1_500_000),
        cpu_throttled_us: None,
        io: Some(io),
        ..CgroupUsage::default()
    };
    let known = known(json!({ "utc_timestamp_ms": 1_700_000_000_250_u64 }));
    let sample =
        Sample { usage: Some(&usage), cgroup: Some(&cgroup), paging: Some(paging), ..sample("a", &known) };
    let text = text(Set::Core, &[sample]);
    for line in [
        "mvm_vm_state{vm=\"a\",state=\"running\"} 1",
        "mvm_vm_up{vm=\"a\"} 1",
        "mvm_vm_cpu_seconds_total{vm=\"a\",mode=\"system\"} 0.020000",
        "mvm_vm_cpu_seconds_total{vm=\"a\",mode=\"user\"} 1.500000",
        "mvm_vm_resident_memory_bytes{vm=\"a\"} 4096",
        "mvm_vm_threads{vm=\"a\"} 3",
        "mvm_vm_cgroup_memory_bytes{vm=\"a\"} 4096",
        "mvm_vm_cgroup_oom_kills_total{vm=\"a\"} 1",
        "mvm_vm_cgroup_cpu_seconds_total{vm=\"a\"} 1.500000",
        "mvm_vm_cgroup_io_bytes_total{vm=\"a\",direction=\"write\"} 2",
        "mvm_vm_cgroup_io_operations_total{vm=\"a\",direction=\"read\"} 3",
        "mvm_vm_pager_faults_total{vm=\"a\"} 3",
        "mvm_vm_pager_placed_bytes_total{vm=\"a\",reason=\"ahead\"} 4096",
        "mvm_vm_pager_present_bytes{vm=\"a\"} 8192",
        "mvm_vm_pager_memory_bytes{vm=\"a\"} 32768",
        "mvm_vm_pager_failed{vm=\"a\"} 0",
        "mvm_vm_metrics_flushes_total{vm=\"a\"} 2",
        "mvm_vm_metrics_damaged_total{vm=\"a\"} 1",
        "mvm_vm_metrics_skipped_bytes_total{vm=\"a\"} 9",
        "mvm_vm_metrics_unread_bytes{vm=\"a\"} 7",
        "mvm_vm_metrics_last_flush_timestamp_seconds{vm=\"a\"} 1700000000.250000",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
    assert!(!text.contains("throttled"), "what no cgroup tells is left out: {text}");
    parse(&text);
}

#[test]
fn the_core_has_names_of_its_own_and_a_label_for_each_device() {
    let known = known(json!({
        "block": { "read_bytes": 3 },
        "block_rootfs": { "read_bytes": 1, "read_agg": { "sum_us": 2500 }, "execute_fails": 1, "event_fails": 2 },
        "block_data_1": { "read_bytes": 2, "io_engine_throttled_events": 4 },
        "put_api_requests": { "drive_count": 5, "drive_fails": 1, "actions_count": 2 },
        "vcpu": { "exit_io_in": 8, "exit_io_out_agg": { "sum_us": 9 } },
        "latencies_us": { "pause_vm": 1500, "resume_vm": 0 },
        "signals": { "sigsegv": 1, "sigpipe": 5 },
    }));
    let text = text(Set::Core, &[sample("a", &known)]);
    for line in [
        r#"mvm_vm_block_read_bytes_total{vm="a",device="data_1"} 2"#,
        r#"mvm_vm_block_read_bytes_total{vm="a",device="rootfs"} 1"#,
        r#"mvm_vm_block_read_seconds_total{vm="a",device="rootfs"} 0.002500"#,
        r#"mvm_vm_block_errors_total{vm="a",device="rootfs"} 3"#,
        r#"mvm_vm_block_throttled_total{vm="a",device="data_1",by="io_engine"} 4"#,
        r#"mvm_vm_api_requests_total{vm="a",method="put"} 7"#,
        r#"mvm_vm_api_failures_total{vm="a",method="put"} 1"#,
        r#"mvm_vm_vcpu_exits_total{vm="a",kind="io_in"} 8"#,
        r#"mvm_vm_last_operation_seconds{vm="a",operation="pause"} 0.001500"#,
        r#"mvm_vm_fatal_signals_total{vm="a"} 1"#,
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
    assert_eq!(named(&text, "mvm_vm_block_read_bytes_total").len(), 2);
    assert_eq!(named(&text, "mvm_vm_last_operation_seconds").len(), 1);
    assert!(named(&text, "mvm_vm_network").is_empty() && named(&text, "mvm_firecracker").is_empty());
    assert!(text.contains("# TYPE mvm_vm_last_operation_seconds gauge\n"));
    parse(&text);
}

#[test]
fn everything_has_firecrackers_names_and_the_units_of_prometheus() {
    let with = known(json!({
        "utc_timestamp_ms": 5000, "uart": { "write_count": 7, "word": "x" },
        "vcpu": { "exit_agg": { "min_us": 3, "sum_us": 2_000_000 } }, "latencies_us": { "pause_vm": 1500 },
        "block": { "read_bytes": 3 }, "block_rootfs": { "read_bytes": 1 }, "block_data_1": { "read_bytes": 2 },
        "net": { "rx_count": 4 }, "vhost_user_block_a": { "init_time_us": 5 },
    }));
    let without = known(json!({ "block": { "read_bytes": 0 } }));
    let text = text(Set::All, &[sample("b", &without), sample("a", &with)]);
    let wanted = [
        r#"mvm_firecracker_block_read_bytes_total{vm="b"} 0"#,
        r#"mvm_firecracker_block_read_bytes_total{vm="a",device="data_1"} 2"#,
        r#"mvm_firecracker_block_read_bytes_total{vm="a",device="rootfs"} 1"#,
        r#"mvm_firecracker_latencies_pause_vm_seconds{vm="a"} 0.001500"#,
        r#"mvm_firecracker_net_rx_count_total{vm="a"} 4"#,
        r#"mvm_firecracker_uart_write_count_total{vm="a"} 7"#,
        r#"mvm_firecracker_utc_timestamp_seconds{vm="a"} 5.000000"#,
        r#"mvm_firecracker_vcpu_exit_agg_min_seconds{vm="a"} 0.000003"#,
        r#"mvm_firecracker_vcpu_exit_agg_sum_seconds_total{vm="a"} 2.000000"#,
        r#"mvm_firecracker_vhost_user_init_time_seconds{vm="a",device="block_a"} 0.000005"#,
    ];
    assert_eq!(named(&text, "mvm_firecracker"), wanted);
    for told in [
        "# HELP mvm_firecracker_net_rx_count_total Firecracker's net.rx_count since the VM was created.\n",
        "# TYPE mvm_firecracker_net_rx_count_total counter\n",
        "# TYPE mvm_firecracker_vcpu_exit_agg_min_seconds gauge\n",
    ] {
        assert!(text.contains(told), "{told}");
    }
    parse(&text);
}

proptest! {
    #[test]
    fn whatever_a_vmm_calls_things_the_text_can_be_read(
        id in any::<String>(), group in "(block_|net_)?\\PC{0,9}|[ -~\n]{0,6}", other in "[a_.-]{0,3}",
        field in any::<String>(), number in any::<u64>(), float in -1e300_f64..1e300,
    ) {
        let known = known(json!({
            &group: { &field: number, "read_bytes": number, "read_agg": { "sum_us": number } },
            &other: { "-": 1, "_": 2, ".": 3 }, "x": { "y": float }, "z": [1],
        }));
        prop_assume!(id != "other");
        let read = |set| parse(&text(set, &[sample(&id, &known), sample("other", &known)]));
        let all = read(Set::All);
        let is_of_either = |one: &Parsed| one.labels["vm"] == id || one.labels["vm"] == "other";
        prop_assert!(all.iter().all(is_of_either));
        prop_assert!(all.iter().any(|one| one.name == "mvm_firecracker_x_y"));
        prop_assert!(read(Set::Core).len() < all.len());
    }
}
