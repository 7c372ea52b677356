//! VMs of one snapshot, one pool or one runtime: what each has for itself, and what is nobody's to change.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{Host, eventually, told};
use mvm::Vm;
use mvm::firecracker::http::{Method, RequestPath};
use serde_json::{Value, json};

/// What looks like a placeholder of ours in other people's languages.
fn odd_metadata() -> Value {
    json!({ "shell": "${id}", "jinja": "{{id}}", "awk": "{n}", "list": ["{id}", "{", "}}"], "{id}": "{id}" })
}

fn metadata_of(vm: &Vm) -> Value {
    let answer = vm.request(Method::Get, &RequestPath::parse("/mmds").unwrap(), None).unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

/// A snapshot of a VM with metadata, and with a network interface at the TAP device `device`.
fn snapshot_with_metadata(host: &Host, device: &str) {
    let mut spec = host.spec(Guest::Halt);
    spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": device }]);
    spec["mmds-config"] = json!({ "network_interfaces": ["eth0"], "version": "V2" });
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
}

#[test]
fn metadata_is_no_template() {
    let host = Host::new();
    snapshot_with_metadata(&host, "mvmt-data0");
    let mut options = json!({
        "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "mvmt-data{n}" }],
        "mmds": odd_metadata(),
    });
    let clones = host.runtime.clone_vms("base", 2, Some(&options.to_string())).unwrap();
    for clone in &clones {
        let mut seen = metadata_of(clone);
        seen.as_object_mut().unwrap().remove("mvm");
        assert_eq!(seen, odd_metadata());
        host.runtime.destroy(clone).unwrap();
    }
    // Who wants it to be one says so, and writes braces as in a path.
    options["mmds"] = json!({ "name": "{id}", "of": ["{n}", "{{n}}"] });
    options["mmds_placeholders"] = "filled_in".into();
    let clones = host.runtime.clone_vms("base", 2, Some(&options.to_string())).unwrap();
    let seen = metadata_of(&clones[1]);
    assert_eq!((&seen["name"], &seen["of"]), (&json!("clone-2"), &json!(["2", "{n}"])));
}

#[test]
fn a_placeholder_that_is_none_is_named_with_its_key_before_anything_starts() {
    let host = Host::new();
    snapshot_with_metadata(&host, "mvmt-hold0");
    let overrides = json!({ "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "tap{i}" }] });
    let text = told(&host.runtime.clone_vms("base", 2, Some(&overrides.to_string())).unwrap_err());
    assert!(text.contains("network_overrides[0].host_dev_name") && text.contains("{n}"), "{text}");
    for options in [
        json!({ "snapshot": "base", "restore": overrides }),
        json!({ "spec": { "vsock": { "guest_cid": 3, "uds_path": "/run/{vm}.sock" } } }),
    ] {
        let text = told(&host.runtime.open_pool("warm", &options.to_string()).unwrap_err());
        assert!(text.contains("is not a placeholder"), "{text}");
    }
    host.assert_nothing_left();
}

#[test]
fn members_of_a_pool_have_their_number_and_id_in_their_paths() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    let at = |name: &str| host.scratch.path().join(name).to_str().unwrap().to_owned();
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": at("{n}.sock") });
    spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": "mvmt-pool{n}" }]);
    spec["drives"] =
        json!([{ "drive_id": "a", "is_root_device": false, "path_on_host": at("{{{id}}}.img") }]);
    for n in 1..=4 {
        std::fs::write(at(&format!("{{cold-{n}}}.img")), [0; 4096]).unwrap();
    }
    let options = json!({ "spec": spec, "size": 2 }).to_string();
    let pool = host.runtime.open_pool("cold", &options).unwrap();
    eventually("it is full", || {
        pool.info().unwrap()["ready"] == 2 || !pool.info().unwrap()["last_error"].is_null()
    });
    assert_eq!(pool.info().unwrap()["last_error"], Value::Null);
    let vm = host.runtime.take(&pool, "web", None).unwrap();
    assert_eq!(vm.info().unwrap()["vsock_socket"], at("1.sock"));
    host.runtime.destroy_pool(&pool).unwrap();
}
