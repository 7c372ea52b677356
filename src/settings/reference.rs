//! The reference of options, docs/json.md, held against the keys that the code reads.
//!
//! Each reader of options has a unit test that calls [`hold`] with the heading of its table.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// The headings of tables of options, each of which a reader's test names.
pub(crate) const SPEC: &str = "### The section `\"mvm\"`";
pub(crate) const DISK: &str = "### Disks from images";
pub(crate) const MANIFEST: &str = "### A catalogue of images";
pub(crate) const RUNTIME: &str = "## Options of a runtime (`mvm_runtime_open`)";
pub(crate) const SNAPSHOT: &str = "### Options of a snapshot (`mvm_snapshot_create`)";
pub(crate) const MERGE: &str = "### Options of a merge (`mvm_snapshot_merge`)";
pub(crate) const RESTORE: &str = "### Options of a restore (`mvm_restore`)";
pub(crate) const CLONE: &str = "### Options of a clone (`mvm_clone`)";
pub(crate) const POOL: &str = "### Options of a pool (`mvm_pool_open`)";
pub(crate) const TAKE: &str = "### Options of a take (`mvm_pool_take`)";
pub(crate) const PROCESS: &str = "## Options of a process (`mvm_process_spawn`)";
pub(crate) const METRICS: &str = "### Options of the metrics text (`mvm_runtime_metrics`)";

const ALL: [&str; 12] =
    [SPEC, DISK, MANIFEST, RUNTIME, SNAPSHOT, MERGE, RESTORE, CLONE, POOL, TAKE, PROCESS, METRICS];
const TEXT: &str = include_str!("../../docs/json.md");
const TABLE: &str = "| key | default | what |";

thread_local! {
    static READ: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// A reader has asked for the key at `path`.
pub(crate) fn note(path: &str) {
    READ.with_borrow_mut(|keys| keys.insert(path.to_owned()));
}

/// The tables below `heading` have exactly the keys that `read` asks for. The name of the outermost object is left out.
pub(crate) fn hold<T, E: std::fmt::Debug>(heading: &str, read: impl FnOnce() -> Result<T, E>) {
    READ.take();
    read().unwrap();
    let keys = READ.take().iter().map(|path| written(path)).collect::<BTreeSet<_>>();
    let (read, told) = (leaves(&keys), leaves(&documented(heading)));
    let untold = read.difference(&told).collect::<Vec<_>>();
    let unread = told.difference(&read).collect::<Vec<_>>();
    assert!(untold.is_empty(), "docs/json.md, {heading:?}, lacks {untold:?}");
    assert!(unread.is_empty(), "docs/json.md, {heading:?}, has {unread:?}, which nothing reads");
}

/// `options.drives[0].drive_id` is `drives[].drive_id` there.
fn written(path: &str) -> String {
    let (_, below) = path.split_once('.').unwrap();
    below.replace("[0]", "[]")
}

/// The keys that are no objects whose own keys are there too.
fn leaves(keys: &BTreeSet<String>) -> BTreeSet<String> {
    let is_parent = |key: &String| {
        keys.iter().any(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '['])))
    };
    keys.iter().filter(|key| !is_parent(key)).cloned().collect()
}

fn documented(heading: &str) -> BTreeSet<String> {
    let mut lines = TEXT.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "docs/json.md has no {heading:?}");
    let mut keys = BTreeSet::new();
    let mut is_inside = false;
    for line in lines.take_while(|line| !line.starts_with('#')) {
        is_inside = line == TABLE || (is_inside && line.starts_with('|'));
        if let Some(key) =
            line.strip_prefix("| `").and_then(|row| row.split('`').next()).filter(|_| is_inside)
        {
            keys.insert(key.to_owned());
        }
    }
    keys
}

#[test]
fn every_table_of_options_is_held_against_a_reader() {
    let mut heading = "";
    for line in TEXT.lines() {
        if line.starts_with('#') {
            heading = line;
        }
        assert!(line != TABLE || ALL.contains(&heading), "no reader's test names {heading:?}");
    }
}
