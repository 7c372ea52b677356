//! Devices that change while the guest runs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::print_stderr
)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, told};
use mvm::Vm;
use mvm::firecracker::http::{Method, RequestPath};
use mvm::vm::Device;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A guest that has drivers, which the tiny ones do not; only the simulator has one.
fn with_drivers(sections: Value) -> (Host, Arc<Vm>) {
    let host = Host::simulated();
    let mut spec = host.spec(Guest::Halt);
    let kernel = host.scratch.path().join("vmlinux");
    let mut image = fs::read(host.kernel(Guest::Halt)).unwrap();
    // Without its script it is taken for a small Linux.
    let script = image.windows(11).position(|bytes| bytes == b"#!mvm-guest").unwrap();
    image[script] = b'-';
    fs::write(&kernel, image).unwrap();
    spec["boot-source"]["kernel_image_path"] = json!(kernel);
    for (section, value) in sections.as_object().unwrap() {
        spec[section] = value.clone();
    }
    let vm = host.runtime.create("devices", &spec.to_string()).unwrap();
    vm.start().unwrap();
    (host, vm)
}

fn configuration(vm: &Vm) -> Value {
    let answer = vm.request(Method::Get, &RequestPath::parse("/vm/config").unwrap(), None).unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_balloon_is_followed_until_the_guest_has_given() {
    let balloon = json!({ "amount_mib": 0, "deflate_on_oom": false, "stats_polling_interval_s": 1 });
    let (_host, vm) = with_drivers(json!({ "balloon": balloon }));
    assert_eq!(vm.set_balloon(16, AMPLE).unwrap(), Some(16));
    assert_eq!(vm.balloon_statistics().unwrap()["target_mib"], 16);
    assert_eq!(vm.set_balloon(0, AMPLE).unwrap(), Some(0));
}

#[test]
fn a_balloon_without_statistics_is_set_and_not_followed() {
    let balloon = json!({ "amount_mib": 0, "deflate_on_oom": false });
    let (_host, vm) = with_drivers(json!({ "balloon": balloon }));
    assert_eq!(vm.set_balloon(16, AMPLE).unwrap(), None);
    assert!(vm.balloon_statistics().is_err());
}

#[test]
fn a_guest_that_does_not_follow_is_told_of_with_what_it_has() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["balloon"] = json!({ "amount_mib": 0, "deflate_on_oom": false, "stats_polling_interval_s": 1 });
    let vm = host.runtime.create("deaf", &spec.to_string()).unwrap();
    let early = told(&vm.set_balloon(8, AMPLE).unwrap_err());
    assert!(early.contains("it is created; start it first"), "{early}");
    vm.start().unwrap();
    match vm.set_balloon(8, Duration::from_millis(50)) {
        Err(error) => {
            let text = told(&error);
            assert!(
                text.contains("it was asked for 8 MiB, and is at 0") || text.contains("refused"),
                "{text}"
            );
        }
        Ok(actual) => assert_eq!(actual, None),
    }
    let none = host.boot("none", Guest::Halt);
    assert!(told(&none.set_balloon(8, AMPLE).unwrap_err()).contains("refused"));
}

#[test]
fn memory_is_plugged_in_and_out() {
    let hotplug = json!({ "total_size_mib": 1024, "block_size_mib": 2, "slot_size_mib": 128 });
    let (_host, vm) = with_drivers(json!({ "memory-hotplug": hotplug }));
    assert_eq!(vm.set_hotplugged_memory(256, AMPLE).unwrap(), 256);
    assert_eq!(vm.set_hotplugged_memory(0, AMPLE).unwrap(), 0);
    assert!(vm.set_hotplugged_memory(4096, AMPLE).is_err());
}

