//! Pools and clones under those who interrupt, merge and rename meanwhile.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::guest::Guest;
use common::{Host, eventually};
use serde_json::Value;

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
    eventually("it is full", || pool.info()["ready"] == 1);
    host.runtime.merge_snapshot("diff", None).unwrap();
    host.runtime.delete_snapshot("base").unwrap();
    for id in ["one", "two", "three"] {
        host.runtime.take(&pool, id, None).unwrap();
    }
    eventually("it is full again", || pool.info()["ready"] == 1);
    host.runtime.close_pool(&pool).unwrap();
}
