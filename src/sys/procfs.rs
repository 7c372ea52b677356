//! What `/proc` says of processes: when they were born, how they ended, and where they print.

use super::file::identity;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A few fields of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `Z`…
    pub state: char,
    /// When it began, in clock ticks since the boot: with the number and the boot, its identity.
    pub started: u64,
    /// Time that its threads have spent in user mode, in clock ticks; a guest's is in it.
    pub user_ticks: u64,
    /// The same in the kernel.
    pub system_ticks: u64,
    /// How many threads it has.
    pub threads: u64,
    /// It is on its way out, or a zombie: nothing keeps it from ending any more.
    pub is_ending: bool,
    /// How it ended, as `wait(2)` would tell it, for a zombie whose status this process may see.
    pub exit_code: Option<i32>,
}

/// The kernel's mark on a task that is ending.
const PF_EXITING: u64 = 0x4;

/// How long a clock tick is (`USER_HZ`), the same on every architecture that Firecracker runs on.
pub const TICK: Duration = Duration::from_millis(10);

impl ProcessStat {
    /// Asks for the process that has the number `pid` now.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let text = match fs::read(format!("/proc/{pid}/stat")) {
            // It ended between the opening and the reading.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            read => read?,
        };
        let stat = Self::parse(&String::from_utf8_lossy(&text)).ok_or(io::ErrorKind::InvalidData)?;
        let visible = may_see_status(pid);
        Ok(Self { exit_code: stat.exit_code.filter(|_| visible), ..stat })
    }

    /// The program's name, in parentheses, may hold anything, parentheses included.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields = fields.split_ascii_whitespace().collect::<Vec<_>>();
        // By their numbers in proc_pid_stat(5); the first one here is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let count = |number: usize| field(number)?.parse().ok();
        let state = field(3)?.chars().next()?;
        let flags = field(9)?.parse::<u64>().ok()?;
        Some(Self {
            state,
            is_ending: matches!(state, 'Z' | 'X' | 'x') || flags & PF_EXITING != 0,
            started: count(22)?,
            user_ticks: count(14)?,
            system_ticks: count(15)?,
            threads: count(20)?,
            exit_code: field(52).and_then(|code| code.parse().ok()),
        })
    }
}

/// The kernel shows the status to root and to the process's own user, and a plain 0 to everybody else.
fn may_see_status(pid: i32) -> bool {
    let owner = |path: String| fs::metadata(path).map(|about| about.uid());
    let me = owner("/proc/self".to_owned());
    me.is_ok_and(|me| me == 0 || owner(format!("/proc/{pid}")).is_ok_and(|owner| owner == me))
}

