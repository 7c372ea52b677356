//! What the owner of a VM keeps with it, and finds again.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Host;
use common::guest::Guest;
use mvm::Vm;
use mvm::vm::OwnerData;
use serde_json::{Value, json};
use std::sync::Arc;

/// Text that JSON, journals and C would each cut or change if they could.
const ODD: &str = "{\"tenant\": \"a\\b\"}\n\u{1}\u{7f}\u{e4}\u{1f600} end";

fn with_data(host: &Host, id: &str, data: &str) -> Arc<Vm> {
    let mut spec = host.spec(Guest::Obey);
    spec["mvm"]["owner_data"] = data.into();
    host.runtime.create(id, &spec.to_string()).unwrap()
}

fn set(vm: &Vm, data: &str) {
    vm.set_owner_data(OwnerData::parse(data).unwrap()).unwrap();
}

fn listed(host: &Host) -> Value {
    serde_json::from_str(&host.runtime.list_json()).unwrap()
}

#[test]
fn owner_data_stays_over_a_rename_a_start_and_the_owners_death() {
    let mut host = Host::new();
    let vm = with_data(&host, "first", "from the spec");
    assert_eq!(vm.owner_data().unwrap(), "from the spec");
    set(&vm, ODD);
    vm.start().unwrap();
    host.runtime.rename(&vm, "second").unwrap();
    vm.kill().unwrap();
    vm.start().unwrap();
    drop(vm);
    host.change_owner();
    let vm = host.runtime.vm("second").unwrap();
    assert_eq!((vm.owner_data().unwrap(), &vm.info().unwrap()["owner_data"]), (ODD.into(), &json!(ODD)));
    assert_eq!(listed(&host), json!([{ "id": "second", "state": "running", "owner_data": ODD }]));
    set(&vm, "");
    assert_eq!(listed(&host), json!([{ "id": "second", "state": "running" }]));
    host.runtime.destroy(&vm).unwrap();
    assert!(vm.owner_data().is_err() && vm.set_owner_data(OwnerData::default()).is_err());
}

#[test]
fn the_longest_owner_data_is_kept_and_a_longer_one_is_refused() {
    let host = Host::new();
    let longest = "\u{1}".repeat(4096);
    let vm = with_data(&host, "long", &longest);
    assert_eq!(vm.owner_data().unwrap(), longest);
    let mut spec = host.spec(Guest::Obey);
    spec["mvm"]["owner_data"] = "a".repeat(4097).into();
    assert!(host.runtime.create("longer", &spec.to_string()).is_err());
}

#[test]
fn owner_data_is_of_one_vm_and_none_that_is_made_of_it() {
    let host = Host::new();
    let vm = with_data(&host, "source", "of the source");
    vm.start().unwrap();
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    let restored = host.runtime.restore("base", "restored", None).unwrap();
    assert_eq!(restored.owner_data().unwrap(), "");
    let options = r#"{"owner_data":"{id}"}"#;
    let given = host.runtime.restore("base", "given", Some(options)).unwrap();
    assert_eq!(given.owner_data().unwrap(), "{id}", "it is no template");
    let each = json!({ "each": [{ "owner_data": "one" }, { "owner_data": "two" }] }).to_string();
    let clones = host.runtime.clone_vms("base", 2, Some(&each)).unwrap();
    let data = clones.iter().map(|clone| clone.owner_data().unwrap()).collect::<Vec<_>>();
    assert_eq!(data, ["one", "two"]);
    let pool = host.runtime.open_pool("warm", r#"{"snapshot":"base","size":1}"#).unwrap();
    let taken = host.runtime.take(&pool, "taken", Some(r#"{"owner_data":"the taker's"}"#)).unwrap();
    assert_eq!(taken.owner_data().unwrap(), "the taker's");
    host.runtime.destroy_pool(&pool).unwrap();
}
