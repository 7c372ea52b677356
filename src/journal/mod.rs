//! What a VM owns on this host: on disk before it exists, struck out after it is gone.
//!
//! A record says what there may be; whether it still is, is found out by those who read it. A journal that is
//! truncated, altered, foreign or of a newer version is an error, and never guessed at.
//!
//! Nothing is synced: after a power loss the record's boot id says that all processes are gone, and that is all
//! there is to know.

pub(crate) mod aside;
mod envelope;
pub(crate) mod owner;
mod state;

pub use envelope::Error;
pub(crate) use envelope::{checksum, read, write};
pub(crate) use state::StateDirectory;
pub use state::StateError;

use crate::claims::Claim;
use crate::json::words;
use crate::process::{ExitStatus, Identity};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The journal of one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The VM's id, which is also its directory's name.
    pub(crate) id: String,
    /// The boot of the machine in which this was written.
    pub(crate) boot: String,
    /// Who owned the VM then.
    pub(crate) owner: Identity,
    pub(crate) stage: Stage,
    pub(crate) on_owner_exit: OnOwnerExit,
    /// How long console and logs may grow; nothing when they may grow for ever.
    pub(crate) console_limit: Option<u64>,
    /// The executable of the VMM.
    pub(crate) firecracker: PathBuf,
    /// How many VMMs it has had, the present one included.
    pub(crate) runs: u64,
    /// The present VMM.
    pub(crate) vmm: Option<VmmRecord>,
    /// How the last VMM ended.
    #[serde(with = "exit")]
    pub(crate) exit: Option<ExitStatus>,
    /// What that made of the VM.
    pub(crate) rest: EndState,
    /// What it was called, while it is being renamed.
    #[serde(default)]
    pub(crate) renamed_from: Option<String>,
    /// What its memory was restored from.
    #[serde(default)]
    pub(crate) restored: Option<RestoredRecord>,
    /// The snapshot that its present VMM has made or loaded last: what has changed since is what a diff holds.
    #[serde(default)]
    pub(crate) last_snapshot: Option<SnapshotRecord>,
    /// Why there is no such snapshot.
    #[serde(default)]
    pub(crate) why_no_parent: WhyNoParent,
    /// Its guest is held only for as long as a snapshot is being made.
    #[serde(default)]
    pub(crate) held_for_snapshot: bool,
    /// The pool that it waits in.
    #[serde(default)]
    pub(crate) pool: Option<PoolRecord>,
    /// What its owner keeps with it.
    #[serde(default)]
    pub(crate) owner_data: String,
}

/// What a VM waits in a pool for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolRecord {
    /// The pool.
    pub(crate) name: String,
    /// The checksum of all that the members of the pool were made of.
    pub(crate) made_of: String,
}

/// One snapshot: its name may be given to another one when it is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotRecord {
    pub(crate) id: String,
    pub(crate) created_unix_ms: u64,
    /// Random: two snapshots may be taken in one millisecond.
    #[serde(default)]
    pub(crate) token: Option<String>,
}

/// Why there is no snapshot that a diff of a VM's present VMM could build upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WhyNoParent {
    /// None was taken yet.
    #[default]
    NoneTaken,
    /// One is being taken, or the last attempt failed: the VMM may have forgotten which pages had changed.
    AttemptFailed,
    /// A request that the library did not make by itself may have taken a snapshot, or changed the memory.
    ForeignRequest,
    /// Memory was plugged in or out.
    MemoryPlugged,
}

words!(WhyNoParent {
    NoneTaken: "none_taken",
    AttemptFailed: "attempt_failed",
    ForeignRequest: "foreign_request",
    MemoryPlugged: "memory_plugged"
});

/// Where a restored VM comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoredRecord {
    pub(crate) snapshot: SnapshotRecord,
    /// What tells this restored VM from every other one of the snapshot.
    pub(crate) generation_id: String,
}

