//! How long the library's own operations take, in constant memory, for whoever collects it.

use super::exposition::{Distribution, Seconds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A VM: directory, VMM, configuration.
    Create,
    /// Its guest; with a new VMM, where there is none.
    Start,
    /// A VM made from a snapshot, clones and members of pools included.
    Restore,
    Pause,
    Resume,
    Snapshot,
    /// The part of a snapshot in which the guest is paused.
    SnapshotPause,
    Shutdown,
    /// One request to Firecracker.
    Request,
}

/// The operations of one runtime.
#[derive(Debug)]
pub(crate) struct Latencies([Histogram; STAGES.len()]);

#[derive(Debug, Default)]
struct Histogram {
    /// How many came up to each bound, and not to the one before.
    buckets: [AtomicU64; BOUNDS.len()],
    /// How many there were.
    count: AtomicU64,
    sum_us: AtomicU64,
    failed: AtomicU64,
}

const STAGES: [Stage; 9] = [
    Stage::Create,
    Stage::Start,
    Stage::Restore,
    Stage::Pause,
    Stage::Resume,
    Stage::Snapshot,
    Stage::SnapshotPause,
    Stage::Shutdown,
    Stage::Request,
];

/// In microseconds, and as they are written.
const BOUNDS: [(u64, &str); 13] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
    (60_000_000, "60"),
];

impl Stage {
    /// Its name as a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Restore => "restore",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Snapshot => "snapshot",
            Self::SnapshotPause => "snapshot_pause",
            Self::Shutdown => "shutdown",
            Self::Request => "request",
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Histogram::default()))
    }
}

impl Latencies {
    /// Does it, and notes how long it took, or that it failed.
    pub(crate) fn measure<T, E>(&self, stage: Stage, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = Instant::now();
        let result = run();
        match &result {
            Ok(_) => self.note(stage, began.elapsed()),
            Err(_) => self.of(stage).iter().for_each(|one| add(&one.failed, 1)),
        }
        result
    }

    /// It was done, and took so long.
    pub(crate) fn note(&self, stage: Stage, took: Duration) {
        let Some(histogram) = self.of(stage) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bound = BOUNDS.iter().position(|(bound, _)| micros <= *bound);
        bound.and_then(|bound| histogram.buckets.get(bound)).iter().for_each(|bucket| add(bucket, 1));
        add(&histogram.sum_us, micros);
        add(&histogram.count, 1);
    }

    /// What is known of each: how long those took that were done, and how many failed.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Stage, Distribution, u64)> {
        STAGES.iter().zip(&self.0).map(|(stage, histogram)| {
            (*stage, histogram.distribution(), histogram.failed.load(Ordering::Relaxed))
        })
    }

    fn of(&self, stage: Stage) -> Option<&Histogram> {
        self.0.get(STAGES.iter().position(|one| *one == stage)?)
    }
}

impl Histogram {
    /// Of what is being noted at the same time, a part may be in it: the count is never less than a bucket.
    fn distribution(&self) -> Distribution {
        let mut sum = 0;
        let mut up_to = |(bucket, (_, bound)): (&AtomicU64, &(u64, &'static str))| {
            sum += bucket.load(Ordering::Relaxed);
            (*bound, sum)
        };
        let buckets = self.buckets.iter().zip(&BOUNDS).map(&mut up_to).collect();
        let count = self.count.load(Ordering::Relaxed).max(sum);
        Distribution { buckets, count, sum: Seconds(self.sum_us.load(Ordering::Relaxed)) }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_in_the_buckets_and_what_failed_is_not() {
        let latencies = Latencies::default();
        for micros in [1, 1000, 1001, 300_000, 61_000_000] {
            latencies.note(Stage::Start, Duration::from_micros(micros));
        }
        assert_eq!(latencies.measure(Stage::Start, || Err::<(), _>(5)), Err(5));
        assert_eq!(latencies.measure(Stage::Pause, || Ok::<_, ()>(6)), Ok(6));
        let (_, told, failed) = latencies.all().find(|(stage, ..)| *stage == Stage::Start).unwrap();
        assert_eq!((told.count, told.sum, failed), (5, Seconds(61_302_002), 1));
        assert_eq!((told.buckets[0], told.buckets[1]), (("0.001", 2), ("0.0025", 3)));
        assert_eq!(told.buckets[8..], [("0.5", 4), ("1", 4), ("2.5", 4), ("10", 4), ("60", 4)]);
        assert_eq!(latencies.all().map(|(_, told, _)| told.count).sum::<u64>(), 6);
    }
}
