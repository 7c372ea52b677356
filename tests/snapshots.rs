//! Snapshots, and VMs restored from them, on the VMM under test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_of, console_with, eventually, told};
use mvm::{State, Vm};
use serde_json::{Value, json};
use std::sync::Arc;

fn snapshot(host: &Host, vm: &Vm, id: &str, options: Value) -> Value {
    host.runtime.take_snapshot(vm, id, Some(&options.to_string())).unwrap()
}

fn restore(host: &Host, snapshot: &str, id: &str, options: Value) -> Arc<Vm> {
    host.runtime.restore(snapshot, id, Some(&options.to_string())).unwrap()
}

#[test]
fn a_restored_vm_goes_on_where_the_snapshot_was_taken() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Obey);
    console_with(&vm, "hello\n");
    let report = snapshot(&host, &vm, "base", json!({}));
    assert_eq!(vm.state(), State::Running);
    assert_eq!((&report["type"], &report["memory_bytes"]), (&json!("full"), &json!(128 << 20)));
    assert!(report["paused_us"].as_u64().unwrap() > 0, "{report}");
    host.runtime.destroy(&vm).unwrap();
    // It needs nothing of the VM.
    let restored = restore(&host, "base", "restored", json!({}));
    assert_eq!(restored.state(), State::Running);
    restored.pause().unwrap();
    restored.resume().unwrap();
    let outcome = restored.shutdown(AMPLE, None).unwrap();
    assert_eq!(outcome.outcome, mvm::Outcome::Graceful);
    host.runtime.destroy(&restored).unwrap();
    host.runtime.delete_snapshot("base").unwrap();
    host.assert_nothing_left();
}