#[test]
fn after_memory_was_plugged_the_next_snapshot_is_full() {
    let hotplug = json!({ "total_size_mib": 1024, "block_size_mib": 2, "slot_size_mib": 128 });
    let machine = json!({ "vcpu_count": 1, "mem_size_mib": 128, "track_dirty_pages": true });
    let (host, vm) = with_drivers(json!({ "memory-hotplug": hotplug, "machine-config": machine }));
    let take = |id: &str| {
        let report = host.runtime.take_snapshot(&vm, id, Some(r#"{"type":"diff"}"#)).unwrap();
        report["why_full"].as_str().unwrap_or("a diff").to_owned()
    };
    take("base");
    assert_eq!(take("d1"), "a diff");
    vm.set_hotplugged_memory(256, AMPLE).unwrap();
    assert!(take("f1").contains("memory was plugged in or out"));
    let path = RequestPath::parse("/hotplug/memory").unwrap();
    vm.request(Method::Patch, &path, Some(br#"{"requested_size_mib":0}"#)).unwrap();
    assert!(take("f2").contains("a request that the caller sent"));
    assert_eq!(take("d2"), "a diff");
}

#[test]
fn a_drive_gets_another_file_or_keeps_the_one_it_has() {
    let host = Host::new();
    let file = |name: &str, size: usize| {
        let path = host.scratch.path().join(name);
        fs::write(&path, vec![0; size]).unwrap();
        path
    };
    let mut spec = host.spec(Guest::Halt);
    let first = file("first", 1 << 20);
    spec["drives"] = json!([{ "drive_id": "data", "path_on_host": first, "is_root_device": false }]);
    let vm = host.runtime.create("drives", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let link = host.names("drives").join("drives/data");
    let second = file("second", 2 << 20);
    vm.update_drive("data", Some(&second), None).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), second);
    let limiter = json!({ "bandwidth": { "size": 1_000_000, "refill_time": 100 } });
    vm.update_drive("data", None, Some(limiter)).unwrap();
    // Relative to this process's working directory, as everywhere.
    let up = "../".repeat(std::env::current_dir().unwrap().components().count() - 1);
    let relative = Path::new(&up).join(first.strip_prefix("/").unwrap());
    vm.update_drive("data", Some(&relative), None).unwrap();
    vm.update_drive("data", Some(&second), None).unwrap();
    assert_eq!(configuration(&vm)["drives"][0]["rate_limiter"]["bandwidth"]["size"], 1_000_000);
    let gone = host.scratch.path().join("gone");
    assert!(told(&vm.update_drive("data", Some(&gone), None).unwrap_err()).contains("gone"));
    assert!(vm.update_drive("other", Some(&first), None).is_err());
    assert!(vm.update_drive("../data", None, None).is_err());
    assert_eq!(fs::read_link(&link).unwrap(), second, "a refusal changes nothing");
    assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
    vm.kill().unwrap();
    vm.start().unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_device_is_plugged_in_and_out_where_the_vmm_can() {
    let host = Host::new();
    let disk = host.scratch.path().join("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["arguments"] = json!(["--enable-pci"]);
    let Ok(vm) = host.runtime.create("pci", &spec.to_string()) else { return };
    vm.start().unwrap();
    let definition = json!({ "drive_id": "late", "path_on_host": disk, "is_root_device": false });
    if let Err(error) = host.runtime.attach(&vm, Device::Drive, definition.clone()) {
        let text = told(&error);
        assert!(
            text.contains("hotplugging a device needs Firecracker 1.16.0") || text.contains("refused"),
            "{text}"
        );
        assert!(!host.names("pci").join("drives/late").exists());
        return;
    }
    assert_eq!(configuration(&vm)["drives"][0]["path_on_host"], "drives/late");
    assert!(host.runtime.attach(&vm, Device::Drive, definition).is_err());
    assert!(host.names("pci").join("drives/late").exists());
    vm.detach(Device::Drive, "late").unwrap();
    assert_eq!(configuration(&vm)["drives"], json!([]));
    assert!(!host.names("pci").join("drives/late").exists());
    assert!(vm.detach(Device::Drive, "late").is_err());
}

#[test]
fn a_device_is_called_everywhere_what_its_user_calls_it() {
    if common::is_jailed() && !common::is_simulated() {
        return eprintln!("skipped: a TAP device in a jail needs an owner");
    }
    let host = Host::new();
    let disk = |name: &str| {
        let path = host.scratch.path().join(name);
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        path
    };
    let long = "x.".repeat(200);
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["arguments"] = json!(["--enable-pci"]);
    spec["drives"] = json!([
        { "drive_id": "var.img", "is_root_device": false, "path_on_host": disk("one") },
        { "drive_id": long, "is_root_device": false, "path_on_host": disk("long") },
    ]);
    spec["network-interfaces"] = json!([{ "iface_id": "eth-0", "host_dev_name": "mvmt-odd0" }]);
    spec["mmds-config"] = json!({ "network_interfaces": ["eth-0"] });
    let vm = host.runtime.create("odd", &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm.update_drive("var.img", Some(&disk("two")), None).unwrap();
    vm.update_drive(&long, Some(&disk("longer")), None).unwrap();
    vm.update_network_interface("eth-0", None, None).unwrap();
    let hot = json!({ "drive_id": "hot/plug", "is_root_device": false, "path_on_host": disk("hot") });
    host.runtime.attach(&vm, Device::Drive, hot).unwrap();
    vm.detach(Device::Drive, "hot/plug").unwrap();
    vm.flush_metrics().unwrap();
    let mut told_of = vec![
        vm.info().unwrap().to_string(),
        vm.metrics().unwrap().to_string(),
        host.runtime.take_snapshot(&vm, "base", None).unwrap().to_string(),
        host.runtime.snapshot_info("base").unwrap().to_string(),
        told(&vm.update_drive("no.such", None, Some(json!({}))).unwrap_err()),
    ];
    assert!(told_of[0].contains("/drives/var.img") && told_of[0].contains("/network-interfaces/eth-0"));
    assert!(told_of[1].contains("\"block_var.img\"") && told_of[1].contains(&format!("\"block_{long}\"")));
    assert!(told_of[4].contains("/drives/no.such"), "{}", told_of[4]);
    host.runtime.destroy(&vm).unwrap();
    let options = json!({
        "drives": [{ "drive_id": "var.img", "path_on_host": disk("three") }, { "drive_id": long, "path_on_host": disk("longest") }],
        "network_overrides": [{ "iface_id": "eth-0", "host_dev_name": "mvmt-odd1", "guest_mac": "02:00:00:00:00:01" }],
    });
    let again = host.runtime.restore("base", "again", Some(&options.to_string())).unwrap();
    let info = host.runtime.snapshot_info("base").unwrap();
    let mut ids = info["drives"].as_array().unwrap().iter().map(|drive| drive["drive_id"].as_str().unwrap());
    assert!(ids.clone().count() == 2 && ids.all(|id| id == "var.img" || id == long));
    assert_eq!(info["machine"]["interfaces"], json!(["eth-0"]));
    // And once more, from the spec.
    again.kill().unwrap();
    again.start().unwrap();
    host.runtime.take_snapshot(&again, "later", None).unwrap();
    told_of.push(host.runtime.snapshot_info("later").unwrap().to_string());
    let wrong = json!({ "drives": [{ "drive_id": "va.img", "path_on_host": "/none" }] }).to_string();
    told_of.push(told(&host.runtime.restore("base", "third", Some(&wrong)).unwrap_err()));
    // Files of the library's own are called otherwise.
    let without_files = |text: &String| text.replace("drives/mvm_", "").replace("disk-mvm_", "");
    let is_spelled =
        |text: &&String| ["mvm_id_", "mvm_sha_"].iter().any(|own| without_files(text).contains(own));
    assert_eq!(told_of.iter().find(is_spelled), None);
}
