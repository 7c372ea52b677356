//! Archives, read into a tree: a tar of a whole file system, and the layers of a container's image.

use crate::problem::Problem;
use crate::tree::{About, Kind, Tree};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// Where the contents of files stand until they have their names.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    files: u64,
    /// How many bytes may still come.
    room: u64,
}

/// Whether an archive says what is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// `.wh.name` removes `name`, and `.wh..wh..opq` what else is in its directory.
    Mean,
    /// These are names like others.
    AreFiles,
}

impl Spool {
    pub fn new(directory: PathBuf, room: u64) -> Self {
        Self { directory, files: 0, room }
    }

    fn take(&mut self, content: &mut impl Read) -> Result<(PathBuf, u64), Problem> {
        let path = self.directory.join(self.files.to_string());
        self.files += 1;
        let mut file = File::create_new(&path).map_err(Problem::file("create", &path))?;
        let bytes = io::copy(&mut content.take(self.room.saturating_add(1)), &mut file);
        let bytes = bytes.map_err(Problem::file("unpack to", &path))?;
        self.room = self
            .room
            .checked_sub(bytes)
            .ok_or(Problem::TooMuch { what: "more data than --most-mib allows" })?;
        Ok((path, bytes))
    }
}

/// Lays the archive in `file`, compressed or not, over `tree`.
pub fn apply(
    tree: &mut Tree,
    (file, path): (File, &Path),
    spool: &mut Spool,
    whiteouts: Whiteouts,
) -> Result<(), Problem> {
    tree.begin_layer();
    let unreadable = || Problem::file("read", path);
    let mut file = file;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(unreadable())?;
    file.seek(SeekFrom::Start(0)).map_err(unreadable())?;
    let file = BufReader::with_capacity(1 << 20, file);
    match magic[..] {
        [0x1f, 0x8b, ..] => apply_tar(tree, (MultiGzDecoder::new(file), path), spool, whiteouts),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(Problem::Oci {
            what: "a layer is compressed by zstd: copy the image with gzip (skopeo copy --dest-compress-format gzip)".into(),
        }),
        _ => apply_tar(tree, (file, path), spool, whiteouts),
    }
}

fn apply_tar(
    tree: &mut Tree,
    (source, archive): (impl Read, &Path),
    spool: &mut Spool,
    whiteouts: Whiteouts,
) -> Result<(), Problem> {
    let unreadable = || Problem::file("read", archive);
    let mut tar = Archive::new(source);
    for entry in tar.entries().map_err(unreadable())? {
        let mut entry = entry.map_err(unreadable())?;
        let path = entry.path().map_err(unreadable())?.into_owned();
        if whiteouts == Whiteouts::Mean && apply_whiteout(tree, &path)? {
            continue;
        }
        let about = about(&mut entry).map_err(unreadable())?;
        let link = entry.link_name().map_err(unreadable())?.map(std::borrow::Cow::into_owned);
        let refused = |what| Problem::Archive { path: path.clone(), what };
        let kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Directory(BTreeMap::new()),
            EntryType::Symlink => {
                let target = link.ok_or_else(|| refused("it is a link to nowhere"))?.into_os_string();
                if target.is_empty() || target.len() > 4000 || target.as_bytes().contains(&0) {
                    return Err(refused("it is a link to what can be no path"));
                }
                Kind::Link(target)
            }
            EntryType::Link => {
                let target = link.ok_or_else(|| refused("it is a link to nowhere"))?;
                tree.put_hard_link(&path, &target)?;
                continue;
            }
            EntryType::Char => {
                Kind::Special(device('c', &entry).ok_or_else(|| refused("it is a device without a number"))?)
            }
            EntryType::Block => {
                Kind::Special(device('b', &entry).ok_or_else(|| refused("it is a device without a number"))?)
            }
            EntryType::Fifo => Kind::Special("p".into()),
            // What applies to others was read with them.
            EntryType::XGlobalHeader
            | EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => continue,
            _ => {
                let (content, bytes) = spool.take(&mut entry)?;
                Kind::File { content, bytes }
            }
        };
        tree.put(&path, kind, about)?;
    }
    Ok(())
}

/// Whether `path` is one, and what it means is done.
fn apply_whiteout(tree: &mut Tree, path: &Path) -> Result<bool, Problem> {
    let Some(name) = path.file_name() else { return Ok(false) };
    let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") else { return Ok(false) };
    let parent = path.parent().unwrap_or(Path::new(""));
    match hidden {
        b".wh..opq" => tree.make_opaque(parent)?,
        // Of aufs, for itself.
        _ if hidden.starts_with(b".wh.") => {}
        _ => tree.white_out(&parent.join(std::ffi::OsStr::from_bytes(hidden)))?,
    }
    Ok(true)
}

fn about(entry: &mut Entry<'_, impl Read>) -> io::Result<About> {
    const NAMESPACE: &str = "SCHILY.xattr.";
    let number =
        |id: u64| u32::try_from(id).map_err(|_| io::Error::other("a user or group is no number of 32 bits"));
    let header = entry.header();
    let mut about = About {
        uid: number(header.uid()?)?,
        gid: number(header.gid()?)?,
        mode: header.mode()? & 0o7777,
        modified: header.mtime()?,
        attributes: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(about) };
    for extension in extensions {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        let value = extension.value();
        let as_number = || number(value.ok().and_then(|value| value.parse().ok()).unwrap_or(u64::MAX));
        match key {
            "uid" => about.uid = as_number()?,
            "gid" => about.gid = as_number()?,
            _ => {
                // Labels are of the system that made the archive.
                let name = key.strip_prefix(NAMESPACE).filter(|name| *name != "security.selinux");
                let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
                about.attributes.extend(
                    name.filter(is_plain).map(|name| (name.to_owned(), extension.value_bytes().to_vec())),
                );
            }
        }
    }
    Ok(about)
}

fn device(kind: char, entry: &Entry<'_, impl Read>) -> Option<String> {
    let header = entry.header();
    let (major, minor) = (header.device_major().ok()??, header.device_minor().ok()??);
    Some(format!("{kind} {major} {minor}"))
}
