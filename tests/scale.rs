//! A thousand simulated VMs in one process: what each costs it, and that nothing is forgotten among so many.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, eventually};
use mvm::runtime::What;
use std::collections::BTreeSet;

const VMS: usize = 1000;
/// Descriptors that a VM costs its operator: its pidfd and its API connection.
const DESCRIPTORS: usize = 2;
const MEMORY: usize = 32 * 1024;

fn count(path: &str) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// What this process alone has in memory, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// The harness's, this test's and one of the library's; those that a scope has waited for take a moment more to go.
fn await_threads() {
    const MOST: usize = 3;
    eventually("there are no more than three threads", || count("/proc/self/task") <= MOST);
}

fn create_all(host: &Host, spec: &str, ids: std::ops::Range<usize>) {
    const THREADS: usize = 8;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ids = ids.clone().skip(thread).step_by(THREADS);
            scope.spawn(move || {
                for id in ids {
                    host.runtime.create(&format!("vm-{id:04}"), spec).unwrap().start().unwrap();
                }
            });
        }
    });
}

#[test]
fn a_thousand_vms_cost_no_thread_two_descriptors_and_little_memory_each() {
    // The default of a thousand descriptors is not enough; every user may ask for as many as the hard limit allows.
    let raise = ["--nofile=4096:", "--pid", &std::process::id().to_string()];
    assert!(std::process::Command::new("prlimit").args(raise).status().unwrap().success());
    let host = Host::simulated();
    let spec = host.spec(Guest::Halt).to_string();
    // What is made once, for the first VMs, is not counted.
    create_all(&host, &spec, 0..50);
    await_threads();
    let (descriptors, before) = (count("/proc/self/fd"), memory());
    create_all(&host, &spec, 50..VMS);
    let more = VMS - 50;
    await_threads();
    assert_eq!(count("/proc/self/fd"), descriptors + more * DESCRIPTORS);
    let each = memory().saturating_sub(before) / more;
    assert!(each <= MEMORY, "each VM costs {each} bytes");
    assert_eq!(host.runtime.list().len(), VMS);
    assert_eq!(host.runtime.metrics_text().matches("mvm_vm_state{").count(), VMS);

    // All end at once, and of each it is told.
    let mut pids =
        host.runtime.list().iter().map(|vm| vm.info().unwrap()["pid"].to_string()).collect::<Vec<_>>();
    pids.insert(0, "-9".into());
    assert!(std::process::Command::new("kill").args(pids).status().unwrap().success());
    let mut ended = BTreeSet::new();
    while ended.len() < VMS {
        let event = host.runtime.next_event(AMPLE).unwrap().expect("every end is told");
        if matches!(event.what, What::Exited(_)) {
            assert!(ended.insert(event.vm));
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new(), "each was reaped");
}
