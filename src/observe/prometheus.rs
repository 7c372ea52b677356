//! What is known of VMs, as the text that Prometheus collects (text exposition format 0.0.4).
//!
//! Gathering it, and serving the text to whoever collects, is the business of others.
//!
//! Firecracker's field `<field>` of group `<group>` is `mvm_firecracker_<group>_<field>{vm}`. The group of one device,
//! `block_rootfs`, is the family `mvm_firecracker_block_…` with the label `device="rootfs"`; the group of all such
//! devices together, `block`, is then left out, so that a sum over a family counts nothing twice.

use super::metrics::{Totals, is_counter};
use super::usage::Usage;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is known of one VM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) id: &'a str,
    pub(crate) state: &'a str,
    pub(crate) totals: Option<&'a Totals>,
    pub(crate) usage: Option<&'a Usage>,
}

/// All series, by family; each is written once.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

struct Family {
    help: String,
    kind: &'static str,
    /// By labels.
    series: BTreeMap<String, String>,
}

/// Groups that a device may have for itself, as `<group>_<device>`.
const DEVICE_GROUPS: [&str; 4] = ["block", "net", "pmem", "vhost_user"];
const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// The text, in the same order for the same samples.
pub(crate) fn text(samples: &[Sample<'_>]) -> String {
    let mut families = Families::default();
    for sample in samples {
        families.add_sample(sample);
    }
    families.text()
}

impl Families {
    fn add_sample(&mut self, sample: &Sample<'_>) {
        let vm = label("vm", sample.id);
        let state = format!("{vm},{}", label("state", sample.state));
        self.add("mvm_vm_state", "The state of the VM, which is the label.", GAUGE, state, "1".to_owned());
        if let Some(usage) = sample.usage {
            self.add_usage(&vm, usage);
        }
        let Some(totals) = sample.totals else { return };
        let help = "Lines of metrics that were read since the VM was made.";
        self.add("mvm_vm_metrics_flushes_total", help, COUNTER, vm.clone(), totals.flushes.to_string());
        let help = "Lines of metrics that could not be read since the VM was made.";
        self.add("mvm_vm_metrics_damaged_total", help, COUNTER, vm.clone(), totals.damaged.to_string());
        for (group, value) in &totals.document {
            self.add_group(&vm, group, value, &totals.document);
        }
    }

    fn add_usage(&mut self, vm: &str, usage: &Usage) {
        for (mode, micros) in [("system", usage.cpu_system_us), ("user", usage.cpu_user_us)] {
            let labels = format!("{vm},{}", label("mode", mode));
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            let help = "CPU time of the VMM's process, its guest included.";
            self.add("mvm_vm_cpu_seconds_total", help, COUNTER, labels, seconds);
        }
        let help = "What the VMM's process has in memory, its guest's included.";
        self.add("mvm_vm_memory_bytes", help, GAUGE, vm.to_owned(), usage.rss_bytes.to_string());
        let help = "Threads of the VMM's process.";
        self.add("mvm_vm_threads", help, GAUGE, vm.to_owned(), usage.threads.to_string());
    }

    fn add_group(&mut self, vm: &str, group: &str, value: &Value, document: &Map<String, Value>) {
        if let Some((general, device)) = device_of(group) {
            let labels = format!("{vm},{}", label("device", device));
            self.add_value(&labels, group, &[general], value);
        } else if !document.keys().any(|other| device_of(other).is_some_and(|(general, _)| general == group))
        {
            self.add_value(vm, group, &[group], value);
        }
    }

    /// Adds a number, or all numbers in an object; what is neither has no series.
    fn add_value(&mut self, labels: &str, group: &str, path: &[&str], value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add_value(labels, group, &[path, &[name]].concat(), value);
                }
            }
            Value::Number(number) => {
                let field = path.last().copied().unwrap_or_default();
                let (kind, since) =
                    if is_counter(group, field) { (COUNTER, " since the VM was made") } else { (GAUGE, "") };
                let path = path.iter().map(|name| valid_name(name)).collect::<Vec<_>>();
                let help = format!("Firecracker's {}{since}.", path.join("."));
                let family = format!("mvm_firecracker_{}", path.join("_"));
                self.add(&family, &help, kind, labels.to_owned(), number.to_string());
            }
            _ => {}
        }
    }

    /// The first one of its name stays: two names of a VMM may have become the same valid one.
    fn add(&mut self, family: &str, help: &str, kind: &'static str, labels: String, value: String) {
        let new = || Family { help: help.to_owned(), kind, series: BTreeMap::new() };
        let family = self.0.entry(family.to_owned()).or_insert_with(new);
        family.series.entry(labels).or_insert(value);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, Family { help, kind, series }) in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in series {
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
        text
    }
}

