//! What a VMM in a jail can do to its host and to other tenants when its guest has taken it over: nothing. The attacker is a
//! process with the VMM's user and root directory, and without Firecracker's filter of system calls.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::tenant::{
    Siege, attack, boot, error_of, host, jailed, jailed_with_disk, precious, shell, state_of, user_of,
};
use common::{AMPLE, Host, console_with, eventually, is_simulated, told};
use mvm::firecracker::http::{Method, RequestPath};
use mvm::{Runtime, State};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What stands in the place of each name that the library looks at in a jail.
const NAMES: &str = "vmm.log metrics-1.jsonl metrics-2.jsonl metrics-3.jsonl api.sock v.sock vsock.sock pager.sock drives \
                     snapshot saved boot-source memory firecracker firecracker.pid dev run";

/// Whatever an owner does with a VM whose jail is full of traps: each may fail, and none may hang.
fn use_it(host: &mut Host, id: &str, disk: &Path) {
    let vm = host.runtime.vm(id).unwrap();
    let begun = Instant::now();
    let _ = vm.flush_metrics();
    let _ = vm.metrics();
    let _ = vm.info();
    let _ = vm.update_drive("data", Some(disk), None);
    let _ = host.runtime.take_snapshot(&vm, "taken", None);
    let _ = host.runtime.delete_snapshot("taken");
    let _ = vm.pause();
    let _ = vm.resume();
    drop(vm);
    host.change_owner();
    let vm = host.runtime.vm(id).unwrap();
    let _ = vm.metrics();
    vm.kill().unwrap();
    assert_eq!(vm.state(), State::Stopped);
    // The next jail is a new one, whatever is in this.
    vm.start().unwrap_or_else(|error| panic!("{}", told(&error)));
    vm.metrics().unwrap();
    host.runtime.take_snapshot(&vm, "taken", None).unwrap();
    host.runtime.delete_snapshot("taken").unwrap();
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
    assert!(begun.elapsed() < AMPLE, "{:?}", begun.elapsed());
}

/// Plants `script`, which sees the name as `$name` and a directory of root's as `$elsewhere`, in the place of everything.
fn plant_everywhere(script: &str) {
    let Some(mut host) = host() else { return };
    let elsewhere = host.scratch.path().join("precious");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["data", "state", "memory", "api.sock", "vmm.log", "kernel_image_path"] {
        fs::write(elsewhere.join(name), "precious").unwrap();
    }
    let vm = boot(&host, "hostile", &jailed_with_disk(&host));
    let other = precious(&host, "other");
    let before = state_of(&elsewhere);
    let elsewhere_quoted = elsewhere.display();
    let all = format!(
        "elsewhere={elsewhere_quoted}; for name in {NAMES}; do mv $name .was-$name; {script}; done; ls -la"
    );
    let told = attack(&vm, &all);
    assert!(told.contains(".was-vmm.log"), "{told}");
    drop(vm);
    use_it(&mut host, "hostile", &other);
    assert_eq!(state_of(&elsewhere), before);
    for file in ["disk", "other"] {
        let about = fs::metadata(host.scratch.path().join(file)).unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777, about.nlink()), (0, 0, 0o600, 1));
    }
}

#[test]
fn links_to_directories_lead_nowhere() {
    plant_everywhere("ln -s $elsewhere $name");
}

#[test]
fn links_to_files_lead_nowhere() {
    plant_everywhere("ln -s $elsewhere/data $name");
}

#[test]
fn links_in_directories_lead_nowhere() {
    plant_everywhere(
        "mkdir $name; for file in data state memory kernel_image_path; do ln -s $elsewhere/$file $name/; done",
    );
}

#[test]
fn pipes_are_not_waited_for() {
    plant_everywhere("mkfifo -m 777 $name");
}

#[test]
fn second_names_of_other_files_in_the_jail_do_no_harm() {
    plant_everywhere("echo > .one; ln .one $name || ln firecracker.pid $name");
}

