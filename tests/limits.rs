//! VMs with limits: in cgroups that the library makes for each, in whatever hierarchies this machine has.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::guest::Guest;
use common::{Host, eventually, told};
use mvm::runtime::EventKind;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The cgroups of a VM's own, by the hierarchy's root. A VMM is asked where it is.
fn own_cgroups(vm: &mvm::Vm) -> Vec<PathBuf> {
    let listed = fs::read_to_string(format!("/proc/{}/cgroup", vm.pid().unwrap())).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root_of = |controllers: &str| {
        mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let of_version_1 = || system.split(' ').nth(2).is_some_and(|all| all.ends_with(controllers));
            let is_it = if controllers.is_empty() { system.starts_with("cgroup2") } else { of_version_1() };
            (is_it && system.starts_with("cgroup")).then(|| PathBuf::from(mount.split(' ').nth(4).unwrap()))
        })
    };
    let own =
        listed.lines().filter(|line| line.rsplit('/').next().is_some_and(|name| name.starts_with("mvm-")));
    own.map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let root = root_of(fields.next().unwrap()).unwrap();
        root.join(fields.next().unwrap().trim_start_matches('/'))
    })
    .collect()
}

fn limited(host: &Host, limits: Value) -> Value {
    let mut spec = host.spec(Guest::Halt);
    spec["mvm"]["limits"] = limits;
    // Machines differ in where this user may make cgroups.
    spec["mvm"]["cgroup_parent"] = json!(std::env::var("MVM_TEST_CGROUP_PARENT").ok());
    spec
}

/// A cgroup of version 2 that is not the library's.
fn foreign(name: &str) -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    let path = root.join(format!("mvm-test-{}-{name}", std::process::id()));
    fs::create_dir(&path).ok().map(|()| path)
}

fn processes(cgroup: &Path) -> String {
    fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().trim().to_owned()
}

/// What the file called `name` says in that of `cgroups` that has it.
fn says(cgroups: &[PathBuf], name: &str) -> String {
    let found = cgroups.iter().find_map(|cgroup| fs::read_to_string(cgroup.join(name)).ok());
    found.unwrap_or_else(|| panic!("no {name} in {cgroups:?}")).trim().to_owned()
}

fn has(controller: &str) -> bool {
    let all = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    all.lines().any(|line| line.starts_with(&format!("{controller}\t")) && line.ends_with('1'))
}

/// Whether this process may make cgroups of VMs: where it may not, a test says that it was skipped.
fn may_limit() -> bool {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer"].map(Path::new);
    let is_hierarchy = |root: &&Path| root.join("cgroup.procs").exists();
    let may_make_in = |root: &Path| {
        let path = root.join(format!("mvm-try-{}-{:?}", std::process::id(), std::thread::current().id()));
        fs::create_dir(&path).is_ok() && fs::remove_dir(&path).is_ok()
    };
    let may = roots.into_iter().find(is_hierarchy).is_some_and(may_make_in);
    if !may {
        eprintln!("skipped: no cgroups may be made here");
    }
    may
}

fn assert_gone(cgroups: &[PathBuf]) {
    assert!(!cgroups.is_empty());
    for cgroup in cgroups {
        assert!(!cgroup.exists(), "{} is still there", cgroup.display());
    }
}

#[test]
fn a_vm_with_limits_has_a_cgroup_of_its_own_for_each_start() {
    if !may_limit() {
        return;
    }
    let host = Host::new();
    let vm = host.runtime.create("limited", &limited(&host, json!({})).to_string()).unwrap();
    let first = own_cgroups(&vm);
    let parent = std::env::var("MVM_TEST_CGROUP_PARENT").unwrap_or("/mvm".to_owned());
    let is_in_parent = |one: &PathBuf| one.parent().unwrap().ends_with(parent.trim_start_matches('/'));
    assert!(!first.is_empty() && first.iter().all(is_in_parent), "{first:?}");
    vm.start().unwrap();
    vm.kill().unwrap();
    assert_gone(&first);
    vm.start().unwrap();
    let second = own_cgroups(&vm);
    assert_ne!(first, second);
    host.runtime.destroy(&vm).unwrap();
    assert_gone(&second);
    host.assert_nothing_left();
}

