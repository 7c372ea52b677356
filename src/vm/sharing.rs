//! What on the host has to be one VM's own: disks that it writes to, files that its VMM writes, sockets, network
//! devices. Firecracker opens a disk twice without a word, and both guests lose their data.
//!
//! The rule is QEMU's: whoever writes to a disk has it alone, and readers share. It holds between the VMs of one runtime
//! that have a VMM, and between members of one pool and clones of one call before any of them is made.

use super::VmId;
use crate::firecracker::{ConfigSection, HostThing, SECTIONS};
use crate::host::VmmPath;
use crate::host::files::View;
use crate::process::Process;
use crate::sys::sync::lock;
use serde_json::{Map, Value};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use thiserror::Error;

/// Something on the host that a spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostUse {
    /// The key that names it: `drives[0].path_on_host`.
    pub(super) key: String,
    pub(super) thing: HostThing,
    /// A path, or the name of a network device.
    pub(super) name: PathBuf,
    /// Of a device: the name by which the VMM knows its file, or would if it had one.
    pub(super) link: Option<VmmPath>,
    pub(super) access: Access,
    /// In the VM's own directory there stands a file of its own instead.
    pub(super) is_own: bool,
}

/// What a VM used, to be given back when it is to use that still.
#[derive(Debug)]
pub(super) struct Former(Vec<(HostUse, Identity)>);

/// Whether others may use it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Those who only read it.
    Shared,
    /// Nobody.
    Own,
}

/// `"mvm"."sharing"`: whether a VM may use what others use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sharing {
    #[default]
    Refused,
    /// With those who allow it too.
    Allowed,
}

/// Something that two VMs would use, and only one may.
#[derive(Debug, Error)]
#[error(
    "{key}: {} {} VM {by} ({its_key}), and one of the two writes to it; give each VM its own{}", name.display(),
    if *.is_running { "is used by" } else { "would also be used by" }, advice(*.is_running)
)]
pub struct Conflict {
    key: String,
    name: PathBuf,
    by: String,
    its_key: String,
    is_running: bool,
}

fn advice(is_running: bool) -> &'static str {
    if is_running {
        ", or set \"mvm\": {\"sharing\": \"allowed\"} in the specs of both"
    } else {
        ": use \"{n}\" or \"{id}\""
    }
}

/// What makes two names one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    File { device: u64, inode: u64 },
    BlockDevice(u64),
    Path(PathBuf),
    NetworkDevice(PathBuf),
}

/// What the VMs of a runtime use that have a VMM, or are about to.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Mutex<Vec<Holding>>);

#[derive(Debug)]
struct Holding {
    /// Of the VM.
    token: u64,
    id: VmId,
    sharing: Sharing,
    /// Nothing as long as it is only about to be started.
    process: Option<Weak<Process>>,
    uses: Vec<(HostUse, Identity)>,
}

impl Holdings {
    /// Notes what the VM of `token` uses from now on, unless another VM has it.
    ///
    /// # Errors
    /// What, and which VM has it.
    pub(super) fn hold(
        &self,
        token: u64,
        (id, sharing): (VmId, Sharing),
        uses: &[HostUse],
        view: &View,
    ) -> Result<(), Conflict> {
        // Files are looked at before the lock is taken.
        let uses = identified(uses, view);
        let mut holdings = lock(&self.0);
        check_others(&holdings, (token, sharing), &uses)?;
        put(&mut holdings, Holding { token, id, sharing, process: None, uses });
        Ok(())
    }

    /// Whether nobody else writes to what is read once, and not held.
    ///
    /// # Errors
    /// What, and which VM has it.
    pub(super) fn check(
        &self,
        (token, sharing): (u64, Sharing),
        uses: &[HostUse],
        view: &View,
    ) -> Result<(), Conflict> {
        let uses = identified(uses, view);
        check_others(&lock(&self.0), (token, sharing), &uses)
    }

    /// The same for a VM that runs already, whatever others use.
    pub(super) fn note(&self, token: u64, (id, sharing): (VmId, Sharing), uses: &[HostUse], view: &View) {
        let uses = identified(uses, view);
        put(&mut lock(&self.0), Holding { token, id, sharing, process: None, uses });
    }

