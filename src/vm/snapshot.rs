//! Taking a snapshot of a VM: its guest is held, the VMM writes, disks are copied, and the guest goes on.
//!
//! The VMM writes without a pause to hear anything else. A call that is ended meanwhile leaves it writing into files
//! that have no name any more, with the order to let the guest go on when it is done. Where a snapshot stands, and
//! what it consists of, is the store's business.

mod diff;
mod precheck;

pub use diff::WhyFull;

use diff::Plan;

use super::info::micros;
use super::restore::After;
use super::{Error, Guest, Reason, State, Turn, Vm};
use crate::causes::with_causes;
use crate::firecracker::api::{self, ConfiguredDisk, SnapshotType};
use crate::firecracker::{ConfigSection, DeviceId, Request, Version};
use crate::host::disk;
use crate::host::jail::Jail;
use crate::journal::{self, SnapshotRecord, SpecRecord, WhyNoParent};
use crate::json::object;
use crate::observe::events::EventKind;
use crate::operation::Operation;
use crate::process::Limits;
use crate::settings::{self, Section};
use crate::snapshot::{Access, Checksums, Drive, Kind, Manifest, SnapshotId, StoredFile, Unfinished};
use crate::sys::deadline::Deadline;
use crate::sys::random;
use crate::sys::sync::lock;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How to take a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotOptions {
    kind: Kind,
    when_uncertain: WhenUncertain,
    after: After,
    disks: Disks,
    checksums: Checksums,
    deadline_ms: u64,
}

/// What is taken where a diff might lack pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenUncertain {
    /// A full snapshot.
    Full,
    /// None.
    Fail,
}

/// What becomes of disks that the guest writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disks {
    /// The snapshot holds a copy of each.
    Copy,
    /// The snapshot names them, and whoever restores it sees to it that they are as they were.
    Reference,
}

impl SnapshotOptions {
    /// Reads them; nothing is an empty object.
    pub(crate) fn parse(json: Option<&str>) -> Result<Self, settings::Error> {
        let mut given = Section::parse(json, "options")?;
        let options = Self {
            kind: given.choose("type", Kind::WORDS)?,
            when_uncertain: given
                .choose("when_uncertain", &[("full", WhenUncertain::Full), ("fail", WhenUncertain::Fail)])?,
            after: After::take(&mut given)?,
            disks: given.choose("disks", &[("copy", Disks::Copy), ("reference", Disks::Reference)])?,
            checksums: Checksums::take(&mut given)?,
            deadline_ms: given.take_or("deadline_ms", 600_000)?,
        };
        given.finish().map(|()| options)
    }
}

/// What was done while the guest was held, and how long it took.
struct Taken<'a> {
    plan: Plan<'a>,
    drives: Vec<Drive>,
    memory: Duration,
    disks: Duration,
}

/// A guest that is held for a snapshot.
struct PausedGuest {
    /// When; nothing when it was held before, or is to stay so.
    since: Option<Instant>,
    /// What the next diff would have built upon, before this.
    base: (Option<SnapshotRecord>, WhyNoParent),
}

impl Vm {
    /// Takes the snapshot `id`, and reports on it as JSON. After an error there is no such snapshot, and the guest
    /// does what it did.
    pub(crate) fn take_snapshot(&self, id: &SnapshotId, options: &SnapshotOptions) -> Result<Value, Error> {
        let began = Instant::now();
        let mut turn = self.begin(Operation::Snapshot, Duration::from_millis(options.deadline_ms))?;
        self.require_guest()?;
        self.shared.state.verify().map_err(self.failed(Operation::Snapshot))?;
        // Whatever can be known before is looked at before the guest is held.
        let unfinished = self.shared.snapshots.begin(id).map_err(self.failed(Operation::Snapshot))?;
        let configuration = self.configuration(&mut turn)?;
        let plan = self.plan(options, &configuration, &unfinished)?;
        self.check_feasible(&plan, options.disks, &configuration, &unfinished)?;
        let made = (self.spec_record(&turn)?, self.snapshot_version(&turn));
        let hold = self.hold(options, &mut turn)?;
        let reconsidered = self.reconsider(plan, options);
        let is_untouched = reconsidered.is_err();
        let taken =
            reconsidered.and_then(|plan| self.save(plan, &configuration, &unfinished, options, &mut turn));
        let (released, paused) = self.let_go(&hold, is_untouched, &taken, options, &mut turn);
        let taken = match taken {
            Err(error) if error.leaves_the_vmm_busy() => {
                unfinished.abandon();
                return Err(error);
            }
            taken => taken?,
        };
        released?;
        let manifest = self.manifest(id, configuration, made, &taken)?;
        let finished = unfinished.finish(manifest, options.checksums, turn.limits());
        let snapshot = finished.map_err(self.failed(Operation::Snapshot))?;
        let last = Some(snapshot.manifest.record());
        if let Err(error) = self.note(&mut turn, |record| record.last_snapshot = last) {
            // The snapshot is whole; the next one just has to be a full one.
            log::warn!("{}", with_causes(&error));
        }
        let why_full = taken.plan.why_full().map(|why| with_causes(why));
        if let Some(why) = &why_full {
            log::info!("VM {}: snapshot {id} is a full one, not a diff: {why}", self.id());
        }
        self.tell(EventKind::Snapshotted(id.to_string()));
        self.shared.events.log();
        let memory = &snapshot.manifest.memory;
        Ok(object! {
            "id": id.as_str(),
            "type": snapshot.manifest.kind.word(),
            "wanted": options.kind.word(),
            "why_full": why_full,
            "parent": snapshot.manifest.parent,
            "directory": snapshot.directory.to_string_lossy(),
            "memory_bytes": memory.bytes,
            "memory_allocated_bytes": memory.allocated_bytes,
            "paused_us": paused.map(micros),
            "memory_us": micros(taken.memory),
            "disks_us": micros(taken.disks),
            "elapsed_us": micros(began.elapsed()),
        })
    }

