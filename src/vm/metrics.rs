//! What a VM's VMM has counted and what its process uses.

use super::{Error, State, Turn, Vm};
use crate::firecracker::{Request, VmmFiles, given_id};
use crate::json::object;
use crate::observe::cgroup_usage::CgroupUsage;
use crate::observe::metrics::{self, Known, MetricsFiles, Totals};
use crate::observe::prometheus::Paging;
use crate::observe::usage::{self, Usage};
use crate::operation::Operation;
use crate::pager;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::sync::lock;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What is known of a VM's metrics, for whoever cannot wait.
#[derive(Debug)]
pub(crate) enum Counted {
    /// The spec has them written to a place of its own.
    Elsewhere,
    UpToDate(Known),
    /// What could not be read in time is not in it, or nothing was.
    Late(Option<Known>),
}

impl Vm {
    /// What has been counted since the VM was made, over all its starts and owners, and what its process uses now.
    /// Numbers of the VMM are as of its last flush: once a minute, and when [`Vm::flush_metrics`] asks.
    ///
    /// # Errors
    /// When the VM was destroyed, the metrics cannot be read, or somebody else reads them until the deadline for requests.
    pub fn metrics(&self) -> Result<Value, Error> {
        let listening = self.turns.listen();
        let deadline = Deadline::after(self.spec.options.deadlines.request());
        let totals = self.totals(metrics::MUCH, Limits { deadline, interrupt: listening.flag() })?;
        Ok(object! {
            "id": self.id().as_str(),
            "state": self.known_state()?.name(),
            "host": self.usage_json(),
            "cgroup": self.cgroup_usage().as_ref().map(CgroupUsage::json),
            "flushes": totals.as_ref().map(|totals| totals.flushes),
            "core": totals.as_ref().map(Totals::core),
            "totals": totals.map(|totals| self.with_given_ids(totals.document)),
        })
    }

    /// Has the VMM write down what it has counted.
    ///
    /// # Errors
    /// When no guest was started, or the VMM fails.
    pub fn flush_metrics(&self) -> Result<(), Error> {
        const OPERATION: Operation = Operation::FlushMetrics;
        let mut turn = self.begin(OPERATION, self.spec.options.deadlines.request())?;
        let state = self.state();
        if !matches!(state, State::Running | State::Paused) {
            return Err(self.wrong_state(OPERATION, state, Some("start it first")));
        }
        self.demand(&Request::flush_metrics(), &mut turn).map(drop)
    }

    /// The sums for whoever asks for those of many VMs: nobody is waited for. What costs more than reading `most` bytes is
    /// not done, and its cost given.
    pub(crate) fn counted(&self, most: u64, limits: Limits<'_>) -> Result<Counted, u64> {
        if self.spec.has_own_metrics() {
            return Ok(Counted::Elsewhere);
        }
        let files = self.metrics_files();
        let cost = files.stored_bytes();
        if cost > most {
            return Err(cost);
        }
        if limits.deadline.has_passed() {
            return Ok(Counted::Late(None));
        }
        let known = files.known();
        let cost = cost.saturating_add(known.unread);
        if known.unread > most {
            return Err(cost);
        }
        if known.unread == 0 {
            return Ok(Counted::UpToDate(self.called_as_given(known)));
        }
        let Ok(totals) = files.totals_if_free(metrics::LITTLE, limits) else {
            return Ok(Counted::Late(Some(self.called_as_given(known))));
        };
        let read = totals.offset.saturating_sub(known.totals.offset);
        let unread = known.unread.saturating_sub(read);
        let known = self.called_as_given(Known { unread, totals });
        // What is left may be a line that has not ended.
        Ok(if known.unread < metrics::LITTLE / 4 {
            Counted::UpToDate(known)
        } else {
            Counted::Late(Some(known))
        })
    }

