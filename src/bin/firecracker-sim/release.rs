//! What of snapshots and of the jailer's refusals differs between the releases of Firecracker that the simulator can be
//! asked to pass for. Everything else is as in the newest, whatever release is told.

use std::sync::OnceLock;

/// The release that is told unless another is asked for.
pub(crate) const NEWEST: &str = "1.16.1";

static TOLD: OnceLock<Release> = OnceLock::new();

/// 1.16 and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    minor: u16,
}

/// Whether something is as it is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Old,
    New,
}

/// The version of the data format, and the first release that has it.
const FORMATS: [(Release, &str); 10] = [
    (Release::new(16), "v10.0.0"),
    (Release::new(15), "v9.0.0"),
    (Release::new(13), "v8.0.0"),
    (Release::new(12), "v6.0.0"),
    (Release::new(11), "v5.0.0"),
    (Release::new(10), "v4.0.0"),
    (Release::new(9), "v3.0.0"),
    (Release::new(8), "v2.0.0"),
    (Release::new(7), "v1.0.0"),
    (Release::new(0), "v0.0.0"),
];

/// What the body of a load may hold, in the order in which a refusal names it, and since when.
const LOAD_FIELDS: [(Release, &str); 9] = [
    (Release::new(0), "snapshot_path"),
    (Release::new(0), "mem_file_path"),
    (Release::new(0), "mem_backend"),
    (Release::new(0), "enable_diff_snapshots"),
    (Release::new(13), "track_dirty_pages"),
    (Release::new(0), "resume_vm"),
    (Release::new(12), "network_overrides"),
    (Release::new(16), "vsock_override"),
    (Release::new(16), "clock_realtime"),
];

impl Release {
    const fn new(minor: u16) -> Self {
        Self { minor }
    }

    /// The one that is passed for.
    pub(crate) fn told() -> Self {
        *TOLD.get_or_init(|| Self::of(NEWEST))
    }

    /// From now on this one is.
    pub(crate) fn pass_for(version: &str) {
        let _first_come = TOLD.set(Self::of(version));
    }

    fn of(version: &str) -> Self {
        let minor = version.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse().ok());
        Self::new(minor.unwrap_or(u16::MAX))
    }

    /// The version of the snapshots' data format.
    pub(crate) fn snapshot_format(self) -> &'static str {
        FORMATS.iter().find(|(since, _)| *since <= self).map_or("v0.0.0", |(_, format)| *format)
    }

    /// A handler of page faults is told the size of pages by its right name, and the connection stays open.
    pub(crate) fn handshake(self) -> Manner {
        self.since(12)
    }

    /// A diff without dirty page tracking has what was touched; before, there was none.
    pub(crate) fn untracked_diff(self) -> Manner {
        self.since(13)
    }

    /// The jailer takes a program of any name, and ends with an exit code when it refuses something; before, a name had
    /// to have "firecracker" in it, and every refusal but of arguments was a panic.
    pub(crate) fn jailer(self) -> Manner {
        self.since(13)
    }

    /// The field that this release would not know, in its words.
    pub(crate) fn unknown_load_field(self, body: &str) -> Option<String> {
        let known: Vec<String> = LOAD_FIELDS
            .iter()
            .filter(|(since, _)| *since <= self)
            .map(|(_, field)| format!("`{field}`"))
            .collect();
        let mut later = LOAD_FIELDS.iter().filter(|(since, _)| *since > self);
        later.find_map(|(_, field)| {
            let column = body.find(&format!("\"{field}\""))? + field.len() + 2;
            let known = known.join(", ");
            Some(format!("unknown field `{field}`, expected one of {known} at line 1 column {column}"))
        })
    }

    fn since(self, minor: u16) -> Manner {
        if self >= Self::new(minor) { Manner::New } else { Manner::Old }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_has_its_format() {
        let formats = ["1.16.1", "1.14.0", "1.12.1", "1.8.0", "1.17.0", "2.0.0"];
        let told = formats.map(|version| Release::of(version).snapshot_format());
        assert_eq!(told, ["v10.0.0", "v8.0.0", "v6.0.0", "v2.0.0", "v10.0.0", "v10.0.0"]);
    }

    #[test]
    fn a_field_of_a_later_release_is_unknown_where_it_ends() {
        let body = r#"{"snapshot_path":"s","track_dirty_pages":true}"#;
        let refused = Release::of("1.12.1").unknown_load_field(body).unwrap();
        assert!(refused.starts_with("unknown field `track_dirty_pages`, expected one of `snapshot_path`, "));
        assert!(refused.ends_with("`resume_vm`, `network_overrides` at line 1 column 40"), "{refused}");
        assert_eq!(Release::of("1.13.0").unknown_load_field(body), None);
    }
}
