//! Every number that Firecracker counts, under the names that it has there, so that none has to be known before.
//!
//! Its field `<field>` of group `<group>` is `mvm_firecracker_<group>_<field>`, with `_total` when it only grows, and with
//! `_seconds` instead of `_us` and `_ms`. The group of one device, `block_rootfs`, is the family `mvm_firecracker_block_…`
//! with the label `device="rootfs"`; the group of all such devices together, `block`, is then left out, so that a sum over
//! a family counts nothing twice.

use super::super::exposition::{About, Exposition, Kind, Seconds, label};
use super::super::metrics::is_counter;
use crate::sorted::SortedMap;
use serde_json::{Map, Number, Value};

/// The numbers of one VM on their way.
struct Adding<'a> {
    exposition: &'a mut Exposition,
    /// The families and labels that are there: two names of a VMM may have become the same valid one, and the first stays.
    there: SortedMap<String, ()>,
}

/// Groups that a device may have for itself, as `<group>_<device>`.
const DEVICE_GROUPS: [&str; 4] = ["block", "net", "pmem", "vhost_user"];

/// Adds the numbers of the VM with the label `vm`.
pub(super) fn add(exposition: &mut Exposition, vm: &str, document: &Map<String, Value>) {
    let devices = document.keys().filter_map(|group| Some(device_of(group)?.0)).collect::<Vec<_>>();
    let mut adding = Adding { exposition, there: SortedMap::new() };
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
        let count = number.as_u64();
        let is_counter = is_counter(group, field) && count.is_some();
        let mut parts = path.iter().map(|name| valid_name(name)).collect::<Vec<_>>();
        let time = count.and_then(|count| time(count, &mut parts));
        let seconds = if time.is_some() { "_seconds" } else { "" };
        let (kind, total) = if is_counter { (Kind::Counter, "_total") } else { (Kind::Gauge, "") };
        let name = format!("mvm_firecracker_{}{seconds}{total}", parts.join("_"));
        if self.there.insert(format!("{name} {labels}"), ()).is_some() {
            return;
        }
        let path = path.iter().map(|name| valid_name(name)).collect::<Vec<_>>().join(".");
        let help =
            format!("Firecracker's {path}{}.", if is_counter { " since the VM was created" } else { "" });
        let about = About { name: &name, help: &help, kind };
        match time {
            Some(time) => self.exposition.add(about, labels, time),
            None => self.exposition.add(about, labels, number),
        }
    }
}

/// The time that `count` is, when the name has a unit of time, which is taken off it.
fn time(count: u64, parts: &mut [String]) -> Option<Seconds> {
    const MICROSECONDS: [(&str, u64); 2] = [("_us", 1), ("_ms", 1000)];
    // The unit is the field's, or that of the group that it is in: `latencies_us`.
    for part in parts.iter_mut().rev() {
        if let Some((unit, microseconds)) = MICROSECONDS.into_iter().find(|(unit, _)| part.ends_with(unit)) {
            part.truncate(part.len() - unit.len());
            return Some(Seconds(count.saturating_mul(microseconds)));
        }
    }
    None
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
