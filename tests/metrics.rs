//! What VMs have counted: added up over flushes, starts and owners, and told for people and for Prometheus.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, Scratch, console_with, told};
use mvm::Vm;
use serde_json::{Value, json};
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
    spec["mvm"]["deadlines"] = json!({ "request_ms": 200, "start_ms": 300 });
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
    let text = host.runtime.metrics_text();
    let counted = format!("mvm_vm_metrics_flushes_total{{vm=\"a\"}} {}", flushed["flushes"]);
    assert!(text.contains(&counted), "{counted} is not in {text}");
    vms[1].kill().unwrap();
    let refused = told(&vms[1].start().unwrap_err());
    assert!(refused.contains("the metrics are in use"), "{refused}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vms[2].kill().and_then(|()| vms[2].start()));
        while !waiting.is_finished() {
            vms[2].interrupt();
        }
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
        assert!(host.runtime.metrics_text().contains(&flushed));
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

#[test]
fn prometheus_is_told_of_every_vm() {
    let host = Host::new();
    host.boot("a", Guest::Halt).flush_metrics().unwrap();
    host.create("b", Guest::Halt);
    let text = host.runtime.metrics_text();
    for line in [
        "mvm_vm_state{vm=\"a\",state=\"running\"} 1",
        "mvm_vm_state{vm=\"b\",state=\"created\"} 1",
        "# TYPE mvm_firecracker_put_api_requests_actions_count counter",
        "mvm_vm_memory_bytes{vm=\"b\"} ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
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
