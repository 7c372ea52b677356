//! Makes an image of a root disk from a directory, a tar archive, an OCI image on disk or an existing image, and puts it into a
//! catalogue with its manifest. It needs e2fsprogs, and neither root nor a network.
#![allow(missing_docs, unreachable_pub, clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod ext4;
mod layers;
mod oci;
mod problem;
mod tree;

use hmac_sha256::Hash;
use layers::{Spool, Whiteouts};
use problem::Problem;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tree::{About, Kind, Tree};

const USAGE: &str = "usage: mvm-image --catalogue DIR --name NAME SOURCE [OPTION]...

SOURCE is one of
  --oci DIR          an OCI image layout (skopeo copy docker://debian:12 oci:DIR)
  --tar FILE         a tar archive of a file system (docker export), gzip or not
  --dir DIR          a directory; files are the users' that own them there, unless --owner says otherwise
  --image FILE       a disk image that exists already: it is copied as it is

OPTION is one of
  --ref NAME         which image of an OCI layout
  --add FILE=/PATH   puts FILE into the image, as root's and executable; may be repeated (not with --dir, --image)
  --owner UID:GID    of all files of --dir
  --size-mib N       size of the image; without it, what the content needs and a little more
  --most-mib N       how much an archive may unpack to (16384)
  --boot-args TEXT   kernel arguments for VMs with this root disk, for the manifest
  --replace          NAME is there already, and gets a new image";

fn main() -> ExitCode {
    let made = Order::parse(std::env::args().skip(1)).and_then(|order| carry_out(&order));
    match made {
        Ok(published) => {
            println!("{}", published.display());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            let mut text = problem.to_string();
            let mut cause = std::error::Error::source(&problem);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            eprintln!("mvm-image: {text}");
            ExitCode::FAILURE
        }
    }
}

/// What is wanted.
#[derive(Debug, Default)]
struct Order {
    catalogue: PathBuf,
    name: String,
    source: Option<(Source, PathBuf)>,
    reference: Option<String>,
    add: Vec<(PathBuf, PathBuf)>,
    owner: Option<(u32, u32)>,
    size_mib: Option<u64>,
    most_mib: u64,
    boot_args: Option<String>,
    replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Oci,
    Tar,
    Directory,
    Image,
}

impl Order {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, Problem> {
        let wrong = |text: String| Problem::Usage(text);
        let mut order = Self { most_mib: 16_384, ..Self::default() };
        while let Some(option) = given.next() {
            if option == "--replace" {
                order.replace = true;
                continue;
            }
            let value = given.next().ok_or_else(|| wrong(format!("{option} needs a value")))?;
            let number =
                || value.parse::<u64>().map_err(|_| wrong(format!("{option}: {value:?} is not a number")));
            let mut source = |kind| match order.source.replace((kind, PathBuf::from(&value))) {
                None => Ok(()),
                Some(_) => Err(wrong("give one source".into())),
            };
            match option.as_str() {
                "--catalogue" => order.catalogue = value.into(),
                "--name" => order.name = value,
                "--oci" => source(Source::Oci)?,
                "--tar" => source(Source::Tar)?,
                "--dir" => source(Source::Directory)?,
                "--image" => source(Source::Image)?,
                "--ref" => order.reference = Some(value),
                "--add" => {
                    let pair = value
                        .split_once('=')
                        .ok_or_else(|| wrong(format!("--add: {value:?} has no \"=\"")))?;
                    order.add.push((pair.0.into(), pair.1.into()));
                }
                "--owner" => {
                    let ids = value
                        .split_once(':')
                        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
                    order.owner =
                        Some(ids.ok_or_else(|| wrong(format!("--owner: {value:?} is not UID:GID")))?);
                }
                "--size-mib" => order.size_mib = Some(number()?),
                "--most-mib" => order.most_mib = number()?,
                "--boot-args" => order.boot_args = Some(value),
                _ => return Err(wrong(format!("there is no option {option}"))),
            }
        }
        let is_name = !order.name.is_empty()
            && order.name.len() <= 100
            && order.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && order.name.as_bytes()[0].is_ascii_alphanumeric();
        if !is_name {
            return Err(wrong("--name must have letters, digits, \".\", \"_\" and \"-\"".into()));
        }
        if order.catalogue.as_os_str().is_empty() || order.source.is_none() {
            return Err(wrong("--catalogue and a source are needed".into()));
        }
        let takes_files = matches!(order.source, Some((Source::Oci | Source::Tar, _)));
        if !order.add.is_empty() && !takes_files {
            return Err(wrong("--add is for --oci and --tar".into()));
        }
        Ok(order)
    }
}

/// A directory that goes with everything in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("mvm-image: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Makes the image and publishes it; gives its manifest.
fn carry_out(order: &Order) -> Result<PathBuf, Problem> {
    let manifest = order.catalogue.join(format!("{}.json", order.name));
    if manifest.exists() && !order.replace {
        return Err(Problem::Usage(format!(
            "{} is there already: use --replace, or another name",
            manifest.display()
        )));
    }
    // On the catalogue's own file system, so that what is made there is renamed to its place.
    let scratch = order.catalogue.join(format!(".{}.{}", order.name, std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(Problem::file("create", &scratch))?;
    let scratch = Scratch(scratch);
    let image = scratch.0.join("image");
    build(order, &scratch.0, &image)?;
    publish(order, &image, &manifest)?;
    Ok(manifest)
}

fn build(order: &Order, scratch: &Path, image: &Path) -> Result<(), Problem> {
    let Some((source, path)) = &order.source else { return Ok(()) };
    let spooled = scratch.join("content");
    fs::create_dir(&spooled).map_err(Problem::file("create", &spooled))?;
    let mut spool = Spool::new(spooled, order.most_mib.saturating_mul(1 << 20));
    let mut tree = Tree::new();
    match source {
        Source::Image => return copy(path, image),
        Source::Directory => {
            let measured = ext4::measure(path, order.owner)?;
            return ext4::make(image, path, &measured, order.size_mib);
        }
        Source::Tar => {
            let file = File::open(path).map_err(Problem::file("open", path))?;
            layers::apply(&mut tree, (file, path), &mut spool, Whiteouts::AreFiles)?;
        }
        Source::Oci => {
            for (file, blob) in oci::layers(path, order.reference.as_deref())? {
                layers::apply(&mut tree, (file, &blob), &mut spool, Whiteouts::Mean)?;
            }
        }
    }
    tree.begin_layer();
    for (index, (from, to)) in order.add.iter().enumerate() {
        let content = scratch.join(format!("added-{index}"));
        let bytes = fs::copy(from, &content).map_err(Problem::file("copy", from))?;
        tree.put(to, Kind::File { content, bytes }, About::of_root(0o755))?;
    }
    let root = scratch.join("root");
    let staged = ext4::stage(&tree, &root, scratch)?;
    ext4::make(image, &root, &staged, order.size_mib)
}

/// A copy of an image, which keeps its holes.
fn copy(from: &Path, to: &Path) -> Result<(), Problem> {
    let mut cp = Command::new("cp");
    let output = cp.args(["--reflink=auto", "--sparse=auto", "--"]).arg(from).arg(to).output();
    let output = output.map_err(|source| Problem::NoProgram { program: "cp", source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Problem::Program { program: "cp", said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// Renames the image to a name of its own, and then the manifest to its place: from that moment on it is another image. VMs that
/// share the former one keep it.
fn publish(order: &Order, image: &Path, manifest: &Path) -> Result<(), Problem> {
    let file = File::open(image).map_err(Problem::file("open", image))?;
    let (sha256, bytes) = digest(&file).map_err(Problem::file("read", image))?;
    let mut magic = [0; 2];
    let is_ext4 = file.read_exact_at(&mut magic, 1024 + 56).is_ok() && magic == [0x53, 0xef];
    file.sync_all().map_err(Problem::file("write", image))?;
    let name = format!("{}-{}.img", order.name, &sha256[..12]);
    let mut said = Map::new();
    let mut say = |key: &str, value: Value| drop(said.insert(key.to_owned(), value));
    say("name", order.name.as_str().into());
    say("image", name.as_str().into());
    say("bytes", bytes.into());
    say("format", if is_ext4 { "ext4" } else { "raw" }.into());
    say("sha256", sha256.into());
    order.boot_args.iter().for_each(|text| say("boot_args", text.as_str().into()));
    let source = order.source.as_ref().map(|(_, path)| path.to_string_lossy().into_owned());
    say("annotations", json!({ "made_from": source, "made_by": "mvm-image" }));
    let aside = image.with_extension("json");
    let text = format!("{:#}\n", Value::Object(said));
    let write = || {
        let mut file = File::create_new(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(Problem::file("write", &aside))?;
    let place = order.catalogue.join(name);
    fs::rename(image, &place).map_err(Problem::file("rename the image to", &place))?;
    fs::rename(&aside, manifest).map_err(Problem::file("write", manifest))?;
    let synced = File::open(&order.catalogue).and_then(|directory| directory.sync_all());
    synced.map_err(Problem::file("write", &order.catalogue))
}

fn digest(mut file: &File) -> std::io::Result<(String, u64)> {
    let (mut hash, mut buffer, mut bytes) = (Hash::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hexadecimal(&hash.finalize()), bytes)),
            length => {
                hash.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
