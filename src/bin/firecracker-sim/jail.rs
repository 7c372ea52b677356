//! Jailer-style use: the directory that the jailer would make, and the process inside it. Only root can
//! change its root; for anybody else it is the working directory, and the API socket's path is taken as
//! relative to it.

use std::fs;
use std::io;
use std::os::unix::fs::chroot;
use std::path::PathBuf;

use crate::args::ArgumentError;

const MARKS: &[&str] = &["--exec-file", "--uid", "--gid", "--chroot-base-dir"];
const WITH_VALUE: &[&str] = &[
    "--id",
    "--exec-file",
    "--uid",
    "--gid",
    "--chroot-base-dir",
    "--netns",
    "--cgroup",
    "--cgroup-version",
    "--parent-cgroup",
    "--resource-limit",
];
const FLAGS: &[&str] = &["--daemonize", "--new-pid-ns"];

/// What the jailer was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jail {
    id: String,
    root: PathBuf,
    pid_file: String,
    /// What the VMM is to be started with.
    pub(crate) vmm_arguments: Vec<String>,
}

impl Jail {
    /// None when these are no jailer's arguments.
    pub(crate) fn parse(line: &[String]) -> Option<Result<Self, ArgumentError>> {
        let (own, vmm) = match line.iter().position(|argument| argument == "--") {
            Some(index) => (&line[..index], &line[index + 1..]),
            None => (line, &[][..]),
        };
        let is_jailer = own.iter().any(|argument| MARKS.contains(&argument.as_str()));
        is_jailer.then(|| Self::from_arguments(own, vmm))
    }

    /// Makes the directory and goes there; returns whether `/` is now the jail.
    pub(crate) fn enter(&self) -> io::Result<bool> {
        fs::create_dir_all(self.root.join("run"))?;
        std::env::set_current_dir(&self.root)?;
        fs::write(&self.pid_file, std::process::id().to_string())?;
        match chroot(".") {
            Ok(()) => std::env::set_current_dir("/").map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn from_arguments(own: &[String], vmm: &[String]) -> Result<Self, ArgumentError> {
        let mut arguments = own.iter();
        let (mut id, mut exec_file, mut base) = (None, None, "/srv/jailer".to_owned());
        while let Some(argument) = arguments.next() {
            let name = argument.trim_start_matches("--");
            if FLAGS.contains(&argument.as_str()) {
                continue;
            }
            if !WITH_VALUE.contains(&argument.as_str()) {
                return Err(ArgumentError::UnexpectedArgument(name.to_owned()));
            }
            let value = arguments.next().ok_or_else(|| ArgumentError::MissingValue(name.to_owned()))?.clone();
            match name {
                "id" => id = Some(value),
                "exec-file" => exec_file = Some(value),
                "chroot-base-dir" => base = value,
                _ => {}
            }
        }
        let missing = |name: &str| ArgumentError::MissingArgument(name.to_owned());
        let id = id.ok_or_else(|| missing("id"))?;
        let exec_file = PathBuf::from(exec_file.ok_or_else(|| missing("exec-file"))?);
        let name = exec_file.file_name().ok_or_else(|| missing("exec-file"))?;
        let root = PathBuf::from(base).join(name).join(&id).join("root");
        let pid_file = format!("{}.pid", name.to_string_lossy());
        let mut vmm_arguments = vec!["--id".to_owned(), id.clone()];
        vmm_arguments.extend_from_slice(vmm);
        Ok(Self { id, root, pid_file, vmm_arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Result<Jail, ArgumentError>> {
        Jail::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_vmms_arguments_stand_after_two_dashes() {
        let line = "--id a --exec-file /bin/vmm --uid 1 --gid 1 --chroot-base-dir /j -- --api-sock s";
        let jail = parse(line).unwrap().unwrap();
        assert_eq!(jail.vmm_arguments, ["--id", "a", "--api-sock", "s"]);
        assert_eq!(jail.root, PathBuf::from("/j/vmm/a/root"));
    }

    #[test]
    fn a_vmms_own_arguments_are_no_jailers() {
        assert!(parse("--id a --api-sock s").is_none());
        assert!(parse("--api-sock s -- --uid 1").is_none());
    }
}
