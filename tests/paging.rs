//! VMs whose memory the pager serves, on the VMM under test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_of, console_with, eventually, told};
use mvm::pager::Figures;
use mvm::runtime::EventKind;
use mvm::{Runtime, State, Vm};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The host's directory, a VM's id and where its pager runs, for the operator that this program plays.
const OPERATOR: [&str; 3] = ["MVM_PAGING_HOST", "MVM_PAGING_VM", "MVM_PAGING_RUN_IN"];

/// A snapshot of a guest that has filled its memory, and looks after it page by page.
fn patterned(host: &Host, guest: Guest) {
    let vm = host.boot("source", guest);
    console_with(&vm, "filled\n");
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
}

fn paged(host: &Host, id: &str, pager: Value) -> Arc<Vm> {
    let options = json!({ "memory": "pager", "pager": pager }).to_string();
    host.runtime.restore("base", id, Some(&options)).unwrap()
}

fn figure(vm: &Vm, name: &str) -> u64 {
    vm.info().unwrap()["pager"][name].as_u64().unwrap()
}

fn events_of(host: &Host) -> Vec<EventKind> {
    std::iter::from_fn(|| host.runtime.next_event(Duration::ZERO).unwrap()).map(|event| event.kind).collect()
}

/// The keeper that serves the VM.
fn pager_pid(host: &Host, id: &str) -> String {
    let journal = fs::read_to_string(host.vm_directory(id).join("journal.json")).unwrap();
    let record: Value = serde_json::from_str(journal.split_once('\n').unwrap().1).unwrap();
    record["vmm"]["pager"]["process"]["pid"].to_string()
}

fn kill(pid: &str) {
    signal("-KILL", pid);
}

fn signal(signal: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// Has the guest look at all of its memory once.
fn look(vm: &Vm, times: usize) {
    begin_to_look(vm);
    eventually("it has looked", || console_of(vm).matches("ok\n").count() == times);
}

fn begin_to_look(vm: &Vm) {
    let path = mvm::firecracker::http::RequestPath::parse("/actions").unwrap();
    let press = br#"{"action_type":"SendCtrlAltDel"}"#;
    vm.request(mvm::firecracker::http::Method::Put, &path, Some(press)).unwrap();
}

#[test]
fn every_page_that_the_pager_serves_is_right() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    for (id, pager) in [
        ("on-demand", json!({})),
        ("bare", json!({ "fault_around_bytes": 0, "workers": 2 })),
        ("streamed", json!({ "ahead": "everything" })),
        ("in-threads", json!({ "run_in": "thread" })),
    ] {
        let vm = paged(&host, id, pager);
        assert_eq!(vm.state(), State::Running);
        look(&vm, 1);
        assert!(!console_of(&vm).contains("bad"), "{id}");
        // A page is there a moment before it is counted.
        eventually("all pages are counted", || figure(&vm, "present_pages") >= 64 << 8);
        let kept = told(&host.runtime.delete_snapshot("base").unwrap_err());
        assert!(kept.contains(&format!("VM {id}")), "{kept}");
        host.runtime.destroy(&vm).unwrap();
    }
    host.runtime.delete_snapshot("base").unwrap();
    host.assert_nothing_left();
    assert!(!events_of(&host).iter().any(|what| matches!(what, EventKind::PagerLost(_))));
}

