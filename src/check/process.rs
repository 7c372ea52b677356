//! What this process may do: its capabilities, its limits, and its place in /proc.

use super::Finding;
use super::Purpose::{Jail, Run};
use super::Status::{Limited, No};
use crate::claims::UID_LEASES;
use crate::json::object;
use crate::sys::{access, procfs, user};
use rustix::process::{Resource, getrlimit};
use std::path::Path;

pub(super) fn look() -> Vec<Finding> {
    vec![proc(), open_files(), file_size(), jail(), leases()]
}

fn jail() -> Finding {
    let (user, missing) = (user::effective_user(), user::missing_capabilities(&user::NEEDED_BY_A_JAIL));
    let text = match missing.is_empty() {
        true => format!("user {user} has all capabilities that a jail needs"),
        false => format!("user {user} lacks {}", missing.join(", ")),
    };
    let finding =
        Finding::yes("capabilities", Jail, text).seeing(object! { "user": user, "missing": missing.clone() });
    match missing.is_empty() {
        true => finding,
        false => finding.but(
            No,
            "run as root, or give the process these capabilities (systemd: AmbientCapabilities=); in a \
             rootless container nothing gives them",
        ),
    }
}

/// Where it is noted which user runs which jailed VMM.
fn leases() -> Finding {
    let place = Path::new(UID_LEASES);
    let existing = place.ancestors().find(|path| path.is_dir()).unwrap_or(place);
    let text = format!("users of jailed VMMs can be leased in {UID_LEASES}");
    match access::may_make_in(existing) {
        Ok(()) => Finding::yes("uid_leases", Jail, text),
        Err(error) => {
            Finding::yes("uid_leases", Jail, format!("{} cannot be written to: {error}", existing.display()))
                .but(No, "run as root, or let the process write there (systemd: ReadWritePaths=/run)")
        }
    }
}

fn proc() -> Finding {
    let own = std::process::id().cast_signed();
    match procfs::own_number() {
        Some(seen) if seen == own => Finding::yes("proc", Run, "/proc is that of this PID namespace"),
        seen => Finding::yes("proc", Run, "/proc is not that of this PID namespace")
            .but(No, "mount this namespace's own: mount -t proc proc /proc")
            .seeing(object! { "pid": own, "seen": seen }),
    }
}

fn open_files() -> Finding {
    /// Two for each VM, and Firecracker inherits the limit.
    const ENOUGH: u64 = 4096;
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let finding = Finding::yes(
        "open_files",
        Run,
        format!("this process may have {soft} open files, and raise that to {hard}"),
    )
    .seeing(object! { "soft": soft, "hard": hard });
    match soft >= ENOUGH {
        true => finding,
        false => finding.but(
            Limited,
            "set RLIMIT_NOFILE (systemd: LimitNOFILE=65536): a VM takes two or three, and its VMM inherits the limit",
        ),
    }
}

fn file_size() -> Finding {
    match getrlimit(Resource::Fsize).current {
        None => Finding::yes("file_size", Run, "files may be of any size"),
        Some(bytes) => Finding::yes("file_size", Run, format!("files may have {bytes} bytes"))
            .but(
                Limited,
                "set RLIMIT_FSIZE to unlimited: the kernel ends a VMM whose disk, log or snapshot reaches it",
            )
            .seeing(object! { "bytes": bytes }),
    }
}
