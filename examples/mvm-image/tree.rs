//! A file system in memory, into which archives are laid one over another. Names of an archive are looked up here and nowhere
//! else, so that no link in one leads to a file of the host.

use crate::problem::Problem;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The number of a node.
pub type Number = usize;

#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The layer that is being laid over the others.
    layer: usize,
}

/// A file of any kind. Two names that have the same number are hard links.
#[derive(Debug)]
pub struct Node {
    pub kind: Kind,
    pub about: About,
    layer: usize,
}

#[derive(Debug)]
pub enum Kind {
    Directory(BTreeMap<OsString, Number>),
    /// Where its content stands meanwhile, and how long it is.
    File {
        content: PathBuf,
        bytes: u64,
    },
    Link(OsString),
    /// A device or a pipe, as debugfs calls it: `c 1 3`.
    Special(String),
}

/// What stands in an inode besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub uid: u32,
    pub gid: u32,
    /// The permissions, and the bits for another user, another group and the sticky one.
    pub mode: u32,
    pub modified: u64,
    pub attributes: Vec<(String, Vec<u8>)>,
}

impl About {
    /// Of what an archive takes for granted.
    pub fn of_root(mode: u32) -> Self {
        Self { uid: 0, gid: 0, mode, modified: 0, attributes: Vec::new() }
    }
}

pub const ROOT: Number = 0;
const MOST_LINKS: usize = 40;
const LONGEST_NAME: usize = 255;
const LONGEST_PATH: usize = 3000;
const MOST_NODES: usize = 2_000_000;

impl Tree {
    pub fn new() -> Self {
        let kind = Kind::Directory(BTreeMap::new());
        Self { nodes: vec![Node { kind, about: About::of_root(0o755), layer: 0 }], layer: 0 }
    }

