//! What the library promises to a linker and to a C compiler: the header, the exports, the names in the binary.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::panic)]

use mvm::capi::{events, log, snapshot, status, vm};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed_header() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/mvm.h")).unwrap()
}

/// The shared library of this build.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libmvm.so")
}

/// The function whose declaration begins on this line.
fn declared_function(line: &str) -> Option<&str> {
    let (before, _) = line.split_once('(')?;
    let is_a_declaration =
        ["mvm_status ", "const char *", "uint32_t ", "void "].iter().any(|t| line.starts_with(t));
    before.rsplit([' ', '*']).next().filter(|name| is_a_declaration && name.starts_with("mvm_"))
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(library()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} (of binutils) is needed: {error}"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_committed_header_is_the_one_that_the_source_makes() {
    let made = std::fs::read_to_string(concat!(env!("OUT_DIR"), "/mvm.h")).unwrap();
    assert_eq!(committed_header(), made, "include/mvm.h is stale: build, and commit it");
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let header = committed_header();
    let declared: BTreeSet<_> = header.lines().filter_map(declared_function).collect();
    let symbols = output_of("nm", &["-D", "--defined-only"]);
    let exported: BTreeSet<_> = symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(exported, declared);
    assert!(exported.len() > 25, "{exported:?}");
}

#[test]
fn the_library_has_its_abis_name_and_is_never_unloaded() {
    let dynamic = output_of("readelf", &["-d"]);
    let abi = format!("[libmvm.so.{}.{}]", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert!(dynamic.contains(&abi), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_versions_in_the_header_are_the_packages() {
    let header = committed_header();
    for (name, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        assert!(header.contains(&format!("#define MVM_VERSION_{name} {value}\n")));
    }
}

#[test]
fn every_function_of_the_header_says_whether_it_blocks_and_since_when() {
    let header = committed_header();
    for declaration in header.match_indices("\nmvm_status mvm_").map(|(at, _)| at) {
        let comment = &header[header[..declaration].rfind("/**").unwrap()..declaration];
        let name = header[declaration + 1..].lines().next().unwrap();
        assert!(comment.contains("Blocks: ") && comment.contains("Since 0."), "{name}");
        assert!(comment.contains("Errors: "), "{name}");
    }
}

#[test]
fn every_constant_of_an_enum_has_a_name_which_is_its_own() {
    let header = committed_header();
    for (prefix, name_of) in [
        ("MVM_STATE_", vm::mvm_state_name as extern "C" fn(i32) -> *const c_char),
        ("MVM_SHUTDOWN_", vm::mvm_outcome_name),
        ("MVM_EXIT_", status::mvm_exit_name),
        ("MVM_EVENT_", events::mvm_event_name),
        ("MVM_LOG_", log::mvm_log_level_name),
        ("MVM_SNAPSHOT_", snapshot::mvm_snapshot_kind_name),
        ("MVM_OK", status::mvm_status_name),
        ("MVM_ERR_", status::mvm_status_name),
    ] {
        // SAFETY: the strings are constants.
        let name = |number| unsafe { CStr::from_ptr(name_of(number)) }.to_str().unwrap();
        let constants = header.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
        let constants = constants.filter(|(constant, _)| constant.starts_with(prefix));
        let numbers = constants.map(|(constant, number)| (constant, number.parse::<i32>().unwrap()));
        let numbers = numbers.collect::<Vec<_>>();
        for (constant, number) in &numbers {
            let is_a_status = prefix == "MVM_OK" || prefix == "MVM_ERR_";
            let own =
                if is_a_status { (*constant).to_owned() } else { constant[prefix.len()..].to_lowercase() };
            assert_eq!(name(*number), own);
        }
        assert_eq!(name(99), "unknown");
        assert!(!numbers.is_empty(), "{prefix}");
    }
}
