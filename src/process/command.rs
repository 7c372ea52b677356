//! What to start: a program, its arguments, environment, standard streams and working directory.
//!
//! Nothing is taken from the host's environment: what the child is to see is said here.

use super::{Cgroups, Error, Isolation, NewFiles, Session, SpawnStep};
use crate::sys::file;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::{self, Program, Step};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A program and the world it wakes up in.
#[derive(Debug)]
pub struct Command<'a> {
    /// The executable; no search path is consulted.
    pub program: &'a Path,
    /// Its arguments, without the zeroth, which is the program's path.
    pub arguments: &'a [OsString],
    /// Its whole environment, as `NAME=value`.
    pub environment: &'a [OsString],
    /// Its standard input, output and error.
    pub stdio: [Stdio<'a>; 3],
    /// Its working directory, or the host's.
    pub directory: Option<&'a Path>,
    /// Whose session and process group it joins.
    pub session: Session,
    /// Who may read the files that it makes.
    pub new_files: NewFiles,
    /// The control groups that it is started in, or the host's.
    pub cgroups: Option<&'a Cgroups>,
    /// What it sees of the host, unless that is what the host itself does.
    pub isolation: Option<&'a Isolation>,
}

/// Where one standard stream of a child leads.
#[derive(Clone, Copy, Debug)]
pub enum Stdio<'a> {
    /// Nowhere: `/dev/null`.
    Null,
    /// To this open file.
    File(BorrowedFd<'a>),
}

impl Command<'_> {
    pub(super) fn spawn(&self) -> Result<Pidfd, Error> {
        let path = self.string(self.program.as_os_str(), "its path")?;
        let zeroth = [self.program.as_os_str().to_owned()];
        let arguments = self.strings(zeroth.iter().chain(self.arguments), "an argument")?;
        let environment = self.strings(self.environment, "an environment variable")?;
        let directory = self
            .directory
            .map(|directory| self.string(directory.as_os_str(), "its working directory"))
            .transpose()?;
        let streams = self.streams()?;
        let cgroups = self.cgroups.map(Cgroups::as_slice).unwrap_or_default();
        let program = Program {
            path: &path,
            arguments: &arguments,
            environment: &environment,
            stdio: streams.each_ref().map(AsFd::as_fd),
            directory: directory.as_deref(),
            session: self.session,
            new_files: self.new_files,
            cgroups,
            isolation: self.isolation,
        };
        spawn::spawn(&program).map_err(|(step, source)| match step {
            Step::EnterCgroup(index) => {
                let path = cgroups.get(index).map_or_else(PathBuf::new, |cgroup| cgroup.path().to_path_buf());
                Error::Cgroup { path, source }
            }
            Step::Mount(index) => {
                let graft = self.isolation.and_then(|isolation| isolation.grafts.get(index));
                let at = graft.map_or_else(PathBuf::new, |graft| path_of(&graft.at));
                Error::Mount { program: self.path(), at, source }
            }
            step => self.failed(step.into(), source),
        })
    }

    /// Each stream as a descriptor above 2, so that setting one does not overwrite another.
    fn streams(&self) -> Result<[OwnedFd; 3], Error> {
        let [input, output, error] = self.stdio.map(|stream| match stream {
            Stdio::Null => open_null().map_err(|source| self.failed(SpawnStep::OpenNull, source)),
            Stdio::File(fd) => {
                file::duplicate_above_stdio(fd).map_err(|source| self.failed(SpawnStep::Stdio, source))
            }
        });
        Ok([input?, output?, error?])
    }

    fn strings<'s>(
        &self,
        strings: impl IntoIterator<Item = &'s OsString>,
        what: &'static str,
    ) -> Result<Vec<CString>, Error> {
        strings.into_iter().map(|string| self.string(string, what)).collect()
    }

    fn string(&self, string: &OsStr, what: &'static str) -> Result<CString, Error> {
        CString::new(string.as_bytes()).map_err(|_| Error::Nul { program: self.path(), what })
    }

    fn failed(&self, step: SpawnStep, source: io::Error) -> Error {
        Error::Spawn { program: self.path(), step, source }
    }

    fn path(&self) -> PathBuf {
        self.program.to_path_buf()
    }
}

fn path_of(string: &CStr) -> PathBuf {
    OsStr::from_bytes(string.to_bytes()).into()
}

fn open_null() -> io::Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    file::above_stdio(null.into())
}
