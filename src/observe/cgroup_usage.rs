//! What cgroups count, as the kernel has it in their files, of either version.
//!
//! Whose cgroups they are is for the caller to know. What no file tells is nothing.

use crate::json::object;
use crate::sys::cgroup;
use serde_json::Value;
use std::path::Path;

/// What is used in some cgroups that hold the same processes, one of each hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupUsage {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_peak_bytes: Option<u64>,
    pub(crate) memory_limit_bytes: Option<u64>,
    pub(crate) swap_bytes: Option<u64>,
    /// Processes that were killed because the memory was used up.
    pub(crate) oom_kills: Option<u64>,
    pub(crate) cpu_us: Option<u64>,
    /// Time in which threads would have run, and had used up the quota.
    pub(crate) cpu_throttled_us: Option<u64>,
    /// Periods of the quota in which that happened.
    pub(crate) cpu_throttled_periods: Option<u64>,
    /// Processes and threads.
    pub(crate) pids: Option<u64>,
    pub(crate) io: Option<IoUsage>,
}

/// What was read from disks and written to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IoUsage {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

impl CgroupUsage {
    /// What is used in `cgroups` now; nothing when none of them is there.
    pub(crate) fn of(cgroups: &[&Path]) -> Option<Self> {
        let present = cgroups.iter().copied().filter(|path| path.exists()).collect::<Vec<_>>();
        let files = Files(&present);
        (!present.is_empty()).then(|| Self {
            memory_bytes: files.number("memory.current").or_else(|| files.number("memory.usage_in_bytes")),
            memory_peak_bytes: files
                .number("memory.peak")
                .or_else(|| files.number("memory.max_usage_in_bytes")),
            memory_limit_bytes: files
                .number("memory.max")
                .or_else(|| files.number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT)),
            swap_bytes: files.number("memory.swap.current").or_else(|| files.field("memory.stat", "swap")),
            oom_kills: files.oom_kills(),
            cpu_us: files
                .field("cpu.stat", "usage_usec")
                .or_else(|| files.number("cpuacct.usage").map(|nanos| nanos / 1000)),
            cpu_throttled_us: files
                .field("cpu.stat", "throttled_usec")
                .or_else(|| files.field("cpu.stat", "throttled_time").map(|nanos| nanos / 1000)),
            cpu_throttled_periods: files.field("cpu.stat", "nr_throttled"),
            pids: files.number("pids.current"),
            io: files.io(),
        })
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        object! {
            "memory_bytes": self.memory_bytes,
            "memory_peak_bytes": self.memory_peak_bytes,
            "memory_limit_bytes": self.memory_limit_bytes,
            "swap_bytes": self.swap_bytes,
            "oom_kills": self.oom_kills,
            "cpu_us": self.cpu_us,
            "cpu_throttled_us": self.cpu_throttled_us,
            "cpu_throttled_periods": self.cpu_throttled_periods,
            "pids": self.pids,
            "io": self.io.map(|io| object! {
                "read_bytes": io.read_bytes,
                "written_bytes": io.written_bytes,
                "reads": io.reads,
                "writes": io.writes,
            }),
        }
    }
}

/// How many processes were killed because the memory of `cgroups` was used up.
pub(crate) fn oom_kills(cgroups: &[&Path]) -> u64 {
    Files(cgroups).oom_kills().unwrap_or_default()
}

/// How many threads and processes were not started because of the limit of `cgroups`.
pub(crate) fn refused_threads(cgroups: &[&Path]) -> u64 {
    Files(cgroups).field("pids.events", "max").unwrap_or_default()
}

/// Version 1 writes a number of that size where there is no limit.
const NO_LIMIT: u64 = 1 << 62;

/// The files of all of them.
struct Files<'a>(&'a [&'a Path]);

impl Files<'_> {
    fn find<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|path| parse(&cgroup::read(path, name).ok()?))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.find(name, |text| text.parse().ok())
    }

    fn field(&self, name: &str, field: &str) -> Option<u64> {
        self.find(name, |text| parse_field(text, field))
    }

    fn oom_kills(&self) -> Option<u64> {
        ["memory.events", "memory.oom_control"].iter().find_map(|name| self.field(name, "oom_kill"))
    }

    fn io(&self) -> Option<IoUsage> {
        self.find("io.stat", |text| Some(parse_io(text))).or_else(|| {
            let (bytes, operations) = ("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced");
            let sum = |name, word: &str| self.find(name, |text| Some(parse_blkio(text, word)));
            Some(IoUsage {
                read_bytes: sum(bytes, "Read")?,
                written_bytes: sum(bytes, "Write")?,
                reads: sum(operations, "Read")?,
                writes: sum(operations, "Write")?,
            })
        })
    }
}

