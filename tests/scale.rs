//! A thousand simulated VMs in one process: what each costs it, and that nothing is forgotten among so many.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, eventually};
use mvm::runtime::EventKind;
use std::collections::BTreeSet;

const VMS: usize = 1000;
const MEMORY: usize = 32 * 1024;
/// What a runtime has open for itself. Its threads open and close files meanwhile, so that the exact number says nothing.
const MOST_OF_THE_RUNTIME: usize = 50;

/// The descriptors of this process.
#[derive(Debug, Default)]
struct Descriptors {
    /// Which processes they stand for.
    processes: BTreeSet<u64>,
    /// How many stand for a process: more than there are processes when one is held twice.
    pidfds: usize,
    sockets: usize,
    others: usize,
}

impl Descriptors {
    fn open() -> Self {
        let mut open = Self::default();
        for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
            let path = entry.unwrap().path();
            // One that has been closed meanwhile is nobody's.
            let Ok(target) = std::fs::read_link(&path) else { continue };
            let target = target.to_string_lossy();
            let about = path.to_string_lossy().replace("/fd/", "/fdinfo/");
            match std::fs::read_to_string(about).ok().and_then(|about| process_of(&about)) {
                Some(process) => {
                    open.pidfds += 1;
                    open.processes.insert(process);
                }
                None if target.starts_with("socket:") => open.sockets += 1,
                None => open.others += 1,
            }
        }
        open
    }
}

/// The process that a pidfd stands for, by what `/proc/self/fdinfo` says of it.
fn process_of(about: &str) -> Option<u64> {
    about.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// The VMMs, by what their VMs say of themselves.
fn vmms(host: &Host) -> BTreeSet<u64> {
    host.runtime.list().iter().map(|vm| vm.info().unwrap()["pid"].as_u64().unwrap()).collect()
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
    let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
    eventually("there are no more than three threads", || count() <= MOST);
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
    let before = memory();
    create_all(&host, &spec, 50..VMS);
    let more = VMS - 50;
    await_threads();
    // Each VM costs its pidfd and its API connection, and nothing else.
    let (descriptors, vmms) = (Descriptors::open(), vmms(&host));
    assert_eq!((descriptors.pidfds, descriptors.sockets), (VMS, VMS));
    assert!(descriptors.processes == vmms && descriptors.others <= MOST_OF_THE_RUNTIME, "{descriptors:?}");
    let each = memory().saturating_sub(before) / more;
    assert!(each <= MEMORY, "each VM costs {each} bytes");
    assert_eq!(host.runtime.list().len(), VMS);
    assert_eq!(host.runtime.metrics_text(None).unwrap().matches("mvm_vm_state{").count(), VMS);

    // All end at once, and of each it is told.
    let pids = vmms.iter().map(u64::to_string);
    let killed = std::process::Command::new("kill").arg("-9").args(pids).status().unwrap();
    assert!(killed.success());
    let mut ended = BTreeSet::new();
    while ended.len() < VMS {
        let event = host.runtime.next_event(AMPLE).unwrap().expect("every end is told");
        if matches!(event.kind, EventKind::Exited(_)) {
            assert!(ended.insert(event.vm));
        }
    }
    assert_eq!(common::children(), Vec::<i32>::new(), "each was reaped");
}
