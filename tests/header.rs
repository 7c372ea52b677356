//! What the library promises to a linker and to a C compiler: the header, the exports, the names in the binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed_header() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/mvm.h")).unwrap()
}

/// The shared library of this build.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libmvm.so")
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
    let declared: BTreeSet<_> = header
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '('))
        .filter_map(|word| word.strip_suffix('(').or_else(|| word.split_once('(').map(|(name, _)| name)))
        .filter(|name| {
            name.starts_with("mvm_") && header.contains(&format!("\nmvm_status {name}("))
                || ["mvm_version", "mvm_version_string", "mvm_string_free", "mvm_status_name"].contains(name)
        })
        .collect();
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
