//! The files in which a VM's metrics are: one for each run of its VMM, and one for the totals of all that was read.
//!
//! How lines become totals is the business of [`totals`]; when a run begins, and who asks, that of the rooms above.

mod totals;

use totals::Version;
pub(crate) use totals::{Totals, is_counter};

use crate::json;
use crate::process::Limits;
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use crate::sys::poll;
use crate::sys::{file, removal, sparse};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Where a VM's metrics are: one file for each run of its VMM, and the totals of all that was read so far.
///
/// Who adds to the totals holds the lock file, so threads and processes may share a directory. The totals and the place
/// up to which they go are replaced at once, and only then is anything given up: a caller who is killed leaves nothing
/// that would be counted twice, or not at all. A VMM that a guest has taken over may write what it likes: what a call
/// reads, keeps and waits for is bounded, and what is passed over is counted.
#[derive(Debug)]
pub(crate) struct MetricsFiles {
    directory: PathBuf,
    runs: PathBuf,
}

/// Why the metrics are not at hand.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The lock.
    #[error("cannot lock {}, the lock of the metrics", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else held the lock until the call's time was up.
    #[error("the metrics are in use by another process that has locked {}; try again", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// Another thread ended the call.
    #[error("the call was interrupted while it waited for the metrics")]
    Interrupted,
    /// What a VMM has written.
    #[error("cannot read the metrics in {}", path.display())]
    Read {
        /// The run's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The totals.
    #[error("cannot store the totals of the metrics in {}", path.display())]
    Store {
        /// The totals' file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of a run that is to begin.
    #[error("cannot create {} for the metrics", path.display())]
    Make {
        /// The run's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What came of reading a run's file.
enum Reading {
    /// It was read to its end. These bytes stand there: a line that has not ended yet.
    Ended { begun: Vec<u8> },
    /// It was enough for once.
    Enough,
}

/// The totals as they stand on disk, and what has been written since.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) totals: Totals,
    /// In bytes.
    pub(crate) unread: u64,
}

/// The lock, for as long as it is held.
struct MetricsLock(File);

const FIRST_RUN: u64 = 1;
const TOTALS: &str = "metrics.json";
const LOCK: &str = "metrics.lock";

/// How much of a run's file is read at once by whoever asks for one VM's metrics.
pub(crate) const MUCH: u64 = 16 << 20;
/// The same by whoever asks for those of all VMs, or sees to it that they do not grow. Firecracker writes 5 KB a minute.
pub(crate) const LITTLE: u64 = 1 << 20;
/// What waits to be read may be no more: five weeks of what Firecracker writes. The rest is passed over.
const MOST_UNREAD: u64 = 256 << 20;
/// For how long the file of a run that is over is read, before the rest is given up.
const LONGEST_FINISH: Duration = Duration::from_secs(2);
/// Between two looks at a lock that somebody else has.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// A longer file of totals is none of ours.
const LONGEST_TOTALS: u64 = 4 << 20;
const CHUNK: usize = 64 << 10;

impl MetricsFiles {
    /// The totals in `directory`, and what VMMs write in `runs`.
    pub(crate) fn new(directory: PathBuf, runs: PathBuf) -> Self {
        Self { directory, runs }
    }

    /// The name of the file that the VMM of run number `run` writes.
    pub(crate) fn of_run(run: u64) -> String {
        format!("metrics-{run}.jsonl")
    }

    /// Gets ready for run number `run` of the VMM: reads what the last run has left, removes the files of all
    /// runs, makes an empty one for this. The last run's VMM has to be gone.
    ///
    /// What cannot be read any more is counted as damaged: it is no reason not to run again.
    ///
    /// # Errors
    /// When the directory cannot be written to, or somebody else does not let go of the lock within the limits.
    pub(crate) fn begin(&self, run: u64, limits: Limits<'_>) -> Result<(), Error> {
        // A new VM has nothing to be read, and no time to lose.
        if run == FIRST_RUN && self.runs().is_empty() && self.make(run).is_ok() {
            return Ok(());
        }
        let _held = self.hold(limits)?;
        let mut totals = self.stored();
        if !self.finish(&mut totals, limits.no_later_than(Deadline::after(LONGEST_FINISH))) {
            totals.damaged = totals.damaged.saturating_add(1);
        }
        // Only what is stored may be removed, and only what is removed may be forgotten.
        self.store(&totals)?;
        // A VMM may have made any number of them.
        for old in self.runs().into_iter().take_while(|_| !limits.deadline.has_passed()) {
            // One that stays is not looked at again: its number is not the one in the totals.
            let _removed = removal::remove_all(&self.path_of(old), limits.deadline);
        }
        totals.begin(run);
        self.store(&totals)?;
        self.make(run)
    }

    fn make(&self, run: u64) -> Result<(), Error> {
        let path = self.path_of(run);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map(drop).map_err(|source| Error::Make { path, source })
    }

    /// The files that there may be before a second run.
    pub(crate) fn first(&self) -> [PathBuf; 3] {
        [self.directory.join(TOTALS), self.directory.join(LOCK), self.path_of(FIRST_RUN)]
    }

    /// Reads what has been flushed since the last time, at most `up_to` bytes of it and as long as the limits allow, and
    /// gives the totals since the VM was made. After long neglect it takes several calls: [`Self::unread`] tells whether
    /// there is more.
    ///
    /// # Errors
    /// When a file cannot be read or written, or somebody else does not let go of the lock within the limits.
    pub(crate) fn totals(&self, up_to: u64, limits: Limits<'_>) -> Result<Totals, Error> {
        let held = self.hold(limits)?;
        self.advance(&held, up_to, limits)
    }

    /// The same, unless somebody else is at it.
    pub(crate) fn totals_if_free(&self, up_to: u64, limits: Limits<'_>) -> Result<Totals, Error> {
        let held = self.hold(Limits { deadline: Deadline::after(Duration::ZERO), ..limits })?;
        self.advance(&held, up_to, limits)
    }

    fn advance(&self, _held: &MetricsLock, up_to: u64, limits: Limits<'_>) -> Result<Totals, Error> {
        let mut totals = self.stored();
        let Some(file) = self.open(totals.run)? else { return Ok(totals) };
        let start = totals.offset;
        let read = read(&file, &mut totals, up_to, limits);
        let _begun = read.map_err(|source| Error::Read { path: self.path_of(totals.run), source })?;
        if totals.offset != start {
            self.store(&totals)?;
            give_back(&file, totals.offset);
        }
        Ok(totals)
    }

    /// The totals as they were stored last, and how much has been written since: nobody is waited for.
    pub(crate) fn known(&self) -> Known {
        let totals = self.stored();
        let unread = self.unread_after(&totals);
        Known { totals, unread }
    }

    /// How many bytes of the run's file are not in the totals yet.
    pub(crate) fn unread(&self) -> u64 {
        self.known().unread
    }

    /// How long the stored totals are, in bytes: it is what looking at them costs.
    pub(crate) fn stored_bytes(&self) -> u64 {
        fs::symlink_metadata(self.directory.join(TOTALS)).map_or(0, |about| about.len())
    }

    fn unread_after(&self, totals: &Totals) -> u64 {
        let there = fs::symlink_metadata(self.path_of(totals.run)).ok().filter(fs::Metadata::is_file);
        there.map_or(0, |file| file.len().saturating_sub(totals.offset))
    }

    /// Reads the run's file to its end, which is the end of its last line too; whether that was possible.
    fn finish(&self, totals: &mut Totals, limits: Limits<'_>) -> bool {
        let file = match self.open(totals.run) {
            Ok(Some(file)) => file,
            Ok(None) => return true,
            Err(_) => return false,
        };
        match read(&file, totals, MOST_UNREAD, limits) {
            Ok(Reading::Ended { begun }) => {
                totals.take_last_line(&begun);
                true
            }
            Ok(Reading::Enough) => {
                totals.note_skipped(self.unread_after(totals));
                false
            }
            Err(_) => false,
        }
    }

    /// The totals as they were stored last. They begin anew when there are none, or none that can be used.
    fn stored(&self) -> Totals {
        match self.load() {
            Ok(totals) => totals,
            Err(error) => {
                let damaged = u64::from(error.kind() != io::ErrorKind::NotFound);
                self.anew(damaged)
            }
        }
    }

    fn load(&self) -> io::Result<Totals> {
        let file = file::open_plain(OpenOptions::new().read(true), &self.directory.join(TOTALS))?;
        let mut bytes = Vec::new();
        file.take(LONGEST_TOTALS).read_to_end(&mut bytes)?;
        let totals = json::read::<Totals>(&bytes)?;
        let is_ours = totals.version == Version::default() && i64::try_from(totals.offset).is_ok();
        if is_ours { Ok(totals) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Totals of the newest run alone, as far as its file has not been given back.
    fn anew(&self, damaged: u64) -> Totals {
        let run = self.runs().into_iter().max().unwrap_or_default();
        let first = match self.open(run) {
            Ok(Some(file)) => sparse::first_data(&file).unwrap_or_default(),
            _ => 0,
        };
        Totals::anew(run, first, damaged)
    }

    fn store(&self, totals: &Totals) -> Result<(), Error> {
        let path = self.directory.join(TOTALS);
        let bytes = serde_json::to_vec(totals).map_err(io::Error::from);
        let stored = bytes.and_then(|bytes| file::replace(&path, &bytes));
        stored.map_err(|source| Error::Store { path, source })
    }

    /// The file of a run, if it has one.
    fn open(&self, run: u64) -> Result<Option<File>, Error> {
        let path = self.path_of(run);
        match file::open_plain(OpenOptions::new().read(true).write(true), &path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// The numbers of the runs that have a file.
    fn runs(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.runs) else { return Vec::new() };
        entries.flatten().filter_map(|entry| run_of(entry.file_name().to_str()?)).collect()
    }

    fn path_of(&self, run: u64) -> PathBuf {
        self.runs.join(Self::of_run(run))
    }

    /// Waits for the lock within the limits; it is tried once at least. Its file is not one that a VMM writes, which could
    /// hold it for ever.
    fn hold(&self, limits: Limits<'_>) -> Result<MetricsLock, Error> {
        let path = self.directory.join(LOCK);
        let opened =
            file::open_plain(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), &path);
        let file = match opened {
            Ok(file) => file,
            Err(source) => return Err(Error::Lock { path, source }),
        };
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(MetricsLock(file)),
                Err(TryLockError::Error(source)) => return Err(Error::Lock { path, source }),
                Err(TryLockError::WouldBlock) if limits.deadline.has_passed() => {
                    return Err(Error::Busy { path });
                }
                Err(TryLockError::WouldBlock) => {}
            }
            let look_again = limits.deadline.or_sooner(Deadline::after(LOOK_AGAIN));
            match poll::wait([limits.interest()], look_again) {
                Ok([true]) => return Err(Error::Interrupted),
                Ok([false]) => {}
                Err(source) => return Err(Error::Lock { path, source }),
            }
        }
    }
}

impl Drop for MetricsLock {
    /// By word: a child between fork and exec has the same open file, and closing ours alone would not unlock it.
    fn drop(&mut self) {
        let _unlocked = self.0.unlock();
    }
}

/// Adds what the file holds from the totals' offset on.
fn read(file: &File, totals: &mut Totals, up_to: u64, limits: Limits<'_>) -> io::Result<Reading> {
    let length = file.metadata()?.len();
    // None of Firecracker's, or of a machine that nobody has looked after.
    if length.saturating_sub(totals.offset) > MOST_UNREAD {
        totals.pass_over_to(length - MOST_UNREAD);
    }
    let enough = totals.offset.saturating_add(up_to);
    let mut begun = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while totals.offset < enough && !is_over(limits) {
        let next = totals.offset.saturating_add(begun.len() as u64);
        match file.read_at(&mut chunk, next) {
            Ok(0) => return Ok(Reading::Ended { begun }),
            Ok(length) => totals.take(&mut begun, chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Reading::Enough)
}

/// Whether the call has to come to its end: what it has read by then counts.
fn is_over(limits: Limits<'_>) -> bool {
    limits.deadline.has_passed() || limits.interrupt.is_some_and(EventFd::is_raised)
}

/// Gives back the space of what was read. It is a matter of thrift alone, so that it may fail; and what has another
/// name besides this one is not ours to cut.
fn give_back(file: &File, end: u64) {
    if file.metadata().is_ok_and(|metadata| metadata.nlink() == 1) {
        let _given_back = sparse::punch_head(file, end);
    }
}

/// The number of the run whose file is called so.
fn run_of(name: &str) -> Option<u64> {
    let run = name.strip_prefix("metrics-")?.strip_suffix(".jsonl")?.parse().ok()?;
    (MetricsFiles::of_run(run) == name).then_some(run)
}

#[cfg(test)]
mod tests;
