//! Handles: keys that are never used twice, in the shape of pointers.
//!
//! A key carries its kind, so that a runtime taken for a VM is found out, and lies outside every address space,
//! so that no pointer is ever taken for a key. Looking one up clones an `Arc`: a handle that is released while a
//! call runs on it does no harm. No signal handler of the host runs on a thread that has locked the table, so those
//! functions that a handler may call do not wait for the thread that it interrupted.

use super::failure::Failure;
use super::status::mvm_status;
use crate::process::{Cancel, Job};
use crate::runtime::{Pool, Runtime};
use crate::sorted::SortedMap;
use crate::sys::random;
use crate::sys::sync::{LockedFromSignals, lock_from_signals};
use crate::vm::Vm;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a handle is a 64-bit key in the shape of a pointer");

/// A VM as a handle sees it.
#[derive(Debug)]
pub(super) struct OwnedVm {
    pub(super) runtime: Arc<Runtime>,
    pub(super) vm: Arc<Vm>,
}

/// A pool as a handle sees it.
#[derive(Debug)]
pub(super) struct OwnedPool {
    pub(super) runtime: Arc<Runtime>,
    pub(super) pool: Arc<Pool>,
}

/// What a handle can stand for.
pub(super) trait Kind: Sized + Send + Sync + 'static {
    /// The byte of the key that tells the kinds apart.
    const TAG: u64;
    /// What it is called in messages.
    const NAME: &'static str;
    fn wrap(object: Arc<Self>) -> Object;
    fn unwrap(object: &Object) -> Option<&Arc<Self>>;
}

/// Whatever stands behind a key.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Runtime(Arc<Runtime>),
    Vm(Arc<OwnedVm>),
    Pool(Arc<OwnedPool>),
    Process(Arc<Job>),
    Cancel(Arc<Cancel>),
}

impl Object {
    fn tag(&self) -> u64 {
        match self {
            Self::Runtime(_) => Runtime::TAG,
            Self::Vm(_) => OwnedVm::TAG,
            Self::Pool(_) => OwnedPool::TAG,
            Self::Process(_) => Job::TAG,
            Self::Cancel(_) => Cancel::TAG,
        }
    }
}

/// Makes a handle for `object`.
pub(super) fn open<K: Kind, H>(object: Arc<K>) -> Result<*mut H, Failure> {
    own_process()?;
    let key = MARK | (K::TAG << TAG_SHIFT) | next_number();
    table().insert(key, K::wrap(object));
    #[expect(clippy::cast_possible_truncation, reason = "both have 64 bits, see above")]
    Ok(std::ptr::without_provenance_mut(key as usize))
}

/// Makes a handle for a VM, unless its runtime was closed meanwhile: then its handles are all gone.
pub(super) fn open_vm<H>(runtime: &Arc<Runtime>, vm: Arc<Vm>) -> Result<*mut H, Failure> {
    open_in(runtime, Arc::new(OwnedVm { runtime: Arc::clone(runtime), vm }))
}

/// The same for a pool.
pub(super) fn open_pool<H>(runtime: &Arc<Runtime>, pool: Arc<Pool>) -> Result<*mut H, Failure> {
    open_in(runtime, Arc::new(OwnedPool { runtime: Arc::clone(runtime), pool }))
}

fn open_in<K: Kind, H>(runtime: &Arc<Runtime>, object: Arc<K>) -> Result<*mut H, Failure> {
    let handle = open(object)?;
    if runtime.is_closed() {
        drop(remove(key(handle)));
        return Err(crate::runtime::Error::Closed.into());
    }
    Ok(handle)
}

/// The same for several VMs: a handle for each, or none.
pub(super) fn open_vms<H>(runtime: &Arc<Runtime>, vms: Vec<Arc<Vm>>) -> Result<Vec<*mut H>, Failure> {
    vms.into_iter().map(|vm| open_vm(runtime, vm)).collect()
}

/// What the handle stands for.
pub(super) fn get<K: Kind, H>(handle: *mut H) -> Result<Arc<K>, Failure> {
    let found = find(key(handle), K::TAG)?;
    found.as_ref().and_then(K::unwrap).cloned().ok_or_else(|| Failure::bad_handle(K::NAME, handle.addr()))
}

/// One for all kinds, which would be larger by it otherwise.
#[inline(never)]
fn find(key: u64, tag: u64) -> Result<Option<Object>, Failure> {
    own_process()?;
    // Nothing of another kind is cloned: that one's last holder may be about to go.
    Ok(table().get(&key).filter(|object| object.tag() == tag).cloned())
}

/// Does `deed`, which takes moments and allocates nothing, to what the handle stands for. For signal handlers.
pub(super) fn reach<K: Kind, H>(handle: *mut H, deed: impl FnOnce(&K)) -> mvm_status {
    if owning_process().is_some() {
        return mvm_status::MVM_ERR_FORKED;
    }
    // Under the lock, so that a handler never holds the last of an object's references, which would free memory.
    match table().get(&key(handle)).and_then(K::unwrap) {
        Some(object) => {
            deed(object);
            mvm_status::MVM_OK
        }
        None => mvm_status::MVM_ERR_BAD_HANDLE,
    }
}

/// Forgets the handle; NULL is fine.
pub(super) fn close<K: Kind, H>(handle: *mut H) -> Result<Option<Arc<K>>, Failure> {
    if handle.is_null() {
        return Ok(None);
    }
    let object = get(handle)?;
    remove(key(handle)).ok_or_else(|| Failure::bad_handle(K::NAME, handle.addr()))?;
    Ok(Some(object))
}

