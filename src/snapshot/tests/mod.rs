//! A store as its users see it; what a VMM would write is written by hand.

mod altered;
mod chains;
mod full_disk;

use super::*;
use crate::host::cpu::HostCpu;
use crate::journal::SpecRecord;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::mapping::PageSize;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const PAGE: usize = 4096;
const FREELY: Limits<'_> = Limits { deadline: Deadline::NEVER, interrupt: None };

/// A store that goes with the test.
struct Scratch {
    state: PathBuf,
    store: Store,
}

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(std::env::temp_dir().join(format!("mvm-store-{}-{number}", std::process::id())))
    }

    fn at(state: PathBuf) -> Self {
        fs::create_dir_all(&state).unwrap();
        Self { store: Store::new(state.join("snapshots")), state }
    }

    /// A snapshot whose memory has a page of data wherever `pages` has one.
    fn take(&self, name: &str, parent: Option<&str>, pages: &[Option<u8>], checksums: Checksums) -> Snapshot {
        self.try_take(name, parent, pages, checksums).unwrap()
    }

    fn try_take(
        &self,
        name: &str,
        parent: Option<&str>,
        pages: &[Option<u8>],
        checksums: Checksums,
    ) -> Result<Snapshot, Error> {
        let unfinished = self.store.begin(&id(name))?;
        fs::write(unfinished.state_file(), format!("state of {name}")).unwrap();
        write_pages(&unfinished.memory_file(), pages);
        fs::write(unfinished.disk_file("disk", "rootfs"), b"disk").unwrap();
        let manifest = manifest(name, parent, &unfinished);
        unfinished.finish(manifest, checksums, FREELY)
    }

    /// What stands in the store, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.directory()).unwrap();
        let mut names =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.state);
    }
}

fn id(name: &str) -> SnapshotId {
    SnapshotId::parse(name).unwrap()
}

fn write_pages(path: &Path, pages: &[Option<u8>]) {
    let file = File::create_new(path).unwrap();
    file.set_len((pages.len() * PAGE) as u64).unwrap();
    for (at, byte) in pages.iter().enumerate().filter_map(|(at, page)| Some((at, (*page)?))) {
        file.write_all_at(&[byte; PAGE], (at * PAGE) as u64).unwrap();
    }
}

fn manifest(name: &str, parent: Option<&str>, unfinished: &Unfinished<'_>) -> Manifest {
    let cpu = || "any".to_owned();
    Manifest {
        id: name.into(),
        created_unix_ms: 1_700_000_000_000,
        token: None,
        kind: if parent.is_some() { Kind::Diff } else { Kind::Full },
        parent: parent.map(str::to_owned),
        vm: "web-1".into(),
        spec: SpecRecord { spec: "{}".into(), base: "/".into(), own_files: Vec::new() },
        firecracker: "1.16.1".into(),
        snapshot_version: Some("10.0.0".into()),
        host: HostCpu { architecture: cpu(), vendor: cpu(), model: cpu() },
        configuration: json!({ "machine-config": { "vcpu_count": 2, "mem_size_mib": 128 } }),
        drives: vec![Drive {
            drive_id: "rootfs".into(),
            path_in_vmm: crate::host::VmmPath::new("/rootfs"),
            path_on_host: "/srv/rootfs".into(),
            access: Access::Writable,
            copy: Some(StoredFile::at(&unfinished.disk_file("disk", "rootfs"))),
        }],
        state: StoredFile::at(&unfinished.state_file()),
        memory: StoredFile::at(&unfinished.memory_file()),
    }
}

#[test]
fn a_snapshot_is_not_there_before_it_is_whole() {
    let scratch = Scratch::new();
    assert!(!scratch.store.directory().exists());
    let unfinished = scratch.store.begin(&id("one")).unwrap();
    assert_eq!((scratch.store.list().0, scratch.names()), (vec![], vec![".one.new".to_owned()]));
    drop(unfinished);
    assert!(scratch.names().is_empty());

    let taken = scratch.take("one", None, &[Some(1), None], Checksums::Omitted);
    assert_eq!(scratch.store.find(&id("one")).unwrap(), taken);
    assert_eq!((scratch.store.list().0, scratch.names()), (vec![taken.clone()], vec!["one".to_owned()]));
    assert_eq!((taken.manifest.memory.bytes, taken.manifest.memory.allocated_bytes), (8192, 4096));
    assert!(taken.manifest.memory.sha256.is_none() && taken.manifest.state.sha256.is_some());
}

