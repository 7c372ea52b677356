//! What can go wrong between the library and a VMM.

use super::http::{Method, RequestError, RequestPath, ResponseError};
use super::{Request, Version, with_given_ids};
use crate::process::{self, ExitStatus};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a VMM could not be started or did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The path names nothing that can be executed.
    #[error("cannot use {} as Firecracker: set \"firecracker\" to the path of an executable", path.display())]
    Binary {
        /// The path.
        path: PathBuf,
        /// What the kernel says of it.
        source: io::Error,
    },
    /// The executable does not say `Firecracker vX.Y.Z` when asked for its version.
    #[error("{} is not Firecracker: to {asked} it answered {said:?}", path.display())]
    NotFirecracker {
        /// The path.
        path: PathBuf,
        /// The argument that it got.
        asked: &'static str,
        /// The beginning of what it said.
        said: String,
    },
    /// The executable did not answer `--version` in time.
    #[error("{} did not answer --version within {after:?}: it is not Firecracker, or the machine is stuck", path.display())]
    VersionTimeout {
        /// The path.
        path: PathBuf,
        /// The time given.
        after: Duration,
    },
    /// A version older than the oldest supported.
    #[error("{} is Firecracker {version}, and the oldest supported is {oldest}: install a newer one", path.display())]
    TooOld {
        /// The path.
        path: PathBuf,
        /// What it says it is.
        version: Version,
        /// What it would have to be.
        oldest: Version,
    },
    /// Something in the spec wants what this version does not have.
    #[error("{what} needs Firecracker {since} or newer; this is {version}")]
    Unsupported {
        /// What is wanted.
        what: &'static str,
        /// Where it begins.
        since: Version,
        /// What there is.
        version: Version,
    },
    /// The process could not be started or watched.
    #[error("cannot run the VMM")]
    Process(#[source] process::Error),
    /// A file of the VMM could not be made.
    #[error("cannot open {} for the VMM's output", path.display())]
    Output {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The VMM ended.
    #[error("the VMM ended ({exit}) {during}{}", Tail(output))]
    Exited {
        /// What was going on.
        during: During,
        /// How it ended.
        exit: ExitStatus,
        /// The last of what it said.
        output: String,
    },
    /// The VMM did not do it in time.
    #[error("the VMM did not answer within {after:?} {during}{}", Tail(output))]
    Timeout {
        /// What was going on.
        during: During,
        /// The time given.
        after: Duration,
        /// The last of what it said.
        output: String,
    },
    /// Another thread interrupted the call.
    #[error("interrupted {during}")]
    Interrupted {
        /// What was going on.
        during: During,
    },
    /// The method or the path cannot be sent.
    #[error("this cannot be sent as a request")]
    Request(#[from] RequestError),
    /// Firecracker refused.
    #[error("Firecracker refused {request} with {status}: {fault}{}", Advice(advice.as_deref()))]
    Refused {
        /// The request.
        request: RequestLine,
        /// The HTTP status.
        status: u16,
        /// Firecracker's own words.
        fault: String,
        /// What to do about it, where that is known.
        advice: Option<String>,
    },
    /// The answer is not one.
    #[error("Firecracker's answer to {request} is not a valid HTTP response")]
    Response {
        /// The request.
        request: RequestLine,
        /// What is wrong with the answer.
        source: ResponseError,
    },
    /// The answer is one, but does not say what it should.
    #[error("Firecracker's answer to {request} does not match its API: {body:?}")]
    UnexpectedBody {
        /// The request.
        request: RequestLine,
        /// The beginning of the answer.
        body: String,
    },
    /// The connection failed.
    #[error("cannot talk to the VMM {during} through {}", socket.display())]
    Connection {
        /// What was going on.
        during: During,
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What was going on, for programs: a request, or a step of a start; nothing when that says no more than the
    /// operation.
    pub fn stage(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Binary { .. } => Some("binary".into()),
            Self::NotFirecracker { .. }
            | Self::VersionTimeout { .. }
            | Self::TooOld { .. }
            | Self::Unsupported { .. } => Some("version".into()),
            Self::Process(_) | Self::Output { .. } => Some("spawn".into()),
            Self::Exited { during, .. }
            | Self::Timeout { during, .. }
            | Self::Interrupted { during }
            | Self::Connection { during, .. } => Some(during.stage()),
            Self::Request(_) => None,
            Self::Refused { request, .. }
            | Self::Response { request, .. }
            | Self::UnexpectedBody { request, .. } => Some(request.to_string().into()),
        }
    }

    /// Whether Firecracker has refused a request because its API has no such path.
    pub(crate) fn is_unknown_path(&self) -> bool {
        matches!(self, Self::Refused { fault, .. } if fault.starts_with("Invalid request method and/or path"))
    }
}

impl During {
    fn stage(&self) -> Cow<'static, str> {
        match self {
            Self::Version => "version".into(),
            Self::Startup => "startup".into(),
            Self::Request(request) => request.to_string().into(),
        }
    }
}

/// A request, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: RequestPath,
}

/// What a VMM was busy with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum During {
    /// Saying its version.
    Version,
    /// Coming up: its API socket was not there yet.
    Startup,
    /// This request.
    Request(RequestLine),
}

impl From<&Request> for RequestLine {
    fn from(request: &Request) -> Self {
        Self { method: request.method, path: request.path.clone() }
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, with_given_ids(self.path.as_str()))
    }
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("while the executable was asked for its version"),
            Self::Startup => f.write_str("before its API socket was ready"),
            Self::Request(request) => write!(f, "during {request}"),
        }
    }
}

struct Advice<'a>(Option<&'a str>);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |advice| write!(f, "; what to do: {advice}"))
    }
}

/// The last of a VMM's output, when there is any.
struct Tail<'a>(&'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.lines().rev().find(|line| !line.trim().is_empty()) {
            None => Ok(()),
            Some(line) => write!(f, "; its last words: {}", line.trim()),
        }
    }
}