/// Forgets every VM and pool handle of `runtime`, and ends the calls in flight on those VMs.
pub(super) fn close_vms_of(runtime: &Arc<Runtime>) {
    let is_kept = |object: &Object| match object {
        Object::Vm(owned) => !Arc::ptr_eq(&owned.runtime, runtime),
        Object::Pool(owned) => !Arc::ptr_eq(&owned.runtime, runtime),
        Object::Runtime(_) | Object::Process(_) | Object::Cancel(_) => true,
    };
    // Whoever makes a handle from here on sees that, and takes it back; the others are in the table.
    runtime.close();
    let released = table().keep(is_kept);
    // Outside of the lock: the last of an object's holders cleans up after it.
    drop(released);
}

/// The first byte of every key: no address of a user process begins so.
const MARK: u64 = 0x4D << 56;
const TAG_SHIFT: u32 = 48;

/// Counted from a random number, so that two copies of the library in one process (one linked statically into a part of
/// it, one shared by another) do not take each other's handles for their own.
static NEXT: OnceLock<AtomicU64> = OnceLock::new();
/// A sorted list: leak checkers take the inner pointers of a static hash table for leaks.
static TABLE: Mutex<SortedMap<u64, Object>> = Mutex::new(SortedMap::new());
/// The process that made the first handle.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Refuses a forked child before it touches a lock that another thread of its parent may have held.
pub(super) fn own_process() -> Result<(), Failure> {
    owning_process().map_or(Ok(()), |owner| Err(Failure::forked(owner, std::process::id())))
}

/// The process that this one was forked from, if it was.
fn owning_process() -> Option<u32> {
    let me = std::process::id();
    OWNER.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).err().filter(|owner| *owner != me)
}

fn next_number() -> u64 {
    let next = NEXT.get_or_init(|| {
        // Without random bytes, which no kernel refuses, an address tells two copies apart: each has its own.
        let address = (&raw const NEXT).addr() as u64;
        AtomicU64::new(random::bytes().map_or(address, u64::from_ne_bytes))
    });
    next.fetch_add(1, Ordering::Relaxed) & ((1 << TAG_SHIFT) - 1)
}

fn key<H>(handle: *mut H) -> u64 {
    handle.addr() as u64
}

fn table() -> LockedFromSignals<'static, SortedMap<u64, Object>> {
    lock_from_signals(&TABLE)
}

fn remove(key: u64) -> Option<Object> {
    table().remove(&key)
}

impl Kind for Runtime {
    const TAG: u64 = 1;
    const NAME: &'static str = "mvm_runtime";
    fn wrap(object: Arc<Self>) -> Object {
        Object::Runtime(object)
    }
    fn unwrap(object: &Object) -> Option<&Arc<Self>> {
        let Object::Runtime(object) = object else { return None };
        Some(object)
    }
}

impl Kind for OwnedVm {
    const TAG: u64 = 2;
    const NAME: &'static str = "mvm_vm";
    fn wrap(object: Arc<Self>) -> Object {
        Object::Vm(object)
    }
    fn unwrap(object: &Object) -> Option<&Arc<Self>> {
        let Object::Vm(object) = object else { return None };
        Some(object)
    }
}

impl Kind for OwnedPool {
    const TAG: u64 = 4;
    const NAME: &'static str = "mvm_pool";
    fn wrap(object: Arc<Self>) -> Object {
        Object::Pool(object)
    }
    fn unwrap(object: &Object) -> Option<&Arc<Self>> {
        let Object::Pool(object) = object else { return None };
        Some(object)
    }
}

impl Kind for Job {
    const TAG: u64 = 3;
    const NAME: &'static str = "mvm_process";
    fn wrap(object: Arc<Self>) -> Object {
        Object::Process(object)
    }
    fn unwrap(object: &Object) -> Option<&Arc<Self>> {
        let Object::Process(object) = object else { return None };
        Some(object)
    }
}

impl Kind for Cancel {
    const TAG: u64 = 5;
    const NAME: &'static str = "mvm_cancel";
    fn wrap(object: Arc<Self>) -> Object {
        Object::Cancel(object)
    }
    fn unwrap(object: &Object) -> Option<&Arc<Self>> {
        let Object::Cancel(object) = object else { return None };
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::pool::mvm_pool;
    use crate::capi::runtime::mvm_runtime;
    use crate::scratch::Scratch;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn no_handle_outlives_its_runtime_however_late_it_was_made() {
        let directory = Scratch::new();
        for round in 0..300 {
            let runtime = Arc::new(Runtime::open(&directory, None).unwrap_or_else(|error| panic!("{error}")));
            let opening = Arc::clone(&runtime);
            let opener = thread::spawn(move || {
                let spec = r#"{"spec":{"boot-source":{"kernel_image_path":"/none"}},"size":0}"#;
                let pool = opening.open_pool("late", spec).ok()?;
                let handle = open_pool::<mvm_pool>(&opening, pool).ok()?;
                Some(handle.addr())
            });
            let handle = open::<Runtime, mvm_runtime>(runtime).unwrap_or_else(|_| panic!("no handle"));
            thread::sleep(Duration::from_micros(round % 150));
            let runtime = close::<Runtime, _>(handle).ok().flatten();
            runtime.iter().for_each(close_vms_of);
            drop(runtime);
            if let Ok(Some(late)) = opener.join() {
                let late = std::ptr::without_provenance_mut::<mvm_pool>(late);
                assert!(get::<OwnedPool, _>(late).is_err(), "round {round}");
            }
        }
    }
}