/// The state of a VM that has no VMM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EndState {
    /// It was ended, or powered itself off.
    #[default]
    Stopped,
    /// Its VMM ended otherwise.
    Failed,
}

words!(EndState { Stopped: "stopped", Failed: "failed" });

/// How far a VM has come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its creation is under way; without its owner it is undone.
    Creating,
    /// It is there.
    Present,
}

words!(Stage { Creating: "creating", Present: "present" });

/// What becomes of a VM when its owner is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOwnerExit {
    /// It goes on, and is found by the next owner.
    #[default]
    Keep,
    /// It ends.
    Kill,
}

words!(OnOwnerExit { Keep: "keep", Kill: "kill" });

/// One VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VmmRecord {
    /// The process; nothing as long as it is only about to be started.
    pub(crate) process: Option<Identity>,
    pub(crate) progress: Progress,
    /// Its version.
    pub(crate) version: String,
    /// The version of the snapshots that it makes, if that could be found out.
    #[serde(default)]
    pub(crate) snapshot_version: Option<String>,
    /// What it owns on this host outside of its directory, or may own, in the order of making.
    pub(crate) claims: Vec<Claim>,
    /// What serves its page faults.
    #[serde(default)]
    pub(crate) pager: Option<PagerRecord>,
}

/// What serves the page faults of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PagerRecord {
    /// The process, which is the owner's own when threads of it serve; nothing as long as it is only about to be
    /// started.
    pub(crate) process: Option<Identity>,
}

/// How far a VMM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is being started and configured; without its owner that is undone.
    Starting,
    /// It is configured.
    Ready,
}

words!(Progress { Starting: "starting", Ready: "ready" });

/// The spec that a VM was created with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecRecord {
    /// As it was given; of its disks it names the images that were found, and no templates.
    pub(crate) spec: String,
    /// What its relative paths are relative to.
    pub(crate) base: PathBuf,
    /// Files that the VMM knows by names in the VM's directory and that stand there themselves.
    #[serde(default)]
    pub(crate) own_files: Vec<PathBuf>,
}

/// The directory of the VMs' directories, in a state directory.
pub(crate) const VMS: &str = "vms";

/// The directory of snapshots, in a state directory.
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// The working directory of a VM's VMM, in the VM's directory. It holds what the VMM opens by a name, and nothing that
/// the library relies on: a VMM may belong to its guest.
pub(crate) fn vmm_directory(directory: &Path) -> PathBuf {
    directory.join("vmm")
}

/// The directory of what a jailed VMM is lent: links and files under the VMM's names. The VMM does not see it.
pub(crate) fn lent_directory(directory: &Path) -> PathBuf {
    directory.join("lent")
}

/// The file of a [`Record`] in a VM's directory.
pub(crate) fn journal_file(directory: &Path) -> PathBuf {
    directory.join("journal.json")
}

/// The file of a [`SpecRecord`] in a VM's directory.
pub(crate) fn spec_file(directory: &Path) -> PathBuf {
    directory.join("spec.json")
}

/// An exit status in words that outlive the library's types.
mod exit {
    use crate::process::ExitStatus;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Words {
        Code(i32),
        Signal(i32),
        ReapedByHost,
    }

