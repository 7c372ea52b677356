//! Executables that say they are Firecracker: each file asked once, and another one that stands in its place again.
//!
//! Nothing that a VMM runs or has written is ever executed: its guest may own it.

use super::version::{OLDEST, Version};
use super::{During, Error};
use crate::process::{self, Limits, NoAnswer, Process};
use crate::sys::file;
use crate::sys::sync::lock;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// An executable that says it is Firecracker.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    version: Version,
    identity: Identity,
}

/// Which file it is: one that was replaced or changed is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// What a file has said of itself.
#[derive(Clone, Copy, Debug)]
struct Answers {
    version: Version,
    /// Of the snapshots that it makes; asked for when somebody wants to know.
    snapshot_version: Option<Version>,
}

/// The files that were asked so far, each once.
#[derive(Debug, Default)]
pub struct Binaries(Mutex<Vec<(Identity, Answers)>>);

impl Binaries {
    /// The executable at `path`, asked for its version unless that was done before.
    ///
    /// # Errors
    /// When it cannot be executed, is not Firecracker, or is too old.
    pub fn find(&self, path: &Path, limits: Limits<'_>) -> Result<Binary, Error> {
        let identity = Identity::of(path)?;
        let version = self.version_of(path, identity, limits)?;
        if version < OLDEST {
            return Err(Error::TooOld { path: path.to_path_buf(), version, oldest: OLDEST });
        }
        Ok(Binary { path: path.to_path_buf(), version, identity })
    }

    /// The version of the snapshots that `binary` makes and loads, asked for once.
    ///
    /// # Errors
    /// When it does not say.
    pub fn snapshot_version(&self, binary: &Binary, limits: Limits<'_>) -> Result<Version, Error> {
        let known = self.known(binary.identity).and_then(|known| known.snapshot_version);
        if let Some(version) = known {
            return Ok(version);
        }
        let version = ask_version(&binary.path, "--snapshot-version", Version::parse_snapshot, limits)?;
        let still_there = Identity::of(&binary.path)? == binary.identity;
        if still_there {
            let mut asked = lock(&self.0);
            let known = asked.iter_mut().filter(|(identity, _)| *identity == binary.identity);
            known.for_each(|(_, known)| known.snapshot_version = Some(version));
        }
        Ok(version)
    }

    /// Forgets what `binary` has said: what it has run says something else.
    pub fn forget(&self, binary: &Binary) {
        lock(&self.0).retain(|(identity, _)| *identity != binary.identity);
    }

    fn known(&self, identity: Identity) -> Option<Answers> {
        lock(&self.0).iter().find(|(known, _)| *known == identity).map(|(_, answers)| *answers)
    }

    fn version_of(&self, path: &Path, identity: Identity, limits: Limits<'_>) -> Result<Version, Error> {
        if let Some(known) = self.known(identity) {
            return Ok(known.version);
        }
        let version = ask_version(path, "--version", Version::parse, limits)?;
        for problem in version.known_problems() {
            log::warn!("{} is Firecracker {version}: {problem}", path.display());
        }
        let answers = Answers { version, snapshot_version: None };
        let mut asked = lock(&self.0);
        asked.retain(|(known, _)| *known != identity);
        asked.push((identity, answers));
        Ok(version)
    }
}

impl Binary {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file, as a place alone: it is still the one that was asked.
    ///
    /// # Errors
    /// When another file stands there.
    pub(super) fn open(&self) -> Result<File, Error> {
        let failed = |source| Error::Binary { path: self.path.clone(), source };
        let file = file::open_path(&self.path).map_err(failed)?;
        match file.metadata().map_err(failed)? {
            about if Identity::of_file(&about) == self.identity => Ok(file),
            _ => Err(failed(io::Error::other("it was replaced in this moment; try again"))),
        }
    }

    /// Whether `process` runs this very file. A script has something else run, and what stands at the path may have been
    /// replaced before it was executed.
    pub fn is_run_by(&self, process: &Process) -> bool {
        // As long as it has not ended, nobody else has its number.
        std::fs::metadata(format!("/proc/{}/exe", process.pid()))
            .is_ok_and(|about| Identity::of_file(&about) == self.identity)
            && matches!(process.exit_status(), Ok(None))
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
        Ok(Self::of_file(&about))
    }

    fn of_file(about: &Metadata) -> Self {
        let modified = (about.mtime(), about.mtime_nsec());
        Self { device: about.dev(), inode: about.ino(), length: about.len(), modified }
    }
}

fn ask_version(
    path: &Path,
    question: &'static str,
    parse: fn(&str) -> Option<Version>,
    limits: Limits<'_>,
) -> Result<Version, Error> {
    let said = ask(path, question, limits)?;
    parse(&said).ok_or_else(|| Error::NotFirecracker {
        path: path.to_path_buf(),
        asked: question,
        said: said.chars().take(120).collect(),
    })
}

fn ask(path: &Path, argument: &'static str, limits: Limits<'_>) -> Result<String, Error> {
    process::ask(path, argument, limits).map_err(|problem| match problem {
        NoAnswer::Process(source) => Error::Process(source),
        NoAnswer::Output { program, source } => Error::Binary { path: program, source },
        NoAnswer::TimeIsUp { program, after, .. } => Error::VersionTimeout { path: program, after },
        NoAnswer::Interrupted { .. } => Error::Interrupted { during: During::Version },
    })
}
