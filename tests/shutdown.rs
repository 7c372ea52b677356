//! Every way in which a VM ends, on the VMM under test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_with, eventually};
use mvm::{ExitStatus, Outcome, Rung, State};
use serde_json::json;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_guest_that_obeys_is_graceful_and_the_report_says_by_which_rung() {
    let host = Host::new();
    let vm = host.boot("obeys", Guest::Obey);
    console_with(&vm, "hello");
    vm.shutdown(AMPLE, Some(Duration::from_millis(50))).unwrap();
    let report = vm.last_shutdown_json();
    assert_eq!(report["outcome"], "graceful");
    assert_eq!(report["rung"], "guest");
    assert_eq!(report["exit"], json!({ "code": 0 }));
    assert_eq!(report["guest_powered_off"], true);
    assert!(!host.vm_directory("obeys").join("vmm/api.sock").exists());
}

#[test]
fn a_guest_that_ignores_ctrl_alt_del_is_forced_after_the_window() {
    let host = Host::new();
    let vm = host.boot("ignores", Guest::Halt);
    console_with(&vm, "hello");
    let began = Instant::now();
    let report = vm.shutdown(SHORT, None).unwrap();
    assert!(began.elapsed() >= SHORT);
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Terminate)));
    assert_eq!((report.exit, vm.state()), (ExitStatus::Signal(15), State::Stopped));
}

#[test]
fn no_grace_kills_at_once() {
    let host = Host::new();
    let vm = host.boot("no-grace", Guest::Obey);
    let report = vm.shutdown(Duration::ZERO, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Kill)));
    assert_eq!(report.exit, ExitStatus::Signal(9));
}

#[test]
fn a_guest_that_the_spec_leaves_alone_is_not_asked() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Obey);
    spec["mvm"]["shutdown"]["guest"] = json!("off");
    let vm = host.runtime.create("not-asked", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Graceful, Some(Rung::Terminate)));
    assert_eq!(report.exit, ExitStatus::Signal(15));
}

#[test]
fn a_paused_guest_hears_nothing_and_is_not_resumed_for_it() {
    let host = Host::new();
    let vm = host.boot("paused", Guest::Obey);
    vm.pause().unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!(report.asked.first().map(|(rung, ..)| *rung), Some(Rung::Terminate));
    assert_eq!(report.outcome, Outcome::Graceful);
}

#[test]
fn a_vm_that_never_started_ends_by_sigterm() {
    let host = Host::new();
    let report = host.create("never-started", Guest::Obey).shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Graceful, Some(Rung::Terminate)));
}

#[test]
fn a_vm_that_has_ended_is_told_apart() {
    let host = Host::new();
    let vm = host.boot("ended", Guest::Off);
    vm.wait(AMPLE).unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.exit), (Outcome::AlreadyExited, ExitStatus::Code(0)));
    assert_eq!(vm.shutdown(AMPLE, None).unwrap().outcome, Outcome::AlreadyExited);
}

#[test]
fn the_longest_times_there_are_do_no_harm() {
    let host = Host::new();
    let vm = host.boot("longest", Guest::Obey);
    console_with(&vm, "hello");
    let report = vm.shutdown(Duration::MAX, Some(Duration::MAX)).unwrap();
    assert_eq!(report.outcome, Outcome::Graceful);
}

#[test]
fn a_second_caller_joins_the_first_and_gets_the_same_report() {
    let host = Host::new();
    let vm = host.boot("joined", Guest::Halt);
    let reports = std::thread::scope(|scope| {
        let threads =
            [(); 4].map(|()| scope.spawn(|| vm.shutdown(Duration::from_millis(500), None).unwrap()));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(
        reports
            .iter()
            .all(|report| report.outcome == Outcome::Forced && report.elapsed == reports[0].elapsed)
    );
}

#[test]
fn a_second_caller_keeps_its_own_window() {
    let host = Host::new();
    let vm = host.boot("own-window", Guest::Halt);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| vm.shutdown(Duration::MAX, None).unwrap());
        console_with(&vm, "hello");
        let second = vm.shutdown(SHORT, None).unwrap();
        assert_eq!(second.outcome, Outcome::Forced);
        assert_eq!(first.join().unwrap().outcome, Outcome::Forced);
    });
}

#[test]
fn a_crash_long_after_an_interrupted_shutdown_is_a_failure() {
    let host = Host::new();
    let vm = host.boot("crashes-later", Guest::Halt);
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| vm.shutdown(Duration::MAX, None));
        eventually("the shutdown is interrupted", || {
            vm.interrupt();
            ending.is_finished()
        });
    });
    let pid = vm.info().unwrap()["pid"].to_string();
    std::process::Command::new("kill").args(["-SEGV", &pid]).status().unwrap();
    vm.wait(AMPLE).unwrap();
    assert_eq!(vm.state(), State::Failed);
}

#[test]
fn a_kill_or_a_shutdown_reaches_a_vmm_that_is_still_starting() {
    let host = Host::simulated();
    let vm =
        host.runtime.create("starting", &host.faulty_spec(Guest::Halt, &["0:slow=300"]).to_string()).unwrap();
    vm.kill().unwrap();
    for ending in [true, false] {
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| vm.start());
            eventually("the VMM is there", || !vm.info().unwrap()["pid"].is_null());
            if ending {
                vm.kill().unwrap();
            } else {
                assert_eq!(vm.shutdown(Duration::from_millis(20), None).unwrap().outcome, Outcome::Forced);
            }
            assert!(starting.join().unwrap().is_err());
        });
        assert_eq!(vm.state(), State::Stopped);
        assert_eq!(common::processes_below(&host.vm_directory("starting")), Vec::<i32>::new());
    }
}

#[test]
fn a_kill_ends_a_shutdown_that_still_waits_and_it_is_not_called_graceful() {
    let host = Host::new();
    let vm = host.boot("kill-wins", Guest::Halt);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vm.shutdown(AMPLE, None).unwrap());
        console_with(&vm, "hello");
        vm.kill().unwrap();
        let report = waiting.join().unwrap();
        assert!(report.outcome != Outcome::Graceful, "{report:?}");
    });
}

#[test]
fn an_interrupted_shutdown_leaves_the_vm_as_it_is() {
    let host = Host::new();
    let vm = host.boot("interrupted", Guest::Halt);
    std::thread::scope(|scope| {
        let callers = [(); 2].map(|()| scope.spawn(|| vm.shutdown(Duration::MAX, None)));
        eventually("both callers are interrupted", || {
            vm.interrupt();
            callers.iter().all(|caller| caller.is_finished())
        });
        assert!(callers.into_iter().all(|caller| caller.join().unwrap().is_err()));
    });
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn a_vmm_that_ignores_sigterm_is_killed() {
    let host = Host::simulated();
    let spec = host.faulty_spec(Guest::Halt, &["0:ignore-sigterm"]);
    let vm = host.runtime.create("deaf", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let report = vm.shutdown(SHORT, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Kill)));
    let rungs: Vec<_> = report.asked.iter().map(|(rung, ..)| *rung).collect();
    assert_eq!(rungs, [Rung::Guest, Rung::Terminate, Rung::Kill]);
}

#[test]
fn a_vmm_whose_api_hangs_still_ends_when_the_window_closes() {
    let host = Host::simulated();
    let vm = host.runtime.create("hung", &host.faulty_spec(Guest::Obey, &["4:hang"]).to_string()).unwrap();
    vm.start().unwrap();
    let report = vm.shutdown(SHORT, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Forced, Some(Rung::Terminate)));
}
