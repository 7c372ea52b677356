//! The files of metrics, with a VMM that writes as Firecracker does, or as nobody should.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const FREELY: Limits<'_> = Limits { deadline: Deadline::NEVER, interrupt: None };

static SCRATCHES: AtomicU32 = AtomicU32::new(0);

/// A directory of metrics that is removed with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let number = SCRATCHES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("mvm-metrics-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    /// With run number 1 begun.
    fn begun() -> (Self, MetricsFiles) {
        let scratch = Self::new();
        let files = scratch.files();
        files.begin(1, FREELY).unwrap();
        (scratch, files)
    }

    fn files(&self) -> MetricsFiles {
        MetricsFiles::new(self.0.clone(), self.0.clone())
    }

    fn append(&self, run: u64, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(MetricsFiles::of_run(run));
        OpenOptions::new().append(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    fn replace_run(&self, run: u64) -> PathBuf {
        let path = self.0.join(MetricsFiles::of_run(run));
        fs::remove_file(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn line(count: u64) -> String {
    format!("{{\"uart\":{{\"write_count\":{count}}}}}\n")
}

fn written(totals: &Totals) -> serde_json::Value {
    totals.core()["uart"]["write_count"].clone()
}

#[test]
fn what_is_flushed_is_added_once() {
    let (scratch, files) = Scratch::begun();
    assert_eq!(files.totals(MUCH, FREELY).unwrap(), Totals::anew(1, 0, 0));
    scratch.append(1, line(2) + &line(3));
    assert_eq!(files.unread(), 54);
    for _ in 0..2 {
        let totals = files.totals(MUCH, FREELY).unwrap();
        assert_eq!((written(&totals), totals.flushes, files.unread()), (json!(5), 2, 0));
    }
    scratch.append(1, line(4));
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 9);
}

#[test]
fn a_line_that_has_not_ended_is_left_for_later() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2) + &line(3)[..9]);
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), totals.flushes, files.unread()), (json!(2), 1, 9));
    scratch.append(1, &line(3)[9..]);
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 5);
}

#[test]
fn a_new_run_goes_on_with_the_sums_and_has_a_file_of_its_own() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2));
    files.totals(MUCH, FREELY).unwrap();
    scratch.append(1, line(3));
    files.begin(2, FREELY).unwrap();
    let kept = fs::metadata(scratch.0.join("metrics-2.jsonl")).unwrap();
    assert_eq!((kept.len(), kept.mode() & 0o777), (0, 0o600));
    assert!(!scratch.0.join("metrics-1.jsonl").exists());
    scratch.append(2, line(4));
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), totals.run, totals.flushes), (json!(9), 2, 3));
}

#[test]
fn the_last_line_of_a_run_counts_when_only_its_newline_is_missing() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2).trim_end());
    files.begin(2, FREELY).unwrap();
    scratch.append(2, &line(3)[..9]);
    files.begin(3, FREELY).unwrap();
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), totals.flushes, totals.damaged), (json!(2), 1, 1));
}

#[test]
fn a_run_may_begin_twice_with_the_same_number() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2));
    files.begin(1, FREELY).unwrap();
    scratch.append(1, line(3));
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 5);
}

#[test]
fn who_is_killed_before_giving_back_has_counted_nothing_twice() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2).repeat(1000));
    let mut totals = files.stored();
    let file = files.open(1).unwrap().unwrap();
    // Killed before the totals are stored, and after that.
    read(&file, &mut totals, MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), written(&files.stored())), (json!(2000), json!(0)));
    files.store(&totals).unwrap();
    assert_eq!(
        (written(&files.totals(MUCH, FREELY).unwrap()), written(&files.totals(MUCH, FREELY).unwrap())),
        (json!(2000), json!(2000))
    );
}

#[test]
fn who_is_killed_at_any_step_of_a_new_run_has_counted_nothing_twice() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2) + "{");
    let mut totals = files.stored();
    assert!(files.finish(&mut totals, FREELY));
    files.store(&totals).unwrap();
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 2, "killed before anything is removed");
    fs::remove_file(scratch.0.join("metrics-1.jsonl")).unwrap();
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 2, "killed before the next run is stored");
    totals.begin(2);
    files.store(&totals).unwrap();
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 2, "killed before there is a file");
    files.begin(2, FREELY).unwrap();
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), totals.damaged), (json!(2), 1));
}

