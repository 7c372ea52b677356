//! Restoring a VM from a snapshot: checked before anything is started, then loaded by a new VMM and, unless it is to
//! be held, let go on.
//!
//! What a snapshot holds and whether its files are whole is the store's business, and who serves the page faults the
//! pager's.

mod checking;
mod options;
mod spec;

pub(crate) use options::Options;
pub(super) use options::{After, DriveOverride, Paging, RunIn};
pub(crate) use spec::spec_of;

use super::identity::GuestIdentity;
use super::launch::Preparation;
use super::{Error, Guest, Reason, State, Turn, Vm};
use crate::firecracker::api::AfterLoad;
use crate::firecracker::{self, Request};
use crate::journal::{PagerRecord, PoolRecord, RestoredRecord, SpecRecord};
use crate::observe::events::What;
use crate::operation::Operation;
use crate::pager;
use crate::snapshot::Snapshot;
use crate::sys::deadline::Deadline;
use checking::Disks;
use options::Memory;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is restored, and what it is to become.
#[derive(Debug)]
pub(crate) struct Restoration<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) options: &'a Options,
    /// What the VM would be made of if it were not restored.
    pub(crate) spec: SpecRecord,
    /// What distinguishes it from its siblings.
    pub(crate) identity: GuestIdentity,
    /// Where its vsock socket goes unless the options say.
    pub(crate) vsock: VsockPlace,
    /// The pool that it is to wait in.
    pub(crate) pool: Option<&'a PoolRecord>,
}

/// Where the vsock socket of a restored VM goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VsockPlace {
    /// Where that of the snapshot's VM was.
    AsItWas,
    /// Into its own directory, for it has siblings.
    OwnDirectory,
}

/// What the VMM is asked for, in order.
#[derive(Debug)]
pub(super) struct Loading {
    load: Value,
    /// Drives that the VMM does not find by a name of ours, and the paths of those that they become.
    patches: Vec<(String, PathBuf)>,
    mmds: Option<Value>,
    after: After,
    vsock: Option<PathBuf>,
    pub(super) pager: Option<Paging>,
}

impl Vm {
    /// Makes it, with a VMM that has loaded the snapshot. After an error nothing of it is left.
    pub(crate) fn restore(&self, restoration: &Restoration<'_>) -> Result<(), Error> {
        let options = restoration.options;
        let deadline = Deadline::after(Duration::from_millis(options.deadline_ms));
        let mut turn = self.take_turn(Operation::Restore, deadline)?;
        let binary = self.suitable_binary(&turn)?;
        let (snapshot, store) = (restoration.snapshot, &self.shared.snapshots);
        self.check_loadable(restoration, &binary, &turn)?;
        snapshot.check(store, options.verify, turn.limits()).map_err(self.failed(Operation::Restore))?;
        let layers = snapshot.layers(store).map_err(self.failed(Operation::Restore))?;
        let vsock = self.vsock_of(restoration, &binary)?;
        let Disks { content, patches } = self.disks_of(restoration)?;
        let pager = (options.memory == Memory::Pager).then(|| options.paging(snapshot, layers.clone()));
        let record = &mut turn.own_mut().record;
        let generation_id = restoration.identity.generation_id().to_owned();
        record.restored = Some(RestoredRecord { snapshot: snapshot.manifest.record(), generation_id });
        record.pool = restoration.pool.cloned();
        let mut vmm = self.vmm_to_be(&binary);
        let is_new = |socket: &PathBuf| !vmm.sockets.contains(socket);
        let bound = vsock.bound.clone().filter(is_new);
        vmm.sockets.extend(bound);
        vmm.pager = pager.as_ref().map(|_| PagerRecord { process: None });
        let directory = self.make_directory(&restoration.spec, content, vmm, &mut turn)?;
        let memory = self.memory_of(restoration, &layers, &turn)?;
        let loading = Loading {
            load: options.load(snapshot, &memory, vsock.overridden.as_deref(), binary.version()),
            patches,
            mmds: options.mmds_of(restoration),
            after: options.after,
            vsock: vsock.bound,
            pager,
        };
        self.launch(&binary, Preparation::Snapshot(&loading), &mut turn)?;
        if layers.len() > 1 && options.memory == Memory::File {
            // The VMM has mapped it.
            let _gone = std::fs::remove_file(&memory);
        }
        directory.keep();
        self.appear(What::Restored(snapshot.manifest.id.clone()));
        if self.state() == State::Running {
            self.tell(What::Resumed);
        }
        self.shared.events.log();
        Ok(())
    }

