//! What the options of clones and pools say for each VM: `{id}` and `{n}` in paths and in names of host devices.
//!
//! Only the keys named here are looked at. Anything else, the guest's metadata above all, is the user's data and is
//! passed on as it is.

use crate::firecracker::{ConfigSection, NETWORK_DEVICE_KEY, SECTIONS, VSOCK_KEY};
use serde_json::{Map, Value};
use thiserror::Error;

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placeholders<'a> {
    /// `{id}`: the id of the VM.
    pub(super) id: &'a str,
    /// `{n}`: its number.
    pub(super) number: u64,
}

/// A text that cannot be filled in.
#[derive(Debug, Error)]
#[error(
    "{key}: {found:?} is not a placeholder: \"{{id}}\" and \"{{n}}\" are; write \"{{{{\" and \"}}}}\" for braces"
)]
pub struct PlaceholderError {
    /// Where it stands.
    key: String,
    /// What looks like a placeholder.
    found: String,
}

/// Of the options of a restore: lists of objects, or one object, and their keys that may hold placeholders.
const RESTORE_KEYS: [(&str, &str); 3] =
    [("drives", "path_on_host"), ("network_overrides", NETWORK_DEVICE_KEY), ("vsock_override", VSOCK_KEY)];

/// Of a disk that the library provides: the keys that may hold placeholders.
const DISK_KEYS: [&str; 2] = ["from", "keep"];

impl Placeholders<'_> {
    /// Fills in the options of a restore. The metadata is filled in too when `"mmds_placeholders"` is `"filled_in"`.
    pub(super) fn fill_restore_options(
        self,
        options: &mut Map<String, Value>,
        metadata: Metadata,
    ) -> Result<(), PlaceholderError> {
        for (section, key) in RESTORE_KEYS {
            if let Some(value) = options.get_mut(section) {
                self.fill_key(value, section, key)?;
            }
        }
        match (metadata, options.get_mut("mmds")) {
            (Metadata::FilledIn, Some(document)) => self.fill_all(document, "mmds"),
            _ => Ok(()),
        }
    }

    /// Fills in a spec: every key that names something on the host.
    pub(super) fn fill_spec(self, spec: &mut Map<String, Value>) -> Result<(), PlaceholderError> {
        for section in SECTIONS {
            let Some(value) = spec.get_mut(section.name()) else { continue };
            if section == ConfigSection::CpuConfig && value.is_string() {
                self.fill_text(value, section.name())?;
            }
            for host in section.host_keys() {
                self.fill_key(value, section.name(), host.key)?;
            }
        }
        match spec.get_mut("mvm").and_then(Value::as_object_mut) {
            Some(own) => self.fill_disks(own),
            None => Ok(()),
        }
    }

    /// Fills in what the library's own section says of disks.
    fn fill_disks(self, own: &mut Map<String, Value>) -> Result<(), PlaceholderError> {
        if let Some(rootfs) = own.get_mut("rootfs") {
            DISK_KEYS.iter().try_for_each(|key| self.fill_key(rootfs, "mvm.rootfs", key))?;
        }
        for (id, disk) in own.get_mut("disks").and_then(Value::as_object_mut).into_iter().flatten() {
            DISK_KEYS.iter().try_for_each(|key| self.fill_key(disk, &format!("mvm.disks.{id}"), key))?;
        }
        Ok(())
    }

    /// The value at `key` of an object, or of each object of a list.
    fn fill_key(self, value: &mut Value, section: &str, key: &str) -> Result<(), PlaceholderError> {
        match value {
            Value::Object(object) => match object.get_mut(key) {
                Some(text) => self.fill_text(text, &format!("{section}.{key}")),
                None => Ok(()),
            },
            Value::Array(elements) => {
                let mut numbered = elements.iter_mut().enumerate();
                numbered.try_for_each(|(index, element)| {
                    self.fill_key(element, &format!("{section}[{index}]"), key)
                })
            }
            _ => Ok(()),
        }
    }

    fn fill_all(self, value: &mut Value, key: &str) -> Result<(), PlaceholderError> {
        match value {
            Value::String(_) => self.fill_text(value, key),
            Value::Array(elements) => elements.iter_mut().try_for_each(|element| self.fill_all(element, key)),
            Value::Object(object) => object
                .iter_mut()
                .try_for_each(|(name, element)| self.fill_all(element, &format!("{key}.{name}"))),
            _ => Ok(()),
        }
    }

    fn fill_text(self, value: &mut Value, key: &str) -> Result<(), PlaceholderError> {
        if let Value::String(text) = value {
            let filled = self.filled(text);
            *text = filled.map_err(|found| PlaceholderError { key: key.to_owned(), found })?;
        }
        Ok(())
    }

    /// `text`, filled in; or the brace, and what follows, that makes no sense.
    fn filled(self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let number = self.number.to_string();
            let known = [("{{", "{"), ("}}", "}"), ("{id}", self.id), ("{n}", &number)];
            let Some((placeholder, meant)) =
                known.iter().find(|(placeholder, _)| from.starts_with(placeholder))
            else {
                return Err(from.chars().take(16).collect());
            };
            filled.push_str(meant);
            rest = from.get(placeholder.len()..).unwrap_or_default();
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// Whether placeholders in the guest's metadata are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    /// It is the user's data.
    Kept,
    /// As the user has asked.
    FilledIn,
}

