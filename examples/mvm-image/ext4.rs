//! A tree as an ext4 file system, without being root: mke2fs copies what the user may own, and debugfs writes the rest, which is
//! owners, permissions, attributes and devices, straight into the image.

use crate::problem::Problem;
use crate::tree::{About, Kind, ROOT, Tree};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

/// What is done to an image after it was made, as a script for debugfs.
#[derive(Debug, Default)]
pub struct Script {
    lines: String,
    /// Files with the values of attributes.
    values: Vec<PathBuf>,
}

/// How much is in an image, for a guess of how large it has to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    pub files: u64,
    pub bytes: u64,
}

/// Gives the files of `tree` their names below `root`, a new directory that is this user's alone, and writes down what else is
/// to be said of them.
pub fn stage(tree: &Tree, root: &Path, scratch: &Path) -> Result<(Script, Extent), Problem> {
    let (mut script, mut extent) = (Script::default(), Extent::default());
    let mut placed = BTreeMap::<usize, PathBuf>::new();
    new_directory(root)?;
    script.about("/", &tree.node(ROOT).about, 0o040_000, scratch)?;
    let all = tree.walk();
    for (path, number) in &all {
        let (node, place) = (tree.node(*number), root.join(path));
        let in_image = format!("/{}", path.display());
        extent.files += 1;
        if let Some(first) = placed.get(number) {
            if !matches!(node.kind, Kind::Special(_)) {
                fs::hard_link(first, &place).map_err(Problem::file("link", &place))?;
            }
            continue;
        }
        let kind = match &node.kind {
            Kind::Directory(_) => {
                new_directory(&place)?;
                extent.bytes += 4096;
                0o040_000
            }
            Kind::File { content, bytes } => {
                fs::rename(content, &place).map_err(Problem::file("place", &place))?;
                extent.bytes += bytes.next_multiple_of(4096);
                0o100_000
            }
            Kind::Link(target) => {
                symlink(target, &place).map_err(Problem::file("link", &place))?;
                0o120_000
            }
            Kind::Special(device) => {
                let parent = path.parent().map(|parent| format!("/{}", parent.display())).unwrap_or_default();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                script.command(&format!("cd {}", quoted(&parent)));
                script.command(&format!("mknod {} {device}", quoted(&name)));
                script.command("cd /");
                match device.as_bytes().first() {
                    Some(b'c') => 0o020_000,
                    Some(b'b') => 0o060_000,
                    _ => 0o010_000,
                }
            }
        };
        script.about(&in_image, &node.about, kind, scratch)?;
        placed.insert(*number, place);
    }
    // The deepest first, because the time of a directory changes with what is made in it.
    for (path, number) in all.iter().rev() {
        let node = tree.node(*number);
        if matches!(node.kind, Kind::Directory(_) | Kind::File { .. }) {
            let modified = UNIX_EPOCH + Duration::from_secs(node.about.modified);
            let place = root.join(path);
            let set =
                File::open(&place).and_then(|file| file.set_times(FileTimes::new().set_modified(modified)));
            set.map_err(Problem::file("set the time of", &place))?;
        }
    }
    Ok((script, extent))
}

/// What is to be said of a directory that is there already, if all of it is to belong to one user.
pub fn measure(root: &Path, owner: Option<(u32, u32)>) -> Result<(Script, Extent), Problem> {
    let (mut script, mut extent) = (Script::default(), Extent::default());
    let mut to_do = vec![PathBuf::new()];
    while let Some(path) = to_do.pop() {
        let place = root.join(&path);
        let about = place.symlink_metadata().map_err(Problem::file("look at", &place))?;
        extent.files += 1;
        extent.bytes += if about.is_file() { about.len().next_multiple_of(4096) } else { 4096 };
        if let Some((uid, gid)) = owner {
            let text = path.to_string_lossy();
            if text.contains(|letter: char| letter.is_control()) {
                return Err(Problem::Archive { path: place, what: "its name has a control character" });
            }
            script.owner(&format!("/{text}"), (uid, gid));
        }
        if about.is_dir() {
            for entry in fs::read_dir(&place).map_err(Problem::file("list", &place))? {
                to_do.push(path.join(entry.map_err(Problem::file("list", &place))?.file_name()));
            }
        }
    }
    Ok((script, extent))
}

