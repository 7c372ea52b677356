//! VMs in jails: what they find there, what the host keeps of them, and what of it is left.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::tenant::{may_jail, user_of};
use common::{AMPLE, Host, console_with, count_above, eventually, told, with_disk};
use mvm::firecracker::http::{Method, RequestPath};
use mvm::process::ladder::{Outcome, Rung};
use mvm::{State, Vm};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn in_jail(mut spec: Value, options: Value) -> String {
    spec["mvm"]["jail"] = options;
    spec["mvm"]["jail"]["jailer"] = json!(common::jailer());
    spec.to_string()
}

fn pid_of(vm: &Vm) -> i32 {
    vm.pid().unwrap()
}

fn lease_of(user: u32) -> PathBuf {
    Path::new("/run/mvm/uids").join(user.to_string())
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn a_jailed_vm_boots_and_nothing_of_it_is_left() {
    if !may_jail() {
        return;
    }
    let before = mounts();
    let host = Host::new();
    let vm = host.runtime.create("tenant", &in_jail(host.spec(Guest::Halt), json!({}))).unwrap();
    vm.start().unwrap();
    console_with(&vm, "hello");
    let user = user_of(&vm);
    assert!((1_879_048_192..=1_879_113_727).contains(&user), "{user}");
    assert!(lease_of(user).symlink_metadata().is_ok());
    assert_eq!(mounts(), before);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
    assert!(lease_of(user).symlink_metadata().is_err());
}

#[test]
fn a_jailed_vmm_sees_what_it_was_lent_and_nothing_else() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let vm = host
        .runtime
        .create("blind", &in_jail(with_disk(&host, Guest::Halt, ("disk", 7)), json!({})))
        .unwrap();
    vm.start().unwrap();
    let root = PathBuf::from(format!("/proc/{}/root", pid_of(&vm)));
    let mut names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    names.sort();
    let log_and_metrics = ["metrics-1.jsonl", "vmm.log"];
    let wanted =
        ["api.sock", "boot-source", "dev", "drives", "firecracker", "firecracker.pid", "run", "saved"];
    let mut wanted = wanted.iter().chain(&log_and_metrics).collect::<Vec<_>>();
    wanted.sort();
    assert_eq!(names, wanted.into_iter().map(|name| (*name).into()).collect::<Vec<std::ffi::OsString>>());
    assert_eq!(fs::read(root.join("drives/data")).unwrap()[0], 7);
    let visible = fs::read_to_string(format!("/proc/{}/mountinfo", pid_of(&vm))).unwrap();
    let points = visible.lines().map(|line| line.split(' ').nth(4).unwrap()).collect::<Vec<_>>();
    assert_eq!(points, ["/", "/boot-source/kernel_image_path", "/drives/data"], "{visible}");
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(&vm))).unwrap();
    assert!(
        status.contains("\nCapEff:\t0000000000000000\n") && status.contains("\nGroups:\t \n"),
        "{status}"
    );
}

#[test]
fn files_of_the_operator_are_lent_as_they_are() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let spec = with_disk(&host, Guest::Halt, ("disk", 7));
    let disk = host.scratch.path().join("disk");
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(&disk).unwrap();
    let vm = host.runtime.create("lent", &in_jail(spec, json!({}))).unwrap();
    vm.start().unwrap();
    let seen = fs::metadata(format!("/proc/{}/root/drives/data", pid_of(&vm))).unwrap();
    let after = fs::metadata(&disk).unwrap();
    assert_eq!(seen.ino(), before.ino());
    assert_eq!(
        (after.uid(), after.gid(), after.mode(), after.nlink()),
        (before.uid(), before.gid(), before.mode(), 1)
    );
    host.runtime.destroy(&vm).unwrap();
    assert_eq!(fs::read(&disk).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn two_drives_of_one_name_are_two_drives() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    let disk = |directory: &str, byte| {
        let path = host.scratch.path().join(directory).join("disk");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![byte; 4096]).unwrap();
        path
    };
    spec["drives"] = json!([
        { "drive_id": "a", "is_root_device": false, "path_on_host": disk("one", 1) },
        { "drive_id": "b", "is_root_device": false, "path_on_host": disk("two", 2), "is_read_only": true },
    ]);
    let vm = host.runtime.create("twins", &in_jail(spec, json!({}))).unwrap();
    vm.start().unwrap();
    let byte = |drive: &str| fs::read(format!("/proc/{}/root/drives/{drive}", pid_of(&vm))).unwrap()[0];
    assert_eq!((byte("a"), byte("b")), (1, 2));
}