#[test]
fn a_chain_of_diffs_is_served_without_being_merged() {
    let host = Host::with_keeper();
    let mut spec = host.spec(Guest::Scan);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "empty", None).unwrap();
    console_with(&vm, "filled\n");
    host.runtime.take_snapshot(&vm, "base", Some(r#"{"type":"diff"}"#)).unwrap();
    host.runtime.destroy(&vm).unwrap();
    let vm = paged(&host, "paged", json!({}));
    look(&vm, 1);
    assert!(!console_of(&vm).contains("bad"));
}

#[test]
fn every_page_of_a_larger_memory_is_right_by_file_and_by_pager_of_a_snapshot_and_of_a_diff() {
    const FILLED: std::ops::Range<u32> = 32..288;
    let host = Host::with_keeper();
    let mut spec = host.spec(Guest::Scan);
    let kernel = common::guest::write_with_pattern(host.scratch.path(), Guest::Scan, &FILLED);
    spec["boot-source"]["kernel_image_path"] = json!(kernel);
    spec["machine-config"]["mem_size_mib"] = 320.into();
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "empty", None).unwrap();
    console_with(&vm, "filled\n");
    host.runtime.take_snapshot(&vm, "diff", Some(r#"{"type":"diff"}"#)).unwrap();
    host.runtime.take_snapshot(&vm, "full", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
    for (snapshot, memory) in [("full", "file"), ("full", "pager"), ("diff", "file"), ("diff", "pager")] {
        let options = json!({ "memory": memory, "pager": { "ahead": "everything" } }).to_string();
        let vm = host.runtime.restore(snapshot, "restored", Some(&options)).unwrap();
        look(&vm, 1);
        assert!(!console_of(&vm).contains("bad"), "{snapshot} by {memory}");
        host.runtime.destroy(&vm).unwrap();
    }
}

#[test]
fn a_snapshot_in_a_storm_of_faults_is_whole() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scatter);
    for kind in ["full", "diff"] {
        let options = json!({
            "memory": "pager", "track_dirty_pages": true, "pager": { "fault_around_bytes": 0, "workers": 2 },
        });
        let vm = host.runtime.restore("base", "frozen", Some(&options.to_string())).unwrap();
        let before = figure(&vm, "faults");
        begin_to_look(&vm);
        eventually("the storm has begun", || figure(&vm, "faults") > before + 500);
        host.runtime.take_snapshot(&vm, kind, Some(&json!({ "type": kind }).to_string())).unwrap();
        eventually("it has looked", || console_of(&vm).contains("ok\n"));
        host.runtime.destroy(&vm).unwrap();
        for memory in ["file", "pager"] {
            let options = json!({ "memory": memory }).to_string();
            let vm = host.runtime.restore(kind, "thawed", Some(&options)).unwrap();
            eventually("it has looked to the end", || console_of(&vm).contains("ok\n"));
            look(&vm, 2);
            assert!(!console_of(&vm).contains("bad"), "{kind}, {memory}");
            host.runtime.destroy(&vm).unwrap();
        }
    }
    host.assert_nothing_left();
}

#[test]
fn a_working_set_is_recorded_and_replayed_ahead_of_the_faults() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scatter);
    let vm = paged(&host, "recorded", json!({ "record": {} }));
    look(&vm, 1);
    assert!(vm.store_working_set().unwrap() > 0);
    let on_demand = figure(&vm, "faults");
    eventually("all pages are counted", || figure(&vm, "recorded_pages") >= 64 << 8);
    host.runtime.destroy(&vm).unwrap();
    assert_eq!(host.runtime.snapshot_info("base").unwrap()["has_working_set"], true);
    let vm = paged(&host, "replayed", json!({ "ahead": "working_set" }));
    eventually("it was replayed", || figure(&vm, "replayed_pages") >= 64 << 8);
    look(&vm, 1);
    assert!(!console_of(&vm).contains("bad"));
    assert!(figure(&vm, "faults") < on_demand / 2, "{} after {on_demand}", vm.info().unwrap()["pager"]);
    let refused = told(&vm.store_working_set().unwrap_err());
    assert!(refused.contains("working set"), "{refused}");
}

