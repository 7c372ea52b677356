//! `mvm-keeper`: what must outlive an operator that links the library. It is started by the library, and ends by
//! itself when neither an owner nor a VM needs it.

use mvm::process::Identity;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect::<Vec<_>>();
    if arguments.first().is_some_and(|first| first == "--version") {
        let _printed = writeln!(std::io::stdout(), "mvm-keeper {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // A limit on the size of files is the owner's, and no reason to end.
    let _ignored = mvm::sys::signal::ignore(libc::SIGXFSZ);
    // What cannot be logged is lost; the keeper works without.
    let _logging = log::set_logger(&Stderr).map(|()| log::set_max_level(log::LevelFilter::Warn));
    let served = match arguments.as_slice() {
        [pager, rest @ ..] if pager == "pager" => {
            parse(rest).map(|(directory, owner)| page(&directory, owner))
        }
        all => parse(all).map(|(directory, owner)| keep(&directory, owner)),
    };
    served.unwrap_or_else(|| {
        complain("usage: mvm-keeper [pager] DIRECTORY OWNER_PID OWNER_STARTED (the library starts it)");
        ExitCode::from(2)
    })
}

fn keep(directory: &Path, owner: Identity) -> ExitCode {
    match mvm::keeper::serve(directory, owner) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot keep {}: {error}", directory.display()));
            ExitCode::FAILURE
        }
    }
}

/// The socket that the VMM connects to is standard input.
fn page(directory: &Path, owner: Identity) -> ExitCode {
    let listener = std::io::stdin().as_fd().try_clone_to_owned().map(UnixListener::from);
    match listener {
        Ok(listener) => match mvm::pager::serve(directory, owner, &listener, &complain) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_said) => ExitCode::FAILURE,
        },
        Err(error) => {
            complain(&format!("cannot take the socket of the VM in {}: {error}", directory.display()));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[OsString]) -> Option<(PathBuf, Identity)> {
    let [directory, pid, started] = arguments else { return None };
    let identity = Identity { pid: pid.to_str()?.parse().ok()?, started: started.to_str()?.parse().ok()? };
    Some((directory.into(), identity))
}

/// Standard error is a file in the state directory.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        complain(&record.args().to_string());
    }

    fn flush(&self) {}
}

fn complain(line: &str) {
    let _nobody_to_tell = writeln!(std::io::stderr(), "{line}");
}
