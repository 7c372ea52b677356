//! What a VMM that belongs to its guest can do to its owner: nothing. And what a state directory must be to be used.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::guest::Guest;
use common::{AMPLE, Host, Scratch, eventually, told};
use mvm::process::Identity;
use mvm::runtime::EventKind;
use mvm::sys::directory::Directory;
use mvm::{ReapOptions, Runtime, State};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories in each other.
fn nest(top: &Path, levels: usize) {
    fs::create_dir(top).unwrap();
    let mut directory = Directory::open(top).unwrap();
    for _ in 0..levels {
        directory.make_directory("deeper".as_ref()).unwrap();
        directory = directory.open_directory("deeper".as_ref()).unwrap();
    }
}

#[test]
fn directories_in_each_other_by_the_thousand_are_removed_with_their_vm_by_a_thread_with_a_small_stack() {
    let host = Host::new();
    let vm = host.create("deep", Guest::Halt);
    fs::create_dir_all(host.vm_directory("deep").join("vmm/drives")).unwrap();
    nest(&host.vm_directory("deep").join("vmm/drives/deeper"), 3_000);
    std::thread::scope(|scope| {
        let destroying = std::thread::Builder::new().stack_size(256 << 10);
        destroying.spawn_scoped(scope, || host.runtime.destroy(&vm).unwrap()).unwrap();
    });
    // What a busy disk did not do in the time of the call is done by the next look.
    let reap = || host.runtime.reap(ReapOptions::default()).unwrap();
    eventually("all of it is removed", || reap()["left_alone"] == json!([]));
    host.assert_nothing_left();
}

/// What its VMM has put in the place of the directory in which its disks have their names, or of its own.
#[test]
fn a_planted_link_lets_nothing_be_removed_elsewhere() {
    let mut host = Host::new();
    let elsewhere = host.scratch.path().join("elsewhere");
    let files = ["drives/root", "root", "vmm.log", "memory"].map(|name| elsewhere.join(name));
    fs::create_dir_all(elsewhere.join("drives")).unwrap();
    files.iter().for_each(|file| fs::write(file, "precious").unwrap());
    for planted in ["vmm/drives", "vmm"] {
        let mut spec = host.spec(Guest::Halt);
        let disk = host.scratch.path().join("disk");
        fs::write(&disk, [0; 4096]).unwrap();
        spec["drives"] = json!([{ "drive_id": "root", "path_on_host": disk, "is_root_device": true }]);
        let vm = host.runtime.create("planted", &spec.to_string()).unwrap();
        let place = host.vm_directory("planted").join(planted);
        fs::rename(&place, place.with_extension("away")).unwrap();
        symlink(&elsewhere, &place).unwrap();
        vm.kill().unwrap();
        drop(vm);
        host.change_owner();
        host.runtime.destroy(&host.runtime.vm("planted").unwrap()).unwrap();
        files.iter().for_each(|file| assert_eq!(fs::read_to_string(file).unwrap(), "precious", "{planted}"));
    }
    host.assert_nothing_left();
}

#[test]
fn a_rewritten_journal_makes_nobody_run_another_program() {
    let mut host = Host::new();
    let vm = host.boot("forger", Guest::Halt);
    let ran = host.scratch.path().join("ran");
    let program = common::script(host.scratch.path(), "program", &format!("touch {}", ran.display()));
    drop(vm);
    host.edit_journal("forger", |journal| journal["firecracker"] = json!(program));
    host.change_owner();
    let vm = host.runtime.vm("forger").unwrap();
    host.runtime.take_snapshot(&vm, "asks-for-the-version", None).unwrap();
    vm.kill().unwrap();
    vm.start().unwrap();
    assert!(!ran.exists());
    assert_eq!(vm.info().unwrap()["firecracker"], json!(common::firecracker()));
}