#[test]
fn each_limit_is_set_before_the_vmm_runs() {
    if !may_limit() || !["cpu", "memory", "pids", "cpuset"].iter().all(|one| has(one)) {
        return eprintln!("skipped: not all controllers are here");
    }
    let host = Host::new();
    let limits = json!({
        "cpus": 1.5, "cpu_weight": 50, "cpuset_cpus": "0", "memory_mib": 192, "pids": 77
    });
    let vm = host.runtime.create("limited", &limited(&host, limits).to_string()).unwrap();
    let own = own_cgroups(&vm);
    let pid = vm.pid().unwrap().to_string();
    for cgroup in &own {
        assert_eq!(processes(cgroup), pid, "{}", cgroup.display());
    }
    assert_eq!(says(&own, "pids.max"), "77");
    assert_eq!(says(&own, "cpuset.cpus"), "0");
    let is_of_version_1 = own.iter().any(|cgroup| cgroup.join("cpu.cfs_quota_us").exists());
    if is_of_version_1 {
        assert_eq!(says(&own, "cpu.cfs_quota_us"), "150000");
        assert_eq!(says(&own, "cpu.shares"), "512");
        assert_eq!(says(&own, "memory.limit_in_bytes"), (192 << 20).to_string());
        assert_eq!(says(&own, "memory.swappiness"), "0");
        assert_ne!(says(&own, "cpuset.mems"), "");
    } else {
        assert_eq!(says(&own, "cpu.max"), "150000 100000");
        assert_eq!(says(&own, "cpu.weight"), "50");
        assert_eq!(says(&own, "memory.max"), (192 << 20).to_string());
        assert_eq!(says(&own, "memory.swap.max"), "0");
    }
    vm.start().unwrap();
    host.runtime.destroy(&vm).unwrap();
    assert_gone(&own);
    host.assert_nothing_left();
}

#[test]
fn a_limit_on_io_is_set_for_the_disk_that_a_path_is_on() {
    let host = Host::new();
    let limits = |path: &Path| json!({ "io": [{ "path": path, "read_bytes_per_second": 1_048_576 }] });
    if !may_limit() || !has("blkio") {
        return eprintln!("skipped: no controller of I/O is here");
    }
    let vm = match host.runtime.create("slow", &limited(&host, limits(host.scratch.path())).to_string()) {
        Err(error) if told(&error).contains("no block device") => {
            return eprintln!("skipped: {}", told(&error));
        }
        made => made.unwrap(),
    };
    let own = own_cgroups(&vm);
    let old = own.iter().any(|cgroup| cgroup.join("blkio.throttle.read_bps_device").exists());
    let text = says(&own, if old { "blkio.throttle.read_bps_device" } else { "io.max" });
    assert!(text.contains("1048576"), "{text}");
    host.runtime.destroy(&vm).unwrap();
    let error = host.runtime.create("slow", &limited(&host, limits(Path::new("/proc/self"))).to_string());
    let text = told(&error.unwrap_err());
    assert!(text.contains("mvm.limits.io") && text.contains("/proc/self"), "{text}");
    host.assert_nothing_left();
}

#[test]
fn the_owners_crash_leaves_no_cgroup() {
    if !may_limit() {
        return;
    }
    let mut host = Host::new();
    let vm = host.runtime.create("kept", &limited(&host, json!({})).to_string()).unwrap();
    let own = own_cgroups(&vm);
    drop(vm);
    // Adopted, it is where it was, and goes with its cgroup.
    host.change_owner();
    let vm = host.runtime.vm("kept").unwrap();
    assert_eq!(own_cgroups(&vm), own);
    let pid = vm.pid().unwrap();
    drop(vm);
    // The VMM ends while no owner is there.
    host.without_owner(|| {
        assert!(
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
        );
    });
    assert_gone(&own);
    host.runtime.reap(mvm::ReapOptions::default()).unwrap();
    host.assert_nothing_left();
}

#[test]
fn a_creation_that_was_cut_off_leaves_no_cgroup() {
    if !may_limit() {
        return;
    }
    let mut host = Host::new();
    let vm = host.runtime.create("half", &limited(&host, json!({})).to_string()).unwrap();
    let own = own_cgroups(&vm);
    drop(vm);
    host.edit_journal("half", |journal| {
        journal["stage"] = json!("creating");
        journal["vmm"]["progress"] = json!("starting");
        journal["vmm"]["process"] = Value::Null;
    });
    host.change_owner();
    assert_gone(&own);
    host.assert_nothing_left();
}