#[test]
fn what_was_read_takes_no_space() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(1).repeat(2000));
    files.totals(MUCH, FREELY).unwrap();
    let file = fs::metadata(scratch.0.join("metrics-1.jsonl")).unwrap();
    assert_eq!(file.len(), 54_000);
    assert!(file.blocks() * 512 <= 4096, "{} blocks are left", file.blocks());
}

#[test]
fn totals_that_cannot_be_read_begin_anew_and_say_so() {
    for damage in ["", "{", "[]", r#"{"version":2}"#, r#"{"version":1,"run":1,"offset":-1}"#] {
        let (scratch, files) = Scratch::begun();
        scratch.append(1, line(1).repeat(2000));
        files.totals(MUCH, FREELY).unwrap();
        scratch.append(1, line(7));
        fs::write(scratch.0.join(TOTALS), damage).unwrap();
        let totals = files.totals(MUCH, FREELY).unwrap();
        // What was given back is gone, and the line of which a piece is left is none that is damaged.
        let left = (2000 * 27 - 2000 * 27 / 4096 * 4096) / 27 + 7;
        assert_eq!((written(&totals), totals.run, totals.damaged), (json!(left), 1, 1), "{damage}");
        assert_eq!(files.totals(MUCH, FREELY).unwrap(), totals);
    }
}

#[test]
fn a_file_that_is_no_file_is_an_error_but_no_obstacle_to_the_next_run() {
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let link = |path: &Path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
    for replace in [&fifo as &dyn Fn(&Path), &link] {
        let (scratch, files) = Scratch::begun();
        scratch.append(1, line(2));
        files.totals(MUCH, FREELY).unwrap();
        replace(&scratch.replace_run(1));
        let error = files.totals(MUCH, FREELY).unwrap_err();
        assert!(
            matches!(error, Error::Read { .. }) && error.to_string().contains("metrics-1.jsonl"),
            "{error}"
        );
        assert_eq!(files.unread(), 0);
        files.begin(2, FREELY).unwrap();
        scratch.append(2, line(3));
        let totals = files.totals(MUCH, FREELY).unwrap();
        assert_eq!((written(&totals), totals.damaged), (json!(5), 1));
    }
}

#[test]
fn a_file_of_nothing_but_a_hole_takes_neither_memory_nor_time() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(0));
    files.totals(MUCH, FREELY).unwrap();
    let file = OpenOptions::new().write(true).open(scratch.0.join("metrics-1.jsonl")).unwrap();
    file.set_len(1 << 40).unwrap();
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((totals.flushes, totals.damaged), (1, 1));
    assert!(totals.skipped > (1 << 40) - MOST_UNREAD && files.unread() < MOST_UNREAD);
    assert_eq!(files.totals(MUCH, FREELY).unwrap().damaged, 1);
    files.begin(2, FREELY).unwrap();
    scratch.append(2, line(3));
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 3);
}

#[test]
fn a_call_reads_no_more_than_it_was_asked_to_and_the_next_goes_on() {
    let (scratch, files) = Scratch::begun();
    let lines = 100_000;
    scratch.append(1, "{\"a\":1}\n".repeat(lines));
    let length = 8 * lines as u64;
    let first = files.totals(LITTLE / 8, FREELY).unwrap();
    assert!((LITTLE / 8..LITTLE / 4).contains(&first.offset), "{}", first.offset);
    assert_eq!(files.known().totals, first);
    assert_eq!(files.unread(), length - first.offset);
    while files.totals(LITTLE / 8, FREELY).unwrap().offset < length {}
    assert_eq!(files.totals(LITTLE, FREELY).unwrap().document["a"], lines);
}

#[test]
fn a_call_whose_time_is_up_keeps_what_it_has_read() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2));
    let at_once = Limits { deadline: Deadline::after(Duration::ZERO), interrupt: None };
    assert_eq!(files.totals(MUCH, at_once).unwrap().offset, 0);
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 2);
}

