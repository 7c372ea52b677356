//! Firecracker's metrics added up. It tells most numbers as what came since its last line, and some as they stand.
//!
//! Where the lines come from, and where the totals are kept, is the business of the room above.

use crate::json::{self, object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The sums of all lines that were read, and the place up to which they were.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Totals {
    pub(super) version: Version,
    /// The run whose file is being read.
    pub(crate) run: u64,
    /// Where the next line of that file begins.
    pub(crate) offset: u64,
    /// How many lines were added.
    pub(crate) flushes: u64,
    /// How many lines, or files, could not be read or not be kept whole.
    pub(crate) damaged: u64,
    /// How many bytes were passed over: of lines that were too long, and of more than anybody could read.
    #[serde(default)]
    pub(crate) skipped: u64,
    /// What stands at the offset is still the line that was too long.
    #[serde(default)]
    skipping: bool,
    /// How many keys the document was given.
    #[serde(default)]
    keys: usize,
    /// In the shape of a line.
    #[serde(rename = "totals")]
    pub(crate) document: Map<String, Value>,
}

/// The version of the form in which totals are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Version(u32);

impl Default for Version {
    fn default() -> Self {
        Self(1)
    }
}

/// How a number of a line is added to the one in the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It is what came since the last line.
    Sum,
    /// It tells how something stands.
    Last,
    /// It is the least since the VMM began; zero when there was nothing.
    Least,
    /// It is the most since the VMM began, or says that something happened.
    Most,
}

/// A line on its way into the document, whose size is bounded: the names are the VMM's.
struct Adding<'a> {
    keys: &'a mut usize,
    /// Whether something had no place.
    is_short: bool,
}

/// A longer line is none of Firecracker's: a device adds 1 KB, and all else takes 5.
const LONGEST_LINE: usize = 256 << 10;
/// Firecracker has 300 keys, and 40 more for each device.
const MOST_KEYS: usize = 4096;
/// Firecracker has 25, and one more for each device, of which a VM has some dozens at most.
const MOST_GROUPS: usize = 256;
/// In bytes, of a key or a text. Firecracker's names have up to 30, and the id of a device 64 more.
const LONGEST_TEXT: usize = 128;
/// Firecracker's own is 3: a group, its fields, and what some of them are made of.
const DEEPEST: usize = 4;

impl Totals {
    /// Totals of nothing, to be read from `offset` of a run's file. What stood before that is gone, so that there
    /// may be the rest of a line.
    pub(super) fn anew(run: u64, offset: u64, damaged: u64) -> Self {
        Self { run, offset, damaged, skipping: offset > 0, ..Self::default() }
    }

    /// From here on it is about another run.
    pub(super) fn begin(&mut self, run: u64) {
        self.run = run;
        self.offset = 0;
        self.skipping = false;
    }

