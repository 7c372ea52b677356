//! Starting a VMM by way of Firecracker's `jailer`, in a mount namespace of its own.
//!
//! The jailer wants a base directory, makes `<base>/<program>/<id>/root` below it, and has that be the VMM's root. It is shown
//! a base directory that exists for it alone, in memory, where the VMM's working directory stands in the place of `root` and
//! the VMM's executable under a name that it accepts. What the VMM was lent is mounted there before. So the host sees
//! no mount and no other directory, and the process that was started becomes the VMM itself.

use super::binary::Binary;
use super::error::Error;
use crate::host::jail::Mount;
use crate::process::{Graft, Isolation, Processes, Rights, Tree};
use crate::sys::directory::Directory;
use crate::sys::file::c_path;
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How a VMM is jailed.
#[derive(Debug)]
pub struct Confinement {
    /// The program `jailer`.
    pub jailer: PathBuf,
    /// The user and the group that the VMM runs as.
    pub user: u32,
    /// Its network namespace, as a file.
    pub netns: Option<PathBuf>,
    /// As the jailer takes them: `no-file=512`.
    pub resource_limits: Vec<String>,
    /// The processes that it sees.
    pub processes: Processes,
    /// What it was lent.
    pub(crate) loans: Vec<Mount>,
}

/// What the jailer calls the VMM's executable, whatever it is called outside.
const PROGRAM: &str = "firecracker";

/// The mounts of a VMM with the id `id` that works in `working_directory`.
///
/// # Errors
/// What could not be prepared.
pub(super) fn isolate(
    confinement: Confinement,
    (id, binary): (&str, &Binary),
    (directory, working_directory): (&Path, &Path),
) -> Result<(Vec<OsString>, Isolation), Error> {
    let base = directory.join("jail");
    let failed = |source| Error::Output { path: base.clone(), source };
    let program = binary.open()?;
    let root = base.join(PROGRAM).join(id).join("root");
    let arguments = arguments(&confinement, id, &base);
    let mut grafts = Vec::with_capacity(confinement.loans.len() + 3);
    let own = |tree, at: &Path, rights| io::Result::Ok(Graft { tree, at: c_path(at)?, rights });
    let prepared = scaffold(&base, id).and_then(|tree| {
        grafts.push(own(tree, &base, Rights::All)?);
        let working = Directory::open(working_directory)?;
        grafts.push(own(Tree::of(working.as_fd())?, &root, Rights::All)?);
        grafts.push(own(Tree::of(program.as_fd())?, &program_below(&base), Rights::Read)?);
        for loan in confinement.loans {
            grafts.push(loan.below(&root)?);
        }
        Ok(())
    });
    prepared.map_err(failed)?;
    Ok((arguments, Isolation { grafts, processes: confinement.processes }))
}

/// The base directory's content, in memory.
fn scaffold(base: &Path, id: &str) -> io::Result<Tree> {
    match DirBuilder::new().mode(0o700).create(base) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let tree = Tree::empty()?;
    let mut directory = Directory::of(&tree)?;
    directory.make_directory(OsStr::new("bin"))?;
    let bin = directory.enter(OsStr::new("bin"))?;
    bin.open_file(OsStr::new(PROGRAM), libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)?;
    for name in [PROGRAM, id, "root"].map(OsStr::new) {
        directory.make_directory(name)?;
        directory = directory.enter(name)?;
    }
    Ok(tree)
}

fn program_below(base: &Path) -> PathBuf {
    base.join("bin").join(PROGRAM)
}

fn arguments(confinement: &Confinement, id: &str, base: &Path) -> Vec<OsString> {
    let user = OsString::from(confinement.user.to_string());
    let program = program_below(base);
    let mut all = Vec::new();
    let mut add = |name: &str, value: &OsStr| all.extend([name.into(), value.to_os_string()]);
    add("--id", OsStr::new(id));
    add("--exec-file", program.as_os_str());
    add("--uid", &user);
    add("--gid", &user);
    add("--chroot-base-dir", base.as_os_str());
    confinement.netns.iter().for_each(|netns| add("--netns", netns.as_os_str()));
    confinement.resource_limits.iter().for_each(|limit| add("--resource-limit", OsStr::new(limit)));
    all.push("--".into());
    all
}
