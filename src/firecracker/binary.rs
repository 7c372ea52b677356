//! Executables that say they are Firecracker: asked for their version once, and again when they were replaced.

use super::companions;
use super::version::{OLDEST, Version};
use super::{During, Error};
use crate::process::{Command, Limits, Process, Session, Stdio, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::pidfd::Signal;
use crate::sys::poll::{self, Interest};
use crate::sys::sync::lock;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

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

/// How long an executable may take to say its version: Firecracker needs 2 ms.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 4096;

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

fn ask(path: &Path, argument: &str, limits: Limits<'_>) -> Result<String, Error> {
    let broken = |source| Error::Binary { path: path.to_path_buf(), source };
    let (mut output, input) = io::pipe().map_err(broken)?;
    let command = Command {
        program: path,
        arguments: &[argument.into()],
        environment: &[],
        stdio: [Stdio::Null, Stdio::File(input.as_fd()), Stdio::Null],
        directory: None,
        session: Session::New,
    };
    let process = Process::spawn(&command).map_err(Error::Process)?;
    drop(input);
    let began = Instant::now();
    let limits = limits.no_later_than(Deadline::after(PATIENCE));
    match process.wait(limits).map_err(Error::Process)? {
        Waited::Exited(_) => {}
        ended_early => {
            // Its number is its own as long as it is not reaped.
            companions::end_session_of(&process);
            process.send(Signal::Kill).map_err(Error::Process)?;
            let patience = Limits { deadline: Deadline::after(PATIENCE), interrupt: None };
            process.wait(patience).map_err(Error::Process)?;
            return Err(match ended_early {
                Waited::Interrupted => Error::Interrupted { during: During::Version },
                _ => Error::VersionTimeout { path: path.to_path_buf(), after: began.elapsed() },
            });
        }
    }
    read_what_is_there(&mut output).map_err(broken)
}

/// A grandchild may hold the pipe open, so it is read no further than what has been written.
fn read_what_is_there(output: &mut io::PipeReader) -> io::Result<String> {
    let mut said = [0_u8; LONGEST_ANSWER];
    let [readable] = poll::wait([Interest::Readable(output.as_fd())], Deadline::after(Duration::ZERO))?;
    let length = if readable { output.read(&mut said)? } else { 0 };
    Ok(String::from_utf8_lossy(said.get(..length).unwrap_or_default()).into_owned())
}
