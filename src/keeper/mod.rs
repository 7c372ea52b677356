//! What must go on whether or not an owner lives: consoles stay bounded, and VMs that are to end with their owner do.
//!
//! The keeper knows nothing but the state directory. Which VMs there are, whose they are and what is to become of
//! them it reads from their journals, so it can be killed, replaced and run twice without harm. It runs as a program,
//! `mvm-keeper`, that outlives its owner, or as a thread of the owner that only bounds consoles.
//!
//! One serves all VMs of a state directory: of what VMMs write it reads the metrics alone, in bounded memory, so there
//! is little that one tenant could do to another through it, and a thousand of them would cost a thousand times its
//! memory.

mod handle;
mod owners;
mod pagers;
mod watching;

pub use handle::KeeperError;
pub(crate) use handle::KeeperHandle;
pub(crate) use handle::check_program;

use crate::causes::with_causes;
use crate::firecracker::VmmFiles;
use crate::journal::{self, OnOwnerExit, Record, StateDirectory, owner};
use crate::observe::{console, metrics};
use crate::process::{Identity, Limits};
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::file;
use crate::sys::pidfd::Signal;
use crate::sys::poll;
use crate::sys::procfs;
use crate::vm::directory::Entry;
use crate::vm::{metrics_files, remains};
use owners::Owners;
use pagers::Pagers;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use watching::{Watched, Watching, Written};

/// A state directory that is kept.
struct Keeper {
    directory: PathBuf,
    boot: String,
    watching: Watching,
    owners: Owners,
    pagers: Pagers,
    /// The files that could not be bounded: that is said once.
    unbounded: Vec<PathBuf>,
}

/// Why the loop goes on.
enum Woken {
    Stop,
    OwnerGone,
    PagerGone,
    Written,
    TimeIsUp,
}

/// Between two looks at files that are being written to: what is printed meanwhile is what they may be too long.
const PACE: Duration = Duration::from_millis(20);
/// Between two looks at whether VMs still run that nobody owns.
const LONELY_PACE: Duration = Duration::from_secs(5);
/// How long to wait for another keeper of the same directory, which is on its way out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The life of the program: keeps `directory` for `owner`, and for those who come after it, until nobody needs it.
///
/// # Errors
/// When another keeper does that already, or the system refuses what it needs.
pub fn serve(directory: &Path, owner: Identity) -> io::Result<()> {
    let state = StateDirectory::find(directory).map_err(io::Error::other)?;
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT;
    let lock = state.open_file("keeper.lock", flags).map_err(io::Error::other)?;
    take(&lock)?;
    let boot = procfs::boot_id()?;
    handle::write_record(directory, &boot).map_err(io::Error::other)?;
    let mut keeper = Keeper::new(directory, boot)?;
    keeper.follow(Some(owner))?;
    keeper.run(None)
}

/// The life of the thread: keeps consoles in `directory` bounded until `stop` is raised.
fn bound_consoles(directory: &Path, boot: String, stop: &EventFd) {
    if let Err(error) = Keeper::new(directory, boot).and_then(|mut keeper| keeper.run(Some(stop))) {
        log::warn!("consoles in {} are no longer bounded: {error}", directory.display());
    }
}

impl Keeper {
    fn new(directory: &Path, boot: String) -> io::Result<Self> {
        Ok(Self {
            directory: directory.into(),
            boot,
            watching: Watching::new(),
            owners: Owners::new()?,
            pagers: Pagers::new()?,
            unbounded: Vec::new(),
        })
    }

    fn run(&mut self, stop: Option<&EventFd>) -> io::Result<()> {
        self.bound_all();
        loop {
            // After the watches are there, and before every sleep: what happens from here on wakes it.
            if stop.is_none() {
                self.follow(self.named_owner())?;
                if !self.is_needed() && self.takes_leave()? {
                    return Ok(());
                }
            }
            match self.sleep(stop)? {
                Woken::Stop => return Ok(()),
                Woken::OwnerGone => {}
                Woken::PagerGone => self.end_vms_without_pager(),
                Woken::Written => {
                    // Not at every byte.
                    poll::wait([EventFd::interest(stop)], Deadline::after(PACE))?;
                    self.look()?;
                }
                Woken::TimeIsUp => self.bound_all(),
            }
        }
    }