#[test]
fn a_jail_is_made_anew_for_each_start() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let vm = host.runtime.create("again", &in_jail(host.spec(Guest::Halt), json!({}))).unwrap();
    vm.start().unwrap();
    let planted = host.vm_directory("again").join("vmm/planted");
    fs::write(&planted, "").unwrap();
    vm.kill().unwrap();
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
    assert!(!planted.exists());
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_jail_whose_making_was_cut_off_is_made() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let vm = host.runtime.create("cut", &in_jail(host.spec(Guest::Halt), json!({}))).unwrap();
    vm.kill().unwrap();
    fs::remove_dir_all(host.vm_directory("cut").join("vmm")).unwrap();
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn a_vm_of_a_dead_owner_is_adopted_in_its_jail() {
    if !may_jail() {
        return;
    }
    let mut host = Host::new();
    let vm =
        host.runtime.create("kept", &in_jail(with_disk(&host, Guest::Halt, ("disk", 7)), json!({}))).unwrap();
    vm.start().unwrap();
    let user = user_of(&vm);
    drop(vm);
    host.change_owner();
    let vm = host.runtime.vm("kept").unwrap();
    vm.pause().unwrap();
    let other = host.scratch.path().join("other");
    fs::write(&other, vec![8; 1 << 20]).unwrap();
    vm.update_drive("data", Some(&other), None).unwrap();
    assert_eq!(fs::read(format!("/proc/{}/root/drives/data", pid_of(&vm))).unwrap()[0], 8);
    let gone = host.scratch.path().join("gone");
    vm.update_drive("data", Some(&gone), None).unwrap_err();
    assert_eq!(fs::read(format!("/proc/{}/root/drives/data", pid_of(&vm))).unwrap()[0], 8);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
    assert!(lease_of(user).symlink_metadata().is_err());
}

#[test]
fn a_snapshot_of_a_jailed_vm_is_the_owners_and_is_restored_in_a_jail_or_outside() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let vm = host
        .runtime
        .create("source", &in_jail(with_disk(&host, Guest::Report, ("disk", 7)), json!({})))
        .unwrap();
    vm.start().unwrap();
    let count = count_above(&vm, 1);
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    for name in ["state", "memory", "disk-data"] {
        let about = fs::metadata(host.scratch.path().join("state/snapshots/base").join(name)).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (0, 0o600), "{name}");
    }
    host.runtime.destroy(&vm).unwrap();
    let outside = json!({ "mvm": {} }).to_string();
    let pager = json!({ "memory": "pager", "pager": { "run_in": "thread" } }).to_string();
    for (id, options) in [("by-file", None), ("by-pager", Some(pager)), ("outside", Some(outside))] {
        let vm = host.runtime.restore("base", id, options.as_deref()).unwrap();
        count_above(&vm, count + 1);
        assert_eq!(user_of(&vm) >= 1_879_048_192, id != "outside");
        host.runtime.destroy(&vm).unwrap();
    }
    host.assert_nothing_left();
}

#[test]
fn clones_run_as_users_of_their_own() {
    if !may_jail() {
        return;
    }
    const COUNT: usize = 8;
    let host = Host::new();
    let vm = host.runtime.create("source", &in_jail(host.spec(Guest::Halt), json!({}))).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    let clones = host.runtime.clone_vms("base", COUNT, None).unwrap();
    let mut users = clones.iter().map(|clone| user_of(clone)).chain([user_of(&vm)]).collect::<Vec<_>>();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), COUNT + 1);
    clones.iter().chain([&vm]).for_each(|vm| host.runtime.destroy(vm).unwrap());
    assert!(users.iter().all(|user| lease_of(*user).symlink_metadata().is_err()));
}

