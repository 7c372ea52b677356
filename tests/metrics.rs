//! What VMs have counted: added up over flushes, starts and owners, and told for people and for Prometheus.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, Scratch, console_with, eventually, told};
use mvm::Vm;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn actions(vm: &Vm) -> u64 {
    vm.metrics().unwrap()["totals"]["put_api_requests"]["actions_count"].as_u64().unwrap()
}

fn directory(vm: &Vm) -> PathBuf {
    vm.info().unwrap()["directory"].as_str().unwrap().into()
}

/// What another process does that reads the VM's metrics and was stopped meanwhile.
fn lock_metrics(vm: &Vm) -> File {
    let file =
        File::options().write(true).create(true).truncate(false).open(directory(vm).join("metrics.lock"));
    let file = file.unwrap();
    file.lock().unwrap();
    file
}

/// What a VMM may do that its guest has taken over.
fn append_to_metrics(vm: &Vm, run: u64, text: &str) {
    let path = directory(vm).join(format!("vmm/metrics-{run}.jsonl"));
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn whoever_has_locked_the_metrics_holds_nobody_up_for_longer_than_was_allowed() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["deadlines"] = json!({ "request_ms": 200, "start_ms": 2000 });
    let vms = ["a", "b", "c"].map(|id| host.runtime.create(id, &spec.to_string()).unwrap());
    for vm in &vms {
        vm.start().unwrap();
        vm.flush_metrics().unwrap();
    }
    let flushed = vms[0].metrics().unwrap();
    vms[0].flush_metrics().unwrap();
    let locks = vms.each_ref().map(|vm| lock_metrics(vm));
    let began = Instant::now();
    let refused = told(&vms[0].metrics().unwrap_err());
    assert!(refused.contains("the metrics are in use") && refused.contains("metrics.lock"), "{refused}");
    // What is known is told of all.
    let text = host.runtime.metrics_text(None).unwrap();
    let counted = format!("mvm_vm_metrics_flushes_total{{vm=\"a\"}} {}", flushed["flushes"]);
    assert!(text.contains(&counted), "{counted} is not in {text}");
    vms[1].kill().unwrap();
    let refused = told(&vms[1].start().unwrap_err());
    assert!(refused.contains("the metrics are in use"), "{refused}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vms[2].kill().and_then(|()| vms[2].start()));
        eventually("the interrupted call ends", || {
            vms[2].interrupt();
            waiting.is_finished()
        });
        assert!(waiting.join().unwrap().is_err());
    });
    // It was ten seconds for each.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(locks);
    assert_eq!(vms[0].metrics().unwrap()["flushes"], flushed["flushes"].as_u64().unwrap() + 1);
    vms[1].start().unwrap();
}

#[test]
fn what_a_vmm_writes_costs_the_metrics_of_others_no_time_and_is_cut() {
    let host = Host::new();
    let vms = ["groups", "lines", "fine"].map(|id| host.boot(id, Guest::Halt));
    let groups = (0..9000).map(|n| format!("\"g{n}\":{{\"x\":1}}")).collect::<Vec<_>>().join(",");
    append_to_metrics(&vms[0], 1, &format!("{{{groups}}}\n"));
    append_to_metrics(&vms[1], 1, &"{}\n".repeat(20 << 20));
    vms[2].flush_metrics().unwrap();
    let flushed =
        format!("mvm_vm_metrics_flushes_total{{vm=\"fine\"}} {}\n", vms[2].metrics().unwrap()["flushes"]);
    let began = Instant::now();
    for _ in 0..5 {
        assert!(host.runtime.metrics_text(None).unwrap().contains(&flushed));
    }
    assert!(began.elapsed() < AMPLE / 3, "{:?}", began.elapsed());
    let metrics = vms[0].metrics().unwrap();
    assert!(metrics["totals"].as_object().unwrap().len() <= 256);
    assert_eq!(metrics["core"]["lost"]["damaged_lines"], 1);
}