/// Makes the file system of what is below `root` in the new file `image`.
pub fn make(
    image: &Path,
    root: &Path,
    (script, extent): &(Script, Extent),
    size_mib: Option<u64>,
) -> Result<(), Problem> {
    const MIB: u64 = 1 << 20;
    let inodes = extent.files + extent.files / 4 + 1024;
    // Room for tables, for the journal, and to work in.
    let needed = extent.bytes + extent.bytes / 8 + inodes * 256 + 48 * MIB;
    let size = size_mib.unwrap_or(needed.div_ceil(MIB));
    File::create_new(image).map_err(Problem::file("create", image))?;
    let mut make = program("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256"])
        .args(["-N", &inodes.to_string()]);
    if is_new_enough_for_new_features()? {
        // A guest's kernel before 5.15 does not mount it, and an older e2fsck on another host does not grow it.
        make.args(["-O", "^orphan_file,^metadata_csum_seed"]);
    }
    make.args(["-E", "root_owner=0:0", "-d"]).arg(root).arg(image).arg(format!("{size}M"));
    run("mke2fs", &mut make)?;
    script.apply(image)?;
    // Nothing is published that is not sound.
    run("e2fsck", program("e2fsck").args(["-f", "-n"]).arg(image)).map(drop)
}

impl Script {
    fn command(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    fn about(&mut self, path: &str, about: &About, kind: u32, scratch: &Path) -> Result<(), Problem> {
        let path_in_quotes = quoted(path);
        if kind != 0o120_000 {
            let mode = kind | about.mode;
            self.command(&format!("set_inode_field {path_in_quotes} mode 0{mode:o}"));
        }
        self.owner(path, (about.uid, about.gid));
        for (name, value) in &about.attributes {
            let file = scratch.join(format!("value-{}", self.values.len()));
            fs::write(&file, value).map_err(Problem::file("write", &file))?;
            let from = quoted(&file.to_string_lossy());
            self.command(&format!("ea_set -f {from} {path_in_quotes} {name}"));
            self.values.push(file);
        }
        Ok(())
    }

    fn owner(&mut self, path: &str, (uid, gid): (u32, u32)) {
        let path = quoted(path);
        for (field, id) in [("uid", uid), ("gid", gid)] {
            let _infallible = writeln!(self.lines, "set_inode_field {path} {field} {id}");
        }
    }

    /// debugfs ends with 0 whatever its commands did, so what it says is what counts.
    fn apply(&self, image: &Path) -> Result<(), Problem> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let file = image.with_extension("debugfs");
        fs::write(&file, &self.lines).map_err(Problem::file("write", &file))?;
        let applied = run("debugfs", program("debugfs").arg("-w").arg("-f").arg(&file).arg(image));
        let removed = fs::remove_file(&file).map_err(Problem::file("remove", &file));
        let said = String::from_utf8_lossy(&applied?.stderr).into_owned();
        removed?;
        let mut complaints =
            said.lines().filter(|line| !line.starts_with("debugfs 1.") && !line.trim().is_empty());
        match complaints.next() {
            None => Ok(()),
            Some(first) => Err(Problem::Program { program: "debugfs", said: first.to_owned() }),
        }
    }
}

/// How debugfs takes a word with blanks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn new_directory(path: &Path) -> Result<(), Problem> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(Problem::file("create", path))
}

fn is_new_enough_for_new_features() -> Result<bool, Problem> {
    let output = run("mke2fs", program("mke2fs").arg("-V"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = said.split_whitespace().nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    Ok((numbers.next(), numbers.next()) >= (Some(1), Some(47)))
}

fn program(name: &str) -> Command {
    // Where they are, whatever the user's PATH says of directories for root.
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|place| {
        fs::metadata(place).is_ok_and(|about| about.permissions().mode() & 0o111 != 0 && about.nlink() > 0)
    });
    Command::new(found.unwrap_or_else(|| name.into()))
}

fn run(program: &'static str, command: &mut Command) -> Result<Output, Problem> {
    let output = command.output().map_err(|source| Problem::NoProgram { program, source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stderr, output.stdout].map(|said| String::from_utf8_lossy(&said).trim().to_owned());
    Err(Problem::Program { program, said: said.join("; ") })
}
