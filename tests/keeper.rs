//! What goes on whether or not an owner lives: consoles that stay bounded, as a thread and as a program.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, Scratch, eventually, told};
use mvm::runtime::{EventKind, Runtime};
use mvm::{State, Vm};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: u64 = 64 * 1024;
/// What may be printed between two looks of the keeper, by a simulated guest on a busy machine.
const MEANWHILE: u64 = 64 << 20;

fn flooding(host: &Host, id: &str) -> Arc<Vm> {
    let mut spec = host.spec(Guest::Flood);
    spec["mvm"]["console"]["limit_bytes"] = json!(LIMIT);
    let vm = host.runtime.create(id, &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm
}

/// Waits until the guest has printed `much` more, and the console has not grown by that.
fn stays_bounded(console: &Path, much: u64) {
    let begin = console.metadata().unwrap().len();
    eventually("the guest has printed much, and little is kept", || {
        let about = console.metadata().unwrap();
        let kept = about.blocks() * 512;
        assert!(kept < LIMIT + MEANWHILE, "{kept} bytes are kept of {}", about.len());
        about.len() > begin + much && kept <= LIMIT + LIMIT / 2
    });
}

fn keepers(state: &Path) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mark = state.to_str().unwrap();
    let is_keeper = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("mvm-keeper\0") && line.contains(mark)
    };
    pids.filter(is_keeper).collect()
}

#[test]
fn a_console_stays_bounded_however_much_the_guest_prints() {
    for host in [Host::new(), Host::with_keeper()] {
        let vm = flooding(&host, "flood");
        let console = host.vm_directory("flood").join("console.log");
        stays_bounded(&console, 4 * LIMIT);
        // A reader from the beginning is told what it has missed.
        let mut buffer = [0; 4096];
        let piece = vm.read_console(0, &mut buffer).unwrap();
        assert!(piece.start > 0 && piece.length > 0);
        assert!(!buffer[..piece.length].contains(&0), "what is gone reads as nothing, never as zeroes");
        let end = console.metadata().unwrap().len();
        vm.kill().unwrap();
        assert!(vm.read_console(end + (1 << 40), &mut buffer).unwrap().length == 0);
    }
}

#[test]
fn a_console_stays_bounded_while_no_owner_lives_and_is_read_by_the_next() {
    let mut host = Host::with_keeper();
    drop(flooding(&host, "orphaned"));
    let console = host.vm_directory("orphaned").join("console.log");
    let state = host.scratch.path().join("state");
    let first = keepers(&state);
    assert_eq!(first.len(), 1);
    host.without_owner(|| stays_bounded(&console, 4 * LIMIT));
    assert_eq!(keepers(&state), first, "the keeper of the former owner serves the next");
    let vm = host.runtime.vm("orphaned").unwrap();
    assert_eq!(vm.state(), State::Running);
    assert!(vm.read_console(0, &mut [0; 64]).unwrap().start > 0);
}

#[test]
fn a_keeper_that_dies_is_replaced() {
    let host = Host::with_keeper();
    let state = host.scratch.path().join("state");
    let vm = flooding(&host, "kept");
    eventually("the keeper is at work", || state.join("keeper.json").exists());
    let first = keepers(&state);
    std::process::Command::new("kill").args(["-9", &first[0].to_string()]).status().unwrap();
    eventually("another keeper is there", || {
        let _noticed = host.runtime.next_event(Duration::from_millis(10));
        keepers(&state).iter().any(|pid| !first.contains(pid))
    });
    stays_bounded(&host.vm_directory("kept").join("console.log"), 4 * LIMIT);
    host.runtime.destroy(&vm).unwrap();
}

#[test]
fn a_keeper_that_cannot_be_used_is_noticed_when_the_runtime_is_opened() {
    let scratch = Scratch::new();
    let state = scratch.path().join("state");
    for path in ["/nowhere/mvm-keeper", "/etc/passwd", "/bin/false", "/tmp"] {
        let options = json!({ "keeper": path }).to_string();
        let refused = told(&Runtime::open(&state, Some(&options)).unwrap_err());
        assert!(refused.contains(path) && refused.contains("set \"keeper\""), "{refused}");
        assert!(!state.exists());
    }
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["on_owner_exit"] = json!("kill");
    let refused = told(&host.runtime.create("unkept", &spec.to_string()).unwrap_err());
    assert!(refused.contains("needs the keeper"), "{refused}");
    host.assert_nothing_left();
}

#[test]
fn a_keeper_that_nobody_needs_is_gone() {
    let mut host = Host::with_keeper();
    let state = host.scratch.path().join("state");
    let vm = host.boot("brief", Guest::Halt);
    assert_eq!(keepers(&state).len(), 1);
    host.runtime.destroy(&vm).unwrap();
    drop(vm);
    host.without_owner(|| assert_eq!(keepers(&state), Vec::<i32>::new()));
}

#[test]
fn a_keeper_that_fails_at_once_is_told() {
    let scratch = Scratch::new();
    let body = format!("[ \"$1\" = --version ] && exec '{}' \"$1\"\nexit 1", common::keeper().display());
    let keeper = common::script(scratch.path(), "keeper", &body);
    let host = Host::with_options(json!({ "firecracker": common::firecracker(), "keeper": keeper }));
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["on_owner_exit"] = json!("kill");
    host.runtime.create("doomed", &spec.to_string()).unwrap();
    eventually("it is told that the keeper is lost", || {
        let event = host.runtime.next_event(AMPLE).unwrap();
        event.is_some_and(|event| matches!(event.kind, EventKind::KeeperLost(_)))
    });
}
