//! Executables that say they are Firecracker: asked for their version once, and again when they were replaced.

use super::version::{OLDEST, Version};
use super::{During, Error};
use crate::process::{self, Limits, NoAnswer};
use crate::sys::sync::lock;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// An executable that says it is Firecracker.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    version: Version,
    /// Of the snapshots that it makes; found out when somebody wants to know.
    snapshot_version: Option<Version>,
    identity: Identity,
}

/// An executable replaced by another is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// The executables that were asked so far, each once.
#[derive(Debug, Default)]
pub struct Binaries(Mutex<BTreeMap<PathBuf, Binary>>);

impl Binaries {
    /// The executable at `path`, asked for its version unless that was done before.
    ///
    /// # Errors
    /// When it cannot be executed, is not Firecracker, or is too old.
    pub fn find(&self, path: &Path, limits: Limits<'_>) -> Result<Binary, Error> {
        let identity = Identity::of(path)?;
        let known = lock(&self.0).get(path).filter(|known| known.identity == identity).cloned();
        if let Some(binary) = known {
            return Ok(binary);
        }
        let binary = Binary::probe(path, identity, limits)?;
        lock(&self.0).insert(path.to_path_buf(), binary.clone());
        Ok(binary)
    }

    /// The version of the snapshots that `binary` makes and loads, asked for once.
    ///
    /// # Errors
    /// When it does not say.
    pub fn snapshot_version(&self, binary: &Binary, limits: Limits<'_>) -> Result<Version, Error> {
        let path = &binary.path;
        let known = lock(&self.0).get(path).filter(|known| known.identity == binary.identity).cloned();
        if let Some(version) = known.and_then(|known| known.snapshot_version) {
            return Ok(version);
        }
        let said = ask(path, "--snapshot-version", limits)?;
        let version = Version::parse_snapshot(&said).ok_or_else(|| Error::NotFirecracker {
            path: path.clone(),
            asked: "--snapshot-version",
            said: said.chars().take(120).collect(),
        })?;
        let known = Binary { snapshot_version: Some(version), ..binary.clone() };
        lock(&self.0).insert(path.clone(), known);
        Ok(version)
    }
}

impl Binary {
    fn probe(path: &Path, identity: Identity, limits: Limits<'_>) -> Result<Self, Error> {
        let said = ask(path, "--version", limits)?;
        let version = Version::parse(&said).ok_or_else(|| Error::NotFirecracker {
            path: path.to_path_buf(),
            asked: "--version",
            said: said.chars().take(120).collect(),
        })?;
        if version < OLDEST {
            return Err(Error::TooOld { path: path.to_path_buf(), version, oldest: OLDEST });
        }
        Ok(Self { path: path.to_path_buf(), version, snapshot_version: None, identity })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says it is.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Identity {
    fn of(path: &Path) -> Result<Self, Error> {
        let refuse = |source| Error::Binary { path: path.to_path_buf(), source };
        let about = std::fs::metadata(path).map_err(refuse)?;
        if !about.is_file() {
            return Err(refuse(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
        }
        if about.mode() & 0o111 == 0 {
            return Err(refuse(io::Error::from_raw_os_error(libc::EACCES)));
        }
        let modified = (about.mtime(), about.mtime_nsec());
        Ok(Self { device: about.dev(), inode: about.ino(), length: about.len(), modified })
    }
}

fn ask(path: &Path, argument: &'static str, limits: Limits<'_>) -> Result<String, Error> {
    process::ask(path, argument, limits).map_err(|problem| match problem {
        NoAnswer::Process(source) => Error::Process(source),
        NoAnswer::Output { program, source } => Error::Binary { path: program, source },
        NoAnswer::TimeIsUp { program, after, .. } => Error::VersionTimeout { path: program, after },
        NoAnswer::Interrupted { .. } => Error::Interrupted { during: During::Version },
    })
}
