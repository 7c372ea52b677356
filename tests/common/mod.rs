//! What all tests share: a VMM under test, a host directory that cleans up after itself, and tiny guests.
//!
//! The suite runs on the simulator, and on the real Firecracker when `MVM_TEST_FIRECRACKER` names one.
#![allow(
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod guest;
pub mod tenant;

use guest::Guest;
use mvm::sys::user::{NEEDED_BY_A_JAIL, missing_capabilities};
use mvm::{Runtime, Vm};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for anything that is to happen at all, on a machine that is busy with other things.
pub const AMPLE: Duration = Duration::from_secs(30);

/// The VMM that the suite runs on.
pub fn firecracker() -> PathBuf {
    let named = std::env::var_os("MVM_TEST_FIRECRACKER").filter(|path| !path.is_empty());
    named.map_or_else(simulator, PathBuf::from)
}

pub fn simulator() -> PathBuf {
    env!("CARGO_BIN_EXE_firecracker-sim").into()
}

/// The jailer of the VMM under test.
pub fn jailer() -> PathBuf {
    if is_simulated() { simulator() } else { firecracker().with_file_name("jailer") }
}

pub fn keeper() -> PathBuf {
    env!("CARGO_BIN_EXE_mvm-keeper").into()
}

pub fn is_simulated() -> bool {
    firecracker() == simulator()
}

/// Whether `MVM_TEST_JAIL` asks for the VMs of all tests to be jailed, and this process may do that.
pub fn is_jailed() -> bool {
    let is_asked_for = std::env::var_os("MVM_TEST_JAIL").is_some_and(|value| !value.is_empty());
    is_asked_for && missing_capabilities(&NEEDED_BY_A_JAIL).is_empty()
}

