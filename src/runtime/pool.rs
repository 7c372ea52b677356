//! VMs made ahead of need: restored and held, or configured and not started, and given a new id when they are taken.
//!
//! A thread of its own refills a pool. Its members are VMs like others, which say in their journals where they wait;
//! so the next owner finds them, and takes them into a pool of the same name and kind, or reaps them.

use super::census::Examination;
use super::placeholders::{METADATA_WORDS, Metadata, Placeholders};
use super::snapshots::{RestoreInputs, restored_spec};
use super::{Error, Runtime, current_directory, parse_spec};
use crate::causes::with_causes;
use crate::firecracker::ConfigSection;
use crate::journal::{self, PoolRecord, SpecRecord};
use crate::json::object;
use crate::operation::Operation;
use crate::settings::{self, Section};
use crate::snapshot::{Snapshot, SnapshotId};
use crate::sys::file;
use crate::sys::mask::HeldSignals;
use crate::sys::sync::lock;
use crate::vm::{self, RestoreOptions, Spec, TakeOptions, Vm, VmId, VsockPlace};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a take does when the pool is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenEmpty {
    /// It waits while a member is created.
    Make,
    /// It fails.
    Fail,
}

/// A pool of VMs. Dropping it ends none of them; [`Runtime::destroy_pool`] does.
#[derive(Debug)]
pub struct Pool {
    name: VmId,
    source: Source,
    made_of: String,
    size: usize,
    interval: Duration,
    when_empty: WhenEmpty,
    inside: Mutex<Inside>,
    changed: Condvar,
    refiller: Mutex<Option<JoinHandle<()>>>,
}

/// What a pool holds and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// How many members it is to have.
    pub size: usize,
    /// How many members are ready to be taken.
    pub ready: usize,
    /// How many VMs were taken out of it.
    pub taken: u64,
    /// How often a VM was wanted and none was ready.
    pub missed: u64,
    /// How many members could not be made.
    pub failed: u64,
}

/// What its members are created from.
#[derive(Debug)]
enum Source {
    /// Restored and held.
    Snapshot(Box<Snapshot>, Template),
    /// Configured and not started.
    Spec(Template),
}

/// What is the same for all members, but for placeholders.
#[derive(Debug)]
struct Template {
    content: Map<String, Value>,
    /// What relative paths in it are relative to.
    base: PathBuf,
    metadata: Metadata,
    /// What each has in its own directory.
    own_files: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct Inside {
    ready: VecDeque<Arc<Vm>>,
    closed: bool,
    next: u64,
    taken: u64,
    missed: u64,
    failed: u64,
    last_error: Option<String>,
}

/// How long to wait after a failure to make a member, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How soon it is seen that one of those that wait has died.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Of the refilling thread, which calls no foreign code.
const STACK: usize = 1 << 20;

impl Runtime {
    /// Opens the pool `name` and has it filled. Members of a pool of this name whose owner is gone are taken over when
    /// they are what is wanted, and destroyed otherwise. `options` is a JSON object.
    ///
    /// # Errors
    /// When the options are wrong, there is such a pool, or no thread can be started.
    pub fn open_pool(self: &Arc<Self>, name: &str, options: &str) -> Result<Arc<Pool>, Error> {
        let name = VmId::parse(name)?;
        // Its members' numbers need room.
        VmId::parse(&format!("{name}-{}", u32::MAX))?;
        let pool = Arc::new(self.pool_to_be(name.clone(), options)?);
        {
            let mut pools = lock(&self.pools);
            if self.is_closed() {
                return Err(Error::Closed);
            }
            if pools.iter().any(|open| open.name == name) {
                return Err(Error::PoolExists { name });
            }
            pools.push(Arc::clone(&pool));
        }
        self.take_members_over(&pool);
        pool.start_refilling(self).inspect_err(|_| self.forget_pool(&pool))?;
        Ok(pool)
    }

