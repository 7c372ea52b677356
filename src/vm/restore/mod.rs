//! Restoring a VM from a snapshot: checked before anything is started, then loaded by a new VMM and, unless it is to
//! be held, let go on.
//!
//! What a snapshot holds and whether its files are whole is the store's business, and who serves the page faults the
//! pager's.

mod checking;
mod options;
mod spec;

pub(crate) use options::RestoreOptions;
pub(super) use options::{After, DriveOverride, Paging, RunIn};
pub(crate) use spec::spec_of;

use super::identity::GuestIdentity;
use super::plan::Plan;
use super::record::Content;
use super::{Error, Guest, Link, State, Vm};
use crate::firecracker::api::AfterLoad;
use crate::firecracker::{LENT_MEMORY, LENT_STATE, Request};
use crate::host::VmmPath;
use crate::journal::{PoolRecord, RestoredRecord, SpecRecord};
use crate::observe::events::EventKind;
use crate::operation::Operation;
use crate::pager;
use crate::snapshot::Snapshot;
use crate::sys::deadline::Deadline;
use checking::Disks;
use options::Memory;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// What is restored, and what it is to become.
#[derive(Debug)]
pub(crate) struct Restoration<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) options: &'a RestoreOptions,
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

impl Vm {
    /// Makes it, with a VMM that has loaded the snapshot. After an error nothing of it is left.
    pub(crate) fn restore(&self, restoration: &Restoration<'_>) -> Result<(), Error> {
        let options = restoration.options;
        let deadline = Deadline::after(Duration::from_millis(options.deadline_ms));
        let mut turn = self.take_turn(Operation::Restore, deadline)?;
        let means = self.means(&turn)?;
        let binary = &means.binary;
        let (snapshot, store) = (restoration.snapshot, &self.shared.snapshots);
        self.check_loadable(restoration, binary, &turn)?;
        snapshot.check(store, options.verify, turn.limits()).map_err(self.failed(Operation::Restore))?;
        self.check_shared_disks(&turn)?;
        let layers = snapshot.layers(store).map_err(self.failed(Operation::Restore))?;
        let vsock = self.vsock_of(restoration, binary)?;
        let Disks { mut content, patches } = self.disks_of(restoration)?;
        let pager = (options.memory == Memory::Pager).then(|| options.paging(snapshot, layers.clone()));
        let record = &mut turn.own_mut().record;
        let generation_id = restoration.identity.generation_id().to_owned();
        record.restored = Some(RestoredRecord { snapshot: snapshot.manifest.record(), generation_id });
        record.pool = restoration.pool.cloned();
        if let Some(data) = options.owner_data.clone() {
            record.owner_data = data.into_text();
        }
        let memory = self.memory_of(options, &layers);
        let told = self.expose_snapshot((snapshot.state_file(), memory.clone()), &mut content);
        let load = options.load(
            &snapshot.manifest,
            (&told.0, &told.1),
            vsock.overridden.as_deref(),
            binary.version(),
        );
        let requests = requests(load, &patches, options.mmds_of(restoration).as_ref(), options.after);
        let guest = if options.after == After::Resume { Guest::Running } else { Guest::Paused };
        let plan = Plan::of_snapshot((&self.spec, means), requests, vsock.bound.as_ref(), guest, pager);
        let directory = self.make_directory(&restoration.spec, content, &plan, &mut turn)?;
        let is_put_together = options.memory == Memory::File && layers.len() > 1;
        if is_put_together {
            store.flatten(snapshot, &memory, turn.limits()).map_err(self.failed(Operation::Restore))?;
        }
        self.bring_up(&plan, &mut turn)?;
        if is_put_together {
            // The VMM has mapped it.
            let _gone = std::fs::remove_file(&memory);
        }
        self.conceal_snapshot();
        directory.keep();
        self.appear(EventKind::Restored(snapshot.manifest.id.clone()));
        if self.state() == State::Running {
            self.tell(EventKind::Resumed);
        }
        self.shared.events.log();
        Ok(())
    }

    /// What the VMM calls the files of the snapshot, of which a jailed one finds some by names of its own.
    fn expose_snapshot(
        &self,
        (state, memory): (PathBuf, PathBuf),
        content: &mut Content,
    ) -> (PathBuf, PathBuf) {
        if self.spec.options.jail.is_none() {
            return (state, memory);
        }
        let known = content.names();
        content.links.extend(self.spec.links().filter(|link| !known.contains(&link.name)).cloned());
        content.links.push(Link { name: VmmPath::new(LENT_STATE), target: state });
        // A socket is in the jail itself, and a memory that is put together stands under its name already.
        if memory.is_absolute() && memory != self.files().memory() {
            content.links.push(Link { name: VmmPath::new(LENT_MEMORY), target: memory.clone() });
        }
        (LENT_STATE.into(), if memory.is_absolute() { LENT_MEMORY.into() } else { memory })
    }

    /// What was loaded is not lent to the next VMM.
    fn conceal_snapshot(&self) {
        if self.spec.options.jail.is_some() {
            let view = self.view();
            [LENT_STATE, LENT_MEMORY].into_iter().for_each(|name| view.conceal(&VmmPath::new(name)));
        }
    }

    /// The file or the socket that the VMM gets its memory from.
    fn memory_of(&self, options: &RestoreOptions, layers: &[PathBuf]) -> PathBuf {
        match (options.memory, layers) {
            (Memory::Pager, _) => pager::SOCKET.into(),
            (Memory::File, [only]) => only.clone(),
            (Memory::File, _) => self.files().memory(),
        }
    }
}

/// The requests that load a snapshot. What has to be changed before the guest goes on is changed while it is paused:
/// `patches` are drives that the VMM does not find by a name of ours, and the paths of those that they become.
fn requests(load: Value, patches: &[(String, VmmPath)], mmds: Option<&Value>, after: After) -> Vec<Request> {
    let exchange =
        |(drive_id, path): &(String, VmmPath)| Request::exchange_drive(drive_id, path.as_path(), Map::new());
    let mut changes = patches.iter().map(exchange).collect::<Vec<_>>();
    changes.extend(mmds.map(Request::put_metadata));
    let then = match after {
        After::Resume if changes.is_empty() => AfterLoad::Resume,
        After::Resume => {
            changes.push(Request::resume());
            AfterLoad::StayPaused
        }
        After::StayPaused => AfterLoad::StayPaused,
    };
    std::iter::once(Request::load_snapshot(load, then)).chain(changes).collect()
}
