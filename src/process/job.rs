//! A child process of the operator's own, with the ladder, the wait and the interrupt of a VM but no guest.

use super::ladder::{Asked, Plan, Report, Rung};
use super::{Command, Error, ExitStatus, Interrupts, Limits, NewFiles, Process, Session, Stdio, Waited};
use crate::settings::{self, Section};
use crate::sys::deadline::Deadline;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process that any thread may wait for, end, and interrupt the calls on. Dropping it ends nothing.
#[derive(Debug)]
pub struct Job {
    process: Process,
    interrupts: Interrupts,
    kill_allowance: Duration,
}

/// How a job is started and ended.
#[derive(Debug)]
pub struct JobOptions {
    directory: Option<PathBuf>,
    session: JobSession,
    kill_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum JobSession {
    New,
    Inherited,
}

impl JobOptions {
    /// Reads them from a JSON object; nothing is an empty one.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(json: Option<&str>) -> Result<Self, settings::Error> {
        let mut given = Section::parse(json, "options")?;
        let session = [("new", JobSession::New), ("inherited", JobSession::Inherited)];
        let options = Self {
            directory: given.take("directory")?,
            session: given.choose("session", &session)?,
            kill_ms: given.take_or("kill_ms", 5000)?,
        };
        given.finish().map(|()| options)
    }
}

impl Job {
    /// Starts the program that the first of `arguments` names. It sees `environment` and nothing else.
    ///
    /// # Errors
    /// What could not be done; no process is left then.
    pub fn spawn(
        arguments: &[OsString],
        environment: &[OsString],
        stdio: [Stdio<'_>; 3],
        options: &JobOptions,
    ) -> Result<Self, Error> {
        let (program, arguments) = arguments.split_first().ok_or(Error::NoProgram)?;
        let command = Command {
            program: Path::new(program),
            arguments,
            environment,
            stdio,
            directory: options.directory.as_deref(),
            session: match options.session {
                JobSession::New => Session::New,
                JobSession::Inherited => Session::Inherited,
            },
            new_files: NewFiles::AsTheHosts,
            cgroups: None,
            isolation: None,
        };
        let kill_allowance = Duration::from_millis(options.kill_ms);
        Ok(Self { process: Process::spawn(&command)?, interrupts: Interrupts::default(), kill_allowance })
    }

    /// Its number, for people to read.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the time is up first, or the call is interrupted.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus, Error> {
        let listening = self.interrupts.listen();
        let limits = Limits { deadline: Deadline::after(timeout), interrupt: listening.flag() };
        match self.process.wait(limits)? {
            Waited::Exited(exit) => Ok(exit),
            Waited::TimeIsUp => Err(Error::StillRunning { pid: self.pid(), after: timeout }),
            Waited::Interrupted => Err(Error::Interrupted { pid: self.pid() }),
        }
    }

    /// Sends SIGTERM, waits up to `grace`, then sends SIGKILL. `poll` is the longest time between two checks of the process.
    ///
    /// # Errors
    /// When the call is interrupted, and when the process outlives SIGKILL.
    pub fn shutdown(&self, grace: Duration, poll: Option<Duration>) -> Result<Report, Error> {
        let listening = self.interrupts.listen();
        let plan = Plan { first: Rung::Terminate, grace, poll, kill_allowance: self.kill_allowance };
        self.process.shut_down(plan, listening.flag(), |_| Asked::Unavailable, || ())
    }

    /// Ends the calls that are running on it with an error. The process keeps running.
    pub fn interrupt(&self) {
        self.interrupts.raise();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_process() {
        reference::hold(reference::PROCESS, || JobOptions::parse(None));
    }
}