#[test]
fn counts_add_up_over_flushes_starts_and_owners() {
    let mut host = Host::new();
    let vm = host.boot("counted", Guest::Halt);
    vm.flush_metrics().unwrap();
    let begun = actions(&vm);
    vm.flush_metrics().unwrap();
    vm.flush_metrics().unwrap();
    // Each flush is an action, told by the next.
    assert_eq!(actions(&vm), begun + 2);
    vm.kill().unwrap();
    vm.start().unwrap();
    vm.flush_metrics().unwrap();
    let before = actions(&vm);
    assert!(before > begun + 2);
    drop(vm);
    host.change_owner();
    let vm = host.runtime.vm("counted").unwrap();
    assert_eq!(actions(&vm), before);
    vm.flush_metrics().unwrap();
    assert_eq!(actions(&vm), before + 1);
    assert_eq!(vm.metrics().unwrap()["core"]["lost"]["damaged_lines"], 0);
}

#[test]
fn what_the_host_gives_is_told_while_a_vmm_runs() {
    let host = Host::new();
    let vm = host.boot("used", Guest::Halt);
    console_with(&vm, "hello\n");
    let usage = vm.metrics().unwrap()["host"].clone();
    assert!(
        usage["rss_bytes"].as_u64().unwrap() > 100_000 && usage["threads"].as_u64().unwrap() > 1,
        "{usage}"
    );
    vm.kill().unwrap();
    assert_eq!(vm.metrics().unwrap()["host"], Value::Null);
    let refused = told(&vm.flush_metrics().unwrap_err());
    assert!(refused.contains("cannot flush the metrics of VM used: it is stopped"), "{refused}");
}

const DOCUMENTATION: &str = include_str!("../docs/json.md");

/// The text, which must be as Prometheus reads it: each family once, its help and type first, its samples together.
fn scrape(host: &Host, options: &Value) -> String {
    let text = host.runtime.metrics_text(Some(&options.to_string())).unwrap();
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (family, help) =
            line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("{line}")).split_once(' ').unwrap();
        assert!(families.insert(family) && help.ends_with('.'), "{line}");
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        let is_documented =
            DOCUMENTATION.contains(&format!("`{family}`")) || family.starts_with("mvm_firecracker");
        assert!(is_documented, "{family} is not in docs/json.md");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(family) && samples.insert(series), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    text
}

fn value_of(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in {text}")).parse().unwrap()
}

#[test]
fn prometheus_is_told_of_every_vm() {
    let host = Host::new();
    host.boot("a", Guest::Halt).flush_metrics().unwrap();
    host.create("b", Guest::Halt);
    let text = scrape(&host, &json!({}));
    for (series, value) in [
        ("mvm_vm_state{vm=\"a\",state=\"running\"}", 1.0),
        ("mvm_vm_state{vm=\"b\",state=\"created\"}", 1.0),
        ("mvm_vm_up{vm=\"a\"}", 1.0),
        ("mvm_vms{state=\"running\"}", 1.0),
        ("mvm_late_vms", 0.0),
    ] {
        assert_eq!(value_of(&text, series), value, "{series}");
    }
    assert!(value_of(&text, "mvm_vm_resident_memory_bytes{vm=\"b\"}") > 100_000.0);
    assert!(value_of(&text, "mvm_vm_api_requests_total{vm=\"a\",method=\"put\"}") > 1.0);
    // What operators watch, and not all that Firecracker counts.
    assert!(!text.contains("mvm_firecracker"));
    let samples_of_a = text.lines().filter(|line| line.contains("vm=\"a\"")).count();
    assert!(samples_of_a < 70, "{samples_of_a}");
    let all = scrape(&host, &json!({ "set": "all" }));
    assert!(all.contains("# TYPE mvm_firecracker_put_api_requests_actions_count_total counter\n"));
}

