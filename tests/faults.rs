//! Every way in which a VMM can misbehave, at every request: a clear error, and nothing left behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{Host, Scratch, eventually, script, told};
use mvm::{Error, ExitStatus, Runtime, State};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A spec makes two requests before the start, and the start is the third.
const CONFIGURING: [u32; 2] = [1, 2];
const STARTING: u32 = 3;

/// What the simulator does instead of answering, and a word of what the library says of it.
const FAULTS: [(&str, &str); 9] = [
    ("drop", "closed before the response"),
    ("truncate", "closed in the middle"),
    ("close", "closed in the middle of the response's body"),
    ("garbage", "not HTTP"),
    ("oversize", "bytes"),
    ("status=400", "refused"),
    ("status=500", "refused"),
    ("exit=3", "exit code 3"),
    ("crash", "signal 11"),
];

fn create(host: &Host, fault: &str) -> Result<std::sync::Arc<mvm::Vm>, Error> {
    let mut spec = host.faulty_spec(Guest::Halt, &[fault]);
    spec["mvm"]["deadlines"] = json!({ "create_ms": 500, "start_ms": 500 });
    host.runtime.create("faulty", &spec.to_string())
}

#[test]
fn a_fault_while_configuring_fails_the_create_and_leaves_nothing() {
    let host = Host::simulated();
    for request in CONFIGURING {
        for (fault, word) in FAULTS {
            let fault = format!("{request}:{fault}");
            let said = told(&create(&host, &fault).expect_err(&fault));
            assert!(said.contains(word) && said.contains("PUT /"), "{fault}: {said}");
            host.assert_nothing_left();
        }
    }
}

#[test]
fn a_vmm_that_hangs_while_configuring_is_given_up_at_the_deadline() {
    let host = Host::simulated();
    for fault in ["1:hang", "2:hang", "1:flood", "0:no-socket", "0:deaf"] {
        let began = Instant::now();
        let said = told(&create(&host, fault).expect_err(fault));
        assert!(said.contains("did not answer within"), "{fault}: {said}");
        assert!(began.elapsed() >= Duration::from_millis(400), "{fault}: {:?}", began.elapsed());
        host.assert_nothing_left();
    }
}

#[test]
fn an_answer_that_is_late_or_in_pieces_or_followed_by_more_is_taken() {
    let host = Host::simulated();
    for request in [1, 2, 3] {
        for fault in ["slow=50", "drip=1", "extra"] {
            let vm = create(&host, &format!("{request}:{fault}")).unwrap();
            vm.start().unwrap();
            vm.pause().unwrap();
            assert_eq!(vm.state(), State::Paused);
            host.runtime.destroy(&vm).unwrap();
        }
    }
    host.assert_nothing_left();
}

#[test]
fn a_fault_at_the_start_leaves_a_vm_that_can_be_ended() {
    let host = Host::simulated();
    for (fault, word) in FAULTS {
        let fault = format!("{STARTING}:{fault}");
        let vm = create(&host, &fault).unwrap();
        let said = told(&vm.start().expect_err(&fault));
        assert!(said.contains(word), "{fault}: {said}");
        host.runtime.destroy(&vm).unwrap();
        host.assert_nothing_left();
    }
}

#[test]
fn a_vmm_that_dies_during_a_call_is_told_at_once_with_its_exit() {
    let host = Host::simulated();
    let vm = create(&host, "3:exit=3").unwrap();
    let began = Instant::now();
    vm.start().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((vm.state(), vm.exit_status()), (State::Failed, Some(ExitStatus::Code(3))));
}

#[test]
fn a_start_whose_answer_was_lost_is_settled_by_asking_and_not_by_guessing() {
    let host = Host::simulated();
    // The guest starts, but its owner is not told.
    let vm = create(&host, "3:drop").unwrap();
    vm.start().unwrap_err();
    assert_eq!(vm.info().unwrap()["state_in_doubt"], true);
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
    assert_eq!(vm.info().unwrap()["state_in_doubt"], false);
}

#[test]
fn a_start_that_hangs_can_be_interrupted_and_the_vm_lives() {
    let host = Host::simulated();
    let spec = host.faulty_spec(Guest::Halt, &["3:hang"]);
    let vm = host.runtime.create("hangs", &spec.to_string()).unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| vm.start());
        eventually("the start is interrupted", || {
            vm.interrupt();
            starting.is_finished()
        });
        let said = told(&starting.join().unwrap().unwrap_err());
        assert!(said.contains("interrupted during PUT /actions"), "{said}");
    });
    assert_eq!(vm.exit_status(), None);
}

#[test]
fn a_create_that_hangs_can_be_interrupted_by_id_and_leaves_nothing() {
    let host = Host::simulated();
    let spec = host.faulty_spec(Guest::Halt, &["1:hang"]).to_string();
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| host.runtime.create("hangs", &spec).map(drop));
        eventually("the create is interrupted", || {
            host.runtime.interrupt("hangs").unwrap();
            creating.is_finished()
        });
        assert!(told(&creating.join().unwrap().unwrap_err()).contains("interrupted"));
    });
    host.assert_nothing_left();
}

