//! VMs of one snapshot, one pool or one runtime: what each has for itself, and what is nobody's to change.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{Host, eventually, told, with_disk};
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

#[test]
fn a_disk_that_one_guest_writes_to_is_no_other_guests() {
    let mut host = Host::new();
    let (spec, mut reader) =
        (with_disk(&host, Guest::Halt, ("disk", 0)), with_disk(&host, Guest::Halt, ("disk", 0)));
    reader["drives"][0]["is_read_only"] = true.into();
    // By another name it is the same disk.
    let link = host.scratch.path().join("link");
    std::fs::hard_link(host.scratch.path().join("disk"), &link).unwrap();
    let mut linked = reader.clone();
    linked["drives"][0]["path_on_host"] = json!(link);
    let one = host.runtime.create("one", &spec.to_string()).unwrap();
    host.runtime.rename(&one, "uno").unwrap();
    for other in [&spec, &reader, &linked] {
        let text = told(&host.runtime.create("other", &other.to_string()).unwrap_err());
        assert!(text.contains("drives[0].path_on_host") && text.contains("is used by VM uno"), "{text}");
    }
    assert_eq!(host.runtime.list().len(), 1);
    // The next owner knows it too.
    drop(one);
    host.change_owner();
    host.runtime.create("other", &reader.to_string()).unwrap_err();
    // When its VMM has ended, nobody writes to it, and readers share it.
    let one = host.runtime.vm("uno").unwrap();
    one.kill().unwrap();
    for id in ["a", "b"] {
        host.runtime.create(id, &reader.to_string()).unwrap();
    }
    let text = told(&one.start().unwrap_err());
    assert!(text.contains("is used by VM"), "{text}");
}

#[test]
fn guests_that_are_meant_to_share_a_disk_say_so_in_both_specs() {
    let host = Host::new();
    let mut spec = with_disk(&host, Guest::Halt, ("disk", 0));
    let plain = spec.to_string();
    spec["mvm"]["sharing"] = "allowed".into();
    let one = host.runtime.create("one", &spec.to_string()).unwrap();
    host.runtime.create("two", &spec.to_string()).unwrap();
    assert!(told(&host.runtime.create("three", &plain).unwrap_err()).contains("sharing"));
    host.runtime.destroy(&one).unwrap();
}

#[test]
fn a_drive_of_a_running_vm_is_given_no_file_that_is_in_use() {
    let host = Host::new();
    let one = host.runtime.create("one", &with_disk(&host, Guest::Halt, ("first", 0)).to_string()).unwrap();
    let two = host.runtime.create("two", &with_disk(&host, Guest::Halt, ("second", 0)).to_string()).unwrap();
    two.start().unwrap();
    let at = |name: &str| host.scratch.path().join(name);
    let text = told(&two.update_drive("data", Some(&at("first")), None).unwrap_err());
    assert!(text.contains("is used by VM one"), "{text}");
    // What it has given up is free, and what it has got is not.
    with_disk(&host, Guest::Halt, ("third", 0));
    two.update_drive("data", Some(&at("third")), None).unwrap();
    host.runtime.destroy(&one).unwrap();
    host.runtime.create("one", &with_disk(&host, Guest::Halt, ("second", 0)).to_string()).unwrap();
    host.runtime.create("three", &with_disk(&host, Guest::Halt, ("third", 0)).to_string()).unwrap_err();
}

