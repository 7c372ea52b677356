//! Sessions and process groups: who a process has started, and has not been told apart since.

use rustix::process::{self, Pid};
use std::io;

/// The numbers of the processes in the session `session`, zombies included, as far as they can be seen.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn members(session: i32) -> io::Result<Vec<i32>> {
    let all = super::procfs::processes()?;
    Ok(all.filter(|pid| session_of(*pid) == Some(session)).collect())
}

/// The session of the process that has the number `pid` now.
pub fn session_of(pid: i32) -> Option<i32> {
    // Not by rustix, which takes the 0 that the kernel's own threads have for impossible.
    // SAFETY: no pointer is passed.
    Some(unsafe { libc::getsid(pid) }).filter(|session| *session > 0)
}

/// Whether a process, be it a zombie, is in the process group `group`. Takes no longer than a system call.
pub fn group_exists(group: i32) -> bool {
    // 1 would mean "everybody".
    let group = if group > 1 { Pid::from_raw(group) } else { None };
    group.is_some_and(|group| process::test_kill_process_group(group).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_in_its_session_and_group() {
        // This process's own session may have been begun outside of its PID namespace, and have no number here.
        let mut leader =
            Command::new("setsid").arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let number = leader.id().cast_signed();
        leader.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        leader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!((session_of(number), group_exists(number)), (Some(number), true));
        assert_eq!(members(number).unwrap(), [number]);
        drop(leader.stdin.take());
        leader.wait().unwrap();
        assert_eq!((session_of(number), group_exists(number)), (None, false));
        assert_eq!((session_of(i32::MAX), group_exists(i32::MAX), group_exists(1)), (None, false, false));
    }
}
