//! The life of a VM, on the VMM under test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_with, eventually, is_simulated, told};
use mvm::firecracker::http::{Method, RequestPath};
use mvm::{Error, ExitStatus, Outcome, Rung, Runtime, State};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_vm_boots_is_held_goes_on_and_powers_off() {
    let host = Host::new();
    let vm = host.create("whole-life", Guest::Obey);
    assert_eq!(vm.state(), State::Created);
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
    console_with(&vm, "hello\n");
    vm.pause().unwrap();
    assert_eq!(vm.state(), State::Paused);
    vm.resume().unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.rung), (Outcome::Graceful, Some(Rung::Guest)));
    assert_eq!((vm.state(), vm.exit_status()), (State::Stopped, Some(ExitStatus::Code(0))));
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn what_is_already_so_is_left_alone() {
    let host = Host::new();
    let vm = host.boot("idempotent", Guest::Halt);
    vm.start().unwrap();
    vm.resume().unwrap();
    vm.pause().unwrap();
    vm.pause().unwrap();
    assert_eq!(vm.state(), State::Paused);
    let refused = told(&vm.start().unwrap_err());
    assert!(refused.contains("it is paused") && refused.contains("resume it"), "{refused}");
    vm.kill().unwrap();
    vm.kill().unwrap();
    assert_eq!(vm.state(), State::Stopped);
}

#[test]
fn what_does_not_fit_the_state_is_refused_with_the_state() {
    let host = Host::new();
    let vm = host.create("wrong-state", Guest::Halt);
    let refused = told(&vm.pause().unwrap_err());
    assert!(refused.contains("cannot pause VM wrong-state: it is created"), "{refused}");
    vm.kill().unwrap();
    let refused = told(&vm.resume().unwrap_err());
    assert!(refused.contains("it is stopped; start it first"), "{refused}");
    assert!(vm.exit_fd().is_err());
}

#[test]
fn a_stopped_vm_starts_again_and_its_console_goes_on() {
    let host = Host::new();
    let vm = host.boot("again", Guest::Halt);
    console_with(&vm, "hello\n");
    vm.kill().unwrap();
    assert_eq!(vm.exit_status(), Some(ExitStatus::Signal(9)));
    vm.start().unwrap();
    assert_eq!((vm.state(), vm.exit_status()), (State::Running, None));
    console_with(&vm, "hello\nhello\n");
}

#[test]
fn a_guest_that_powers_off_is_stopped_and_one_that_crashes_has_failed() {
    let host = Host::new();
    let off = host.boot("off", Guest::Off);
    assert_eq!(off.wait(AMPLE).unwrap(), ExitStatus::Code(0));
    assert_eq!(off.state(), State::Stopped);
    let crash = host.boot("crash", Guest::Crash);
    match crash.wait(AMPLE).unwrap() {
        ExitStatus::Code(1) => assert_eq!(crash.state(), State::Failed),
        // The real one races with itself and may call a triple fault a shutdown; its older versions always do.
        exit => {
            assert_eq!((exit, crash.state()), (ExitStatus::Code(0), State::Stopped));
            assert!(!is_simulated());
        }
    }
    crash.start().unwrap();
    crash.wait(AMPLE).unwrap();
}

#[test]
fn a_vmm_that_somebody_kills_is_seen_at_once() {
    let host = Host::new();
    let vm = host.boot("killed", Guest::Halt);
    let pid = vm.info().unwrap()["pid"].to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert_eq!(vm.wait(AMPLE).unwrap(), ExitStatus::Signal(9));
    assert_eq!(vm.state(), State::Failed);
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!(report.outcome, Outcome::AlreadyExited);
    assert!(!host.vm_directory("killed").join("vmm/api.sock").exists());
}