    /// Takes a VM out of `pool`, gives it the id `id`, and resumes or starts it. `options` is a JSON object, or nothing.
    ///
    /// # Errors
    /// When the id or the options are wrong, the id is taken, the VMM fails, or the pool is empty and `when_empty` is `fail`.
    pub fn take(&self, pool: &Pool, id: &str, options: Option<&str>) -> Result<Arc<Vm>, Error> {
        let id = VmId::parse(id)?;
        let base = current_directory()?;
        let options = Section::parse(options, "options").and_then(|given| TakeOptions::read(given, &base));
        let options = options.map_err(Error::of_options(Operation::Take))?;
        self.check_undisturbed()?;
        pool.check_presence()?;
        let place = self
            .examine(&id)
            .ok_or_else(|| Error::AlreadyExists { operation: Operation::Take, id: id.clone() })?;
        let vm = self.hand_over(pool, (&id, &place), &options);
        // Only now, for to make another takes what time the taker's own VM would.
        pool.changed.notify_all();
        vm.inspect(|vm| self.file_under(&id, vm))
    }

    /// Destroys `pool` and the VMs that wait in it.
    ///
    /// # Errors
    /// The first failure to destroy a VM. The others are destroyed all the same; it can be tried again then.
    pub fn destroy_pool(&self, pool: &Pool) -> Result<(), Error> {
        self.check_undisturbed()?;
        let waiting = self.close_pool(pool);
        let destroyed = waiting
            .into_iter()
            .map(|vm| self.destroy(&vm).inspect_err(|_| lock(&pool.inside).ready.push_back(vm)));
        destroyed.collect::<Vec<_>>().into_iter().collect()
    }

    /// Closes `pool`. The VMs that wait in it stay, for whoever opens a pool of its name next.
    pub fn release_pool(&self, pool: &Pool) {
        drop(self.close_pool(pool));
    }

    fn close_pool(&self, pool: &Pool) -> VecDeque<Arc<Vm>> {
        let waiting = pool.stop();
        self.forget_pool(pool);
        waiting
    }

    fn forget_pool(&self, pool: &Pool) {
        lock(&self.pools).retain(|known| !std::ptr::eq(&**known, pool));
    }

