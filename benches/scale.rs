//! What a thousand simulated VMs in one process cost, and how long it takes to ask among so many: `cargo bench`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::guest::Guest;
use common::{AMPLE, Host};
use mvm::runtime::EventKind;
use std::time::{Duration, Instant};

const VMS: usize = 1000;
const ALL: Option<&str> = Some(r#"{"set":"all"}"#);

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let raise = ["--nofile=4096:", "--pid", &std::process::id().to_string()];
    assert!(std::process::Command::new("prlimit").args(raise).status().unwrap().success());
    let host = Host::simulated();
    let spec = host.spec(Guest::Halt).to_string();
    let before = memory();
    let (_, creating) = timed(|| {
        (0..VMS).for_each(|id| host.runtime.create(&format!("vm-{id}"), &spec).unwrap().start().unwrap());
    });
    println!("{VMS} simulated VMs, created and started one by one in {creating:.1?}");
    println!("memory of the operator for each: {} bytes", memory().saturating_sub(before) / VMS);
    println!("\n| what | p50 | p99 | worst |\n|---|---|---|---|");
    let vm = host.runtime.vm("vm-500").unwrap();
    row("state of one", 10_000, || drop(vm.known_state()));
    row("list of all", 1000, || drop(host.runtime.list()));
    row("list of all with their states, as JSON", 200, || drop(host.runtime.list_json()));
    // Each has told what it has counted, as after its first minute.
    host.runtime.list().iter().for_each(|vm| vm.flush_metrics().unwrap());
    row("metrics of one", 1000, || drop(vm.metrics()));
    let text = |options| host.runtime.metrics_text(options).unwrap();
    println!("| (the text has {} bytes, with all counters {}) | | | |", text(None).len(), text(ALL).len());
    row("Prometheus text of all, core", 20, || drop(text(None)));
    row("Prometheus text of all, all counters", 5, || drop(text(ALL)));
    while host.runtime.next_event(Duration::ZERO).unwrap().is_some() {}
    let mut ends = Vec::new();
    for vm in host.runtime.list().iter().take(200) {
        let pid = vm.info().unwrap()["pid"].to_string();
        let killed = Instant::now();
        std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
        let signalled = killed.elapsed();
        while !matches!(host.runtime.next_event(AMPLE).unwrap().unwrap().kind, EventKind::Exited(_)) {}
        ends.push(killed.elapsed() - signalled);
    }
    tell("the end of one is told, after kill(1) has returned", &mut ends);
}

fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = run();
    (result, began.elapsed())
}

fn row(what: &str, rounds: usize, mut run: impl FnMut()) {
    let mut times = (0..rounds).map(|_| timed(&mut run).1).collect::<Vec<_>>();
    tell(what, &mut times);
}

fn tell(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("| {what} | {:.1?} | {:.1?} | {:.1?} |", at(50), at(99), at(100));
}