#[test]
fn a_kernel_that_is_none_is_refused_and_a_better_one_starts() {
    if common::is_jailed() {
        return eprintln!("skipped: a request of the caller's own names files of the jail");
    }
    let host = Host::new();
    let vm = host.create("no-elf", Guest::NoElf);
    let refused = told(&vm.start().unwrap_err());
    // Older versions word it otherwise after this.
    assert!(refused.contains("PUT /actions with 400: ") && refused.contains("Kernel Loader"), "{refused}");
    assert_eq!(vm.state(), State::Created);
    let better = json!({ "kernel_image_path": host.kernel(Guest::Halt) }).to_string();
    vm.request(Method::Put, &RequestPath::parse("/boot-source").unwrap(), Some(better.as_bytes())).unwrap();
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn four_threads_creating_one_id_get_one_vm() {
    let host = Host::new();
    let spec = host.spec(Guest::Halt).to_string();
    let results = std::thread::scope(|scope| {
        let create = || host.runtime.create("contested", &spec);
        let threads = [(); 4].map(|()| scope.spawn(create));
        threads.map(|thread| thread.join().unwrap())
    });
    let exist = results.iter().filter(|result| matches!(result, Err(Error::AlreadyExists { .. }))).count();
    assert_eq!((results.iter().filter(|result| result.is_ok()).count(), exist), (1, 3));
    assert_eq!(common::processes_below(&host.vm_directory("contested")).len(), 1);
}

#[test]
fn a_destroyed_vm_leaves_nothing_and_its_id_is_free() {
    let host = Host::new();
    let vm = host.boot("brief", Guest::Halt);
    host.runtime.destroy(&vm).unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
    let refused = told(&vm.start().unwrap_err());
    assert!(refused.contains("it was destroyed"), "{refused}");
    let successor = host.create("brief", Guest::Halt);
    host.runtime.destroy(&vm).unwrap();
    assert_eq!(successor.state(), State::Created);
    assert!(host.runtime.vm("brief").is_ok());
}

#[test]
fn a_section_that_only_the_vmm_knows_is_sent_on_and_judged_by_it() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    // No section of a config file; the VMM has such a path all the same.
    spec["actions"] = json!({ "action_type": "Beam" });
    let refused = told(&host.runtime.create("newer", &spec.to_string()).unwrap_err());
    assert!(refused.contains("PUT /actions with 400") && refused.contains("Beam"), "{refused}");
    host.assert_nothing_left();
    // One that no VMM knows is ignored, as it is in a config file.
    spec["actions"] = Value::Null;
    spec["holodeck"] = json!({ "level": 9 });
    let vm = host.runtime.create("newer", &spec.to_string()).unwrap();
    assert_eq!(vm.state(), State::Created);
}

#[test]
fn a_request_reaches_every_endpoint_and_its_effect_on_the_state_is_noticed() {
    let host = Host::new();
    let vm = host.boot("requests", Guest::Halt);
    let path = |path| RequestPath::parse(path).unwrap();
    let version = vm.request(Method::Get, &path("/version"), None).unwrap();
    assert!(String::from_utf8(version.body).unwrap().contains("firecracker_version"));
    vm.request(Method::Patch, &path("/vm"), Some(br#"{"state":"Paused"}"#)).unwrap();
    assert_eq!(vm.state(), State::Paused);
    let refused = told(&vm.request(Method::Put, &path("/nosuch"), Some(b"{}")).unwrap_err());
    assert!(refused.contains("PUT nosuch"), "{refused}");
}

#[test]
fn a_vm_with_vsock_starts_again_and_leaves_no_socket() {
    let host = Host::new();
    let socket = host.scratch.path().join("v.sock");
    let mut spec = host.spec(Guest::Halt);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": socket });
    let vm = host.runtime.create("vsock", &spec.to_string()).unwrap();
    assert!(socket.exists());
    vm.start().unwrap();
    vm.shutdown(Duration::ZERO, None).unwrap();
    assert!(!socket.exists());
    vm.start().unwrap();
    host.runtime.destroy(&vm).unwrap();
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_is_somebody_elses_is_refused_and_left_alone() {
    let host = Host::new();
    let socket = host.scratch.path().join("v.sock");
    let _others = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut spec = host.spec(Guest::Halt);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": socket });
    let refused = told(&host.runtime.create("vsock", &spec.to_string()).unwrap_err());
    // Its number, for C libraries word it differently. In a jail it is a link that cannot be made.
    assert!(refused.contains("os error 98") || refused.contains("os error 17"), "{refused}");
    assert!(socket.exists());
    host.assert_nothing_left();
}

#[test]
fn a_section_that_starts_the_guest_is_noticed() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["actions"] = json!({ "action_type": "InstanceStart" });
    let vm = host.runtime.create("actions", &spec.to_string()).unwrap();
    assert_eq!(vm.state(), State::Running);
    vm.start().unwrap();
}

#[test]
fn the_console_ends_where_it_ends() {
    let host = Host::new();
    let vm = host.boot("console", Guest::Halt);
    console_with(&vm, "hello\n");
    for beyond in [6, 1 << 40, u64::MAX] {
        assert_eq!(vm.read_console(beyond, &mut [0; 8]).unwrap().length, 0);
    }
}

#[test]
fn an_interrupt_ends_the_wait_and_not_the_vm() {
    let host = Host::new();
    let vm = host.boot("interrupted", Guest::Halt);
    vm.interrupt();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| vm.wait(Duration::MAX));
        eventually("the wait is interrupted", || {
            vm.interrupt();
            waiting.is_finished()
        });
        let told = told(&waiting.join().unwrap().unwrap_err());
        assert!(told.contains("interrupted"), "{told}");
    });
    assert_eq!(vm.state(), State::Running);
    vm.pause().unwrap();
}

