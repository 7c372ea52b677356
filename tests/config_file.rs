//! Whatever `firecracker --config-file` accepts is a spec: the same odd files, given to the VMM and to the library.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use common::guest::Guest;
use common::{Host, console_with, eventually, told};
use mvm::Vm;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Files that Firecracker boots.
fn accepted(directory: &Path) -> Vec<(&'static str, Value)> {
    let disk = directory.join("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    fs::write(directory.join("cpu.json"), "{}").unwrap();
    let drive = |id: &str| json!({ "drive_id": id, "path_on_host": disk, "is_root_device": false, "is_read_only": true });
    let pmem = |id: &str| json!({ "id": id, "path_on_host": disk, "read_only": true });
    let nic = |id: &str, device: &str| json!({ "iface_id": id, "host_dev_name": device });
    let (long, longer) = ("x".repeat(300), "ä.".repeat(1000));
    let odd = [
        "var.img", "a-b", "", "a b", "a/b", "..", "ä", "💾", "a\"b", "a\nb", "a\0b", "mvm_id_a", &long,
        &longer,
    ];
    vec![
        ("drives", json!({ "drives": odd.map(drive) })),
        ("one drive twice", json!({ "drives": [drive("a"), drive("a")] })),
        ("pmem", json!({ "pmem": [pmem("p.0"), pmem(""), pmem(&longer)] })),
        ("one pmem twice", json!({ "pmem": [pmem("p"), pmem("p")] })),
        (
            "interfaces",
            json!({
                "network-interfaces": [nic("eth-0", "mvmt-cfg0"), nic("", "mvmt-cfg1"), nic("ä", "mvmt-cfg2")],
                "mmds-config": { "network_interfaces": ["eth-0", ""] },
            }),
        ),
        (
            "one interface twice",
            json!({ "network-interfaces": [nic("e", "mvmt-cfg0"), nic("e", "mvmt-cfg1")] }),
        ),
        ("vsock", json!({ "vsock": { "vsock_id": "v.1", "guest_cid": 3, "uds_path": "v.sock" } })),
        ("a string as comment", json!({ "_comment": "of mine" })),
        ("a number", json!({ "version": 7 })),
        ("a list", json!({ "_notes": [1, "a", {}, { "id": "x" }, { "id": "a b" }] })),
        ("an object", json!({ "_notes": { "a": 1 } })),
        ("a name that is no name", json!({ "a b/c": {}, "": {} })),
        ("a section of tomorrow", json!({ "holodeck": { "level": 9 }, "turbos": [{ "id": "t-1" }] })),
        ("much of it", json!({ "_notes": "x".repeat(60_000) })),
        // More than the API takes in one body when it is not told otherwise.
        ("a CPU template of 80 KiB", json!({ "cpu-config": { "kvm_capabilities": vec!["!171"; 12_000] } })),
        (
            "nulls",
            json!({ "balloon": null, "vsock": null, "logger": null, "metrics": null, "mmds-config": null,
            "entropy": null, "memory-hotplug": null, "cpu-config": null, "mmds": null }),
        ),
        (
            "empty ones",
            json!({ "network-interfaces": [], "pmem": [], "logger": {}, "entropy": {}, "cpu-config": {} }),
        ),
        ("a path of a CPU template", json!({ "cpu-config": "cpu.json" })),
        (
            "its own log and metrics",
            json!({ "logger": { "log_path": "l.log" }, "metrics": { "metrics_path": "m.log" } }),
        ),
    ]
}

/// Files that it refuses.
fn refused(directory: &Path) -> Vec<(&'static str, Value)> {
    let disk = directory.join("disk");
    let drive = |id: Value| json!({ "drive_id": id, "path_on_host": disk, "is_root_device": false });
    vec![
        ("a number as id", json!({ "drives": [drive(json!(7))] })),
        ("null as id", json!({ "drives": [drive(json!(null))] })),
        ("no id", json!({ "drives": [{ "path_on_host": disk, "is_root_device": false }] })),
        ("a drive that is none", json!({ "drives": [7] })),
        ("drives that are no list", json!({ "drives": {} })),
        ("an unknown key", json!({ "drives": [{ "drive_id": "a", "is_root_device": false, "colour": 1 }] })),
        ("no path", json!({ "drives": [{ "drive_id": "a", "is_root_device": false, "path_on_host": "" }] })),
        (
            "a path that is null",
            json!({ "drives": [{ "drive_id": "a", "is_root_device": false, "path_on_host": null }] }),
        ),
        ("no size", json!({ "balloon": {} })),
        ("no cid", json!({ "vsock": {} })),
        ("no interface", json!({ "mmds-config": { "network_interfaces": [] } })),
        ("an interface that is not there", json!({ "mmds-config": { "network_interfaces": ["z"] } })),
        ("a CPU template that is not there", json!({ "cpu-config": "none.json" })),
        ("metrics without a path", json!({ "metrics": {} })),
        ("a machine without a size", json!({ "machine-config": {} })),
        ("a list as machine", json!({ "machine-config": [] })),
    ]
}

/// Whether a guest runs that is configured by `spec` as a file.
fn boots(directory: &Path, spec: &Value) -> bool {
    let file = directory.join("config.json");
    fs::write(&file, spec.to_string()).unwrap();
    let _of_the_last = fs::remove_file(directory.join("v.sock"));
    let output = directory.join("output");
    let mut vmm = Command::new(common::firecracker())
        .args(["--no-api", "--config-file"])
        .arg(&file)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(File::create(&output).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut hello = false;
    eventually(&format!("a guest or an end of {spec}"), || {
        hello = String::from_utf8_lossy(&fs::read(&output).unwrap()).contains("hello");
        hello || vmm.try_wait().unwrap().is_some()
    });
    let _of_whatever_is_left = vmm.kill();
    vmm.wait().unwrap();
    let _of_this_one = fs::remove_file(directory.join("v.sock"));
    hello
}

fn created(host: &Host, spec: &Value) -> Result<(), String> {
    let started = |vm: &Vm| vm.start().map_err(|error| told(&error));
    let vm = host.runtime.create("odd", &spec.to_string()).map_err(|error| told(&error))?;
    let result = started(&vm).map(|()| drop(console_with(&vm, "hello")));
    host.runtime.destroy(&vm).unwrap();
    result
}

/// `sections`, in a file for a guest, with relative paths made what the library makes of them.
fn whole(host: &Host, directory: &Path, sections: &Value) -> (Value, Value) {
    let mut spec = host.spec(Guest::Halt);
    spec["drives"] = json!([]);
    spec.as_object_mut().unwrap().extend(sections.as_object().unwrap().clone());
    let mut absolute = spec.clone();
    for pointer in ["/cpu-config", "/vsock/uds_path", "/logger/log_path", "/metrics/metrics_path"] {
        if let Some(Value::String(path)) = absolute.pointer_mut(pointer) {
            *path = directory.join(&*path).to_str().unwrap().to_owned();
        }
    }
    (spec, absolute)
}

#[test]
fn what_boots_from_a_config_file_boots_as_a_spec() {
    let host = Host::new();
    let directory = host.scratch.path();
    for (name, sections) in accepted(directory) {
        let (spec, absolute) = whole(&host, directory, &sections);
        assert!(boots(directory, &spec), "{name}: the VMM does not boot it");
        created(&host, &absolute).unwrap_or_else(|text| panic!("{name}: {text}"));
    }
    host.assert_nothing_left();
}

#[test]
fn what_a_config_file_may_not_say_no_spec_may() {
    let host = Host::new();
    let directory = host.scratch.path();
    drop(accepted(directory));
    for (name, sections) in refused(directory) {
        let (spec, absolute) = whole(&host, directory, &sections);
        assert!(!boots(directory, &spec), "{name}: the VMM boots it");
        created(&host, &absolute).expect_err(name);
    }
    host.assert_nothing_left();
}