#[test]
fn a_jailed_vm_is_in_its_cgroup_from_the_jailer_on() {
    if !may_limit() || !has("pids") {
        return eprintln!("skipped: no controller of processes is here");
    }
    let mut host = Host::new();
    let mut spec = limited(&host, json!({ "pids": 60, "memory_mib": 200 }));
    spec["mvm"]["jail"] = json!({ "jailer": common::jailer() });
    let vm = match host.runtime.create("jailed", &spec.to_string()) {
        Err(error) if told(&error).contains("CAP_") => return eprintln!("skipped: {}", told(&error)),
        made => made.unwrap_or_else(|error| panic!("{}", told(&error))),
    };
    vm.start().unwrap();
    let own = own_cgroups(&vm);
    assert_eq!(says(&own, "pids.max"), "60");
    assert!(own.iter().all(|cgroup| processes(cgroup).contains(&vm.pid().unwrap().to_string())));
    vm.kill().unwrap();
    assert_gone(&own);
    vm.start().unwrap();
    let own = own_cgroups(&vm);
    drop(vm);
    host.change_owner();
    host.runtime.destroy(&host.runtime.vm("jailed").unwrap()).unwrap();
    assert_gone(&own);
    host.assert_nothing_left();
}

#[test]
fn a_vm_whose_journal_is_damaged_or_gone_is_reaped_with_its_cgroup() {
    if !may_limit() {
        return;
    }
    let mut host = Host::new();
    let create = |host: &Host, id: &str| {
        own_cgroups(&host.runtime.create(id, &limited(host, json!({})).to_string()).unwrap())
    };
    let own = [create(&host, "damaged"), create(&host, "moved")].concat();
    host.without_owner_but(|directory| {
        let vms = directory.join("state/vms");
        fs::write(vms.join("damaged/journal.json"), "nothing of use").unwrap();
        fs::rename(vms.join("moved"), directory.join("away")).unwrap();
    });
    let reaped =
        host.runtime.reap(mvm::ReapOptions { damaged: true, ..mvm::ReapOptions::default() }).unwrap();
    assert_eq!(reaped["damaged"].as_array().unwrap().len(), 2, "{reaped}");
    assert_gone(&own);
    host.assert_nothing_left();
}

#[test]
fn many_vms_come_and_go_at_once_in_the_usual_parent() {
    if !may_limit() {
        return;
    }
    let host = Host::simulated();
    let mut spec = limited(&host, json!({}));
    spec["mvm"]["deadlines"]["create_ms"] = json!(common::AMPLE.as_millis());
    let spec = spec.to_string();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (host, spec) = (&host, &spec);
            scope.spawn(move || {
                for round in 0..4 {
                    let vm = host.runtime.create(&format!("vm-{number}-{round}"), spec).unwrap();
                    host.runtime.destroy(&vm).unwrap();
                }
            });
        }
    });
    host.assert_nothing_left();
}

#[test]
fn a_start_that_fails_leaves_no_cgroup() {
    if !may_limit() {
        return;
    }
    let host = Host::simulated();
    let parent = format!("/mvm-test-{}-fails", std::process::id());
    let mut spec = host.faulty_spec(Guest::Halt, &["exit@1"]);
    spec["mvm"]["limits"] = json!({});
    spec["mvm"]["cgroup_parent"] = json!(parent);
    host.runtime.create("fails", &spec.to_string()).unwrap_err();
    let parents = parents_called(&parent);
    assert!(!parents.is_empty());
    for path in &parents {
        let children = fs::read_dir(path).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert_eq!(children, 0, "{}", path.display());
        fs::remove_dir(path).unwrap();
    }
    host.assert_nothing_left();
}

/// In each hierarchy that has it.
fn parents_called(name: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    let all = roots.into_iter().map(|root| root.join(name.trim_start_matches('/')));
    all.filter(|path| path.is_dir()).collect()
}