#[test]
fn one_state_directory_has_one_owner() {
    let host = Host::new();
    let state = host.scratch.path().join("state");
    match Runtime::open(&state, None) {
        Err(Error::Busy { owner, .. }) => {
            assert_eq!(owner.map(|owner| owner.pid), Some(std::process::id().cast_signed()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_state_directory_deeper_than_a_socket_address_works() {
    let scratch = common::Scratch::new();
    let deep = scratch.path().join("d".repeat(200));
    let options = json!({ "firecracker": common::firecracker() }).to_string();
    let runtime = Runtime::open(&deep, Some(&options)).unwrap();
    let kernel = common::guest::write(scratch.path(), Guest::Obey);
    let spec = json!({ "boot-source": { "kernel_image_path": kernel } }).to_string();
    let vm = runtime.create("deep", &spec).unwrap();
    vm.start().unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!(report.outcome, Outcome::Graceful);
    runtime.destroy(&vm).unwrap();
}

#[test]
fn a_list_names_every_vm_and_its_state_in_order() {
    let host = Host::new();
    host.create("b", Guest::Halt);
    host.boot("a", Guest::Halt);
    let wanted = json!([{ "id": "a", "state": "running" }, { "id": "b", "state": "created" }]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&host.runtime.list_json()).unwrap(), wanted);
}

#[test]
fn a_vm_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    host.create("private", Guest::Halt);
    for path in [host.scratch.path().join("state/vms"), host.vm_directory("private")] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

fn with_vsock(host: &Host, id: &str) -> (std::sync::Arc<mvm::Vm>, std::path::PathBuf) {
    let socket = host.scratch.path().join("v.sock");
    let mut spec = host.spec(Guest::Halt);
    spec["vsock"] = json!({ "guest_cid": 3, "uds_path": socket });
    let vm = host.runtime.create(id, &spec.to_string()).unwrap();
    vm.start().unwrap();
    (vm, socket)
}

#[test]
fn a_vm_whose_vmm_ended_by_itself_starts_again_with_its_sockets() {
    let host = Host::new();
    let (vm, _) = with_vsock(&host, "vsock-again");
    let pid = vm.info().unwrap()["pid"].to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    vm.wait(AMPLE).unwrap();
    vm.start().unwrap();
    assert_eq!(vm.state(), State::Running);
}

#[test]
fn a_socket_that_somebody_else_has_bound_anew_stays() {
    let host = Host::new();
    let (vm, socket) = with_vsock(&host, "vsock-taken");
    std::fs::remove_file(&socket).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    vm.kill().unwrap();
    assert!(socket.exists());
}

#[test]
fn a_drive_that_is_not_there_is_named_by_its_path_on_the_host() {
    let host = Host::new();
    let spec = json!({
        "boot-source": { "kernel_image_path": host.kernel(Guest::Halt) },
        "drives": [{ "drive_id": "rootfs", "path_on_host": "/nowhere/rootfs.ext4", "is_root_device": true }],
    });
    let error = told(&host.runtime.create("no-drive", &spec.to_string()).unwrap_err());
    assert!(error.contains("/nowhere/rootfs.ext4") && error.contains("No such file"), "{error}");
    host.assert_nothing_left();
}

#[test]
fn a_host_with_too_few_huge_pages_is_told_before_anything_is_made() {
    let host = Host::new();
    let mut spec = host.spec(Guest::Halt);
    spec["machine-config"]["huge_pages"] = json!("2M");
    spec["machine-config"]["mem_size_mib"] = json!(1_u64 << 30);
    let refused = told(&host.runtime.create("huge", &spec.to_string()).unwrap_err());
    assert!(
        refused.contains("536870912 huge pages of 2 MiB") && refused.contains("vm.nr_hugepages"),
        "{refused}"
    );
    host.assert_nothing_left();
}
