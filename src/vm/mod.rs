//! One microVM: what it is, what may be done to it in which state, and who may do it when.
//!
//! ```text
//!                            ┌────────── pause ─────────┐
//!              start         │                          ▼
//! create ─► Created ─────► Running ◄──── resume ───── Paused
//!              │             │ ▲                        │
//!              │             │ └─── start ───┐          │
//!              └─ shutdown ──┴─ or it ends ──┼──────────┘
//!                                  ▼         │
//!                              Stopped, Failed            destroy, from every state: gone
//! ```
//!
//! A `Stopped` VM was ended by a call, or its guest powered off. The VMM of a `Failed` VM ended in another way. Both can be
//! started again. A query uses what is known, and the pidfd. It never asks the VMM, whose API serves one request at a time. When
//! an operation was cut off, the next operation asks the VMM once, before it does anything.

mod adoption;
mod bring_up;
mod devices;
pub(crate) mod directory;
mod disks;
mod ending;
mod error;
mod id;
mod identity;
mod info;
mod jail;
mod life;
mod lifecycle;
mod memory;
mod metrics;
mod owner_data;
mod paging;
mod plan;
mod pooled;
mod record;
pub(crate) mod remains;
mod rename;
mod restore;
mod sharing;
mod snapshot;
mod spec;
mod timings;
mod turn;

pub use adoption::AdoptionError;
pub(crate) use adoption::{AdoptionOutcome, WhyEnded};
pub use devices::Device;
pub(crate) use disks::keep_disks_in;
pub use error::{Error, NoTurn, Reason, RestoreError};
pub use id::{IdError, VmId};
pub(crate) use identity::GuestIdentity;
pub use info::Summary;
pub(crate) use jail::JailDefaults;
pub(crate) use metrics::{Counted, metrics_files};
pub use owner_data::{OwnerData, OwnerDataError};
pub(crate) use pooled::TakeOptions;
pub use remains::RemainsError;
pub(crate) use restore::{Restoration, RestoreOptions, VsockPlace, spec_of};
pub use sharing::Conflict;
pub(crate) use sharing::{Holdings, check_apart, separate};
pub(crate) use snapshot::SnapshotOptions;
pub use snapshot::WhyFull;
pub use spec::{DiskProblem, Link, Spec, SpecError};
pub(crate) use spec::{is_of_a_jail, settle};

use crate::firecracker::{Binaries, Version, Vmm, VmmFiles};
use crate::host::cpu::HostCpu;
use crate::host::disk::Tools;
use crate::host::files::View;
use crate::journal::{OnOwnerExit, Record, StateDirectory};
use crate::observe::events::{EventKind, Events};
use crate::observe::latency::Latencies;
use crate::operation::Operation;
use crate::pager::PagerHandle;
use crate::process::ladder::Report;
use crate::process::{ExitStatus, Identity, Process};
use crate::snapshot::Store;
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use ending::Ending;
use life::{EndedBy, Guest, Life, Origin, Presence};
use memory::was_out_of_memory;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use timings::Timings;
use turn::Turns;

/// What a VM is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its VMM is configured, and the guest has not started.
    Created,
    /// The guest runs.
    Running,
    /// The guest is paused.
    Paused,
    /// It was ended, or powered itself off. It can be started again.
    Stopped,
    /// Its VMM ended otherwise. It can be started again.
    Failed,
}

impl State {
    /// The word for it, in JSON and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A microVM. Threads may share it: operations take turns, queries wait for nobody. Dropping it ends nothing.
#[derive(Debug)]
pub struct Vm {
    place: Mutex<Arc<Place>>,
    spec: Spec,
    /// Why the spec of a VM that was found cannot be read.
    spec_problem: Option<Arc<SpecError>>,
    /// What its next VMM is started from; nothing for a VM that was found and for which nobody names one.
    binary: Option<PathBuf>,
    shared: Arc<Shared>,
    /// What tells its VMM's end from the end of others.
    token: u64,
    turns: Turns<Own>,
    /// Held for moments, never across a request or a wait.
    core: Mutex<Core>,
}

/// What only the operation in flight may touch.
#[derive(Debug)]
struct Own {
    /// The connection to the VMM, until it has ended and was cleaned up after.
    vmm: Option<Vmm>,
    /// What the journal says.
    record: Record,
}

/// The turn of an operation on a VM.
type Turn<'a> = turn::Turn<'a, Own>;

/// What a VM is called, and the files under that name: both change when it is renamed.
#[derive(Debug)]
struct Place {
    id: VmId,
    files: VmmFiles,
}

/// What the VMs of one runtime share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) binaries: Binaries,
    pub(crate) events: Events,
    /// How long operations take.
    pub(crate) latencies: Latencies,
    /// The boot of the machine, and the process that owns the VMs.
    pub(crate) boot: String,
    pub(crate) owner: Identity,
    pub(crate) state: StateDirectory,
    pub(crate) snapshots: Store,
    pub(crate) holdings: Holdings,
    pub(crate) cpu: HostCpu,
    /// The program that serves page faults.
    pub(crate) keeper: Option<PathBuf>,
    /// The VMM of VMs whose spec names none.
    pub(crate) firecracker: Option<PathBuf>,
    /// The control groups of those VMs whose spec names none.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The cgroup in which those of VMs with limits are made, unless their spec names one.
    pub(crate) cgroup_parent: Option<PathBuf>,
    /// Where images are that specs name as templates, unless they say.
    pub(crate) catalogue: Option<PathBuf>,
    /// Where the programs are that grow disks.
    pub(crate) tools: Tools,
    pub(crate) jail: JailDefaults,
}

