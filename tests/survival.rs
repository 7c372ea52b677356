//! VMs and their owners: what lives on is found again, what is left is removed, and nothing else is touched.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_of, console_with, eventually, told};
use mvm::runtime::{Event, What};
use mvm::{ExitStatus, Outcome, State};
use serde_json::{Value, json};
use std::time::Duration;

fn events_of(host: &Host) -> Vec<(String, What)> {
    let next = || host.runtime.next_event(Duration::ZERO).unwrap();
    std::iter::from_fn(next).map(|Event { vm, what, .. }| (vm, what)).collect()
}

fn kill_vmm(vm: &mvm::Vm) {
    let pid = vm.info().unwrap()["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
}

#[test]
fn a_vm_survives_its_owner_and_is_a_full_handle_again() {
    let mut host = Host::new();
    let pid = {
        let vm = host.boot("survivor", Guest::Obey);
        console_with(&vm, "hello\n");
        vm.info().unwrap()["pid"].clone()
    };
    host.change_owner();
    assert_eq!(host.runtime.report()["adopted"], json!(["survivor"]));
    let vm = host.runtime.vm("survivor").unwrap();
    let info = vm.info().unwrap();
    assert_eq!((vm.state(), &info["pid"], &info["state_in_doubt"]), (State::Running, &pid, &json!(false)));
    assert_eq!(console_of(&vm), "hello\n");
    vm.pause().unwrap();
    vm.resume().unwrap();
    let report = vm.shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.exit), (Outcome::Graceful, ExitStatus::Code(0)));
    vm.start().unwrap();
    console_with(&vm, "hello\nhello\n");
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_paused_vm_is_found_paused() {
    let mut host = Host::new();
    host.boot("held", Guest::Halt).pause().unwrap();
    host.change_owner();
    assert_eq!(host.runtime.vm("held").unwrap().state(), State::Paused);
}

#[test]
fn a_vm_that_is_to_end_with_its_owner_has_ended() {
    let mut host = Host::with_keeper();
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["on_owner_exit"] = json!("kill");
    host.runtime.create("brief", &spec.to_string()).unwrap().start().unwrap();
    host.change_owner();
    assert_eq!(common::processes_below(&host.vm_directory("brief")), Vec::<i32>::new());
    let ended = &host.runtime.report()["ended"][0];
    assert!(ended["id"] == "brief" && ended["why"].as_str().unwrap().contains("with its owner"), "{ended}");
    assert_eq!(events_of(&host), [("brief".into(), What::OrphanFound)]);
}

