//! What all VMs of a runtime have counted and use, and what the runtime has done itself, as text for Prometheus.
//!
//! What the samples are called is for `observe::prometheus` to say, but for those of the runtime.

use super::{Error, Runtime};
use crate::journal::OnOwnerExit;
use crate::keeper;
use crate::observe::exposition::{About, Exposition, Kind, counter, gauge, label};
use crate::observe::prometheus::{Sample, Set};
use crate::operation::Operation;
use crate::process::Limits;
use crate::settings::{self, Section};
use crate::sorted::sorted_by;
use crate::sys::deadline::Deadline;
use crate::sys::filesystem;
use crate::sys::sync::lock;
use crate::vm::{Counted, Need, State, Vm};
use std::sync::Arc;
use std::time::Duration;

/// What is wanted.
struct MetricsOptions {
    set: Set,
    /// The VMs that are wanted; nothing is all of them.
    ids: Option<Vec<String>>,
    /// What their ids begin with.
    prefix: String,
    deadline: Deadline,
}

/// All VMs' samples on their way.
struct Scrape<'a> {
    exposition: Exposition,
    set: Set,
    limits: Limits<'a>,
    /// VMs whose metrics could not be read in time, and have those that were read last, or none.
    late: usize,
}

/// How long one VM may keep the others waiting.
const LONGEST: Duration = Duration::from_millis(50);
/// What Firecracker makes of a VM with dozens of devices is less. What is more is read when all others are.
const ORDINARY: u64 = 64 << 10;

impl MetricsOptions {
    fn parse(json: Option<&str>) -> Result<Self, settings::Error> {
        let mut given = Section::parse(json, "options")?;
        let options = Self {
            set: given.choose("set", &[("core", Set::Core), ("all", Set::All)])?,
            ids: given.take("ids")?,
            prefix: given.take_or("prefix", String::new())?,
            deadline: Deadline::after(Duration::from_millis(given.take_or("deadline_ms", 5000)?)),
        };
        given.finish().map(|()| options)
    }

    fn wants(&self, id: &str) -> bool {
        id.starts_with(&self.prefix) && self.ids.as_ref().is_none_or(|ids| ids.iter().any(|one| one == id))
    }
}

impl Runtime {
    /// What VMs have counted and use, and what the runtime has done, as Prometheus collects it (text format 0.0.4). A VM
    /// whose metrics cannot be read in time has those that were read last. `options` is a JSON object, or nothing.
    ///
    /// # Errors
    /// When the options are wrong.
    pub fn metrics_text(&self, options: Option<&str>) -> Result<String, Error> {
        let options = MetricsOptions::parse(options).map_err(Error::of_options(Operation::RuntimeMetrics))?;
        let listening = self.waiting.listen();
        let limits = Limits { deadline: options.deadline, interrupt: listening.flag() };
        let mut scrape = Scrape { exposition: Exposition::default(), set: options.set, limits, late: 0 };
        let vms = self.list();
        // In the order of their ids, but for those that keep others waiting.
        let wanted = vms.iter().filter(|vm| options.wants(vm.id().as_str()));
        let costly = wanted.filter_map(|vm| Some((scrape.add(vm, ORDINARY).err()?, vm))).collect::<Vec<_>>();
        let costly = sorted_by(costly, |(cost, _)| *cost);
        for (_, vm) in &costly {
            let _added = scrape.add(vm, u64::MAX);
        }
        let late = scrape.late;
        let mut exposition = scrape.exposition;
        let help =
            "VMs whose metrics could not be read in time: they have those that were read last, or none.";
        exposition.add(gauge("mvm_late_vms", help), "", late);
        self.add_own(&mut exposition, &vms);
        Ok(exposition.text())
    }

    fn add_own(&self, exposition: &mut Exposition, vms: &[Arc<Vm>]) {
        let version = label("version", env!("CARGO_PKG_VERSION"));
        exposition.add(gauge("mvm_build_info", "The version of the library."), &version, 1);
        let states = vms.iter().filter_map(|vm| vm.last_known_state()).collect::<Vec<_>>();
        for state in [State::Created, State::Running, State::Paused, State::Stopped, State::Failed] {
            let count = states.iter().filter(|one| **one == state).count();
            exposition.add(gauge("mvm_vms", "VMs in each state."), &label("state", state.name()), count);
        }
        self.add_events(exposition);
        self.add_pools(exposition);
        self.add_latencies(exposition);
        self.add_keeper(exposition, vms);
        self.add_space(exposition);
    }