    /// Whom the lock file names.
    fn named_owner(&self) -> Option<Identity> {
        let lock = owner::lock_file(&self.directory);
        let file = file::open_plain(File::options().read(true), &lock).ok()?;
        owner::read_owner(&file, &self.boot)
    }

    /// An owner who comes writes his name and then looks for a keeper; one who goes strikes out its own and then looks
    /// for an owner. So one of the two sees the other.
    fn takes_leave(&mut self) -> io::Result<bool> {
        handle::strike_out_record(&self.directory);
        self.follow(self.named_owner())?;
        if !self.is_needed() {
            return Ok(true);
        }
        handle::write_record(&self.directory, &self.boot).map_err(io::Error::other)?;
        Ok(false)
    }

    /// Serves the owner that is `named`, and ends the VMs of those who are gone.
    fn follow(&mut self, named: Option<Identity>) -> io::Result<()> {
        let mut gone = self.owners.gone();
        named.map_or(Ok(()), |owner| self.owners.note(owner, &mut gone))?;
        gone.into_iter().for_each(|owner| self.end_vms_of(owner));
        Ok(())
    }

    fn sleep(&self, stop: Option<&EventFd>) -> io::Result<Woken> {
        let is_lonely = stop.is_none() && !self.owners.is_anybody_there();
        let lonely = if is_lonely { Deadline::after(LONELY_PACE) } else { Deadline::NEVER };
        let until = lonely.or_sooner(self.watching.look_again());
        let interests = [
            EventFd::interest(stop),
            self.owners.interest(),
            self.pagers.interest(),
            self.watching.interest(),
        ];
        Ok(match poll::wait(interests, until)? {
            [true, ..] => Woken::Stop,
            [_, true, ..] => Woken::OwnerGone,
            [_, _, true, _] => Woken::PagerGone,
            [_, _, _, true] => Woken::Written,
            [false, false, false, false] => Woken::TimeIsUp,
        })
    }

    /// Bounds what has been written to, and watches what has come.
    fn look(&mut self) -> io::Result<()> {
        match self.watching.written()? {
            Written::Known(written) => written.iter().for_each(|directory| self.bound_outputs(directory)),
            Written::KnownAndNew(written) => {
                written.iter().for_each(|directory| self.bound_outputs(directory));
                self.bound_new();
            }
            Written::All => self.bound_all(),
        }
        Ok(())
    }

    fn bound_all(&mut self) {
        self.watching.watch_for_arrivals(&self.directory);
        self.bound_new();
        self.vms().iter().for_each(|directory| self.bound_outputs(directory));
    }

    fn bound_new(&mut self) {
        let mut vms = self.vms();
        vms.reverse();
        while let Some(directory) = vms.pop() {
            match self.watching.watch(&directory) {
                Watched::Known => continue,
                Watched::New => {}
                // A VM that has that name now was taken for this one.
                Watched::Renamed(former) => vms.push(former),
            }
            self.bound_outputs(&directory);
        }
    }

    fn bound_outputs(&mut self, directory: &Path) {
        let Ok(record) = read_record(directory) else { return };
        let files = VmmFiles::new(directory.to_path_buf());
        let counted = metrics_files(&files);
        if counted.unread() > METRICS_LIMIT
            && let Err(error) = counted.totals(metrics::LITTLE, soon())
            && !matches!(error, metrics::Error::Busy { .. })
        {
            self.complain(directory, &with_causes(&error));
        }
        match self.pagers.note(directory, &record) {
            Ok(None) => {}
            Ok(Some(pager)) => self.end_vm_without(pager, directory),
            Err(error) => {
                self.complain(directory, &format!("cannot watch the pager of VM {}: {error}", record.id));
            }
        }
        let Some(limit) = record.console_limit else { return };
        for (file, limit) in [(files.console(), limit), (files.log(), LOG_LIMIT), (files.errors(), LOG_LIMIT)]
        {
            if let Err(error) = console::bound(&file, limit) {
                self.complain(&file, &format!("cannot bound {}: {error}", file.display()));
            }
        }
    }

