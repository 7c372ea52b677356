//! The library beside a bare loop that makes the same system calls, in one run, as ratios: `cargo bench`.
//!
//! The VMM is the one that `MVM_TEST_FIRECRACKER` names, or the simulator. Library and loop take turns, so that
//! whatever else the machine does meets both.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for people")]

#[path = "../tests/common/mod.rs"]
mod common;

mod bare;

use bare::{Bare, BareVmm, compare, in_parallel, median, show, spread, timed};
use common::guest::Guest;
use common::{Host, is_simulated};
use mvm::Vm;
use mvm::firecracker::http::{Method, RequestPath};
use mvm::sys::user::{NEEDED_BY_A_JAIL, missing_capabilities};
use serde_json::json;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() {
    // `cargo test --benches` only wants to know that it builds and runs.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    println!(
        "VMM: {}{}",
        common::firecracker().display(),
        if is_simulated() { " (the simulator)" } else { "" }
    );
    println!("\n| what | library | bare loop | ratio |\n|---|---|---|---|");
    for manner in [Some(Manner::plain()), Manner::jailed()].iter().flatten() {
        create_and_start_one_by_one(manner);
        for at_once in [16, 32] {
            create_and_start_at_once(manner, at_once);
        }
    }
    requests();
    println!("\n| what | p50 | p99 | worst |\n|---|---|---|---|");
    shutdown_after_exit();
    queries_while_another_vm_is_busy();
}

/// How VMs are started, and what the bare loop does for the same.
struct Manner {
    host: Host,
    spec: String,
    bare: Bare,
    is_jailed: bool,
}

impl Manner {
    fn plain() -> Self {
        let host = Host::new();
        let spec = host.spec(Guest::Halt).to_string();
        Self { host, spec, bare: Bare::new(), is_jailed: false }
    }

    /// Nothing where this process may not jail another one.
    fn jailed() -> Option<Self> {
        let Self { host, bare, .. } = Self::plain();
        let mut spec = host.spec(Guest::Halt);
        spec["mvm"]["jail"] = json!({ "jailer": common::jailer() });
        let spec = spec.to_string();
        let missing = missing_capabilities(&NEEDED_BY_A_JAIL);
        missing.is_empty().then_some(Self { host, spec, bare, is_jailed: true })
    }

