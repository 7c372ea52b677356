//! Stub.
#![allow(missing_docs, missing_debug_implementations)]
use crate::process::{self, ExitStatus, Identity, Process};
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub(crate) const SOCKET: &str = "pager.sock";
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) bytes: u64,
    pub(crate) workers: usize,
    pub(crate) fault_around_bytes: u64,
    pub(crate) ahead: Ahead,
    pub(crate) record: Option<Recording>,
    pub(crate) working_set: Option<PathBuf>,
    pub(crate) removals: Removals,
}
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ahead {
    #[default]
    Nothing,
    WorkingSet,
    Everything,
}
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Recording {
    pub(crate) limit_bytes: u64,
    pub(crate) for_ms: u64,
}
impl Default for Recording {
    fn default() -> Self {
        Self { limit_bytes: 1 << 30, for_ms: 10_000 }
    }
}
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Removals {
    Possible,
    Impossible,
}
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    #[error("no")]
    No(#[source] process::Error),
}
#[derive(Debug)]
pub(crate) struct Held;
impl Held {
    pub(crate) fn start_program(_: &Path, _: &Path, _: Identity, _: UnixListener) -> Result<Self, HeldError> {
        Ok(Self)
    }
    pub(crate) fn start_thread(_: &Path, _: Identity, _: UnixListener) -> Result<Self, HeldError> {
        Ok(Self)
    }
    pub(crate) fn adopt(_: Process) -> Self {
        Self
    }
    pub(crate) fn identity(&self) -> std::io::Result<Identity> {
        Identity::own()
    }
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    pub(crate) fn is_alive(&self) -> bool {
        true
    }
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        None
    }
    pub(crate) fn end(&self, _: Duration) {}
    pub(crate) fn last_words(&self, _: &Path) -> Option<String> {
        None
    }
}
#[derive(PartialEq, Eq)]
pub(crate) enum State {
    Failed,
}
pub(crate) struct Figures {
    pub(crate) state: State,
}
impl Figures {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    pub(crate) fn read(_: &Path) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}
pub(crate) fn prepare(_: &Path, _: &Plan) -> Result<UnixListener, HeldError> {
    unimplemented!()
}
