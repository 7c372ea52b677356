//! What a VM says of itself, as JSON.

use super::{Error, Observed, Origin, Reason, State, Vm, VmId};
use crate::claims::Claim;
use crate::firecracker::http::RequestPath;
use crate::firecracker::{API_SOCKET, ProblemOf, Version, with_given_ids};
use crate::journal::Record;
use crate::json::object;
use crate::observe::console::{self, Piece};
use crate::operation::Operation;
use crate::pager::{Figures, State as PagerState};
use crate::process::ExitStatus;
use crate::process::ladder::{Asked, Outcome, Report, Rung};
use crate::sys::file;
use crate::sys::sync::lock;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One of several VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: VmId,
    /// What it is doing.
    pub state: State,
    /// The number of its VMM's process, while one runs.
    pub pid: Option<i32>,
    /// How the last VMM ended, while none runs.
    pub exit: Option<ExitStatus>,
    /// The pool in which it waits.
    pub pool: Option<String>,
}

impl Vm {
    /// All that is known of it; the VMM is not asked.
    ///
    /// # Errors
    /// When it was destroyed.
    pub fn info(&self) -> Result<Value, Error> {
        let core = self.present(Operation::Describe)?;
        let (life, timings, record) = (&core.life, &core.timings, &core.record);
        Ok(object! {
            "id": self.id().as_str(),
            "state": life.state().name(),
            "state_in_doubt": life.is_in_doubt(),
            "on_owner_exit": self.spec.options.on_owner_exit.word(),
            "origin": origin_name(life.origin()),
            "pid": life.running().map(|process| process.pid()),
            "exit": life.exit().map(exit_json),
            "out_of_memory": core.is_out_of_memory,
            "firecracker": record.firecracker.to_string_lossy(),
            "firecracker_version": core.version.map(|version| version.to_string()),
            "known_problems": known_problems(core.version),
            "cgroups": record.own_cgroups().iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            "directory": self.files().directory().to_string_lossy(),
            "api_socket": self.files().socket().to_string_lossy(),
            "console": self.console().to_string_lossy(),
            "log": self.files().log().to_string_lossy(),
            "last_start": object! {
                "spawn_us": micros(timings.spawn),
                "socket_us": micros(timings.socket),
                "configure_us": micros(timings.configure),
                "requests": timings.requests.iter().map(request_json).collect::<Vec<_>>(),
                "load_us": timings.load.map(micros),
                "start_us": micros(timings.start),
            },
            "restored_from": record.restored.as_ref().map(|restored| restored.snapshot.id.as_str()),
            "generation_id": record.restored.as_ref().map(|restored| restored.generation_id.as_str()),
            "last_snapshot": record.last_snapshot.as_ref().map(|last| last.id.as_str()),
            "owner_data": record.owner_data.as_str(),
            "pool": record.pool.as_ref().map(|pool| pool.name.as_str()),
            "vsock_socket": self.vsock_socket(record).map(|path| path.to_string_lossy().into_owned()),
            "pager": self.pager_figures().map(|figures| {
                // One that was killed did not note its end.
                let has_ended = life.exit().is_some() && core.pager.as_ref().is_none_or(|pager| !pager.is_alive());
                pager_json(&figures, has_ended)
            }),
            "last_pause_us": timings.pause.map(micros),
            "last_resume_us": timings.resume.map(micros),
            "last_shutdown": core.last_shutdown.as_deref().map(report_json),
        })
    }

    /// What it is doing, in short.
    ///
    /// # Errors
    /// When it was destroyed.
    pub fn summary(&self) -> Result<Summary, Error> {
        let core = self.present(Operation::Describe)?;
        Ok(Summary {
            id: self.id(),
            state: core.life.state(),
            pid: core.life.running().map(|process| process.pid()),
            exit: core.life.exit(),
            pool: core.record.pool.as_ref().map(|pool| pool.name.clone()),
        })
    }

    /// The number of its VMM's process.
    ///
    /// # Errors
    /// When no VMM runs.
    pub fn pid(&self) -> Result<i32, Error> {
        let Summary { pid, state, .. } = self.summary()?;
        pid.ok_or_else(|| self.error(Operation::Describe, Reason::NoVmm { state }))
    }

    /// What it is doing, if it is still there.
    ///
    /// # Errors
    /// When it was destroyed.
    pub fn known_state(&self) -> Result<State, Error> {
        Ok(self.present(Operation::Describe)?.life.state())
    }

    /// The report of the last shutdown, if there was one.
    pub fn last_shutdown(&self) -> Option<Arc<Report>> {
        lock(&self.core).last_shutdown.clone()
    }

