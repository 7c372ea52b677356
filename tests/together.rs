//! Threads that do as they like to the same VMs at once: nothing hangs, nothing is left, no state is invented.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{Host, eventually};
use mvm::runtime::EventKind;
use mvm::{Outcome, State};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// A thread's own dice: the same throws in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn whatever_threads_do_at_once_nothing_hangs_and_nothing_is_left() {
    const THREADS: u64 = 6;
    const MOVES: u32 = 60;
    let host = Host::new();
    let spec = host.spec(Guest::Obey).to_string();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (host, spec) = (&host, &spec);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                for _ in 0..MOVES {
                    let id = ["one", "two"][usize::from(dice.throw(2) == 0)];
                    let Ok(vm) = host.runtime.vm(id) else {
                        let _taken_or_made = host.runtime.create(id, spec);
                        continue;
                    };
                    let _refused_or_done = match dice.throw(12) {
                        0..3 => vm.start().map_err(drop),
                        3 => vm.pause().map_err(drop),
                        4 => vm.resume().map_err(drop),
                        5 => vm.shutdown(Duration::from_millis(dice.throw(40)), None).map(drop).map_err(drop),
                        6 => vm.kill().map_err(drop),
                        7 => vm.wait(Duration::from_millis(dice.throw(10))).map(drop).map_err(drop),
                        8 => vm.info().map(drop).map_err(drop),
                        9 => host.runtime.destroy(&vm).map_err(drop),
                        10 => vm.exit_fd().map(drop).map_err(drop),
                        _ => {
                            vm.interrupt();
                            Ok(())
                        }
                    };
                }
            });
        }
    });
    for vm in host.runtime.list() {
        let state = vm.state();
        let ended = matches!(state, State::Stopped | State::Failed);
        assert_eq!(ended, vm.exit_status().is_some(), "{state}");
        host.runtime.destroy(&vm).unwrap();
    }
    host.assert_nothing_left();
    eventually("all descriptors are closed", || {
        std::fs::read_dir("/proc/self/fd").unwrap().count() <= descriptors
    });
}

#[test]
fn many_that_destroy_one_vm_spare_the_next_of_its_name() {
    let host = Host::new();
    let spec = host.spec(Guest::Halt).to_string();
    for _ in 0..20 {
        let vm = host.runtime.create("again", &spec).unwrap();
        let next = std::thread::scope(|scope| {
            let destroyers = [(); 4].map(|()| scope.spawn(|| host.runtime.destroy(&vm)));
            let mut next = host.runtime.create("again", &spec);
            while matches!(next, Err(mvm::Error::AlreadyExists { .. })) {
                next = host.runtime.create("again", &spec);
            }
            destroyers.into_iter().for_each(|destroyer| destroyer.join().unwrap().unwrap());
            next.unwrap()
        });
        assert!(host.vm_directory("again").join("vmm/api.sock").exists());
        next.start().unwrap();
        host.runtime.destroy(&next).unwrap();
    }
    host.assert_nothing_left();
}

#[test]
fn of_two_that_end_and_restart_a_vm_none_is_told_a_lie() {
    let host = Host::new();
    let vm = host.boot("contested", Guest::Obey);
    let graceful = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let report = vm.shutdown(Duration::from_secs(20), None).unwrap();
                    // Whoever is told that it ended gracefully has a process that ended by itself.
                    assert_eq!(report.outcome == Outcome::Forced, report.exit == mvm::ExitStatus::Signal(9));
                    graceful.fetch_add(u32::from(report.outcome == Outcome::Graceful), Ordering::Relaxed);
                    vm.start().unwrap();
                }
            });
        }
    });
    assert!(graceful.load(Ordering::Relaxed) > 0);
    assert_eq!(vm.state(), State::Running);
}

/// Somebody who looks while a VM comes to be notices its end first, and it is told all the same.
#[test]
fn the_end_of_a_vm_that_was_just_made_is_told() {
    const ROUNDS: usize = 60;
    let host = Host::simulated();
    let vms = host.scratch.path().join("state/vms");
    let over = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(host.runtime.list_json());
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let pids = common::processes_below(&vms).iter().map(ToString::to_string).collect::<Vec<_>>();
                drop(std::process::Command::new("kill").arg("-9").args(pids).output().unwrap());
            }
        });
        let spec = host.spec(Guest::Halt).to_string();
        let mut made = 0;
        for _ in 0..ROUNDS {
            let Ok(vm) = host.runtime.create("brief", &spec) else { continue };
            made += 1;
            vm.wait(common::AMPLE).unwrap();
            assert_ne!(vm.state(), mvm::State::Created);
            let is_exit = |what: &EventKind| matches!(what, EventKind::Exited(_));
            let mut told = std::iter::from_fn(|| host.runtime.next_event(Duration::ZERO).unwrap());
            assert!(told.any(|event| is_exit(&event.kind)), "its end is not told");
            host.runtime.destroy(&vm).unwrap();
            while host.runtime.next_event(Duration::ZERO).unwrap().is_some() {}
        }
        over.store(true, Ordering::Relaxed);
        made
    });
    assert!(made > 0, "all were killed before they came to be");
}
