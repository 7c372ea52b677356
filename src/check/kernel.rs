//! The kernel: its release and its calls, its devices, its memory, and what it does against leaks between tenants.

use super::Purpose::{HugePages, Isolation, Jail, Network, Pager, Run};
use super::Status::{Limited, No};
use super::{Finding, Purpose, number, read};
use crate::causes::with_causes;
use crate::host::{Device, DeviceError, huge_pages};
use crate::json::object;
use crate::sys::file::names_in;
use serde_json::Value;
use std::path::Path;

pub(super) fn look() -> Vec<Finding> {
    let mut findings = vec![
        release(),
        device("kvm", Run, Device::Kvm),
        memory(),
        device("userfaultfd", Pager, Device::Userfault),
        device("tun", Network, Device::Tun),
        huge_pages(),
    ];
    findings.extend([seccomp(), swap(), same_pages(), threads()].into_iter().flatten());
    findings.push(vulnerabilities());
    findings
}

fn release() -> Finding {
    const OLDEST: (u32, u32) = (5, 10);
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next()).unwrap_or_default();
    let finding = Finding::yes("kernel", Run, format!("Linux {release}"))
        .seeing(object! { "release": release.as_str() });
    match version < OLDEST {
        true => finding.but(Limited, "Firecracker and the library are made for Linux 5.10 and newer"),
        false => finding,
    }
}

/// Which calls a filter refuses cannot be found out by trying: many end the process that tries.
fn seccomp() -> Option<Finding> {
    const FILTERED: &str = "2";
    let status = read("/proc/thread-self/status").ok()?;
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim();
    Some(match mode {
        FILTERED => Finding::yes("seccomp", Jail, "a seccomp filter limits the system calls of this process").but(
            Limited,
            "a jail needs mount, open_tree, move_mount, mount_setattr, openat2, unshare, pivot_root, chroot, mknod and chown: in a \
             container, allow them (docker run --security-opt seccomp=…)",
        ),
        _ => Finding::yes("seccomp", Jail, "no seccomp filter limits the system calls of this process"),
    })
}

fn device(name: &'static str, purpose: Purpose, device: Device) -> Finding {
    let path = device.path().display();
    let (text, problem) = match device.check() {
        Ok(()) => (format!("{path} can be used"), None),
        Err(error) => (with_causes(&error), Some(error)),
    };
    let errno = problem.as_ref().and_then(DeviceError::errno);
    let finding =
        Finding::yes(name, purpose, text).seeing(object! { "path": path.to_string(), "errno": errno });
    match problem {
        None => finding,
        Some(error) => finding.but(No, error.advice()),
    }
}

/// Guests are promised memory that they use later.
fn memory() -> Finding {
    const NEVER_MORE_THAN_THERE_IS: u64 = 2;
    let overcommit = number("/proc/sys/vm/overcommit_memory");
    let finding = Finding::yes(
        "memory",
        Run,
        match overcommit {
            Some(NEVER_MORE_THAN_THERE_IS) => {
                "the kernel promises no more memory than there is (vm.overcommit_memory is 2)"
            }
            _ => "the kernel promises guests memory that they use later",
        },
    );
    let finding = finding.seeing(object! { "overcommit": overcommit, "transparent_huge_pages": chosen("/sys/kernel/mm/transparent_hugepage/enabled") });
    match overcommit {
        Some(NEVER_MORE_THAN_THERE_IS) => finding.but(
            Limited,
            "set the sysctl vm.overcommit_memory to 0 or 1: otherwise the whole memory of each guest counts as used from its start",
        ),
        _ => finding,
    }
}

fn huge_pages() -> Finding {
    let pool = huge_pages::pool();
    let (total, free) = (pool.map(|pool| pool.total), pool.map(|pool| pool.available));
    let shown = free.unwrap_or_default();
    let finding = Finding::yes("huge_pages", HugePages, format!("{shown} huge pages of 2 MiB are free"))
        .seeing(object! { "total": total, "free": free });
    match (total, free) {
        (None, _) => finding.but(No, "use a kernel with CONFIG_HUGETLBFS"),
        (_, Some(0) | None) => {
            finding.but(No, "reserve some, one for 2 MiB of guest memory: sysctl vm.nr_hugepages=…")
        }
        _ => finding,
    }
}

fn swap() -> Option<Finding> {
    let areas = read("/proc/swaps").ok()?.lines().count().saturating_sub(1);
    Some(match areas {
        0 => Finding::yes("swap", Isolation, "there is no swap"),
        _ => Finding::yes("swap", Isolation, format!("{areas} swap areas are in use")).but(
            Limited,
            "run `swapoff -a`, or use encrypted swap: guests' memory may stay on the disk, and diff snapshots of guests that do not \
             track dirty pages become full ones",
        ),
    })
}

fn same_pages() -> Option<Finding> {
    const RUNNING: u64 = 1;
    Some(match number("/sys/kernel/mm/ksm/run")? {
        RUNNING => Finding::yes("ksm", Isolation, "the kernel merges equal pages")
            .but(Limited, "echo 0 > /sys/kernel/mm/ksm/run: a tenant can find out which pages others have"),
        _ => Finding::yes("ksm", Isolation, "the kernel does not merge equal pages"),
    })
}

fn threads() -> Option<Finding> {
    let active = number("/sys/devices/system/cpu/smt/active")?;
    Some(match active {
        0 => Finding::yes("smt", Isolation, "no two threads share a CPU core (SMT is off)"),
        _ => Finding::yes("smt", Isolation, "two threads share a CPU core (SMT is on)").but(
            Limited,
            "for tenants that do not trust each other, boot with nosmt=force, or give each tenant whole cores (cpuset)",
        ),
    })
}

fn vulnerabilities() -> Finding {
    const PLACE: &str = "/sys/devices/system/cpu/vulnerabilities";
    let names = names_in(Path::new(PLACE)).unwrap_or_default();
    let told = |name: &std::ffi::OsString| {
        let said = read(Path::new(PLACE).join(name)).ok()?;
        said.starts_with("Vulnerable").then(|| name.to_string_lossy().into_owned())
    };
    let open = names.iter().filter_map(told).collect::<Vec<_>>();
    let text = match (names.is_empty(), open.is_empty()) {
        (true, _) => "the kernel does not tell to what its CPUs are vulnerable".to_owned(),
        (_, true) => "the kernel mitigates all vulnerabilities of its CPUs that it knows".to_owned(),
        _ => format!("the CPUs are vulnerable to {}", open.join(", ")),
    };
    let finding = Finding::yes("cpu_vulnerabilities", Isolation, text);
    match open.is_empty() && !names.is_empty() {
        true => finding,
        false => finding.seeing(object! { "vulnerable": open }).but(
            Limited,
            format!("update kernel and microcode, and do not boot with mitigations=off; see {PLACE}"),
        ),
    }
}

/// The word in brackets, of those that a file of /sys offers.
fn chosen(path: &str) -> Value {
    let text = read(path).unwrap_or_default();
    let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map_or(Value::Null, |(word, _)| word.into())
}
