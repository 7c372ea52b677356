//! What a process uses, as the kernel has it under `/proc`.
//!
//! Whose process it is, and that its number has not gone to another one, is for the caller to know.

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
    /// Its group in the unified hierarchy of control groups, on a machine that has one.
    pub(crate) cgroup: Option<String>,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_user_us: u64,
    cpu_system_us: u64,
    threads: u64,
}

/// The kernel tells times in hundredths of a second (`USER_HZ`) on every architecture that Firecracker runs on.
const TICK_US: u64 = 10_000;

/// What the process uses now.
///
/// # Errors
/// `NotFound` when there is no such process.
pub(crate) fn usage(pid: i32) -> io::Result<Usage> {
    let text = |name: &str| -> io::Result<String> {
        // A program may give itself a name that is no text.
        fs::read(format!("/proc/{pid}/{name}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let stat = parse_stat(&text("stat")?).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Usage {
        cpu_user_us: stat.cpu_user_us,
        cpu_system_us: stat.cpu_system_us,
        rss_bytes: parse_rss(&text("status")?).unwrap_or_default(),
        threads: stat.threads,
        // A kernel without control groups has no such file.
        cgroup: text("cgroup").ok().as_deref().and_then(parse_cgroup),
    })
}

/// The program's name, in parentheses, may hold parentheses and spaces of its own; nothing after it does.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    // The first one here is the third of proc_pid_stat(5).
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_user_us: field(14)?.saturating_mul(TICK_US),
        cpu_system_us: field(15)?.saturating_mul(TICK_US),
        threads: field(20)?,
    })
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

    const REST: &str =
        "S 1 2 3 0 -1 4194560 9 8 7 6 250 30 5 4 20 0 3 0 12345 1000000 500 18446744073709551615";

    #[test]
    fn a_program_s_name_cannot_pretend_to_be_fields() {
        let stat = Stat { cpu_user_us: 2_500_000, cpu_system_us: 300_000, threads: 3 };
        for name in ["firecracker", "a b", "a) S 1 2 3 (b", "))) (", "", "9 9\n9 9"] {
            assert_eq!(parse_stat(&format!("77 ({name}) {REST}\n")).as_ref(), Some(&stat), "{name}");
        }
        for text in
            ["", "77 (a", "77 (a)", "77 (a) S 1 2", "77 (a) S 1 2 3 0 -1 4194560 9 8 7 6 x 30 5 4 20 0 3 0"]
        {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

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
        assert!(own.cgroup.is_none_or(|group| group.starts_with('/')));
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
                let _ = (parse_stat(text), parse_rss(text), parse_cgroup(text));
            }
        }
    }
}