#[test]
fn directories_with_names_of_control_characters_and_closed_ones_go_with_the_jail() {
    plant_everywhere(r#"mkdir -p "$name/$(printf 'a\001\n\033[31m\r')/deep"; echo > $name/x; chmod 0 $name"#);
}

#[test]
fn files_of_a_terabyte_of_holes_are_neither_read_nor_copied() {
    plant_everywhere("truncate -s 1T $name");
}

#[test]
fn directories_in_each_other_by_the_thousand_go_with_the_jail() {
    let Some(host) = host() else { return };
    let vm = boot(&host, "deep", &jailed(&host, Guest::Halt));
    let nest = r#"perl -e 'for (1..3000) { mkdir("d") or die; chdir("d") or die } print "nested"'"#;
    let said = attack(&vm, nest);
    assert!(said.contains("nested"), "{said}");
    vm.kill().unwrap();
    vm.start().unwrap_or_else(|error| panic!("{}", told(&error)));
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_jailed_vmm_has_and_sees_nothing_that_it_was_not_lent() {
    let Some(host) = host() else { return };
    let vm = boot(&host, "bare", &jailed_with_disk(&host));
    console_with(&vm, "hello");
    let proc = PathBuf::from(format!("/proc/{}", vm.pid().unwrap()));
    let user = user_of(&vm);
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let four = [user; 4].map(|user| user.to_string()).join(" ");
    assert_eq!((field("Uid"), field("Gid"), field("Groups")), (four.clone(), four, String::new()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Umask"), "0077");
    if !is_simulated() {
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    }
    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("2048"), "{files}");
    let mounts = fs::read_to_string(proc.join("mountinfo")).unwrap();
    let mut places = mounts.lines().map(|line| {
        let parts = line.split(' ').collect::<Vec<_>>();
        (parts[4].to_owned(), parts[5].to_owned())
    });
    let is_for_data = |flags: &str| ["nosuid", "nodev", "noexec"].iter().all(|flag| flags.contains(flag));
    let mut seen = Vec::new();
    places.by_ref().for_each(|(place, flags)| {
        assert!(flags.contains("nosuid"), "{mounts}");
        assert!(place == "/" || is_for_data(&flags), "{mounts}");
        assert_eq!(flags.starts_with("ro"), place == "/boot-source/kernel_image_path", "{mounts}");
        seen.push(place);
    });
    seen.sort();
    assert_eq!(seen, ["/", "/boot-source/kernel_image_path", "/drives/data"]);
    let targets =
        fs::read_dir(proc.join("fd")).unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let (directory, root) = (host.vm_directory("bare"), Path::new("/"));
    // As seen from outside, what is mounted there is what it is on the disk.
    let own = [directory.join("console.log"), directory.join("stderr.log"), root.join("drives/data")];
    let in_jail =
        ["vmm.log", "metrics-1.jsonl", "drives/data", "disk", "kernel_image_path", "halt.elf", "pagemap"];
    let allowed = |target: &PathBuf| {
        let name = target.to_string_lossy();
        ["anon_inode:", "socket:", "/dev/", "/memfd:"].iter().any(|kind| name.starts_with(kind))
            || own.contains(target)
            || in_jail.iter().any(|it| target.ends_with(it))
    };
    let strange = targets.filter(|target| !allowed(target)).collect::<Vec<_>>();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn no_tenant_reaches_what_is_another_one_s() {
    let Some(host) = host() else { return };
    let mut spec = jailed_with_disk(&host);
    spec["vsock"] = json!({ "guest_cid": 5, "uds_path": host.scratch.path().join("victim.sock") });
    let (victim, rogue) = (boot(&host, "victim", &spec), boot(&host, "rogue", &jailed(&host, Guest::Halt)));
    let report = host.runtime.take_snapshot(&victim, "secret", None).unwrap();
    let own = host.vm_directory("victim");
    let pid = victim.pid().unwrap();
    let (own, taken) = (own.display().to_string(), report["directory"].as_str().unwrap().to_owned());
    for deed in [
        format!("ls {own}"),
        format!("ls {own}/vmm"),
        format!("cat {own}/vmm/api.sock"),
        format!("cat {own}/console.log"),
        format!("cat {own}/vmm/pager.sock"),
        format!("ls {own}/lent"),
        format!("cat {own}/journal.json"),
        format!("ls {taken}"),
        format!("cat {taken}/memory"),
        format!("cat {}/disk", host.scratch.path().display()),
        format!("echo > {}/disk", host.scratch.path().display()),
        "ls /run/mvm/uids".into(),
        "rm -r /run/mvm/uids/*".into(),
        format!("kill -9 {pid}"),
        format!("cat /proc/{pid}/mem"),
        format!("ls /proc/{pid}/root"),
        format!("ls /proc/{pid}/cwd"),
        format!("cat /proc/{pid}/fd/1"),
        "mknod node b 7 0".into(),
        "mount --bind . dev".into(),
        "umount drives/data".into(),
        "mount -o remount,bind,rw boot-source/kernel_image_path".into(),
        "chmod 777 boot-source/kernel_image_path".into(),
        "echo > boot-source/kernel_image_path".into(),
        "chown 0 .".into(),
    ] {
        let told = attack(&rogue, &format!("{deed} && echo it-was-done"));
        assert!(!told.contains("it-was-done"), "{deed}: {told}");
    }
    assert_eq!(victim.state(), State::Running);
    victim.pause().unwrap();
    assert_ne!(user_of(&victim), user_of(&rogue));
}

/// As a VMM would that has been taken over.
#[test]
fn who_listens_at_the_api_socket_and_is_not_the_vmm_is_not_spoken_to() {
    let Some(host) = host() else { return };
    let vm = boot(&host, "host-of-none", &jailed(&host, Guest::Halt));
    let service = host.scratch.path().join("service.sock");
    let listener = UnixListener::bind(&service).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::set_permissions(&service, fs::Permissions::from_mode(0o777)).unwrap();
    attack(&vm, &format!("rm api.sock; ln -s {} api.sock", service.display()));
    // An open connection is used again; a refusal ends it.
    let refused = vm.request(Method::Get, &RequestPath::parse("/nothing").unwrap(), None);
    drop(refused);
    let error = told(&vm.pause().unwrap_err());
    assert!(error.contains("not a socket"), "{error}");
    assert!(listener.accept().is_err(), "a service of the host's was connected to");
    // A process of the same user.
    let listening = r#"rm api.sock; exec perl -MIO::Socket::UNIX -e '
        $s = IO::Socket::UNIX->new(Local => "api.sock", Listen => 5); sleep 60'"#;
    let root = PathBuf::from(format!("/proc/{}/root", vm.pid().unwrap()));
    let _siege = Siege::begin(&mut shell(user_of(&vm), &root, listening));
    let place = host.vm_directory("host-of-none").join("vmm/api.sock");
    eventually("another process listens", || {
        let is_socket = fs::symlink_metadata(&place).is_ok_and(|about| about.file_type().is_socket());
        is_socket && UnixStream::connect(&place).is_ok()
    });
    let error = told(&vm.pause().unwrap_err());
    assert!(error.contains("listens there"), "{error}");
    host.runtime.destroy(&vm).unwrap();
}

#[test]
fn what_a_vmm_says_that_its_disks_are_is_copied_from_its_own_alone() {
    let Some(host) = host() else { return };
    let secret = host.scratch.path().join("secret");
    fs::write(&secret, "precious").unwrap();
    let vm = boot(&host, "liar", &jailed_with_disk(&host));
    let absolute = secret.display().to_string();
    let upwards = format!("{}{absolute}", "../".repeat(20));
    for (place, said) in [(absolute.clone(), &absolute), (absolute.clone(), &upwards)] {
        // It has a file of that name in its jail, so that it may say so.
        let place = place.trim_start_matches('/');
        attack(&vm, &format!("mkdir -p $(dirname {place}) && echo own > {place}"));
        let body = json!({ "drive_id": "data", "path_on_host": said }).to_string();
        let path = RequestPath::parse("/drives/data").unwrap();
        let answer = vm.request(Method::Patch, &path, Some(body.as_bytes())).unwrap();
        assert!(answer.is_success(), "{answer:?}");
        let error = told(&host.runtime.take_snapshot(&vm, "taken", None).unwrap_err());
        assert!(error.contains("data"), "{error}");
        assert!(!host.scratch.path().join("state/snapshots/taken").exists());
        assert_eq!(vm.state(), State::Running);
    }
}

#[test]
fn what_is_planted_where_a_snapshot_is_written_gets_into_no_snapshot() {
    let Some(host) = host() else { return };
    let secret = precious(&host, "secret");
    let before = state_of(&secret);
    let vm = boot(&host, "forger", &jailed_with_disk(&host));
    for plant in [
        "echo > saved/extra",
        "ln -s /etc/shadow saved/extra",
        "mkfifo saved/extra",
        "mkdir saved/extra",
        "ln saved/state saved/extra",
        "rm -f saved/memory; ln -s /etc/shadow saved/memory",
        "rm -f saved/memory; ln -s drives/data saved/memory",
        "ln saved/state kept; ln saved/memory kept-too",
        "mkdir saved/disk-data; echo > saved/manifest.json",
        "mv saved .was; ln -s drives saved",
    ] {
        let taken = {
            let _siege = Siege::of(&vm, plant);
            let mut taken = 0;
            for _ in 0..3 {
                match host.runtime.take_snapshot(&vm, "taken", Some(r#"{ "deadline_ms": 20000 }"#)) {
                    Ok(report) => {
                        taken += 1;
                        assert_is_whole(&host, Path::new(report["directory"].as_str().unwrap()));
                    }
                    Err(error) => assert!(!told(&error).is_empty()),
                }
            }
            taken
        };
        eprintln!("{plant}: {taken} of 3 were taken");
        attack(&vm, "rm -rf saved; mkdir saved");
    }
    assert_eq!(state_of(&secret), before);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

/// What was taken is the owner's alone, and nothing else is with it.
fn assert_is_whole(host: &Host, directory: &Path) {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        assert!(about.is_file() && about.nlink() == 1, "{entry:?}");
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 0, 0o600), "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["disk-data", "manifest.json", "memory", "state"]);
    let about = fs::metadata(directory).unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, 0, 0o700));
    assert_eq!(fs::read(directory.join("disk-data")).unwrap(), vec![7; 1 << 20]);
    host.runtime.delete_snapshot("taken").unwrap();
}

#[test]
fn neither_root_nor_nobody_in_particular_is_the_user_of_a_jail() {
    let Some(host) = host() else { return };
    for uid in [0, u32::MAX] {
        let mut spec = jailed(&host, Guest::Halt);
        spec["mvm"]["jail"]["uid"] = json!(uid);
        let error = error_of(&host, "root", &spec);
        assert!(error.contains("mvm.jail.uid") && error.contains("from 1"), "{error}");
    }
    for uids in [
        json!({ "first": 0, "count": 5 }),
        json!({ "first": u32::MAX - 1, "count": 2 }),
        json!({ "count": 0 }),
    ] {
        let options = json!({ "jail": { "uids": uids } }).to_string();
        let opened = Runtime::open(&host.scratch.path().join("other"), Some(&options));
        let error = told(&opened.err().unwrap());
        assert!(error.contains("jail.uids"), "{error}");
    }
    host.assert_nothing_left();
}

#[test]
fn a_vmm_without_firecracker_s_filter_becomes_no_owner_of_a_file_of_the_operator_s() {
    let Some(host) = host() else { return };
    let mut spec = jailed_with_disk(&host);
    for argument in ["--no-seccomp", "--seccomp-filter=/none"] {
        spec["mvm"]["arguments"] = json!([argument]);
        let error = error_of(&host, "unfiltered", &spec);
        assert!(error.contains("seccomp") && error.contains("disk") && error.contains("copy"), "{error}");
    }
    spec["mvm"]["arguments"] = json!(["--no-seccomp"]);
    // A file that is its user's own is lent to it, and what it only reads.
    spec["mvm"]["jail"]["uid"] = json!(1_999_999_999);
    let disk = host.scratch.path().join("disk");
    chown(&disk, Some(1_999_999_999), Some(1_999_999_999)).unwrap();
    let vm = boot(&host, "unfiltered", &spec);
    host.runtime.destroy(&vm).unwrap();
    chown(&disk, Some(0), Some(0)).unwrap();
    spec["drives"][0]["is_read_only"] = json!(true);
    let vm = boot(&host, "unfiltered", &spec);
    let told = attack(&vm, "chmod u+s drives/data; chmod 4777 drives/data; echo > drives/data");
    assert_eq!(told.matches("Read-only").count(), 3, "{told}");
    assert_eq!(fs::metadata(&disk).unwrap().mode() & 0o7777, 0o600);
    host.runtime.destroy(&vm).unwrap();
}

/// One that leaves everything by which a library could know it.
#[test]
fn what_a_vmm_without_firecracker_s_filter_has_started_ends_with_it() {
    let Some(host) = host() else { return };
    let mut spec = jailed(&host, Guest::Halt);
    spec["mvm"]["arguments"] = json!(["--no-seccomp"]);
    let vm = boot(&host, "forking", &spec);
    // Nothing that can fork is in the jail, so it is enough that it would be the first process of its own namespace.
    let own = fs::read_link(format!("/proc/{}/ns/pid", vm.pid().unwrap())).unwrap();
    assert_ne!(own, fs::read_link("/proc/self/ns/pid").unwrap());
}

#[test]
fn a_device_that_is_lent_for_reading_stays_so() {
    let Some(host) = host() else { return };
    let image = precious(&host, "image");
    let attached = Command::new("losetup").args(["--find", "--show"]).arg(&image).output();
    let Some(output) = attached.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no loop device is to be had");
        return;
    };
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let _detached = Detached(device.clone());
    let mut spec = jailed(&host, Guest::Halt);
    spec["drives"] = json!([
        { "drive_id": "data", "is_root_device": false, "is_read_only": true, "path_on_host": device }
    ]);
    let vm = boot(&host, "reader", &spec);
    let told = attack(
        &vm,
        "ls -ln drives; head -c 1 drives/data | od -An -tu1; chmod 666 drives/data; echo > drives/data",
    );
    assert!(told.contains(" 7\n") && told.contains("not permitted") && told.contains("denied"), "{told}");
    host.runtime.destroy(&vm).unwrap();
    assert_eq!(fs::read(&image).unwrap(), vec![7; 1 << 20]);
    let about = fs::metadata(&device).unwrap();
    assert_eq!(about.uid(), 0);
}

/// A loop device that is given back.
struct Detached(String);

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn ids_and_paths_that_would_lead_elsewhere_are_refused_and_nothing_is_left() {
    let Some(host) = host() else { return };
    let spec = jailed(&host, Guest::Halt);
    for id in ["", ".", "..", "../x", "a/b", "a\r\nPUT /actions", "a\0b", "a_b", &"a".repeat(4096)] {
        assert!(host.runtime.create(id, &spec.to_string()).is_err(), "{id:?}");
        assert!(host.runtime.vm(id).is_err(), "{id:?}");
    }
    let long = "x".repeat(4096);
    for key in ["netns", "jailer"] {
        for path in ["/none/../../none", "/none\r\nx", "/no\0ne", long.as_str(), "/", "/dev/null"] {
            let mut spec = spec.clone();
            spec["mvm"]["jail"][key] = json!(path);
            let error = error_of(&host, "elsewhere", &spec);
            assert!(!error.is_empty(), "{key} {path:?}");
        }
    }
    for path in ["/no\0ne", long.as_str(), "/", "../../../../../../etc"] {
        let mut spec = spec.clone();
        spec["drives"] = json!([{ "drive_id": "data", "is_root_device": false, "path_on_host": path }]);
        assert!(!error_of(&host, "elsewhere", &spec).is_empty(), "{path:?}");
    }
    host.assert_nothing_left();
}

#[test]
fn two_disks_of_one_name_are_two_and_a_link_of_the_operator_s_is_followed() {
    let Some(host) = host() else { return };
    let mut spec = jailed(&host, Guest::Halt);
    let mut disks = Vec::new();
    for (id, byte) in [("one", b'1'), ("two", b'2')] {
        let directory = host.scratch.path().join(id);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("real"), vec![byte; 4096]).unwrap();
        symlink("real", directory.join("disk.img")).unwrap();
        disks.push(
            json!({ "drive_id": id, "is_root_device": false, "path_on_host": directory.join("disk.img") }),
        );
    }
    spec["drives"] = json!(disks);
    let vm = boot(&host, "pair", &spec);
    assert_eq!(attack(&vm, "head -c 1 drives/one; head -c 1 drives/two"), "12");
    for id in ["one", "two"] {
        let about = fs::symlink_metadata(host.scratch.path().join(id).join("real")).unwrap();
        assert_eq!((about.uid(), about.nlink()), (0, 1));
    }
}

#[test]
fn a_disk_that_is_kept_is_the_owner_s() {
    let Some(host) = host() else { return };
    let image = precious(&host, "image");
    let before = state_of(&image);
    let kept = host.scratch.path().join("kept");
    let mut spec = jailed(&host, Guest::Halt);
    spec["mvm"]["disks"] = json!({ "data": { "from": image, "format": "raw", "keep": kept } });
    let vm = boot(&host, "keeper", &spec);
    let user = user_of(&vm);
    let told = attack(&vm, "echo written > drives/data; chmod 4777 drives/data; ls -ln drives/data");
    assert!(told.contains(&user.to_string()), "{told}");
    host.runtime.take_snapshot(&vm, "taken", None).unwrap();
    host.runtime.destroy(&vm).unwrap();
    let about = fs::metadata(&kept).unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777, about.nlink()), (0, 0, 0o600, 1));
    assert!(fs::read(&kept).unwrap().starts_with(b"written"));
    assert_eq!(state_of(&image), before);
    host.runtime.delete_snapshot("taken").unwrap();
    host.assert_nothing_left();
}

