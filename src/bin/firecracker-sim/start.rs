//! The steps of the start, in Firecracker's order and with its last words where one of them fails: some
//! failures end the process with an exit code, others, as in Firecracker, with SIGABRT.

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::{fs, thread};

use mvm::sys::signal::{self, Received};
use rustix::time::{ClockId, clock_gettime};

use crate::args::{self, Arguments};
use crate::error::{
    ApiServerError, BuildFromJsonError, BuildMicrovmError, FilterError, MainError, MmdsDatastoreError,
    RunWithoutApiError, ServerError, SnapshotVersionError,
};
use crate::fault::{self, Fault, StartFault, checked_version};
use crate::log::{self, LoggerConfig, Speaker};
use crate::machine::{End, Machine};
use crate::metrics::{self, MetricsConfig};
use crate::release::{self, Release};
use crate::server::{self, Server};
use crate::{config_file, machine, snapshot};

/// The signals that Firecracker takes for its end, and the exit code of each.
const FATAL_SIGNALS: &[(i32, &str, u8)] = &[
    (libc::SIGBUS, "sigbus", 149),
    (libc::SIGSEGV, "sigsegv", 150),
    (libc::SIGXFSZ, "sigxfsz", 151),
    (libc::SIGXCPU, "sigxcpu", 154),
    (libc::SIGHUP, "sighup", 156),
    (libc::SIGILL, "sigill", 157),
    // Not sent by a seccomp filter, this one is unexpected.
    (libc::SIGSYS, "", 2),
];

/// What the command line's files hold, and the limits that it sets.
#[derive(Debug)]
pub(crate) struct Start {
    config: Option<String>,
    metadata: Option<String>,
    pub(crate) payload_limit: usize,
    pub(crate) mmds_size_limit: usize,
}

/// The release that is told by a program of this name; a fault may tell another one.
pub(crate) fn version_told(faults: &[Fault], program: Option<&str>) -> String {
    let told = start_faults(faults).find_map(|fault| match fault {
        StartFault::Version(version) => Some(version.clone()),
        _ => None,
    });
    told.or_else(|| version_in_name(program?)).unwrap_or_else(|| release::NEWEST.to_owned())
}

/// What this copy of the simulator is called, which may have been removed meanwhile.
pub(crate) fn own_name() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let name = program.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

fn version_in_name(name: &str) -> Option<String> {
    let (_, version) = name.rsplit_once("-v")?;
    checked_version(version)
}

/// What is asked for instead of a VMM.
pub(crate) fn answer_at_once(arguments: &Arguments, version: &str) -> Result<Option<String>, MainError> {
    if arguments.has("help") {
        return Ok(Some(format!("Firecracker v{version}\n\n{}", args::help())));
    }
    if arguments.has("version") {
        return Ok(Some(format!("Firecracker v{version}\n\n")));
    }
    if arguments.has("snapshot-version") {
        return Ok(Some(format!("{}\n", Release::told().snapshot_format())));
    }
    let Some(path) = arguments.value("describe-snapshot") else { return Ok(None) };
    let bytes = fs::read(path).map_err(SnapshotVersionError::OpenSnapshot)?;
    let version = snapshot::describe(&bytes).map_err(SnapshotVersionError::SnapshotVersion)?;
    Ok(Some(format!("{version}\n")))
}

/// Lets the faults strike that need no socket; an exit code ends the process.
pub(crate) fn strike(faults: &[Fault]) -> Option<u8> {
    start_faults(faults).find_map(|fault| match fault {
        StartFault::Exit(code) => {
            let _ = writeln!(io::stderr(), "firecracker-sim: exits with {code}, as it was asked to");
            Some(*code)
        }
        StartFault::Crash => fault::crash(),
        StartFault::IgnoreSigterm => {
            let _ = signal::ignore(libc::SIGTERM);
            None
        }
        _ => None,
    })
}

pub(crate) fn checked_id(arguments: &Arguments) -> String {
    let id = arguments.value("id").unwrap_or_default();
    if let Err(reason) = args::check_id(id) {
        die("src/firecracker/src/main.rs:309:48", &format!("Invalid instance ID: {reason:?}"));
    }
    id.to_owned()
}