    fn boot_bare(&self, id: &str) -> BareVmm {
        static NEXT: AtomicU32 = AtomicU32::new(2_000_000_000);
        if !self.is_jailed {
            return self.bare.boot(id);
        }
        self.bare.boot_jailed(id, NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn name(&self) -> &'static str {
        if self.is_jailed { "jailed create+start" } else { "create+start" }
    }
}

fn create_and_start_one_by_one(manner: &Manner) {
    const ROUNDS: usize = 60;
    let Manner { host, spec, .. } = manner;
    let (mut library, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 5 {
        let id = format!("serial-{round}");
        let (vm, ours) = timed(|| booted(host, &id, spec));
        host.runtime.destroy(&vm).unwrap();
        let (vmm, theirs) = timed(|| manner.boot_bare(&id));
        vmm.end();
        if round >= 5 {
            library.push(ours);
            plain.push(theirs);
        }
    }
    compare(&format!("{}, one by one (p50)", manner.name()), median(&mut library), median(&mut plain));
}

fn create_and_start_at_once(manner: &Manner, at_once: usize) {
    const ROUNDS: usize = 15;
    let Manner { host, spec, .. } = manner;
    let (mut library, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 1 {
        let ids = (0..at_once).map(|number| format!("at-once-{round}-{number}")).collect::<Vec<_>>();
        let (vms, ours) = timed(|| in_parallel(&ids, |id| booted(host, id, spec)));
        vms.iter().for_each(|vm| host.runtime.destroy(vm).unwrap());
        let (vmms, theirs) = timed(|| in_parallel(&ids, |id| manner.boot_bare(id)));
        vmms.into_iter().for_each(BareVmm::end);
        if round > 0 {
            library.push(ours);
            plain.push(theirs);
        }
    }
    compare(&format!("{}, {at_once} at once (p50)", manner.name()), median(&mut library), median(&mut plain));
}

fn requests() {
    const ROUNDS: usize = 2000;
    let (host, bare) = (Host::new(), Bare::new());
    let vm = host.boot("requests", Guest::Halt);
    let mut vmm = bare.boot("requests");
    let path = RequestPath::parse("/version").unwrap();
    let (mut library, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        library.push(timed(|| vm.request(Method::Get, &path, None).unwrap()).1);
        plain.push(timed(|| vmm.request("GET", "/version", "")).1);
    }
    compare("one request (p50)", median(&mut library), median(&mut plain));
    library.clear();
    plain.clear();
    for _ in 0..ROUNDS / 4 {
        let ours = timed(|| {
            vm.pause().unwrap();
            vm.resume().unwrap();
        });
        let theirs = timed(|| {
            vmm.request("PATCH", "/vm", r#"{"state":"Paused"}"#);
            vmm.request("PATCH", "/vm", r#"{"state":"Resumed"}"#);
        });
        library.push(ours.1);
        plain.push(theirs.1);
    }
    compare("pause and resume (p50)", median(&mut library), median(&mut plain));
    vmm.end();
}

/// From the moment at which another thread sees the process gone until the call returns.
fn shutdown_after_exit() {
    const ROUNDS: usize = 60;
    let host = Host::new();
    let late = (0..ROUNDS).map(|round| {
        let vm = host.boot(&format!("ending-{round}"), Guest::Halt);
        let fd = File::from(vm.exit_fd().unwrap());
        let (gone, returned) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                use mvm::sys::poll::{Interest, wait};
                wait(
                    [Interest::Readable(std::os::fd::AsFd::as_fd(&fd))],
                    mvm::sys::deadline::Deadline::NEVER,
                )
                .unwrap();
                Instant::now()
            });
            vm.shutdown(Duration::ZERO, None).unwrap();
            let returned = Instant::now();
            (watching.join().unwrap(), returned)
        });
        host.runtime.destroy(&vm).unwrap();
        returned.saturating_duration_since(gone)
    });
    spread("shutdown returns after the VMM is gone", late.collect());
}

fn queries_while_another_vm_is_busy() {
    let host = Host::new();
    let other = host.boot("other", Guest::Halt);
    let (busy, request) = busy_vm(&host);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| timed(|| request(&busy)));
        while !working.is_finished() {
            for vm in [&busy, &other] {
                times.push(timed(|| vm.state()).1);
            }
            times.push(timed(|| host.runtime.list_json()).1);
            std::thread::sleep(Duration::from_micros(100));
        }
        let ((), took) = working.join().unwrap();
        println!("| (the other VM's call takes) | {} | | |", show(took));
    });
    spread("state and list while another VM is in a slow call", times);
}

/// A VM, and a call on it that takes about a second: a snapshot of a large memory, or a simulated wait.
fn busy_vm(host: &Host) -> (Arc<Vm>, impl Fn(&Vm) + Send + Sync + use<>) {
    let mut spec =
        if is_simulated() { host.faulty_spec(Guest::Halt, &["5:slow=1000"]) } else { host.spec(Guest::Halt) };
    spec["machine-config"]["mem_size_mib"] = json!(1024);
    let vm = host.runtime.create("busy", &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm.pause().unwrap();
    let snapshot = host.scratch.path().join("snapshot");
    let memory = host.scratch.path().join("memory");
    (vm, move |vm: &Vm| {
        let body = json!({ "snapshot_path": snapshot, "mem_file_path": memory }).to_string();
        let path = RequestPath::parse("/snapshot/create").unwrap();
        vm.request(Method::Put, &path, Some(body.as_bytes())).unwrap();
    })
}

fn booted(host: &Host, id: &str, spec: &str) -> Arc<Vm> {
    let vm = host.runtime.create(id, spec).unwrap();
    vm.start().unwrap();
    vm
}