    #[expect(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(
        exit: &Option<ExitStatus>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let words = exit.map(|exit| match exit {
            ExitStatus::Code(code) => Words::Code(code),
            ExitStatus::Signal(signal) => Words::Signal(signal),
            ExitStatus::ReapedByHost => Words::ReapedByHost,
        });
        words.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ExitStatus>, D::Error> {
        let words = Option::<Words>::deserialize(deserializer)?;
        Ok(words.map(|words| match words {
            Words::Code(code) => ExitStatus::Code(code),
            Words::Signal(signal) => ExitStatus::Signal(signal),
            Words::ReapedByHost => ExitStatus::ReapedByHost,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Cgroup, Making};
    use crate::scratch::Scratch;
    use proptest::prelude::*;
    use serde_json::Value;

    fn cgroup() -> Claim {
        Claim::Cgroup(Cgroup::new("/sys/fs/cgroup/mvm/mvm-0123456789abcdef".into(), Making::default()))
    }

    fn record() -> Record {
        let base = SnapshotRecord {
            id: "base".into(),
            created_unix_ms: 1_764_000_000_000,
            token: Some("7e".into()),
        };
        Record {
            id: "web-1".into(),
            boot: "c0ffee".into(),
            owner: Identity { pid: 17, started: 4711 },
            stage: Stage::Present,
            on_owner_exit: OnOwnerExit::Keep,
            console_limit: Some(1 << 20),
            firecracker: "/usr/bin/firecracker".into(),
            runs: 2,
            vmm: Some(VmmRecord {
                process: Some(Identity { pid: 18, started: 4712 }),
                progress: Progress::Ready,
                version: "1.16.1".into(),
                snapshot_version: Some("10.0.0".into()),
                claims: vec![Claim::socket("api.sock"), cgroup(), link(), uid()],
                pager: Some(PagerRecord { process: Some(Identity { pid: 19, started: 4713 }) }),
            }),
            exit: Some(ExitStatus::Signal(9)),
            rest: EndState::Failed,
            renamed_from: Some("web-0".into()),
            restored: Some(RestoredRecord { snapshot: base.clone(), generation_id: "1-2".into() }),
            last_snapshot: Some(base),
            why_no_parent: WhyNoParent::MemoryPlugged,
            held_for_snapshot: true,
            pool: Some(PoolRecord { name: "warm".into(), made_of: "c0de".into() }),
            owner_data: "tenant \"7\"\n".into(),
        }
    }

    fn link() -> Claim {
        Claim::link(Path::new("/run/v.sock"), Path::new("vsock.sock"))
    }

    fn uid() -> Claim {
        serde_json::from_str(r#"{"uid":{"number":1879048192,"token":"7e"}}"#).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let path = Scratch::new();
        write(&path, &record()).unwrap();
        assert_eq!(read::<Record>(&path).unwrap(), record());
    }

    #[test]
    fn every_truncation_is_told() {
        let path = Scratch::new();
        write(&path, &record()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read::<Record>(&path).is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn a_newer_or_foreign_file_says_so() {
        let path = Scratch::new();
        for (text, told) in [
            ("mvm-journal 4 0123456789abcdef\n{}\n", "use a newer library"),
            ("mvm-journal 3 0123456789abcdef\n{}\n", "checksum"),
            ("mvm-journal 1 0123456789abcdef\n{}\n", "use the library that wrote it"),
            ("{}\n", "not a journal"),
            ("", "empty"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read::<Record>(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    /// Every key of `value` and of what is in it, as a path.
    fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                found.push(format!("{path}{key}"));
                keys(value, &format!("{path}{key}."), found);
            }),
            Value::Array(list) => list.iter().for_each(|value| keys(value, path, found)),
            _ => {}
        }
    }

    #[test]
    fn a_key_that_comes_or_goes_moves_the_version() {
        let mut found = Vec::new();
        keys(&serde_json::to_value(record()).unwrap(), "", &mut found);
        found.sort();
        let known = include_str!("keys.txt");
        let wanted = format!("version {}\n{}\n", envelope::VERSION, found.join("\n"));
        assert_eq!(
            known, wanted,
            "move VERSION in envelope.rs, give new keys a default, and write this to keys.txt"
        );
    }

    proptest! {
        #[test]
        fn no_flip_of_bits_is_taken_for_a_record(at in 0_usize..2000, flip in 1_u8..=255) {
            let path = Scratch::new();
            write(&path, &record()).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            prop_assert!(read::<Record>(&path).is_err(), "byte {} flipped by {:#x}", at, flip);
        }
    }
}