    fn require_guest(&self) -> Result<(), Error> {
        match self.state() {
            State::Running | State::Paused => Ok(()),
            state => Err(self.wrong_state(Operation::Snapshot, state, Some("start it first"))),
        }
    }

    /// What the VM was made of, as it stands in its directory.
    fn spec_record(&self, turn: &Turn<'_>) -> Result<SpecRecord, Error> {
        let read = journal::read(&journal::spec_file(self.files().directory()));
        read.map_err(self.failed(turn.operation()))
    }

    /// The format of the snapshots that its VMM makes, as it was found out when that came up: by now another file may
    /// stand at the path of its executable.
    fn snapshot_version(&self, turn: &Turn<'_>) -> Option<Version> {
        let vmm = turn.own().record.vmm.as_ref()?;
        let format = vmm.snapshot_version.as_deref().and_then(Version::parse_number);
        if format.is_none() {
            let version = &vmm.version;
            log::warn!("VM {}: the format of the snapshots of Firecracker {version} is not known", self.id());
        }
        format
    }

    /// Holds the guest, after the journal says so. What its memory was saved to last is forgotten until the new
    /// snapshot is whole: the VMM forgets which pages have changed before it has made sure that they are on disk.
    fn hold(&self, options: &SnapshotOptions, turn: &mut Turn<'_>) -> Result<PausedGuest, Error> {
        let ran = self.state() == State::Running;
        let goes_on = ran && options.after == After::Resume;
        let base = {
            let record = &turn.own().record;
            (record.last_snapshot.clone(), record.why_no_parent)
        };
        self.note(turn, |record| {
            record.held_for_snapshot = goes_on;
            (record.last_snapshot, record.why_no_parent) = (None, WhyNoParent::AttemptFailed);
        })?;
        if !ran {
            return Ok(PausedGuest { since: None, base });
        }
        let hold = PausedGuest { since: Some(Instant::now()), base };
        self.switch(Guest::Paused, turn).inspect_err(|error| {
            let is_busy = error.leaves_the_vmm_busy();
            // No snapshot was asked for yet. A guest that will be held yet goes on then.
            self.restore_record(&hold, (true, is_busy), turn);
            if is_busy {
                self.send_on(turn);
            }
        })?;
        Ok(hold)
    }

    /// Has the guest of a VMM that is still busy go on when that is done; the journal goes on saying that it is held.
    fn send_on(&self, turn: &mut Turn<'_>) {
        lock(&self.core).life.doubted();
        let sent = turn.own_mut().vmm.as_mut().map(|vmm| vmm.send_ahead(&Request::resume()));
        if let Some(Err(error)) = sent {
            log::warn!("VM {}: it stays paused after a snapshot that was cut off: {error}", self.id());
        }
    }

    /// A guest that was held for a snapshot that nobody waits for any more goes on; most often it does already. Its
    /// state is known.
    pub(super) fn end_hold(&self, turn: &mut Turn<'_>) -> Result<(), Error> {
        if !turn.own().record.held_for_snapshot {
            return Ok(());
        }
        if self.state() == State::Paused {
            self.switch(Guest::Running, turn)?;
        }
        self.note(turn, |record| record.held_for_snapshot = false)
    }

    /// Lets a guest go on that ran before; says how long it was held. One whose VMM is still busy goes on when that is
    /// done.
    fn let_go(
        &self,
        hold: &PausedGuest,
        is_untouched: bool,
        taken: &Result<Taken<'_>, Error>,
        options: &SnapshotOptions,
        turn: &mut Turn<'_>,
    ) -> (Result<(), Error>, Option<Duration>) {
        let is_busy = taken.as_ref().is_err_and(|error| error.leaves_the_vmm_busy());
        let stays = taken.is_ok() && options.after == After::StayPaused;
        let Some(since) = hold.since.filter(|_| !stays) else {
            self.restore_record(hold, (is_untouched, false), turn);
            return (Ok(()), None);
        };
        if is_busy {
            self.send_on(turn);
            return (Ok(()), None);
        }
        // Whoever has ended the call wants the guest to go on all the same.
        let allowance = Deadline::after(self.spec.options.deadlines.request());
        let limits = Limits { deadline: allowance, interrupt: None };
        let released = self.switch_within(Guest::Running, limits, turn);
        let paused = since.elapsed();
        self.restore_record(hold, (is_untouched, false), turn);
        (released, Some(paused))
    }

