//! What VMs have counted: added up over flushes, starts and owners, and told for people and for Prometheus.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{Host, Scratch, console_with, told};
use mvm::Vm;
use serde_json::{Value, json};

fn actions(vm: &Vm) -> u64 {
    vm.metrics().unwrap()["totals"]["put_api_requests"]["actions_count"].as_u64().unwrap()
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
