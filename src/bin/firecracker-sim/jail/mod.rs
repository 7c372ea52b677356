//! The jailer: what it takes, makes and refuses, in its order and with its last words. The VMM in the jail is this very
//! process, for a dynamically linked program cannot be executed where its libraries are not; a program that is not
//! the simulator is executed. Who may not do what a jailer does has a jail in name only, and is told so.

mod arguments;
mod cgroup;
mod error;
mod plan;
mod program;
mod root;

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use mvm::sys::confinement::{self, Forked, Namespace};
use mvm::sys::session;
use rustix::fs::Access;
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::time::ClockId;
use rustix::{process, stdio, thread};

use crate::args::{self, Arguments};
use crate::fault::Fault;
use crate::log;
use crate::proc;
use crate::release::{Manner, Release};
use crate::start;
use arguments::PARAMETERS;
use error::JailerError;
use plan::Plan;
use program::Maker;
pub(crate) use root::Root;

/// Any of these makes a command line a jailer's, whatever the program is called.
const MARKS: &[&str] = &["--exec-file", "--uid", "--gid", "--chroot-base-dir"];

/// How far it came.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// This process is the VMM now.
    InJail {
        /// What it is to be started with.
        arguments: Vec<String>,
        root: Root,
        /// What it is called.
        program: String,
    },
    /// Everything is said and done, or is the business of a child.
    Done,
}

/// Whether the jailer is wanted, and not the VMM.
pub(crate) fn is_meant(program: Option<&str>, line: &[String]) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    let own = line.split(|argument| argument == "--").next().unwrap_or_default();
    name.is_some_and(|name| name.as_bytes().starts_with(b"jailer"))
        || own.iter().any(|argument| MARKS.contains(&argument.as_str()))
}