#[test]
fn what_was_not_written_is_no_snapshot() {
    let scratch = Scratch::new();
    let unfinished = scratch.store.begin(&id("one")).unwrap();
    let manifest = manifest("one", None, &unfinished);
    fs::write(unfinished.state_file(), "state").unwrap();
    let error = unfinished.finish(manifest, Checksums::Omitted, FREELY).unwrap_err();
    assert!(matches!(error, Error::Missing { path } if path.ends_with("memory")));
    assert!(scratch.names().is_empty());
}

#[test]
fn what_is_being_made_or_deleted_is_not_left_behind() {
    let scratch = Scratch::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| {
            let mut cleared = Vec::new();
            while !over.load(Ordering::Relaxed) {
                cleared.extend(scratch.store.clear_leftovers());
            }
            cleared
        });
        for _ in 0..300 {
            // Whoever clears may be looking at it.
            while scratch.try_take("one", None, &[Some(1)], Checksums::Omitted).is_err() {}
            while scratch.store.delete(&id("one"), &[]).is_err() {}
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(clearing.join().unwrap(), Vec::<PathBuf>::new());
    });
}

#[test]
fn an_id_is_given_once() {
    let scratch = Scratch::new();
    let unfinished = scratch.store.begin(&id("one")).unwrap();
    assert!(matches!(scratch.store.begin(&id("one")), Err(Error::Busy { .. })));
    assert!(matches!(scratch.store.delete(&id("one"), &[]), Err(Error::Busy { .. })));
    drop(unfinished);
    scratch.take("one", None, &[None], Checksums::Omitted);
    assert!(matches!(scratch.store.begin(&id("one")), Err(Error::Exists { .. })));
}

#[test]
fn of_many_who_begin_at_once_one_does() {
    let scratch = Scratch::new();
    for round in 0..20 {
        let (name, start) = (format!("round-{round}"), Barrier::new(4));
        let begin = || {
            start.wait();
            scratch.try_take(&name, None, &[Some(1)], Checksums::Omitted)
        };
        let taken = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(begin));
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).count()
        });
        assert_eq!(taken, 1);
        scratch.store.find(&id(&name)).unwrap().check(&scratch.store, Check::Cheap, FREELY).unwrap();
    }
    assert_eq!((scratch.names().len(), scratch.store.list().0.len()), (20, 20));
}

#[test]
fn leftovers_go_and_nothing_else() {
    let scratch = Scratch::new();
    let whole = scratch.take("whole", None, &[None], Checksums::Omitted);
    let in_store = |name: &str| scratch.store.directory().join(name);
    for name in [".half.new", ".old.gone", ".foreign", "lost+found"] {
        fs::create_dir(in_store(name)).unwrap();
        fs::write(in_store(name).join("file"), "").unwrap();
    }
    let in_making = scratch.store.begin(&id("in-making")).unwrap();
    assert_eq!(scratch.store.clear_leftovers(), [in_store(".half.new"), in_store(".old.gone")]);
    assert!(in_making.directory().is_dir());
    drop(in_making);
    assert_eq!(scratch.names(), [".foreign", "lost+found", "whole"]);
    assert_eq!(scratch.store.list().0, [whole]);
}

#[test]
fn what_is_given_up_frees_its_name_at_once_and_is_removed_by_nobody_who_waits() {
    let scratch = Scratch::new();
    let given_up = scratch.store.begin(&id("same")).unwrap();
    // As a VMM that goes on writing has it.
    let file = File::create_new(given_up.memory_file()).unwrap();
    given_up.abandon();
    assert!(scratch.names().iter().all(|name| name.ends_with(".gone")), "{:?}", scratch.names());
    let next = scratch.store.begin(&id("same")).unwrap();
    assert!(!next.memory_file().exists());
    drop(next);
    file.set_len(1 << 20).unwrap();
    assert!(scratch.store.list().1.is_empty());
    assert!(scratch.store.clear_leftovers().len() <= 1);
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
}

