//! A state directory, and the VMs that this process owns in it.
//!
//! The runtime finds VMs by id and lets nobody else into its directory; what happens to a VM is the VM's business.

mod census;
mod checking;
mod clones;
mod error;
mod keeping;
mod metrics;
mod options;
mod ownership;
mod placeholders;
mod pool;
mod reaping;
mod snapshots;
mod strays;

pub use crate::observe::events::{Event, EventKind};
pub use error::Error;
pub use placeholders::PlaceholderError;
pub use pool::{Pool, PoolCounts};
pub use reaping::ReapOptions;

use crate::causes::with_causes;
use crate::firecracker::Binaries;
use crate::host::cpu::HostCpu;
use crate::host::disk::Tools;
use crate::journal::{PoolRecord, SNAPSHOTS, SpecRecord, StateDirectory, VMS};
use crate::keeper::{self, KeeperHandle};
use crate::observe::events::Events;
use crate::observe::latency::{Latencies, Stage};
use crate::operation::Operation;
use crate::process::{Cancel, Cgroups, Identity, Interrupts};
use crate::snapshot::Store;
use crate::sorted::SortedMap;
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::file;
use crate::sys::poll::{self, Interest};
use crate::sys::procfs;
use crate::sys::sync::lock;
use crate::vm::{self, Holdings, IdError, Reason, Shared, Spec, Summary, Vm, VmId};
use census::Census;
use options::RuntimeOptions;
use ownership::Ownership;
use serde_json::Value;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The owner of a state directory. Threads may share it. Dropping it ends no VM.
#[derive(Debug)]
pub struct Runtime {
    directory: PathBuf,
    options: RuntimeOptions,
    shared: Arc<Shared>,
    vms: Mutex<Vms>,
    /// What was found when it was opened.
    found: Census,
    /// What bounds consoles, and ends VMs with their owner.
    keeper: Mutex<Option<KeeperHandle>>,
    keeper_ended: AtomicBool,
    /// VMs whose end was told and is not in their journals yet.
    to_note: Mutex<Vec<Arc<Vm>>>,
    /// The calls that wait for events.
    waiting: Interrupts,
    /// The pools that are open.
    pools: Mutex<Vec<Arc<Pool>>>,
    /// No VM is to be made any more. Changed under the lock of `vms`.
    closed: AtomicBool,
    _ownership: Ownership,
}

#[derive(Debug, Default)]
struct Vms {
    known: SortedMap<VmId, Arc<Vm>>,
    /// The ids of entries that are being looked at, and that nobody may take meanwhile; with what the VM is called
    /// until then that is to have the id.
    examined: Vec<(VmId, Option<VmId>)>,
}

impl Vms {
    /// The VM that is called `id`, or is to be.
    fn find(&self, id: &VmId) -> Option<&Arc<Vm>> {
        let examined = self.examined.iter().find(|(examined, _)| examined == id);
        self.known.get(examined.and_then(|(_, present)| present.as_ref()).unwrap_or(id))
    }

    fn is_examined(&self, id: &VmId) -> bool {
        self.examined.iter().any(|(examined, _)| examined == id)
    }
}

impl Runtime {
    /// Opens the state directory, made if it is not there, and keeps everybody else out of it. VMs of an owner that
    /// is gone are taken over, or ended when they were to end with it; [`Runtime::report`] tells. `options` is a
    /// JSON object, or nothing.
    ///
    /// # Errors
    /// When the directory cannot be used, another runtime owns it, or the options are wrong.
    pub fn open(directory: &Path, options: Option<&str>) -> Result<Self, Error> {
        let here = |source| Error::Directory { action: "find the directory", path: directory.into(), source };
        let directory = std::path::absolute(directory).map_err(here)?;
        let options = RuntimeOptions::parse(options, &current_directory()?, Operation::OpenRuntime)?;
        options.keeper.as_deref().map_or(Ok(()), keeper::check_program).map_err(Error::Keeper)?;
        drop(Cgroups::open(&options.cgroup).map_err(Error::Cgroup)?);
        let shared = share(&directory, &options)?;
        let _where_it_is_of_use = file::spread_subdirectories(&directory.join(VMS));
        let ownership = Ownership::take(&shared.state, &directory, shared.owner, &shared.boot)?;
        let mut runtime = Self {
            directory,
            options,
            shared: Arc::new(shared),
            vms: Mutex::default(),
            found: Census::default(),
            keeper: Mutex::default(),
            keeper_ended: AtomicBool::new(false),
            to_note: Mutex::default(),
            waiting: Interrupts::default(),
            pools: Mutex::default(),
            closed: AtomicBool::new(false),
            _ownership: ownership,
        };
        runtime.found = runtime.take_census()?;
        runtime.found.tell_damages(&runtime.shared.events);
        runtime.shared.events.log();
        runtime.provide_for_all();
        Ok(runtime)
    }