/// A directory of its own, gone at the end of the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mvm-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self::at(&std::env::temp_dir().join(name))
    }

    /// The directory at `path`.
    pub fn at(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        Self(path.to_path_buf())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A runtime with the VMM under test, whose VMs all end with the test.
pub struct Host {
    pub runtime: Arc<Runtime>,
    pub scratch: Scratch,
    options: Value,
}

impl Host {
    pub fn new() -> Self {
        Self::with(&firecracker())
    }

    /// On the simulator, whatever the suite runs on: for what no real VMM does.
    pub fn simulated() -> Self {
        Self::with(&simulator())
    }

    pub fn with(firecracker: &Path) -> Self {
        Self::with_options(json!({ "firecracker": firecracker }))
    }

    /// With the keeper as a program of its own.
    pub fn with_keeper() -> Self {
        Self::with_options(json!({ "firecracker": firecracker(), "keeper": keeper() }))
    }

    pub fn with_options(mut options: Value) -> Self {
        let scratch = Scratch::new();
        if is_jailed() {
            let is_under_test = options["firecracker"] == json!(firecracker());
            options["jail"]["jailer"] = json!(if is_under_test { jailer() } else { simulator() });
        }
        let runtime = Arc::new(Self::open(&scratch, &options));
        Self { runtime, scratch, options }
    }

    fn open(scratch: &Scratch, options: &Value) -> Runtime {
        Runtime::open(&scratch.path().join("state"), Some(&options.to_string())).unwrap()
    }

    /// The owner of the VMs goes without a word to them, and another one comes.
    pub fn change_owner(&mut self) {
        self.without_owner(|| {});
    }

    /// The same, and in between there is none.
    pub fn without_owner(&mut self, meanwhile: impl FnOnce()) {
        let elsewhere = Runtime::open(&self.scratch.path().join("elsewhere"), None).unwrap();
        let former = std::mem::replace(&mut self.runtime, Arc::new(elsewhere));
        drop(Arc::into_inner(former).expect("nobody else holds the runtime"));
        meanwhile();
        self.runtime = Arc::new(Self::open(&self.scratch, &self.options));
    }

    /// The same, and meanwhile something is done in the host's directory.
    pub fn without_owner_but(&mut self, meanwhile: impl FnOnce(&Path)) {
        let directory = self.scratch.path().to_path_buf();
        self.without_owner(|| meanwhile(&directory));
    }

    pub fn kernel(&self, guest: Guest) -> PathBuf {
        guest::write(self.scratch.path(), guest)
    }

    /// A spec for `guest`.
    pub fn spec(&self, guest: Guest) -> Value {
        let mut spec = json!({
            "boot-source": { "kernel_image_path": self.kernel(guest) },
            "machine-config": { "vcpu_count": 1, "mem_size_mib": 128 },
        });
        if is_jailed() {
            spec["mvm"] = json!({ "jail": {} });
        }
        spec
    }

    /// The same with the simulator misbehaving.
    pub fn faulty_spec(&self, guest: Guest, faults: &[&str]) -> Value {
        let mut spec = self.spec(guest);
        let arguments = faults.iter().flat_map(|fault| ["--sim-fault", fault]).collect::<Vec<_>>();
        spec["mvm"]["arguments"] = json!(arguments);
        spec
    }

    pub fn create(&self, id: &str, guest: Guest) -> Arc<Vm> {
        self.runtime.create(id, &self.spec(guest).to_string()).unwrap()
    }

    pub fn boot(&self, id: &str, guest: Guest) -> Arc<Vm> {
        let vm = self.create(id, guest);
        vm.start().unwrap();
        vm
    }

    pub fn vm_directory(&self, id: &str) -> PathBuf {
        self.scratch.path().join("state/vms").join(id)
    }

    /// Where the host has what the VMM of the VM `id` knows by names.
    pub fn names(&self, id: &str) -> PathBuf {
        self.vm_directory(id).join(if is_jailed() { "lent" } else { "vmm" })
    }

    /// Changes what the journal of the VM `id` says, its checksum included.
    pub fn edit_journal(&self, id: &str, change: impl FnOnce(&mut Value)) {
        edit_journal(&self.vm_directory(id).join("journal.json"), change);
    }

    /// Nothing of any VM is left: no directory, and no process that works in one.
    pub fn assert_nothing_left(&self) {
        let vms = self.scratch.path().join("state/vms");
        let left = std::fs::read_dir(&vms).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert_eq!(processes_below(&vms), Vec::<i32>::new());
        assert!(self.runtime.list().is_empty());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for vm in self.runtime.list() {
            if let Err(error) = self.runtime.destroy(&vm) {
                eprintln!("cannot clean up: {error}");
            }
        }
    }
}

/// An executable that is a shell script.
pub fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A spec with a drive that its guest writes to, on the file `name` that holds nothing but `byte`.
pub fn with_disk(host: &Host, guest: Guest, (name, byte): (&str, u8)) -> Value {
    let path = host.scratch.path().join(name);
    std::fs::write(&path, vec![byte; 1 << 20]).unwrap();
    let mut spec = host.spec(guest);
    spec["drives"] = json!([{ "drive_id": "data", "is_root_device": false, "path_on_host": path }]);
    spec
}

/// Changes what a journal says, its checksum included.
pub fn edit_journal(path: &Path, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(path).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let mut record: Value = serde_json::from_str(json).unwrap();
    change(&mut record);
    let body = format!("\n{record}\n");
    let hash = body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::fs::write(path, format!("mvm-journal 3 {hash:016x}{body}")).unwrap();
}

/// The processes that work below `directory`, or print to a file there.
pub fn processes_below(directory: &Path) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let leads_there = |pid: &i32, link: &str| {
        std::fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|target| target.starts_with(directory))
    };
    pids.filter(|pid| leads_there(pid, "cwd") || leads_there(pid, "fd/1")).collect()
}

/// The children of this process, the dead ones included.
pub fn children() -> Vec<i32> {
    let parent = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_mine = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest[1..].starts_with(&parent))
    };
    pids.filter(is_mine).collect()
}

/// Waits until `condition` holds; the test fails when it never does.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < AMPLE, "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The guest's console, once it holds `text`.
pub fn console_with(vm: &Vm, text: &str) -> String {
    let mut console = String::new();
    eventually(&format!("the console holds {text:?}"), || {
        console = console_of(vm);
        console.contains(text)
    });
    console
}

pub fn console_of(vm: &Vm) -> String {
    let mut buffer = [0; 4096];
    let length = vm.read_console(0, &mut buffer).unwrap().length;
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The last whole number that the reporting guest has printed.
pub fn count_of(vm: &Vm) -> Option<u64> {
    let console = console_of(vm);
    let mut lines = console.lines().rev().skip(usize::from(!console.ends_with('\n')));
    lines.find_map(|line| u64::from_str_radix(line, 16).ok())
}

/// The same, once it is above `least`.
pub fn count_above(vm: &Vm, least: u64) -> u64 {
    let mut count = 0;
    eventually(&format!("it counts above {least}"), || {
        count = count_of(vm).unwrap_or_default();
        count > least
    });
    count
}

/// An error and its causes in one line, as the C ABI tells it.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
