//! The jailer's arguments, in the order of its `--help`.

use crate::args::{Kind, Parameter, parameter};

pub(super) const PARAMETERS: &[Parameter] = &[
    parameter(
        "cgroup",
        Kind::Many,
        None,
        "Cgroup and value to be set by the jailer. It must follow this format: <cgroup_file>=<value> (e.g \
         cpu.shares=10). This argument can be used multiple times to add multiple cgroups.",
    ),
    parameter("cgroup-version", Kind::Value, Some("1"), "Select the cgroup version used by the jailer."),
    parameter(
        "chroot-base-dir",
        Kind::Value,
        Some("/srv/jailer"),
        "The base folder where chroot jails are located.",
    ),
    parameter(
        "daemonize",
        Kind::Flag,
        None,
        "Daemonize the jailer before exec, by invoking setsid(), and redirecting the standard I/O file \
         descriptors to /dev/null.",
    ),
    parameter("exec-file", Kind::Required, None, "File path to exec into."),
    parameter("gid", Kind::Required, None, "The group identifier the jailer switches to after exec."),
    parameter("help", Kind::Flag, None, "Show the help message."),
    parameter("id", Kind::Required, None, "Jail ID."),
    parameter("netns", Kind::Value, None, "Path to the network namespace this microVM should join."),
    parameter("new-pid-ns", Kind::Flag, None, "Exec into a new PID namespace."),
    parameter(
        "parent-cgroup",
        Kind::Value,
        None,
        "Parent cgroup in which the cgroup of this microvm will be placed.",
    ),
    parameter(
        "resource-limit",
        Kind::Many,
        None,
        "Resource limit values to be set by the jailer. It must follow this format: <resource>=<value> (e.g \
         no-file=1024). This argument can be used multiple times to add multiple resource limits. Current \
         available resource values are:\n\t\tfsize: The maximum size in bytes for files created by the \
         process.\n\t\tno-file: Specifies a value one greater than the maximum file descriptor number that can \
         be opened by this process.",
    ),
    parameter("uid", Kind::Required, None, "The user identifier the jailer switches to after exec."),
    parameter("version", Kind::Flag, None, "Print the binary version number."),
];