    /// What was found when the runtime was opened, as JSON: VMs taken over, ended, undone, and what was left alone.
    pub fn report(&self) -> Value {
        self.found.json()
    }

    /// The next thing that has happened to a VM, awaited for at most `timeout`.
    ///
    /// # Errors
    /// When the runtime was closed.
    pub fn next_event(&self, timeout: Duration) -> Result<Option<Event>, Error> {
        let failed = |source| Error::System { action: "wait for an event", source };
        let (deadline, listening) = (Deadline::after(timeout), self.waiting.listen());
        loop {
            self.notice_ends().map_err(failed)?;
            // Here, and not where its end was noticed: a query starts no process.
            if self.keeper_ended.swap(false, Ordering::Relaxed) {
                self.replace_keeper();
            }
            if let Some(event) = self.shared.events.next() {
                if matches!(event.kind, EventKind::Exited(_)) {
                    lock(&self.to_note).extend(VmId::parse(&event.vm).ok().and_then(|id| self.known(&id)));
                }
                self.note_ends();
                return Ok(Some(event));
            }
            self.note_ends();
            if listening.began_interrupted() {
                return Err(self.interrupted());
            }
            let interests =
                [Interest::Readable(self.shared.events.as_fd()), EventFd::interest(listening.flag())];
            match poll::wait(interests, deadline).map_err(failed)? {
                [_, true] => return Err(self.interrupted()),
                [true, _] => {}
                [false, false] => return Ok(None),
            }
        }
    }

    /// What was told of VMs is in their journals before the caller hears of it, as far as nobody is at them: a later call
    /// comes back to those.
    fn note_ends(&self) {
        let to_note = std::mem::take(&mut *lock(&self.to_note));
        let busy = to_note.into_iter().filter(|vm| !vm.note_end()).collect::<Vec<_>>();
        lock(&self.to_note).extend(busy);
    }

    fn known(&self, id: &VmId) -> Option<Arc<Vm>> {
        lock(&self.vms).known.get(id).cloned()
    }

    /// Refuses a call that is to end before it does anything.
    fn check_undisturbed(&self) -> Result<(), Error> {
        if self.waiting.listen().began_interrupted() { Err(self.interrupted()) } else { Ok(()) }
    }

    /// Why a call that waits for nobody's turn was interrupted.
    fn interrupted(&self) -> Error {
        if self.is_closed() { Error::Closed } else { Error::Cancelled }
    }