    /// The same as JSON.
    pub fn last_shutdown_json(&self) -> Value {
        self.last_shutdown().as_deref().map_or(Value::Null, report_json)
    }

    /// Reads what the guest has printed, from `offset` or the first byte after it that is still there; zero bytes
    /// when it has printed no more.
    ///
    /// # Errors
    /// When the VM was destroyed, or its console cannot be read.
    pub fn read_console(&self, offset: u64, buffer: &mut [u8]) -> Result<Piece, Error> {
        drop(self.present(Operation::ReadConsole)?);
        let path = self.console();
        let read = console::read(&path, offset, buffer);
        read.map_err(|source| {
            self.error(Operation::ReadConsole, Reason::File { action: "read", path, source })
        })
    }

    /// What a VM without a VMM still owns: its directory and the files in it.
    pub(crate) fn remains(&self) -> Vec<String> {
        let own = self.files();
        let directory = own.directory();
        let files =
            file::names_in(directory).unwrap_or_default().into_iter().map(|name| directory.join(name));
        let all = std::iter::once(directory.to_path_buf()).chain(files);
        all.map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// Where the host reaches the guest's vsock.
    fn vsock_socket(&self, record: &Record) -> Option<PathBuf> {
        let vmm = record.vmm.as_ref()?;
        if let Some(path) = vmm.claims.iter().find_map(Claim::link_path) {
            return Some(path.to_path_buf());
        }
        let sockets = vmm.claims.iter().filter_map(Claim::socket_path);
        let socket = sockets.into_iter().find(|socket| *socket != Path::new(API_SOCKET))?;
        Some(self.files().working_directory().join(socket))
    }

    /// Where the guest's console goes.
    fn console(&self) -> PathBuf {
        self.spec.console.clone().unwrap_or_else(|| self.files().console())
    }

    pub(super) fn present(&self, operation: Operation) -> Result<Observed<'_>, Error> {
        let core = self.observed();
        self.check_presence(core.life.presence(), operation)?;
        Ok(core)
    }
}

fn known_problems(version: Option<Version>) -> Vec<String> {
    let problems = version.into_iter().flat_map(Version::known_problems);
    problems.map(|problem| ProblemOf::to_string(&problem)).collect()
}

/// What a pager has counted, as JSON.
fn pager_json(figures: &Figures, has_ended: bool) -> Value {
    object! {
        "state": match figures.state {
            PagerState::Failed => "failed",
            _ if has_ended => "ended",
            PagerState::Waiting => "waiting",
            PagerState::Serving => "serving",
            PagerState::Complete => "complete",
            PagerState::Ended => "ended",
        },
        "faults": figures.faults,
        "deferred": figures.deferred,
        "fault_bytes": figures.fault_bytes,
        "around_bytes": figures.around_bytes,
        "ahead_bytes": figures.ahead_bytes,
        "zero_pages": figures.zero_pages,
        "removed_pages": figures.removed_pages,
        "present_pages": figures.present_pages,
        "total_pages": figures.total_pages,
        "page_bytes": figures.page_bytes,
        "recorded_pages": figures.recorded_pages,
        "replayed_pages": figures.replayed_pages,
        "avoided_faults": figures.avoided_faults,
    }
}

fn request_json((path, took): &(RequestPath, Duration)) -> Value {
    object! { "path": with_given_ids(path.as_str()), "us": micros(*took) }
}

/// A shutdown's report as JSON.
fn report_json(report: &Report) -> Value {
    let rungs = report.asked.iter().map(|(rung, at, asked)| {
        object! { "rung": rung_name(*rung), "at_us": micros(*at), "delivered": *asked == Asked::Delivered }
    });
    object! {
        "outcome": outcome_name(report.outcome),
        "rung": report.rung.map(rung_name),
        "exit": exit_json(report.exit),
        "guest_powered_off": report.rung == Some(Rung::Guest) && report.exit == ExitStatus::Code(0),
        "asked": rungs.collect::<Vec<_>>(),
        "elapsed_us": micros(report.elapsed),
    }
}

/// How a process ended, as JSON.
fn exit_json(exit: ExitStatus) -> Value {
    match exit {
        ExitStatus::Code(code) => object! { "code": code },
        ExitStatus::Signal(signal) => object! { "signal": signal },
        ExitStatus::ReapedByHost => object! { "reaped_by_host": true },
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Own => "own",
        Origin::Adopted => "adopted",
        Origin::Orphan => "orphan",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Graceful => "graceful",
        Outcome::Forced => "forced",
        Outcome::AlreadyExited => "already_exited",
    }
}

fn rung_name(rung: Rung) -> &'static str {
    match rung {
        Rung::Guest => "guest",
        Rung::Terminate => "sigterm",
        Rung::Kill => "sigkill",
    }
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