#[test]
fn what_has_left_the_vmms_session_ends_with_its_cgroup() {
    if !may_limit() {
        return;
    }
    let host = Host::simulated();
    let simulator = common::simulator();
    let pids = host.scratch.path().join("pids");
    let script = common::script(
        host.scratch.path(),
        "wrapper",
        &format!(
            "case \"$*\" in *--version*|*--snapshot-version*) exec {0} \"$@\";; esac\n\
             cd /\n(setsid sh -c 'echo $$ > {1}; exec sleep 1000' </dev/null >/dev/null 2>&1 &)\n\
             while ! [ -s {1} ]; do sleep 0.01; done\ncd \"$OLDPWD\"\nexec {0} \"$@\"",
            simulator.display(),
            pids.display()
        ),
    );
    let mut spec = limited(&host, json!({}));
    spec["mvm"]["firecracker"] = json!(script);
    let vm = host.runtime.create("wrapped", &spec.to_string()).unwrap();
    let left = fs::read_to_string(&pids).unwrap().trim().to_owned();
    let own = own_cgroups(&vm);
    assert!(Path::new("/proc").join(&left).exists());
    host.runtime.destroy(&vm).unwrap();
    assert_gone(&own);
    let state = fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    host.assert_nothing_left();
}

#[test]
fn an_altered_journal_ends_and_removes_nothing_elsewhere() {
    let (Some(other), Some(empty)) = (foreign("victim"), foreign("empty")) else {
        return eprintln!("skipped: no cgroup v2 to make one in");
    };
    let mut victim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(other.join("cgroup.procs"), victim.id().to_string()).unwrap();
    let directory = common::Scratch::new();
    let no_cgroup = directory.path().join("mvm-0123456789abcdef");
    fs::create_dir(&no_cgroup).unwrap();
    let mut host = Host::new();
    drop(host.runtime.create("altered", &limited(&host, json!({})).to_string()).unwrap());
    host.edit_journal("altered", |journal| {
        let claims = journal["vmm"]["claims"].as_array_mut().unwrap();
        let inside = claims.iter().find_map(|claim| claim["cgroup"]["path"].as_str()).unwrap().to_owned();
        let up = format!("{inside}/../../{}", other.file_name().unwrap().to_str().unwrap());
        for path in [&json!(other), &json!(empty), &json!(no_cgroup), &json!(up)] {
            claims.push(json!({ "cgroup": { "path": path } }));
        }
    });
    host.change_owner();
    host.runtime.destroy(&host.runtime.vm("altered").unwrap()).unwrap();
    assert!(no_cgroup.exists() && empty.exists() && processes(&other) == victim.id().to_string());
    host.assert_nothing_left();
    victim.kill().unwrap();
    victim.wait().unwrap();
    for path in [&other, &empty] {
        eventually("it is empty", || fs::remove_dir(path).is_ok());
    }
}

#[test]
fn limits_that_cannot_be_are_told_before_anything_is_made() {
    let host = Host::new();
    for (limits, parent, words) in [
        (json!({ "cpus": 1 }), json!("not/from/the/root"), "cgroup_parent"),
        (json!({ "cpus": 1 }), json!("/sys/fs/cgroup/nowhere/else"), "cgroup_parent"),
        (json!({ "cpus": 0 }), Value::Null, "mvm.limits.cpus"),
        (json!({ "cpu": 1 }), Value::Null, "did you mean \"cpus\""),
        (json!({ "cpuset_cpus": "4000" }), Value::Null, "cpuset"),
    ] {
        let mut spec = limited(&host, limits);
        spec["mvm"]["cgroup_parent"] = parent;
        let text = told(&host.runtime.create("astray", &spec.to_string()).unwrap_err());
        assert!(text.contains(words), "{text}");
    }
    let mut both = limited(&host, json!({}));
    both["mvm"]["cgroup"] = json!("/sys/fs/cgroup");
    let text = told(&host.runtime.create("astray", &both.to_string()).unwrap_err());
    assert!(text.contains("mvm.cgroup and mvm.limits"), "{text}");
    host.assert_nothing_left();
}