    /// Has the VMM load a snapshot.
    pub(super) fn load(&self, loading: &Loading, turn: &mut Turn<'_>) -> Result<(), Error> {
        let failed = self.failed(turn.operation());
        let (started, took) = {
            let (own, limits) = turn.own_within_limits();
            let Some(vmm) = own.vmm.as_mut() else { return Ok(()) };
            loading.vsock.iter().for_each(|socket| vmm.leaves(socket.clone()));
            let began = Instant::now();
            for put in self.spec.requests.iter().filter(|put| put.is_of_the_vmm()) {
                vmm.demand(&put.request, limits).map_err(&failed)?;
            }
            for request in loading.requests() {
                let asked = vmm.demand(&request, limits);
                asked.map_err(|source| self.load_error(source, loading))?;
            }
            (vmm.started(), began.elapsed())
        };
        let mut core = self.observed();
        core.timings.spawn = started.spawn;
        core.timings.socket = started.socket;
        core.timings.load = Some(took);
        core.life.loaded(if loading.after == After::GoOn { Guest::Running } else { Guest::Paused });
        Ok(())
    }

    /// A VMM that was ended by its pager has not failed by itself.
    fn load_error(&self, source: firecracker::Error, loading: &Loading) -> Error {
        let lost = loading.pager.as_ref().and_then(|_| self.pager_problem());
        let reason = lost.map_or_else(|| source.into(), |said| Reason::PagerLost { said });
        self.error(Operation::Restore, reason)
    }

    /// The file or the socket that the VMM gets its memory from.
    fn memory_of(
        &self,
        restoration: &Restoration<'_>,
        layers: &[PathBuf],
        turn: &Turn<'_>,
    ) -> Result<PathBuf, Error> {
        match (restoration.options.memory, layers) {
            (Memory::Pager, _) => Ok(pager::SOCKET.into()),
            (Memory::File, [only]) => Ok(only.clone()),
            (Memory::File, _) => {
                let place = self.files().memory();
                let flattened = self.shared.snapshots.flatten(restoration.snapshot, &place, turn.limits());
                flattened.map_err(self.failed(Operation::Restore)).map(|()| place)
            }
        }
    }
}

impl Loading {
    /// The length of the longest body of its requests.
    pub(super) fn longest_body(&self) -> usize {
        let requests = self.requests();
        requests.iter().filter_map(|request| request.body.as_ref()).map(Vec::len).max().unwrap_or_default()
    }

    /// What has to be changed before the guest goes on is changed while it is held.
    fn requests(&self) -> Vec<Request> {
        let exchange =
            |(drive_id, path): &(String, PathBuf)| Request::exchange_drive(drive_id, path, Map::new());
        let mut changes = self.patches.iter().map(exchange).collect::<Vec<_>>();
        changes.extend(self.mmds.as_ref().map(Request::put_metadata));
        let then = match self.after {
            After::GoOn if changes.is_empty() => AfterLoad::Resume,
            After::GoOn => {
                changes.push(Request::resume());
                AfterLoad::StayPaused
            }
            After::StayPaused => AfterLoad::StayPaused,
        };
        let load = Request::load_snapshot(self.load.clone(), then);
        std::iter::once(load).chain(changes).collect()
    }
}