/// Links come and go where a drive is mounted while the VM runs.
#[test]
fn a_mount_that_is_made_while_links_come_and_go_makes_no_other_one_writable() {
    let Some(host) = host() else { return };
    let vm = boot(&host, "racer", &jailed_with_disk(&host));
    let disks = ["one", "two"].map(|name| precious(&host, name));
    attack(&vm, "mkdir fake");
    let flip = r#"perl -e '$link = "../boot-source/kernel_image_path"; for (1..1000) {
        rename "drives", "real"; rename "fake", "drives"; rename "drives", "fake"; rename "real", "drives";
        -l "fake/data" or (unlink("fake/data"), symlink($link, "fake/data")) }'"#;
    let siege = Siege::of(&vm, flip);
    let mut updated = 0;
    for round in 0..1000 {
        updated += usize::from(vm.update_drive("data", Some(&disks[round % 2]), None).is_ok());
    }
    drop(siege);
    eprintln!("{updated} of 1000 updates were made");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", vm.pid().unwrap())).unwrap();
    let kernels = mounts.lines().filter(|line| line.contains("halt.elf")).collect::<Vec<_>>();
    assert!(!kernels.is_empty(), "{mounts}");
    for line in kernels {
        assert!(line.split(' ').nth(5).unwrap().starts_with("ro,nosuid,nodev,noexec"), "{mounts}");
    }
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}