#[test]
fn a_restart_that_fails_leaves_the_vm_stopped_with_its_console() {
    let host = Host::simulated();
    let vm = host.boot("restart", Guest::Off);
    vm.wait(common::AMPLE).unwrap();
    std::fs::remove_file(host.kernel(Guest::Off)).unwrap();
    let said = told(&vm.start().unwrap_err());
    assert!(said.contains("PUT /boot-source"), "{said}");
    assert_eq!((vm.state(), vm.exit_status()), (State::Stopped, Some(ExitStatus::Code(0))));
    assert!(common::console_of(&vm).contains("hello"));
    assert_eq!(common::processes_below(&host.vm_directory("restart")), Vec::<i32>::new());
}

#[test]
fn queries_do_not_wait_for_a_vmm_that_is_busy() {
    let host = Host::simulated();
    let vm = create(&host, "4:slow=1000").unwrap();
    vm.start().unwrap();
    let other = host.boot("other", Guest::Halt);
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| vm.pause());
        let began = Instant::now();
        let mut asked = 0_u32;
        while !pausing.is_finished() {
            let queried = Instant::now();
            vm.state();
            other.state();
            host.runtime.list_json();
            asked += u32::from(queried.elapsed() < Duration::from_millis(200));
        }
        assert!(began.elapsed() > Duration::from_millis(500));
        assert!(asked > 100, "{asked}");
        pausing.join().unwrap().unwrap();
    });
    other.pause().unwrap();
}

#[test]
fn an_operation_that_waits_behind_another_names_it_when_its_time_is_up() {
    let host = Host::simulated();
    let mut spec = host.faulty_spec(Guest::Halt, &["4:slow=2000"]);
    spec["mvm"]["deadlines"]["start_ms"] = json!(100);
    let vm = host.runtime.create("queue", &spec.to_string()).unwrap();
    vm.start().unwrap();
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| vm.pause());
        eventually("the start waits behind the pause", || {
            vm.start().is_err_and(|error| told(&error).contains("its pause is still running"))
        });
        pausing.join().unwrap().unwrap();
    });
}

#[test]
fn an_executable_that_is_no_firecracker_is_named_with_what_it_said() {
    let scratch = Scratch::new();
    let script = |name, body| script(scratch.path(), name, body);
    let plain = scratch.path().join("plain");
    std::fs::write(&plain, "not executable").unwrap();
    for (path, word) in [
        (script("other", "echo QEMU 9.9"), "it answered \"QEMU 9.9"),
        (script("silent", "exit 1"), "is not Firecracker"),
        (
            script("unlinked", "echo libgcc_s.so.1: cannot open >&2; exit 127"),
            "it answered \"libgcc_s.so.1: cannot open",
        ),
        (script("old", "echo Firecracker v0.25.0"), "the oldest supported is 1.7.0"),
        (script("exits", "[ \"$1\" = --version ] && echo Firecracker v1.16.1 || exit 42"), "exit code 42"),
        (plain, "Permission denied"),
        (scratch.path().to_path_buf(), "it is not a file"),
        (Path::new("/nowhere/firecracker").to_path_buf(), "No such file"),
    ] {
        let host = Host::with(&path);
        let said = told(&host.runtime.create("none", &host.spec(Guest::Halt).to_string()).unwrap_err());
        assert!(said.contains(word), "{}: {said}", path.display());
        host.assert_nothing_left();
    }
}

#[test]
fn an_executable_that_never_says_its_version_is_given_up_at_the_deadline_and_reaped() {
    let scratch = Scratch::new();
    let path = script(scratch.path(), "mute", "exec sleep 1000");
    let host = Host::with(&path);
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["deadlines"]["create_ms"] = json!(100);
    let began = Instant::now();
    let said = told(&host.runtime.create("mute", &spec.to_string()).unwrap_err());
    assert!(said.contains("did not answer --version within"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(4));
    let is_left =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains("(sleep)"));
    assert_eq!(common::children().into_iter().filter(is_left).count(), 0);
}

#[test]
fn what_a_version_lacks_is_refused_before_anything_runs() {
    let scratch = Scratch::new();
    let path = script(scratch.path(), "firecracker", "echo Firecracker v1.7.0");
    let host = Host::with(&path);
    let mut spec = host.spec(Guest::Halt);
    spec["memory-hotplug"] = json!({ "total_size_mib": 1024 });
    let said = told(&host.runtime.create("lacks", &spec.to_string()).unwrap_err());
    assert!(said.contains("\"memory-hotplug\" needs Firecracker 1.14.0 or newer; this is 1.7.0"), "{said}");
    host.assert_nothing_left();
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.join("below"), Path::new("/proc/nowhere").to_path_buf()] {
        let said = told(&Runtime::open(&path, None).unwrap_err());
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
}

#[test]
fn a_directory_that_is_not_the_librarys_is_not_taken_for_a_vms() {
    let host = Host::new();
    std::fs::create_dir(host.vm_directory("taken")).unwrap();
    let said = told(&host.runtime.create("taken", &host.spec(Guest::Halt).to_string()).unwrap_err());
    assert!(said.contains("exists already"), "{said}");
    assert!(host.vm_directory("taken").exists());
}