/// How much of the memory of the process that has the number `pid` now is in swap, by a walk through its page tables.
/// (The count in `/proc/<pid>/status` is an estimate on many kernels.)
///
/// # Errors
/// When there is no such process, it may not be looked at, or the kernel does not tell.
pub fn swapped_bytes(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    swap_in(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn swap_in(rollup: &str) -> Option<u64> {
    let said = rollup.lines().find_map(|line| line.strip_prefix("Swap:"))?;
    said.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What `/proc` calls this process; nothing where it does not know it.
pub fn own_number() -> Option<i32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// What tells this boot of the machine from every other.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// The numbers of the processes whose standard output is `file`, as far as they can be seen.
///
/// # Errors
/// When `/proc` or the file cannot be looked at.
pub fn printing_to(file: &Path) -> io::Result<Vec<i32>> {
    let wanted = identity(&fs::metadata(file)?);
    Ok(processes()?.filter(|pid| stdout_of(*pid) == Some(wanted)).collect())
}

/// The numbers of all processes that can be seen.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn processes() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether the kernel keeps `signal` from the process that has the number `pid` now: the first one of a PID namespace gets
/// only those that it has a handler for, and those that nobody can refuse.
pub fn is_deaf_to(pid: i32, signal: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| tells_deafness(&status, signal))
}

fn tells_deafness(status: &str, signal: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut numbers = field("NSpid:").unwrap_or_default().split_ascii_whitespace().rev();
    let is_first_of_another_namespace = numbers.next() == Some("1") && numbers.next().is_some();
    let caught = field("SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(u64::MAX);
    is_first_of_another_namespace && caught >> (signal - 1) & 1 == 0
}

/// Whether the standard output of the process that has the number `pid` now is `file`.
pub fn prints_to(pid: i32, file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|about| stdout_of(pid) == Some(identity(&about)))
}

/// Whether the process that has the number `pid` now works in `directory`; nothing when it does not tell, as one that
/// is just ending, or may not be looked at.
pub fn works_in(pid: i32, directory: &Path) -> Option<bool> {
    let there = working_directory(pid)?;
    Some(fs::metadata(directory).is_ok_and(|about| identity(&about) == there))
}

/// What the kernel calls the working directory of the process that has the number `pid` now; one that was deleted says so.
pub fn working_path(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// What the kernel calls the standard output of the process that has the number `pid` now; one that was deleted says so.
pub fn stdout_path(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/1")).ok()
}

/// What the process that has the number `pid` now was started with in its environment as `name`.
pub fn variable_of(pid: i32, name: &str) -> Option<OsString> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsString::from_vec(value.to_vec()))
}

/// Where any of its threads works: the first one may have ended before the others.
fn working_directory(pid: i32) -> Option<(u64, u64)> {
    let first = fs::metadata(format!("/proc/{pid}/cwd"));
    let any = || {
        let mut threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        threads.find_map(|thread| fs::metadata(thread.path().join("cwd")).ok())
    };
    first.ok().or_else(any).as_ref().map(identity)
}

fn stdout_of(pid: i32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/fd/1")).ok().as_ref().map(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_pid_namespace_hears_what_it_has_a_handler_for() {
        let deaf =
            |pids: &str, caught: &str| tells_deafness(&format!("NSpid:\t{pids}\nSigCgt:\t{caught}\n"), 15);
        assert!(deaf("4711\t1", "0000000000000001"));
        for (pids, caught) in [("4711\t1", "0000000000004000"), ("1", "0"), ("4711", "0"), ("4711\t2", "0")] {
            assert!(!deaf(pids, caught), "{pids} {caught}");
        }
        assert!(!tells_deafness("", 15));
    }

    #[test]
    fn what_is_in_swap_is_read_and_nothing_else_is_taken_for_it() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  884 kB\nSwap:  32708 kB\nSwapPss:  5 kB\n";
        assert_eq!(swap_in(rollup), Some(32_708 << 10));
        for text in ["", "Rss: 884 kB\nSwapPss: 5 kB\n", "Swap: many kB\n", "Swap: 5\n"] {
            assert_eq!(swap_in(text), None, "{text}");
        }
        assert!(swapped_bytes(i32::try_from(std::process::id()).unwrap()).is_ok());
    }

    #[test]
    fn a_name_with_parentheses_misleads_nobody() {
        let tail = (4..=52).map(|field| (field * 10).to_string()).collect::<Vec<_>>().join(" ");
        let stat = ProcessStat::parse(&format!("7 (a) Z (b) c) S {tail}\n")).unwrap();
        let (user_ticks, system_ticks, threads) = (140, 150, 200);
        let (started, is_ending, exit_code) = (220, false, Some(520));
        let wanted =
            ProcessStat { state: 'S', started, user_ticks, system_ticks, threads, is_ending, exit_code };
        assert_eq!(stat, wanted);
        for text in ["", "7 (a", "7 (a)", "7 (a) S 1 2 3", "7 (a) S x x x x x x x x x x x x x x x x x x x x"]
        {
            assert_eq!(ProcessStat::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(name in ".*", fields in "[ -~\n]{0,200}") {
            let _any = ProcessStat::parse(&format!("1 ({name}) {fields}"));
        }
    }

    #[test]
    fn this_process_is_known() {
        let me = std::process::id().cast_signed();
        let stdout = Path::new("/proc/self/fd/1");
        assert!(printing_to(stdout).unwrap().contains(&me) && prints_to(me, stdout));
        assert!(!prints_to(me, Path::new("/proc/self/stat")));
        assert_eq!(works_in(me, &std::env::current_dir().unwrap()), Some(true));
        assert_eq!(
            (works_in(me, Path::new("/proc")), works_in(i32::MAX, Path::new("/"))),
            (Some(false), None)
        );
        assert!(ProcessStat::of(me).unwrap().started > 0);
        assert_eq!(ProcessStat::of(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