#[test]
fn clones_and_members_of_a_pool_print_into_files_of_their_own() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Obey);
    let at = |name: &str| host.scratch.path().join(name).to_str().unwrap().to_owned();
    spec["serial"] = json!({ "serial_out_path": at("console") });
    spec["logger"] = json!({ "log_path": at("log"), "level": "Info" });
    spec["metrics"] = json!({ "metrics_path": at("metrics") });
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    common::eventually("it prints", || {
        std::fs::read_to_string(at("console")).is_ok_and(|text| text.contains("hello"))
    });
    // While it runs, nobody else writes there.
    let text = told(&host.runtime.create("other", &spec.to_string()).unwrap_err());
    assert!(text.contains("logger.log_path") || text.contains("serial.serial_out_path"), "{text}");
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
    let before = ["console", "log", "metrics"].map(|name| std::fs::read(at(name)).unwrap_or_default());
    let mut vms = host.runtime.clone_vms("base", 2, None).unwrap();
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": at("v.sock") });
    let pool = host.runtime.open_pool("cold", &json!({ "spec": spec, "size": 2 }).to_string()).unwrap();
    eventually("it is full", || {
        pool.info().unwrap()["ready"] == 2 || !pool.info().unwrap()["last_error"].is_null()
    });
    assert_eq!(pool.info().unwrap()["last_error"], Value::Null);
    vms.extend(["one", "two"].map(|id| host.runtime.take(&pool, id, None).unwrap()));
    for vm in &vms {
        vm.flush_metrics().unwrap();
        let own = host.vm_directory(vm.id().as_str());
        assert!(std::path::Path::new(vm.info().unwrap()["console"].as_str().unwrap()).starts_with(&own));
        assert!(vm.metrics().unwrap()["flushes"].as_u64().unwrap() > 0);
    }
    common::console_with(&vms[2], "hello");
    let socket = vms[3].info().unwrap()["vsock_socket"].clone();
    assert!(std::path::Path::new(socket.as_str().unwrap()).starts_with(host.vm_directory("two")));
    let after = ["console", "log", "metrics"].map(|name| std::fs::read(at(name)).unwrap_or_default());
    assert!(before == after, "somebody else has written there");
    host.runtime.destroy_pool(&pool).unwrap();
}

#[test]
fn what_clones_or_members_cannot_each_have_is_named_before_anything_starts() {
    let host = Host::new();
    let refused = |spec: &Value| {
        let options = json!({ "spec": spec, "size": 2 }).to_string();
        told(&host.runtime.open_pool("cold", &options).unwrap_err())
    };
    let text = refused(&with_disk(&host, Guest::Halt, ("disk", 0)));
    assert!(text.contains("drives[0].path_on_host") && text.contains("{n}"), "{text}");
    let mut spec = host.spec(Guest::Halt);
    spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": "mvmt-same0" }]);
    let text = refused(&spec);
    assert!(text.contains("network-interfaces[0].host_dev_name") && text.contains("mvmt-same0"), "{text}");
    host.assert_nothing_left();
    // So it is with clones.
    snapshot_with_metadata(&host, "mvmt-same0");
    let text = told(&host.runtime.clone_vms("base", 2, None).unwrap_err());
    assert!(text.contains("network-interfaces[0].host_dev_name") && text.contains("clone-1"), "{text}");
    let restore = json!({ "snapshot": "base" }).to_string();
    assert!(told(&host.runtime.open_pool("warm", &restore).unwrap_err()).contains("host_dev_name"));
    host.runtime.clone_vms("base", 1, None).unwrap();
}

#[test]
fn a_disk_that_a_snapshot_only_names_has_one_writer_too() {
    let host = Host::new();
    let vm = host.runtime.create("source", &with_disk(&host, Guest::Halt, ("disk", 0)).to_string()).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "base", Some(r#"{"disks":"reference"}"#)).unwrap();
    let restore = |id: &str, options: Option<&str>| host.runtime.restore("base", id, options);
    assert!(told(&restore("beside", None).unwrap_err()).contains("is used by VM source"));
    // With a disk of its own it may, and so it may when the other one is gone.
    with_disk(&host, Guest::Halt, ("other", 0));
    let drives = json!([{ "drive_id": "data", "path_on_host": host.scratch.path().join("other") }]);
    restore("beside", Some(&json!({ "drives": drives }).to_string())).unwrap();
    vm.kill().unwrap();
    restore("instead", None).unwrap();
    assert!(told(&restore("again", None).unwrap_err()).contains("is used by VM instead"));
    assert_eq!(host.runtime.list().len(), 3);
}
