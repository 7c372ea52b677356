//! Snapshots, and VMs restored from them, on the VMM under test.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::print_stderr
)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_with, count_above, count_of, eventually, is_simulated, told, with_disk};
use mvm::firecracker::http::{Method, RequestPath};
use mvm::{Outcome, ReapOptions, State, Vm};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn snapshot(host: &Host, vm: &Vm, id: &str, options: Value) -> Value {
    host.runtime.take_snapshot(vm, id, Some(&options.to_string())).unwrap()
}

fn restore(host: &Host, snapshot: &str, id: &str, options: Value) -> Arc<Vm> {
    host.runtime.restore(snapshot, id, Some(&options.to_string())).unwrap()
}

fn refused(host: &Host, snapshot: &str, id: &str, options: Value) -> String {
    told(&host.runtime.restore(snapshot, id, Some(&options.to_string())).unwrap_err())
}

fn tracking(host: &Host, guest: Guest) -> String {
    let mut spec = host.spec(guest);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    spec.to_string()
}

fn boot_tracking(host: &Host, id: &str, guest: Guest) -> Arc<Vm> {
    let vm = host.runtime.create(id, &tracking(host, guest)).unwrap();
    vm.start().unwrap();
    vm
}

/// The same with a disk that it writes to; says which file that is.
fn boot_tracking_with_disk(host: &Host, id: &str) -> (PathBuf, Arc<Vm>) {
    let mut spec = with_disk(host, Guest::Count, ("disk", 7));
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create(id, &spec.to_string()).unwrap();
    vm.start().unwrap();
    (host.scratch.path().join("disk"), vm)
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
    assert_eq!(restored.shutdown(AMPLE, None).unwrap().outcome, Outcome::Graceful);
    host.runtime.destroy(&restored).unwrap();
    host.runtime.delete_snapshot("base").unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_counter_goes_on_from_where_it_was() {
    let host = Host::new();
    let vm = host.boot("counter", Guest::Report);
    count_above(&vm, 3);
    let report = snapshot(&host, &vm, "base", json!({ "after": "stay_paused" }));
    assert_eq!((vm.state(), &report["paused_us"]), (State::Paused, &Value::Null));
    let at = count_of(&vm).unwrap();
    host.runtime.destroy(&vm).unwrap();
    let restored = restore(&host, "base", "again", json!({}));
    let first = console_with(&restored, "\n");
    let next = u64::from_str_radix(first.lines().last().unwrap(), 16).unwrap_or(at + 1);
    assert!(next > at && next < at + 1_000_000, "it was at {at:x} and went on at {next:x}");
    count_above(&restored, at + 2);
}

#[test]
fn a_restored_vmm_writes_where_the_spec_would_have_it_written() {
    let host = Host::new();
    let (metrics, console) = (host.scratch.path().join("metrics"), host.scratch.path().join("console"));
    let emptied = || [&metrics, &console].map(|path| fs::write(path, "").unwrap());
    // Older ones want the files to be there.
    emptied();
    let mut spec = host.spec(Guest::Report);
    spec["metrics"] = json!({ "metrics_path": metrics });
    let plain = spec.to_string();
    spec["serial"] = json!({ "serial_out_path": console });
    // Before 1.14 there is no other place for a console.
    let made = host.runtime.create("source", &spec.to_string());
    let vm = made.or_else(|_| host.runtime.create("source", &plain)).unwrap();
    vm.start().unwrap();
    count_above(&vm, 2);
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    emptied();
    let restored = restore(&host, "base", "restored", json!({}));
    count_above(&restored, 2);
    let is_elsewhere = restored.info().unwrap()["console"] == json!(console);
    assert_eq!(!fs::read(&console).unwrap().is_empty(), is_elsewhere);
    let flush = RequestPath::parse("/actions").unwrap();
    restored.request(Method::Put, &flush, Some(br#"{"action_type":"FlushMetrics"}"#)).unwrap();
    assert!(fs::read_to_string(&metrics).unwrap().contains("latencies_us"));
}

#[test]
fn a_chain_of_five_diffs_is_one_memory() {
    let host = Host::new();
    let vm = boot_tracking(&host, "counter", Guest::Report);
    count_above(&vm, 0);
    snapshot(&host, &vm, "s0", json!({}));
    let mut at = 0;
    for number in 1..=5 {
        at = count_above(&vm, at + 1);
        let report = snapshot(&host, &vm, &format!("s{number}"), json!({ "type": "diff" }));
        assert_eq!(report["parent"], format!("s{}", number - 1));
        assert!(report["memory_allocated_bytes"].as_u64().unwrap() < 16 << 20, "{report}");
    }
    host.runtime.destroy(&vm).unwrap();
    let info = host.runtime.snapshot_info("s5").unwrap();
    assert_eq!(info["chain"], json!(["s0", "s1", "s2", "s3", "s4", "s5"]));
    let restored = restore(&host, "s5", "from-chain", json!({}));
    count_above(&restored, at);
    host.runtime.destroy(&restored).unwrap();

    let kept = told(&host.runtime.delete_snapshot("s3").unwrap_err());
    assert!(kept.contains("s4"), "{kept}");
    host.runtime.merge_snapshot("s5", None).unwrap();
    for number in (0..=4).rev() {
        host.runtime.delete_snapshot(&format!("s{number}")).unwrap();
    }
    let restored = restore(&host, "s5", "from-merged", json!({}));
    count_above(&restored, at);
}

#[test]
fn a_merged_diff_has_checksums_when_the_diff_had_them_or_when_they_are_asked_for() {
    let host = Host::new();
    let (_, vm) = boot_tracking_with_disk(&host, "source");
    snapshot(&host, &vm, "base", json!({ "checksums": "taken" }));
    for (id, taken, merging, verifiable) in [
        ("kept", "taken", None, true),
        ("added", "omitted", Some(r#"{"checksums":"taken"}"#), true),
        ("none", "omitted", None, false),
        ("dropped", "taken", Some(r#"{"checksums":"omitted"}"#), false),
    ] {
        snapshot(&host, &vm, id, json!({ "type": "diff", "checksums": taken }));
        host.runtime.merge_snapshot(id, merging).unwrap();
        let verified = host.runtime.verify_snapshot(id, Duration::MAX);
        assert_eq!(verified.is_ok(), verifiable, "{id}: {verified:?}");
    }
}

/// Takes the snapshot `id`, wanted as a diff, and says why it is a full one.
fn why_full(host: &Host, vm: &Vm, id: &str) -> String {
    let report = snapshot(host, vm, id, json!({ "type": "diff" }));
    assert_eq!((&report["wanted"], &report["type"]), (&json!("diff"), &json!("full")), "{report}");
    assert_eq!(report["parent"], Value::Null);
    report["why_full"].as_str().unwrap().to_owned()
}

fn assert_diff(host: &Host, vm: &Vm, id: &str, parent: &str) {
    let report = snapshot(host, vm, id, json!({ "type": "diff" }));
    let told = (&report["type"], &report["parent"], &report["why_full"]);
    assert_eq!(told, (&json!("diff"), &json!(parent), &Value::Null), "{report}");
}

#[test]
fn a_diff_to_nothing_is_a_full_one_or_refused_by_choice() {
    let host = Host::new();
    let vm = boot_tracking(&host, "counter", Guest::Count);
    let refusal = |id: &str| {
        let taken = host.runtime.take_snapshot(&vm, id, Some(r#"{"type":"diff","when_uncertain":"fail"}"#));
        told(&taken.unwrap_err())
    };
    assert!(refusal("d0").contains("no snapshot was taken of this VM"), "{}", refusal("d0"));
    assert!(why_full(&host, &vm, "base").contains("no snapshot was taken of this VM"));
    assert_diff(&host, &vm, "d1", "base");
    host.runtime.delete_snapshot("d1").unwrap();
    assert!(refusal("d2").contains("the last snapshot of this VM, d1, was deleted"), "{}", refusal("d2"));
    assert!(why_full(&host, &vm, "again").contains("d1, was deleted"));
    assert_diff(&host, &vm, "d2", "again");
    assert_eq!(host.runtime.list_snapshots()["snapshots"].as_array().unwrap().len(), 3);
}

#[test]
fn a_snapshot_of_the_same_name_is_not_the_parent() {
    let host = Host::new();
    let vm = boot_tracking(&host, "counter", Guest::Count);
    let other = boot_tracking(&host, "other", Guest::Count);
    snapshot(&host, &vm, "base", json!({}));
    let manifest = host.scratch.path().join("state/snapshots/base/manifest.json");
    let mut taken = Value::Null;
    common::edit_journal(&manifest, |it| taken = it["created_unix_ms"].clone());
    host.runtime.delete_snapshot("base").unwrap();
    snapshot(&host, &other, "base", json!({}));
    // Both in the same millisecond.
    common::edit_journal(&manifest, |it| it["created_unix_ms"] = taken);
    assert!(why_full(&host, &vm, "next").contains("base, was deleted"));
}

#[test]
fn after_a_request_that_may_have_taken_a_snapshot_the_next_one_is_full() {
    let host = Host::new();
    let vm = boot_tracking(&host, "counter", Guest::Count);
    snapshot(&host, &vm, "base", json!({ "after": "stay_paused" }));
    let scratch = host.scratch.path();
    let body = json!({ "snapshot_path": scratch.join("s"), "mem_file_path": scratch.join("m") }).to_string();
    let ask = |path: &str, body: &str| {
        vm.request(Method::Put, &RequestPath::parse(path).unwrap(), Some(body.as_bytes()))
    };
    // Firecracker skips slashes.
    for (id, path) in [("f1", "/snapshot/create"), ("f2", "//snapshot/create"), ("f3", "///snapshot//create")]
    {
        let _done_or_refused = ask(path, &body);
        assert!(why_full(&host, &vm, id).contains("a request that the caller sent"), "{path}");
    }
    // What changes no memory costs nothing.
    ask("/actions", r#"{"action_type":"FlushMetrics"}"#).unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_diff(&host, &vm, "d1", "f3");
    // What the next Firecracker may know.
    let _refused = ask("/memory/forget", "{}");
    assert!(why_full(&host, &vm, "f4").contains("a request that the caller sent"));
}

#[test]
fn no_page_is_lost_when_firecracker_has_forgotten_which_ones_changed() {
    // The requests are: two of the spec, the start, and four of each snapshot.
    let host = Host::simulated();
    for fault in ["sync-fails", "no-space", "close", "truncate", "garbage", "drop", "status=400"] {
        let mut spec = host.faulty_spec(Guest::Report, &[&format!("10:{fault}")]);
        spec["machine-config"]["track_dirty_pages"] = true.into();
        let (id, name) = (fault.replace('=', ""), |kind: &str| format!("{}-{kind}", fault.replace('=', "")));
        let vm = host.runtime.create(&id, &spec.to_string()).unwrap();
        vm.start().unwrap();
        let at = count_above(&vm, 0);
        snapshot(&host, &vm, &name("base"), json!({}));
        count_above(&vm, at + 1);
        let failed = host.runtime.take_snapshot(&vm, &name("lost"), Some(r#"{"type":"diff"}"#));
        assert!(failed.is_err(), "{fault}");
        vm.pause().unwrap();
        let at = count_of(&vm).unwrap();
        assert!(why_full(&host, &vm, &name("next")).contains("the last attempt"), "{fault}");
        host.runtime.destroy(&vm).unwrap();
        let restored = restore(&host, &name("next"), &id, json!({}));
        let first = console_with(&restored, "\n");
        let next = u64::from_str_radix(first.lines().next().unwrap(), 16).unwrap();
        assert!(next > at && next < at + 1000, "{fault}: it was at {at:x} and went on at {next:x}");
        host.runtime.destroy(&restored).unwrap();
    }
}

#[test]
fn a_vm_that_tracks_nothing_has_diffs_while_none_of_its_pages_is_in_swap() {
    let host = Host::new();
    let vm = host.boot("counter", Guest::Report);
    let at = count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({}));
    count_above(&vm, at + 1);
    let report = snapshot(&host, &vm, "next", json!({ "type": "diff", "after": "stay_paused" }));
    let told = (
        &report["type"],
        report["why_full"].as_str().unwrap_or_default().contains("cannot take a diff of a VM"),
    );
    // Firecracker before 1.13 takes none.
    assert!(told == (&json!("diff"), false) || told == (&json!("full"), true), "{report}");
    let at = count_of(&vm).unwrap();
    host.runtime.destroy(&vm).unwrap();
    count_above(&restore(&host, "next", "restored", json!({})), at);
}

#[test]
#[ignore = "it needs a machine with swap"]
fn no_page_is_lost_that_is_in_swap() {
    let host = Host::simulated();
    // The eighth request pauses the guest, before the library looks.
    let vm = host.runtime.create("swapped", &host.faulty_spec(Guest::Report, &["8:page-out"]).to_string());
    let vm = vm.unwrap();
    vm.start().unwrap();
    count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({ "after": "stay_paused" }));
    vm.resume().unwrap();
    let at = count_of(&vm).unwrap();
    count_above(&vm, at + 1);
    vm.pause().unwrap();
    let at = count_of(&vm).unwrap();
    assert!(why_full(&host, &vm, "next").contains("pages of its memory are in swap"));
    host.runtime.destroy(&vm).unwrap();
    count_above(&restore(&host, "next", "restored", json!({})), at);
}

#[test]
fn what_fails_before_firecracker_is_asked_costs_no_diff() {
    let host = Host::new();
    let (disk, vm) = boot_tracking_with_disk(&host, "source");
    snapshot(&host, &vm, "base", json!({}));
    let pauses = || vm.info().unwrap()["last_pause_us"].clone();
    let before = pauses();
    let fails =
        |id: &str, options: &str| told(&host.runtime.take_snapshot(&vm, id, Some(options)).unwrap_err());
    assert!(fails("base", "{}").contains("there is a snapshot base already"));
    fs::rename(&disk, host.scratch.path().join("moved")).unwrap();
    let text = fails("gone", "{}");
    assert!(text.contains("drive \"data\"") && text.contains("\"disks\": \"reference\""), "{text}");
    assert!(text.contains("No such file"), "{text}");
    fs::create_dir(&disk).unwrap();
    let text = fails("directory", r#"{"type":"diff"}"#);
    assert!(text.contains("\"disks\": \"reference\"") && text.contains("not a regular file"), "{text}");
    fs::remove_dir(&disk).unwrap();
    // It is not opened, so it need not lead anywhere. Without root there is none.
    let made = std::process::Command::new("mknod").arg(&disk).args(["b", "7", "1000"]).output();
    if made.is_ok_and(|made| made.status.success()) {
        let text = fails("device", "{}");
        assert!(text.contains("\"disks\": \"reference\"") && text.contains("a block device"), "{text}");
    }
    assert_eq!((pauses(), vm.state()), (before, State::Running));
    let report = snapshot(&host, &vm, "next", json!({ "type": "diff", "disks": "reference" }));
    assert_eq!((&report["type"], &report["parent"]), (&json!("diff"), &json!("base")), "{report}");
    assert_eq!(host.runtime.list_snapshots()["damaged"], json!([]));
}

#[test]
fn a_release_that_misplaces_pages_takes_no_diff_of_a_large_memory() {
    if common::is_jailed() {
        return eprintln!("skipped: there is no shell in a jail");
    }
    let host = Host::simulated();
    let boot = |id: &str, version: &str, mib: u64| {
        let mut spec = host.spec(Guest::Count);
        spec["machine-config"] = json!({ "vcpu_count": 1, "mem_size_mib": mib, "track_dirty_pages": true });
        let wrapper = version_of_simulator(&host, version);
        spec["mvm"]["firecracker"] = json!(wrapper);
        let vm = host.runtime.create(id, &spec.to_string()).unwrap();
        vm.start().unwrap();
        snapshot(&host, &vm, &format!("{id}-base"), json!({}));
        vm
    };
    let small = boot("small", "1.14.1", 128);
    assert_diff(&host, &small, "small-diff", "small-base");
    let large = boot("large", "1.14.1", 3200);
    let text = why_full(&host, &large, "large-full");
    assert!(text.contains("Firecracker 1.14.1") && text.contains("Firecracker 1.14.2 mends it"), "{text}");
    let options = r#"{"type":"diff","when_uncertain":"fail"}"#;
    let text = told(&host.runtime.take_snapshot(&large, "never", Some(options)).unwrap_err());
    assert!(text.contains("Firecracker 1.14.2 mends it"), "{text}");
    let problems = large.info().unwrap()["known_problems"].to_string();
    assert!(problems.contains("pages in wrong places"), "{problems}");
    assert_diff(&host, &boot("mended", "1.14.2", 3200), "mended-diff", "mended-base");
}

#[test]
fn a_release_that_takes_no_diff_without_tracking_is_not_asked_for_one() {
    if common::is_jailed() {
        return eprintln!("skipped: there is no shell in a jail");
    }
    let host = Host::simulated();
    let mut spec = host.spec(Guest::Count);
    spec["mvm"]["firecracker"] = json!(version_of_simulator(&host, "1.12.1"));
    let vm = host.runtime.create("old", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    assert!(why_full(&host, &vm, "next").contains("Firecracker 1.12.1 cannot take a diff of a VM without"));
}

/// A copy of the simulator that is Firecracker `version`.
fn copy_of_simulator(host: &Host, version: &str) -> PathBuf {
    let copy = host.scratch.path().join(format!("firecracker-sim-v{version}"));
    fs::copy(common::simulator(), &copy).unwrap();
    copy
}

fn point_at(link: &std::path::Path, file: &std::path::Path) {
    let _replaced = fs::remove_file(link);
    std::os::unix::fs::symlink(file, link).unwrap();
}

fn made_by(host: &Host, snapshot: &str) -> (Value, Value) {
    let info = host.runtime.snapshot_info(snapshot).unwrap();
    (info["firecracker"].clone(), info["snapshot_version"].clone())
}

#[test]
fn a_snapshot_is_of_the_release_that_runs_whatever_stands_at_its_path_by_then() {
    if common::is_jailed() {
        return eprintln!("skipped: there is no shell in a jail");
    }
    let mut host = Host::simulated();
    let old = copy_of_simulator(&host, "1.14.1");
    let path = host.scratch.path().join("firecracker");
    point_at(&path, &old);
    let mut spec = host.spec(Guest::Count);
    spec["mvm"]["firecracker"] = json!(path);
    let vm = host.runtime.create("running", &spec.to_string()).unwrap();
    vm.start().unwrap();
    // A package is upgraded.
    point_at(&path, &copy_of_simulator(&host, "1.16.1"));
    fs::remove_file(&old).unwrap();
    snapshot(&host, &vm, "upgraded", json!({}));
    let is_old = (json!("1.14.1"), json!("8.0.0"));
    assert_eq!(made_by(&host, "upgraded"), is_old);
    fs::remove_file(&path).unwrap();
    snapshot(&host, &vm, "removed", json!({}));
    assert_eq!(made_by(&host, "removed"), is_old);
    drop(vm);
    host.change_owner();
    point_at(&path, &copy_of_simulator(&host, "1.16.1"));
    let vm = host.runtime.vm("running").unwrap();
    assert_eq!(vm.info().unwrap()["firecracker_version"], "1.14.1");
    snapshot(&host, &vm, "adopted", json!({}));
    assert_eq!(made_by(&host, "adopted"), is_old);
    drop(vm);
    let text = refused(&host, "adopted", "with-the-new", json!({}));
    assert!(text.contains("format 8.0.0 of Firecracker 1.14.1"), "{text}");
    let again = copy_of_simulator(&host, "1.14.1");
    restore(&host, "adopted", "with-the-old", json!({ "mvm": { "firecracker": again } }));
}

#[test]
fn a_script_is_no_obstacle_to_knowing_which_release_runs() {
    if common::is_jailed() {
        return eprintln!("skipped: there is no shell in a jail");
    }
    let host = Host::simulated();
    let current = host.scratch.path().join("current");
    let body = format!("exec {} \"$@\"", current.display());
    let script = common::script(host.scratch.path(), "firecracker", &body);
    point_at(&current, &copy_of_simulator(&host, "1.14.1"));
    let boot = |id: &str| {
        let mut spec = host.spec(Guest::Count);
        spec["mvm"]["firecracker"] = json!(script);
        let vm = host.runtime.create(id, &spec.to_string()).unwrap();
        vm.start().unwrap();
        vm
    };
    let old = boot("old");
    // The script stays as it is, and runs another file.
    point_at(&current, &copy_of_simulator(&host, "1.16.1"));
    let new = boot("new");
    for (vm, version, format) in [(&old, "1.14.1", "8.0.0"), (&new, "1.16.1", "10.0.0")] {
        let id = vm.id().to_string();
        assert_eq!(vm.info().unwrap()["firecracker_version"], version);
        snapshot(&host, vm, &id, json!({}));
        assert_eq!(made_by(&host, &id), (json!(version), json!(format)));
    }
}

/// A Firecracker of that release: a script, as packages have them.
fn version_of_simulator(host: &Host, version: &str) -> PathBuf {
    let body = format!("exec {} --sim-fault 0:version={version} \"$@\"", common::simulator().display());
    common::script(host.scratch.path(), &format!("firecracker-{version}"), &body)
}

#[test]
fn a_restored_vm_is_the_base_of_its_next_diff() {
    let host = Host::new();
    let vm = boot_tracking(&host, "counter", Guest::Report);
    count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    let second = restore(&host, "base", "second", json!({ "track_dirty_pages": true }));
    let at = count_above(&second, 3);
    let report = snapshot(&host, &second, "diff", json!({ "type": "diff" }));
    assert_eq!(report["parent"], "base");
    host.runtime.destroy(&second).unwrap();
    let third = restore(&host, "diff", "third", json!({}));
    count_above(&third, at);
}

#[test]
fn what_is_not_started_has_no_snapshot() {
    let host = Host::new();
    let vm = host.create("created", Guest::Halt);
    let text = told(&host.runtime.take_snapshot(&vm, "early", None).unwrap_err());
    assert!(text.contains("it is created; start it first"), "{text}");
    vm.kill().unwrap();
    let text = told(&host.runtime.take_snapshot(&vm, "late", None).unwrap_err());
    assert!(text.contains("it is stopped"), "{text}");
    let text = told(&host.runtime.take_snapshot(&vm, "../x", None).unwrap_err());
    assert!(text.contains("snapshot"), "{text}");
    assert_eq!(host.runtime.list_snapshots(), json!({ "snapshots": [], "damaged": [] }));
}

#[test]
fn a_snapshot_that_was_cut_off_or_altered_is_found_before_anything_is_started() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Halt);
    for id in ["cut", "altered", "touched", "gone"] {
        snapshot(&host, &vm, id, json!({ "checksums": if id == "touched" { "omitted" } else { "taken" } }));
    }
    host.runtime.destroy(&vm).unwrap();
    let memory = |id: &str| host.scratch.path().join("state/snapshots").join(id).join("memory");
    fs::OpenOptions::new().write(true).open(memory("cut")).unwrap().set_len(1 << 20).unwrap();
    for id in ["altered", "touched"] {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(memory(id)).unwrap();
        file.write_at(b"x", 100 << 20).unwrap();
    }
    fs::remove_file(memory("gone")).unwrap();
    for (id, why) in [
        ("cut", "bytes, and had"),
        ("altered", "was altered"),
        ("touched", "was changed"),
        ("gone", "missing"),
    ] {
        let text = refused(&host, id, "never", json!({}));
        assert!(text.contains(why) && text.contains("memory"), "{text}");
    }
    assert!(host.runtime.verify_snapshot("altered", Duration::MAX).is_err());
    assert!(refused(&host, "nowhere", "never", json!({})).contains("there is no snapshot nowhere"));
    host.assert_nothing_left();
}

#[test]
fn disks_come_with_the_snapshot_and_each_vm_has_its_own() {
    let host = Host::new();
    let disk = host.scratch.path().join("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["drives"] = json!([
        { "drive_id": "data", "path_on_host": disk, "is_root_device": false },
        { "drive_id": "tools", "path_on_host": disk, "is_root_device": false, "is_read_only": true },
    ]);
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    // What the VM had is gone or changed: the snapshot has its own.
    fs::write(&disk, vec![8; 1 << 20]).unwrap();
    let clones = host.runtime.clone_vms("base", 2, Some(r#"{"prefix":"twin"}"#)).unwrap();
    let data = |id: &str| host.names(id).join("drives/data");
    assert_eq!(fs::read(data("twin-1")).unwrap(), vec![7; 1 << 20]);
    fs::write(data("twin-1"), vec![9; 1 << 20]).unwrap();
    assert_eq!(fs::read(data("twin-2")).unwrap(), vec![7; 1 << 20]);
    assert!(fs::read_link(host.names("twin-1").join("drives/tools")).unwrap().ends_with("disk"));
    // Another file, by choice.
    let other = host.scratch.path().join("other");
    fs::write(&other, vec![1; 1 << 20]).unwrap();
    let drives = json!([{ "drive_id": "data", "path_on_host": other }]);
    let chosen = restore(&host, "base", "chosen", json!({ "drives": drives }));
    assert_eq!(fs::canonicalize(data("chosen")).unwrap(), fs::canonicalize(&other).unwrap());
    // One that has grown is given once more, and stays its own.
    fs::OpenOptions::new().write(true).open(data("twin-2")).unwrap().set_len(2 << 20).unwrap();
    clones[1].update_drive("data", Some(&data("twin-2")), None).unwrap();
    assert!(fs::read(data("twin-2")).unwrap().starts_with(&[7; 1 << 20]));
    // A clone boots again from what it is made of.
    clones[0].kill().unwrap();
    clones[0].start().unwrap();
    assert_eq!(fs::read(data("twin-1")).unwrap(), vec![9; 1 << 20]);
    for vm in clones.iter().chain([&chosen]) {
        host.runtime.destroy(vm).unwrap();
    }
    host.assert_nothing_left();
}

#[test]
fn a_drive_and_persistent_memory_of_one_id_are_two_disks() {
    // Firecracker before 1.14 has no persistent memory.
    let host = Host::simulated();
    let files = ["drive", "pmem"].map(|name| host.scratch.path().join(name));
    files.iter().for_each(|file| fs::write(file, file.to_string_lossy().repeat(1 << 17)).unwrap());
    let mut spec = host.spec(Guest::Halt);
    spec["drives"] = json!([{ "drive_id": "data", "path_on_host": files[0], "is_root_device": false }]);
    spec["pmem"] = json!([{ "id": "data", "path_on_host": files[1] }]);
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    let _restored = restore(&host, "base", "restored", json!({}));
    for (file, section) in files.iter().zip(["drives", "pmem"]) {
        let own = host.names("restored").join(section).join("data");
        assert_eq!(fs::read(own).unwrap(), fs::read(file).unwrap());
    }
}

#[test]
fn overrides_of_what_is_not_there_are_refused_by_name() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Halt);
    snapshot(&host, &vm, "base", json!({}));
    let drive = json!({ "drives": [{ "drive_id": "nope", "path_on_host": "/dev/null" }] });
    assert!(refused(&host, "base", "a", drive).contains(r#"has no drive "nope""#));
    let nic = json!({ "network_overrides": [{ "iface_id": "eth9", "host_dev_name": "tap0" }] });
    assert!(refused(&host, "base", "a", nic).contains(r#"has no network interface "eth9""#));
    let typo = json!({ "memry": "file" });
    assert!(refused(&host, "base", "a", typo).contains("did you mean \"memory\""));
    let typo = json!({ "network_overrides": [{ "iface": "eth9" }] });
    assert!(refused(&host, "base", "a", typo).contains("iface"));
    assert_eq!(host.runtime.list().len(), 1);
}

#[test]
fn an_interrupted_snapshot_leaves_nothing_and_the_guest_goes_on() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Report);
    if is_simulated() {
        // The sixth request is the one to write.
        spec["mvm"]["arguments"] = json!(["--sim-fault", "6:slow=1500"]);
    } else {
        spec["machine-config"]["mem_size_mib"] = 1024.into();
    }
    let vm = host.runtime.create("big", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let at = count_above(&vm, 1);
    let taken = std::thread::scope(|scope| {
        let taking = scope.spawn(|| host.runtime.take_snapshot(&vm, "never", None));
        eventually("it is being written", || {
            let made = fs::read_dir(host.scratch.path().join("state/snapshots/.never.new"));
            let is_written = |at: &fs::DirEntry| at.path().join("memory").exists();
            made.is_ok_and(|mut made| {
                made.next().is_some_and(|at| is_simulated() || is_written(&at.unwrap()))
            }) && vm.state() == State::Paused
        });
        vm.interrupt();
        let began = std::time::Instant::now();
        let taken = taking.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "it was answered after {:?}", began.elapsed());
        taken
    });
    // The VMM is still at it, and the name is free.
    assert!(!host.scratch.path().join("state/snapshots/.never.new").exists());
    let text = told(&taken.unwrap_err());
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(host.runtime.list_snapshots()["snapshots"], json!([]));
    // By itself, as soon as the VMM is done.
    count_above(&vm, at + 2);
    vm.pause().unwrap();
    vm.resume().unwrap();
    assert_eq!(vm.state(), State::Running);
    eventually("nothing is left of it", || {
        fs::read_dir(host.scratch.path().join("state/snapshots")).unwrap().count() == 0
    });
    snapshot(&host, &vm, "next", json!({}));
}

#[test]
fn clones_are_all_or_none() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Report);
    count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({}));
    host.boot("web-3", Guest::Halt);
    let text = told(&host.runtime.clone_vms("base", 4, Some(r#"{"prefix":"web"}"#)).unwrap_err());
    assert!(text.contains("web-3"), "{text}");
    assert_eq!(host.runtime.list().len(), 2, "those that were made are gone");
    let clones = host.runtime.clone_vms("base", 8, Some(r#"{"prefix":"app"}"#)).unwrap();
    let mut generations =
        clones.iter().map(|vm| vm.info().unwrap()["generation_id"].to_string()).collect::<Vec<_>>();
    generations.sort();
    generations.dedup();
    assert_eq!(generations.len(), 8);
    for clone in &clones {
        assert_eq!(clone.state(), State::Running);
        count_above(clone, 2);
    }
    assert_eq!(clones[6].id().as_str(), "app-7");
    let text = told(&host.runtime.clone_vms("base", 2, Some(r#"{"ids":["x"]}"#)).unwrap_err());
    assert!(text.contains("\"ids\" has 1 elements, and must have 2"), "{text}");
    assert!(host.runtime.clone_vms("base", 0, None).unwrap().is_empty());
}

#[test]
fn a_pool_hands_over_vms_that_wait_and_fills_itself_again() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Report);
    count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    let options = json!({ "snapshot": "base", "size": 2 }).to_string();
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    let ready = || pool.info().unwrap()["ready"].as_u64();
    eventually("it is full", || ready() == Some(2));
    let kept = told(&host.runtime.delete_snapshot("base").unwrap_err());
    assert!(kept.contains("pool warm"), "{kept}");
    let taken = host.runtime.take(&pool, "web-1", None).unwrap();
    assert_eq!((taken.id().as_str(), taken.state()), ("web-1", State::Running));
    count_above(&taken, 2);
    eventually("it is full again", || ready() == Some(2));
    assert!(host.runtime.open_pool("warm", &options).is_err());
    let text = told(&host.runtime.take(&pool, "web-1", None).unwrap_err());
    assert!(text.contains("of this id already"), "{text}");
    // One that has died meanwhile is not handed over, and another is made.
    let kill_all = || {
        let waiting = host.runtime.list().into_iter().filter(|vm| vm.state() == State::Paused);
        waiting.for_each(|vm| vm.kill().unwrap());
    };
    kill_all();
    let another = host.runtime.take(&pool, "web-2", None).unwrap();
    count_above(&another, 2);
    eventually("it is full again", || ready() == Some(2));
    kill_all();
    eventually("it is full without a take", || ready() == Some(2));
    host.runtime.destroy_pool(&pool).unwrap();
    assert_eq!(host.runtime.list().len(), 2);
    host.runtime.delete_snapshot("base").unwrap();
    for vm in [&taken, &another] {
        host.runtime.destroy(vm).unwrap();
    }
    host.assert_nothing_left();
}

#[test]
fn a_pool_of_configured_vms_starts_the_one_that_is_taken() {
    let host = Host::new();
    let options = json!({ "spec": host.spec(Guest::Obey), "size": 1, "when_empty": "fail" }).to_string();
    let pool = host.runtime.open_pool("cold", &options).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 1);
    let vm = host.runtime.take(&pool, "web", Some(r#"{"after":"stay_paused"}"#)).unwrap();
    assert_eq!(vm.state(), State::Created);
    vm.start().unwrap();
    console_with(&vm, "hello\n");
    assert_eq!(vm.shutdown(AMPLE, None).unwrap().outcome, Outcome::Graceful);
    host.runtime.destroy_pool(&pool).unwrap();
}

#[test]
fn the_members_of_a_pool_are_taken_over_or_reaped() {
    let mut host = Host::with_keeper();
    let vm = host.boot("source", Guest::Report);
    count_above(&vm, 1);
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    drop(vm);
    let options = json!({ "snapshot": "base", "size": 2 }).to_string();
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 2);
    drop(pool);
    host.change_owner();
    let ids = |host: &Host| host.runtime.list().iter().map(|vm| vm.id().to_string()).collect::<Vec<_>>();
    let waiting = ids(&host);
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    assert_eq!((pool.info().unwrap()["ready"].clone(), ids(&host)), (json!(2), waiting));
    drop(pool);
    host.change_owner();
    host.runtime.reap(ReapOptions::default()).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_guest_that_was_held_for_a_snapshot_goes_on_when_its_owner_dies() {
    let mut host = Host::with_keeper();
    let vm = host.boot("held", Guest::Report);
    let at = count_above(&vm, 1);
    // What an owner leaves behind who is killed between the pause and the write.
    vm.pause().unwrap();
    drop(vm);
    host.without_owner_but(|directory| {
        let journal = directory.join("state/vms/held/journal.json");
        common::edit_journal(&journal, |record| record["held_for_snapshot"] = true.into());
    });
    let vm = host.runtime.vm("held").unwrap();
    assert_eq!(vm.state(), State::Running);
    count_above(&vm, at + 1);
}

#[test]
fn another_cpu_or_another_format_is_refused_with_both_named() {
    let host = Host::new();
    let vm = host.boot("source", Guest::Halt);
    for id in ["cpu", "format"] {
        snapshot(&host, &vm, id, json!({}));
    }
    let manifest = |id: &str| host.scratch.path().join("state/snapshots").join(id).join("manifest.json");
    common::edit_journal(&manifest("cpu"), |it| it["host"]["vendor"] = "AuthenticCucumber".into());
    common::edit_journal(&manifest("format"), |it| it["snapshot_version"] = "99.0.0".into());
    let text = refused(&host, "cpu", "a", json!({}));
    assert!(text.contains("AuthenticCucumber") && text.contains("another CPU"), "{text}");
    let text = refused(&host, "format", "a", json!({}));
    assert!(text.contains("format 99.0.0") && text.contains("reads"), "{text}");
    assert_eq!(host.runtime.list().len(), 1);
}

#[test]
fn an_override_that_this_firecracker_has_not_is_refused_before_anything_is_started() {
    let host = Host::simulated();
    let mut spec = host.spec(Guest::Halt);
    spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": "mvmsim0" }]);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": host.scratch.path().join("v.sock") });
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    // As if that one had made it.
    let manifest = host.scratch.path().join("state/snapshots/base/manifest.json");
    common::edit_journal(&manifest, |it| it["snapshot_version"] = "5.0.0".into());
    let old = version_of_simulator(&host, "1.11.0");
    for (options, told) in [
        (
            json!({ "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "t" }] }),
            "\"network_overrides\" needs Firecracker 1.12.0",
        ),
        (
            json!({ "vsock_override": { "uds_path": "/tmp/never.sock" } }),
            "\"vsock_override\" needs Firecracker 1.16.0",
        ),
        (json!({ "clock_realtime": true }), "\"clock_realtime\" needs Firecracker 1.16.0"),
    ] {
        let mut options = options;
        options["mvm"] = json!({ "firecracker": old });
        let text = refused(&host, "base", "a", options);
        assert!(text.contains(told) && text.contains("this is 1.11.0"), "{text}");
    }
    assert_eq!(host.runtime.list().len(), 1);
}

#[test]
fn clones_have_a_vsock_socket_each_and_one_that_is_taken_is_not_stolen() {
    let host = Host::new();
    let socket = host.scratch.path().join("v.sock");
    let mut spec = host.spec(Guest::Halt);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": socket });
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    let text = refused(&host, "base", "thief", json!({}));
    assert!(text.contains("v.sock exists already") && text.contains("vsock_override"), "{text}");
    let options = r#"{"ids":["one","two"]}"#;
    if let Err(error) = host.runtime.clone_vms("base", 2, Some(options)) {
        // Firecracker before 1.16 has them all bind the same path.
        assert!(told(&error).contains("\"vsock_override\" needs Firecracker 1.16.0"));
        return;
    }
    let own = |id: &str| host.vm_directory(id).join("vmm/vsock.sock");
    assert!(own("one").exists() && own("two").exists());
    let one = host.runtime.vm("one").unwrap();
    host.runtime.rename(&one, "uno").unwrap();
    assert_eq!(one.info().unwrap()["vsock_socket"], own("uno").to_str().unwrap());
    assert!(std::os::unix::net::UnixStream::connect(own("uno")).is_ok());
    one.kill().unwrap();
    assert!(!own("uno").exists());
    one.start().unwrap();
    assert!(own("uno").exists());
    host.runtime.destroy(&vm).unwrap();
    // Nobody has it now.
    restore(&host, "base", "heir", json!({}));
    assert!(socket.exists());
}

#[test]
fn a_guest_with_metadata_can_tell_itself_from_its_siblings() {
    if common::is_jailed() && !is_simulated() {
        return eprintln!("skipped: a TAP device in a jail needs an owner");
    }
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": "mvmt-meta0" }]);
    spec["mmds-config"] = json!({ "network_interfaces": ["eth0"], "version": "V2" });
    // A real Firecracker makes the TAP device, for which it has to be root.
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    host.runtime.destroy(&vm).unwrap();
    let options = json!({ "mmds": { "role": "web" } });
    let one = restore(&host, "base", "one", options);
    assert_eq!(one.state(), State::Running);
    let path = RequestPath::parse("/mmds").unwrap();
    let answer = one.request(Method::Get, &path, None).unwrap();
    let seen: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&seen["role"], &seen["mvm"]["snapshot_id"]), (&json!("web"), &json!("base")));
    assert_eq!(seen["mvm"]["generation_id"], one.info().unwrap()["generation_id"]);
    let mac = seen["mvm"]["network-interfaces"][0]["mac"].as_str().unwrap();
    assert!(mac.starts_with("02:") && mac.len() == 17, "{mac}");
}

#[test]
fn a_snapshot_is_not_deleted_while_a_vm_is_made_of_it() {
    let host = Host::simulated();
    let mut spec = host.spec(Guest::Count);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    snapshot(&host, &vm, "base", json!({}));
    snapshot(&host, &vm, "diff", json!({ "type": "diff" }));
    snapshot(&host, &vm, "full", json!({}));
    let (host, slow) =
        (&host, &json!({ "mvm": { "arguments": ["--sim-fault", "1:slow=1500"] } }).to_string());
    std::thread::scope(|scope| {
        let restore = |id: &str| host.runtime.restore(id, &format!("of-{id}"), Some(slow)).map(drop);
        let restoring = [scope.spawn(move || restore("diff")), scope.spawn(move || restore("full"))];
        eventually("they are under way", || {
            ["of-diff", "of-full"].iter().all(|id| host.vm_directory(id).join("vmm/api.sock").exists())
        });
        let busy = |result: Result<(), mvm::runtime::Error>| told(&result.unwrap_err());
        for id in ["full", "diff"] {
            let text = busy(host.runtime.delete_snapshot(id));
            assert!(text.contains("a VM or a snapshot that is being created from it"), "{text}");
        }
        // Those that it was built upon are used still.
        host.runtime.merge_snapshot("diff", None).unwrap();
        let text = busy(host.runtime.delete_snapshot("base"));
        assert!(text.contains("a VM or a snapshot that is being created from it"), "{text}");
        restoring.into_iter().for_each(|restoring| restoring.join().unwrap().unwrap());
    });
    ["base", "diff", "full"].iter().for_each(|id| host.runtime.delete_snapshot(id).unwrap());
}

#[test]
fn a_manifest_that_lies_is_found_out_and_nothing_is_made_elsewhere() {
    let host = Host::new();
    let disk = host.scratch.path().join("disk");
    fs::write(&disk, vec![7; 4096]).unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["drives"] = json!([{ "drive_id": "data", "path_on_host": disk, "is_root_device": false }]);
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let lie = |id: &str, change: &dyn Fn(&mut Value)| {
        snapshot(&host, &vm, id, json!({}));
        let manifest = host.scratch.path().join("state/snapshots").join(id).join("manifest.json");
        common::edit_journal(&manifest, |it| change(it));
    };
    let evil = host.scratch.path().join("state/evil");
    lie("path", &|it| it["drives"][0]["path_in_vmm"] = "../../evil".into());
    lie("drive", &|it| {
        it["drives"][0]["path_in_vmm"] = "/dev/null".into();
        it["drives"][0]["drive_id"] = "../../../evil".into();
    });
    lie("vsock", &|it| {
        let spec = r#"{"boot-source":{"kernel_image_path":"/none"},"vsock":"none"}"#;
        it["spec"]["spec"] = spec.into();
    });
    lie("size", &|it| {
        for file in ["state", "memory"] {
            it[file]["allocated_bytes"] = u64::MAX.into();
        }
    });
    fs::write(&evil, "kept").unwrap();
    for id in ["path", "drive", "vsock"] {
        let vsock = json!({ "vsock_override": { "uds_path": "v.sock" } });
        let text = refused(&host, id, "never", vsock);
        assert_eq!(fs::read(&evil).unwrap(), b"kept", "{id}: {text}");
    }
    // What a drive is called names no file.
    assert_eq!(host.runtime.list_snapshots()["snapshots"].as_array().unwrap().len(), 3);
    host.runtime.snapshot_info("size").unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_guest_whose_snapshot_is_given_up_while_it_is_being_held_goes_on() {
    let host = Host::simulated();
    // The fifth request is the one to hold the guest.
    let spec = host.faulty_spec(Guest::Report, &["5:slow=700"]);
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    count_above(&vm, 1);
    let options = r#"{"deadline_ms":100,"after":"stay_paused"}"#;
    let text = told(&host.runtime.take_snapshot(&vm, "never", Some(options)).unwrap_err());
    assert!(text.contains("within"), "{text}");
    // By itself, as soon as the VMM is done.
    std::thread::sleep(Duration::from_millis(1000));
    let at = count_of(&vm).unwrap();
    count_above(&vm, at + 2);
    snapshot(&host, &vm, "next", json!({}));
    assert_eq!(vm.state(), State::Running);
}
