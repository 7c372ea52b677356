//! Names that are given away again: what once had one is not taken for what has it now.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{Host, console_with, eventually, told};
use mvm::firecracker::http::{Method, RequestPath};
use mvm::{State, Vm};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn boot(host: &Host, id: &str, guest: Guest) -> Arc<Vm> {
    let mut spec = host.spec(guest);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create(id, &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm
}

#[test]
fn a_diff_builds_upon_no_other_snapshot_that_has_the_name_of_its_parent_now() {
    let host = Host::new();
    let one = boot(&host, "one", Guest::Count);
    let other = boot(&host, "other", Guest::Count);
    host.runtime.take_snapshot(&one, "base", None).unwrap();
    host.runtime.delete_snapshot("base").unwrap();
    host.runtime.take_snapshot(&other, "base", None).unwrap();
    let diff_or_nothing = Some(r#"{"type":"diff","when_uncertain":"fail"}"#);
    let text = told(&host.runtime.take_snapshot(&one, "diff", diff_or_nothing).unwrap_err());
    assert!(text.contains("take a full snapshot"), "{text}");
    // The other one's diff is to its own.
    host.runtime.take_snapshot(&other, "diff", diff_or_nothing).unwrap();
    // And a merge changes nothing of what a snapshot says.
    host.runtime.merge_snapshot("diff", None).unwrap();
    host.runtime.take_snapshot(&other, "next", diff_or_nothing).unwrap();
}

#[test]
fn a_pool_takes_over_no_member_of_a_former_snapshot_of_the_same_name() {
    let mut host = Host::with_keeper();
    let options = json!({ "snapshot": "base", "size": 1 }).to_string();
    let base_of = |host: &Host, id: &str| {
        let vm = boot(host, id, Guest::Obey);
        host.runtime.take_snapshot(&vm, "base", None).unwrap();
        host.runtime.destroy(&vm).unwrap();
    };
    base_of(&host, "old");
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 1);
    drop(pool);
    host.change_owner();
    let generation = |vm: &Vm| vm.info().unwrap()["generation_id"].clone();
    let former = generation(&host.runtime.vm("warm-1").unwrap());
    host.runtime.delete_snapshot("base").unwrap();
    base_of(&host, "new");
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    let taken = host.runtime.take(&pool, "web", None).unwrap();
    assert_ne!(generation(&taken), former, "a VM of the snapshot that was deleted was handed over");
    host.runtime.destroy_pool(&pool).unwrap();
}

#[test]
fn the_end_of_a_renamed_vms_pager_ends_no_vm_that_has_its_former_name() {
    let host = Host::with_keeper();
    let vm = host.boot("source", Guest::Obey);
    console_with(&vm, "hello\n");
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
    let paged = host.runtime.restore("base", "web", Some(r#"{"memory":"pager"}"#)).unwrap();
    // The keeper looks at what was written a moment ago.
    std::thread::sleep(Duration::from_millis(300));
    host.runtime.rename(&paged, "former").unwrap();
    let other = host.boot("web", Guest::Count);
    std::thread::sleep(Duration::from_millis(300));
    host.runtime.destroy(&paged).unwrap();
    assert!(other.wait(Duration::from_secs(1)).is_err(), "it has ended: {:?}", other.exit_status());
    assert_eq!(other.state(), State::Running);
}

#[test]
fn a_vmm_that_is_late_writes_into_no_other_snapshot_of_the_same_name() {
    let host = Host::simulated();
    let boot = |id: &str, memory_mib: u64, fault: &str| {
        let mut spec = host.faulty_spec(Guest::Count, &[fault]);
        spec["machine-config"]["mem_size_mib"] = memory_mib.into();
        let vm = host.runtime.create(id, &spec.to_string()).unwrap();
        vm.start().unwrap();
        vm
    };
    // The sixth request is the one to write, and the seventh the one to go on.
    let (late, other) = (boot("late", 64, "6:slow=500"), boot("other", 128, "7:slow=1500"));
    let given_up = host.runtime.take_snapshot(&late, "base", Some(r#"{"deadline_ms":100}"#));
    assert!(told(&given_up.unwrap_err()).contains("within"));
    host.runtime.take_snapshot(&other, "base", None).unwrap();
    let restored = host.runtime.restore("base", "restored", None).unwrap();
    let path = RequestPath::parse("/machine-config").unwrap();
    let answer = restored.request(Method::Get, &path, None).unwrap();
    let machine = serde_json::from_slice::<Value>(&answer.body).unwrap();
    assert_eq!(machine["mem_size_mib"], 128);
}

#[test]
fn nothing_is_called_like_an_option_of_a_program() {
    let mut host = Host::new();
    let vm = host.boot("web-1", Guest::Halt);
    let spec = host.spec(Guest::Halt);
    let pool = json!({ "spec": spec, "size": 0 }).to_string();
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    for id in ["-", "--", "-h", "--version", "--seccomp-filter"] {
        let errors = [
            told(&host.runtime.create(id, &spec.to_string()).unwrap_err()),
            told(&host.runtime.rename(&vm, id).unwrap_err()),
            told(&host.runtime.take_snapshot(&vm, id, None).unwrap_err()),
            told(&host.runtime.restore("base", id, None).unwrap_err()),
            told(&host.runtime.open_pool(id, &pool).unwrap_err()),
            told(&host.runtime.clone_vms("base", 1, Some(&json!({ "prefix": id }).to_string())).unwrap_err()),
        ];
        for text in errors {
            assert!(text.contains("a letter or a digit") && text.contains(id), "{text}");
        }
    }
    // One that an older library has made is left alone, and that is reported.
    std::fs::create_dir(host.vm_directory("--")).unwrap();
    host.change_owner();
    let left = host.runtime.report()["left_alone"].to_string();
    assert!(left.contains("/--\""), "{left}");
}

#[test]
fn a_string_with_a_nul_is_never_cut_off_at_it() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"] = json!({ "arguments": ["--level\0", "--x"] });
    let text = told(&host.runtime.create("web-1", &spec.to_string()).unwrap_err());
    assert!(text.contains("NUL"), "{text}");
    spec["mvm"] = json!({ "firecracker": format!("{}\0-evil", common::firecracker().display()) });
    host.runtime.create("web-1", &spec.to_string()).unwrap_err();
    let disk = host.scratch.path().join("disk");
    std::fs::write(&disk, [0; 4096]).unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["drives"] = json!([{ "drive_id": "a", "is_root_device": false, "path_on_host": format!("{}\0-evil", disk.display()) }]);
    host.runtime.create("web-1", &spec.to_string()).unwrap_err();
    host.runtime.create("web-1\0-evil", &host.spec(Guest::Halt).to_string()).unwrap_err();
    host.assert_nothing_left();
}