    /// Adds the lines that end in `bytes`, the first of which goes on from `begun`; `begun` is then the line that
    /// has not ended yet.
    pub(super) fn take(&mut self, begun: &mut Vec<u8>, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.take_line(begun);
                begun.clear();
            }
        }
        if self.skipping || begun.len() > LONGEST_LINE {
            self.skip(begun.len() as u64);
            begun.clear();
        }
    }

    /// Goes to `offset` without reading what stands before it.
    pub(super) fn pass_over_to(&mut self, offset: u64) {
        self.skip(offset.saturating_sub(self.offset));
    }

    /// So many bytes are never read.
    pub(super) fn note_skipped(&mut self, bytes: u64) {
        self.skipped = self.skipped.saturating_add(bytes);
    }

    /// Adds what stands at the end of a file that nobody writes to any more: without a newline, but perhaps whole.
    pub(super) fn take_last_line(&mut self, begun: &[u8]) {
        if !begun.is_empty() {
            self.take_line(begun);
        }
    }

    /// The fields that most people ask for, under plain names; 0 for what was never told.
    pub(crate) fn core(&self) -> Value {
        let of = |group, field| self.number(group, field);
        object! {
            "vcpu_exits": object! {
                "io_in": of("vcpu", "exit_io_in"),
                "io_out": of("vcpu", "exit_io_out"),
                "mmio_read": of("vcpu", "exit_mmio_read"),
                "mmio_write": of("vcpu", "exit_mmio_write"),
                "failures": of("vcpu", "failures"),
            },
            "block": self.block(),
            "net": self.net(),
            "vsock": object! {
                "rx_bytes": of("vsock", "rx_bytes_count"),
                "tx_bytes": of("vsock", "tx_bytes_count"),
                "conns_added": of("vsock", "conns_added"),
                "conns_removed": of("vsock", "conns_removed"),
            },
            "uart": object! {
                "write_count": of("uart", "write_count"),
                "missed_write_count": of("uart", "missed_write_count"),
                "rate_limiter_dropped_bytes": of("uart", "rate_limiter_dropped_bytes"),
            },
            "balloon": object! {
                "inflate_count": of("balloon", "inflate_count"),
                "deflate_count": of("balloon", "deflate_count"),
                "free_page_report_freed": of("balloon", "free_page_report_freed"),
                "free_page_hint_freed": of("balloon", "free_page_hint_freed"),
            },
            "lost": object! {
                "metrics": self.sum("logger", &["missed_metrics_count", "metrics_fails"]),
                "log": self.sum("logger", &["missed_log_count", "rate_limited_log_count"]),
                "damaged_lines": self.damaged,
                "skipped_bytes": self.skipped,
            },
            "seccomp_faults": of("seccomp", "num_faults"),
            "panics": of("vmm", "panic_count"),
            "api": object! {
                "put_fails": self.fails("put_api_requests"),
                "patch_fails": self.fails("patch_api_requests"),
            },
        }
    }

    fn block(&self) -> Value {
        let of = |field| self.number("block", field);
        object! {
            "read_bytes": of("read_bytes"),
            "write_bytes": of("write_bytes"),
            "read_count": of("read_count"),
            "write_count": of("write_count"),
            "flush_count": of("flush_count"),
            "throttled": self.sum("block", &["rate_limiter_throttled_events", "io_engine_throttled_events"]),
        }
    }

    fn net(&self) -> Value {
        let of = |field| self.number("net", field);
        object! {
            "rx_bytes": of("rx_bytes_count"),
            "rx_packets": of("rx_packets_count"),
            "rx_fails": of("rx_fails"),
            "tx_bytes": of("tx_bytes_count"),
            "tx_packets": of("tx_packets_count"),
            "tx_fails": of("tx_fails"),
            "spoofed": of("tx_spoofed_mac_count"),
        }
    }

    fn number(&self, group: &str, field: &str) -> u64 {
        let number = self.document.get(group).and_then(|group| group.get(field)).and_then(Value::as_u64);
        number.unwrap_or_default()
    }

    fn sum(&self, group: &str, fields: &[&str]) -> u64 {
        fields.iter().map(|field| self.number(group, field)).fold(0, u64::saturating_add)
    }

    /// How often a request of this group has failed.
    fn fails(&self, group: &str) -> u64 {
        let fields = self.document.get(group).and_then(Value::as_object);
        let fails = fields.into_iter().flatten().filter(|(field, _)| field.ends_with("_fails"));
        fails.filter_map(|(_, number)| number.as_u64()).fold(0, u64::saturating_add)
    }

    fn take_line(&mut self, line: &[u8]) {
        self.offset = self.offset.saturating_add(line.len() as u64);
        if std::mem::take(&mut self.skipping) {
            // It was counted when it became too long.
            self.note_skipped(line.len() as u64);
            return;
        }
        let is_too_long = line.len() > LONGEST_LINE;
        self.note_skipped(if is_too_long { line.len() as u64 } else { 0 });
        let whole = if is_too_long { None } else { json::read(line).ok() };
        let Some(line) = whole else {
            self.damaged = self.damaged.saturating_add(1);
            return;
        };
        let mut adding = Adding { keys: &mut self.keys, is_short: false };
        adding.add_all(&mut self.document, None, line, 1);
        self.damaged = self.damaged.saturating_add(u64::from(adding.is_short));
        self.flushes = self.flushes.saturating_add(1);
    }

    /// Goes past a piece of a line that is too long.
    fn skip(&mut self, length: u64) {
        self.offset = self.offset.saturating_add(length);
        self.note_skipped(length);
        self.damaged = self.damaged.saturating_add(u64::from(!self.skipping));
        self.skipping = true;
    }
}

impl Adding<'_> {
    fn add_all(
        &mut self,
        totals: &mut Map<String, Value>,
        group: Option<&str>,
        told: Map<String, Value>,
        depth: usize,
    ) {
        for (name, value) in told {
            let has_place = depth > 1 || totals.len() < MOST_GROUPS;
            let has_room = totals.contains_key(&name) || has_place && self.has_room_for(&name);
            if depth > DEEPEST || !has_room {
                self.is_short = true;
                continue;
            }
            let group = group.unwrap_or(&name);
            let sum = match value {
                Value::Object(told) => {
                    let mut inner = match totals.get_mut(&name).map(Value::take) {
                        Some(Value::Object(inner)) => inner,
                        _ => Map::new(),
                    };
                    self.add_all(&mut inner, Some(group), told, depth + 1);
                    Value::Object(inner)
                }
                value if is_small(&value) => combine(rule(group, &name), totals.get(&name), value),
                _ => continue,
            };
            totals.insert(name, sum);
        }
    }

    /// Takes room for a key that is new.
    fn has_room_for(&mut self, name: &str) -> bool {
        let has_room = *self.keys < MOST_KEYS && name.len() <= LONGEST_TEXT;
        *self.keys += usize::from(has_room);
        has_room
    }
}

