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

/// Makes a manual of what cbindgen writes: comments of one line on one line, a banner where a group begins, and behind
/// each struct that has a size what it is initialized with.
fn polish(header: &str) -> String {
    let header = header.replace("MVM_MUST_USE mvm_", "MVM_MUST_USE\nmvm_");
    let lines = header.lines().collect::<Vec<_>>();
    let zeros = zeros_of_enums(&lines);
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
        if let Some(name) = line.strip_prefix("} ").and_then(|line| line.strip_suffix(';')) {
            let before = &lines[..lines.len() - rest.len()];
            polished.extend(initializer(name, before, &zeros));
        }
    }
    polished.join("\n") + "\n"
}

/// Each enum with the name of its zero.
fn zeros_of_enums<'a>(lines: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let is_zero = |line: &&&str| line.trim_end_matches(',').ends_with(" = 0");
    let starts = lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.strip_prefix("enum ")?)));
    let zeros = starts.filter_map(|(at, name)| Some((name, lines[at..].iter().find(is_zero)?)));
    zeros.filter_map(|(name, zero)| Some((name, zero.split_whitespace().next()?))).collect()
}

/// The macro that initializes a struct which begins with its size; `before` ends with the end of its definition.
fn initializer(name: &str, before: &[&str], zeros: &[(&str, &str)]) -> Option<String> {
    let begin = before.iter().rposition(|line| *line == format!("typedef struct {name} {{"))?;
    let fields = before[begin + 1..].iter().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(';'));
    let values = fields.enumerate().map(|(at, field)| match field.split_once(' ') {
        _ if at == 0 => (field == "uint32_t size").then(|| format!("sizeof({name})")),
        Some((_, array)) if array.ends_with(']') => Some("{0}".to_owned()),
        Some((kind, _)) => {
            let zero = zeros.iter().find(|(name, _)| *name == kind);
            Some(zero.map_or("0", |(_, zero)| zero).to_owned())
        }
        None => None,
    });
    let values = values.collect::<Option<Vec<_>>>()?.join(", ");
    let macro_name = format!("{}_INIT", name.to_uppercase());
    Some(format!(
        "\n/** An empty one, with its size: `{name} it = {macro_name};` */\n#define {macro_name} {{{values}}}"
    ))
}

fn configuration(contract: &str) -> Result<cbindgen::Config, Box<dyn Error>> {
    let [major, minor, patch] =
        ["MAJOR", "MINOR", "PATCH"].map(|part| env::var(format!("CARGO_PKG_VERSION_{part}")));
    let (major, minor, patch) = (major?, minor?, patch?);
    let versions = format!(
        "\n/* The version of this header; see mvm_version(). */\n\
         #define MVM_VERSION_MAJOR {major}\n#define MVM_VERSION_MINOR {minor}\n#define MVM_VERSION_PATCH {patch}\n\
         #define MVM_VERSION_NUMBER (MVM_VERSION_MAJOR * 1000000 + MVM_VERSION_MINOR * 1000 + MVM_VERSION_PATCH)\n\n\
         /* A result that must not be ignored: the compiler warns. Defined before this file is included, it stays as it is. */\n\
         #ifndef MVM_MUST_USE\n\
         #if defined(__GNUC__)\n#define MVM_MUST_USE __attribute__((warn_unused_result))\n\
         #else\n#define MVM_MUST_USE\n#endif\n#endif"
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
    config.function.must_use = Some("MVM_MUST_USE".to_owned());
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