    /// What comes from here on is another layer.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    pub fn node(&self, number: Number) -> &Node {
        &self.nodes[number]
    }

    /// Puts a file at `path`. A directory that is there already keeps what is in it.
    pub fn put(&mut self, path: &Path, kind: Kind, about: About) -> Result<(), Problem> {
        let Some((parent, name)) = self.place_of(path)? else {
            // The root itself.
            self.nodes[ROOT].about = about;
            return Ok(());
        };
        let layer = self.layer;
        if let (Kind::Directory(_), Some(there)) = (&kind, self.child(parent, &name)) {
            let node = &mut self.nodes[there];
            if matches!(node.kind, Kind::Directory(_)) {
                (node.about, node.layer) = (about, layer);
                return Ok(());
            }
        }
        let number = self.add(Node { kind, about, layer })?;
        self.set_child(parent, name, number);
        Ok(())
    }

    /// Lets `path` be another name of the file at `target`.
    pub fn put_hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Problem> {
        let missing =
            || Problem::Archive { path: path.into(), what: "it is a hard link to a file that is not there" };
        let found = match self.place_of(target)? {
            Some((parent, name)) => self.child(parent, &name),
            None => None,
        };
        let number = found
            .filter(|found| !matches!(self.nodes[*found].kind, Kind::Directory(_)))
            .ok_or_else(missing)?;
        let (parent, name) = self.place_of(path)?.ok_or_else(missing)?;
        self.nodes[number].layer = self.layer;
        self.set_child(parent, name, number);
        Ok(())
    }

    /// What lower layers have at `path` is not there any more. What this layer has put there stays, in whatever order they come.
    pub fn white_out(&mut self, path: &Path) -> Result<(), Problem> {
        let Some((parent, name)) = self.place_of(path)? else { return Ok(()) };
        if let Some(number) = self.child(parent, &name) {
            self.empty(number);
            let stays = self.is_of_this_layer(number);
            if let Kind::Directory(children) = &mut self.nodes[parent].kind
                && !stays
            {
                children.remove(&name);
            }
        }
        Ok(())
    }

    /// What lower layers have in the directory at `path` is not there any more.
    pub fn make_opaque(&mut self, path: &Path) -> Result<(), Problem> {
        let directory = self.directory_at(path)?;
        self.empty(directory);
        Ok(())
    }

    /// Everything below the root, parents first.
    pub fn walk(&self) -> Vec<(PathBuf, Number)> {
        let (mut found, mut to_do) = (Vec::new(), vec![(PathBuf::new(), ROOT)]);
        while let Some((path, number)) = to_do.pop() {
            if let Kind::Directory(children) = &self.nodes[number].kind {
                to_do.extend(children.iter().rev().map(|(name, child)| (path.join(name), *child)));
            }
            if number != ROOT {
                found.push((path, number));
            }
        }
        found
    }

    fn add(&mut self, node: Node) -> Result<Number, Problem> {
        if self.nodes.len() == MOST_NODES {
            return Err(Problem::TooMuch { what: "more than two million files" });
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn child(&self, directory: Number, name: &OsStr) -> Option<Number> {
        match &self.nodes[directory].kind {
            Kind::Directory(children) => children.get(name).copied(),
            _ => None,
        }
    }

    fn set_child(&mut self, directory: Number, name: OsString, number: Number) {
        if let Kind::Directory(children) = &mut self.nodes[directory].kind {
            children.insert(name, number);
        }
    }

    /// Removes from a directory what is of lower layers, and from those below it.
    fn empty(&mut self, directory: Number) {
        let Kind::Directory(children) = &self.nodes[directory].kind else { return };
        let children = children.values().copied().collect::<Vec<_>>();
        children.iter().for_each(|child| self.empty(*child));
        let is_of_this = children.iter().map(|child| self.is_of_this_layer(*child)).collect::<Vec<_>>();
        if let Kind::Directory(children) = &mut self.nodes[directory].kind {
            let mut stays = is_of_this.into_iter();
            children.retain(|_, _| stays.next() == Some(true));
        }
    }

    /// Whether this layer has it, or something in it.
    fn is_of_this_layer(&self, number: Number) -> bool {
        let node = &self.nodes[number];
        node.layer == self.layer || matches!(&node.kind, Kind::Directory(children) if !children.is_empty())
    }

    /// The directory in which `path` stands, and its name there; nothing for the root.
    fn place_of(&mut self, path: &Path) -> Result<Option<(Number, OsString)>, Problem> {
        let mut parts = parts_of(path)?;
        let Some(name) = parts.pop() else { return Ok(None) };
        let parent = self.descend(path, parts)?;
        Ok(Some((parent, name)))
    }

    fn directory_at(&mut self, path: &Path) -> Result<Number, Problem> {
        let parts = parts_of(path)?;
        self.descend(path, parts)
    }

    /// The directory of these names, below the root. Links are followed, and lead nowhere but below the root; what is missing
    /// is made.
    fn descend(&mut self, path: &Path, parts: Vec<OsString>) -> Result<Number, Problem> {
        let refused = |what| Problem::Archive { path: path.into(), what };
        let (mut way, mut links) = (vec![ROOT], 0);
        let mut to_go = parts.into_iter().rev().collect::<Vec<_>>();
        while let Some(name) = to_go.pop() {
            if name == ".." {
                way.truncate(way.len().saturating_sub(1).max(1));
                continue;
            }
            let here = way.last().copied().unwrap_or(ROOT);
            let next = match self.child(here, &name) {
                Some(next) => next,
                None => {
                    let (kind, about) = (Kind::Directory(BTreeMap::new()), About::of_root(0o755));
                    let next = self.add(Node { kind, about, layer: self.layer })?;
                    self.set_child(here, name, next);
                    next
                }
            };
            match &self.nodes[next].kind {
                Kind::Directory(_) => way.push(next),
                Kind::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(refused("links lead to it in circles"));
                    }
                    let target = Path::new(target);
                    if target.is_absolute() {
                        way.truncate(1);
                    }
                    let parts = target.components().filter_map(|part| match part {
                        Component::Normal(name) => Some(name.to_owned()),
                        Component::ParentDir => Some("..".into()),
                        _ => None,
                    });
                    let parts = parts.collect::<Vec<_>>();
                    to_go.extend(parts.into_iter().rev());
                }
                _ => return Err(refused("something above it is not a directory")),
            }
        }
        Ok(way.last().copied().unwrap_or(ROOT))
    }
}

/// The names in a path of an archive.
fn parts_of(path: &Path) -> Result<Vec<OsString>, Problem> {
    let refused = |what| Err(Problem::Archive { path: path.into(), what });
    if path.as_os_str().len() > LONGEST_PATH {
        return refused("its path is too long");
    }
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if name.len() > LONGEST_NAME => return refused("its name is too long"),
            Component::Normal(name) if name.as_bytes().iter().any(u8::is_ascii_control) => {
                return refused("its name has a control character");
            }
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::ParentDir => return refused("its path has \"..\""),
            // Archives are of a whole file system, whose root is meant.
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}
