//! Pools and clones under those who interrupt, merge and rename meanwhile.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, eventually, told};
use mvm::{ReapOptions, State};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn base(host: &Host, spec: &Value) {
    let vm = host.runtime.create("source", &spec.to_string()).unwrap();
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    host.runtime.take_snapshot(&vm, "diff", Some(r#"{"type":"diff"}"#)).unwrap();
    host.runtime.destroy(&vm).unwrap();
}

fn tracking(host: &Host) -> Value {
    let mut spec = host.spec(Guest::Count);
    spec["machine-config"]["track_dirty_pages"] = true.into();
    spec
}

#[test]
fn a_pool_goes_on_when_its_snapshot_was_merged() {
    let host = Host::new();
    base(&host, &tracking(&host));
    let pool = host.runtime.open_pool("warm", r#"{"snapshot":"diff","size":1}"#).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 1);
    host.runtime.merge_snapshot("diff", None).unwrap();
    host.runtime.delete_snapshot("base").unwrap();
    for id in ["one", "two", "three"] {
        host.runtime.take(&pool, id, None).unwrap();
    }
    eventually("it is full again", || pool.info().unwrap()["ready"] == 1);
    host.runtime.destroy_pool(&pool).unwrap();
}

#[test]
fn a_pool_that_is_released_leaves_its_members_to_the_next_of_its_name() {
    let host = Host::new();
    let options = json!({ "spec": host.spec(Guest::Halt), "size": 2 }).to_string();
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    eventually("it is full", || pool.counts().unwrap().ready == 2);
    let members = ids(&host);
    host.runtime.release_pool(&pool);
    assert_eq!(ids(&host), members);
    assert!(told(&host.runtime.take(&pool, "late", None).unwrap_err()).contains("pool warm"));
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    assert_eq!((pool.counts().unwrap().ready, ids(&host)), (2, members));
    host.runtime.destroy_pool(&pool).unwrap();
    host.runtime.destroy_pool(&pool).unwrap();
    assert!(pool.counts().is_err());
    host.assert_nothing_left();
}

#[test]
fn a_pool_that_is_released_is_reaped_when_nobody_wants_it() {
    let host = Host::new();
    let options = json!({ "spec": host.spec(Guest::Halt), "size": 1 }).to_string();
    let pool = host.runtime.open_pool("warm", &options).unwrap();
    eventually("it is full", || pool.counts().unwrap().ready == 1);
    host.runtime.release_pool(&pool);
    host.runtime.reap(ReapOptions::default()).unwrap();
    assert_eq!(ids(&host), Vec::<String>::new());
}

fn ids(host: &Host) -> Vec<String> {
    host.runtime.list().iter().map(|vm| vm.id().to_string()).collect()
}

#[test]
fn what_is_undone_is_undone_whoever_interrupts() {
    let host = Host::new();
    base(&host, &tracking(&host));
    host.boot("web-8", Guest::Halt);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // As a binding does whose context has ended: at some time, and then until the call returns.
                if host.runtime.list().len() > 1 {
                    (1..8).for_each(|n| host.runtime.interrupt(&format!("web-{n}")).unwrap());
                }
            }
        });
        for _ in 0..20 {
            host.runtime.clone_vms("base", 8, Some(r#"{"prefix":"web"}"#)).unwrap_err();
            let left = host.runtime.list().iter().map(|vm| vm.id().to_string()).collect::<Vec<_>>();
            if left != ["web-8"] {
                over.store(true, Ordering::Relaxed);
                assert_eq!(left, ["web-8"], "those that were made are gone");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_take_is_interrupted_by_the_id_that_was_asked_for() {
    let host = Host::simulated();
    let mut spec = host.spec(Guest::Count);
    // The third request is the one to start.
    spec["mvm"] = json!({ "arguments": ["--sim-fault", "3:slow=8000"] });
    let options = json!({ "spec": spec, "size": 1, "when_empty": "fail" }).to_string();
    let pool = host.runtime.open_pool("cold", &options).unwrap();
    eventually("it is full", || pool.info().unwrap()["ready"] == 1);
    let began = Instant::now();
    let text = std::thread::scope(|scope| {
        let taking = scope.spawn(|| host.runtime.take(&pool, "web", None));
        while !taking.is_finished() && began.elapsed() < AMPLE {
            host.runtime.interrupt("web").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        told(&taking.join().unwrap().unwrap_err())
    });
    assert!(text.contains("interrupt") && began.elapsed() < Duration::from_secs(5), "{text}");
    assert!(host.runtime.list().iter().all(|vm| vm.state() == State::Created && vm.id().as_str() != "web"));
    host.runtime.destroy_pool(&pool).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_pool_takes_over_no_member_that_was_made_otherwise() {
    let mut host = Host::with_keeper();
    base(&host, &tracking(&host));
    let ids = |host: &Host| {
        host.runtime
            .list()
            .iter()
            .map(|vm| (vm.id(), vm.info().unwrap()["generation_id"].to_string()))
            .collect::<Vec<_>>()
    };
    let open = |host: &Host, options: &Value| {
        let pool = host.runtime.open_pool("warm", &options.to_string()).unwrap();
        eventually("it is full", || pool.info().unwrap()["ready"] == 1);
        ids(host)
    };
    let options = json!({ "snapshot": "base", "size": 1, "restore": { "mmds": { "role": "web" } } });
    let first = open(&host, &options);
    host.change_owner();
    // As before, but for how it is filled.
    let mut same = options.clone();
    same["refill_per_second"] = 5.into();
    assert_eq!(open(&host, &same), first);
    host.change_owner();
    let mut other = options.clone();
    other["restore"]["mmds"]["role"] = "database".into();
    assert_ne!(open(&host, &other), first);
}