pub(crate) fn set_up_log(arguments: &Arguments, id: &str) -> Result<(), MainError> {
    log::name_the_instance(id);
    let level = arguments.value("level").map(str::parse).transpose().map_err(MainError::InvalidLogLevel)?;
    let config = LoggerConfig {
        log_path: arguments.value("log-path").map(Into::into),
        level,
        show_level: arguments.has("show-level").then_some(true),
        show_log_origin: arguments.has("show-log-origin").then_some(true),
        module: arguments.value("module").map(str::to_owned),
    };
    log::configure(config).map_err(MainError::LoggerInitialization)
}

/// What a seccomp filter needs, and what is seen of it.
pub(crate) fn renounce_privileges(arguments: &Arguments) -> Result<(), MainError> {
    if arguments.has("no-seccomp") {
        return Ok(());
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| MainError::Simulator(error.into()))
}

/// From here on these signals are taken by a thread, one after another; the first fatal one is the last.
pub(crate) fn watch_signals(ends: &Sender<End>) -> Result<(), MainError> {
    let mut watched: Vec<i32> = FATAL_SIGNALS.iter().map(|(number, ..)| *number).collect();
    watched.push(libc::SIGPIPE);
    signal::block(&watched).map_err(MainError::Simulator)?;
    let ends = ends.clone();
    let watch = move || {
        while let Ok(received) = signal::wait(&watched) {
            if received.number == libc::SIGPIPE {
                metrics::count("signals", "sigpipe");
                let line = format!("Received signal {}, code {}.", received.number, received.code);
                log::error(Speaker::Main, "src/vmm/src/signal_handler.rs:160", &line);
                continue;
            }
            let _ = ends.send(end_by(received));
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(MainError::Simulator)?;
    Ok(())
}

/// A file that gets too long is told to the thread that writes, which watches nothing: here it looks after the fact.
pub(crate) fn end_by_too_long_a_file() -> Option<End> {
    let is_told = signal::is_pending(libc::SIGXFSZ).unwrap_or(false);
    is_told.then(|| signal::wait(&[libc::SIGXFSZ]).ok()).flatten().map(end_by)
}

fn end_by(received: Received) -> End {
    if let Some((_, metric, _)) = FATAL_SIGNALS.iter().find(|(number, ..)| *number == received.number) {
        metrics::store("signals", metric, 1);
    }
    End::Signal { number: received.number, code: received.code }
}

pub(crate) fn exit_code_of_signal(number: i32) -> u8 {
    let known = FATAL_SIGNALS.iter().find(|(signal, ..)| *signal == number);
    known.map_or(crate::FirecrackerExit::UnexpectedError as u8, |(_, _, code)| *code)
}

pub(crate) fn read_files(arguments: &Arguments) -> Result<Start, MainError> {
    if let Some(path) = arguments.value("metrics-path") {
        let config = MetricsConfig { metrics_path: path.into() };
        metrics::configure(&config).map_err(MainError::MetricsInitialization)?;
    }
    if let Some(path) = arguments.value("seccomp-filter") {
        fs::File::open(path).map_err(|error| MainError::SeccompFilter(FilterError::FileOpen(error)))?;
    }
    let config =
        contents(arguments, "config-file", "388:20", "Unable to open or read from the configuration file");
    let metadata =
        contents(arguments, "metadata", "393:20", "Unable to open or read from the mmds content file");
    let payload_limit: usize =
        number(arguments, "http-api-max-payload-size", "usize", "403:18").unwrap_or_default();
    let mmds_size_limit = number(arguments, "mmds-size-limit", "usize", "415:18").unwrap_or(payload_limit);
    Ok(Start { config, metadata, payload_limit, mmds_size_limit })
}

/// The jailer says when it was started, and what it cost.
pub(crate) fn tell_start_times(arguments: &Arguments) {
    let started: Option<u64> = number(arguments, "start-time-us", "u64", "427:18");
    let _: Option<u64> = number(arguments, "start-time-cpu-us", "u64", "432:18");
    let _: Option<u64> = number(arguments, "parent-cpu-time-us", "u64", "437:18");
    let Some(started) = started else { return };
    let now = clock_gettime(ClockId::Monotonic);
    let now = u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or_default();
    metrics::store("api_server", "process_startup_time_us", now.wrapping_sub(started));
}

/// Opens the API socket, unless a fault forbids it, and serves it from a thread.
pub(crate) fn open_api(server: Server, path: &str, faults: &[Fault]) -> Result<(), MainError> {
    let mut is_deaf = false;
    for fault in start_faults(faults) {
        match fault {
            StartFault::NoSocket => return Ok(()),
            StartFault::Slow(time) => thread::sleep(*time),
            StartFault::Deaf => is_deaf = true,
            _ => {}
        }
    }
    let listener =
        UnixListener::bind(path).map_err(|error| MainError::RunWithApi(bind_error(path, error)))?;
    let line = format!("Listening on API socket ({:?}).", Path::new(path));
    log::info(Speaker::Main, "src/firecracker/src/api_server_adapter.rs:189", &line);
    let server = Arc::new(server);
    let serve = move || {
        if is_deaf {
            loop {
                thread::park();
            }
        }
        server::serve(&server, &listener);
    };
    thread::Builder::new().name("fc_api".to_owned()).spawn(serve).map_err(MainError::Simulator)?;
    Ok(())
}

/// Applies the configuration file and the metadata; with a configuration file the machine starts at once.
pub(crate) fn configure(machine: &mut Machine, start: &Start, has_api: bool) -> Result<(), MainError> {
    let metadata = start.metadata.as_deref();
    let Some(config) = &start.config else {
        let added = add_metadata(machine, metadata, "src/vmm/src/rpc_interface.rs:387:44");
        let refused = |error| ApiServerError::BuildMicroVmError(BuildMicrovmError::PopulateMmds(error));
        return added.map_err(|error| MainError::RunWithApi(refused(error)));
    };
    build(machine, config, metadata).map_err(|error| {
        if has_api {
            MainError::RunWithApi(ApiServerError::BuildFromJson(error))
        } else {
            MainError::RunWithoutApiError(RunWithoutApiError::BuildMicroVMFromJson(error))
        }
    })?;
    let line = "Successfully started microvm that was configured from one single json";
    log::info(Speaker::Main, "src/firecracker/src/main.rs:608", line);
    Ok(())
}

fn build(machine: &mut Machine, config: &str, metadata: Option<&str>) -> Result<(), BuildFromJsonError> {
    config_file::apply(config, machine.resources()).map_err(BuildFromJsonError::ParseFromJson)?;
    add_metadata(machine, metadata, "src/vmm/src/resources.rs:238:44")
        .map_err(|error| BuildFromJsonError::ParseFromJson(error.into()))?;
    machine.start().map_err(BuildFromJsonError::StartMicroVM)
}

fn add_metadata(
    machine: &mut Machine,
    metadata: Option<&str>,
    place: &str,
) -> Result<(), MmdsDatastoreError> {
    let Some(metadata) = metadata else { return Ok(()) };
    let contents = match serde_json::from_str(metadata) {
        Ok(contents) => contents,
        Err(error) => die(place, &format!("MMDS error: metadata provided not valid json: {error:?}")),
    };
    machine.resources().mmds.put(contents)?;
    log::info(
        Speaker::Main,
        "src/vmm/src/rpc_interface.rs:390",
        "Successfully added metadata to mmds from file",
    );
    Ok(())
}

fn start_faults(faults: &[Fault]) -> impl Iterator<Item = &StartFault> {
    faults.iter().filter_map(|fault| match fault {
        Fault::AtStart(fault) => Some(fault),
        Fault::At(..) => None,
    })
}

fn contents(arguments: &Arguments, name: &str, place: &str, message: &str) -> Option<String> {
    let path = arguments.value(name)?;
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => die(&format!("src/firecracker/src/main.rs:{place}"), &format!("{message}: {error:?}")),
    }
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    arguments: &Arguments,
    name: &str,
    kind: &str,
    place: &str,
) -> Option<T> {
    match arguments.value(name)?.parse() {
        Ok(number) => Some(number),
        Err(error) => {
            let message = format!("'{name}' parameter expected to be of '{kind}' type.: {error:?}");
            die(&format!("src/firecracker/src/main.rs:{place}"), &message)
        }
    }
}

fn bind_error(path: &str, error: io::Error) -> ApiServerError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ApiServerError::FailedToBindSocket(path.to_owned()),
        _ => ApiServerError::FailedToBindAndRunHttpServer(ServerError::IOError(error)),
    }
}

/// Where Firecracker panics: a line in the log, the metrics, and SIGABRT.
fn die(place: &str, message: &str) -> ! {
    let line = format!("Firecracker panicked at {place}:\n{message}");
    log::error(Speaker::Main, "src/firecracker/src/main.rs:137", &line);
    metrics::store("vmm", "panic_count", 1);
    machine::flush_metrics();
    process::abort()
}