/// The general group and the device, when the group is one device's. What a vhost-user device is of is a part of its
/// name: `vhost_user_block_rootfs`.
fn device_of(group: &str) -> Option<(&'static str, &str)> {
    let devices = DEVICE_GROUPS.iter().map(|general| (*general, group.strip_prefix(general)));
    devices.filter_map(|(general, rest)| Some((general, rest?.strip_prefix('_')?))).next()
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

/// The name as a part of a metric's: what may not stand there becomes an underscore.
fn valid_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// Name, labels and value.
    type Series = (String, BTreeMap<String, String>, String);

    fn totals(document: Value) -> Totals {
        let Value::Object(document) = document else { panic!("not an object") };
        let mut totals = Totals::default();
        (totals.flushes, totals.damaged, totals.document) = (2, 1, document);
        totals
    }

    fn sample<'a>(id: &'a str, totals: &'a Totals) -> Sample<'a> {
        Sample { id, state: "running", totals: Some(totals), usage: None }
    }

    /// Reads the format, and holds it to its rules: a family stands together and has its two lines first, names are
    /// valid, no series comes twice.
    fn parse(text: &str) -> Vec<Series> {
        let mut families = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut family = String::new();
        let mut all = Vec::new();
        let mut lines = text.split_terminator('\n');
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
                assert!(["counter", "gauge"].contains(&kind), "{kind}");
                continue;
            }
            let series = parse_series(line);
            assert_eq!(series.0, family);
            assert!(seen.insert((series.0.clone(), series.1.clone())), "{line} comes twice");
            all.push(series);
        }
        all
    }

    fn parse_series(line: &str) -> Series {
        let (name, mut rest) = line.split_once('{').unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)), "{name}");
        assert!(!name.starts_with(|c: char| c.is_ascii_digit()), "{name}");
        let mut labels = BTreeMap::new();
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.chars();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => match chars.next().unwrap() {
                        'n' => value.push('\n'),
                        c => value.push(c),
                    },
                    c => value.push(c),
                }
            }
            labels.insert(label.to_owned(), value);
            rest = chars.as_str();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        let value = rest.strip_prefix("} ").unwrap();
        value.parse::<f64>().unwrap();
        (name.to_owned(), labels, value.to_owned())
    }

    #[test]
    fn a_vm_is_told_with_all_that_is_known_of_it() {
        let usage = Usage {
            cpu_user_us: 1_500_000,
            cpu_system_us: 20_000,
            rss_bytes: 4096,
            threads: 3,
            cgroup: None,
        };
        let totals = totals(json!({
            "utc_timestamp_ms": 5, "uart": { "write_count": 7, "word": "x" }, "vcpu": { "exit_agg": { "min_us": 3 } },
        }));
        let sample = Sample { id: "a", state: "running", totals: Some(&totals), usage: Some(&usage) };
        let wanted = "\
# HELP mvm_firecracker_uart_write_count Firecracker's uart.write_count since the VM was made.
# TYPE mvm_firecracker_uart_write_count counter
mvm_firecracker_uart_write_count{vm=\"a\"} 7
# HELP mvm_firecracker_utc_timestamp_ms Firecracker's utc_timestamp_ms.
# TYPE mvm_firecracker_utc_timestamp_ms gauge
mvm_firecracker_utc_timestamp_ms{vm=\"a\"} 5
# HELP mvm_firecracker_vcpu_exit_agg_min_us Firecracker's vcpu.exit_agg.min_us.
# TYPE mvm_firecracker_vcpu_exit_agg_min_us gauge
mvm_firecracker_vcpu_exit_agg_min_us{vm=\"a\"} 3
# HELP mvm_vm_cpu_seconds_total CPU time of the VMM's process, its guest included.
# TYPE mvm_vm_cpu_seconds_total counter
mvm_vm_cpu_seconds_total{vm=\"a\",mode=\"system\"} 0.020000
mvm_vm_cpu_seconds_total{vm=\"a\",mode=\"user\"} 1.500000
# HELP mvm_vm_memory_bytes What the VMM's process has in memory, its guest's included.
# TYPE mvm_vm_memory_bytes gauge
mvm_vm_memory_bytes{vm=\"a\"} 4096
# HELP mvm_vm_metrics_damaged_total Lines of metrics that could not be read since the VM was made.
# TYPE mvm_vm_metrics_damaged_total counter
mvm_vm_metrics_damaged_total{vm=\"a\"} 1
# HELP mvm_vm_metrics_flushes_total Lines of metrics that were read since the VM was made.
# TYPE mvm_vm_metrics_flushes_total counter
mvm_vm_metrics_flushes_total{vm=\"a\"} 2
# HELP mvm_vm_state The state of the VM, which is the label.
# TYPE mvm_vm_state gauge
mvm_vm_state{vm=\"a\",state=\"running\"} 1
# HELP mvm_vm_threads Threads of the VMM's process.
# TYPE mvm_vm_threads gauge
mvm_vm_threads{vm=\"a\"} 3
";
        assert_eq!(text(&[sample]), wanted);
        assert_eq!(parse(wanted).len(), 10);
    }

    #[test]
    fn a_device_is_a_label_and_then_all_devices_together_are_left_out() {
        let with = totals(json!({
            "block": { "read_bytes": 3 }, "block_rootfs": { "read_bytes": 1 }, "block_data_1": { "read_bytes": 2 },
            "net": { "rx_count": 4 }, "vhost_user_block_a": { "init_time_us": 5 },
        }));
        let without = totals(json!({ "block": { "read_bytes": 0 } }));
        let text = text(&[sample("b", &without), sample("a", &with)]);
        let told = text.lines().filter(|line| line.starts_with("mvm_firecracker")).collect::<Vec<_>>();
        let wanted = [
            r#"mvm_firecracker_block_read_bytes{vm="a",device="data_1"} 2"#,
            r#"mvm_firecracker_block_read_bytes{vm="a",device="rootfs"} 1"#,
            r#"mvm_firecracker_block_read_bytes{vm="b"} 0"#,
            r#"mvm_firecracker_net_rx_count{vm="a"} 4"#,
            r#"mvm_firecracker_vhost_user_init_time_us{vm="a",device="block_a"} 5"#,
        ];
        assert_eq!(told, wanted);
        assert!(text.contains("# TYPE mvm_firecracker_vhost_user_init_time_us gauge\n"));
    }

    #[test]
    fn nothing_is_known_of_no_vm() {
        assert_eq!(text(&[]), "");
    }

    proptest! {
        #[test]
        fn whatever_a_vmm_calls_things_the_text_can_be_read(
            id in any::<String>(), group in "(block_|net_)?\\PC{0,9}|[ -~\n]{0,6}", other in "[a_.-]{0,3}",
            field in any::<String>(), number in any::<u64>(), float in -1e300_f64..1e300,
        ) {
            let totals = totals(json!({
                &group: { &field: number }, &other: { "-": 1, "_": 2, ".": 3 }, "x": { "y": float }, "z": [1],
            }));
            let text = text(&[sample(&id, &totals), sample("other", &totals), sample(&id, &totals)]);
            let series = parse(&text);
            prop_assert!(series.iter().all(|(_, labels, _)| labels["vm"] == id || labels["vm"] == "other"));
            prop_assert!(series.iter().any(|(name, ..)| name == "mvm_firecracker_x_y"));
        }
    }
}