    /// The guest is not held any more, unless it still is to be. What was saved last is what it was if the VMM was asked
    /// for no snapshot; a refusal may have come after it has forgotten which pages had changed.
    fn restore_record(
        &self,
        hold: &PausedGuest,
        (is_untouched, is_still_held): (bool, bool),
        turn: &mut Turn<'_>,
    ) {
        let noted = self.note(turn, |record| {
            record.held_for_snapshot &= is_still_held;
            if is_untouched {
                (record.last_snapshot, record.why_no_parent) = hold.base.clone();
            }
        });
        // A guest that runs is not held, whatever the journal says.
        noted.unwrap_or_else(|error| log::warn!("{}", with_causes(&error)));
    }

    /// What has to happen while the guest is held.
    fn save<'a>(
        &'a self,
        plan: Plan<'a>,
        configuration: &Value,
        unfinished: &Unfinished<'_>,
        options: &SnapshotOptions,
        turn: &mut Turn<'_>,
    ) -> Result<Taken<'a>, Error> {
        let began = Instant::now();
        self.save_memory(&plan, unfinished, turn)?;
        let was = plan.kind();
        let plan = self.reconsider(plan, options)?;
        if plan.kind() != was {
            unfinished.start_over().map_err(self.failed(Operation::Snapshot))?;
            self.save_memory(&plan, unfinished, turn)?;
        }
        let memory = began.elapsed();
        let drives = self.save_drives(configuration, unfinished, options.disks, turn)?;
        Ok(Taken { plan, drives, memory, disks: began.elapsed().saturating_sub(memory) })
    }

    fn save_memory(
        &self,
        plan: &Plan<'_>,
        unfinished: &Unfinished<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let kind = if plan.kind() == Kind::Full { SnapshotType::Full } else { SnapshotType::Diff };
        let is_jailed = self.spec.options.jail.is_some();
        let named = |file: PathBuf| if is_jailed { Jail::saved(&file) } else { file };
        let (state, memory) = (named(unfinished.state_file()), named(unfinished.memory_file()));
        let directory = unfinished.directory();
        self.lend_for_saving(directory, turn)?;
        let saved = self.demand(&Request::create_snapshot(kind, &state, &memory), turn).map(drop);
        if saved.as_ref().is_err_and(Error::leaves_the_vmm_busy) {
            return saved;
        }
        let taken_back = self.take_back_saved(directory, &[&state, &memory], turn);
        saved.and(taken_back)
    }

    /// What the VMM says that it is.
    fn configuration(&self, turn: &mut Turn<'_>) -> Result<Value, Error> {
        let mut configuration = self.ask_json(&Request::describe_configuration(), turn)?;
        api::restore_ids(&mut configuration, &self.spec.device_ids);
        Ok(configuration)
    }

    fn save_drives(
        &self,
        configuration: &Value,
        unfinished: &Unfinished<'_>,
        disks: Disks,
        turn: &Turn<'_>,
    ) -> Result<Vec<Drive>, Error> {
        let view = self.view();
        let mut drives = Vec::new();
        for disk in api::disks_of(configuration) {
            let ConfiguredDisk { section, id: drive_id, path: path_in_vmm, is_read_only } = disk;
            let path_on_host = view.target_of(&path_in_vmm);
            let access = if is_read_only { Access::ReadOnly } else { Access::Writable };
            let kind = if section == ConfigSection::Pmem { "pmem" } else { "disk" };
            let copies = access == Access::Writable && disks == Disks::Copy;
            let copy = copies.then(|| {
                let place = unfinished.disk_file(kind, DeviceId::of(&drive_id).as_str());
                disk::copy(&path_on_host, &place, turn.limits()).map(|_| StoredFile::at(&place))
            });
            let copy = copy.transpose().map_err(self.failed(turn.operation()))?;
            drives.push(Drive { drive_id, path_in_vmm, path_on_host, access, copy });
        }
        Ok(drives)
    }

    fn manifest(
        &self,
        id: &SnapshotId,
        configuration: Value,
        (spec, snapshot_version): (SpecRecord, Option<Version>),
        taken: &Taken<'_>,
    ) -> Result<Manifest, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let failed = |source| {
            let path = self.shared.snapshots.directory().into();
            self.error(Operation::Snapshot, Reason::File { action: "name a snapshot in", path, source })
        };
        let token = random::name().map_err(failed)?;
        Ok(Manifest {
            id: id.to_string(),
            created_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            token: Some(token),
            kind: taken.plan.kind(),
            parent: taken.plan.parent(),
            vm: self.id().to_string(),
            spec,
            firecracker: lock(&self.core).version.map(|version| version.to_string()).unwrap_or_default(),
            snapshot_version: snapshot_version.map(|version| version.to_string()),
            host: self.shared.cpu.clone(),
            configuration,
            drives: taken.drives.clone(),
            state: StoredFile::at(Path::new("state")),
            memory: StoredFile::at(Path::new("memory")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_snapshot() {
        reference::hold(reference::SNAPSHOT, || SnapshotOptions::parse(None));
    }
}