/// The words for it, as `"mmds_placeholders"`.
pub(super) const METADATA_WORDS: [(&str, Metadata); 2] =
    [("kept", Metadata::Kept), ("filled_in", Metadata::FilledIn)];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const WEB_3: Placeholders<'_> = Placeholders { id: "web-3", number: 3 };

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn placeholders_and_braces_are_told_apart() {
        for (text, wanted) in [
            ("/d/{id}.img", "/d/web-3.img"),
            ("tap{n}", "tap3"),
            ("{{n}}", "{n}"),
            ("{{{n}}}", "{3}"),
            ("", ""),
        ] {
            assert_eq!(WEB_3.filled(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in ["{", "}", "{N}", "{ n }", "${host}", "a}b"] {
            assert!(WEB_3.filled(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_path_means_is_not_what_metadata_means() {
        let mmds = json!({ "awk": "{n}", "shell": "${id}", "jinja": "{{id}}" });
        let mut options =
            object(&json!({ "drives": [{ "drive_id": "{n}", "path_on_host": "/d/{n}" }], "mmds": mmds }));
        WEB_3.fill_restore_options(&mut options, Metadata::Kept).unwrap();
        assert_eq!(options["drives"], json!([{ "drive_id": "{n}", "path_on_host": "/d/3" }]));
        assert_eq!(options["mmds"], mmds);
    }

    #[test]
    fn in_a_spec_every_key_that_names_something_on_the_host_is_filled_in() {
        let mut spec = object(&json!({
            "boot-source": { "kernel_image_path": "/k", "boot_args": "{n}" },
            "drives": [{ "drive_id": "a", "path_on_host": "/d/{id}" }],
            "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap{n}" }],
            "vsock": { "uds_path": "/run/{id}.sock" },
        }));
        WEB_3.fill_spec(&mut spec).unwrap();
        assert_eq!(spec["boot-source"]["boot_args"], "{n}");
        assert_eq!(spec["drives"][0]["path_on_host"], "/d/web-3");
        assert_eq!(spec["network-interfaces"][0]["host_dev_name"], "tap3");
        assert_eq!(spec["vsock"]["uds_path"], "/run/web-3.sock");
        let error = WEB_3.fill_spec(&mut object(&json!({ "vsock": { "uds_path": "{name}" } }))).unwrap_err();
        assert!(error.to_string().contains("vsock.uds_path"), "{error}");
    }
}