/// Gets rid of what came from whoever started this process. An environment can be read from outside as long as the
/// program runs that was given it, so that the program is executed once more, without one.
fn forget_the_caller() -> io::Result<()> {
    confinement::close_above_stdio()?;
    if std::env::vars_os().next().is_none() {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    again.arg0(words.next().unwrap_or_default()).args(words).env_clear();
    Err(again.exec())
}

/// Goes into the jail.
pub(crate) fn enter(line: &[String], faults: &[Fault]) -> Result<Arrival, JailerError> {
    // Where that cannot be, the caller's is kept.
    let _ = forget_the_caller();
    let started = Times { monotonic: micros(ClockId::Monotonic), cpu: micros(ClockId::ProcessCPUTime) };
    let mut parts = line.splitn(2, |argument| argument == "--");
    let own = parts.next().unwrap_or_default();
    let arguments = Arguments::parse(PARAMETERS, own).map_err(JailerError::ArgumentParsing)?;
    let version = start::version_told(faults, start::own_name().as_deref());
    if arguments.has("help") {
        let rest = "Any arguments after the -- separator will be supplied to the jailed binary.";
        print(&format!("Jailer v{version}\n\n{}\n{rest}\n\n", args::help_on(PARAMETERS)));
        return Ok(Arrival::Done);
    }
    if arguments.has("version") {
        print(&format!("Jailer v{version}\n\n"));
        return Ok(Arrival::Done);
    }
    let plan = Plan::new(&arguments, parts.next().unwrap_or_default(), faults)?;
    fs::create_dir_all(&plan.root).map_err(|error| JailerError::CreateDir(plan.root.clone(), error))?;
    carry_out(&plan, &started)
}

/// Says why it goes no further, and goes no further.
pub(crate) fn refuse(error: &JailerError) -> ExitCode {
    let is_panic =
        !matches!(error, JailerError::ArgumentParsing(_)) && Release::told().jailer() == Manner::Old;
    if is_panic {
        let place = "src/jailer/src/main.rs:355:27";
        let _ = writeln!(io::stderr(), "\nthread 'main' panicked at {place}:\nJailer error: {error}");
        std::process::abort();
    }
    let _ = writeln!(io::stderr(), "{error}\nError: {error:?}");
    ExitCode::FAILURE
}

struct Times {
    monotonic: u64,
    cpu: u64,
}

fn carry_out(plan: &Plan, started: &Times) -> Result<Arrival, JailerError> {
    plan.program.copy_into_jail(plan)?;
    if let Some(path) = &plan.netns {
        join_netns(path)?;
    }
    plan.limits.install()?;
    if let Some(cgroups) = &plan.cgroups {
        cgroups.enter()?;
    }
    let nowhere = match plan.daemonize {
        true => Some(
            File::open("/dev/null").map_err(|error| JailerError::Open(PathBuf::from("/dev/null"), error))?,
        ),
        false => None,
    };
    // Inside there is none.
    let proc_directory = File::open("/proc").ok();
    let root = root::enter(plan)?;
    root::furnish(plan, root)?;
    let mut spent = micros(ClockId::ProcessCPUTime).saturating_sub(started.cpu);
    if let Some(nowhere) = nowhere
        && daemonize(&nowhere, &mut spent)? != Forked::Child
    {
        return Ok(Arrival::Done);
    }
    if plan.new_pid_ns {
        if let Forked::Parent { child } = fork_into_new_pids(plan)? {
            save_pid(&plan.program_inside(root), child)?;
            return Ok(Arrival::Done);
        }
    } else {
        save_pid(&plan.program_inside(root), process::getpid().as_raw_nonzero().get())?;
    }
    // A child's memory is its own, and so is what can be asked about it.
    proc::look_into(proc_directory.as_ref());
    drop(proc_directory);
    let mut arguments = vec!["--id".to_owned(), plan.id.clone()];
    for (name, micros) in [
        ("--start-time-us", started.monotonic),
        ("--start-time-cpu-us", micros(ClockId::ProcessCPUTime)),
        ("--parent-cpu-time-us", spent),
    ] {
        arguments.extend([name.to_owned(), micros.to_string()]);
    }
    arguments.extend_from_slice(&plan.vmm_arguments);
    become_vmm(plan, root, arguments).map_err(JailerError::Exec)
}

/// The descriptor is closed again at once.
fn join_netns(path: &str) -> Result<(), JailerError> {
    let namespace = File::open(path).map_err(|error| JailerError::FileOpen(PathBuf::from(path), error))?;
    let kind = thread::LinkNameSpaceType::Network;
    thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
        .map_err(|error| JailerError::SetNetNs(error.into()))
}

/// Forks twice, so that the daemon leads no session and has no terminal.
fn daemonize(nowhere: &File, spent: &mut u64) -> Result<Forked, JailerError> {
    let fork = || confinement::fork().map_err(JailerError::Daemonize);
    if let parent @ Forked::Parent { .. } = fork()? {
        return Ok(parent);
    }
    process::setsid().map_err(|error| JailerError::SetSid(error.into()))?;
    *spent += micros(ClockId::ProcessCPUTime);
    if let parent @ Forked::Parent { .. } = fork()? {
        return Ok(parent);
    }
    let replaced = stdio::dup2_stdin(nowhere)
        .and_then(|()| stdio::dup2_stdout(nowhere))
        .and_then(|()| stdio::dup2_stderr(nowhere));
    replaced.map_err(|error| JailerError::Dup2(error.into()))?;
    *spent += micros(ClockId::ProcessCPUTime);
    Ok(Forked::Child)
}

/// The child is pid 1. It leads a session when its parent did, whose end would else hang it up.
fn fork_into_new_pids(plan: &Plan) -> Result<Forked, JailerError> {
    // A session that was begun outside of this process's PID namespace has no number, and is led by another process.
    let own = process::getpid().as_raw_pid();
    let leads = !plan.daemonize && session::session_of(own) == Some(own);
    confinement::leave(Namespace::ChildrensPids).map_err(JailerError::Clone)?;
    let forked = confinement::fork().map_err(JailerError::Clone)?;
    if forked == Forked::Child && leads {
        process::setsid().map_err(|error| JailerError::SetSid(error.into()))?;
    }
    Ok(forked)
}

fn save_pid(program: &Path, pid: i32) -> Result<(), JailerError> {
    let mut path = program.as_os_str().to_owned();
    path.push(".pid");
    let path = PathBuf::from(path);
    let created = File::create_new(&path);
    let mut file = created.map_err(|error| JailerError::FileOpen(path.clone(), error))?;
    write!(file, "{pid}").map_err(|error| JailerError::Write(path, error))
}

/// What executing a program as another user does. Returns only when the program is the simulator.
fn become_vmm(plan: &Plan, root: Root, arguments: Vec<String>) -> io::Result<Arrival> {
    drop_privileges(plan)?;
    let program = plan.program_inside(root);
    if plan.program.maker == Maker::Foreign {
        return Err(Command::new(program).args(&arguments).exec());
    }
    rustix::fs::access(&program, Access::EXEC_OK)?;
    // A change of user hides a process from its new owner, which the execution of a readable file undoes.
    process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let name = program.file_name().map(OsStr::as_bytes).unwrap_or_default();
    thread::set_name(&CString::new(name)?)?;
    Ok(Arrival::InJail { arguments, root, program: plan.program.name.clone() })
}

fn drop_privileges(plan: &Plan) -> io::Result<()> {
    let is_root = process::getuid().is_root();
    plan.unless_forbidden(|| thread::set_thread_gid(Gid::from_raw(plan.gid)))?;
    if is_root {
        plan.unless_forbidden(|| thread::set_thread_groups(&[]))?;
    }
    plan.unless_forbidden(|| thread::set_thread_uid(Uid::from_raw(plan.uid)))
}

fn micros(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1000).unwrap_or_default()
}

/// What cannot be printed is nobody's to read.
fn print(text: &str) {
    let _ = log::write_to_stdout(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_meant_by(program: &str, line: &str) -> bool {
        let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        is_meant(Some(program), &line)
    }

    #[test]
    fn a_jailer_is_known_by_its_name_or_its_arguments() {
        assert!(is_meant_by("/opt/jailer-v1.12.1", "--version"));
        assert!(is_meant_by("./firecracker-sim", "--id a --exec-file /bin/vmm"));
        assert!(!is_meant_by("/jailer/firecracker-sim", "--id a --api-sock s -- --uid 1"));
    }
}
