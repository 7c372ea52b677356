//! VMs in control groups of the caller's choice, where this machine has some that may be made.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::{Host, eventually, firecracker, keeper, told};
use mvm::runtime::Runtime;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup that is removed when it is dropped.
struct Made(PathBuf);

impl Made {
    /// In the hierarchy that is mounted at one of `roots`; nothing where there is none, or none may be made.
    fn below(roots: &[&str], marker: &str, name: &str) -> Option<Self> {
        let root = roots.iter().map(Path::new).find(|root| root.join(marker).exists())?;
        let path = root.join(format!("mvm-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn unified(name: &str) -> Option<Self> {
        Self::below(&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "cgroup.controllers", name)
    }

    fn legacy(name: &str) -> Option<Vec<Self>> {
        let one = |root| Self::below(&[root], "tasks", name);
        ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"].into_iter().map(one).collect()
    }

    /// KVM puts a thread of the kernel beside a VMM, which executes nothing.
    fn processes(&self) -> Vec<i64> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        let executes = |pid: &i64| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        text.lines().map(|line| line.parse().unwrap()).filter(executes).collect()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        eventually("the cgroup is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

fn spec_in(host: &Host, cgroup: Value) -> String {
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["cgroup"] = cgroup;
    spec.to_string()
}

#[test]
fn a_vm_is_started_in_the_cgroup_that_its_spec_names() {
    let Some(cgroup) = Made::unified("spec") else {
        return eprintln!("skipped: no cgroup v2 to make one in");
    };
    let host = Host::new();
    let vm = host.runtime.create("grouped", &spec_in(&host, json!(cgroup.0))).unwrap();
    assert_eq!(cgroup.processes(), [vm.info().unwrap()["pid"].as_i64().unwrap()]);
    vm.start().unwrap();
    vm.kill().unwrap();
    assert_eq!(cgroup.processes(), Vec::<i64>::new());
    vm.start().unwrap();
    assert_eq!(cgroup.processes(), [vm.info().unwrap()["pid"].as_i64().unwrap()]);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_vm_is_started_in_one_cgroup_of_each_hierarchy_of_version_1() {
    let Some(cgroups) = Made::legacy("spec") else {
        return eprintln!("skipped: no cgroups v1 to make some in");
    };
    let host = Host::new();
    let directories = cgroups.iter().map(|cgroup| json!(cgroup.0)).collect::<Vec<_>>();
    let vm = host.runtime.create("grouped", &spec_in(&host, json!(directories))).unwrap();
    for cgroup in &cgroups {
        assert_eq!(cgroup.processes(), [vm.info().unwrap()["pid"].as_i64().unwrap()]);
    }
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn what_the_options_of_the_runtime_name_holds_the_keeper_and_every_other_vm() {
    let Some(cgroup) = Made::unified("options") else {
        return eprintln!("skipped: no cgroup v2 to make one in");
    };
    {
        let host = Host::with_options(json!({
            "firecracker": firecracker(), "keeper": keeper(), "cgroup": cgroup.0
        }));
        let vm = host.create("kept", Guest::Halt);
        let pid = vm.info().unwrap()["pid"].as_i64().unwrap();
        let all = cgroup.processes();
        assert!(all.contains(&pid) && all.len() == 2, "{all:?}");
        assert!(!all.contains(&i64::from(std::process::id())));
        host.runtime.destroy(&vm).unwrap();
    }
    eventually("the keeper has gone", || cgroup.processes().is_empty());
}

#[test]
fn a_cgroup_that_cannot_be_used_is_named_before_anything_is_made() {
    let host = Host::new();
    let file = host.scratch.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [Path::new("/sys/fs/cgroup/nowhere"), host.scratch.path(), &file] {
        let error = host.runtime.create("astray", &spec_in(&host, json!(path))).unwrap_err();
        let text = told(&error);
        assert!(text.contains(&path.display().to_string()) && text.contains("cgroup.procs"), "{text}");
        let options = json!({ "cgroup": path }).to_string();
        let error = Runtime::open(&host.scratch.path().join("other"), Some(&options)).unwrap_err();
        assert!(told(&error).contains(&path.display().to_string()), "{}", told(&error));
    }
    host.assert_nothing_left();
    let wrong = told(&host.runtime.create("astray", &spec_in(&host, json!([7]))).unwrap_err());
    assert!(wrong.contains("mvm.cgroup") && wrong.contains("a path, or a list of paths"), "{wrong}");
}

#[test]
fn a_cgroup_that_takes_no_process_is_named_and_nothing_is_left() {
    let Some(cgroup) = Made::unified("frozen") else {
        return eprintln!("skipped: no cgroup v2 to make one in");
    };
    // Removed while it is held would be the same; a threaded cgroup takes no process of another domain.
    if fs::write(cgroup.0.join("cgroup.type"), "threaded").is_err() {
        return eprintln!("skipped: no threaded cgroup can be made");
    }
    let inner = cgroup.0.join("inner");
    fs::create_dir(&inner).unwrap();
    let host = Host::new();
    let error = host.runtime.create("astray", &spec_in(&host, json!(inner))).unwrap_err();
    assert!(told(&error).contains(&inner.display().to_string()), "{}", told(&error));
    host.assert_nothing_left();
    fs::remove_dir(&inner).unwrap();
}
