//! A state directory, and the VMs that this process owns in it.
//!
//! The runtime finds VMs by id and lets nobody else into its directory; what happens to a VM is the VM's business.

mod error;
mod options;

pub use error::Error;

use crate::firecracker::Binaries;
use crate::sys::sync::lock;
use crate::vm::{self, IdError, Spec, Vm, VmId};
use options::Options;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The owner of a state directory. Threads may share it. Dropping it ends no VM.
#[derive(Debug)]
pub struct Runtime {
    directory: PathBuf,
    options: Options,
    binaries: Arc<Binaries>,
    vms: Mutex<BTreeMap<VmId, Arc<Vm>>>,
    /// No VM is to be made any more. Changed under the lock of `vms`.
    closed: AtomicBool,
    /// Locked as long as the runtime lives; the kernel unlocks it when the process dies.
    lock: File,
}

const VMS: &str = "vms";

impl Runtime {
    /// Opens the state directory, made if it is not there, and keeps everybody else out of it. `options` is a
    /// JSON object, or nothing.
    ///
    /// # Errors
    /// When the directory cannot be used, another runtime owns it, or the options are wrong.
    pub fn open(directory: &Path, options: Option<&str>) -> Result<Self, Error> {
        let here = |source| Error::Directory { action: "find the directory", path: directory.into(), source };
        let directory = std::path::absolute(directory).map_err(here)?;
        let options = Options::parse(options, &current_directory()?)?;
        make_directory(&directory.join(VMS))?;
        let lock = own(&directory)?;
        Ok(Self {
            directory,
            options,
            binaries: Arc::default(),
            vms: Mutex::default(),
            lock,
            closed: AtomicBool::new(false),
        })
    }

    /// Makes a VM: its VMM runs and is configured, its guest has not started. `spec` is a Firecracker config
    /// file with, perhaps, a section `"mvm"`. After an error nothing is left.
    ///
    /// # Errors
    /// When the id or the spec is wrong, there is such a VM, or the VMM fails.
    pub fn create(&self, id: &str, spec: &str) -> Result<Arc<Vm>, Error> {
        let id = VmId::parse(id)?;
        let spec = Spec::parse(spec, &current_directory()?)
            .map_err(|source| vm::Error::Spec { id: id.clone(), source })?;
        let binary = spec.firecracker().or(self.options.firecracker.as_deref());
        let binary = binary.ok_or_else(|| vm::Error::NoBinary { id: id.clone() })?.to_path_buf();
        let directory = self.directory.join(VMS).join(id.as_str());
        let vm = Arc::new(Vm::new(id, directory, spec, binary, Arc::clone(&self.binaries)));
        self.reserve(&vm)?;
        let reservation = Reservation { runtime: self, vm: &vm };
        vm.create()?;
        std::mem::forget(reservation);
        Ok(vm)
    }

    /// The VM called `id`.
    ///
    /// # Errors
    /// When there is none.
    pub fn vm(&self, id: &str) -> Result<Arc<Vm>, Error> {
        let id = VmId::parse(id)?;
        let found = lock(&self.vms).get(&id).filter(|vm| vm.is_present()).cloned();
        found.ok_or(Error::NotFound { id })
    }

    /// All VMs, by id.
    pub fn list(&self) -> Vec<Arc<Vm>> {
        lock(&self.vms).values().filter(|vm| vm.is_present()).cloned().collect()
    }

    /// Ends the calls in flight on the VM called `id`, its creation included. Nothing happens when there is none.
    ///
    /// # Errors
    /// When `id` is no id.
    pub fn interrupt(&self, id: &str) -> Result<(), IdError> {
        let id = VmId::parse(id)?;
        let vm = lock(&self.vms).get(&id).cloned();
        if let Some(vm) = vm {
            vm.interrupt();
        }
        Ok(())
    }

    /// Ends the calls in flight on all VMs, and every call that still comes; the VMs go on.
    pub fn close(&self) {
        let vms = {
            let vms = lock(&self.vms);
            self.closed.store(true, Ordering::Relaxed);
            vms.values().cloned().collect::<Vec<_>>()
        };
        vms.iter().for_each(|vm| vm.close());
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

    /// The list as JSON.
    pub fn list_json(&self) -> Value {
        self.list().iter().map(|vm| vm::summary(vm.id().as_str(), vm.state())).collect()
    }

    fn reserve(&self, vm: &Arc<Vm>) -> Result<(), Error> {
        let mut vms = lock(&self.vms);
        if self.is_closed() {
            return Err(Error::Closed);
        }
        match vms.entry(vm.id().clone()) {
            Entry::Occupied(_) => Err(Error::AlreadyExists { id: vm.id().clone() }),
            Entry::Vacant(place) => {
                place.insert(Arc::clone(vm));
                Ok(())
            }
        }
    }

    fn forget(&self, vm: &Arc<Vm>) {
        let mut vms = lock(&self.vms);
        if vms.get(vm.id()).is_some_and(|known| Arc::ptr_eq(known, vm)) {
            vms.remove(vm.id());
        }
    }
}

impl Drop for Runtime {
    /// Unlocks by word and not by closing: a child that was forked, or is just being started, holds a copy of the
    /// descriptor.
    fn drop(&mut self) {
        let _unlocked = self.lock.unlock();
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

/// Takes the directory's lock, and writes into it who has it.
fn own(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let failed = |source| Error::Directory { action: "lock", path: path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Busy { path: directory.into(), owner: read_owner(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

fn read_owner(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    let usable = made
        .and_then(|()| fs::metadata(path))
        .and_then(|about| if about.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) });
    usable.map_err(|source| Error::Directory { action: "make the directory", path: path.into(), source })
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
