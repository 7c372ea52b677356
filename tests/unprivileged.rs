//! What a user without privileges can do: everything that takes none. The rest is refused with the name of what it takes.
//!
//! As root, each test runs once more as another user; otherwise this user is the one.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::{Host, Scratch, console_with, eventually, firecracker, is_simulated, keeper, told};
use mvm::check::{Purpose, Status};
use mvm::host::Device;
use mvm::{Outcome, Runtime};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Nobody has this number.
const USER: u32 = 54_321;
const IS_ANOTHER_USER: &str = "MVM_TEST_UNPRIVILEGED";

/// Runs `test`, which is called `name`, as a user that is not root.
fn as_another_user(name: &str, test: impl FnOnce()) {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root || std::env::var_os(IS_ANOTHER_USER).is_some() {
        return test();
    }
    let programs = [std::env::current_exe().unwrap(), firecracker(), keeper()];
    let as_user = |program| {
        let mut command = Command::new(program);
        command.uid(USER).gid(USER).current_dir("/");
        command
    };
    for program in &programs {
        if let Err(error) = as_user(program).arg("--help").output() {
            return eprintln!("skipped: user {USER} may not execute {}: {error}", program.display());
        }
    }
    let scratch = Scratch::new();
    chown(scratch.path(), Some(USER), Some(USER)).unwrap();
    let [this, ..] = &programs;
    let mut command = as_user(this);
    command.args(["--exact", "--nocapture", name]).env(IS_ANOTHER_USER, "yes").env("TMPDIR", scratch.path());
    let finished = command.env_remove("MVM_TEST_JAIL").output().unwrap();
    let said = String::from_utf8_lossy(&finished.stdout) + String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success() && said.contains("1 passed"), "{said}");
}

/// Whether this user can run VMs on the VMM under test.
fn has_kvm() -> bool {
    is_simulated() || Device::Kvm.check().is_ok()
}

#[test]
fn a_vm_lives_without_privileges() {
    as_another_user("a_vm_lives_without_privileges", || {
        let host = Host::with_keeper();
        let vm = host.create("source", Guest::Count);
        if !has_kvm() {
            let error = told(&vm.start().unwrap_err());
            let advice = Device::Kvm.check().unwrap_err().advice();
            assert!(error.ends_with(&format!("; what to do: {advice}")), "{error}");
            return;
        }
        vm.start().unwrap();
        vm.pause().unwrap();
        vm.resume().unwrap();
        host.runtime.take_snapshot(&vm, "full", None).unwrap();
        let restored = host.runtime.restore("full", "restored", None).unwrap();
        let pool = host.runtime.open_pool("warm", r#"{"snapshot":"full","size":1}"#).unwrap();
        eventually("the pool is full", || pool.counts().unwrap().ready == 1);
        host.runtime.take(&pool, "taken", None).unwrap();
        host.runtime.destroy_pool(&pool).unwrap();
        restored.flush_metrics().unwrap();
        assert!(restored.metrics().unwrap()["flushes"].as_u64().unwrap() > 0);
        let report = restored.shutdown(Duration::from_millis(1), None).unwrap();
        assert_ne!(report.outcome, Outcome::AlreadyExited);
        for vm in host.runtime.list() {
            host.runtime.destroy(&vm).unwrap();
        }
        host.assert_nothing_left();
    });
}

#[test]
fn a_pager_takes_the_right_to_userfaultfd_alone() {
    as_another_user("a_pager_takes_the_right_to_userfaultfd_alone", || {
        if !has_kvm() {
            return eprintln!("skipped: this user may not use /dev/kvm");
        }
        let host = Host::with_keeper();
        let vm = host.boot("source", Guest::Halt);
        console_with(&vm, "hello");
        host.runtime.take_snapshot(&vm, "base", None).unwrap();
        let restored = host.runtime.restore("base", "paged", Some(r#"{"memory":"pager"}"#));
        match Device::Userfault.check() {
            Ok(()) => drop(restored.unwrap()),
            Err(denied) => {
                let error = told(&restored.unwrap_err());
                assert!(error.contains(&denied.advice()) && error.contains("userfaultfd"), "{error}");
                assert_eq!(host.runtime.list().len(), 1, "nothing of it is left");
            }
        }
    });
}

#[test]
fn what_takes_a_privilege_names_it() {
    as_another_user("what_takes_a_privilege_names_it", || {
        let host = Host::new();
        let refused = |key: &str, value| {
            let mut spec = host.spec(Guest::Halt);
            spec["mvm"][key] = value;
            host.runtime.create(key, &spec.to_string()).map(drop).map_err(|error| told(&error))
        };
        let jail = refused("jail", json!({ "jailer": common::jailer() })).unwrap_err();
        assert!(jail.contains("CAP_SYS_ADMIN") && jail.contains("CAP_MKNOD"), "{jail}");
        if let Err(limits) = refused("limits", json!({ "pids": 64 })) {
            assert!(limits.contains("cgroup"), "{limits}");
        }
        if is_simulated() {
            return eprintln!("skipped: the simulator opens no TAP device");
        }
        let mut spec = host.spec(Guest::Halt);
        spec["network-interfaces"] = json!([{ "iface_id": "eth0", "host_dev_name": "mvm-nowhere0" }]);
        let error = told(&host.runtime.create("networked", &spec.to_string()).map(drop).unwrap_err());
        assert!(error.contains("what to do: ") && error.contains("tun"), "{error}");
    });
}

#[test]
fn the_report_names_what_this_user_lacks() {
    as_another_user("the_report_names_what_this_user_lacks", || {
        let scratch = Scratch::new();
        let options = json!({ "firecracker": firecracker() }).to_string();
        let report = Runtime::check(Some(&scratch.path().join("state")), Some(&options)).unwrap();
        let finding = |name: &str| report.findings().iter().find(|one| one.name() == name).unwrap();
        assert_eq!(report.can(Purpose::Jail), Status::No, "{report}");
        assert!(finding("capabilities").text().contains("CAP_SYS_ADMIN"), "{report}");
        assert_eq!(finding("kvm").status() == Status::Yes, Device::Kvm.check().is_ok(), "{report}");
        assert_eq!(finding("net_admin").status(), Status::No, "{report}");
        assert_eq!(finding("state_directory").status(), Status::Yes, "{report}");
    });
}
