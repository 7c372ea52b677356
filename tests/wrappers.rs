//! Firecrackers that are scripts: whatever such a script has started ends with the VM.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{Host, Scratch, eventually, firecracker, processes_below, told};
use mvm::ReapOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An executable script, which finds the VMM under test as `$vmm`.
fn script(directory: &Path, text: &str) -> PathBuf {
    let vmm = firecracker();
    let version = "[ \"$1\" = --version ] && exec \"$vmm\" \"$@\"";
    let body = format!("vmm='{}'\n{version}\n{text}", vmm.display());
    common::script(directory, "wrapper", &body)
}

/// A host whose Firecracker is such a script.
fn host_with(scratch: &Scratch, text: &str) -> Host {
    Host::with(&script(scratch.path(), text))
}

#[test]
fn a_wrapper_that_does_not_become_firecracker_is_refused_and_nothing_of_it_runs_on() {
    // Its children print where it does, or nowhere, and are killed with it or not.
    for text in [
        "\"$vmm\" \"$@\"\nexit $?",
        "\"$vmm\" \"$@\" > /dev/null 2>&1\nexit $?",
        "\"$vmm\" \"$@\" &\nwait",
        "trap '' TERM; \"$vmm\" \"$@\" | cat",
    ] {
        let scratch = Scratch::new();
        let host = host_with(&scratch, text);
        let error = host.runtime.create("wrapped", &host.spec(Guest::Halt).to_string()).unwrap_err();
        assert!(told(&error).contains("exec firecracker"), "{}", told(&error));
        host.assert_nothing_left();
    }
}

#[test]
fn what_a_wrapper_has_started_ends_with_the_vm() {
    let scratch = Scratch::new();
    let host = host_with(&scratch, "sleep 1000 &\nsleep 1001 > /dev/null 2>&1 &\nexec \"$vmm\" \"$@\"");
    let directory = host.vm_directory("helped");
    let vm = host.boot("helped", Guest::Halt);
    eventually("the helpers run", || processes_below(&directory).len() == 3);
    vm.shutdown(Duration::ZERO, None).unwrap();
    assert_eq!(processes_below(&directory), Vec::<i32>::new());
    vm.start().unwrap();
    eventually("the helpers run", || processes_below(&directory).len() == 3);
    vm.kill().unwrap();
    assert_eq!(processes_below(&directory), Vec::<i32>::new());
    vm.start().unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn helpers_of_a_vmm_that_has_ended_are_no_vmm_and_go_with_it() {
    let scratch = Scratch::new();
    let mut host = host_with(&scratch, "sleep 1000 &\nexec \"$vmm\" \"$@\"");
    let directory = host.vm_directory("orphaned");
    let vm = host.boot("orphaned", Guest::Halt);
    let vmm = vm.info().unwrap()["pid"].to_string();
    drop(vm);
    host.without_owner(|| {
        std::process::Command::new("kill").args(["-9", &vmm]).status().unwrap();
        eventually("the VMM has ended", || processes_below(&directory).len() == 1);
    });
    let report = host.runtime.report();
    assert_eq!(report["ended"][0]["id"], "orphaned", "{report}");
    assert_eq!(processes_below(&directory), Vec::<i32>::new());
    host.runtime.reap(ReapOptions::default()).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_wrapper_that_does_not_say_its_version_is_ended_with_all_that_it_has_started() {
    let scratch = Scratch::new();
    let body = format!("cd '{}'\nsleep 1000\nexit 0", scratch.path().display());
    let path = common::script(scratch.path(), "silent", &body);
    let host = Host::with(&path);
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["deadlines"]["create_ms"] = 200.into();
    let error = host.runtime.create("silent", &spec.to_string()).unwrap_err();
    assert!(told(&error).contains("version"), "{}", told(&error));
    eventually("nothing of it is left", || processes_below(scratch.path()).is_empty());
    host.assert_nothing_left();
}