    /// The caller's own descriptor that is readable when there is an event.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn events_fd(&self) -> Result<OwnedFd, Error> {
        let copy = crate::sys::file::duplicate_above_stdio(self.shared.events.as_fd());
        copy.map_err(|source| Error::System { action: "give a descriptor for the events", source })
    }

    /// VMMs that have ended are reaped, and that they have is told.
    fn notice_ends(&self) -> io::Result<()> {
        loop {
            let ended = self.shared.events.ended()?;
            if ended.is_empty() {
                return Ok(());
            }
            let vms = lock(&self.vms).known.values().cloned().collect::<Vec<_>>();
            for vm in vms.iter().filter(|vm| ended.contains(&vm.token())) {
                let _noticed_by_looking = vm.state();
            }
            if ended.contains(&keeping::KEEPER) {
                self.keeper_ended.store(true, Ordering::Relaxed);
                self.shared.events.nudge();
            }
        }
    }

    /// Makes a VM: its VMM runs and is configured, its guest has not started. `spec` is a Firecracker config
    /// file with, perhaps, a section `"mvm"`. After an error nothing is left.
    ///
    /// # Errors
    /// When the id or the spec is wrong, there is such a VM, or the VMM fails.
    pub fn create(&self, id: &str, spec: &str) -> Result<Arc<Vm>, Error> {
        let given = SpecRecord { spec: spec.to_owned(), base: current_directory()?, own_files: Vec::new() };
        self.create_as(VmId::parse(id)?, &given, None)
    }

    /// Makes the VM `id`, which is to wait in `pool`.
    fn create_as(&self, id: VmId, given: &SpecRecord, pool: Option<&PoolRecord>) -> Result<Arc<Vm>, Error> {
        let given = &self.settled(Operation::Create, &id, given.clone())?;
        let spec = parse_spec(Operation::Create, &id, given)?;
        let vm = self.new_vm(Operation::Create, id, spec)?;
        self.reserve(Operation::Create, &vm)?;
        let reservation = Reservation { runtime: self, vm: &vm };
        self.provide(vm.need())?;
        self.shared.latencies.measure(Stage::Create, || vm.create(given, pool))?;
        std::mem::forget(reservation);
        Ok(vm)
    }

    /// `given` with the images looked up that it names.
    fn settled(&self, operation: Operation, id: &VmId, given: SpecRecord) -> Result<SpecRecord, vm::Error> {
        let settled = vm::settle(given, self.shared.catalogue.as_deref());
        settled.map_err(|problem| vm::Error::new(id, operation, problem))
    }

    /// The VM called `id`.
    ///
    /// # Errors
    /// When there is none.
    pub fn vm(&self, id: &str) -> Result<Arc<Vm>, Error> {
        let id = VmId::parse(id)?;
        let found = lock(&self.vms).known.get(&id).filter(|vm| vm.is_present()).cloned();
        found.ok_or(Error::NotFound { id })
    }

    /// All VMs, by id.
    pub fn list(&self) -> Vec<Arc<Vm>> {
        lock(&self.vms).known.values().filter(|vm| vm.is_present()).cloned().collect()
    }

    /// The first VM whose id comes after `after`, or the first of all.
    pub fn next_vm(&self, after: Option<&str>) -> Option<Summary> {
        let mut after = after.unwrap_or_default().to_owned();
        loop {
            let (id, vm) = lock(&self.vms).known.next_after(after.as_str()).cloned()?;
            // What is coming to be, or is gone, is passed over.
            match vm.summary() {
                // Under the id by which it was found: with another one whoever goes on from there might see it twice.
                Ok(summary) => return Some(Summary { id, ..summary }),
                Err(_) => id.as_str().clone_into(&mut after),
            }
        }
    }

    /// Ends the calls in flight on the VM called `id`, its creation and its way out of a pool included. Nothing happens
    /// when there is none.
    ///
    /// # Errors
    /// When `id` is no id.
    pub fn interrupt(&self, id: &str) -> Result<(), IdError> {
        let id = VmId::parse(id)?;
        let vm = lock(&self.vms).find(&id).cloned();
        if let Some(vm) = vm {
            vm.interrupt();
        }
        Ok(())
    }

    /// Ends the calls that are running on all VMs, and every later call. The VMs keep running.
    pub fn close(&self) {
        let vms = {
            let vms = lock(&self.vms);
            self.closed.store(true, Ordering::Relaxed);
            vms.known.values().cloned().collect::<Vec<_>>()
        };
        vms.iter().for_each(|vm| vm.close());
        self.waiting.close();
        let pools = std::mem::take(&mut *lock(&self.pools));
        // Their members are found by whoever opens the directory next.
        pools.iter().for_each(|pool| drop(pool.stop()));
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends `vm` if it runs, and removes all that belongs to it.
    ///
    /// # Errors
    /// When it outlives SIGKILL, or its directory cannot be removed; it can be tried again then.
    pub fn destroy(&self, vm: &Arc<Vm>) -> Result<(), Error> {
        vm.destroy()?;
        self.forget(vm);
        Ok(())
    }

    /// Destroys what nobody is to get. An interrupt that was meant for the call that has failed does not keep it, nor does
    /// the token that call was bound to.
    fn discard(&self, vm: &Arc<Vm>) {
        let _unbound = Cancel::unbind();
        let mut destroyed = self.destroy(vm);
        while matches!(&destroyed, Err(Error::Vm(error)) if error.is_interruption()) && !self.is_closed() {
            destroyed = self.destroy(vm);
        }
        if let Err(error) = destroyed {
            log::warn!("{}", with_causes(&error));
        }
    }

    /// Changes the id of `vm` to `id`, in any state. Firecracker itself keeps the id that it was started with.
    ///
    /// # Errors
    /// When `id` is not a valid id, or is taken, or the VM was destroyed.
    pub fn rename(&self, vm: &Arc<Vm>, id: &str) -> Result<(), Error> {
        let id = VmId::parse(id)?;
        if vm.id() == id {
            return Ok(());
        }
        let _examination = self
            .examine(&id)
            .ok_or_else(|| Error::AlreadyExists { operation: Operation::Rename, id: id.clone() })?;
        vm.rename(&id)?;
        self.file_under(&id, vm);
        Ok(())
    }

    /// Has `vm` found under its new id.
    fn file_under(&self, id: &VmId, vm: &Arc<Vm>) {
        let mut vms = lock(&self.vms);
        drop(vms.known.keep(|known| !Arc::ptr_eq(known, vm)));
        if vm.is_present() {
            vms.known.insert(id.clone(), Arc::clone(vm));
        }
    }

    /// All VMs, by id, with their states, as JSON. Processes are not asked one by one: those that have ended say so.
    pub fn list_json(&self) -> String {
        const ONE: usize = 48;
        // A failure to look leaves the states as they were last known.
        let _noticed = self.notice_ends();
        let vms = lock(&self.vms);
        let mut json = String::with_capacity(vms.known.len() * ONE);
        for (id, (state, record)) in vms.known.iter().filter_map(|(id, vm)| Some((id, vm.last_known()?))) {
            json.push(if json.is_empty() { '[' } else { ',' });
            // Neither an id nor a state has a character that JSON would write otherwise.
            for part in ["{\"id\":\"", id.as_str(), "\",\"state\":\"", state.name(), "\""] {
                json.push_str(part);
            }
            if !record.owner_data.is_empty() {
                json.push_str(",\"owner_data\":");
                json.push_str(&Value::from(record.owner_data.as_str()).to_string());
            }
            json.push('}');
        }
        if json.is_empty() { "[]".to_owned() } else { json + "]" }
    }

    fn new_vm(&self, operation: Operation, id: VmId, spec: Spec) -> Result<Arc<Vm>, Error> {
        let binary = spec.firecracker().or(self.options.firecracker.as_deref());
        let missing = || vm::Error::new(&id, operation, Reason::NoBinary);
        let binary = binary.ok_or_else(missing)?.to_path_buf();
        let directory = self.directory.join(VMS).join(id.as_str());
        Ok(Arc::new(Vm::new(id, directory, spec, Some(binary), Arc::clone(&self.shared))))
    }

    fn reserve(&self, operation: Operation, vm: &Arc<Vm>) -> Result<(), Error> {
        let mut vms = lock(&self.vms);
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if vms.is_examined(&vm.id()) {
            return Err(Error::AlreadyExists { operation, id: vm.id() });
        }
        if vms.known.contains_key(&vm.id()) {
            return Err(Error::AlreadyExists { operation, id: vm.id() });
        }
        vms.known.insert(vm.id(), Arc::clone(vm));
        Ok(())
    }

    fn forget(&self, vm: &Arc<Vm>) {
        // Not by its id, which another thread may be changing.
        drop(lock(&self.vms).known.keep(|known| !Arc::ptr_eq(known, vm)));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Whoever still holds one of its VMs may look at it, and do nothing to it.
        self.close();
        self.dismiss_keeper();
    }
}

