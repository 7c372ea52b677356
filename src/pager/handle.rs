//! The owner's side: starting a pager, finding one that a former owner has started, and letting go of it.

use super::{life, log_file, socket_file};
use crate::json;
use crate::observe::console;
use crate::process::{
    self, Cgroups, Command, ExitStatus, Identity, Limits, NewFiles, Process, Session, Stdio,
};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::file;
use crate::sys::mask::{self, HeldSignals};
use crate::sys::pidfd::Signal;
use crate::sys::poll::{self, Interest};
use crate::sys::procfs;
use crate::sys::socket::{self, UnixConnection};
use crate::sys::sync::lock;
use serde::Deserialize;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thiserror::Error;

/// A pager, as its owner holds it. Dropping it ends nothing.
#[derive(Debug)]
pub enum PagerHandle {
    /// A program, which outlives the owner.
    Program(Process),
    /// Threads of the owner.
    Threads(Serving),
    /// Threads of a process that was the owner before, and lives on without: it may be this one.
    Elsewhere(Process),
}

/// A pager that runs in threads of the owner.
#[derive(Debug)]
pub struct Serving {
    stop: Arc<EventFd>,
    ended: Arc<EventFd>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why there is no pager, or it did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PagerHandleError {
    /// Its file for what it has to say.
    #[error("cannot open {} for the pager's output", path.display())]
    Output {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program.
    #[error("cannot start the pager: set \"keeper\" to the path of mvm-keeper")]
    Program(#[source] process::Error),
    /// The threads.
    #[error("cannot start the threads that serve the VM's memory")]
    Threads(#[source] io::Error),
    /// It cannot be reached, or does not answer in time.
    #[error("cannot ask the pager at {}: it has ended, or is busy", path.display())]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It says no.
    #[error("the pager did not store the working set: {0}")]
    Refused(String),
}

/// What a pager answers.
#[derive(Deserialize)]
struct Answer {
    ranges: Option<usize>,
    error: Option<String>,
}

/// Makes the socket that the VMM of `directory` connects to, for this user alone. It is there before any pager is, so
/// that the VMM need not wait for one.
///
/// # Errors
/// `AddrInUse` when somebody listens there, and whatever else binding reports.
pub fn bind(directory: &Path) -> io::Result<UnixListener> {
    let path = socket_file(directory);
    socket::remove_dead(&path);
    let listener = bind_at(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl PagerHandle {
    /// Starts `keeper` as the pager of `directory`, whose plan is written. It comes up while the caller goes on.
    ///
    /// # Errors
    /// The program that cannot be started; no process is left then.
    pub fn start_program(
        keeper: &Path,
        directory: &Path,
        owner: Identity,
        listener: &UnixListener,
        cgroups: &Cgroups,
    ) -> Result<Self, PagerHandleError> {
        let output = open_output(directory)?;
        let arguments = [
            "pager".into(),
            directory.as_os_str().to_owned(),
            owner.pid.to_string().into(),
            owner.started.to_string().into(),
        ];
        let command = Command {
            program: keeper,
            arguments: &arguments,
            environment: &[],
            // Where it prints is how one is found whose owner died before he noted it.
            stdio: [Stdio::File(listener.as_fd()), Stdio::File(output.as_fd()), Stdio::File(output.as_fd())],
            directory: Some(Path::new("/")),
            session: Session::New,
            new_files: NewFiles::Private,
            cgroups: Some(cgroups),
            isolation: None,
        };
        Process::spawn(&command).map(Self::Program).map_err(PagerHandleError::Program)
    }

    /// Starts it in threads of this process. No signal of the host's will ever be handled in them.
    ///
    /// # Errors
    /// The thread that cannot be started, or its file for what it has to say.
    pub fn start_thread(
        directory: &Path,
        owner: Identity,
        listener: UnixListener,
    ) -> Result<Self, PagerHandleError> {
        // The directory may have another name by then.
        let output = open_output(directory)?;
        let flag = || EventFd::new().map(Arc::new).map_err(PagerHandleError::Threads);
        let (stop, ended) = (flag()?, flag()?);
        let (stopped, over, directory) = (Arc::clone(&stop), Arc::clone(&ended), directory.to_path_buf());
        let held = HeldSignals::hold();
        let thread = thread::Builder::new().name("mvm-pager".to_owned()).stack_size(STACK).spawn(move || {
            let _told = RaiseAtEnd(over);
            let say = |words: &str| note_last_words(&output, words);
            let _told_by_that = life::serve_until(&directory, owner, &listener, Some(&stopped), &say);
        });
        drop(held);
        let thread = Mutex::new(Some(thread.map_err(PagerHandleError::Threads)?));
        Ok(Self::Threads(Serving { stop, ended, thread }))
    }

    /// Holds one that somebody else has started for the VM of `directory`. A process that does not print where a
    /// pager does is none, whoever says so: it is never ended.
    pub fn adopt(process: Process, directory: &Path) -> Self {
        match procfs::prints_to(process.pid(), &log_file(directory)) {
            true => Self::Program(process),
            false => Self::Elsewhere(process),
        }
    }

    /// What tells it from every other process; threads of this one have none.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Program(process) | Self::Elsewhere(process) => process.identity().ok(),
            Self::Threads(_) => None,
        }
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Program(process) | Self::Elsewhere(process) => Some(process.pidfd()),
            Self::Threads(serving) => Some(serving.ended.as_fd()),
        }
    }

    /// Whether it still does its work.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Program(process) | Self::Elsewhere(process) => {
                process.exit_status().is_ok_and(|exit| exit.is_none())
            }
            Self::Threads(serving) => !serving.ended.is_raised(),
        }
    }

