//! How long the stages of a VMM's life took.

use super::plan::Goal;
use crate::firecracker::Started;
use crate::firecracker::http::RequestPath;
use std::time::Duration;

/// The stages of the present VMM's life.
#[derive(Clone, Debug, Default)]
pub(super) struct Timings {
    pub(super) spawn: Duration,
    pub(super) socket: Duration,
    pub(super) configure: Duration,
    /// Loading a snapshot, instead of a configuration.
    pub(super) load: Option<Duration>,
    /// Each request of the configuration.
    pub(super) requests: Vec<(RequestPath, Duration)>,
    pub(super) start: Duration,
    /// The last of each.
    pub(super) pause: Option<Duration>,
    pub(super) resume: Option<Duration>,
}

impl Timings {
    /// Those of a VMM that has just been brought up: all its requests together took `took`.
    pub(super) fn of(
        started: Started,
        requests: Vec<(RequestPath, Duration)>,
        (goal, took): (Goal, Duration),
    ) -> Self {
        let Started { spawn, socket } = started;
        match goal {
            Goal::Loaded(_) => Self { spawn, socket, load: Some(took), requests, ..Self::default() },
            Goal::Configured | Goal::ConfiguredInDoubt => {
                Self { spawn, socket, configure: took, requests, ..Self::default() }
            }
        }
    }
}