#[test]
fn a_vm_that_uses_more_memory_than_it_may_is_killed_and_that_is_told() {
    if !may_limit() || !has("memory") {
        return eprintln!("skipped: no controller of memory is here");
    }
    let host = Host::new();
    let mut spec = limited(&host, json!({ "memory_mib": 24 }));
    spec["boot-source"]["kernel_image_path"] = json!(host.kernel(Guest::Dirty));
    let vm = host.runtime.create("hungry", &spec.to_string()).unwrap();
    // The VMM may be gone before it has answered.
    let started = vm.start();
    vm.wait(common::AMPLE).unwrap();
    let info = vm.info().unwrap();
    assert_eq!((&info["state"], &info["out_of_memory"]), (&json!("failed"), &json!(true)), "{info}");
    if let Err(error) = started {
        assert!(told(&error).contains("mvm.limits.memory_mib"), "{}", told(&error));
    }
    let next = || host.runtime.next_event(std::time::Duration::ZERO).unwrap();
    let events = std::iter::from_fn(next).map(|event| event.kind).collect::<Vec<_>>();
    let told = events.iter().position(|kind| *kind == EventKind::OutOfMemory).unwrap();
    assert!(matches!(events[told + 1], EventKind::Exited(_)), "{events:?}");
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn an_end_by_the_memory_limit_that_no_owner_saw_is_told_to_the_next() {
    if !may_limit() || !has("memory") {
        return eprintln!("skipped: no controller of memory is here");
    }
    let mut host = Host::new();
    let spec = limited(&host, json!({ "memory_mib": 24 }));
    let vm = host.runtime.create("hungry", &spec.to_string()).unwrap();
    let own = own_cgroups(&vm);
    let vmm = vm.pid().unwrap();
    drop(vm);
    host.without_owner(|| {
        // Beside the VMM, as a part of it would.
        let cgroups = own.iter().map(|cgroup| format!("echo $$ > {}/cgroup.procs\n", cgroup.display()));
        let script = format!("{}exec tail /dev/zero", cgroups.collect::<String>());
        let hungry = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(!hungry.success());
        let _or_gone_with_it = std::process::Command::new("kill").args(["-9", &vmm.to_string()]).status();
    });
    let info = host.runtime.vm("hungry").unwrap().info().unwrap();
    assert_eq!(info["out_of_memory"], true, "{info}");
    assert_gone(&own);
}

#[test]
fn a_vmm_that_cannot_even_come_up_within_its_limit_says_which_one() {
    if !may_limit() || !has("memory") {
        return eprintln!("skipped: no controller of memory is here");
    }
    let host = Host::simulated();
    let simulator = common::simulator();
    // It never becomes a VMM, and remembers the first line of a file that has none.
    let body = format!(
        "case \"$*\" in *--version*|*--snapshot-version*) exec {} \"$@\";; esac\nexec tail /dev/zero",
        simulator.display()
    );
    let mut spec = limited(&host, json!({ "memory_mib": 16 }));
    spec["mvm"]["firecracker"] = json!(common::script(host.scratch.path(), "greedy", &body));
    let text = told(&host.runtime.create("tiny", &spec.to_string()).map(drop).unwrap_err());
    assert!(text.contains("mvm.limits.memory_mib"), "{text}");
    host.assert_nothing_left();
}

#[test]
fn a_vmm_that_may_have_no_more_threads_says_which_limit_that_is() {
    if !may_limit() || !has("pids") {
        return eprintln!("skipped: no controller of processes is here");
    }
    let host = Host::simulated();
    let simulator = common::simulator();
    let body =
        format!("case \"$*\" in *version*) exec {} \"$@\";; esac\n/bin/true\nexit 7", simulator.display());
    let mut spec = limited(&host, json!({ "pids": 1 }));
    spec["mvm"]["firecracker"] = json!(common::script(host.scratch.path(), "forking", &body));
    let text = told(&host.runtime.create("alone", &spec.to_string()).map(drop).unwrap_err());
    assert!(text.contains("mvm.limits.pids"), "{text}");
    host.assert_nothing_left();
}

#[test]
fn what_a_vm_uses_is_in_its_metrics_and_its_cgroups_in_its_info() {
    if !may_limit() || !has("memory") || !has("pids") {
        return eprintln!("skipped: not all controllers are here");
    }
    let host = Host::new();
    let plain = host.boot("plain", Guest::Halt);
    assert_eq!(
        (&plain.metrics().unwrap()["cgroup"], &plain.info().unwrap()["cgroups"]),
        (&Value::Null, &json!([]))
    );
    let vm =
        host.runtime.create("counted", &limited(&host, json!({ "memory_mib": 200, "pids": 50 })).to_string());
    let vm = vm.unwrap();
    vm.start().unwrap();
    let listed = vm.info().unwrap()["cgroups"].clone();
    let mut own = own_cgroups(&vm).iter().map(|path| json!(path)).collect::<Vec<_>>();
    let mut listed = listed.as_array().unwrap().clone();
    for paths in [&mut own, &mut listed] {
        paths.sort_by_key(Value::to_string);
    }
    assert_eq!(listed, own);
    let usage = &vm.metrics().unwrap()["cgroup"];
    assert_eq!(
        (&usage["memory_limit_bytes"], &usage["oom_kills"]),
        (&json!(200 << 20), &json!(0)),
        "{usage}"
    );
    assert!(usage["memory_bytes"].as_u64().unwrap() > 0 && usage["pids"].as_u64().unwrap() > 1, "{usage}");
    let text = host.runtime.metrics_text(None).unwrap();
    assert!(text.contains("mvm_vm_cgroup_memory_limit_bytes{vm=\"counted\"} 209715200\n"), "{text}");
    assert!(!text.contains("mvm_vm_cgroup_pids{vm=\"plain\"}"), "{text}");
    vm.kill().unwrap();
    assert_eq!(vm.metrics().unwrap()["cgroup"], Value::Null);
}

#[test]
fn a_vm_that_wants_more_cpu_time_than_it_may_have_waits_for_it() {
    if !may_limit() || !has("cpu") {
        return eprintln!("skipped: no controller of CPU time is here");
    }
    let host = Host::new();
    let mut spec = limited(&host, json!({ "cpus": 0.05 }));
    for deadline in ["create_ms", "start_ms"] {
        spec["mvm"]["deadlines"][deadline] = json!(common::AMPLE.as_millis());
    }
    spec["boot-source"]["kernel_image_path"] = json!(host.kernel(Guest::Flood));
    let vm = host.runtime.create("greedy", &spec.to_string()).unwrap();
    vm.start().unwrap();
    let throttled = |name: &str| vm.metrics().unwrap()["cgroup"][name].as_u64().unwrap();
    eventually("it has waited", || {
        throttled("cpu_throttled_periods") > 2 && throttled("cpu_throttled_us") > 50_000
    });
}

#[test]
fn a_pager_is_in_the_cgroup_of_its_vm_and_stores_what_it_has_recorded_before_that_goes() {
    if !may_limit() {
        return;
    }
    let host = Host::with_keeper();
    let source = host.runtime.create("source", &limited(&host, json!({})).to_string()).unwrap();
    source.start().unwrap();
    host.runtime.take_snapshot(&source, "base", None).unwrap();
    host.runtime.destroy(&source).unwrap();
    let options = json!({ "memory": "pager", "pager": { "record": {} } }).to_string();
    let vm = host.runtime.restore("base", "paged", Some(&options)).unwrap();
    let own = own_cgroups(&vm);
    assert!(!own.is_empty());
    for cgroup in &own {
        // KVM puts a thread of the kernel beside them, which executes nothing.
        let executes = |pid: &&str| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        let inside = processes(cgroup);
        let count = inside.lines().filter(executes).count();
        assert_eq!(count, 2, "the VMM and its pager are in {}", cgroup.display());
    }
    vm.kill().unwrap();
    assert_gone(&own);
    assert_eq!(host.runtime.snapshot_info("base").unwrap()["has_working_set"], true);
    host.runtime.destroy(&vm).unwrap();
    host.assert_nothing_left();
}

#[test]
fn clones_and_members_of_a_pool_have_their_own_cgroups_with_the_limits_of_the_snapshot() {
    if !may_limit() || !has("pids") {
        return eprintln!("skipped: no controller of processes is here");
    }
    let host = Host::new();
    let source = host.runtime.create("source", &limited(&host, json!({ "pids": 60 })).to_string()).unwrap();
    source.start().unwrap();
    host.runtime.take_snapshot(&source, "base", None).unwrap();
    let mut vms = host.runtime.clone_vms("base", 2, None).unwrap();
    let pool = host.runtime.open_pool("warm", r#"{"snapshot":"base","size":1}"#).unwrap();
    eventually("a member waits", || pool.counts().unwrap().ready == 1);
    vms.push(host.runtime.take(&pool, "taken", None).unwrap());
    vms.push(source);
    let all = vms.iter().map(|vm| own_cgroups(vm)).collect::<Vec<_>>();
    for (index, own) in all.iter().enumerate() {
        assert_eq!(says(own, "pids.max"), "60");
        assert!(all.iter().skip(index + 1).flatten().all(|other| !own.contains(other)), "{all:?}");
    }
    host.runtime.destroy_pool(&pool).unwrap();
    for vm in &vms {
        host.runtime.destroy(vm).unwrap();
    }
    all.iter().for_each(|own| assert_gone(own));
    host.assert_nothing_left();
}
