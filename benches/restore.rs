//! Restores, clones and pools beside a bare loop that makes the same system calls, in one run: `cargo bench --bench
//! restore`. The VMM is the one that `MVM_TEST_FIRECRACKER` names, or the simulator; library and loop take turns.
//! `MVM_BENCH_HANDLERS` may name the directory with Firecracker's example handlers of page faults.
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

use bare::{Bare, BareVmm, compare, median, timed};
use common::guest::Guest;
use common::{Host, eventually, is_simulated};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ROUNDS: usize = 40;

fn main() {
    // `cargo test --benches` only wants to know that it builds and runs.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let vmm = common::firecracker();
    println!("VMM: {}{}", vmm.display(), if is_simulated() { " (the simulator)" } else { "" });
    println!("\n| what | library | bare loop | ratio |\n|---|---|---|---|");
    let host = Host::with_keeper();
    let snapshot = snapshot(&host);
    let bare = Bare::new();
    restore_one_by_one(&host, &bare, &snapshot);
    for count in [32, 100] {
        clones(&host, &bare, &snapshot, count);
    }
    take_from_a_pool(&host);
    snapshots(&host, &bare);
    if let Some(examples) = std::env::var_os("MVM_BENCH_HANDLERS") {
        println!("\n| restore and read | the pager | Firecracker's example | ratio |\n|---|---|---|---|");
        bare::handlers::beside(Path::new(&examples), &host, &bare);
    }
}

/// A snapshot of 256 MiB; gives its directory.
fn snapshot(host: &Host) -> PathBuf {
    let mut spec = host.spec(Guest::Halt);
    spec["machine-config"]["mem_size_mib"] = 256.into();
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let report = host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
    PathBuf::from(report["directory"].as_str().unwrap())
}

fn bare_restore(bare: &Bare, id: &str, snapshot: &Path) -> BareVmm {
    let mut vmm = bare.spawn(id);
    let backend = json!({ "backend_type": "File", "backend_path": snapshot.join("memory") });
    let body = json!({ "snapshot_path": snapshot.join("state"), "mem_backend": backend, "resume_vm": true });
    vmm.request("PUT", "/snapshot/load", &body.to_string());
    vmm
}

fn restore_one_by_one(host: &Host, bare: &Bare, snapshot: &Path) {
    let (mut file, mut pager, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (times, options) in [(&mut file, None), (&mut pager, Some(r#"{"memory":"pager"}"#))] {
            let (vm, took) = timed(|| host.runtime.restore("base", &format!("r-{round}"), options).unwrap());
            times.push(took);
            host.runtime.destroy(&vm).unwrap();
        }
        let (vmm, took) = timed(|| bare_restore(bare, &format!("b-{round}"), snapshot));
        plain.push(took);
        vmm.end();
    }
    let plain = median(&mut plain);
    compare("restore to running, 256 MiB, by file", median(&mut file), plain);
    compare("the same by the pager, beside the bare loop by file", median(&mut pager), plain);
}

fn clones(host: &Host, bare: &Bare, snapshot: &Path, count: usize) {
    let (mut library, mut plain) = (Vec::new(), Vec::new());
    for round in 0..7 {
        let options = json!({ "prefix": format!("c{round}") }).to_string();
        let (vms, took) = timed(|| host.runtime.clone_vms("base", count, Some(&options)).unwrap());
        library.push(took / count as u32);
        vms.iter().for_each(|vm| host.runtime.destroy(vm).unwrap());
        let (vmms, took) = timed(|| bare_clones(bare, snapshot, round, count));
        plain.push(took / count as u32);
        vmms.into_iter().for_each(BareVmm::end);
    }
    compare(&format!("each of {count} clones"), median(&mut library), median(&mut plain));
}

/// By as many threads as the library takes.
fn bare_clones(bare: &Bare, snapshot: &Path, round: usize, count: usize) -> Vec<BareVmm> {
    let threads = count.min(std::thread::available_parallelism().map_or(1, usize::from) * 2).clamp(1, 16);
    let next = AtomicUsize::new(0);
    let make = || {
        let mut made = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return made;
            }
            made.push(bare_restore(bare, &format!("bc{round}-{index}"), snapshot));
        }
    };
    std::thread::scope(|scope| {
        let threads = (0..threads).map(|_| scope.spawn(make)).collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn take_from_a_pool(host: &Host) {
    let options = json!({ "snapshot": "base", "size": 8, "refill_per_second": 1000 }).to_string();
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    let spec = host.spec(Guest::Halt).to_string();
    let (mut taken, mut started, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        eventually("the pool is full", || pool.info().unwrap()["ready"] == 8);
        let (vm, took) = timed(|| host.runtime.take(&pool, &format!("t-{round}"), None).unwrap());
        taken.push(took);
        host.runtime.destroy(&vm).unwrap();
        eventually("the pool is full", || pool.info().unwrap()["ready"] == 8);
        let (vm, took) = timed(|| {
            let vm = host.runtime.create(&format!("s-{round}"), &spec).unwrap();
            vm.start().unwrap();
            vm
        });
        started.push(took);
        host.runtime.destroy(&vm).unwrap();
        let (vm, took) = timed(|| host.runtime.restore("base", &format!("w-{round}"), None).unwrap());
        restored.push(took);
        host.runtime.destroy(&vm).unwrap();
    }
    host.runtime.destroy_pool(&pool).unwrap();
    let taken = median(&mut taken);
    compare("a take from a warm pool, beside create and start", taken, median(&mut started));
    compare("the same, beside a restore", taken, median(&mut restored));
}

fn snapshots(host: &Host, bare: &Bare) {
    let mut spec = host.spec(Guest::Halt);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    let vm = host.runtime.create("saved", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let mut vmm = bare.boot("saved");
    let directory = host.scratch.path().to_path_buf();
    let (mut full, mut plain, mut diff): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    for round in 0..8 {
        let (_, took) = timed(|| host.runtime.take_snapshot(&vm, &format!("f{round}"), None).unwrap());
        full.push(took);
        let options = Some(r#"{"type":"diff"}"#);
        let (_, took) = timed(|| host.runtime.take_snapshot(&vm, &format!("d{round}"), options).unwrap());
        diff.push(took);
        host.runtime.delete_snapshot(&format!("d{round}")).unwrap();
        host.runtime.delete_snapshot(&format!("f{round}")).unwrap();
        let (state, memory) = (directory.join("state-file"), directory.join("memory-file"));
        let body = json!({ "snapshot_path": state, "mem_file_path": memory }).to_string();
        let ((), took) = timed(|| {
            vmm.request("PATCH", "/vm", r#"{"state":"Paused"}"#);
            vmm.request("PUT", "/snapshot/create", &body);
            vmm.request("PATCH", "/vm", r#"{"state":"Resumed"}"#);
        });
        plain.push(took);
        std::fs::remove_file(state).unwrap();
        std::fs::remove_file(memory).unwrap();
    }
    vmm.end();
    let plain = median(&mut plain);
    compare("a full snapshot of 128 MiB", median(&mut full), plain);
    compare("a diff of a few pages, beside a bare full one", median(&mut diff), plain);
}