/// The place of a VM that is being created; given back unless the creation succeeds.
struct Reservation<'a> {
    runtime: &'a Runtime,
    vm: &'a Arc<Vm>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.runtime.forget(self.vm);
    }
}

fn share(directory: &Path, options: &RuntimeOptions) -> Result<Shared, Error> {
    let failed = |action| move |source| Error::System { action, source };
    Ok(Shared {
        // Before it can be told whose process is whose.
        owner: own_identity()?,
        state: StateDirectory::open(directory)?,
        snapshots: Store::new(directory.join(SNAPSHOTS)),
        holdings: Holdings::default(),
        cpu: HostCpu::here().map_err(failed("read /proc/cpuinfo"))?,
        keeper: options.keeper.clone(),
        firecracker: options.firecracker.clone(),
        cgroups: options.cgroup.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        catalogue: options.catalogue.clone(),
        tools: Tools::new(options.tools.clone()),
        jail: options.jail.clone(),
        binaries: Binaries::default(),
        latencies: Latencies::default(),
        events: Events::new(options.event_queue).map_err(failed("create the queue of events"))?,
        boot: procfs::boot_id().map_err(failed("read the boot id of the machine"))?,
    })
}

/// Other processes are found by their numbers in /proc, which in a container may be the host's.
fn own_identity() -> Result<Identity, Error> {
    let pid = std::process::id().cast_signed();
    match procfs::own_number() {
        Some(seen) if seen != pid => Err(Error::ForeignProc { pid, seen }),
        _ => Identity::own().map_err(|source| Error::System { action: "find this process in /proc", source }),
    }
}

fn parse_spec(operation: Operation, id: &VmId, given: &SpecRecord) -> Result<Spec, vm::Error> {
    let parsed = Spec::of_record_file(given);
    parsed.map_err(|problem| vm::Error::new(id, operation, problem))
}

/// Relative paths in JSON are relative to the caller's working directory, which is only read.
fn current_directory() -> Result<PathBuf, Error> {
    let found = std::env::current_dir();
    found.map_err(|source| Error::Directory {
        action: "find the working directory",
        path: ".".into(),
        source,
    })
}
