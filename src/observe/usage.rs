//! What a process uses, as the kernel has it under `/proc`.
//!
//! Whose process it is, and that its number has not gone to another one, is for the caller to know.

use crate::sys::procfs::{ProcessStat, TICK};
use std::fs;
use std::io;

/// What a process uses of the machine. Its children's part is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time in user mode, its threads' and, for a VMM, its guest's, in microseconds; the kernel counts in hundredths
    /// of a second.
    pub(crate) cpu_user_us: u64,
    /// The same in the kernel.
    pub(crate) cpu_system_us: u64,
    /// What it has in memory; zero for one that has ended and is not reaped yet.
    pub(crate) rss_bytes: u64,
    /// How many threads it has.
    pub(crate) threads: u64,
}

/// What the process uses now.
///
/// # Errors
/// `NotFound` when there is no such process.
pub(crate) fn usage(pid: i32) -> io::Result<Usage> {
    let stat = ProcessStat::of(pid)?;
    let micros = |ticks: u64| ticks.saturating_mul(u64::try_from(TICK.as_micros()).unwrap_or(u64::MAX));
    Ok(Usage {
        cpu_user_us: micros(stat.user_ticks),
        cpu_system_us: micros(stat.system_ticks),
        rss_bytes: parse_rss(&text_of(pid, "status")?).unwrap_or_default(),
        threads: stat.threads,
    })
}

/// The process's group in the unified hierarchy of control groups, on a machine that has one.
pub(crate) fn cgroup(pid: i32) -> Option<String> {
    // A kernel without control groups has no such file.
    text_of(pid, "cgroup").ok().as_deref().and_then(parse_cgroup)
}

fn text_of(pid: i32, name: &str) -> io::Result<String> {
    // A program may give itself a name that is no text.
    fs::read(format!("/proc/{pid}/{name}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// From `status`, which tells kilobytes, as the size of a page is not the same everywhere.
fn parse_rss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes = line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

fn parse_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_is_told_in_kilobytes() {
        let status = "Name:\ta\nVmPeak:\t  9 kB\nVmRSS:\t    5120 kB\nThreads:\t1\n";
        assert_eq!((parse_rss(status), parse_rss("Name:\tVmRSS: 5 kB\n")), (Some(5120 * 1024), None));
    }

    #[test]
    fn only_the_unified_hierarchy_has_the_group() {
        let both = "12:cpu:/old\n0::/system.slice/a:b\n";
        assert_eq!(parse_cgroup(both).as_deref(), Some("/system.slice/a:b"));
        assert_eq!((parse_cgroup("12:cpu:/old\n"), parse_cgroup("")), (None, None));
    }

    #[test]
    fn a_process_sees_what_it_uses_itself() {
        let own = usage(std::process::id().try_into().unwrap()).unwrap();
        assert!(own.rss_bytes > 100_000 && own.threads >= 1, "{own:?}");
        let group = cgroup(std::process::id().try_into().unwrap());
        assert!(group.is_none_or(|group| group.starts_with('/')));
        assert!(own.cpu_user_us.checked_add(own.cpu_system_us).is_some());
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        assert_eq!(usage(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(usage(-1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>(), fields in "[ -~\n]{0,200}") {
            for text in [&text, &fields, &format!("1 ({fields}) {text}"), &format!("VmRSS:{text}\n0::{text}")] {
                let _ = (parse_rss(text), parse_cgroup(text));
            }
        }
    }
}