    fn add_events(&self, exposition: &mut Exposition) {
        let figures = self.shared.events.figures();
        exposition.add(gauge("mvm_events_waiting", "Events that nobody has taken yet."), "", figures.waiting);
        let help = "How many events can wait before the oldest are dropped.";
        exposition.add(gauge("mvm_events_capacity", help), "", figures.capacity);
        exposition.add(counter("mvm_events_total", "Events since the runtime was opened."), "", figures.all);
        let help = "Events that were dropped because nobody took them.";
        exposition.add(counter("mvm_events_dropped_total", help), "", figures.dropped);
    }

    fn add_pools(&self, exposition: &mut Exposition) {
        let pools = lock(&self.pools).clone();
        for pool in pools {
            let (figures, labels) = (pool.counted(), label("pool", pool.name().as_str()));
            let help = "VMs that the pool is to hold.";
            exposition.add(gauge("mvm_pool_size", help), &labels, figures.size);
            let help = "VMs that wait in the pool.";
            exposition.add(gauge("mvm_pool_ready", help), &labels, figures.ready);
            let help = "VMs that were taken out of the pool.";
            exposition.add(counter("mvm_pool_taken_total", help), &labels, figures.taken);
            let help = "Times that somebody wanted a VM and the pool was empty.";
            exposition.add(counter("mvm_pool_missed_total", help), &labels, figures.missed);
            let help = "Failures to make a VM for the pool.";
            exposition.add(counter("mvm_pool_failed_total", help), &labels, figures.failed);
        }
    }

    fn add_latencies(&self, exposition: &mut Exposition) {
        let help = "How long the library's operations took that succeeded.";
        let about = About { name: "mvm_operation_seconds", help, kind: Kind::Histogram };
        let help = "The library's operations that failed.";
        for (stage, distribution, failed) in self.shared.latencies.all() {
            let labels = label("operation", stage.name());
            exposition.add_distribution(about, &labels, &distribution);
            exposition.add(counter("mvm_operation_failures_total", help), &labels, failed);
        }
    }

    fn add_keeper(&self, exposition: &mut Exposition, vms: &[Arc<Vm>]) {
        let is_needed = vms.iter().map(|vm| vm.need()).reduce(Need::and).is_some_and(Need::is_of_a_keeper);
        // Whoever starts one holds the lock as long as that takes.
        let Ok(keeper) = self.keeper.try_lock() else { return };
        if is_needed || keeper.is_some() {
            let is_up = keeper.as_ref().is_some_and(keeper::KeeperHandle::is_alive);
            let help = "Whether the keeper runs that the VMs need.";
            exposition.add(gauge("mvm_keeper_up", help), "", u8::from(is_up));
        }
    }

    fn add_space(&self, exposition: &mut Exposition) {
        let Ok(space) = filesystem::space(&self.directory) else { return };
        let help = "Size of the file system that holds the state directory.";
        exposition.add(gauge("mvm_state_directory_size_bytes", help), "", space.bytes);
        let help = "Bytes that are free in the file system that holds the state directory.";
        exposition.add(gauge("mvm_state_directory_free_bytes", help), "", space.free_bytes);
        let help = "Files that can still be made in the file system that holds the state directory.";
        exposition.add(gauge("mvm_state_directory_free_files", help), "", space.free_files);
    }
}

impl Scrape<'_> {
    /// Adds a VM. One that costs more than reading `most` bytes is not added, and its cost given.
    fn add(&mut self, vm: &Vm, most: u64) -> Result<(), u64> {
        let limits = self.limits.no_later_than(Deadline::after(LONGEST));
        let known = match vm.counted(most, limits)? {
            Counted::Elsewhere => None,
            Counted::UpToDate(known) => Some(known),
            Counted::Late(known) => {
                self.late += 1;
                known
            }
        };
        let (id, usage, cgroup) = (vm.id(), vm.usage(), vm.cgroup_usage());
        let Some(state) = vm.last_known_state() else { return Ok(()) };
        let sample = Sample {
            id: id.as_str(),
            state: state.name(),
            is_up: vm.is_up(),
            known: known.as_ref(),
            usage: usage.as_ref(),
            cgroup: cgroup.as_ref(),
            paging: vm.paging(),
        };
        sample.add_to(&mut self.exposition, self.set);
        Ok(())
    }
}

impl Need {
    fn is_of_a_keeper(self) -> bool {
        self.on_owner_exit == OnOwnerExit::Kill || self.bounded_console || self.paged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_the_metrics_text() {
        reference::hold(reference::METRICS, || MetricsOptions::parse(None));
    }
}
