//! What a VMM that belongs to its guest can do to its owner: nothing. And what a state directory must be to be used.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::Host;
use common::guest::Guest;
use mvm::process::Identity;
use mvm::sys::directory::Directory;
use mvm::{Runtime, Vm};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories in each other.
fn nest(top: &Path, levels: usize) {
    fs::create_dir(top).unwrap();
    let mut directory = Directory::open(top).unwrap();
    for _ in 0..levels {
        directory.make_directory("deeper".as_ref()).unwrap();
        directory = directory.open_directory("deeper".as_ref()).unwrap();
    }
}

#[test]
fn directories_in_each_other_by_the_thousand_are_removed_with_their_vm_by_a_thread_with_a_small_stack() {
    let host = Host::new();
    let vm = host.create("deep", Guest::Halt);
    fs::create_dir_all(host.vm_directory("deep").join("vmm/drives")).unwrap();
    nest(&host.vm_directory("deep").join("vmm/drives/deeper"), 3_000);
    std::thread::scope(|scope| {
        let destroying = std::thread::Builder::new().stack_size(256 << 10);
        destroying.spawn_scoped(scope, || host.runtime.destroy(&vm).unwrap()).unwrap();
    });
    // What a busy disk did not do in the time of the call is done by the next look.
    while host.runtime.reap(None).unwrap()["left_alone"] != json!([]) {}
    host.assert_nothing_left();
}

#[test]
fn a_rewritten_journal_makes_nobody_run_another_program() {
    let mut host = Host::new();
    let vm = host.boot("forger", Guest::Halt);
    let ran = host.scratch.path().join("ran");
    let program = host.scratch.path().join("program");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    drop(vm);
    forge(&host, "forger", |journal| journal["firecracker"] = json!(program));
    host.change_owner();
    let vm = host.runtime.vm("forger").unwrap();
    host.runtime.take_snapshot(&vm, "asks-for-the-version", None).unwrap();
    vm.kill().unwrap();
    vm.start().unwrap();
    assert!(!ran.exists());
    assert_eq!(vm.info().unwrap()["firecracker"], json!(common::firecracker()));
}