/// Whether this field of a group only grows; or else it tells how something stands.
pub(crate) fn is_counter(group: &str, field: &str) -> bool {
    rule(group, field) == Rule::Sum
}

/// As Firecracker's `SharedIncMetric` and `SharedStoreMetric` have it. What is stored and only ever goes from 0 to 1,
/// just before the VMM ends, stays 1 in the runs after that: it has happened.
fn rule(group: &str, field: &str) -> Rule {
    match (group, field) {
        (_, "min_us") => Rule::Least,
        (_, "max_us") => Rule::Most,
        ("signals", "sigpipe") => Rule::Sum,
        ("signals", _) | ("seccomp", "num_faults") | ("vmm", "panic_count") => Rule::Most,
        ("utc_timestamp_ms" | "latencies_us", _) => Rule::Last,
        ("api_server", "process_startup_time_us" | "process_startup_time_cpu_us") => Rule::Last,
        _ if group.starts_with("vhost_user_") && field.ends_with("_time_us") => Rule::Last,
        _ => Rule::Sum,
    }
}

fn combine(rule: Rule, total: Option<&Value>, told: Value) -> Value {
    let (Some(total), Some(number)) = (total.and_then(Value::as_u64), told.as_u64()) else { return told };
    let combined = match rule {
        Rule::Sum => total.saturating_add(number),
        Rule::Last => number,
        Rule::Least if total == 0 || number == 0 => total.max(number),
        Rule::Least => total.min(number),
        Rule::Most => total.max(number),
    };
    combined.into()
}

