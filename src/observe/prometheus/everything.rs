//! Every number that Firecracker counts, under the names that it has there, so that none has to be known before.
//!
//! Its field `<field>` of group `<group>` is `mvm_firecracker_<group>_<field>`, with `_total` when it only grows, and with
//! `_seconds` instead of `_us` and `_ms`. The group of one device, `block_rootfs`, is the family `mvm_firecracker_block_…`
//! with the label `device="rootfs"`; the group of all such devices together, `block`, is then left out, so that a sum over
//! a family counts nothing twice.

use super::super::exposition::{About, Exposition, Kind, label};
use super::super::metrics::is_counter;
use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;

/// The numbers of one VM on their way.
struct Adding<'a> {
    exposition: &'a mut Exposition,
    /// The families and labels that are there: two names of a VMM may have become the same valid one, and the first stays.
    there: BTreeSet<String>,
}

/// Groups that a device may have for itself, as `<group>_<device>`.
const DEVICE_GROUPS: [&str; 4] = ["block", "net", "pmem", "vhost_user"];

/// Adds the numbers of the VM with the label `vm`.
pub(super) fn add(exposition: &mut Exposition, vm: &str, document: &Map<String, Value>) {
    let devices = document.keys().filter_map(|group| Some(device_of(group)?.0)).collect::<Vec<_>>();
    let mut adding = Adding { exposition, there: BTreeSet::new() };
    for (group, value) in document {
        if let Some((general, device)) = device_of(group) {
            adding.add_value(&format!("{vm},{}", label("device", device)), group, &[general], value);
        } else if !devices.contains(&group.as_str()) {
            adding.add_value(vm, group, &[group], value);
        }
    }
}

impl Adding<'_> {
    /// Adds a number, or all numbers in an object; what is neither has no sample.
    fn add_value(&mut self, labels: &str, group: &str, path: &[&str], value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.add_value(labels, group, &[path, &[name]].concat(), value);
                }
            }
            Value::Number(number) => self.add_number(labels, group, path, number),
            _ => {}
        }
    }

    fn add_number(&mut self, labels: &str, group: &str, path: &[&str], number: &Number) {
        let field = path.last().copied().unwrap_or_default();
        let is_counter = is_counter(group, field) && number.is_u64();
        let parts = path.iter().map(|name| valid_name(name)).collect::<Vec<_>>();
        let (per_second, parts) = in_seconds(parts);
        let seconds = if per_second.is_some() { "_seconds" } else { "" };
        let (kind, total) = if is_counter { (Kind::Counter, "_total") } else { (Kind::Gauge, "") };
        let name = format!("mvm_firecracker_{}{seconds}{total}", parts.join("_"));
        if !self.there.insert(format!("{name} {labels}")) {
            return;
        }
        let path = path.iter().map(|name| valid_name(name)).collect::<Vec<_>>().join(".");
        let help =
            format!("Firecracker's {path}{}.", if is_counter { " since the VM was created" } else { "" });
        let about = About { name: &name, help: &help, kind };
        match (per_second, number.as_f64()) {
            (Some(per_second), Some(number)) => self.exposition.add(about, labels, number / per_second),
            _ => self.exposition.add(about, labels, number),
        }
    }
}

/// How many of its units make a second, when it is a time, and the name without the unit.
fn in_seconds(mut parts: Vec<String>) -> (Option<f64>, Vec<String>) {
    const UNITS: [(&str, f64); 2] = [("_us", 1e6), ("_ms", 1e3)];
    // The unit is the field's, or that of the group that it is in: `latencies_us`.
    for part in parts.iter_mut().rev() {
        if let Some((unit, per_second)) = UNITS.into_iter().find(|(unit, _)| part.ends_with(unit)) {
            part.truncate(part.len() - unit.len());
            return (Some(per_second), parts);
        }
    }
    (None, parts)
}

/// The general group and the device, when the group is one device's. What a vhost-user device is of is a part of its
/// name: `vhost_user_block_rootfs`.
fn device_of(group: &str) -> Option<(&'static str, &str)> {
    let devices = DEVICE_GROUPS.iter().map(|general| (*general, group.strip_prefix(general)));
    devices.filter_map(|(general, rest)| Some((general, rest?.strip_prefix('_')?))).next()
}

/// The name as a part of a metric's: what may not stand there becomes an underscore.
fn valid_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
