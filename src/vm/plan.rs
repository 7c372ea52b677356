//! How a VMM is brought up: the executable, what it will own on this host, and what it is asked for, in order. Create,
//! start and restore make one of these, and [`Vm::bring_up`] carries out each in the same way.
//!
//! [`Vm::bring_up`]: super::Vm::bring_up

use super::life::Guest;
use super::restore::Paging;
use super::spec::{Link, Put, Spec};
use crate::claims::{Cgroup, Claim};
use crate::firecracker::{API_SOCKET, Binary, Request};
use crate::process::Cgroups;
use std::path::PathBuf;

/// A VMM that is to be brought up.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) binary: Binary,
    /// The cgroups that were there before, and in which its processes are started.
    pub(super) cgroups: Cgroups,
    /// Announced in the journal before the VMM is started.
    pub(super) claims: Vec<Claim>,
    pub(super) steps: Vec<Step>,
    pub(super) goal: Goal,
    /// What serves the page faults of its memory.
    pub(super) pager: Option<Paging>,
}

/// What a VMM is started with, found before anything is made.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) binary: Binary,
    pub(super) placement: Placement,
}

/// In which cgroups the processes of a VM are started.
#[derive(Debug)]
pub(super) enum Placement {
    /// In those of the caller, or of this process.
    Given(Cgroups),
    /// In some of its own, which are made for it.
    Own(Vec<Cgroup>),
}

/// One request of a plan.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) request: Request,
    /// The file that the VMM knows by another name, for the error.
    pub(super) link: Option<Link>,
    pub(super) on_unknown: OnUnknown,
}

/// What becomes of a request that Firecracker does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnUnknown {
    /// The plan fails.
    Fail,
    /// It goes on, as after a section of a config file that Firecracker does not know.
    Ignore,
}

/// What the VM is when all requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// A guest that has not started.
    Configured,
    /// The same, unless a section that the library does not know has started it: the VMM is asked.
    ConfiguredInDoubt,
    /// A guest that was loaded.
    Loaded(Guest),
}

impl Plan {
    /// The plan of a VM that is configured as `spec` says.
    pub(super) fn of_spec(spec: &Spec, means: Means) -> Self {
        let goal = if spec.has_unknown { Goal::ConfiguredInDoubt } else { Goal::Configured };
        let sockets = spec.requests.iter().filter_map(|put| put.socket.as_ref());
        Self::of(means, sockets, spec.requests.iter().map(Step::of_put).collect(), goal)
    }

    /// The plan of a VM that loads a snapshot by `requests`, whose guest is `guest` then. Of `spec` the VMM is told what is
    /// in no snapshot.
    pub(super) fn of_snapshot(
        (spec, means): (&Spec, Means),
        requests: Vec<Request>,
        vsock: Option<&PathBuf>,
        guest: Guest,
        pager: Option<Paging>,
    ) -> Self {
        let puts = spec.requests.iter().filter(|put| put.is_of_the_vmm());
        let requests =
            requests.into_iter().map(|request| Step { request, link: None, on_unknown: OnUnknown::Fail });
        let steps = puts.map(Step::of_put).chain(requests).collect();
        Self { pager, ..Self::of(means, vsock.into_iter(), steps, Goal::Loaded(guest)) }
    }

    fn of<'a>(
        Means { binary, placement }: Means,
        sockets: impl Iterator<Item = &'a PathBuf>,
        steps: Vec<Step>,
        goal: Goal,
    ) -> Self {
        let (cgroups, own) = match placement {
            Placement::Given(cgroups) => (cgroups, Vec::new()),
            Placement::Own(own) => (Cgroups::default(), own),
        };
        let sockets = std::iter::once(Claim::socket(API_SOCKET)).chain(sockets.map(Claim::socket));
        let claims = sockets.chain(own.into_iter().map(Claim::Cgroup)).collect();
        Self { binary, cgroups, claims, steps, goal, pager: None }
    }

    /// The length of the longest body of its requests.
    pub(super) fn longest_body(&self) -> usize {
        let bodies = self.steps.iter().filter_map(|step| step.request.body.as_ref());
        bodies.map(Vec::len).max().unwrap_or_default()
    }
}

impl Step {
    fn of_put(put: &Put) -> Self {
        let on_unknown = if put.section.is_none() { OnUnknown::Ignore } else { OnUnknown::Fail };
        Self { request: put.request.clone(), link: put.links.first().cloned(), on_unknown }
    }
}
