//! What a host can do for VMs, found out before a runtime is opened.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Host, Scratch, firecracker, keeper, told};
use mvm::Runtime;
use mvm::check::{CheckReport, Finding, Purpose, Status};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn options() -> String {
    json!({ "firecracker": firecracker(), "keeper": keeper() }).to_string()
}

fn check(directory: &Path, options: &str) -> CheckReport {
    Runtime::check(Some(directory), Some(options)).unwrap()
}

fn finding<'a>(report: &'a CheckReport, name: &str) -> &'a Finding {
    report.findings().iter().find(|finding| finding.name() == name).unwrap()
}

/// All that is below, with when it was changed.
fn everything_in(directory: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut all = vec![(directory.to_path_buf(), directory.metadata().unwrap().modified().unwrap())];
    for entry in entries {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(everything_in(&entry.path())),
            false => all.push((entry.path(), entry.metadata().unwrap().modified().unwrap())),
        }
    }
    all.sort();
    all
}

#[test]
fn a_report_says_what_this_host_can_do_and_what_to_do_about_the_rest() {
    let scratch = Scratch::new();
    let report = check(&scratch.path().join("state"), &options());
    for name in ["keeper", "state_directory", "proc"] {
        assert_eq!(finding(&report, name).status(), Status::Yes, "{report}");
    }
    // An old release has problems that a newer one has not.
    assert_ne!(finding(&report, "firecracker").status(), Status::No, "{report}");
    for found in report.findings() {
        assert!(!found.text().is_empty() && !found.text().contains('\n'), "{report}");
        assert_eq!(found.advice().is_some(), found.status() != Status::Yes, "{report}");
        assert!(report.can(found.purpose()) >= found.status());
    }
    let names = report.findings().iter().map(Finding::name).collect::<BTreeSet<_>>();
    assert_eq!(names.len(), report.findings().len(), "each has a name of its own");
}

#[test]
fn the_text_and_the_json_say_the_same() {
    let report = Runtime::check(None, None).unwrap();
    let (text, json) = (report.to_string(), report.json());
    for finding in json["findings"].as_array().unwrap() {
        let words = ["name", "status", "text"].map(|key| finding[key].as_str().unwrap());
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(json["can"][finding["for"].as_str().unwrap()].is_string());
    }
}

#[test]
fn the_reference_has_every_finding() {
    let reference = include_str!("../docs/json.md");
    let scratch = Scratch::new();
    for options in
        ["{}".to_owned(), json!({ "cgroup": "/nowhere", "firecracker": firecracker() }).to_string()]
    {
        for found in check(&scratch.path().join("state"), &options).findings() {
            let row = format!("| `{}` | `{}` |", found.name(), found.purpose().name());
            assert!(reference.contains(&row), "docs/json.md lacks {row}");
        }
    }
}

#[test]
fn a_check_changes_nothing_whether_the_directory_is_there_in_use_or_neither() {
    let host = Host::with_keeper();
    let (used, absent) = (host.scratch.path().join("state"), host.scratch.path().join("a/b"));
    let before = everything_in(host.scratch.path());
    for directory in [&used, &absent] {
        let report = check(directory, &options());
        assert_eq!(finding(&report, "state_directory").status(), Status::Yes, "{report}");
    }
    assert_eq!(everything_in(host.scratch.path()), before);
}

#[test]
fn what_stands_at_a_path_may_be_anything() {
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [&fifo, Path::new("/nowhere"), Path::new("/dev/zero"), Path::new("/"), scratch.path()] {
        let options = json!({ "firecracker": path, "keeper": path, "cgroup": path }).to_string();
        let report = check(&path.join("below"), &options);
        for name in ["firecracker", "keeper", "cgroup", "jailer"] {
            assert_eq!(finding(&report, name).status(), Status::No, "{name} at {}: {report}", path.display());
        }
        assert_eq!(report.can(Purpose::Run), Status::No);
    }
    let report = check(&fifo, "{}");
    assert_eq!(finding(&report, "state_directory").status(), Status::No, "{report}");
}

#[test]
fn a_state_directory_that_others_may_write_to_is_reported_as_opening_it_would() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = told(&Runtime::open(scratch.path(), None).unwrap_err());
    let report = check(scratch.path(), "{}");
    let found = finding(&report, "state_directory");
    assert_eq!(found.status(), Status::No);
    assert!(refused.contains(found.text()) && found.text().contains("chmod go-w"), "{refused}");
}

#[test]
fn options_that_are_wrong_are_an_error_of_the_check() {
    let error = Runtime::check(None, Some(r#"{"firecraker":"/x"}"#)).unwrap_err();
    assert_eq!(error.stage(), "runtime_check");
    assert!(told(&error).contains("did you mean \"firecracker\""), "{error}");
}

#[test]
fn what_was_seen_is_there_for_programs() {
    let scratch = Scratch::new();
    let json = check(&scratch.path().join("state"), &options()).json();
    let seen = |name: &str| {
        let findings = json["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["name"] == name).unwrap()["seen"].clone()
    };
    assert_eq!(seen("kvm")["path"], "/dev/kvm");
    assert!(seen("state_directory")["free_bytes"].is_u64());
    assert!(seen("firecracker")["version"].as_str().unwrap().starts_with("1."));
    assert_eq!(seen("state_directory")["owner"], Value::Null, "it is not there yet");
}
