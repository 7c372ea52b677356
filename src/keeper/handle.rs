//! The owner's side: starting a keeper, finding one that a former owner has started, and letting go of it.

use crate::journal::{self, StateDirectory};
use crate::observe::console;
use crate::process::{self, Cgroups, Command, Identity, Limits, NewFiles, NoAnswer, Process, Session, Stdio};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::mask::HeldSignals;
use crate::sys::pidfd::Signal;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thiserror::Error;

/// A keeper, as its owner holds it.
#[derive(Debug)]
pub(crate) enum KeeperHandle {
    /// A program, which outlives the owner.
    Program(Process),
    /// A thread of the owner.
    Thread(Bounding),
}

/// A thread that keeps consoles bounded.
#[derive(Debug)]
pub(crate) struct Bounding {
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

/// Why there is no keeper.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// Its file for what it has to say.
    #[error("cannot open {} for the keeper's output", path.display())]
    Output {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program.
    #[error("cannot start the keeper: set \"keeper\" to the path of mvm-keeper")]
    Program(#[source] process::Error),
    /// The program is not there, or cannot be executed.
    #[error("cannot use {} as the keeper: set \"keeper\" to the path of mvm-keeper, which is built with the library", path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: NoAnswer,
    },
    /// It is another program, or of another version.
    #[error(
        "{} is not the keeper of this library: to --version it answered {said:?}, and \"{NAME} {VERSION}\" is \
         needed; set \"keeper\" to the mvm-keeper that was built with the library",
        path.display()
    )]
    Another {
        /// Its path.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The thread.
    #[error("cannot start the thread that bounds consoles")]
    Thread(#[source] io::Error),
}

/// What a keeper says of itself, in the state directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeeperRecord {
    process: Identity,
    boot: String,
    version: String,
}

const NAME: &str = "mvm-keeper";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long a program may take to end after SIGTERM, which it does not handle.
const PATIENCE: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;

/// Whether the program at `path` is the keeper of this library: it is asked for its version, which takes milliseconds.
pub(crate) fn check_program(path: &Path) -> Result<(), KeeperError> {
    let limits = Limits { deadline: Deadline::NEVER, interrupt: None };
    let said = process::ask(path, "--version", limits)
        .map_err(|source| KeeperError::Unusable { path: path.into(), source })?;
    if said.trim() == format!("{NAME} {VERSION}") {
        return Ok(());
    }
    Err(KeeperError::Another { path: path.into(), said: said.trim().chars().take(120).collect() })
}

impl KeeperHandle {
    /// Starts the program at `path` for `directory`, whose owner is `owner`.
    pub(crate) fn start_program(
        path: &Path,
        directory: &Path,
        owner: Identity,
        cgroups: &[PathBuf],
    ) -> Result<Self, KeeperError> {
        let cgroups = &Cgroups::open(cgroups).map_err(KeeperError::Program)?;
        let output = open_output(directory)?;
        let arguments = [
            directory.as_os_str().to_owned(),
            owner.pid.to_string().into(),
            owner.started.to_string().into(),
        ];
        let command = Command {
            program: path,
            arguments: &arguments,
            environment: &[],
            stdio: [Stdio::Null, Stdio::Null, Stdio::File(output.as_fd())],
            directory: Some(Path::new("/")),
            session: Session::New,
            new_files: NewFiles::Private,
            cgroups: Some(cgroups),
            isolation: None,
        };
        Process::spawn(&command).map(Self::Program).map_err(KeeperError::Program)
    }

    /// Starts the thread for `directory`. No signal of the host's will ever be handled in it.
    pub(crate) fn start_thread(directory: &Path, boot: &str) -> Result<Self, KeeperError> {
        let stop = Arc::new(EventFd::new().map_err(KeeperError::Thread)?);
        let (flag, directory, boot) = (Arc::clone(&stop), directory.to_path_buf(), boot.to_owned());
        let held = HeldSignals::hold();
        let thread = thread::Builder::new()
            .name("mvm-keeper".to_owned())
            .stack_size(STACK)
            .spawn(move || super::bound_consoles(&directory, boot, &flag));
        drop(held);
        Ok(Self::Thread(Bounding { stop, thread: thread.map_err(KeeperError::Thread)? }))
    }

    /// The program that a former owner has started, if it is still there. One of another version is sent away: it
    /// might not know what this one writes.
    pub(crate) fn find_program(directory: &Path, boot: &str) -> Option<Self> {
        let record = journal::read::<KeeperRecord>(&record_file(directory)).ok()?;
        let process = Process::find(record.process).ok().flatten().filter(|_| record.boot == boot)?;
        if record.version != VERSION {
            let _asked = process.send(Signal::Terminate);
            return None;
        }
        process.exit_status().is_ok_and(|exit| exit.is_none()).then_some(Self::Program(process))
    }

    /// Whether it still does its work.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Program(process) => process.exit_status().is_ok_and(|exit| exit.is_none()),
            Self::Thread(bounding) => !bounding.thread.is_finished(),
        }
    }

    /// What a program that ended before it came to keep anything has said.
    pub(crate) fn last_words(&self, directory: &Path) -> Option<String> {
        let Self::Program(process) = self else { return None };
        let exit = process.exit_status().ok().flatten()?;
        let record = journal::read::<KeeperRecord>(&record_file(directory)).ok();
        if record.is_some_and(|record| record.process.pid == process.pid()) {
            return None;
        }
        let words = console::tail(&output_file(directory), 400);
        Some(format!("the keeper ended before it was ready ({exit}): {}", words.trim()))
    }

    /// Readable when it has ended; a thread is asked instead.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Program(process) => Some(process.pidfd()),
            Self::Thread(_) => None,
        }
    }

    /// Ends it, for nobody needs it any more.
    pub(crate) fn end(self) {
        match self {
            Self::Program(process) => {
                let limits = Limits { deadline: Deadline::after(PATIENCE), interrupt: None };
                let _ended = process.send(Signal::Terminate).and_then(|()| process.wait(limits));
            }
            Self::Thread(bounding) => {
                bounding.stop.raise();
                let _ended = bounding.thread.join();
            }
        }
    }
}

/// Says in the state directory that the calling process is its keeper.
pub(super) fn write_record(directory: &Path, boot: &str) -> Result<(), journal::Error> {
    let path = record_file(directory);
    let own =
        Identity::own().map_err(|source| journal::Error::Read { path: "/proc/self/stat".into(), source })?;
    let record = KeeperRecord { process: own, boot: boot.to_owned(), version: VERSION.to_owned() };
    journal::write(&path, &record)
}

/// Says it no more.
pub(super) fn strike_out_record(directory: &Path) {
    let _gone = std::fs::remove_file(record_file(directory));
}

fn record_file(directory: &Path) -> PathBuf {
    directory.join("keeper.json")
}

fn output_file(directory: &Path) -> PathBuf {
    directory.join(OUTPUT)
}

const OUTPUT: &str = "keeper.log";

/// It begins anew, once it is known to be the library's own.
fn open_output(directory: &Path) -> Result<File, KeeperError> {
    let state = StateDirectory::find(directory);
    let opened = state.and_then(|state| state.open_file(OUTPUT, libc::O_WRONLY | libc::O_CREAT));
    let emptied = opened.map_err(io::Error::other).and_then(|file| file.set_len(0).map(|()| file));
    emptied.map_err(|source| KeeperError::Output { path: output_file(directory), source })
}
