//! Writes the C header from `src/capi`, and gives the shared library its SONAME.
//!
//! The header goes to OUT_DIR always, and to `include/` only when it differs, so that a read-only source tree
//! builds and a fresh checkout stays as it is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let header = render(&root)?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("mvm.h"), &header)?;
    publish(&root.join("include/mvm.h"), &header)?;
    link_arguments();
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/capi");
    Ok(())
}

fn render(root: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let capi = root.join("src/capi");
    let contract = fs::read_to_string(capi.join("contract.h"))?;
    let mut header = Vec::new();
    let sources = [
        "status", "runtime", "vm", "snapshot", "pool", "devices", "cancel", "events", "console", "metrics",
        "log", "process", "library",
    ];
    let builder = cbindgen::Builder::new().with_config(configuration(&contract)?);
    let builder =
        sources.iter().fold(builder, |builder, file| builder.with_src(capi.join(format!("{file}.rs"))));
    builder.generate()?.write(&mut header);
    Ok(polish(&String::from_utf8(header)?).into_bytes())
}

/// Makes a manual of what cbindgen writes: comments of one line on one line, and a banner where a group begins.
fn polish(header: &str) -> String {
    let lines = header.lines().collect::<Vec<_>>();
    let mut polished = Vec::new();
    let mut rest = lines.as_slice();
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        // A fence keeps a documentation builder from taking JSON for Rust; a C reader needs none.
        if line.trim().starts_with("* ```") {
            continue;
        }
        let indent = " ".repeat(line.len() - line.trim_start().len());
        match (line.trim(), after) {
            ("/**", [only, end, ..]) if end.trim() == "*/" => {
                polished.push(format!("{indent}/** {} */", only.trim().trim_start_matches("* ")));
                rest = &after[2..];
            }
            ("/**", [title, blank, ..]) if title.trim().starts_with("* # ") && blank.trim() == "*" => {
                let title = title.trim().trim_start_matches("* # ").to_uppercase();
                polished.push(format!("/* ======== {title} {}*/\n", "=".repeat(90 - title.len().min(90))));
                polished.push((*line).to_owned());
                rest = &after[2..];
            }
            _ => polished.push((*line).to_owned()),
        }
    }
    polished.join("\n") + "\n"
}

fn configuration(contract: &str) -> Result<cbindgen::Config, Box<dyn Error>> {
    let [major, minor, patch] =
        ["MAJOR", "MINOR", "PATCH"].map(|part| env::var(format!("CARGO_PKG_VERSION_{part}")));
    let (major, minor, patch) = (major?, minor?, patch?);
    let versions = format!(
        "\n/* The version of this header; see mvm_version(). */\n\
         #define MVM_VERSION_MAJOR {major}\n#define MVM_VERSION_MINOR {minor}\n#define MVM_VERSION_PATCH {patch}\n\
         #define MVM_VERSION_NUMBER (MVM_VERSION_MAJOR * 1000000 + MVM_VERSION_MINOR * 1000 + MVM_VERSION_PATCH)"
    );
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(contract.trim_end().to_owned()),
        include_guard: Some("MVM_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(versions),
        cpp_compat: true,
        style: cbindgen::Style::Both,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        line_length: 110,
        tab_width: 2,
        usize_is_size_t: true,
        ..cbindgen::Config::default()
    };
    config.export.exclude = vec!["mvm_test_panic".to_owned()];
    config.function.sort_by = Some(cbindgen::SortKey::None);
    Ok(config)
}

/// Replaces the committed header, at once and only when it differs.
fn publish(path: &Path, header: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == header) {
        return Ok(());
    }
    let aside = path.with_extension(format!("h.{}", std::process::id()));
    match fs::write(&aside, header).and_then(|()| fs::rename(&aside, path)) {
        // Documentation builders, vendored builds and other people's clones have a tree that cannot be written to, and
        // their header is up to date.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        written => written,
    }
}

/// While the major version is 0, each minor version is its own ABI.
fn link_arguments() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // cargo-c names the library itself.
    if env::var_os("CARGO_FEATURE_CAPI").is_none() {
        let (major, minor) = (env::var("CARGO_PKG_VERSION_MAJOR"), env::var("CARGO_PKG_VERSION_MINOR"));
        let abi = match (major.as_deref(), minor.as_deref()) {
            (Ok("0"), Ok(minor)) => format!("0.{minor}"),
            (Ok(major), _) => major.to_owned(),
            (Err(_), _) => return,
        };
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmvm.so.{abi}");
    }
}