#[test]
fn a_vm_whose_pager_is_killed_ends_within_a_bound() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Pattern);
    let vm = paged(&host, "orphaned", json!({ "fault_around_bytes": 0 }));
    console_with(&vm, "ok\n");
    events_of(&host);
    kill(&pager_pid(&host, "orphaned"));
    // Nobody asks: it is the keeper who sees to it.
    let exit = vm.wait(AMPLE).unwrap();
    assert_eq!((vm.state(), exit), (State::Failed, mvm::ExitStatus::Signal(9)));
    let events = events_of(&host);
    assert!(matches!(events.as_slice(), [EventKind::PagerLost(_), EventKind::Exited(_)]), "{events:?}");
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_vm_that_was_started_again_does_not_end_for_its_former_pager() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Pattern);
    let vm = paged(&host, "again", json!({}));
    console_with(&vm, "ok\n");
    let record = fs::read_to_string(host.scratch.path().join("state/keeper.json")).unwrap();
    let record: Value = serde_json::from_str(record.split_once('\n').unwrap().1).unwrap();
    let keeper = record["process"]["pid"].to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &keeper]).status().unwrap().success());
    let watched = format!("Pid:\t{}\n", pager_pid(&host, "again"));
    eventually("the keeper watches over the pager", || {
        let descriptors = fs::read_dir(format!("/proc/{keeper}/fdinfo")).unwrap().flatten();
        let mut about = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        about.any(|about| about.contains(&watched))
    });
    // A keeper that looks late, as on a busy machine.
    signal("-STOP");
    vm.kill().unwrap();
    vm.start().unwrap();
    signal("-CONT");
    assert!(vm.wait(Duration::from_millis(500)).is_err());
    assert_eq!(vm.state(), State::Running);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_memory_file_that_is_cut_off_ends_the_vm_with_the_reason() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    let vm = paged(&host, "cut", json!({}));
    events_of(&host);
    let memory = host.scratch.path().join("state/snapshots/base/memory");
    fs::OpenOptions::new().write(true).open(memory).unwrap().set_len(1 << 20).unwrap();
    let path = mvm::firecracker::http::RequestPath::parse("/actions").unwrap();
    let press = br#"{"action_type":"SendCtrlAltDel"}"#;
    let _pressed = vm.request(mvm::firecracker::http::Method::Put, &path, Some(press));
    vm.wait(AMPLE).unwrap();
    eventually("it is told why", || {
        events_of(&host)
            .iter()
            .any(|what| matches!(what, EventKind::PagerLost(text) if text.contains("cut off")))
    });
    assert_eq!(vm.state(), State::Failed);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn the_reason_is_told_of_a_vm_that_has_another_name_meanwhile() {
    for run_in in ["process", "thread"] {
        let host = Host::with_keeper();
        patterned(&host, Guest::Scan);
        let vm = paged(&host, "former", json!({ "run_in": run_in }));
        host.runtime.rename(&vm, "present").unwrap();
        let other = paged(&host, "former", json!({ "run_in": run_in }));
        let memory = host.scratch.path().join("state/snapshots/base/memory");
        fs::OpenOptions::new().write(true).open(memory).unwrap().set_len(1 << 20).unwrap();
        begin_to_look(&vm);
        vm.wait(AMPLE).unwrap();
        eventually("it is told why", || {
            let events = std::iter::from_fn(|| host.runtime.next_event(Duration::ZERO).unwrap());
            let mut events = events.filter(|event| event.vm == "present").map(|event| event.kind);
            events.any(|what| matches!(what, EventKind::PagerLost(text) if text.contains("cut off")))
        });
        host.runtime.destroy(&vm).unwrap();
        host.runtime.destroy(&other).unwrap();
        host.assert_nothing_left();
    }
}

#[test]
fn the_keeper_knows_a_vm_that_has_the_name_which_another_one_had() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    for former in ["a", "b", "c", "d", "e", "f"] {
        let vm = paged(&host, former, json!({}));
        let present = format!("{former}-now");
        host.runtime.rename(&vm, &present).unwrap();
        let other = paged(&host, former, json!({}));
        for (id, vm) in [(former, &other), (&present, &vm)] {
            kill(&pager_pid(&host, id));
            // Nobody else looks.
            vm.wait(AMPLE).unwrap();
            host.runtime.destroy(vm).unwrap();
        }
    }
    host.assert_nothing_left();
}