    /// How it ended, or `None` while it runs; threads do not say.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self {
            Self::Program(process) | Self::Elsewhere(process) => process.exit_status().ok().flatten(),
            Self::Threads(_) => None,
        }
    }

    /// Waits for its end, which comes by itself when its VMM has ended; after `patience` it is ended, and its VMM too.
    ///
    /// # Errors
    /// The process that outlives SIGKILL.
    pub fn end(&self, patience: Duration) -> Result<(), process::Error> {
        let limits = Limits { deadline: Deadline::after(patience), interrupt: None };
        match self {
            Self::Program(process) => {
                if let process::Waited::Exited(_) = process.wait(limits)? {
                    return Ok(());
                }
                process.send(Signal::Kill)?;
                let limits = Limits { deadline: Deadline::after(AFTER_KILL), interrupt: None };
                match process.wait(limits)? {
                    process::Waited::Exited(_) => Ok(()),
                    _ => Err(process::Error::Stuck { pid: process.pid(), after: AFTER_KILL }),
                }
            }
            Self::Threads(serving) => {
                let ended = [Interest::Readable(serving.ended.as_fd())];
                let _in_time = poll::wait(ended, limits.deadline);
                serving.stop.raise();
                let thread = lock(&serving.thread).take();
                // One that waits in the kernel cannot be ended, and is not to keep the caller.
                if let Ok([true]) = poll::wait(ended, Deadline::after(AFTER_KILL)) {
                    let _ended = thread.map(JoinHandle::join);
                }
                Ok(())
            }
            // They end with the VMM.
            Self::Elsewhere(_) => Ok(()),
        }
    }
}

/// What the pager of `directory` had to say when it failed.
pub fn last_words(directory: &Path) -> Option<String> {
    let words = console::tail(&log_file(directory), 1000);
    Some(words.trim().to_owned()).filter(|words| !words.is_empty())
}

/// Makes the pager of `directory` store what it has recorded so far, and returns the number of contiguous ranges.
///
/// # Errors
/// When it cannot be reached, records nothing, or cannot write the file.
pub fn store_working_set(directory: &Path, limits: Limits<'_>) -> Result<usize, PagerHandleError> {
    let path = socket_file(directory);
    let answer = ask(&path, limits).map_err(|source| PagerHandleError::Ask { path, source })?;
    match answer {
        Answer { ranges: Some(ranges), error: None } => Ok(ranges),
        Answer { error, .. } => Err(PagerHandleError::Refused(error.unwrap_or_default())),
    }
}

const STACK: usize = 256 * 1024;
/// How long a process may take to end after SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_micros(100);
const LONGEST_ANSWER: usize = 4096;

struct RaiseAtEnd(Arc<EventFd>);

impl Drop for RaiseAtEnd {
    fn drop(&mut self) {
        self.0.raise();
    }
}

fn ask(path: &Path, limits: Limits<'_>) -> io::Result<Answer> {
    let connection = UnixConnection::connect(path)?;
    connection.send(b"store\n")?;
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while text.last() != Some(&b'\n') && text.len() < LONGEST_ANSWER {
        match connection.receive(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => text.extend(buffer.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll::wait(
                    [Interest::Readable(connection.as_fd()), limits.interest()],
                    limits.deadline,
                )? {
                    [true, _] => {}
                    [_, true] => return Err(io::ErrorKind::Interrupted.into()),
                    [false, false] => return Err(io::ErrorKind::TimedOut.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    json::read(&text).map_err(io::Error::from)
}

/// A path may be longer than a socket address holds; a name below an open directory is not.
fn bind_at(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() <= socket::LONGEST_PATH {
        return UnixListener::bind(path);
    }
    let parent = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = std::os::fd::AsRawFd::as_raw_fd(&parent).to_string();
    UnixListener::bind(Path::new("/proc/self/fd").join(directory).join(name))
}

/// The output begins anew, and is locked before the pager is made: it inherits the lock and holds it until it is gone.
fn open_output(directory: &Path) -> Result<File, PagerHandleError> {
    let path = log_file(directory);
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let opened = file::open_plain(&mut options, &path).and_then(|file| {
        let until = Deadline::after(Duration::from_secs(1));
        while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && !until.has_passed() {
            thread::sleep(LOOK_AGAIN);
        }
        file.set_len(0)?;
        Ok(file)
    });
    opened.map_err(|source| PagerHandleError::Output { path, source })
}

fn note_last_words(mut output: &File, words: &str) {
    if let Err(error) = mask::without_sigxfsz(|| writeln!(output, "{words}")) {
        log::warn!("{words}; and that could not be noted: {error}");
    }
}
