//! Child processes of the operator's own: the ladder without a guest.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{AMPLE, Scratch, eventually, told};
use mvm::process::{Job, JobOptions, Stdio};
use mvm::{ExitStatus, Outcome, Rung};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const NOWHERE: [Stdio<'static>; 3] = [Stdio::Null; 3];

fn spawn(
    arguments: &[&str],
    stdio: [Stdio<'_>; 3],
    options: Option<&str>,
) -> Result<Job, mvm::process::Error> {
    let arguments = arguments.iter().map(OsString::from).collect::<Vec<_>>();
    Job::spawn(&arguments, &[], stdio, &JobOptions::parse(options).unwrap())
}

/// A shell that ignores SIGTERM, once it does.
fn stubborn() -> Job {
    let (mut ready, tell) = pipe().unwrap();
    let script = "trap '' TERM; echo; while :; do read x < /dev/null; /bin/sleep 60; done";
    let job = spawn(&["/bin/sh", "-c", script], [Stdio::Null, Stdio::File(tell.as_fd()), Stdio::Null], None)
        .unwrap();
    drop(tell);
    ready.read_exact(&mut [0]).unwrap();
    job
}

#[test]
fn a_process_that_follows_sigterm_is_graceful() {
    let job = spawn(&["/bin/sleep", "1000"], NOWHERE, None).unwrap();
    let report = job.shutdown(AMPLE, None).unwrap();
    assert_eq!(
        (report.outcome, report.rung, report.exit),
        (Outcome::Graceful, Some(Rung::Terminate), ExitStatus::Signal(15))
    );
    assert_eq!(job.shutdown(AMPLE, None).unwrap().outcome, Outcome::AlreadyExited);
}

#[test]
fn a_process_that_ignores_sigterm_is_forced_after_the_window() {
    let job = stubborn();
    let (began, grace) = (Instant::now(), Duration::from_millis(100));
    let report = job.shutdown(grace, Some(Duration::from_millis(7))).unwrap();
    assert!(began.elapsed() >= grace);
    assert_eq!((report.outcome, report.exit), (Outcome::Forced, ExitStatus::Signal(9)));
    let rungs = report.asked.iter().map(|(rung, ..)| *rung).collect::<Vec<_>>();
    assert_eq!(rungs, [Rung::Terminate, Rung::Kill]);
}

#[test]
fn no_grace_kills_even_the_stubborn_at_once() {
    let report = stubborn().shutdown(Duration::ZERO, None).unwrap();
    assert_eq!((report.outcome, report.asked.len()), (Outcome::Forced, 1));
}

#[test]
fn a_stopped_process_ends_too() {
    let job = spawn(&["/bin/sleep", "1000"], NOWHERE, None).unwrap();
    std::process::Command::new("kill").args(["-STOP", &job.pid().to_string()]).status().unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", job.pid())).unwrap();
    common::eventually("it is stopped", || stat().contains(") T "));
    assert_eq!(job.shutdown(Duration::from_millis(50), None).unwrap().outcome, Outcome::Forced);
}

#[test]
fn a_process_that_has_ended_keeps_its_exit_status() {
    let job = spawn(&["/bin/sh", "-c", "exit 7"], NOWHERE, None).unwrap();
    assert_eq!(job.wait(AMPLE).unwrap(), ExitStatus::Code(7));
    assert_eq!(job.wait(Duration::ZERO).unwrap(), ExitStatus::Code(7));
    let report = job.shutdown(AMPLE, None).unwrap();
    assert_eq!((report.outcome, report.exit), (Outcome::AlreadyExited, ExitStatus::Code(7)));
}

#[test]
fn a_child_sees_the_environment_directory_and_streams_that_it_is_given_and_nothing_else() {
    let scratch = Scratch::new();
    let out = File::create(scratch.path().join("out")).unwrap();
    let arguments = ["/bin/sh", "-c", "pwd; /usr/bin/env; ls /proc/self/fd; cat"].map(OsString::from);
    let options = JobOptions::parse(Some(r#"{"directory":"/usr"}"#)).unwrap();
    let stdio = [Stdio::Null, Stdio::File(out.as_fd()), Stdio::File(out.as_fd())];
    let job = Job::spawn(&arguments, &["A=b".into()], stdio, &options).unwrap();
    assert_eq!(job.wait(AMPLE).unwrap(), ExitStatus::Code(0));
    let said = std::fs::read_to_string(scratch.path().join("out")).unwrap();
    let lines =
        said.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with('_')).collect::<Vec<_>>();
    assert_eq!(lines, ["/usr", "A=b", "0", "1", "2", "3"], "{said}");
}

#[test]
fn what_cannot_be_started_is_told_with_the_step_and_leaves_no_process() {
    let failure = |arguments: &[&str], options| told(&spawn(arguments, NOWHERE, options).unwrap_err());
    let missing = failure(&["/nowhere/program"], None);
    assert!(
        missing.contains("cannot start /nowhere/program: executing it failed: No such file"),
        "{missing}"
    );
    let directory = failure(&["/bin/true"], Some(r#"{"directory":"/nowhere"}"#));
    assert!(directory.contains("entering its working directory failed"), "{directory}");
    let forbidden = failure(&["/etc/passwd"], None);
    assert!(forbidden.contains("Permission denied"), "{forbidden}");
    assert!(failure(&[], None).contains("empty argument list"));
    assert!(failure(&["/bin/a\0b"], None).contains("NUL"));
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let zombies = children.split_whitespace().filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    assert_eq!(zombies.count(), 0);
}

#[test]
fn an_interrupt_ends_the_wait_and_not_the_process() {
    let job = spawn(&["/bin/sleep", "1000"], NOWHERE, None).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| job.wait(Duration::MAX));
        eventually("the wait is interrupted", || {
            job.interrupt();
            waiting.is_finished()
        });
        assert!(told(&waiting.join().unwrap().unwrap_err()).contains("interrupted"));
    });
    assert!(told(&job.wait(Duration::ZERO).unwrap_err()).contains("has not ended"));
    job.shutdown(Duration::ZERO, None).unwrap();
}

#[test]
fn every_child_begins_with_default_signals_in_a_session_of_its_own() {
    let scratch = Scratch::new();
    let out = File::create(scratch.path().join("out")).unwrap();
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; cut -d' ' -f6 /proc/$$/stat; echo $$";
    let stdio = [Stdio::Null, Stdio::File(out.as_fd()), Stdio::Null];
    let arguments = ["/bin/sh", "-c", script].map(OsString::from);
    let environment = ["PATH=/usr/bin:/bin".into()];
    let job = Job::spawn(&arguments, &environment, stdio, &JobOptions::parse(None).unwrap()).unwrap();
    job.wait(AMPLE).unwrap();
    let said = std::fs::read_to_string(scratch.path().join("out")).unwrap();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("SigBlk:\t0000000000000000"));
    assert_eq!(lines.next(), Some("SigIgn:\t0000000000000000"));
    assert_eq!(lines.next(), lines.next(), "the session is its own");
}
