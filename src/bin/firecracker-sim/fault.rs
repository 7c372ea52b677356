//! Misbehaviour, which no real VMM has at will: asked for on the command line, for the Nth request or for the
//! start. What a fault does to an answer is said here; when it strikes is the server's business.

use std::process;
use std::sync::Mutex;
use std::time::Duration;

use mvm::sys::signal;
use mvm::sys::sync::lock;

/// One `--sim-fault`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    At(u64, RequestFault),
    AtStart(StartFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFault {
    Slow(Duration),
    Drip(Duration),
    Truncate,
    Close,
    Drop,
    Garbage,
    Oversize,
    Status(u16),
    Hang,
    Exit(u8),
    Crash,
    Extra,
    Flood,
    Stall,
    NoSpace,
    SyncFails,
    PageOut,
    CrashHalfway,
    Handshake(Handshake),
}

/// What a VMM tells the handler of its page faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Handshake {
    #[default]
    Honest,
    Garbage,
    Bare,
    Half,
    Mute,
    Narrow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartFault {
    Exit(u8),
    Crash,
    NoSocket,
    Slow(Duration),
    Deaf,
    IgnoreSigterm,
    Version(String),
}

/// The faults still to come, and how many requests have.
#[derive(Debug, Default)]
pub(crate) struct RequestFaults {
    faults: Vec<(u64, RequestFault)>,
    received: Mutex<u64>,
}

/// Ends the process by SIGSEGV. Pid 1 survives what it sends itself, and then runs into what an abort ends in.
pub(crate) fn crash() -> ! {
    let _ = signal::raise_with_default_action(libc::SIGSEGV);
    process::abort()
}

pub(crate) const HELP: &str = "\
firecracker-sim stands in for Firecracker v1.16.1: same arguments, same API, no KVM.
With a jailer's arguments (--exec-file, --uid, --gid, --chroot-base-dir), or called jailer, it stands in for
the jailer too, and is the VMM in the jail itself. Without CAP_SYS_ADMIN it says that the jail is none.

What is not Firecracker's:
  --sim-help               Show this text.
  --sim-fault N:KIND[=ARG] Misbehave at the Nth request, counted from 1 over all connections, or, with N = 0,
                           at the start. May be given several times. A bad value is a bad argument (exit
                           code 153).

Kinds for a request:
  slow=MS      answer so much later; the API serves nobody else meanwhile, as a busy VMM does
  drip=MS      answer byte by byte, with so much time between two bytes
  truncate     send half of the answer's head, then close the connection
  close        carry the request out, announce a body, send half of it, then close the connection
  drop         close the connection without an answer
  garbage      send bytes that are not HTTP
  oversize     announce a body of 9223372036854775807 bytes, behind a header of 256 KiB
  status=CODE  answer with this status code and a fault_message, and do nothing
  hang         never answer, keep the connection open; other connections are served
  exit=CODE    exit with this code instead of answering
  crash        die by SIGSEGV, with its default action
  extra        answer correctly, with stray bytes behind the answer
  flood        send interim answers for ever
  stall        never answer, and serve no other connection either
  page-out     put the guest's memory into swap first, if the machine has any

Kinds for a request that makes or loads a snapshot:
  no-space       the disk is full when half of the memory is written
  sync-fails     all is written and counts as unchanged from then on, but it cannot be synced
  crash-halfway  die by SIGSEGV when half of the memory is written
  handshake=KIND tell the page-fault handler something else than the truth, and touch the memory all the same:
    garbage        no JSON
    bare           the regions, but no descriptor
    half           the first half of the regions, and the descriptor
    mute           nothing; the connection stays open
    narrow         regions of half their size: there will be page faults outside

Kinds for the start (N = 0):
  exit=CODE      exit at once, with a message on stderr
  crash          die by SIGSEGV at once
  no-socket      run, but never open the API socket
  slow=MS        open the API socket so much later
  deaf           open the API socket, but never accept a connection
  ignore-sigterm survive SIGTERM
  version=X.Y.Z  the version that GET /version, GET / and --version tell; snapshots are that version's too: their
                 format, the fields of a load, diffs without dirty page tracking, the page-fault handshake.
                 A copy of the simulator whose name ends in -vX.Y.Z is that release

A guest is the ELF file of kernel_image_path. What follows a line '#!mvm-guest' in it, up to a NUL or the end
of the file, is its script, one command a line; without one it boots like a small Linux, with drivers, and
obeys:
  say TEXT        print a line on the serial console
  sleep MS        do nothing for so long
  halt            do nothing for ever, deaf to Ctrl-Alt-Del
  obey            wait for Ctrl-Alt-Del, then power off
  await           wait for Ctrl-Alt-Del
  off             power off
  crash           triple fault
  count           count for ever, in the word at 32 MiB
  report          the same slowly, and print each number in hexadecimal
  flood           print lines for ever, as fast as they are taken
  fill FROM TO    write a word into each page between these MiB: its address times 0x9e3779b97f4a7c15
  check FROM TO   look whether they are still there, and print \"ok\" or \"bad\"
  scatter FROM TO the same in a scattered order; for a number of MiB that is a power of two
  dirty FROM TO   add one to the first word of each page
  storm N FROM TO read each page, from N threads (at most 64) at once
  back N          go back by N commands
  drivers         (anywhere) the guest has drivers: its balloon takes the top of its memory
";

impl Fault {
    /// None for what is no fault.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, kind) = text.split_once(':')?;
        let (kind, argument) = match kind.split_once('=') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (kind, None),
        };
        match number.parse().ok()? {
            0 => Some(Self::AtStart(StartFault::parse(kind, argument)?)),
            number => Some(Self::At(number, RequestFault::parse(kind, argument)?)),
        }
    }
}