#[test]
fn a_rewritten_journal_makes_nobody_end_another_process() {
    let mut host = Host::new();
    let vmm = pid_of(&host.boot("forger", Guest::Halt));
    let mut innocent = Command::new("sleep").arg("1000").spawn().unwrap();
    let identity = Identity::of(innocent.id().cast_signed()).unwrap();
    forge(&host, "forger", |journal| {
        journal["vmm"]["process"] = json!({ "pid": identity.pid, "started": identity.started });
    });
    host.change_owner();
    // Its own VMM is found by the console.
    let vm = host.runtime.vm("forger").unwrap();
    assert_eq!(pid_of(&vm), vmm);
    host.runtime.destroy(&vm).unwrap();
    assert!(innocent.try_wait().unwrap().is_none());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_vmm_that_its_journal_conceals_is_not_left_running() {
    for conceal in [
        (|journal| journal["vmm"] = Value::Null) as fn(&mut Value),
        |journal| journal["boot"] = json!("another boot"),
        |journal| journal["vmm"]["process"] = json!({ "pid": 1, "started": 1 }),
    ] {
        let mut host = Host::new();
        drop(host.boot("concealed", Guest::Halt));
        forge(&host, "concealed", conceal);
        host.change_owner();
        let vm = host.runtime.vm("concealed").unwrap();
        let running = common::processes_below(&host.vm_directory("concealed"));
        assert_eq!(running.is_empty(), vm.info().unwrap()["pid"].is_null(), "{running:?}");
        host.runtime.destroy(&vm).unwrap();
        host.assert_nothing_left();
    }
}

#[test]
fn a_rewritten_journal_removes_no_socket_of_somebody_else() {
    let mut host = Host::new();
    let (absolute, above, linked) =
        ["absolute", "above", "linked"].map(|name| host.scratch.path().join(name)).into();
    for socket in [&absolute, &above, &linked] {
        drop(UnixListener::bind(socket).unwrap());
    }
    let vm = host.boot("forger", Guest::Halt);
    let working = host.vm_directory("forger").join("vmm");
    symlink(host.scratch.path(), working.join("way-out")).unwrap();
    drop(UnixListener::bind(working.join("own")).unwrap());
    drop(vm);
    forge(&host, "forger", |journal| {
        journal["vmm"]["sockets"] = json!(["own", absolute, "../../../../above", "way-out/linked"]);
    });
    host.change_owner();
    host.runtime.vm("forger").unwrap().kill().unwrap();
    assert!(!working.join("own").exists());
    forge(&host, "forger", |journal| {
        journal["vmm"] = json!({ "process": null, "progress": "ready", "version": "1.16.1",
                                 "sockets": [absolute, "../../../../above", "way-out/linked"] });
    });
    host.change_owner();
    assert!([absolute, above, linked].iter().all(|socket| socket.exists()));
}

/// Changes a journal as a VMM would, its checksum included, while it has no owner.
fn forge(host: &Host, id: &str, change: impl FnOnce(&mut Value)) {
    common::edit_journal(&host.vm_directory(id).join("journal.json"), change);
}

fn pid_of(vm: &Vm) -> i64 {
    vm.info().unwrap()["pid"].as_i64().unwrap()
}

/// Which part this process plays, and where.
const PART: &str = "MVM_TRUST_PART";

/// What came with the lower layer of overlayfs, as in an image, cannot be renamed there, neither with a word nor a link.
#[test]
fn a_state_directory_that_came_with_an_image_is_one_like_any_other() {
    let mut host = Host::new();
    for id in ["destroyed", "renamed", "started", "half-done"] {
        host.boot(id, Guest::Halt).kill().unwrap();
    }
    let vm = host.boot("frozen", Guest::Halt);
    for id in ["deleted", "kept"] {
        host.runtime.take_snapshot(&vm, id, None).unwrap();
    }
    vm.kill().unwrap();
    drop(vm);
    host.without_owner_but(|directory| {
        let [lower, upper, work, merged] =
            ["state", "upper", "work", "merged"].map(|name| directory.join(name));
        [&upper, &work, &merged].iter().for_each(|made| fs::create_dir(made).unwrap());
        let mount = format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {} || exit 77; exec \"$@\"",
            lower.display(),
            upper.display(),
            work.display(),
            merged.display()
        );
        let own = std::env::current_exe().unwrap();
        let played = Command::new("unshare")
            .args(["-m", "sh", "-c", &mount, "sh"])
            .arg(own)
            .args(["plays_in_an_image", "--exact", "--ignored", "--nocapture"])
            .env(PART, &merged)
            .status()
            .unwrap();
        match played.code() {
            Some(1 | 77) if !is_root() => println!("skipped: only root may mount"),
            Some(77) => println!("skipped: there is no overlayfs here"),
            code => assert_eq!(code, Some(0)),
        }
    });
}

#[test]
#[ignore = "the part in an image, which another test starts"]
fn plays_in_an_image() {
    let Some(state) = std::env::var_os(PART).map(PathBuf::from) else { return };
    let options = json!({ "firecracker": common::firecracker() }).to_string();
    let runtime = Runtime::open(&state, Some(&options)).unwrap();
    runtime.destroy(&runtime.vm("destroyed").unwrap()).unwrap();
    runtime.rename(&runtime.vm("renamed").unwrap(), "called-otherwise").unwrap();
    let vm = runtime.vm("started").unwrap();
    vm.start().unwrap();
    vm.kill().unwrap();
    runtime.destroy(&vm).unwrap();
    runtime.delete_snapshot("deleted").unwrap();
    let vm = runtime.restore("kept", "restored", None).unwrap();
    runtime.destroy(&vm).unwrap();
    drop(runtime);
    let runtime = Runtime::open(&state, Some(&options)).unwrap();
    let ids = runtime.list().iter().map(|vm| vm.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids, ["called-otherwise", "frozen", "half-done"]);
    assert_eq!(runtime.report()["left_alone"], json!([]));
    runtime.reap(None).unwrap();
    assert_eq!(fs::read_dir(state.join("vms")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(state.join("snapshots")).unwrap().count(), 1);
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}