/// Whether a value may be kept that has no keys.
fn is_small(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= LONGEST_TEXT,
        Value::Array(values) => values.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn of(lines: &[&str]) -> Totals {
        let mut totals = Totals::default();
        let mut begun = Vec::new();
        lines.iter().for_each(|line| totals.take(&mut begun, format!("{line}\n").as_bytes()));
        totals
    }

    #[test]
    fn what_came_since_the_last_line_is_added() {
        let totals = of(&[
            r#"{"uart":{"write_count":3},"block_rootfs":{"read_bytes":5,"read_agg":{"sum_us":7}},"new":{"x":1}}"#,
            r#"{"uart":{"write_count":4},"block_rootfs":{"read_bytes":6,"read_agg":{"sum_us":0}},"new":{"x":1}}"#,
        ]);
        let sums = json!({
            "uart": { "write_count": 7 }, "block_rootfs": { "read_bytes": 11, "read_agg": { "sum_us": 7 } },
            "new": { "x": 2 },
        });
        assert_eq!((Value::Object(totals.document), totals.flushes, totals.damaged), (sums, 2, 0));
    }

    #[test]
    fn what_tells_how_something_stands_is_the_last_told() {
        let line = |n: u32| {
            format!(
                r#"{{"utc_timestamp_ms":{n},"latencies_us":{{"pause_vm":{n}}},"vhost_user_block_a":{{"init_time_us":{n},
                "cfg_fails":{n}}},"api_server":{{"process_startup_time_us":{n},"sync_response_fails":{n}}},"word":"{n}"}}"#
            )
            .replace('\n', "")
        };
        let totals = of(&[&line(7), &line(2)]);
        let last = json!({
            "utc_timestamp_ms": 2, "latencies_us": { "pause_vm": 2 }, "word": "2",
            "vhost_user_block_a": { "init_time_us": 2, "cfg_fails": 9 },
            "api_server": { "process_startup_time_us": 2, "sync_response_fails": 9 },
        });
        assert_eq!(Value::Object(totals.document), last);
    }

    #[test]
    fn the_least_and_the_most_of_all_runs_are_kept_and_nothing_is_no_least() {
        let line = |least: u32, most: u32| {
            format!(r#"{{"vcpu":{{"agg":{{"min_us":{least},"max_us":{most},"sum_us":1}}}}}}"#)
        };
        let totals = of(&[&line(0, 0), &line(5, 9), &line(3, 9), &line(0, 0), &line(4, 6)]);
        assert_eq!(totals.document["vcpu"]["agg"], json!({ "min_us": 3, "max_us": 9, "sum_us": 5 }));
    }

    #[test]
    fn what_has_happened_once_is_not_forgotten_by_the_next_run() {
        let line = |n: u32| {
            format!(
                r#"{{"vmm":{{"panic_count":{n}}},"signals":{{"sighup":{n},"sigpipe":2}},"seccomp":{{"num_faults":{n}}}}}"#
            )
        };
        let totals = of(&[&line(0), &line(1), &line(1), &line(0)]);
        assert_eq!(totals.document["signals"], json!({ "sighup": 1, "sigpipe": 8 }));
        assert_eq!((&totals.core()["panics"], &totals.core()["seccomp_faults"]), (&json!(1), &json!(1)));
    }

    #[test]
    fn what_is_no_object_is_counted_and_passed_by() {
        let totals =
            of(&["[1]", "", "7", "{\"a\":", "\u{0}\u{0}{}", "{\"a\":1}{\"a\":1}", "{\"a\":{\"b\":2}}"]);
        assert_eq!((totals.flushes, totals.damaged, &totals.document["a"]["b"]), (1, 6, &json!(2)));
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_once_and_what_comes_after_it_is_read() {
        for length in [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 3 * LONGEST_LINE] {
            let long = format!("{{\"a\":1}}{}", " ".repeat(length - 7));
            let totals = of(&[&long, "{\"a\":5}"]);
            let is_too_long = length >= LONGEST_LINE;
            assert_eq!(totals.damaged, u64::from(is_too_long), "{length}");
            assert_eq!(totals.document["a"], if is_too_long { 5 } else { 6 }, "{length}");
            assert_eq!(totals.offset, length as u64 + 9);
            assert_eq!(totals.skipped, if is_too_long { length as u64 + 1 } else { 0 }, "{length}");
        }
    }

    #[test]
    fn a_field_that_changes_its_kind_is_what_it_was_told_to_be_last() {
        let totals = of(&[r#"{"a":{"b":1},"c":5}"#, r#"{"a":3,"c":{"d":1}}"#, r#"{"a":4,"c":{"d":-1}}"#]);
        assert_eq!(Value::Object(totals.document), json!({ "a": 7, "c": { "d": -1 } }));
    }

    #[test]
    fn sums_stay_at_the_greatest_number() {
        let line = format!("{{\"a\":{}}}", u64::MAX);
        assert_eq!(of(&[&line, &line]).document["a"], u64::MAX);
    }

    #[test]
    fn a_vmm_that_invents_names_does_not_fill_the_memory() {
        let mut totals = Totals::default();
        let mut begun = Vec::new();
        for line in 0..40 {
            let names = (0..1000).map(|n| format!("\"group-{line}-{n}\":{{}}")).collect::<Vec<_>>().join(",");
            totals.take(&mut begun, format!("{{{names}}}\n").as_bytes());
        }
        let long = format!("{{\"{}\":1,\"text\":\"{}\"}}\n", "x".repeat(1000), "y".repeat(1000));
        totals.take(&mut begun, long.as_bytes());
        assert!(totals.document.len() <= MOST_GROUPS && totals.damaged > 20, "{}", totals.damaged);
        assert!(totals.document.keys().all(|name| name.len() <= LONGEST_TEXT));
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert_eq!(of(&[&deep]).damaged, 1);
    }

    #[test]
    fn the_core_fields_are_there_even_when_nothing_was_told() {
        let core = Totals::default().core();
        assert_eq!((&core["block"]["throttled"], &core["lost"]["damaged_lines"]), (&json!(0), &json!(0)));
        let totals = of(&[
            r#"{"block":{"rate_limiter_throttled_events":1,"io_engine_throttled_events":2},"net":{"rx_bytes_count":3},
            "put_api_requests":{"drive_count":9,"drive_fails":1,"actions_fails":2},"logger":{"metrics_fails":4}}"#
                .replace('\n', "")
                .as_str(),
        ]);
        let core = totals.core();
        assert_eq!((&core["block"]["throttled"], &core["net"]["rx_bytes"]), (&json!(3), &json!(3)));
        assert_eq!((&core["api"]["put_fails"], &core["lost"]["metrics"]), (&json!(3), &json!(4)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_their_pieces_give_the_same_as_the_whole(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), Just(b'}'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0_usize..60, 0..20),
        ) {
            let (mut whole, mut pieces) = (Totals::default(), Totals::default());
            let mut begun = Vec::new();
            whole.take(&mut begun, &bytes);
            let mut rest = bytes.as_slice();
            let mut begun_in_pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.take(&mut begun_in_pieces, piece);
                rest = after;
            }
            pieces.take(&mut begun_in_pieces, rest);
            prop_assert_eq!(begun, begun_in_pieces);
            prop_assert_eq!(whole, pieces);
        }
    }
}