#[test]
fn what_ended_without_an_owner_is_reaped_and_what_runs_is_not() {
    let mut host = Host::new();
    drop(host.boot("alive", Guest::Halt));
    kill_vmm(&host.boot("dead", Guest::Halt));
    host.boot("stopped", Guest::Halt).kill().unwrap();
    host.change_owner();
    drop(host.boot("mine", Guest::Halt).kill());
    let would = host.runtime.reap(Some(r#"{"dry_run":true}"#)).unwrap();
    let ids = |report: &Value| {
        let removed = report["removed"].as_array().unwrap().iter();
        removed.map(|vm| vm["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&would), ["dead", "stopped"]);
    assert!(would["removed"][0]["owns"].to_string().contains("dead/console.log"), "{would}");
    assert!(host.vm_directory("dead").exists());
    assert_eq!(ids(&host.runtime.reap(None).unwrap()), ["dead", "stopped"]);
    assert!(!host.vm_directory("dead").exists() && !host.vm_directory("stopped").exists());
    assert_eq!(ids(&host.runtime.reap(None).unwrap()), Vec::<String>::new());
    let left = host.runtime.list().iter().map(|vm| (vm.id().to_string(), vm.state())).collect::<Vec<_>>();
    assert_eq!(left, [("alive".into(), State::Running), ("mine".into(), State::Stopped)]);
}

#[test]
fn an_orphan_that_is_started_again_is_nobodys_prey() {
    let mut host = Host::new();
    host.boot("again", Guest::Halt).kill().unwrap();
    host.change_owner();
    let vm = host.runtime.vm("again").unwrap();
    assert_eq!(vm.exit_status(), Some(ExitStatus::Signal(9)));
    vm.start().unwrap();
    vm.kill().unwrap();
    assert_eq!(host.runtime.reap(None).unwrap()["removed"], json!([]));
}

#[test]
fn a_journal_that_cannot_be_read_is_told_and_its_vm_left_alone() {
    let mut host = Host::new();
    drop(host.boot("damaged", Guest::Halt));
    let pids = common::processes_below(&host.vm_directory("damaged"));
    let journal = host.vm_directory("damaged").join("journal.json");
    let whole = std::fs::read(&journal).unwrap();
    let newer = [b"mvm-journal 2 ".as_slice(), &whole[14..]].concat();
    let flipped = String::from_utf8(whole.clone()).unwrap().replace("\"pid\":", "\"pid\":1");
    for (text, problem) in [
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        (Vec::new(), "empty"),
        (b"somebody else's".to_vec(), "not a journal"),
        (newer, "version 2"),
        (flipped.into_bytes(), "checksum"),
    ] {
        std::fs::write(&journal, &text).unwrap();
        host.change_owner();
        let left = host.runtime.report()["left_alone"].to_string();
        assert!(left.contains(problem) && left.contains("vms/damaged"), "{left}");
        let reaped = host.runtime.reap(None).unwrap();
        assert!(reaped["removed"] == json!([]) && reaped["left_alone"].to_string().contains(problem));
        let refused = told(&host.runtime.create("damaged", &host.spec(Guest::Halt).to_string()).unwrap_err());
        assert!(refused.contains("could not be adopted"), "{refused}");
        assert_eq!(common::processes_below(&host.vm_directory("damaged")), pids);
    }
    std::fs::write(&journal, whole).unwrap();
    // What has been mended is taken over by the next look.
    host.runtime.reap(None).unwrap();
    assert_eq!(host.runtime.vm("damaged").unwrap().state(), State::Running);
}

#[test]
fn what_is_not_the_librarys_is_left_alone() {
    let mut host = Host::new();
    let vms = host.scratch.path().join("state/vms");
    let below = |name: &str| vms.join(name);
    std::fs::create_dir(below("lost+found")).unwrap();
    std::fs::write(below("notes.txt"), "mine").unwrap();
    std::fs::create_dir(below("no-journal")).unwrap();
    // Half-done work of a former owner.
    std::fs::create_dir(below(".a.new")).unwrap();
    std::fs::create_dir(below(".b.gone")).unwrap();
    std::fs::write(below(".b.gone/console.log"), "hello").unwrap();
    host.boot("copied", Guest::Halt).kill().unwrap();
    assert!(
        std::process::Command::new("cp")
            .arg("-r")
            .args([below("copied"), below("copy")])
            .status()
            .unwrap()
            .success()
    );
    host.change_owner();
    let report = host.runtime.report();
    assert_eq!(report["undone"], json!([below(".a.new"), below(".b.gone")]));
    let left =
        report["left_alone"].as_array().unwrap().iter().map(|left| left["path"].clone()).collect::<Vec<_>>();
    assert_eq!(
        left,
        [below("copy"), below("lost+found"), below("no-journal"), below("notes.txt")].map(|path| json!(path))
    );
    host.runtime.reap(None).unwrap();
    for name in ["lost+found", "notes.txt", "no-journal", "copy/journal.json"] {
        assert!(below(name).exists(), "{name}");
        drop(std::fs::remove_dir_all(below(name)).or_else(|_| std::fs::remove_file(below(name))));
    }
}

#[test]
fn what_happens_is_told_in_order() {
    let host = Host::new();
    let vm = host.boot("told", Guest::Halt);
    vm.pause().unwrap();
    vm.resume().unwrap();
    vm.kill().unwrap();
    vm.start().unwrap();
    kill_vmm(&vm);
    let exited = What::Exited(ExitStatus::Signal(9));
    let mut seen = Vec::new();
    eventually("six events and the second exit are told", || {
        seen.extend(host.runtime.next_event(AMPLE).unwrap().map(|event| event.what));
        seen.len() == 7
    });
    host.runtime.destroy(&vm).unwrap();
    seen.extend(events_of(&host).into_iter().map(|(_, what)| what));
    let expected = [
        What::Created,
        What::Started,
        What::Paused,
        What::Resumed,
        exited.clone(),
        What::Started,
        exited,
        What::Destroyed,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn the_end_of_a_vm_that_nobody_asks_about_is_told_and_leaves_no_zombie() {
    let host = Host::new();
    let vms = (0..8).map(|n| host.boot(&format!("quiet-{n}"), Guest::Off)).collect::<Vec<_>>();
    let mut exited = 0;
    while exited < vms.len() {
        let event = host.runtime.next_event(AMPLE).unwrap().expect("every end is told");
        exited += usize::from(event.what == What::Exited(ExitStatus::Code(0)));
    }
    assert_eq!(host.runtime.next_event(Duration::ZERO).unwrap().map(|event| event.what), None);
}

#[test]
fn a_closed_runtime_ends_the_wait_for_events() {
    let host = Host::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| host.runtime.next_event(AMPLE));
        host.runtime.close();
        assert!(waiting.join().unwrap().is_err());
    });
}