    fn hand_over(
        &self,
        pool: &Pool,
        (id, place): (&VmId, &Examination<'_>),
        options: &TakeOptions,
    ) -> Result<Arc<Vm>, Error> {
        let vm = match pool.take() {
            Some(vm) => {
                place.is_for(vm.id());
                vm
            }
            None if pool.when_empty == WhenEmpty::Make => pool.make_missed(self, place)?,
            None => return Err(Error::PoolEmpty { name: pool.name.clone() }),
        };
        // What has been half handed over is nobody's.
        vm.leave_pool(id, options).inspect_err(|_| self.discard(&vm))?;
        Ok(vm)
    }

    fn pool_to_be(&self, name: VmId, options: &str) -> Result<Pool, Error> {
        let base = current_directory()?;
        let section = Section::parse(Some(options), "options");
        let given = section.and_then(PoolOptions::read).map_err(Error::of_options(Operation::OpenPool))?;
        let what = settings::parse(options).map_err(Error::of_options(Operation::OpenPool))?;
        let id = format!("{name}-1");
        let first = Placeholders { id: &id, number: 1 };
        let id = format!("{name}-2");
        let second = Placeholders { id: &id, number: 2 };
        let mut images = Vec::new();
        let source = match (given.snapshot, given.spec) {
            (Some(snapshot), None) => {
                let snapshot = self.shared.snapshots.find(&SnapshotId::parse(&snapshot)?);
                let snapshot = snapshot.map_err(Error::of_snapshot(Operation::OpenPool))?;
                let (content, metadata) = (given.restore, given.metadata);
                let template = Template { content, base: base.clone(), metadata, own_files: Vec::new() };
                let spec = |member| {
                    let wanted = (&template.restore_options(member)?, VsockPlace::OwnDirectory);
                    let restored = restored_spec(Operation::OpenPool, &name, &snapshot.manifest, wanted)?;
                    Ok::<_, Error>(restored.1)
                };
                check_members(&[(first, spec(first)?), (second, spec(second)?)])?;
                Source::Snapshot(Box::new(snapshot), template)
            }
            (None, Some(content)) => {
                let mut template =
                    Template { content, base: base.clone(), metadata: Metadata::Kept, own_files: Vec::new() };
                template.separate(first, second)?;
                let spec = |member| {
                    let settled = self.settled(Operation::OpenPool, &name, template.spec(member)?)?;
                    Ok::<_, Error>(parse_spec(Operation::OpenPool, &name, &settled)?)
                };
                let members = [(first, spec(first)?), (second, spec(second)?)];
                check_members(&members)?;
                images = members[0].1.images().map(stamp).collect();
                Source::Spec(template)
            }
            _ => return Err(Error::PoolOfWhat),
        };
        let made_of = self.checksum_of(what, &base, (&source, images));
        Ok(Pool {
            name,
            source,
            made_of,
            size: given.size,
            interval: Duration::from_secs_f64(1.0 / given.refill_per_second.clamp(0.001, 100_000.0)),
            when_empty: given.when_empty,
            inside: Mutex::default(),
            changed: Condvar::new(),
            refiller: Mutex::default(),
        })
    }

    /// What tells VMs that were made of these options from all others. How many wait, and how soon, is not in it.
    fn checksum_of(
        &self,
        mut options: Value,
        base: &Path,
        (source, images): (&Source, Vec<Value>),
    ) -> String {
        for key in ["size", "refill_per_second", "when_empty"] {
            options.as_object_mut().map(|options| options.remove(key));
        }
        let made = match source {
            Source::Snapshot(snapshot, _) => Some(snapshot.manifest.created_unix_ms),
            Source::Spec(_) => None,
        };
        let firecracker = self.options.firecracker.as_deref().map(Path::to_string_lossy);
        let what = [options, base.to_string_lossy().into(), made.into(), firecracker.into(), images.into()];
        journal::checksum(Value::from(what.to_vec()).to_string().as_bytes())
    }

    /// What waits in a pool that nobody has open, whose owner is gone.
    pub(super) fn stray_members(&self) -> Vec<Arc<Vm>> {
        let waiting = self.list().into_iter().filter(|vm| !vm.is_orphan() && vm.pool().is_some());
        let waiting = waiting.collect::<Vec<_>>();
        let pools = lock(&self.pools);
        let is_stray = |pool: PoolRecord| pools.iter().all(|open| open.name.as_str() != pool.name);
        waiting.into_iter().filter(|vm| vm.pool().is_some_and(is_stray)).collect()
    }

    fn take_members_over(&self, pool: &Pool) {
        for vm in self.list() {
            let Some(waits_in) = vm.pool().filter(|waits_in| waits_in.name == pool.name.as_str()) else {
                continue;
            };
            let is_one = waits_in == pool.record() && vm.is_ready();
            let mut inside = lock(&pool.inside);
            let fits = is_one && inside.ready.len() < pool.size;
            if fits {
                inside.ready.push_back(vm);
            } else {
                drop(inside);
                self.discard(&vm);
            }
        }
    }
}

/// The options of a pool.
struct PoolOptions {
    snapshot: Option<String>,
    restore: Map<String, Value>,
    metadata: Metadata,
    spec: Option<Map<String, Value>>,
    size: usize,
    refill_per_second: f64,
    when_empty: WhenEmpty,
}

impl PoolOptions {
    fn read(mut given: Section) -> Result<Self, settings::Error> {
        let when_empty = [("make", WhenEmpty::Make), ("fail", WhenEmpty::Fail)];
        let mut restore = given.section("restore")?;
        let options = Self {
            snapshot: given.take("snapshot")?,
            metadata: restore.choose("mmds_placeholders", &METADATA_WORDS)?,
            restore: restore.rest(),
            spec: given.take("spec")?,
            size: usize::try_from(given.take_or("size", 4_u64)?).unwrap_or(usize::MAX),
            refill_per_second: given.take_or("refill_per_second", 20.0)?,
            when_empty: given.choose("when_empty", &when_empty)?,
        };
        given.finish().map(|()| options)
    }
}

impl Template {
    /// How the member of these names is restored.
    fn restore_options(&self, member: Placeholders<'_>) -> Result<RestoreOptions, Error> {
        let mut content = self.content.clone();
        member
            .fill_restore_options(&mut content, self.metadata)
            .map_err(Error::of_placeholder(Operation::OpenPool))?;
        let options = Section::of(content.into(), "options.restore")
            .and_then(|given| RestoreOptions::read(given, &self.base));
        options.map(RestoreOptions::held).map_err(Error::of_options(Operation::OpenPool))
    }

    /// What the member of these names is made of.
    fn spec(&self, member: Placeholders<'_>) -> Result<SpecRecord, Error> {
        let mut content = self.content.clone();
        member.fill_spec(&mut content).map_err(Error::of_placeholder(Operation::OpenPool))?;
        let spec = Value::Object(content).to_string();
        Ok(SpecRecord { spec, base: self.base.clone(), own_files: self.own_files.clone() })
    }