    fn complain(&mut self, about: &Path, text: &str) {
        if !self.unbounded.iter().any(|known| known == about) {
            self.unbounded.push(about.to_path_buf());
            log::warn!("{text}");
        }
    }

    /// Ends the VMs that were to end with `owner`. Those that another one has taken over name that one.
    fn end_vms_of(&self, owner: Identity) {
        let doomed = |record: &Record| {
            record.owner == owner && record.boot == self.boot && record.on_owner_exit == OnOwnerExit::Kill
        };
        let vms = self.vms().into_iter().filter_map(|directory| {
            let record = read_record(&directory).ok().filter(doomed)?;
            Some((record, VmmFiles::new(directory)))
        });
        let vms = vms.collect::<Vec<_>>();
        // All are killed before the first is waited for.
        for (record, files) in &vms {
            if let Ok(Some(process)) = remains::find_vmm(record, files, &self.boot) {
                let _told_below = process.send(Signal::Kill);
            }
        }
        for (record, files) in &vms {
            if let Err(error) = remains::end_vmm(record, files, &self.boot) {
                log::warn!("VM {}, whose owner has ended: {}", record.id, with_causes(&error));
            }
        }
    }

    fn end_vms_without_pager(&mut self) {
        self.pagers.gone().iter().for_each(|(directory, pager)| self.end_vm_without(*pager, directory));
    }

    /// Its next page fault would never be served.
    fn end_vm_without(&self, pager: Identity, directory: &Path) {
        // Its VM may be long gone, and another one be there under its id.
        let served = |record: &Record| pagers::pager_of(record) == Some(pager);
        let Some(record) = read_record(directory).ok().filter(served) else { return };
        let files = VmmFiles::new(directory.to_path_buf());
        if let Ok(Some(process)) = remains::find_vmm(&record, &files, &self.boot)
            && matches!(process.exit_status(), Ok(None))
            && process.send(Signal::Kill).is_ok()
        {
            log::warn!("VM {} was killed: its pager has ended", record.id);
            if let Err(error) = remains::kill_vmm(&record, &files, &self.boot) {
                log::warn!("VM {}: {}", record.id, with_causes(&error));
            }
        }
    }

    /// Whether an owner lives, or a VM runs.
    fn is_needed(&self) -> bool {
        self.owners.is_anybody_there()
            || self.vms().iter().any(|directory| {
                let process =
                    read_record(directory).ok().and_then(|record| record.vmm).and_then(|vmm| vmm.process);
                process.is_some_and(|process| process.is_running())
            })
    }

    fn vms(&self) -> Vec<PathBuf> {
        let entries = self.directory.join(crate::journal::VMS).read_dir().into_iter().flatten().flatten();
        entries
            .filter(|entry| matches!(Entry::of(&entry.file_name()), Entry::Vm(_)))
            .map(|entry| entry.path())
            .collect()
    }
}

/// Takes the keeper's lock; one that is on its way out still holds it for a moment.
fn take(lock: &File) -> io::Result<()> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if deadline.has_passed() => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another keeper serves this directory",
                ));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(PACE),
        }
    }
}

/// What one VM's metrics may hold up the others' consoles.
fn soon() -> Limits<'static> {
    Limits { deadline: Deadline::after(Duration::from_millis(100)), interrupt: None }
}

/// How long the VMM's own output may grow.
const LOG_LIMIT: u64 = 1 << 20;

/// How much of the metrics may wait to be added up: a day of them.
const METRICS_LIMIT: u64 = 8 << 20;

fn read_record(directory: &Path) -> Result<Record, journal::Error> {
    journal::read(&journal::journal_file(directory))
}