/// Of `name value` lines.
fn parse_field(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '));
    value?.trim().parse().ok()
}

/// Of lines `8:0 rbytes=1 wbytes=2 …`, one for each device.
fn parse_io(text: &str) -> IoUsage {
    let sum = |name: &str| {
        let values = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.parse().ok());
        values.fold(0, u64::saturating_add)
    };
    IoUsage {
        read_bytes: sum("rbytes="),
        written_bytes: sum("wbytes="),
        reads: sum("rios="),
        writes: sum("wios="),
    }
}

/// Of lines `8:0 Read 1`, some for each device.
fn parse_blkio(text: &str, word: &str) -> u64 {
    let value = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next() == Some(word)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(value).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::fs;

    fn files(scratch: &Scratch, files: &[(&str, &str)]) {
        fs::create_dir_all(scratch).unwrap();
        files.iter().for_each(|(name, text)| fs::write(scratch.join(name), text).unwrap());
    }

    #[test]
    fn both_versions_tell_the_same_things() {
        let [new, memory, cpu, blkio] = std::array::from_fn(|_| Scratch::new());
        files(
            &new,
            &[
                ("memory.current", "4096\n"),
                ("memory.peak", "8192\n"),
                ("memory.max", "16384\n"),
                ("memory.swap.current", "0\n"),
                ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"),
                (
                    "cpu.stat",
                    "usage_usec 700\nuser_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 50\n",
                ),
                ("pids.current", "5\n"),
                (
                    "io.stat",
                    "8:0 rbytes=1 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=0 rios=1 wios=0\n",
                ),
            ],
        );
        files(
            &memory,
            &[
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.max_usage_in_bytes", "8192\n"),
                ("memory.limit_in_bytes", "16384\n"),
                ("memory.stat", "cache 1\nswap 0\ntotal_swap 7\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
                ("pids.current", "5\n"),
            ],
        );
        files(
            &cpu,
            &[
                ("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 50000\n"),
                ("cpuacct.usage", "700000\n"),
            ],
        );
        files(
            &blkio,
            &[
                (
                    "blkio.throttle.io_service_bytes",
                    "8:0 Read 1\n8:0 Write 20\n8:16 Read 10\n8:16 Total 10\nTotal 31\n",
                ),
                ("blkio.throttle.io_serviced", "8:0 Read 3\n8:0 Write 4\n8:16 Read 1\nTotal 8\n"),
            ],
        );
        let of_version_2 = CgroupUsage::of(&[&new]).unwrap();
        assert_eq!((of_version_2.memory_bytes, of_version_2.oom_kills), (Some(4096), Some(1)));
        let io = IoUsage { read_bytes: 11, written_bytes: 20, reads: 4, writes: 4 };
        assert_eq!((of_version_2.cpu_throttled_us, of_version_2.io), (Some(50), Some(io)));
        assert_eq!(CgroupUsage::of(&[&memory, &cpu, &blkio]).unwrap(), of_version_2);
        assert_eq!(oom_kills(&[&cpu, &memory]), 1);
    }

    #[test]
    fn what_is_not_limited_or_not_there_is_nothing() {
        let scratch = Scratch::new();
        files(&scratch, &[("memory.max", "max\n"), ("memory.limit_in_bytes", "9223372036854771712\n")]);
        let nothing = CgroupUsage::default();
        assert_eq!(CgroupUsage::of(&[&scratch, Path::new("/nowhere")]), Some(nothing));
        assert_eq!(CgroupUsage::of(&[Path::new("/nowhere")]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".*", lines in "[a-z0-9:= \n]{0,200}") {
            for text in [&text, &lines] {
                let _any = (parse_io(text), parse_blkio(text, "Read"), parse_field(text, "swap"));
            }
        }
    }
}