    /// Lets each member have in its own directory what two of them would share otherwise.
    fn separate(&mut self, one: Placeholders<'_>, other: Placeholders<'_>) -> Result<(), Error> {
        let filled = |member: Placeholders<'_>| {
            let mut content = self.content.clone();
            member
                .fill_spec(&mut content)
                .map_err(Error::of_placeholder(Operation::OpenPool))
                .map(|()| Value::Object(content))
        };
        let (one, other) = (filled(one)?, filled(other)?);
        let is_shared =
            |section: ConfigSection, key: &str| one[section.name()][key] == other[section.name()][key];
        self.own_files = vm::separate(&mut self.content, is_shared);
        Ok(())
    }
}

/// What tells an image from what stands at its path later.
fn stamp(image: &Path) -> Value {
    let about = std::fs::metadata(image).ok();
    let stamp = about.map(|about| {
        let (device, inode) = file::identity(&about);
        vec![device, inode, about.len(), about.mtime().cast_unsigned(), about.mtime_nsec().cast_unsigned()]
    });
    vec![Value::from(image.to_string_lossy()), stamp.into()].into()
}

/// Any two members have to get by beside each other.
fn check_members(members: &[(Placeholders<'_>, Spec); 2]) -> Result<(), Error> {
    let uses = members.iter().map(|(member, spec)| (member.id.to_owned(), spec.uses()));
    vm::check_apart(uses).map_err(Error::of_sharing(Operation::OpenPool))
}

impl Inside {
    fn living(&self) -> usize {
        self.ready.iter().filter(|vm| vm.is_up()).count()
    }
}

impl Pool {
    /// Its name.
    pub fn name(&self) -> &VmId {
        &self.name
    }

    /// What it holds and has done, as JSON.
    ///
    /// # Errors
    /// When it was destroyed.
    pub fn info(&self) -> Result<Value, Error> {
        let counts = self.counts()?;
        let snapshot = match &self.source {
            Source::Snapshot(snapshot, _) => Some(snapshot.manifest.id.as_str()),
            Source::Spec(_) => None,
        };
        Ok(object! {
            "name": self.name.as_str(),
            "snapshot": snapshot,
            "size": counts.size,
            "ready": counts.ready,
            "taken": counts.taken,
            "missed": counts.missed,
            "failed": counts.failed,
            "last_error": lock(&self.inside).last_error.clone(),
        })
    }

    /// What it holds and has done, in numbers.
    ///
    /// # Errors
    /// When it was destroyed.
    pub fn counts(&self) -> Result<PoolCounts, Error> {
        self.check_presence().map(|()| self.counted())
    }

    pub(super) fn counted(&self) -> PoolCounts {
        let inside = lock(&self.inside);
        PoolCounts {
            size: self.size,
            ready: inside.living(),
            taken: inside.taken,
            missed: inside.missed,
            failed: inside.failed,
        }
    }

    fn check_presence(&self) -> Result<(), Error> {
        match lock(&self.inside).closed {
            true => Err(Error::PoolClosed { name: self.name.clone() }),
            false => Ok(()),
        }
    }

    /// Whether its members are restored from the snapshot `id`.
    pub(super) fn is_of(&self, id: &str) -> bool {
        matches!(&self.source, Source::Snapshot(snapshot, _) if snapshot.manifest.id == id)
    }

    /// What its members' journals say.
    fn record(&self) -> PoolRecord {
        PoolRecord { name: self.name.to_string(), made_of: self.made_of.clone() }
    }

    /// The one that has waited longest, and still runs.
    fn take(&self) -> Option<Arc<Vm>> {
        let mut inside = lock(&self.inside);
        let running = inside.ready.iter().position(|vm| vm.is_up());
        let vm = running.and_then(|index| inside.ready.remove(index));
        match vm {
            Some(_) => inside.taken += 1,
            None => inside.missed += 1,
        }
        vm
    }

    fn make_missed(&self, runtime: &Runtime, place: &Examination<'_>) -> Result<Arc<Vm>, Error> {
        self.make(runtime, Some(place)).inspect(|_| lock(&self.inside).taken += 1)
    }

    /// Makes a member, under an id that nobody has; perhaps for somebody who waits for it.
    fn make(&self, runtime: &Runtime, place: Option<&Examination<'_>>) -> Result<Arc<Vm>, Error> {
        loop {
            let number = {
                let mut inside = lock(&self.inside);
                inside.next += 1;
                inside.next
            };
            let id = VmId::parse(&format!("{}-{number}", self.name))?;
            place.iter().for_each(|place| place.is_for(id.clone()));
            match self.make_as(runtime, id, number) {
                // A member of a former owner's, or somebody else's VM.
                Err(Error::AlreadyExists { .. }) => {}
                made => return made,
            }
        }
    }

    fn make_as(&self, runtime: &Runtime, id: VmId, number: u64) -> Result<Arc<Vm>, Error> {
        let record = self.record();
        let pool = Some(&record);
        let name = id.to_string();
        let member = Placeholders { id: &name, number };
        match &self.source {
            Source::Snapshot(snapshot, template) => {
                let options = &template.restore_options(member)?;
                // A merge may have changed what it consists of.
                let snapshot = &SnapshotId::parse(&snapshot.manifest.id)?;
                let vsock = VsockPlace::OwnDirectory;
                runtime.restore_as(id, &RestoreInputs { snapshot, options, vsock, pool })
            }
            Source::Spec(template) => runtime.create_as(id, &template.spec(member)?, pool),
        }
    }

    fn start_refilling(self: &Arc<Self>, runtime: &Arc<Runtime>) -> Result<(), Error> {
        let (pool, runtime) = (Arc::clone(self), Arc::downgrade(runtime));
        let held = HeldSignals::hold();
        let builder = thread::Builder::new().name("mvm-pool".to_owned()).stack_size(STACK);
        let thread = builder.spawn(move || pool.refill(&runtime));
        drop(held);
        let thread =
            thread.map_err(|source| Error::System { action: "start the thread of a pool", source })?;
        *lock(&self.refiller) = Some(thread);
        Ok(())
    }

    /// The life of the thread.
    fn refill(&self, runtime: &Weak<Runtime>) {
        let mut back_off = BACK_OFF.0;
        let mut earliest = Instant::now();
        while self.await_need(earliest) {
            let Some(runtime) = runtime.upgrade() else { return };
            let dead = self.take_dead();
            dead.iter().for_each(|vm| runtime.discard(vm));
            match self.make(&runtime, None) {
                Ok(vm) => {
                    if let Some(late) = self.admit(vm) {
                        runtime.discard(&late);
                    }
                    (back_off, earliest) = (BACK_OFF.0, Instant::now() + self.interval);
                }
                Err(error) => {
                    self.note_failure(&error);
                    earliest = Instant::now() + back_off;
                    back_off = (back_off * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    /// Waits until a member is wanted, and not before `earliest`; `false` when the pool was closed.
    fn await_need(&self, earliest: Instant) -> bool {
        let mut inside = lock(&self.inside);
        loop {
            let early = earliest.saturating_duration_since(Instant::now());
            let is_full = inside.living() >= self.size;
            let pause = match (inside.closed, is_full) {
                (true, _) => return false,
                (false, true) => LOOK_AGAIN,
                (false, false) if early.is_zero() => return true,
                (false, false) => early,
            };
            inside = self.changed.wait_timeout(inside, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_dead(&self) -> Vec<Arc<Vm>> {
        let mut inside = lock(&self.inside);
        let (dead, living) = inside.ready.drain(..).partition(|vm| !vm.is_up());
        inside.ready = living;
        Vec::from(dead)
    }

    /// Gives it back when the pool was closed meanwhile.
    fn admit(&self, vm: Arc<Vm>) -> Option<Arc<Vm>> {
        let mut inside = lock(&self.inside);
        if inside.closed {
            return Some(vm);
        }
        inside.ready.push_back(vm);
        inside.last_error = None;
        None
    }

    fn note_failure(&self, error: &Error) {
        let mut inside = lock(&self.inside);
        inside.failed += 1;
        inside.last_error = Some(with_causes(error));
    }

    /// No member is made any more; gives those that wait.
    pub(super) fn stop(&self) -> VecDeque<Arc<Vm>> {
        let waiting = {
            let mut inside = lock(&self.inside);
            inside.closed = true;
            std::mem::take(&mut inside.ready)
        };
        self.changed.notify_all();
        let refiller = lock(&self.refiller).take();
        // The thread may be the one that drops the runtime, when it was the last to use it.
        if let Some(refiller) = refiller.filter(|refiller| refiller.thread().id() != thread::current().id()) {
            let _ended = refiller.join();
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_pool() {
        reference::hold(reference::POOL, || Section::parse(None, "options").and_then(PoolOptions::read));
    }
}
