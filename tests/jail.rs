//! VMs in jails: what they find there, what the host keeps of them, and what of it is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::{Host, console_with, told};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

fn jailed(host: &Host, guest: Guest) -> Value {
    let mut spec = host.spec(guest);
    spec["mvm"]["jail"] = json!({ "jailer": common::jailer() });
    spec
}

#[test]
fn a_jailed_vm_boots_and_nothing_of_it_is_left() {
    let host = Host::new();
    let vm = host
        .runtime
        .create("tenant", &jailed(&host, Guest::Halt).to_string())
        .unwrap_or_else(|e| panic!("{}", told(&e)));
    vm.start().unwrap_or_else(|e| panic!("{}", told(&e)));
    console_with(&vm, "hello");
    let pid = vm.info().unwrap()["pid"].as_i64().unwrap();
    let uid = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert!(uid >= 1_879_048_192, "{uid}");
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
    assert!(!fs::exists(format!("/run/mvm/uids/{uid}")).unwrap());
}
