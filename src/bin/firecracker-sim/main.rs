//! `firecracker-sim`: a stand-in for Firecracker that speaks its API without KVM, for tests on any machine.
//! Here are the start of the process and its end; `--sim-help` tells what it does that Firecracker does not.

mod api;
mod args;
mod config;
mod config_file;
mod cpu_template;
mod error;
mod fault;
mod guest;
mod http;
mod jail;
mod kernel;
mod log;
mod machine;
mod memory;
mod metrics;
mod proc;
mod release;
mod resources;
mod server;
mod snapshot;
mod start;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use crate::args::{Arguments, SimArguments};
use crate::error::{ApiServerError, ExitCode as FirecrackerExit, MainError, RunWithoutApiError};
use crate::fault::{Fault, RequestFaults};
use crate::guest::Ending;
use crate::jail::{Arrival, Root};
use crate::log::Speaker;
use crate::machine::{End, Machine};
use crate::release::Release;
use crate::server::Server;
use mvm::sys::sync::lock;

/// A VMM that is wanted.
struct Wanted {
    arguments: Vec<String>,
    /// What the program is called, where that is known.
    program: Option<String>,
    root: Root,
    faults: Vec<Fault>,
}

fn main() -> ExitCode {
    match wanted() {
        Ok(wanted) => end(run(&wanted)),
        Err(code) => code,
    }
}

/// Goes into the jail if there is to be one; the exit code is for who gets no VMM here.
fn wanted() -> Result<Wanted, ExitCode> {
    let mut words = std::env::args();
    let called = words.next();
    let mut arguments: Vec<String> = words.collect();
    let own = SimArguments::taken_from(&mut arguments).map_err(|error| end(Err(error.into())))?;
    if own.wants_help {
        print(fault::HELP);
        return Err(ExitCode::SUCCESS);
    }
    let faults = own.faults;
    if !jail::is_meant(called.as_deref(), &arguments) {
        return Ok(Wanted { arguments, program: start::own_name(), root: Root::FileSystem, faults });
    }
    match jail::enter(&arguments, &faults) {
        Ok(Arrival::InJail { arguments, root, program }) => {
            Ok(Wanted { arguments, program: Some(program), root, faults })
        }
        Ok(Arrival::Done) => Err(ExitCode::SUCCESS),
        Err(error) => Err(jail::refuse(&error)),
    }
}

/// Says how it ended, as Firecracker does.
fn end(outcome: Result<u8, MainError>) -> ExitCode {
    match outcome {
        Ok(0) => {
            let line = "Firecracker exiting successfully. exit_code=0";
            log::info(Speaker::Main, "src/firecracker/src/main.rs:116", line);
            ExitCode::SUCCESS
        }
        // Firecracker leaves in the signal's handler, and a fault leaves no word.
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = exit_code(&error);
            log::error(Speaker::Main, "src/firecracker/src/main.rs:109", &error.to_string());
            let _ = writeln!(io::stderr(), "Error: {error:?}");
            let line = format!("Firecracker exiting with error. exit_code={code}");
            log::error(Speaker::Main, "src/firecracker/src/main.rs:112", &line);
            ExitCode::from(code)
        }
    }
}

fn run(wanted: &Wanted) -> Result<u8, MainError> {
    proc::look();
    let arguments = Arguments::of_firecracker(&wanted.arguments)?;
    let version = start::version_told(&wanted.faults, wanted.program.as_deref());
    Release::pass_for(&version);
    if let Some(text) = start::answer_at_once(&arguments, &version)? {
        print(&text);
        return Ok(0);
    }
    if let Some(code) = start::strike(&wanted.faults) {
        return Ok(code);
    }
    let path = arguments.value("api-sock").unwrap_or_default();
    let socket = match wanted.root {
        Root::FileSystem => path,
        Root::WorkingDirectory => path.trim_start_matches('/'),
    };
    run_vmm(&arguments, socket, &wanted.faults, version)
}

fn run_vmm(arguments: &Arguments, socket: &str, faults: &[Fault], version: String) -> Result<u8, MainError> {
    let id = start::checked_id(arguments);
    start::set_up_log(arguments, &id)?;
    log::info(Speaker::Main, "src/firecracker/src/main.rs:333", &format!("Running Firecracker v{version}"));
    start::renounce_privileges(arguments)?;
    let (ends, end) = channel();
    start::watch_signals(&ends)?;
    let start = start::read_files(arguments)?;

    let mut machine = Machine::new(id, version, start.mmds_size_limit, ends.clone());
    machine.pci_enabled = arguments.has("enable-pci");
    let machine = Arc::new(Mutex::new(machine));
    // The API answers nothing before the configuration file has been dealt with.
    let mut configured = lock(&machine);
    let has_api = !arguments.has("no-api");
    if has_api {
        start::tell_start_times(arguments);
        let server = Server {
            machine: Arc::clone(&machine),
            faults: RequestFaults::new(faults),
            ends,
            payload_limit: start.payload_limit,
            connections: AtomicUsize::new(0),
        };
        start::open_api(server, socket, faults)?;
    }
    start::configure(&mut configured, &start, has_api)?;
    drop(configured);
    wait_for_the_end(&end, &machine, has_api)
}

/// Ends when the guest, a signal, a failure or a fault says so; an answer under way is written first.
fn wait_for_the_end(end: &Receiver<End>, machine: &Mutex<Machine>, has_api: bool) -> Result<u8, MainError> {
    let end = end.recv().map_err(|_| MainError::Simulator(io::ErrorKind::BrokenPipe.into()))?;
    finish(end, machine, has_api)
}

fn finish(end: End, machine: &Mutex<Machine>, has_api: bool) -> Result<u8, MainError> {
    match end {
        End::Guest(ending) => {
            let _answered = lock(machine);
            log::info(Speaker::Main, "src/vmm/src/lib.rs:690", "Vmm is stopping.");
            log::info(Speaker::Main, "src/vmm/src/lib.rs:765", "Killing vCPU threads");
            machine::flush_metrics();
            let code = FirecrackerExit::GenericError;
            match ending {
                Ending::PoweredOff => Ok(0),
                Ending::TripleFault if has_api => {
                    Err(MainError::RunWithApi(ApiServerError::MicroVMStoppedWithError(code)))
                }
                Ending::TripleFault => Err(MainError::RunWithoutApiError(RunWithoutApiError::Shutdown(code))),
            }
        }
        End::Failed(error) => {
            let _answered = lock(machine);
            Err(error)
        }
        End::Signal { number, code } => {
            let line = format!("Shutting down VM after intercepting signal {number}, code {code}.");
            log::error(Speaker::Main, "src/vmm/src/signal_handler.rs:57", &line);
            machine::flush_metrics();
            Ok(start::exit_code_of_signal(number))
        }
        End::Fault(code) => Ok(code),
    }
}

fn exit_code(error: &MainError) -> u8 {
    let code = match error {
        MainError::ParseArguments(_) => FirecrackerExit::ArgParsing,
        MainError::InvalidLogLevel(_) => FirecrackerExit::BadConfiguration,
        MainError::RunWithApi(ApiServerError::MicroVMStoppedWithError(code))
        | MainError::RunWithoutApiError(RunWithoutApiError::Shutdown(code)) => *code,
        _ => FirecrackerExit::GenericError,
    };
    code as u8
}

/// What cannot be printed is nobody's to read.
fn print(text: &str) {
    let _ = log::write_to_stdout(text.as_bytes());
}