impl RequestFault {
    fn parse(kind: &str, argument: Option<&str>) -> Option<Self> {
        Some(match (kind, argument) {
            ("slow", Some(time)) => Self::Slow(milliseconds(time)?),
            ("drip", Some(time)) => Self::Drip(milliseconds(time)?),
            ("truncate", None) => Self::Truncate,
            ("close", None) => Self::Close,
            ("drop", None) => Self::Drop,
            ("garbage", None) => Self::Garbage,
            ("oversize", None) => Self::Oversize,
            ("status", Some(code)) => {
                Self::Status(code.parse().ok().filter(|code| (100..1000).contains(code))?)
            }
            ("hang", None) => Self::Hang,
            ("exit", Some(code)) => Self::Exit(code.parse().ok()?),
            ("crash", None) => Self::Crash,
            ("extra", None) => Self::Extra,
            ("flood", None) => Self::Flood,
            ("stall", None) => Self::Stall,
            ("no-space", None) => Self::NoSpace,
            ("page-out", None) => Self::PageOut,
            ("sync-fails", None) => Self::SyncFails,
            ("crash-halfway", None) => Self::CrashHalfway,
            ("handshake", Some(kind)) => Self::Handshake(Handshake::parse(kind)?),
            _ => return None,
        })
    }
}

impl Handshake {
    fn parse(kind: &str) -> Option<Self> {
        Some(match kind {
            "garbage" => Self::Garbage,
            "bare" => Self::Bare,
            "half" => Self::Half,
            "mute" => Self::Mute,
            "narrow" => Self::Narrow,
            _ => return None,
        })
    }
}

impl StartFault {
    fn parse(kind: &str, argument: Option<&str>) -> Option<Self> {
        Some(match (kind, argument) {
            ("exit", Some(code)) => Self::Exit(code.parse().ok()?),
            ("crash", None) => Self::Crash,
            ("no-socket", None) => Self::NoSocket,
            ("slow", Some(time)) => Self::Slow(milliseconds(time)?),
            ("deaf", None) => Self::Deaf,
            ("ignore-sigterm", None) => Self::IgnoreSigterm,
            ("version", Some(version)) => Self::Version(checked_version(version)?),
            _ => return None,
        })
    }
}

impl RequestFaults {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        let at_requests = |fault: &Fault| match fault {
            Fault::At(number, fault) => Some((*number, *fault)),
            Fault::AtStart(_) => None,
        };
        Self { faults: faults.iter().filter_map(at_requests).collect(), received: Mutex::default() }
    }

    /// Counts a request, and says what is to go wrong with it.
    pub(crate) fn next(&self) -> Vec<RequestFault> {
        let mut received = lock(&self.received);
        *received += 1;
        self.faults.iter().filter(|(number, _)| *number == *received).map(|(_, fault)| *fault).collect()
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

pub(crate) fn checked_version(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let legal = parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok());
    legal.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_number_a_kind_and_what_the_kind_needs() {
        assert_eq!(Fault::parse("3:drop"), Some(Fault::At(3, RequestFault::Drop)));
        assert_eq!(
            Fault::parse("0:version=1.7.0"),
            Some(Fault::AtStart(StartFault::Version("1.7.0".to_owned())))
        );
        for bad in [
            "",
            "drop",
            "x:drop",
            "-1:drop",
            "1:slow",
            "1:slow=x",
            "1:drop=1",
            "0:drop",
            "1:deaf",
            "1:exit=256",
            "1:handshake",
            "1:handshake=firm",
            "0:version=1.7",
        ] {
            assert_eq!(Fault::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_fault_strikes_at_its_request_only() {
        let faults = RequestFaults::new(&[Fault::At(2, RequestFault::Drop)]);
        let struck: Vec<usize> = (0..3).map(|_| faults.next().len()).collect();
        assert_eq!(struck, [0, 1, 0]);
    }
}