#[test]
fn whoever_waits_for_the_lock_obeys_its_limits_and_what_is_known_needs_none() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2));
    files.totals(MUCH, FREELY).unwrap();
    scratch.append(1, line(3));
    let held = files.hold(FREELY).unwrap();
    let at_once = Limits { deadline: Deadline::after(Duration::ZERO), interrupt: None };
    assert!(matches!(files.totals(MUCH, at_once), Err(Error::Busy { .. })));
    assert!(matches!(files.begin(2, at_once), Err(Error::Busy { .. })));
    let flag = EventFd::new().unwrap();
    flag.raise();
    let interrupted = Limits { deadline: Deadline::NEVER, interrupt: Some(&flag) };
    assert!(matches!(files.totals(MUCH, interrupted), Err(Error::Interrupted)));
    let known = files.known();
    assert_eq!((written(&known.totals), known.unread), (json!(2), 27));
    drop(held);
    assert_eq!(written(&files.totals(MUCH, at_once).unwrap()), 2);
    assert_eq!(written(&files.totals(MUCH, FREELY).unwrap()), 5);
}

#[test]
fn a_run_of_more_than_can_be_read_ends_in_time_and_says_what_was_passed_over() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2).repeat(1000));
    let at_once = Limits { deadline: Deadline::after(Duration::ZERO), interrupt: None };
    files.begin(2, at_once).unwrap();
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((totals.run, totals.damaged, totals.skipped), (2, 1, 27_000));
}

#[test]
fn a_file_that_was_made_shorter_is_read_no_further() {
    let (scratch, files) = Scratch::begun();
    scratch.append(1, line(2));
    files.totals(MUCH, FREELY).unwrap();
    File::create(scratch.0.join("metrics-1.jsonl")).unwrap();
    assert_eq!((written(&files.totals(MUCH, FREELY).unwrap()), files.unread()), (json!(2), 0));
}

#[test]
fn threads_that_ask_at_once_add_each_line_once() {
    let (scratch, files) = Scratch::begun();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..100).for_each(|_| drop(files.totals(MUCH, FREELY).unwrap())));
        }
        (0..200).for_each(|_| scratch.append(1, line(1)));
    });
    let totals = files.totals(MUCH, FREELY).unwrap();
    assert_eq!((written(&totals), totals.flushes, totals.damaged), (json!(200), 200, 0));
}

#[test]
fn no_other_file_is_taken_for_a_run_s() {
    for name in ["metrics.json", "metrics-.jsonl", "metrics-01.jsonl", "metrics--1.jsonl", "metrics-+1.jsonl"]
    {
        assert_eq!(run_of(name), None, "{name}");
    }
    assert_eq!(run_of(&MetricsFiles::of_run(u64::MAX)), Some(u64::MAX));
    let (scratch, files) = Scratch::begun();
    fs::write(scratch.0.join("metrics-01.jsonl"), line(9)).unwrap();
    files.begin(2, FREELY).unwrap();
    assert_eq!((written(&files.totals(MUCH, FREELY).unwrap()), files.runs()), (json!(0), vec![2]));
}

#[test]
fn an_error_names_the_file() {
    let files = MetricsFiles::new("/nowhere".into(), "/nowhere".into());
    let errors = [
        files.totals(MUCH, FREELY).unwrap_err(),
        files.begin(1, FREELY).unwrap_err(),
        files.store(&Totals::default()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("/nowhere/metrics."), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    assert_eq!(files.unread(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn it_does_not_matter_when_it_is_read(
        counts in proptest::collection::vec(0_u64..100, 0..30), cuts in proptest::collection::vec(1_usize..80, 0..12),
    ) {
        let (scratch, files) = Scratch::begun();
        let text = counts.iter().map(|count| line(*count)).collect::<String>();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            scratch.append(1, piece);
            files.totals(MUCH, FREELY).unwrap();
            rest = after;
        }
        scratch.append(1, rest);
        let totals = files.totals(MUCH, FREELY).unwrap();
        prop_assert_eq!(written(&totals), json!(counts.iter().sum::<u64>()));
        prop_assert_eq!((totals.flushes, totals.damaged), (counts.len() as u64, 0));
    }
}
