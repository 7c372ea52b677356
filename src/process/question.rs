//! A program that is run to its end: asked with one argument which version it is, or told to do one thing to a file.

use super::{Command, Error, ExitStatus, Limits, NewFiles, Process, Session, Stdio, Waited};
use crate::sys::deadline::Deadline;
use crate::sys::pidfd::Signal;
use crate::sys::poll::{self, Interest};
use crate::sys::{file, session};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error as ThisError;

/// Why a program gave no answer.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum NoAnswer {
    /// It could not be started or watched.
    #[error(transparent)]
    Process(#[from] Error),
    /// What it says could not be read.
    #[error("cannot read the output of {}", program.display())]
    Output {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It did not end in time.
    #[error("{} has not ended within {after:?}, asked for {argument}", program.display())]
    TimeIsUp {
        /// The program.
        program: PathBuf,
        /// What it was asked for.
        argument: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// Another thread interrupted the call.
    #[error("the call was interrupted while {} was asked for {argument}", program.display())]
    Interrupted {
        /// The program.
        program: PathBuf,
        /// What it was asked for.
        argument: &'static str,
    },
}

/// How long a program may take to say its version: Firecracker needs 2 ms.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 4096;

/// Starts `program` with `argument`, waits for its end, and gives what it has printed. One that has printed nothing may have
/// told on its standard error why, as the dynamic linker does that lacks a library. After an error nothing that it has started
/// is left.
///
/// # Errors
/// Why there is no answer.
pub fn ask(program: &Path, argument: &'static str, limits: Limits<'_>) -> Result<String, NoAnswer> {
    let broken = |source| NoAnswer::Output { program: program.to_path_buf(), source };
    let (mut output, input) = io::pipe().map_err(broken)?;
    let (mut errors, complaints) = io::pipe().map_err(broken)?;
    let stdio = [Stdio::Null, Stdio::File(input.as_fd()), Stdio::File(complaints.as_fd())];
    let process = start(program, &[argument.into()], stdio)?;
    drop((input, complaints));
    let limits = limits.no_later_than(Deadline::after(PATIENCE));
    run_to_its_end(&process, (program, argument), limits)?;
    let said = read_what_is_there(&mut output).map_err(broken)?;
    if said.is_empty() { read_what_is_there(&mut errors).map_err(broken) } else { Ok(said) }
}

/// How a program has ended, and the last of what it has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it has ended.
    pub exit: ExitStatus,
    /// The last of its standard output and error.
    pub output: String,
}

/// Runs `program`, which is asked for `what`, and waits for its end. After an error nothing that it has started is left.
///
/// # Errors
/// Why it did not come to its end. That it has failed at what it was asked for is no error here.
pub fn run(
    program: &Path,
    arguments: &[OsString],
    what: &'static str,
    limits: Limits<'_>,
) -> Result<Finished, NoAnswer> {
    let broken = |source| NoAnswer::Output { program: program.to_path_buf(), source };
    // Not a pipe, which would hold up a program that has much to say.
    let output = file::in_memory(c"mvm-tool").map_err(broken)?;
    let stdio = [Stdio::Null, Stdio::File(output.as_fd()), Stdio::File(output.as_fd())];
    let process = start(program, arguments, stdio)?;
    let exit = run_to_its_end(&process, (program, what), limits)?;
    let mut said = [0; LONGEST_ANSWER];
    let from = output.metadata().map_err(broken)?.len().saturating_sub(LONGEST_ANSWER as u64);
    let length = output.read_at(&mut said, from).map_err(broken)?;
    let said = String::from_utf8_lossy(said.get(..length).unwrap_or_default());
    Ok(Finished { exit, output: said.trim().to_owned() })
}

fn start(program: &Path, arguments: &[OsString], stdio: [Stdio<'_>; 3]) -> Result<Process, Error> {
    Process::spawn(&Command {
        program,
        arguments,
        environment: &[],
        stdio,
        directory: None,
        session: Session::New,
        new_files: NewFiles::AsTheHosts,
        cgroups: None,
        isolation: None,
    })
}

fn run_to_its_end(
    process: &Process,
    (program, argument): (&Path, &'static str),
    limits: Limits<'_>,
) -> Result<ExitStatus, NoAnswer> {
    let began = Instant::now();
    let ended_early = match process.wait(limits)? {
        Waited::Exited(exit) => return Ok(exit),
        ended_early => ended_early,
    };
    // Its number is its own as long as it is not reaped.
    end_session_of(process);
    process.send(Signal::Kill)?;
    process.wait(Limits { deadline: Deadline::after(PATIENCE), interrupt: None })?;
    let program = program.to_path_buf();
    Err(match ended_early {
        Waited::Interrupted => NoAnswer::Interrupted { program, argument },
        _ => NoAnswer::TimeIsUp { program, argument, after: began.elapsed() },
    })
}

/// A grandchild may hold the pipe open, so it is read no further than what has been written.
fn read_what_is_there(output: &mut io::PipeReader) -> io::Result<String> {
    let mut said = vec![0_u8; LONGEST_ANSWER];
    let [readable] = poll::wait([Interest::Readable(output.as_fd())], Deadline::after(Duration::ZERO))?;
    let length = if readable { output.read(&mut said)? } else { 0 };
    Ok(String::from_utf8_lossy(said.get(..length).unwrap_or_default()).into_owned())
}

/// Kills what is in the session of `leader`, which runs and leads it, but not itself.
fn end_session_of(leader: &Process) {
    let own = leader.pid();
    let others = session::members(own).unwrap_or_default().into_iter().filter(|pid| *pid != own);
    for other in others {
        let held = Process::hold(other, |pid| session::session_of(pid) == Some(own)).ok().flatten();
        let _ended_by_then = held.map(|process| process.send(Signal::Kill));
    }
}