#[test]
fn a_snapshot_that_is_needed_stays() {
    let scratch = Scratch::new();
    scratch.take("base", None, &[Some(1)], Checksums::Omitted);
    scratch.take("diff", Some("base"), &[Some(2)], Checksums::Omitted);
    let error = scratch.store.delete(&id("base"), &[]).unwrap_err().to_string();
    assert!(error.contains("it is the parent of diff"), "{error}");
    let error = scratch.store.delete(&id("diff"), &["web-1".into()]).unwrap_err().to_string();
    assert!(error.contains("in use by web-1"), "{error}");
    scratch.store.delete(&id("diff"), &[]).unwrap();
    scratch.store.delete(&id("base"), &[]).unwrap();
    assert!(scratch.names().is_empty());
    assert!(matches!(scratch.store.delete(&id("base"), &[]), Err(Error::NotFound { .. })));
    assert!(matches!(scratch.store.find(&id("base")), Err(Error::NotFound { .. })));
}

#[test]
fn a_configuration_tells_what_the_vm_has() {
    let scratch = Scratch::new();
    let mut manifest = scratch.take("one", None, &[None], Checksums::Omitted).manifest;
    assert_eq!(
        (manifest.vcpus(), manifest.memory_bytes(), manifest.huge_pages()),
        (Some(2), 4096, PageSize::Small)
    );
    assert!(manifest.vsock_path().is_none() && !manifest.has_mmds() && !manifest.has_balloon());
    manifest.configuration = json!({
        "machine-config": { "huge_pages": "2M", "cpu_template": "T2" },
        "network-interfaces": [{ "iface_id": "eth0" }, { "iface_id": "eth1" }],
        "vsock": { "guest_cid": 3, "uds_path": "/run/v.sock" },
        "mmds-config": { "network_interfaces": ["eth0"] },
        "balloon": null,
        "memory-hotplug": { "total_size_mib": 1024 },
    });
    assert_eq!((manifest.huge_pages(), manifest.cpu_template()), (PageSize::Huge, Some("T2")));
    assert_eq!(
        (manifest.interfaces(), manifest.vsock_path()),
        (vec!["eth0".into(), "eth1".into()], Some("/run/v.sock"))
    );
    assert!(manifest.vsock_path().is_some() && manifest.has_mmds() && manifest.has_memory_hotplug());
    assert!(!manifest.has_balloon() && manifest.vcpus().is_none());
}

/// JSON that is much like a configuration, and does not keep to it.
fn anything() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("machine-config"),
        Just("vcpu_count"),
        Just("network-interfaces"),
        Just("iface_id"),
        Just("vsock"),
        Just("uds_path")
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from)];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        let object = proptest::collection::vec((key.clone(), inner.clone()), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_configuration_may_be_anything(configuration in anything()) {
        let scratch = Scratch::new();
        let unfinished = scratch.store.begin(&id("one")).unwrap();
        let mut manifest = manifest("one", None, &unfinished);
        manifest.configuration = configuration;
        let text = serde_json::to_string(&manifest).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Manifest>(&text).unwrap(), &manifest);
        let _any = (manifest.vcpus(), manifest.huge_pages(), manifest.cpu_template(), manifest.interfaces());
        let _any = (manifest.vsock_path(), manifest.has_mmds(), manifest.has_balloon());
    }

    #[test]
    fn every_drive_has_a_file_of_its_own_in_the_directory(one in "\\PC{0,20}", other in "\\PC{0,20}") {
        let scratch = Scratch::new();
        let unfinished = scratch.store.begin(&id("one")).unwrap();
        let (file, another) = (unfinished.disk_file("disk", &one), unfinished.disk_file("disk", &other));
        prop_assert_eq!(file.parent(), Some(unfinished.directory()));
        prop_assert_eq!(file == another, one == other);
    }
}
