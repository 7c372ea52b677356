//! VMs and their owners: what lives on is found again, what is left is removed, and nothing else is touched.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, console_of, console_with, eventually, told};
use mvm::process::Cancel;
use mvm::runtime::{Event, EventKind};
use mvm::{ExitStatus, Outcome, ReapOptions, State, Vm};
use serde_json::{Value, json};
use std::time::Duration;

fn events_of(host: &Host) -> Vec<(String, EventKind)> {
    let next = || host.runtime.next_event(Duration::ZERO).unwrap();
    std::iter::from_fn(next).map(|Event { vm, kind, .. }| (vm, kind)).collect()
}

fn kill_vmm(vm: &mvm::Vm) {
    let pid = vm.pid().unwrap().to_string();
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

/// The owner that a VM's journal names is another process, which is gone.
fn pretend_another_owner(host: &Host, id: &str) {
    host.edit_journal(id, |journal| journal["owner"]["started"] = json!(1));
}

fn killed_with_its_owner(host: &Host, id: &str) -> std::sync::Arc<mvm::Vm> {
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["on_owner_exit"] = json!("kill");
    let vm = host.runtime.create(id, &spec.to_string()).unwrap();
    vm.start().unwrap();
    vm
}

#[test]
fn a_vm_that_is_to_end_with_its_owner_has_ended() {
    let mut host = Host::with_keeper();
    drop(killed_with_its_owner(&host, "brief"));
    pretend_another_owner(&host, "brief");
    host.change_owner();
    assert_eq!(common::processes_below(&host.vm_directory("brief")), Vec::<i32>::new());
    let ended = &host.runtime.report()["ended"][0];
    assert!(ended["id"] == "brief" && ended["why"].as_str().unwrap().contains("with its owner"), "{ended}");
    assert_eq!(events_of(&host), [("brief".into(), EventKind::OrphanFound)]);
}

#[test]
fn a_vm_that_is_to_end_with_its_owner_goes_on_while_that_lives() {
    let mut host = Host::with_keeper();
    drop(killed_with_its_owner(&host, "lasting"));
    host.change_owner();
    assert_eq!(host.runtime.vm("lasting").unwrap().state(), State::Running);
}

#[test]
fn a_vm_that_was_started_again_is_its_new_owners_and_of_this_boot() {
    let mut host = Host::new();
    host.boot("again", Guest::Halt).kill().unwrap();
    host.edit_journal("again", |journal| {
        journal["boot"] = json!("another boot");
        journal["owner"]["started"] = json!(1);
    });
    host.change_owner();
    host.runtime.vm("again").unwrap().start().unwrap();
    let vmm = common::processes_below(&host.vm_directory("again"));
    host.change_owner();
    assert_eq!(host.runtime.report()["adopted"], json!(["again"]));
    assert_eq!(common::processes_below(&host.vm_directory("again")), vmm);
}

#[test]
fn an_end_that_one_owner_was_told_is_told_to_the_next() {
    let killed = ExitStatus::Signal(9);
    let is_end = |event: &Event| event.kind == EventKind::Exited(killed);
    let takes_event = |host: &Host, _: &Vm| {
        eventually("the end is told", || {
            host.runtime.next_event(AMPLE).unwrap().as_ref().is_some_and(is_end)
        });
    };
    let waits = |_: &Host, vm: &Vm| assert_eq!(vm.wait(AMPLE).unwrap(), killed);
    let looks_and_waits = |host: &Host, vm: &Vm| {
        eventually("the end is seen", || vm.state() == State::Failed);
        waits(host, vm);
    };
    let waits_when_cancelled = |host: &Host, vm: &Vm| {
        let token = Cancel::default();
        token.raise();
        let _bound = token.bind();
        looks_and_waits(host, vm);
    };
    let looks_and_is_refused = |_: &Host, vm: &Vm| {
        eventually("the end is seen", || vm.state() == State::Failed);
        vm.resume().unwrap_err();
    };
    type Way<'a> = &'a dyn Fn(&Host, &Vm);
    let ways: [Way<'_>; 5] =
        [&takes_event, &waits, &looks_and_waits, &waits_when_cancelled, &looks_and_is_refused];
    for is_told in ways {
        let mut host = Host::new();
        let vm = host.boot("killed", Guest::Halt);
        kill_vmm(&vm);
        is_told(&host, &vm);
        drop(vm);
        host.change_owner();
        assert_eq!(host.runtime.report()["ended"][0]["why"], "it ended before its owner");
        let vm = host.runtime.vm("killed").unwrap();
        assert_eq!((vm.state(), vm.exit_status()), (State::Failed, Some(killed)));
        vm.start().unwrap();
    }
}

#[test]
fn a_number_that_was_given_out_again_is_not_signalled() {
    let mut host = Host::new();
    host.boot("former", Guest::Halt).kill().unwrap();
    let mut innocent = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    host.edit_journal("former", |journal| {
        journal["vmm"] = json!({ "process": { "pid": innocent.id(), "started": 1 }, "progress": "ready",
                                 "version": "1.16.1", "claims": [{ "socket": { "path": "api.sock" } }] });
    });
    host.change_owner();
    assert_eq!(host.runtime.report()["ended"][0]["why"], "no owner noted its end");
    host.runtime.reap(ReapOptions::default()).unwrap();
    assert!(innocent.try_wait().unwrap().is_none());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[test]
fn a_copy_of_a_state_directory_takes_nothing_from_the_original() {
    let host = Host::with_keeper();
    let (kept, brief) = (host.boot("kept", Guest::Halt), killed_with_its_owner(&host, "brief"));
    let copy = host.scratch.path().join("copy");
    let original = host.scratch.path().join("state");
    assert!(std::process::Command::new("cp").arg("-a").args([&original, &copy]).status().unwrap().success());
    let other = mvm::Runtime::open(&copy, None).unwrap();
    assert_eq!(other.report()["left_alone"].as_array().unwrap().len(), 2);
    other.reap(ReapOptions::default()).unwrap();
    assert_eq!((kept.state(), brief.state()), (State::Running, State::Running));
    kept.pause().unwrap();
}

#[test]
fn a_vm_of_a_runtime_that_is_gone_can_do_nothing() {
    let mut host = Host::new();
    let vm = host.boot("former", Guest::Halt);
    vm.kill().unwrap();
    host.change_owner();
    assert!(told(&vm.start().unwrap_err()).contains("interrupted"));
    host.runtime.vm("former").unwrap().start().unwrap();
    assert_eq!(common::processes_below(&host.vm_directory("former")).len(), 1);
}

#[test]
fn a_console_that_was_replaced_by_a_fifo_holds_nobody_up() {
    let mut host = Host::new();
    let vm = host.boot("hostile", Guest::Halt);
    for name in ["console.log", "stderr.log"] {
        let file = host.vm_directory("hostile").join(name);
        std::fs::remove_file(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    }
    kill_vmm(&vm);
    assert!(told(&vm.pause().unwrap_err()).contains("hostile"));
    let refused = told(&vm.start().unwrap_err());
    assert!(refused.contains("cannot open") && refused.contains("console.log"), "{refused}");
    drop(vm);
    host.change_owner();
    let id = host.runtime.report().to_string();
    assert!(id.contains("hostile"), "{id}");
    drop(std::fs::remove_dir_all(host.vm_directory("hostile")));
}

#[test]
fn a_dry_run_changes_nothing() {
    let host = Host::new();
    let leftover = host.scratch.path().join("state/vms/.b.gone");
    std::fs::create_dir(&leftover).unwrap();
    host.runtime.reap(ReapOptions { dry_run: true, ..ReapOptions::default() }).unwrap();
    assert!(leftover.exists());
    host.runtime.reap(ReapOptions::default()).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_leftover_that_is_a_link_is_removed_and_not_followed() {
    let mut host = Host::new();
    let innocent = host.scratch.path().join("innocent");
    std::fs::create_dir(&innocent).unwrap();
    std::fs::write(innocent.join("console.log"), "mine").unwrap();
    let link = host.scratch.path().join("state/vms/.b.gone");
    std::os::unix::fs::symlink(&innocent, &link).unwrap();
    host.change_owner();
    assert!(link.symlink_metadata().is_err() && innocent.join("console.log").exists());
}

#[test]
fn what_is_started_meanwhile_is_not_reaped() {
    let mut host = Host::new();
    (0..20).for_each(|n| host.create(&format!("orphan-{n:02}"), Guest::Halt).kill().unwrap());
    host.create("started", Guest::Halt).kill().unwrap();
    host.change_owner();
    let vm = host.runtime.vm("started").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| host.runtime.reap(ReapOptions::default()).unwrap());
        match vm.start() {
            Ok(()) => assert_eq!(vm.state(), State::Running),
            Err(error) => assert!(told(&error).contains("it was destroyed"), "{}", told(&error)),
        }
    });
    assert!(host.runtime.list().iter().all(|vm| vm.state() == State::Running));
}

#[test]
fn what_ended_without_an_owner_is_reaped_and_what_runs_is_not() {
    let mut host = Host::new();
    drop(host.boot("alive", Guest::Halt));
    kill_vmm(&host.boot("dead", Guest::Halt));
    host.boot("stopped", Guest::Halt).kill().unwrap();
    host.change_owner();
    drop(host.boot("mine", Guest::Halt).kill());
    let would = host.runtime.reap(ReapOptions { dry_run: true, ..ReapOptions::default() }).unwrap();
    let ids = |report: &Value| {
        let removed = report["removed"].as_array().unwrap().iter();
        removed.map(|vm| vm["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&would), ["dead", "stopped"]);
    assert!(would["removed"][0]["owns"].to_string().contains("dead/console.log"), "{would}");
    assert!(host.vm_directory("dead").exists());
    assert_eq!(ids(&host.runtime.reap(ReapOptions::default()).unwrap()), ["dead", "stopped"]);
    assert!(!host.vm_directory("dead").exists() && !host.vm_directory("stopped").exists());
    assert_eq!(ids(&host.runtime.reap(ReapOptions::default()).unwrap()), Vec::<String>::new());
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
    assert_eq!(host.runtime.reap(ReapOptions::default()).unwrap()["removed"], json!([]));
}

#[test]
fn a_journal_that_cannot_be_read_is_told_and_its_vm_left_alone() {
    let mut host = Host::new();
    drop(host.boot("damaged", Guest::Halt));
    let pids = common::processes_below(&host.vm_directory("damaged"));
    let journal = host.vm_directory("damaged").join("journal.json");
    let whole = std::fs::read(&journal).unwrap();
    let newer = [b"mvm-journal 9 ".as_slice(), &whole[14..]].concat();
    let flipped = String::from_utf8(whole.clone()).unwrap().replace("\"pid\":", "\"pid\":1");
    for (text, problem) in [
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        (Vec::new(), "empty"),
        (b"somebody else's".to_vec(), "not a journal"),
        (newer, "version 3"),
        (flipped.into_bytes(), "checksum"),
    ] {
        std::fs::write(&journal, &text).unwrap();
        host.change_owner();
        let left = host.runtime.report()["left_alone"].to_string();
        assert!(left.contains(problem) && left.contains("vms/damaged"), "{left}");
        let reaped = host.runtime.reap(ReapOptions::default()).unwrap();
        assert!(reaped["removed"] == json!([]) && reaped["left_alone"].to_string().contains(problem));
        let refused = told(&host.runtime.create("damaged", &host.spec(Guest::Halt).to_string()).unwrap_err());
        assert!(refused.contains("could not be adopted"), "{refused}");
        assert_eq!(common::processes_below(&host.vm_directory("damaged")), pids);
    }
    std::fs::write(&journal, whole).unwrap();
    // What has been mended is taken over by the next look.
    host.runtime.reap(ReapOptions::default()).unwrap();
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
    host.runtime.reap(ReapOptions::default()).unwrap();
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
    let exited = EventKind::Exited(ExitStatus::Signal(9));
    let mut seen = Vec::new();
    eventually("six events and the second exit are told", || {
        seen.extend(host.runtime.next_event(AMPLE).unwrap().map(|event| event.kind));
        seen.len() == 7
    });
    host.runtime.destroy(&vm).unwrap();
    seen.extend(events_of(&host).into_iter().map(|(_, what)| what));
    let expected = [
        EventKind::Created,
        EventKind::Started,
        EventKind::Paused,
        EventKind::Resumed,
        exited.clone(),
        EventKind::Started,
        exited,
        EventKind::Destroyed,
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
        exited += usize::from(event.kind == EventKind::Exited(ExitStatus::Code(0)));
    }
    assert_eq!(host.runtime.next_event(Duration::ZERO).unwrap().map(|event| event.kind), None);
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

#[test]
fn a_vm_keeps_its_new_name_when_its_owner_goes() {
    let mut host = Host::with_keeper();
    let vm = host.boot("pool-7", Guest::Obey);
    host.runtime.rename(&vm, "web-1").unwrap();
    assert_eq!(vm.id().as_str(), "web-1");
    assert!(host.runtime.vm("pool-7").is_err() && host.runtime.vm("web-1").is_ok());
    console_with(&vm, "hello\n");
    drop(vm);
    host.change_owner();
    let vm = host.runtime.vm("web-1").unwrap();
    assert_eq!(vm.state(), State::Running);
    // Its former id is free, and the two do not meet.
    let other = host.boot("pool-7", Guest::Halt);
    vm.shutdown(AMPLE, None).unwrap();
    assert_eq!(other.state(), State::Running);
    host.runtime.destroy(&vm).unwrap();
    host.runtime.destroy(&other).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_name_that_is_taken_is_refused_and_nothing_changes() {
    let host = Host::new();
    let (one, other) = (host.boot("one", Guest::Halt), host.create("other", Guest::Halt));
    for (id, why) in [("other", "of this id already"), ("a/b", "'/'"), ("", "empty")] {
        let refused = told(&host.runtime.rename(&one, id).unwrap_err());
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!((one.id().as_str(), one.state()), ("one", State::Running));
    host.runtime.destroy(&other).unwrap();
    host.runtime.rename(&one, "other").unwrap();
    assert_eq!(host.runtime.list().len(), 1);
}