    /// The VM of `token` uses `more` too, instead of what it had by the same link; gives what that was.
    ///
    /// # Errors
    /// What, and which VM has it.
    pub(super) fn hold_more(&self, token: u64, more: &[HostUse]) -> Result<Former, Conflict> {
        let link = more.iter().find_map(|used| used.link.clone());
        // By their names: a link is yet to be made, or leads elsewhere.
        let unlinked = |used: &HostUse| HostUse { link: None, is_own: false, ..used.clone() };
        let more = more
            .iter()
            .filter_map(|used| Some((used.clone(), identity(&unlinked(used), &View::plain(Path::new("")))?)));
        let more = more.collect::<Vec<_>>();
        let mut holdings = lock(&self.0);
        let sharing = of(&mut holdings, token).map_or(Sharing::Refused, |holding| holding.sharing);
        check_others(&holdings, (token, sharing), &more)?;
        let Some(holding) = of(&mut holdings, token) else { return Ok(Former(Vec::new())) };
        let former = Former(holding.uses.clone());
        holding.replace(link.as_ref(), more);
        Ok(former)
    }

    /// The VM of `token` uses what it used before.
    pub(super) fn give_back(&self, token: u64, former: Former) {
        self.change(token, |holding| holding.uses = former.0);
    }

    /// The VM of `token` has no device by this link any more.
    pub(super) fn release_link(&self, token: u64, link: &VmmPath) {
        self.change(token, |holding| holding.replace(Some(link), Vec::new()));
    }

    /// How the VM of `token` uses what it has by this link.
    pub(super) fn by_link(&self, token: u64, link: &VmmPath) -> Option<HostUse> {
        let found = of(&mut lock(&self.0), token).map(|holding| holding.by_link(Some(link)));
        found?.pop().map(|(used, _)| used)
    }

    /// What the VM of `token` uses is used as long as `process` lives.
    pub(super) fn attend(&self, token: u64, process: &Arc<Process>) {
        self.change(token, |holding| holding.process = Some(Arc::downgrade(process)));
    }

    /// The VM of `token` is called `id` now.
    pub(super) fn rename(&self, token: u64, id: &VmId) {
        self.change(token, |holding| holding.id = id.clone());
    }

    /// The VM of `token` has no VMM any more.
    pub(super) fn release(&self, token: u64) {
        lock(&self.0).retain(|holding| holding.token != token);
    }

    fn change(&self, token: u64, change: impl FnOnce(&mut Holding)) {
        of(&mut lock(&self.0), token).map(change);
    }
}

fn of(holdings: &mut [Holding], token: u64) -> Option<&mut Holding> {
    holdings.iter_mut().find(|holding| holding.token == token)
}

fn put(holdings: &mut Vec<Holding>, new: Holding) {
    match of(holdings, new.token) {
        Some(holding) => *holding = new,
        None => holdings.push(new),
    }
}

fn check_others(
    holdings: &[Holding],
    (token, sharing): (u64, Sharing),
    uses: &[(HostUse, Identity)],
) -> Result<(), Conflict> {
    let others = holdings.iter().filter(|other| other.token != token);
    let mut strangers =
        others.filter(|other| sharing == Sharing::Refused || other.sharing == Sharing::Refused);
    strangers.find_map(|other| other.conflict_with(uses)).map_or(Ok(()), Err)
}

impl Holding {
    fn by_link(&self, link: Option<&VmmPath>) -> Vec<(HostUse, Identity)> {
        let is_it = |(used, _): &&(HostUse, Identity)| link.is_some() && used.link.as_ref() == link;
        self.uses.iter().filter(is_it).cloned().collect()
    }

    fn replace(&mut self, link: Option<&VmmPath>, uses: Vec<(HostUse, Identity)>) {
        self.uses.retain(|(used, _)| link.is_none() || used.link.as_ref() != link);
        self.uses.extend(uses);
    }

    fn conflict_with(&self, uses: &[(HostUse, Identity)]) -> Option<Conflict> {
        let conflict = conflict_between(uses, (self.id.as_str(), &self.uses))?;
        // Last, for it asks the kernel: nobody may have noticed the end of its VMM.
        self.is_alive().then_some(Conflict { is_running: true, ..conflict })
    }

    fn is_alive(&self) -> bool {
        let Some(process) = &self.process else { return true };
        process.upgrade().is_some_and(|process| matches!(process.exit_status(), Ok(None)))
    }
}