    /// What its pager has done, while there is one.
    pub(crate) fn paging(&self) -> Option<Paging> {
        lock(&self.core).pager.as_ref()?;
        let figures = self.pager_figures()?;
        let bytes = |pages: u64| pages.saturating_mul(figures.page_bytes);
        Some(Paging {
            faults: figures.faults,
            fault_bytes: figures.fault_bytes,
            around_bytes: figures.around_bytes,
            ahead_bytes: figures.ahead_bytes,
            present_bytes: bytes(figures.present_pages),
            memory_bytes: bytes(figures.total_pages),
            has_failed: figures.state == pager::State::Failed,
        })
    }

    fn called_as_given(&self, mut known: Known) -> Known {
        known.totals.document = self.with_given_ids(known.totals.document);
        known
    }

    /// Groups of one device have its id in their names, as the API has it: `block_rootfs`.
    fn with_given_ids(&self, document: Map<String, Value>) -> Map<String, Value> {
        const KINDS: [&str; 4] = ["block_", "net_", "pmem_", "vhost_user_block_"];
        let given = |name: &str| {
            let (kind, id) = KINDS.iter().find_map(|kind| Some((kind, name.strip_prefix(kind)?)))?;
            match given_id(id, &self.spec.device_ids) {
                Cow::Borrowed(_) => None,
                Cow::Owned(given) => Some(format!("{kind}{given}")),
            }
        };
        if document.keys().all(|name| given(name).is_none()) {
            return document;
        }
        let mut renamed = Map::new();
        for (name, group) in document {
            renamed.insert(given(&name).unwrap_or(name), group);
        }
        renamed
    }

    /// The sums, after at most `up_to` bytes more were added; nothing when the spec has the metrics written elsewhere.
    fn totals(&self, up_to: u64, limits: Limits<'_>) -> Result<Option<Totals>, Error> {
        drop(self.present(Operation::Metrics)?);
        if self.spec.has_own_metrics() {
            return Ok(None);
        }
        self.metrics_files().totals(up_to, limits).map(Some).map_err(self.failed(Operation::Metrics))
    }

    /// What the VMM's process uses, while there is one.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.of_process(|pid| usage::usage(pid).ok())
    }

    /// What is used in its own cgroups, while it has some.
    pub(crate) fn cgroup_usage(&self) -> Option<CgroupUsage> {
        CgroupUsage::of(&self.recorded().own_cgroups())
    }

    fn usage_json(&self) -> Value {
        let usage = self.of_process(|pid| Some((usage::usage(pid).ok()?, usage::cgroup(pid))));
        usage.map_or(Value::Null, |(usage, cgroup)| {
            object! {
                "cpu_user_us": usage.cpu_user_us,
                "cpu_system_us": usage.cpu_system_us,
                "rss_bytes": usage.rss_bytes,
                "threads": usage.threads,
                "cgroup": cgroup,
            }
        })
    }

    /// What is found out about the VMM's process by its number.
    fn of_process<T>(&self, find: impl FnOnce(i32) -> Option<T>) -> Option<T> {
        let process = lock(&self.core).life.running().cloned()?;
        let found = find(process.pid())?;
        // The number was its own as long as it had not ended.
        process.exit_status().is_ok_and(|exit| exit.is_none()).then_some(found)
    }

    /// Gets ready for what a new VMM will count; says which file it is to write.
    pub(super) fn begin_metrics(&self, turn: &Turn<'_>) -> Result<Option<String>, Error> {
        if self.spec.has_own_metrics() {
            return Ok(None);
        }
        let run = turn.own().record.runs;
        self.metrics_files().begin(run, turn.limits()).map_err(self.failed(turn.operation()))?;
        Ok(Some(MetricsFiles::of_run(run)))
    }

    fn metrics_files(&self) -> MetricsFiles {
        metrics_files(&self.files())
    }
}

/// The sums are the library's, the files of the runs the VMM's.
pub(crate) fn metrics_files(files: &VmmFiles) -> MetricsFiles {
    MetricsFiles::new(files.directory().to_path_buf(), files.working_directory().to_path_buf())
}
