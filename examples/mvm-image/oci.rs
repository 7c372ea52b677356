//! An OCI image layout on disk, as `skopeo copy docker://debian:12 oci:DIR` makes it, and `docker save` since Docker 25.

use crate::problem::Problem;
use hmac_sha256::Hash;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longer than any index or manifest.
const LONGEST: u64 = 4 << 20;
const DEEPEST: usize = 4;

/// The layers of the image in the layout at `directory`, the lowest first: open, and what their digests say.
pub fn layers(directory: &Path, reference: Option<&str>) -> Result<Vec<(File, PathBuf)>, Problem> {
    let index = json(&mut open(&directory.join("index.json"))?, "index.json")?;
    let mut manifest = choose(&index, reference)?;
    for _ in 0..DEEPEST {
        let document = json(&mut blob(directory, &manifest)?.0, "a manifest")?;
        if document.get("layers").is_some() {
            let layers = document["layers"].as_array().ok_or_else(|| wrong("its layers are no list"))?;
            return layers.iter().map(|layer| blob(directory, layer)).collect();
        }
        manifest = choose(&document, None)?;
    }
    Err(wrong("its indexes lead to no manifest"))
}

/// The manifest of an index for this machine.
fn choose(index: &Value, reference: Option<&str>) -> Result<Value, Problem> {
    let all =
        index.get("manifests").and_then(Value::as_array).ok_or_else(|| wrong("an index has no manifests"))?;
    let name = |manifest: &Value| {
        Some(manifest.get("annotations")?.get("org.opencontainers.image.ref.name")?.as_str()?.to_owned())
    };
    let named = all.iter().filter(|manifest| reference.is_none() || name(manifest).as_deref() == reference);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |manifest: &&Value| {
        let platform = manifest.get("platform");
        platform.is_none_or(|platform| platform["architecture"] == architecture && platform["os"] == "linux")
    };
    let mut fitting = named.filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => {
            Err(wrong(&format!("it has no image for linux/{architecture}, or none of the name in --ref")))
        }
        (Some(_), Some(_)) => {
            let names = all.iter().filter_map(name).collect::<Vec<_>>();
            Err(wrong(&format!("it has more than one: choose by --ref, of {}", names.join(", "))))
        }
    }
}

/// The blob of a descriptor, after its content was found to be what its digest says.
fn blob(directory: &Path, descriptor: &Value) -> Result<(File, PathBuf), Problem> {
    let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    let is_one =
        |hex: &&str| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let hex = digest
        .strip_prefix("sha256:")
        .filter(is_one)
        .ok_or_else(|| wrong("a digest is not one of SHA-256"))?;
    let path = directory.join("blobs/sha256").join(hex);
    let mut file = open(&path)?;
    let (mut hash, mut buffer) = (Hash::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(Problem::file("read", &path))? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    if crate::hexadecimal(&hash.finalize()) != hex {
        return Err(wrong(&format!("the blob {hex} is damaged: its SHA-256 is another one")));
    }
    file.seek(SeekFrom::Start(0)).map_err(Problem::file("read", &path))?;
    Ok((file, path))
}

fn open(path: &Path) -> Result<File, Problem> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(Problem::file("open", path))?;
    match file.metadata() {
        Ok(about) if about.is_file() => Ok(file),
        _ => Err(wrong(&format!("{} is not a file", path.display()))),
    }
}

fn json(file: &mut File, what: &str) -> Result<Value, Problem> {
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(Problem::file("read", what))?;
    serde_json::from_str(&text).map_err(|error| wrong(&format!("{what} is not JSON: {error}")))
}

fn wrong(what: &str) -> Problem {
    Problem::Oci { what: what.to_owned() }
}