/// The first of `ours` that excludes one of theirs, who are called `by` and do not run yet.
fn conflict_between(
    ours: &[(HostUse, Identity)],
    (by, theirs): (&str, &[(HostUse, Identity)]),
) -> Option<Conflict> {
    let (ours, theirs) = ours.iter().find_map(|(ours, place)| {
        let excludes = |(held, there): &&(HostUse, Identity)| {
            there == place && (held.access == Access::Own || ours.access == Access::Own)
        };
        Some((ours, &theirs.iter().find(excludes)?.0))
    })?;
    let (key, name) = (ours.key.clone(), ours.name.clone());
    Some(Conflict { key, name, by: by.to_owned(), its_key: theirs.key.clone(), is_running: false })
}

/// Whether VMs that are yet to be made would use the same things: each with its name, and what it uses.
///
/// # Errors
/// What, and which of them.
pub(crate) fn check_apart<'a>(vms: impl Iterator<Item = (String, &'a [HostUse])>) -> Result<(), Conflict> {
    let mut known = Vec::<(String, Vec<(HostUse, Identity)>)>::new();
    for (name, uses) in vms {
        let uses = identified(uses, &View::plain(Path::new("")));
        let mut conflicts =
            known.iter().filter_map(|(other, theirs)| conflict_between(&uses, (other, theirs)));
        conflicts.next().map_or(Ok(()), Err)?;
        known.push((name, uses));
    }
    Ok(())
}

/// Takes out of a spec what each VM can have in its own directory: files that the VMM writes, and the vsock's socket.
/// Gives the files that are to be there. Only what `is_shared` says is taken.
pub(crate) fn separate(
    spec: &mut Map<String, Value>,
    is_shared: impl Fn(ConfigSection, &'static str) -> bool,
) -> Vec<PathBuf> {
    let mut own_files = Vec::new();
    for section in SECTIONS {
        for host in section.host_keys() {
            let Some(value) = spec.get_mut(section.name()).and_then(Value::as_object_mut) else { continue };
            if !value.contains_key(host.key) || !is_shared(section, host.key) {
                continue;
            }
            match host.names {
                // Without its file the section says nothing.
                HostThing::Output if section == ConfigSection::Metrics => drop(spec.remove(section.name())),
                HostThing::Output => drop(value.remove(host.key)),
                HostThing::BoundSocket => own_files.push(super::spec::OWN_VSOCK.into()),
                _ => {}
            }
        }
    }
    own_files
}

fn identified(uses: &[HostUse], view: &View) -> Vec<(HostUse, Identity)> {
    let found = uses.iter().filter_map(|found| Some((found.clone(), identity(found, view)?)));
    found.collect()
}

/// Nothing for what may be shared: a terminal or a pipe that a VMM writes to, and a file in the VM's own directory.
fn identity(wanted: &HostUse, view: &View) -> Option<Identity> {
    if wanted.is_own {
        return None;
    }
    if wanted.thing == HostThing::NetworkDevice {
        return Some(Identity::NetworkDevice(wanted.name.clone()));
    }
    // A restore or an exchange of the drive may have put another file there.
    let is_disk = matches!(wanted.thing, HostThing::Disk { .. });
    let linked = wanted.link.as_ref().filter(|_| is_disk).map(|link| view.on_host(link));
    let linked = linked.filter(|link| link.exists());
    let path = linked.unwrap_or_else(|| wanted.name.clone());
    let about = fs::metadata(&path).ok();
    let kind = about.as_ref().map(fs::Metadata::file_type);
    match (wanted.thing, about, kind) {
        (HostThing::Disk { .. }, Some(about), Some(kind)) if kind.is_block_device() => {
            Some(Identity::BlockDevice(about.rdev()))
        }
        (HostThing::Disk { .. }, Some(about), Some(kind)) if kind.is_file() => {
            Some(Identity::File { device: about.dev(), inode: about.ino() })
        }
        (HostThing::Disk { .. }, ..) => None,
        (HostThing::Output, _, Some(kind)) if !kind.is_file() => None,
        _ => Some(Identity::Path(canonical(&path))),
    }
}

/// The one name of a file that may be yet to come.
fn canonical(path: &Path) -> PathBuf {
    let by_directory = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(by_directory).unwrap_or_else(|| path.to_path_buf())
}
