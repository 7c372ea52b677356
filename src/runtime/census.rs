//! What stands in a state directory: VMs of an owner that is gone, leftovers, and what is not the library's.
//!
//! A census takes over what runs, undoes what was half done, and tells all of it; what it does not understand it
//! leaves alone.

use super::strays::{self, Stray};
use super::{Error, Runtime};
use crate::causes::with_causes;
use crate::firecracker::VmmFiles;
use crate::journal::VMS;
use crate::json::object;
use crate::observe::events::{EventKind, Events};
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::file;
use crate::sys::sync::lock;
use crate::vm::directory::{self, Entry};
use crate::vm::remains;
use crate::vm::{AdoptionError, AdoptionOutcome, Vm, VmId, WhyEnded, keep_disks_in};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a census has found and done.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// VMs that run, and are ours now.
    adopted: Vec<VmId>,
    /// VMs without a VMM.
    ended: Vec<(VmId, WhyEnded)>,
    /// Creations and removals that were half done.
    undone: Vec<PathBuf>,
    /// What was left alone.
    left_alone: Vec<LeftAlone>,
}

#[derive(Debug)]
struct LeftAlone {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Foreign,
    Adoption(AdoptionError),
    Removal(io::Error),
    Stray(Stray),
}

/// How long VMMs that were adopted may take to say what their guests do: each, and all of them.
const ONE_ANSWER: Duration = Duration::from_millis(500);
const ALL_ANSWERS: Duration = Duration::from_secs(5);

impl Runtime {
    /// Looks at every entry beside the VMs that are known.
    pub(super) fn take_census(&self) -> Result<Census, Error> {
        let vms = self.directory.join(VMS);
        let failed = |source| Error::Directory { action: "list", path: vms.clone(), source };
        let names = file::names_in(&vms).map_err(failed)?;
        let (mut census, mut adopted) = (Census::default(), Vec::new());
        for name in names {
            let path = vms.join(&name);
            match Entry::of(&name) {
                Entry::Foreign => census.left_alone.push(LeftAlone { path, problem: Problem::Foreign }),
                Entry::Leftover(id) => {
                    let Some(_examination) = self.examine(&id) else { continue };
                    // What a call was at when it was listed may be done.
                    if path.symlink_metadata().is_ok() {
                        census.count_leftover(path);
                    }
                }
                Entry::Vm(id) => {
                    let Some(_examination) = self.examine(&id) else { continue };
                    adopted.extend(self.take_over(&id, &path, &mut census));
                }
            }
        }
        for stray in strays::find(&vms) {
            let path = stray.place.clone();
            census.left_alone.push(LeftAlone { path, problem: Problem::Stray(stray) });
        }
        census.undone.extend(self.shared.snapshots.clear_leftovers());
        let all = Deadline::after(ALL_ANSWERS);
        for vm in adopted {
            if vm.settle_adoption(all.or_sooner(Deadline::after(ONE_ANSWER))) {
                census.adopted.push(vm.id());
                self.shared.events.push(vm.id().as_str(), EventKind::Adopted);
            } else {
                census.count_ended(self, &vm.id(), WhyEnded::WithoutOwner);
            }
        }
        Ok(census)
    }

    /// Gives the VM when it runs.
    fn take_over(&self, id: &VmId, path: &Path, census: &mut Census) -> Option<Arc<Vm>> {
        let running = match Vm::find(id.clone(), path, &self.shared) {
            Ok(AdoptionOutcome::Undone) => {
                census.undone.push(path.to_path_buf());
                None
            }
            Ok(AdoptionOutcome::Running(vm)) => Some(Arc::new(vm)),
            Ok(AdoptionOutcome::Ended(vm, why)) => {
                lock(&self.vms).known.insert(id.clone(), Arc::new(vm));
                census.count_ended(self, id, why);
                None
            }
            Err(problem) => {
                // It may have been removed since it was listed.
                if path.exists() {
                    let problem = Problem::Adoption(problem);
                    census.left_alone.push(LeftAlone { path: path.to_path_buf(), problem });
                }
                None
            }
        };
        running.inspect(|vm| drop(lock(&self.vms).known.insert(id.clone(), Arc::clone(vm))))
    }

    /// Keeps a VM of this id from being created meanwhile; `None` when there is one.
    pub(super) fn examine(&self, id: &VmId) -> Option<Examination<'_>> {
        let mut vms = lock(&self.vms);
        if vms.known.contains_key(id) || vms.is_examined(id) {
            return None;
        }
        vms.examined.push((id.clone(), None));
        Some(Examination { runtime: self, id: id.clone() })
    }
}

pub(super) struct Examination<'a> {
    runtime: &'a Runtime,
    id: VmId,
}

impl Examination<'_> {
    /// The id is for the VM that is called `member` as yet: an interrupt for the one reaches the other.
    pub(super) fn is_for(&self, member: VmId) {
        let mut vms = lock(&self.runtime.vms);
        if let Some((_, present)) = vms.examined.iter_mut().find(|(id, _)| *id == self.id) {
            *present = Some(member);
        }
    }
}

