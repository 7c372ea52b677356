use super::*;
use crate::scratch::Scratch;
use std::fs;

/// Directories that look like hierarchies, and do nothing.
fn hybrid(scratch: &Scratch) -> Vec<Hierarchy> {
    let of = |name: &str, version, controllers: &[&str]| {
        let root = scratch.join(name);
        fs::create_dir_all(&root).unwrap();
        Hierarchy { root, version, controllers: controllers.iter().map(|one| (*one).to_owned()).collect() }
    };
    vec![
        of("cpu,cpuacct", Version::One, &["rw", "cpu", "cpuacct"]),
        of("blkio", Version::One, &["rw", "blkio"]),
        of("freezer", Version::One, &["rw", "freezer"]),
        of("unified", Version::Two, &["memory", "pids"]),
    ]
}

fn hand_down(scratch: &Scratch, cgroup: &str, controllers: &str) {
    fs::create_dir_all(scratch.join(cgroup)).unwrap();
    fs::write(scratch.join(cgroup).join(CHILDREN_HAVE), controllers).unwrap();
}

fn written(cgroups: &[Cgroup]) -> Vec<String> {
    let settings = cgroups.iter().flat_map(|cgroup| &cgroup.making().settings);
    settings.map(|setting| format!("{}={}", setting.file, setting.value)).collect()
}

#[test]
fn each_limit_goes_to_the_hierarchy_that_has_its_controller() {
    let scratch = Scratch::new();
    let all = hybrid(&scratch);
    hand_down(&scratch, "unified", "memory pids");
    let limits = CgroupLimits {
        cpus: Some(1.5),
        cpu_weight: Some(50),
        memory_mib: Some(256),
        pids: Some(64),
        ..CgroupLimits::default()
    };
    let cgroups = for_limits_in(&limits, None, &all).unwrap();
    let [cpu, unified] = cgroups.as_slice() else { panic!("{cgroups:?}") };
    assert!(cpu.path().starts_with(scratch.join("cpu,cpuacct/mvm")) && cpu.is_well_named());
    assert!(unified.path().starts_with(scratch.join("unified/mvm")));
    assert_eq!(cpu.path().file_name(), unified.path().file_name());
    assert_eq!(
        written(&cgroups),
        [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=150000",
            "memory.max=268435456",
            "memory.swap.max=0",
            "memory.oom.group=1",
            "pids.max=64",
        ]
    );
    assert_eq!(unified.making().controllers, ["memory", "pids"]);
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    let all = hybrid(&scratch);
    let refused = |limits: &CgroupLimits, parent: Option<&str>| {
        for_limits_in(limits, parent.map(Path::new), &all).unwrap_err().to_string()
    };
    let cpuset = CgroupLimits { cpuset_cpus: Some("0".to_owned()), ..CgroupLimits::default() };
    let text = refused(&cpuset, None);
    assert!(text.contains("\"cpuset\"") && text.contains("unified/cgroup.controllers"), "{text}");
    let memory = CgroupLimits { memory_mib: Some(1), ..CgroupLimits::default() };
    let text = refused(&memory, None);
    assert!(
        text.contains("write \"+memory\" to") && text.contains("unified/cgroup.subtree_control"),
        "{text}"
    );
    let text = refused(&memory, Some("/a/b"));
    assert!(text.contains("unified/a: create it first"), "{text}");
    for path in ["a", "/a/../b", "/sys/fs/cgroup/x"] {
        assert!(refused(&memory, Some(path)).contains("cgroup_parent"), "{path}");
    }
    hand_down(&scratch, "unified/busy", "");
    let busy = scratch.join("unified/busy");
    for (file, text) in [(CONTROLLERS, "memory"), ("cgroup.events", ""), ("cgroup.procs", "1\n")] {
        fs::write(busy.join(file), text).unwrap();
    }
    let text = refused(&memory, Some("/busy"));
    assert!(text.contains("there are processes in it") && text.contains("unified/busy"), "{text}");
    assert_eq!(refused(&memory, busy.to_str()), text, "a path as the host has it is the same");
    // As in a container that sees its own cgroup as the root.
    let below = refused(&memory, Some("/busy/vms"));
    assert_eq!(below, text, "what is to be made in a cgroup with processes cannot be had either");
}

#[test]
fn without_version_2_a_freezer_is_what_processes_are_ended_by() {
    let scratch = Scratch::new();
    let mut all = hybrid(&scratch);
    all.truncate(3);
    let cgroups = for_limits_in(&CgroupLimits::default(), None, &all).unwrap();
    assert!(cgroups.len() == 1 && cgroups[0].path().starts_with(scratch.join("freezer")), "{cgroups:?}");
    let none = for_limits_in(&CgroupLimits::default(), None, &[]).unwrap_err().to_string();
    assert!(none.contains("cgroup_parent"), "{none}");
}