#[test]
fn a_small_range_of_users_is_shared_by_many_threads_and_its_end_is_told() {
    if !may_jail() {
        return;
    }
    const FIRST: u32 = 2_100_000_000;
    let jail = json!({ "uids": { "first": FIRST, "count": 4 } });
    let host = Host::with_options(json!({ "firecracker": common::firecracker(), "jail": jail }));
    let spec = in_jail(host.spec(Guest::Halt), json!({}));
    let created = std::thread::scope(|scope| {
        let create = |n: usize| {
            let (runtime, spec) = (&host.runtime, &spec);
            scope.spawn(move || runtime.create(&format!("vm-{n}"), spec))
        };
        (0..6).map(create).collect::<Vec<_>>().into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    let refused = created.iter().filter_map(|it| it.as_ref().err()).map(|it| told(it)).collect::<Vec<_>>();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused.iter().all(|text| text.contains("no user is free") && text.contains("2100000003")),
        "{refused:?}"
    );
    let mut users = created.iter().flatten().map(|vm| user_of(vm)).collect::<Vec<_>>();
    users.sort_unstable();
    assert_eq!(users, (FIRST..FIRST + 4).collect::<Vec<_>>());
}

#[test]
fn the_first_process_of_a_pid_namespace_is_followed_and_ended_without_sigterm() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["shutdown"] = json!({ "guest": "off" });
    let vm = host.runtime.create("first", &in_jail(spec, json!({ "processes": "own" }))).unwrap();
    vm.start().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(&vm))).unwrap();
    assert!(status.contains(&format!("NSpid:\t{}\t1\n", pid_of(&vm))), "{status}");
    let report = vm.shutdown(AMPLE, Some(Duration::from_millis(50))).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Kill)));
    assert!(report.elapsed < AMPLE / 2, "{report:?}");
}

#[test]
fn limits_are_those_that_were_asked_for() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let limits = json!({ "resource_limits": { "fsize": 1 << 30, "no-file": 512 } });
    let vm = host.runtime.create("limited", &in_jail(host.spec(Guest::Halt), limits)).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid_of(&vm))).unwrap();
    let of = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_ascii_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((of("Max file size"), of("Max open files")), ("1073741824".into(), "512".into()));
}

#[test]
fn a_snapshot_that_the_limits_forbid_is_refused_and_the_vm_lives() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let limits = json!({ "resource_limits": { "fsize": 64 << 20 } });
    let vm = host.runtime.create("short", &in_jail(host.spec(Guest::Halt), limits)).unwrap();
    vm.start().unwrap();
    let text = told(&host.runtime.take_snapshot(&vm, "long", None).unwrap_err());
    assert!(text.contains("134217728") && text.contains("fsize"), "{text}");
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn a_jail_and_limits_go_together() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["limits"] = json!({});
    let vm = match host.runtime.create("bound", &in_jail(spec, json!({}))) {
        Err(error) => {
            return eprintln!("skipped: this machine has no cgroups to make some in: {}", told(&error));
        }
        Ok(vm) => vm,
    };
    vm.start().unwrap();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", pid_of(&vm))).unwrap();
    assert!(cgroups.contains("/mvm-"), "{cgroups}");
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn the_vsock_of_a_jailed_vm_is_where_its_owner_looks_for_it() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let socket = host.scratch.path().join("v.sock");
    let mut spec = host.spec(Guest::Halt);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": socket });
    let vm = host.runtime.create("talker", &in_jail(spec, json!({}))).unwrap();
    let is_socket = || fs::metadata(&socket).is_ok_and(|about| about.file_type().is_socket());
    assert!(is_socket());
    assert_eq!(vm.info().unwrap()["vsock_socket"], json!(socket));
    host.runtime.rename(&vm, "speaker").unwrap();
    assert!(is_socket(), "it follows its VM");
    host.runtime.destroy(&vm).unwrap();
    assert!(socket.symlink_metadata().is_err());
}

#[test]
fn what_a_jailed_vmm_writes_elsewhere_goes_into_the_owners_file() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let log = host.scratch.path().join("own.log");
    let mut spec = host.spec(Guest::Halt);
    spec["logger"] = json!({ "log_path": log, "level": "Info" });
    let vm = host.runtime.create("writer", &in_jail(spec, json!({}))).unwrap();
    vm.start().unwrap();
    eventually("it has written", || fs::metadata(&log).is_ok_and(|about| about.len() > 0));
    assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
}