impl Drop for Examination<'_> {
    fn drop(&mut self) {
        lock(&self.runtime.vms).examined.retain(|(id, _)| *id != self.id);
    }
}

impl Census {
    /// Ends what runs without a journal that could be believed, and removes the directories of such VMs.
    pub(super) fn end_damaged(&mut self, runtime: &Runtime) -> (Vec<Value>, Vec<Value>) {
        let (mut ended, mut failed) = (Vec::new(), Vec::new());
        self.left_alone.retain(|left| match left.end(runtime) {
            None => true,
            Some(Ok(pids)) => {
                ended.push(object! {
                    "path": left.path.to_string_lossy(),
                    "problem": left.problem.to_string(),
                    "ended": pids,
                });
                false
            }
            Some(Err(problem)) => {
                failed.push(object! { "path": left.path.to_string_lossy(), "problem": problem });
                true
            }
        });
        (ended, failed)
    }

    /// Tells of what was left alone.
    pub(super) fn tell_damages(&self, events: &Events) {
        self.left_alone.iter().for_each(|left| events.push("", EventKind::Damaged(left.to_string())));
    }

    fn count_ended(&mut self, runtime: &Runtime, id: &VmId, why: WhyEnded) {
        self.ended.push((id.clone(), why));
        runtime.shared.events.push(id.as_str(), EventKind::OrphanFound);
    }

    fn count_leftover(&mut self, path: PathBuf) {
        match directory::clear(&path, &[], Deadline::after(directory::PATIENCE)) {
            Ok(()) => self.undone.push(path),
            Err(error) => self.left_alone.push(LeftAlone { path, problem: Problem::Removal(error) }),
        }
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let ended = |(id, why): &(VmId, WhyEnded)| object! { "id": id.as_str(), "why": why_name(*why) };
        object! {
            "adopted": self.adopted.iter().map(VmId::as_str).collect::<Vec<_>>(),
            "ended": self.ended.iter().map(ended).collect::<Vec<_>>(),
            "undone": self.undone_json(),
            "left_alone": self.left_alone_json(),
        }
    }

    /// What was half done and is no more, as JSON.
    pub(super) fn undone_json(&self) -> Value {
        self.undone.iter().map(|path| path.to_string_lossy()).collect()
    }

    /// What was left alone, as JSON.
    pub(super) fn left_alone_json(&self) -> Value {
        let one = |left: &LeftAlone| object! { "path": left.path.to_string_lossy(), "problem": left.problem.to_string() };
        self.left_alone.iter().map(one).collect()
    }
}

impl LeftAlone {
    /// Ends what it is, if it is damaged, and gives the numbers of the processes; nothing for what is not.
    fn end(&self, runtime: &Runtime) -> Option<Result<Vec<i32>, String>> {
        match &self.problem {
            Problem::Stray(stray) => {
                Some(stray.end().map(|()| vec![stray.pid()]).map_err(|error| with_causes(&error)))
            }
            Problem::Adoption(error) if error.is_damage() => {
                let Entry::Vm(id) = Entry::of(self.path.file_name()?) else { return None };
                let _examination = runtime.examine(&id)?;
                let files = VmmFiles::new(self.path.clone());
                match remains::end_whatever_runs(&files) {
                    // It may never have been a VM's.
                    Ok(pids) if pids.is_empty() && error.is_without_journal() => None,
                    Ok(pids) => {
                        let deadline = Deadline::after(directory::PATIENCE);
                        let limits = Limits { deadline, interrupt: None };
                        let kept = keep_disks_in(&self.path, limits).map_err(|error| with_causes(&error));
                        let removed = kept.and_then(|()| {
                            directory::remove(&self.path, &[], deadline).map_err(|error| error.to_string())
                        });
                        Some(removed.map(|()| pids))
                    }
                    Err(error) => Some(Err(with_causes(&error))),
                }
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was left alone: {}", self.path.display(), self.problem)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => f.write_str("its name is not a valid VM id"),
            Self::Adoption(error) => f.write_str(&with_causes(error)),
            Self::Stray(stray) => write!(
                f,
                "process {} is a VMM that was started here, and its VM's directory was moved away or deleted; \
                 mvm_runtime_reap with MVM_REAP_DAMAGED ends it",
                stray.pid()
            ),
            Self::Removal(error) => write!(f, "it cannot be removed: {error}"),
        }
    }
}

fn why_name(why: WhyEnded) -> &'static str {
    match why {
        WhyEnded::BeforeItsOwner => "it ended before its owner",
        WhyEnded::WithoutOwner => "no owner noted its end",
        WhyEnded::Unstarted => "its start was undone",
        WhyEnded::PagerLost => "its pager had ended",
        WhyEnded::OnOwnerExit => "with its owner, because on_owner_exit is kill",
    }
}
