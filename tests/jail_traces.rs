//! What a jailed VM leaves on its host, whatever has become of it: nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::tenant::{boot, error_of, host, jailed_with_disk, jailed_with_disk_of, user_of};
use common::{Host, eventually, is_simulated};
use mvm::{ReapOptions, State};
use serde_json::{Value, json};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A range of users that no other test has.
fn with_users_of_its_own() -> Option<(Host, Range<u32>)> {
    drop(host()?);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = 1_000_000_000 + std::process::id() * 256 + NEXT.fetch_add(64, Ordering::Relaxed);
    let uids = json!({ "first": first, "count": 64 });
    let options =
        json!({ "firecracker": common::firecracker(), "jail": { "jailer": common::jailer(), "uids": uids } });
    Some((Host::with_options(options), first..first + 64))
}

/// Neither a lease of these users, nor a process of theirs, nor a mount.
fn assert_gone(host: &Host, users: &Range<u32>) {
    host.assert_nothing_left();
    let numbers = |directory: &str| {
        let names = fs::read_dir(directory).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    assert_eq!(numbers("/run/mvm/uids").iter().find(|user| users.contains(user)), None);
    // What has been killed is still there until somebody has taken its status.
    let runs = |pid: &u32| {
        let user = fs::metadata(format!("/proc/{pid}")).map(|about| about.uid()).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        users.contains(&user) && !stat.contains(") Z ") && !stat.contains(") X ")
    };
    eventually("no process of these users runs", || !numbers("/proc").iter().any(runs));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(host.scratch.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_create_that_fails_at_any_step_leaves_no_user_no_mount_and_no_process() {
    let Some((host, users)) = with_users_of_its_own() else { return };
    let scratch = host.scratch.path();
    let spec = jailed_with_disk(&host);
    let jailer = |name: &str, body: &str| common::script(scratch, name, body);
    let (plain, hangs) = (scratch.join("plain"), jailer("hangs", "sleep 60 & exec sleep 60"));
    fs::write(&plain, "no program").unwrap();
    let mut ways = vec![
        ("/boot-source/kernel_image_path", json!("/none")),
        ("/boot-source/kernel_image_path", json!(host.kernel(Guest::NoElf))),
        ("/boot-source/kernel_image_path", json!(scratch)),
        ("/drives/0/path_on_host", json!("/none")),
        ("/drives/0/path_on_host", json!(scratch)),
        ("/mvm/jail/jailer", json!("/none")),
        ("/mvm/jail/jailer", json!(scratch)),
        ("/mvm/jail/jailer", json!(plain)),
        ("/mvm/jail/jailer", json!("/bin/true")),
        ("/mvm/jail/jailer", json!(jailer("fails", "echo no >&2; exit 1"))),
        ("/mvm/jail/jailer", json!(hangs)),
        ("/mvm/jail/netns", json!("/none")),
        ("/mvm/jail/netns", json!("/dev/null")),
        ("/mvm/jail/resource_limits/no-file", json!(4)),
        ("/machine-config/vcpu_count", json!(99)),
    ];
    if is_simulated() {
        let faults =
            ["0:exit=3", "0:crash", "0:no-socket", "0:deaf", "1:crash", "2:hang", "2:drop", "3:exit=7"];
        ways.extend(faults.map(|fault| ("/mvm/arguments", json!(["--sim-fault", fault]))));
    }
    for (place, value) in ways {
        let mut spec = spec.clone();
        spec["mvm"]["jail"]["netns"] = Value::Null;
        spec["mvm"]["jail"]["resource_limits"] = json!({ "no-file": 2048 });
        spec["mvm"]["deadlines"] = json!({ "create_ms": 700, "start_ms": 700 });
        spec["mvm"]["arguments"] = json!([]);
        *spec.pointer_mut(place).unwrap() = value.clone();
        let error = error_of(&host, "failing", &spec);
        assert!(!error.is_empty(), "{place} {value}");
        assert_gone(&host, &users);
    }
    assert_eq!(fs::metadata(scratch.join("disk")).unwrap().uid(), 0);
}

#[test]
fn a_whole_life_leaves_no_user_no_mount_and_no_process() {
    let Some((mut host, users)) = with_users_of_its_own() else { return };
    let vm = boot(&host, "whole", &jailed_with_disk(&host));
    host.runtime.take_snapshot(&vm, "taken", None).unwrap();
    let restored = host.runtime.restore("taken", "restored", None).unwrap();
    let paged = host
        .runtime
        .restore("taken", "paged", Some(r#"{ "memory": "pager", "pager": { "run_in": "thread" } }"#))
        .unwrap();
    let their = [&vm, &restored, &paged].map(|vm| user_of(vm));
    assert!(their.iter().all(|user| users.contains(user)), "{their:?}");
    assert!(their[0] != their[1] && their[1] != their[2] && their[0] != their[2], "{their:?}");
    // What of a VMM is said to have failed by a kill is gone with it, too.
    Command::new("kill").args(["-9", &vm.pid().unwrap().to_string()]).status().unwrap();
    eventually("the end is noticed", || vm.state() == State::Failed);
    drop((vm, restored, paged));
    host.change_owner();
    for vm in host.runtime.list() {
        host.runtime.destroy(&vm).unwrap();
    }
    host.runtime.delete_snapshot("taken").unwrap();
    assert_gone(&host, &users);
}

/// Its journal is gone, its environment empty, and it takes its working directory for the root of the file system.
#[test]
fn a_jailed_vmm_whose_directory_was_deleted_is_told_and_ended_by_a_call_that_says_so() {
    let Some((mut host, users)) = with_users_of_its_own() else { return };
    let pid = boot(&host, "lost", &jailed_with_disk(&host)).pid().unwrap();
    let stays = boot(&host, "stays", &jailed_with_disk_of(&host, "another")).pid().unwrap();
    host.without_owner_but(|directory| fs::remove_dir_all(directory.join("state/vms/lost")).unwrap());
    let left = host.runtime.report()["left_alone"].to_string();
    assert!(left.contains(&format!("process {pid} ")) && !left.contains(&stays.to_string()), "{left}");
    let options = ReapOptions { damaged: true, ..ReapOptions::default() };
    let report = host.runtime.reap(options).unwrap();
    assert_eq!(report["damaged"][0]["ended"], json!([pid]), "{report}");
    assert_eq!(host.runtime.vm("stays").unwrap().state(), State::Running);
    host.runtime.destroy(&host.runtime.vm("stays").unwrap()).unwrap();
    assert_gone(&host, &users);
}