/// What a VM needs of a keeper.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) on_owner_exit: OnOwnerExit,
    pub(crate) bounded_console: bool,
    /// A pager that is to be watched over.
    pub(crate) paged: bool,
}

impl Need {
    /// What both need.
    pub(crate) fn and(self, other: Self) -> Self {
        let kills = [self, other].iter().any(|need| need.on_owner_exit == OnOwnerExit::Kill);
        let on_owner_exit = if kills { OnOwnerExit::Kill } else { OnOwnerExit::Keep };
        let bounded_console = self.bounded_console || other.bounded_console;
        Self { on_owner_exit, bounded_console, paged: self.paged || other.paged }
    }

    /// The same, and a pager.
    pub(crate) fn with_pager(self, paged: bool) -> Self {
        Self { paged, ..self }
    }
}

/// What is known of a VM.
#[derive(Debug)]
struct Core {
    life: Life<Arc<Process>>,
    /// What the journal says, for those who only look.
    record: Arc<Record>,
    /// What serves the page faults of its memory.
    pager: Option<Arc<PagerHandle>>,
    /// What went wrong with that, once it was told.
    pager_loss: Option<String>,
    /// Whether the kernel has killed the last VMM because of its memory limit.
    is_out_of_memory: bool,
    timings: Timings,
    /// The VMM of the last start.
    version: Option<Version>,
    ending: Option<Arc<Ending>>,
    last_shutdown: Option<Arc<Report>>,
}

fn files_of(spec: &Spec, directory: PathBuf) -> VmmFiles {
    if spec.options.jail.is_some() { VmmFiles::jailed(directory) } else { VmmFiles::new(directory) }
}

impl Vm {
    /// A VM that is not there yet: [`Vm::create`] makes it.
    pub(crate) fn new(
        id: VmId,
        directory: PathBuf,
        spec: Spec,
        binary: Option<PathBuf>,
        shared: Arc<Shared>,
    ) -> Self {
        let record = Record::of_new(&id, &spec.options, binary.as_deref(), &shared);
        let core = Core::new(Life::being_created(), &record);
        Self::with(id, directory, (spec, None), (binary, record, core), shared)
    }

    fn with(
        id: VmId,
        directory: PathBuf,
        (spec, spec_problem): (Spec, Option<SpecError>),
        (binary, record, core): (Option<PathBuf>, Record, Core),
        shared: Arc<Shared>,
    ) -> Self {
        static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
        Self {
            place: Mutex::new(Arc::new(Place { id, files: files_of(&spec, directory) })),
            spec,
            spec_problem: spec_problem.map(Arc::new),
            binary,
            shared,
            token: NEXT_TOKEN.fetch_add(1, Ordering::Relaxed),
            turns: Turns::new(Own { vmm: None, record }),
            core: Mutex::new(core),
        }
    }

    /// Its id, which [`crate::Runtime::rename`] changes.
    pub fn id(&self) -> VmId {
        self.place().id.clone()
    }

    fn files(&self) -> VmmFiles {
        self.place().files.clone()
    }

    /// Its VMM's files, as the host sees them.
    fn view(&self) -> View {
        self.files().view()
    }

    fn place(&self) -> Arc<Place> {
        Arc::clone(&lock(&self.place))
    }

    /// What it is doing, as far as is known without asking the VMM. Takes microseconds, whatever else goes on.
    pub fn state(&self) -> State {
        self.observed().life.state()
    }

