//! Many VMs of one snapshot: all of them, or none.

use super::placeholders::{METADATA_WORDS, Metadata, Placeholders};
use super::snapshots::{RestoreInputs, restored_spec};
use super::{Error, Runtime, current_directory};
use crate::operation::Operation;
use crate::process::Cancel;
use crate::settings::{self, Section};
use crate::snapshot::{Manifest, SnapshotId};
use crate::sys::mask::HeldSignals;
use crate::sys::sync::lock;
use crate::vm::{self, RestoreOptions, Vm, VmId, VsockPlace};
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The options of `mvm_clone` that are not those of each restore.
#[derive(Debug)]
struct CloneOptions {
    ids: Vec<String>,
    prefix: Option<String>,
    each: Vec<Map<String, Value>>,
    metadata: Metadata,
}

/// A clone that is to be created.
struct PlannedClone {
    id: VmId,
    options: RestoreOptions,
}

/// The result of one clone.
type Place = Mutex<Option<Result<Arc<Vm>, Error>>>;

/// VMMs wait for the disk, so more threads than processors help, but not many more.
const MOST_THREADS: usize = 16;

impl Runtime {
    /// Creates `count` VMs from `snapshot`, each with its own disks, vsock socket and identity. `options` is a JSON object, or
    /// nothing. After an error there is none of them.
    ///
    /// # Errors
    /// The error of the first VM that failed; see [`Runtime::restore`].
    pub fn clone_vms(
        &self,
        snapshot: &str,
        count: usize,
        options: Option<&str>,
    ) -> Result<Vec<Arc<Vm>>, Error> {
        let snapshot = SnapshotId::parse(snapshot)?;
        let found = self.shared.snapshots.find(&snapshot);
        let found = found.map_err(Error::of_snapshot(Operation::Clone))?;
        let clones = self.clones_to_be(count, options)?;
        check_apart(&clones, &found.manifest)?;
        let made = clones.iter().map(|_| Mutex::new(None)).collect::<Vec<_>>();
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let cancel = Cancel::of_thread();
        let make = || {
            let _bound = cancel.as_ref().map(Cancel::bind);
            while !failed.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let (Some(clone), Some(place)) = (clones.get(index), made.get(index)) else { return };
                let (options, vsock) = (&clone.options, VsockPlace::OwnDirectory);
                let wanted = RestoreInputs { snapshot: &snapshot, options, vsock, pool: None };
                let vm = self.restore_as(clone.id.clone(), &wanted);
                failed.fetch_or(vm.is_err(), Ordering::Relaxed);
                *lock(place) = Some(vm);
            }
        };
        thread::scope(|scope| {
            let held = HeldSignals::hold();
            let spawn = |_| {
                let builder = thread::Builder::new().name("mvm-clone".to_owned());
                // With fewer threads it takes longer, and that is all.
                builder.spawn_scoped(scope, make).ok()
            };
            let helpers = (1..threads_for(count)).filter_map(spawn).collect::<Vec<_>>();
            drop(held);
            make();
            // The scope waits for their work alone, and the host may count its threads.
            for helper in helpers {
                helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        self.all_or_none(made)
    }

    fn all_or_none(&self, made: Vec<Place>) -> Result<Vec<Arc<Vm>>, Error> {
        let made = made.into_iter().filter_map(|place| std::mem::take(&mut *lock(&place)));
        let (mut vms, mut first) = (Vec::new(), None);
        for clone in made {
            match clone {
                Ok(vm) => vms.push(vm),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let Some(error) = first else { return Ok(vms) };
        vms.iter().for_each(|vm| self.discard(vm));
        Err(error)
    }

    fn clones_to_be(&self, count: usize, options: Option<&str>) -> Result<Vec<PlannedClone>, Error> {
        let (refuse, base) = (Error::of_options(Operation::Clone), current_directory()?);
        let given = Section::parse(options, "options").and_then(CloneOptions::split);
        let (names, common) = given.map_err(&refuse)?;
        for (key, given) in [("ids", names.ids.len()), ("each", names.each.len())] {
            if given != 0 && given != count {
                return Err(Error::CloneCount { key, given, count });
            }
        }
        let clone = |index: usize| {
            let id = names.id_of(index)?;
            let mut options = common.clone();
            options.extend(names.each.get(index).cloned().unwrap_or_default());
            let number = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            let filled =
                Placeholders { id: id.as_str(), number }.fill_restore_options(&mut options, names.metadata);
            filled.map_err(Error::of_placeholder(Operation::Clone))?;
            let options =
                Section::of(options.into(), "options").and_then(|given| RestoreOptions::read(given, &base));
            Ok(PlannedClone { id, options: options.map_err(&refuse)? })
        };
        (0..count).map(clone).collect()
    }
}

/// All of them have to get by beside each other.
fn check_apart(clones: &[PlannedClone], manifest: &Manifest) -> Result<(), Error> {
    let spec = |clone: &PlannedClone| {
        let wanted = (&clone.options, VsockPlace::OwnDirectory);
        restored_spec(Operation::Clone, &clone.id, manifest, wanted).map(|(_, spec)| spec)
    };
    let specs = clones.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
    let uses = clones.iter().zip(&specs).map(|(clone, spec)| (clone.id.to_string(), spec.uses()));
    vm::check_apart(uses).map_err(Error::of_sharing(Operation::Clone))
}

impl CloneOptions {
    /// Them, and what is left for every clone.
    fn split(mut given: Section) -> Result<(Self, Map<String, Value>), settings::Error> {
        let names = Self {
            ids: given.take_or("ids", Vec::new())?,
            prefix: given.take("prefix")?,
            each: given.sections("each")?.into_iter().map(Section::rest).collect(),
            metadata: given.choose("mmds_placeholders", &METADATA_WORDS)?,
        };
        Ok((names, given.rest()))
    }

    fn id_of(&self, index: usize) -> Result<VmId, Error> {
        let generated = || format!("{}-{}", self.prefix.as_deref().unwrap_or("clone"), index + 1);
        Ok(VmId::parse(&self.ids.get(index).cloned().unwrap_or_else(generated))?)
    }
}

fn threads_for(count: usize) -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    count.min(processors * 2).clamp(1, MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference;

    #[test]
    fn the_reference_has_the_options_of_a_clone() {
        reference::hold(reference::CLONE, || Section::parse(None, "options").and_then(CloneOptions::split));
    }
}