#[test]
fn a_part_of_the_vms_is_told_when_that_is_wanted() {
    let host = Host::new();
    for id in ["web-1", "web-2", "db-1"] {
        host.create(id, Guest::Halt);
    }
    let told = |options: Value| {
        let text = scrape(&host, &options);
        ["web-1", "web-2", "db-1"].map(|id| text.contains(&format!("mvm_vm_up{{vm=\"{id}\"}}")))
    };
    assert_eq!(told(json!({})), [true; 3]);
    assert_eq!(told(json!({ "prefix": "web-" })), [true, true, false]);
    assert_eq!(told(json!({ "ids": ["db-1", "gone"] })), [false, false, true]);
    assert_eq!(told(json!({ "ids": [] })), [false; 3]);
    let refused = told_of_options(&host, r#"{"sets":"all"}"#);
    assert!(refused.contains("did you mean \"set\""), "{refused}");
    assert!(told_of_options(&host, r#"{"set":"most"}"#).contains("\"core\", \"all\""));
}

fn told_of_options(host: &Host, options: &str) -> String {
    told(&host.runtime.metrics_text(Some(options)).unwrap_err())
}

#[test]
fn a_scrape_whose_time_is_up_has_what_costs_nothing() {
    let host = Host::new();
    host.boot("a", Guest::Halt).flush_metrics().unwrap();
    let text = scrape(&host, &json!({ "deadline_ms": 0 }));
    assert_eq!(value_of(&text, "mvm_late_vms"), 1.0);
    assert_eq!(value_of(&text, "mvm_vm_up{vm=\"a\"}"), 1.0);
    assert!(!text.contains("mvm_vm_api_requests_total"));
}

#[test]
fn the_runtime_tells_of_itself() {
    let host = Host::with_keeper();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["on_owner_exit"] = json!("kill");
    let vm = host.runtime.create("a", &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm.pause().unwrap();
    host.runtime.take_snapshot(&vm, "one", None).unwrap();
    vm.resume().unwrap();
    assert!(host.runtime.create("a", &spec.to_string()).is_err());
    vm.pause().unwrap();
    vm.start().unwrap_err();
    let pool = host.runtime.open_pool("warm", r#"{"snapshot":"one","size":2}"#).unwrap();
    eventually("the pool is full", || pool.info().unwrap()["ready"] == 2);
    host.runtime.take(&pool, "b", None).unwrap();
    eventually("the pool is full", || pool.info().unwrap()["ready"] == 2);
    let text = scrape(&host, &json!({}));
    for (series, least) in [
        (format!("mvm_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1),
        ("mvm_keeper_up".into(), 1),
        ("mvm_events_waiting".into(), 6),
        ("mvm_events_capacity".into(), 4096),
        ("mvm_events_total".into(), 6),
        ("mvm_pool_size{pool=\"warm\"}".into(), 2),
        ("mvm_pool_ready{pool=\"warm\"}".into(), 2),
        ("mvm_pool_taken_total{pool=\"warm\"}".into(), 1),
        ("mvm_operation_seconds_count{operation=\"create\"}".into(), 1),
        ("mvm_operation_seconds_count{operation=\"start\"}".into(), 1),
        ("mvm_operation_seconds_count{operation=\"pause\"}".into(), 2),
        ("mvm_operation_seconds_count{operation=\"snapshot\"}".into(), 1),
        ("mvm_operation_seconds_count{operation=\"restore\"}".into(), 3),
        ("mvm_operation_seconds_bucket{operation=\"restore\",le=\"+Inf\"}".into(), 3),
        ("mvm_operation_failures_total{operation=\"start\"}".into(), 1),
        ("mvm_state_directory_size_bytes".into(), 1 << 20),
        ("mvm_state_directory_free_bytes".into(), 1),
    ] {
        assert!(value_of(&text, &series) >= f64::from(least), "{series} in {text}");
    }
    assert!(value_of(&text, "mvm_operation_seconds_sum{operation=\"restore\"}") > 0.0);
    host.runtime.destroy_pool(&pool).unwrap();
}

#[test]
fn events_that_nobody_takes_are_counted() {
    let host = Host::with_options(json!({ "firecracker": common::firecracker(), "event_queue": 2 }));
    (0..4).for_each(|id| drop(host.create(&format!("vm-{id}"), Guest::Halt)));
    let text = scrape(&host, &json!({}));
    assert_eq!(value_of(&text, "mvm_events_waiting"), 2.0);
    assert_eq!(value_of(&text, "mvm_events_dropped_total"), 2.0);
}

#[test]
fn metrics_that_the_spec_leads_elsewhere_are_left_there() {
    let (host, elsewhere) = (Host::new(), Scratch::new());
    let file = elsewhere.path().join("metrics");
    std::fs::write(&file, "").unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["metrics"]["metrics_path"] = json!(file);
    let vm = host.runtime.create("elsewhere", &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm.flush_metrics().unwrap();
    assert!(file.metadata().unwrap().len() > 0);
    assert_eq!(vm.metrics().unwrap()["totals"], Value::Null);
    let stages = vm.info().unwrap()["last_start"]["requests"].to_string();
    assert!(stages.contains("/metrics") && stages.contains("/boot-source"), "{stages}");
}