#[test]
fn a_rewritten_journal_makes_nobody_end_another_process() {
    let mut host = Host::new();
    let vmm = host.boot("forger", Guest::Halt).pid().unwrap();
    let mut innocent = Command::new("sleep").arg("1000").spawn().unwrap();
    let identity = Identity::of(innocent.id().cast_signed()).unwrap();
    host.edit_journal("forger", |journal| {
        journal["vmm"]["process"] = json!({ "pid": identity.pid, "started": identity.started });
    });
    host.change_owner();
    // Its own VMM is found by the console.
    let vm = host.runtime.vm("forger").unwrap();
    assert_eq!(vm.pid().unwrap(), vmm);
    host.runtime.destroy(&vm).unwrap();
    assert!(innocent.try_wait().unwrap().is_none());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_vmm_that_its_journal_conceals_is_not_left_running() {
    for conceal in [
        (|journal| journal["vmm"] = Value::Null) as fn(&mut Value),
        |journal| journal["boot"] = json!("another boot"),
        |journal| journal["vmm"]["process"] = json!({ "pid": 1, "started": 1 }),
    ] {
        let mut host = Host::new();
        drop(host.boot("concealed", Guest::Halt));
        host.edit_journal("concealed", conceal);
        host.change_owner();
        let vm = host.runtime.vm("concealed").unwrap();
        let running = common::processes_below(&host.vm_directory("concealed"));
        assert_eq!(running.is_empty(), vm.info().unwrap()["pid"].is_null(), "{running:?}");
        host.runtime.destroy(&vm).unwrap();
        host.assert_nothing_left();
    }
}

#[test]
fn a_rewritten_journal_removes_no_socket_of_somebody_else() {
    let mut host = Host::new();
    let (absolute, above, linked) =
        ["absolute", "above", "linked"].map(|name| host.scratch.path().join(name)).into();
    for socket in [&absolute, &above, &linked] {
        drop(UnixListener::bind(socket).unwrap());
    }
    let vm = host.boot("forger", Guest::Halt);
    let working = host.vm_directory("forger").join("vmm");
    symlink(host.scratch.path(), working.join("way-out")).unwrap();
    drop(UnixListener::bind(working.join("own")).unwrap());
    drop(vm);
    host.edit_journal("forger", |journal| {
        journal["vmm"]["claims"] =
            sockets(&["own", absolute.to_str().unwrap(), "../../../../above", "way-out/linked"]);
    });
    host.change_owner();
    host.runtime.vm("forger").unwrap().kill().unwrap();
    assert!(!working.join("own").exists());
    host.edit_journal("forger", |journal| {
        let claims = sockets(&[absolute.to_str().unwrap(), "../../../../above", "way-out/linked"]);
        journal["vmm"] =
            json!({ "process": null, "progress": "ready", "version": "1.16.1", "claims": claims });
    });
    host.change_owner();
    assert!([absolute, above, linked].iter().all(|socket| socket.exists()));
}

#[test]
fn a_vmm_whose_journal_is_of_no_use_is_ended_by_a_call_that_says_so() {
    let mut host = Host::new();
    let mut pids = Vec::new();
    for id in ["garbage", "link", "fifo", "nothing"] {
        pids.push(i64::from(host.boot(id, Guest::Halt).pid().unwrap()));
        let journal = host.vm_directory(id).join("journal.json");
        fs::remove_file(&journal).unwrap();
        match id {
            "garbage" => fs::write(journal, "garbage").unwrap(),
            "link" => symlink("/etc/passwd", journal).unwrap(),
            "fifo" => assert!(Command::new("mkfifo").arg(journal).status().unwrap().success()),
            _ => {}
        }
    }
    fs::create_dir(host.vm_directory("never-a-vm")).unwrap();
    host.change_owner();
    assert_eq!(host.runtime.report()["left_alone"].as_array().unwrap().len(), 5);
    assert_eq!(host.runtime.reap(ReapOptions::default()).unwrap()["damaged"], json!([]));
    assert_eq!(common::processes_below(&host.scratch.path().join("state/vms")).len(), 4);
    let report = host.runtime.reap(ReapOptions { damaged: true, ..ReapOptions::default() }).unwrap();
    let ended = report["damaged"].as_array().unwrap().iter();
    let mut ended = ended.map(|one| one["ended"][0].as_i64().unwrap()).collect::<Vec<_>>();
    ended.sort_unstable();
    pids.sort_unstable();
    assert_eq!(ended, pids, "{report}");
    fs::remove_dir(host.vm_directory("never-a-vm")).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_vmm_whose_directory_was_moved_away_is_told_and_ended_by_a_call_that_says_so() {
    for to in ["outside", "state/below", "state/vms/.hidden", "state/vms/with a blank"] {
        let mut host = Host::new();
        let pid = host.boot("mover", Guest::Halt).pid().unwrap();
        let elsewhere = host.scratch.path().join(to);
        host.without_owner_but(|directory| {
            fs::rename(directory.join("state/vms/mover"), &elsewhere).unwrap();
        });
        let left = host.runtime.report()["left_alone"].to_string();
        assert!(left.contains(&format!("process {pid} ")) && left.contains(to), "{left}");
        host.runtime.reap(ReapOptions::default()).unwrap();
        assert_eq!(common::processes_below(&elsewhere).len(), 1);
        let report = host.runtime.reap(ReapOptions { damaged: true, ..ReapOptions::default() }).unwrap();
        assert_eq!(report["damaged"][0]["ended"], json!([pid]), "{report}");
        assert_eq!(common::processes_below(&elsewhere), Vec::<i32>::new());
        fs::remove_dir_all(&elsewhere).unwrap();
        host.assert_nothing_left();
    }
}

#[test]
fn a_planted_link_is_refused_and_what_it_leads_to_is_not_touched() {
    for name in ["lock", "vms", "snapshots"] {
        let scratch = Scratch::new();
        let (state, victim) = (state_in(&scratch), scratch.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, state.join(name)).unwrap();
        let refused = refusal(&state);
        assert!(refused.contains(name) && refused.contains("is a symbolic link"), "{refused}");
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }
    let scratch = Scratch::new();
    let (state, victim) = (state_in(&scratch), scratch.path().join("victim"));
    fs::write(&victim, "mine").unwrap();
    fs::hard_link(&victim, state.join("lock")).unwrap();
    let refused = refusal(&state);
    assert!(refused.contains("hard link"), "{refused}");
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
}

#[test]
fn a_keeper_writes_through_no_link() {
    for name in ["keeper.log", "keeper.lock"] {
        let host = Host::with_keeper();
        let (state, victim) = (host.scratch.path().join("state"), host.scratch.path().join("victim"));
        if name == "keeper.log" {
            fs::write(&victim, "mine").unwrap();
        }
        symlink(&victim, state.join(name)).unwrap();
        let mut spec = host.spec(Guest::Halt);
        spec["mvm"]["on_owner_exit"] = json!("kill");
        let created = host.runtime.create("kept", &spec.to_string());
        if name == "keeper.log" {
            assert!(told(&created.unwrap_err()).contains("is a symbolic link"));
            assert_eq!(fs::read(&victim).unwrap(), b"mine");
        } else {
            let mut said = None;
            common::eventually("the keeper's end is told", || {
                let event = host.runtime.next_event(AMPLE).unwrap().map(|event| event.kind);
                said = event.filter(|what| matches!(what, EventKind::KeeperLost(_)));
                said.is_some()
            });
            assert!(format!("{said:?}").contains("is a symbolic link"), "{said:?}");
            assert!(!victim.exists());
        }
    }
}

#[test]
fn a_state_directory_that_others_may_change_is_refused_with_what_to_do() {
    for (mode, below) in [(0o777, ""), (0o720, ""), (0o702, ""), (0o777, "vms"), (0o777, "..")] {
        let scratch = Scratch::new();
        let outer = scratch.path().join("outer");
        fs::create_dir(&outer).unwrap();
        let state = outer.join("state");
        drop(Runtime::open(&state, None).unwrap());
        fs::set_permissions(state.join(below), fs::Permissions::from_mode(mode)).unwrap();
        let refused = refusal(&state);
        assert!(refused.contains("may write to") && refused.contains("chmod go-w"), "{refused}");
    }
    let scratch = Scratch::new();
    let state = state_in(&scratch);
    if !is_root() {
        println!("skipped: only root can give a directory away");
        return;
    }
    for below in ["", ".."] {
        let outer = scratch.path().join(format!("outer{}", below.len()));
        fs::create_dir(&outer).unwrap();
        let state = outer.join("state");
        drop(Runtime::open(&state, None).unwrap());
        std::os::unix::fs::chown(state.join(below), Some(4711), None).unwrap();
        let refused = refusal(&state);
        assert!(refused.contains("belongs to user 4711"), "{refused}");
    }
    // A link of somebody else's, as it can be planted in /tmp.
    let link = scratch.path().join("link");
    symlink(&state, &link).unwrap();
    drop(Runtime::open(&link, None).unwrap());
    std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
    let refused = refusal(&link);
    assert!(refused.contains("belongs to user 4711"), "{refused}");
}

#[test]
fn a_state_directory_that_was_moved_is_not_written_to_by_its_former_name() {
    let host = Host::new();
    let vm = host.boot("moved", Guest::Halt);
    let (state, elsewhere) = (host.scratch.path().join("state"), host.scratch.path().join("moved-here"));
    fs::rename(&state, &elsewhere).unwrap();
    // Somebody else has the name now.
    let options = json!({ "firecracker": common::firecracker() }).to_string();
    let other = Runtime::open(&state, Some(&options)).unwrap();
    let others = other.create("moved", &host.spec(Guest::Halt).to_string()).unwrap();
    let journal = fs::read(host.vm_directory("moved").join("journal.json")).unwrap();
    for refused in [
        told(&host.runtime.create("new", &host.spec(Guest::Halt).to_string()).unwrap_err()),
        told(&host.runtime.rename(&vm, "renamed").unwrap_err()),
        told(&host.runtime.take_snapshot(&vm, "base", None).unwrap_err()),
        told(&host.runtime.destroy(&vm).unwrap_err()),
        told(&host.runtime.reap(ReapOptions::default()).unwrap_err()),
    ] {
        assert!(refused.contains("moved-here now") && refused.contains("close the runtime"), "{refused}");
    }
    assert_eq!(fs::read(host.vm_directory("moved").join("journal.json")).unwrap(), journal);
    assert_eq!(others.state(), State::Created);
    other.destroy(&others).unwrap();
    drop(other);
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&elsewhere, &state).unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_proc_that_is_of_another_pid_namespace_is_noticed_and_said() {
    if !is_root() {
        println!("skipped: only root can make a PID namespace");
        return;
    }
    let scratch = Scratch::new();
    let played = Command::new("unshare")
        .args(["--pid", "--fork"])
        .arg(std::env::current_exe().unwrap())
        .args(["plays_in_another_pid_namespace", "--exact", "--ignored", "--nocapture"])
        .env(PART, scratch.path().join("state"))
        .status()
        .unwrap();
    assert_eq!(played.code(), Some(0));
}

#[test]
#[ignore = "the part in another PID namespace, which another test starts"]
fn plays_in_another_pid_namespace() {
    let Some(state) = std::env::var_os(PART).map(PathBuf::from) else { return };
    let refused = refusal(&state);
    assert!(refused.contains("another PID namespace") && refused.contains("mount -t proc"), "{refused}");
    assert!(!state.exists());
}

fn state_in(scratch: &Scratch) -> PathBuf {
    let state = scratch.path().join("state");
    fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    state
}

fn refusal(state: &Path) -> String {
    told(&Runtime::open(state, None).unwrap_err())
}

fn sockets(paths: &[&str]) -> Value {
    paths.iter().map(|path| json!({ "socket": { "path": path } })).collect()
}

#[test]
fn what_a_vmm_makes_is_its_owners_alone() {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new();
    let vm = host.boot("private", Guest::Halt);
    host.runtime.take_snapshot(&vm, "base", None).unwrap();
    let (vms, snapshots) = (host.vm_directory("private"), host.scratch.path().join("state/snapshots/base"));
    for directory in [vms.join("vmm"), vms, snapshots] {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.symlink_metadata().unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
    }
}

/// Which part this process plays, and where.
const PART: &str = "MVM_TRUST_PART";

/// What came with the lower layer of overlayfs, as in an image, cannot be renamed there, neither with a word nor a link.
#[test]
fn a_state_directory_that_came_with_an_image_is_one_like_any_other() {
    let mut host = Host::new();
    for id in ["destroyed", "renamed", "started", "half-done"] {
        host.boot(id, Guest::Halt).kill().unwrap();
    }
    let vm = host.boot("frozen", Guest::Halt);
    for id in ["deleted", "kept"] {
        host.runtime.take_snapshot(&vm, id, None).unwrap();
    }
    vm.kill().unwrap();
    drop(vm);
    host.without_owner_but(|directory| {
        let [lower, upper, work, merged] =
            ["state", "upper", "work", "merged"].map(|name| directory.join(name));
        [&upper, &work, &merged].iter().for_each(|made| fs::create_dir(made).unwrap());
        let mount = format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={} {} || exit 77; exec \"$@\"",
            lower.display(),
            upper.display(),
            work.display(),
            merged.display()
        );
        let own = std::env::current_exe().unwrap();
        let played = Command::new("unshare")
            .args(["-m", "sh", "-c", &mount, "sh"])
            .arg(own)
            .args(["plays_in_an_image", "--exact", "--ignored", "--nocapture"])
            .env(PART, &merged)
            .status()
            .unwrap();
        match played.code() {
            Some(1 | 77) if !is_root() => println!("skipped: only root may mount"),
            Some(77) => println!("skipped: there is no overlayfs here"),
            code => assert_eq!(code, Some(0)),
        }
    });
}

#[test]
#[ignore = "the part in an image, which another test starts"]
fn plays_in_an_image() {
    let Some(state) = std::env::var_os(PART).map(PathBuf::from) else { return };
    let options = json!({ "firecracker": common::firecracker() }).to_string();
    let runtime = Runtime::open(&state, Some(&options)).unwrap();
    runtime.destroy(&runtime.vm("destroyed").unwrap()).unwrap();
    runtime.rename(&runtime.vm("renamed").unwrap(), "called-otherwise").unwrap();
    let vm = runtime.vm("started").unwrap();
    vm.start().unwrap();
    vm.kill().unwrap();
    runtime.destroy(&vm).unwrap();
    runtime.delete_snapshot("deleted").unwrap();
    let vm = runtime.restore("kept", "restored", None).unwrap();
    runtime.destroy(&vm).unwrap();
    drop(runtime);
    let runtime = Runtime::open(&state, Some(&options)).unwrap();
    let ids = runtime.list().iter().map(|vm| vm.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids, ["called-otherwise", "frozen", "half-done"]);
    assert_eq!(runtime.report()["left_alone"], json!([]));
    runtime.reap(ReapOptions::default()).unwrap();
    assert_eq!(fs::read_dir(state.join("vms")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(state.join("snapshots")).unwrap().count(), 1);
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}