    /// How the last VMM ended, or `None` while one runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.observed().life.exit()
    }

    /// Whether its VMM runs. Unlike other queries it tells nobody of an end that it sees, so any lock may be held.
    pub(crate) fn is_up(&self) -> bool {
        let process = lock(&self.core).life.running().cloned();
        process.is_some_and(|process| matches!(process.exit_status(), Ok(None)))
    }

    /// What it needs of a keeper.
    pub(crate) fn need(&self) -> Need {
        let options = &self.spec.options;
        let bounded_console = options.console.limit().is_some();
        Need {
            on_owner_exit: options.on_owner_exit,
            bounded_console,
            paged: lock(&self.core).pager.is_some(),
        }
    }

    /// The token under which the end of its VMM is told.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// What it was doing when somebody last looked; nothing when there is no such VM.
    pub(crate) fn last_known_state(&self) -> Option<State> {
        self.last_known().map(|(state, _)| state)
    }

    /// The same, and what its journal says.
    pub(crate) fn last_known(&self) -> Option<(State, Arc<Record>)> {
        let core = lock(&self.core);
        (core.life.presence() == Presence::Present).then(|| (core.life.state(), Arc::clone(&core.record)))
    }

    /// Whether it was found without a VMM, and nobody has started it since.
    pub(crate) fn is_orphan(&self) -> bool {
        let core = self.observed();
        let life = &core.life;
        life.presence() == Presence::Present && life.origin() == Origin::Orphan && life.running().is_none()
    }

    /// Whether it has come to be and was not destroyed.
    pub(crate) fn is_present(&self) -> bool {
        lock(&self.core).life.presence() == Presence::Present
    }

    /// Ends the calls that are running on this VM, in any thread, with an error. The VM keeps running.
    pub fn interrupt(&self) {
        self.turns.interrupt();
    }

    /// The same for all calls that are yet to come: its runtime is being closed.
    pub(crate) fn close(&self) {
        self.turns.close();
    }

    /// What is known, brought up to date with the process: an exit is noticed here.
    fn observed(&self) -> Observed<'_> {
        let mut core = Observed { core: Some(lock(&self.core)), events: &self.shared.events };
        let process = core.life.running().cloned();
        let ended = process.and_then(|process| Some((process.exit_status().ok()??, process)));
        self.look_after_pager(&mut core);
        if let Some((exit, process)) = ended {
            self.tell_why_it_ended(&mut core);
            let by = match (&core.pager_loss, process.was_asked_to_end()) {
                (Some(_), _) => EndedBy::LostPager,
                (None, true) => EndedBy::Library,
                (None, false) => EndedBy::Itself,
            };
            core.is_out_of_memory = by != EndedBy::Library && was_out_of_memory(exit, &core.record);
            if core.is_out_of_memory {
                self.tell(EventKind::OutOfMemory);
            }
            let (held, told) = core.life.ended(exit, by);
            self.let_go_of(held.as_ref());
            self.tell_all(told);
        }
        core
    }

    /// From here on `process` is the VM's VMM, and its end is told.
    fn attend(&self, process: &Arc<Process>, version: Version) {
        let mut core = lock(&self.core);
        // Without a watch the end is noticed when somebody looks.
        let _watched = self.shared.events.watch(process.pidfd(), self.token);
        self.shared.holdings.attend(self.token, process);
        core.life.launched(Arc::clone(process));
        core.version = Some(version);
        core.is_out_of_memory = false;
    }

    /// What was a VMM's process is nobody's any more.
    fn let_go_of(&self, process: Option<&Arc<Process>>) {
        process.into_iter().for_each(|process| self.shared.events.forget(process.pidfd()));
        self.shared.holdings.release(self.token);
    }

    fn tell(&self, what: EventKind) {
        self.shared.events.push(self.id().as_str(), what);
    }

    fn tell_all(&self, told: Vec<EventKind>) {
        told.into_iter().for_each(|what| self.tell(what));
    }

    /// The turn for `operation`, which is not to last longer than `allowance`. A state in doubt is settled first.
    fn begin(&self, operation: Operation, allowance: Duration) -> Result<Turn<'_>, Error> {
        let mut turn = self.take_turn(operation, Deadline::after(allowance))?;
        let core = self.observed();
        self.check_presence(core.life.presence(), operation)?;
        let unsettled = core.life.is_in_doubt();
        drop(core);
        // What is about to be refused tells of the end.
        self.tidy(&mut turn);
        if unsettled {
            self.ask_state(&mut turn)?;
            self.end_hold(&mut turn)?;
        }
        Ok(turn)
    }

    fn take_turn(&self, operation: Operation, deadline: Deadline) -> Result<Turn<'_>, Error> {
        self.turns.take(operation, deadline).map_err(self.failed(operation))
    }

    /// The error of an operation on this VM.
    fn error(&self, operation: Operation, reason: impl Into<Reason>) -> Error {
        self.error_of(operation, reason.into())
    }

    #[cold]
    #[inline(never)]
    fn error_of(&self, operation: Operation, reason: Reason) -> Error {
        Error::new(&self.id(), operation, reason)
    }

    /// The same for `map_err`.
    fn failed<R: Into<Reason>>(&self, operation: Operation) -> impl Fn(R) -> Error + '_ {
        move |reason| self.error(operation, reason)
    }

    fn wrong_state(&self, operation: Operation, state: State, advice: Option<&'static str>) -> Error {
        self.error(operation, Reason::State { state, advice })
    }
}

/// What is known of a VM, held for a moment. What it tells is logged when it is let go.
struct Observed<'a> {
    core: Option<MutexGuard<'a, Core>>,
    events: &'a Events,
}

impl Deref for Observed<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.core.as_deref().unwrap_or_else(|| unreachable!("it is there until the end"))
    }
}

impl DerefMut for Observed<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.core.as_deref_mut().unwrap_or_else(|| unreachable!("it is there until the end"))
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        drop(self.core.take());
        self.events.log();
    }
}

impl Core {
    fn new(life: Life<Arc<Process>>, record: &Record) -> Self {
        Self {
            life,
            record: Arc::new(record.clone()),
            pager: None,
            pager_loss: None,
            is_out_of_memory: false,
            timings: Timings::default(),
            version: None,
            ending: None,
            last_shutdown: None,
        }
    }
}
