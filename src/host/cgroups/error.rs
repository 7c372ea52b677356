//! Why a VM cannot have the cgroups that its limits need.

use std::fmt;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// What is missing for the cgroups of a VM.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The kernel does not say what there is.
    #[error("cannot find out which cgroups this machine has")]
    Unknown(#[source] io::Error),
    /// There are none that may be used.
    #[error(
        "mvm.limits needs cgroups, and this process may make none: mount them at /sys/fs/cgroup, or set \"cgroup_parent\" to \
         one that belongs to this user"
    )]
    None,
    /// Controllers that are in no hierarchy.
    #[error(
        "mvm.limits ({}) needs the cgroup controller {}, which this machine does not have, neither in {} nor as a hierarchy of \
         version 1: remove the limit, or have the kernel provide the controller (a kernel is started without some by \
         cgroup_disable= or cgroup_no_v1=)",
        List(keys), Quoted(controllers), Root(root.as_ref())
    )]
    Missing {
        /// What needs them.
        keys: Vec<&'static str>,
        /// Their names in version 2.
        controllers: Vec<&'static str>,
        /// The unified hierarchy, if there is one.
        root: Option<PathBuf>,
    },
    /// Controllers that a parent does not have.
    #[error(
        "mvm.limits needs the cgroup controller {} in {}, and the cgroup above does not hand it down: write \"{}\" to {}, or set \
         \"cgroup_parent\" to a cgroup that has it (in a systemd unit: Delegate=yes)",
        Quoted(controllers), path.display(), Enabled(controllers), above.join("cgroup.subtree_control").display()
    )]
    NotHandedDown {
        /// The parent of VMs' cgroups.
        path: PathBuf,
        /// What is above it.
        above: PathBuf,
        /// What it lacks.
        controllers: Vec<&'static str>,
    },
    /// A parent in which processes are.
    #[error(
        "mvm.limits needs the cgroup controller {} for children of {}, and there are processes in it: cgroup v2 gives \
         controllers only to children of a cgroup without processes; move them to a child of it, or set \"cgroup_parent\" to \
         another cgroup",
        Quoted(controllers), path.display()
    )]
    ProcessesInside {
        /// The parent of VMs' cgroups.
        path: PathBuf,
        /// What its children lack.
        controllers: Vec<&'static str>,
    },
    /// There is not even what the parent would be made in.
    #[error("cgroup_parent: there is no cgroup {}: create it first", path.display())]
    NoParent {
        /// Where.
        path: PathBuf,
    },
    /// A path that is no cgroup's.
    #[error(
        "cgroup_parent: {} is not the path of a cgroup: write it as /proc/self/cgroup does, from the root of its hierarchy, as \
         in \"/vms.slice\"",
        path.display()
    )]
    Parent {
        /// The path.
        path: PathBuf,
    },
    /// A disk whose use is to be limited.
    #[error("mvm.limits.io: cannot tell which disk {} is on", path.display())]
    Device {
        /// What was named.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

struct List<'a>(&'a [&'static str]);
struct Quoted<'a>(&'a [&'static str]);
struct Enabled<'a>(&'a [&'static str]);
struct Root<'a>(Option<&'a PathBuf>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.join("\", \""))
    }
}

impl fmt::Display for Enabled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0.join(" +"))
    }
}

impl fmt::Display for Root<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(root) => write!(f, "{}", root.join("cgroup.controllers").display()),
            None => f.write_str("a unified hierarchy"),
        }
    }
}