#[test]
fn a_pager_serves_on_without_an_owner_and_is_the_next_ones() {
    let mut host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    drop(paged(&host, "survivor", json!({ "fault_around_bytes": 0 })));
    host.change_owner();
    let vm = host.runtime.vm("survivor").unwrap();
    assert_eq!(vm.state(), State::Running);
    look(&vm, 1);
    assert!(!console_of(&vm).contains("bad"));
    // It is watched as before.
    kill(&pager_pid(&host, "survivor"));
    vm.wait(AMPLE).unwrap();
    assert_eq!(vm.state(), State::Failed);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

/// The keeper holds each pager that it has come to know by a pidfd.
fn keeper_knows(keeper: &str, pager: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{keeper}/fdinfo")).unwrap().flatten();
    let about = descriptors.map(|descriptor| fs::read_to_string(descriptor.path()).unwrap_or_default());
    about.into_iter().any(|about| about.lines().any(|line| line == format!("Pid:\t{pager}")))
}

#[test]
fn a_vm_that_is_made_anew_does_not_end_with_the_pager_of_the_one_before() {
    let host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    let text = fs::read_to_string(host.scratch.path().join("state/keeper.json")).unwrap();
    let record: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let keeper = record["process"]["pid"].to_string();
    let former = paged(&host, "again", json!({}));
    let pager = pager_pid(&host, "again");
    eventually("the keeper knows its pager", || keeper_knows(&keeper, &pager));
    signal("-STOP", &keeper);
    host.runtime.destroy(&former).unwrap();
    let vm = paged(&host, "again", json!({}));
    signal("-CONT", &keeper);
    let pager = pager_pid(&host, "again");
    eventually("the keeper knows the new one", || keeper_knows(&keeper, &pager));
    look(&vm, 1);
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn a_pager_in_threads_of_a_closed_runtime_serves_the_next_and_its_process_is_not_ended() {
    let mut host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    drop(paged(&host, "inherited", json!({ "fault_around_bytes": 0, "run_in": "thread" })));
    host.change_owner();
    let vm = host.runtime.vm("inherited").unwrap();
    assert_eq!(vm.state(), State::Running);
    look(&vm, 1);
    assert!(!console_of(&vm).contains("bad"));
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_storm_of_faults_goes_on_when_the_operator_is_killed() {
    const PAGES: u64 = 64 << 8;
    let mut host = Host::with_keeper();
    patterned(&host, Guest::Scatter);
    for (id, faults) in [("first", 1), ("some", 1000), ("many", 5000)] {
        host.without_owner_but(|directory| {
            let vm = directory.join("state/vms").join(id);
            let served = || Figures::read(&vm).map_or(0, |figures| figures.faults);
            let mut operator = start_operator(directory, id, "process");
            eventually("the guest begins to look", || directory.join(id).exists());
            let before = fs::read_to_string(directory.join(id)).unwrap().parse::<u64>().unwrap();
            eventually("the storm has begun", || served() >= before + faults);
            operator.kill().unwrap();
            operator.wait().unwrap();
            assert!(served() < before + PAGES, "the storm was over before the operator was killed");
        });
        let vm = host.runtime.vm(id).unwrap();
        assert_eq!(vm.state(), State::Running);
        eventually("it has looked", || console_of(&vm).contains("ok\n"));
        look(&vm, 2);
        assert!(!console_of(&vm).contains("bad"), "{id}");
        eventually("all faults are counted", || figure(&vm, "faults") >= PAGES);
        host.runtime.destroy(&vm).unwrap();
    }
    host.assert_nothing_left();
}

#[test]
fn a_vm_whose_pager_is_threads_of_an_operator_that_is_killed_ends() {
    let mut host = Host::with_keeper();
    patterned(&host, Guest::Scatter);
    host.without_owner_but(|directory| {
        let vm = directory.join("state/vms/doomed");
        let mut operator = start_operator(directory, "doomed", "thread");
        eventually("the guest begins to look", || directory.join("doomed").exists());
        operator.kill().unwrap();
        operator.wait().unwrap();
        eventually("the keeper ends it", || common::processes_below(&vm).is_empty());
    });
    assert_eq!(host.runtime.report()["ended"][0]["id"], "doomed");
    host.runtime.destroy(&host.runtime.vm("doomed").unwrap()).unwrap();
    host.assert_nothing_left();
}

fn start_operator(directory: &Path, id: &str, run_in: &str) -> Child {
    let [host, vm, pager] = OPERATOR;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["plays_the_operator", "--exact", "--ignored"]);
    command.env(host, directory).env(vm, id).env(pager, run_in);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Restores a VM whose guest then touches all of its memory, says how many faults there were before, and waits to be
/// killed.
#[test]
#[ignore = "the part of the operator, which another test starts"]
fn plays_the_operator() {
    let [Some(host), Some(id), Some(run_in)] = OPERATOR.map(std::env::var_os) else { return };
    let (host, id, run_in) = (Path::new(&host), id.to_str().unwrap(), run_in.to_str().unwrap());
    let options = json!({ "firecracker": common::firecracker(), "keeper": common::keeper() }).to_string();
    let runtime = Runtime::open(&host.join("state"), Some(&options)).unwrap();
    let pager = json!({ "fault_around_bytes": 0, "workers": 2, "run_in": run_in });
    let options = json!({ "memory": "pager", "pager": pager }).to_string();
    let vm = runtime.restore("base", id, Some(&options)).unwrap();
    let aside = host.join("aside");
    fs::write(&aside, figure(&vm, "faults").to_string()).unwrap();
    begin_to_look(&vm);
    fs::rename(aside, host.join(id)).unwrap();
    std::thread::sleep(10 * AMPLE);
}

#[test]
fn a_vm_whose_pager_dies_while_it_has_no_owner_is_not_left_standing() {
    let mut host = Host::with_keeper();
    patterned(&host, Guest::Scan);
    drop(paged(&host, "lost", json!({})));
    let pid = pager_pid(&host, "lost");
    host.without_owner(|| kill(&pid));
    let vm = host.runtime.vm("lost").unwrap();
    // A pager that is still dying when the owner comes is seen to end soon.
    eventually("it has ended", || matches!(vm.state(), State::Stopped | State::Failed));
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_restore_whose_vmm_is_told_nonsense_leaves_nothing() {
    let host = Host::with_options(json!({ "firecracker": common::simulator(), "keeper": common::keeper() }));
    patterned(&host, Guest::Scan);
    for kind in ["garbage", "narrow"] {
        let fault = format!("1:handshake={kind}");
        let options = json!({
            "memory": "pager",
            "mvm": { "arguments": ["--sim-fault", fault] },
        });
        let restored = host.runtime.restore("base", "never", Some(&options.to_string()));
        match restored {
            Err(error) => {
                let text = told(&error);
                assert!(text.contains("pager") || text.contains("VMM ended"), "{text}");
            }
            // Regions that are too small are found out by the first fault outside.
            Ok(vm) => {
                let path = mvm::firecracker::http::RequestPath::parse("/actions").unwrap();
                let press = br#"{"action_type":"SendCtrlAltDel"}"#;
                let _pressed = vm.request(mvm::firecracker::http::Method::Put, &path, Some(press));
                vm.wait(AMPLE).unwrap();
                assert_eq!(vm.state(), State::Failed);
                host.runtime.destroy(&vm).unwrap();
            }
        }
    }
    host.assert_nothing_left();
}

#[test]
fn a_pager_process_without_a_keeper_is_refused_with_what_helps() {
    let host = Host::new();
    patterned(&host, Guest::Scan);
    let text = told(&host.runtime.restore("base", "a", Some(r#"{"memory":"pager"}"#)).unwrap_err());
    assert!(text.contains("\"keeper\"") && text.contains("\"thread\""), "{text}");
    host.assert_nothing_left();
}