#[test]
fn what_a_jail_lacks_is_told_before_anything_is_made() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let refused = |options: Value, text: &str| {
        let mut spec = host.spec(Guest::Halt);
        spec["mvm"]["jail"] = options;
        let error = told(&host.runtime.create("refused", &spec.to_string()).unwrap_err());
        assert!(error.contains(text), "{error}");
        host.assert_nothing_left();
    };
    refused(json!({ "jailer": "/nowhere/jailer" }), "cannot use /nowhere/jailer as the jailer");
    refused(json!({ "jailer": common::jailer(), "netns": "/run/netns/none" }), "/run/netns/none");
    refused(json!({ "jail": {} }), "unknown key");
    refused(json!({ "jailer": common::jailer(), "uid": -1 }), "a whole number below 2^32");
}

#[test]
fn a_vmm_that_needs_shared_libraries_is_told_as_that() {
    if !may_jail() {
        return;
    }
    if common::is_simulated() {
        return eprintln!("skipped: the simulator needs shared libraries, and has them as a jailer");
    }
    let host = Host::simulated();
    let text = told(&host.runtime.create("shared", &in_jail(host.spec(Guest::Halt), json!({}))).unwrap_err());
    assert!(text.contains("a jail has none") && text.contains("No such file or directory"), "{text}");
    host.assert_nothing_left();
}

#[test]
fn requests_of_the_callers_own_name_what_is_in_the_jail() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let vm = host
        .runtime
        .create("plain", &in_jail(with_disk(&host, Guest::Halt, ("disk", 7)), json!({})))
        .unwrap();
    let answer = vm.request(Method::Get, &RequestPath::parse("/vm/config").unwrap(), None).unwrap();
    let configuration: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(configuration["drives"][0]["path_on_host"], "drives/data");
    assert_eq!(configuration["boot-source"]["kernel_image_path"], "boot-source/kernel_image_path");
}

#[test]
fn whatever_a_config_file_has_works_in_a_jail_and_through_a_restore() {
    if !may_jail() {
        return;
    }
    let host = Host::new();
    let file = |name: &str, bytes: usize| {
        let path = host.scratch.path().join(name);
        fs::write(&path, vec![7; bytes]).unwrap();
        path
    };
    let bucket = json!({ "size": 1_000_000, "refill_time": 100 });
    let limiter = json!({ "bandwidth": bucket, "ops": bucket });
    let mut spec = host.spec(Guest::Report);
    spec["drives"] = json!([
        { "drive_id": "a", "is_root_device": false, "path_on_host": file("a", 1 << 20), "rate_limiter": limiter,
          "cache_type": "Writeback" },
        { "drive_id": "b.ro", "is_root_device": false, "path_on_host": file("b", 1 << 20), "is_read_only": true },
    ]);
    spec["pmem"] = json!([{ "id": "p", "path_on_host": file("p", 2 << 20) }]);
    spec["balloon"] = json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1 });
    spec["entropy"] = json!({ "rate_limiter": limiter });
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": host.scratch.path().join("v.sock") });
    spec["cpu-config"] = json!({ "cpuid_modifiers": [], "msr_modifiers": [], "kvm_capabilities": [] });
    let cpu_config = host.scratch.path().join("cpu.json");
    fs::write(&cpu_config, spec["cpu-config"].to_string()).unwrap();
    spec["cpu-config"] = json!(cpu_config);
    spec["serial"] = json!({ "serial_out_path": host.scratch.path().join("serial.log") });
    spec["metrics"] = json!({ "metrics_path": host.scratch.path().join("metrics.log") });
    let vm = host
        .runtime
        .create("full", &in_jail(spec, json!({})))
        .unwrap_or_else(|error| panic!("{}", told(&error)));
    vm.start().unwrap();
    console_with(&vm, "0000000000000002");
    vm.update_drive("a", None, Some(limiter.clone())).unwrap();
    host.runtime.take_snapshot(&vm, "base", None).unwrap_or_else(|error| panic!("{}", told(&error)));
    host.runtime.destroy(&vm).unwrap();
    for memory in ["file", "pager"] {
        let options = json!({ "memory": memory, "pager": { "run_in": "thread" } }).to_string();
        let restored = host.runtime.restore("base", memory, Some(&options));
        let vm = restored.unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(vm.state(), State::Running);
        host.runtime.destroy(&vm).unwrap();
    }
    host.assert_nothing_left();
}
