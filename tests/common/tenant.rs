//! Jailed VMs, and an attacker: a process with the user and the root directory of a VMM, and without Firecracker's filter of
//! system calls.

use super::guest::Guest;
use super::{Host, told};
use mvm::Vm;
use mvm::sys::user::{NEEDED_BY_A_JAIL, missing_capabilities};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A host on which jails can be made; a test that needs one says otherwise that it was skipped.
pub fn host() -> Option<Host> {
    may_jail().then(Host::new)
}

/// Whether this process may jail another one, said otherwise.
pub fn may_jail() -> bool {
    let missing = missing_capabilities(&NEEDED_BY_A_JAIL);
    // A container's filter of system calls may forbid what its capabilities allow.
    let unshared = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if missing.is_empty() && unshared.is_ok_and(|status| status.success()) {
        return true;
    }
    eprintln!(
        "skipped: this process may not jail another one (it lacks {missing:?}, or may not make mount namespaces)"
    );
    false
}

pub fn jailed(host: &Host, guest: Guest) -> Value {
    let mut spec = host.spec(guest);
    spec["mvm"]["jail"] = json!({ "jailer": super::jailer() });
    spec
}

/// The same with a disk that nobody but root may open, which the guest writes to.
pub fn jailed_with_disk(host: &Host) -> Value {
    jailed_with_disk_of(host, "disk")
}

/// The same with a disk of the name `disk`.
pub fn jailed_with_disk_of(host: &Host, disk: &str) -> Value {
    let disk = precious(host, disk);
    let mut spec = jailed(host, Guest::Halt);
    spec["drives"] = json!([{ "drive_id": "data", "is_root_device": false, "path_on_host": disk }]);
    spec
}

/// A file of root's.
pub fn precious(host: &Host, name: &str) -> PathBuf {
    let path = host.scratch.path().join(name);
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub fn boot(host: &Host, id: &str, spec: &Value) -> Arc<Vm> {
    let vm = host.runtime.create(id, &spec.to_string()).unwrap_or_else(|error| panic!("{}", told(&error)));
    vm.start().unwrap_or_else(|error| panic!("{}", told(&error)));
    vm
}

pub fn error_of(host: &Host, id: &str, spec: &Value) -> String {
    match host.runtime.create(id, &spec.to_string()) {
        Err(error) => told(&error),
        Ok(vm) => {
            let error = vm.start().unwrap_err();
            host.runtime.destroy(&vm).unwrap();
            told(&error)
        }
    }
}

pub fn user_of(vm: &Vm) -> u32 {
    fs::metadata(format!("/proc/{}", vm.pid().unwrap())).unwrap().uid()
}

/// A shell that is the VMM's user, at `place`, which it could not reach by its path.
pub fn shell(user: u32, place: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    let become_user =
        r#"cd "$1" && exec setpriv --reuid "$2" --regid "$2" --clear-groups --no-new-privs sh -c "$3""#;
    command.args(["-c", become_user, "sh"]).arg(place).arg(user.to_string()).arg(script);
    command
}

/// What the VMM's user does in the VMM's root directory; what could not be done is said, and is no error.
pub fn attack(vm: &Vm, script: &str) -> String {
    let root = PathBuf::from(format!("/proc/{}/root", vm.pid().unwrap()));
    let output = shell(user_of(vm), &root, &format!("exec 2>&1; {script}")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same again and again, until it is dropped.
pub struct Siege(Child);

impl Siege {
    pub fn of(vm: &Vm, script: &str) -> Self {
        let root = PathBuf::from(format!("/proc/{}/root", vm.pid().unwrap()));
        let script = format!("while :; do {script}; done");
        Self::begin(shell(user_of(vm), &root, &script).stderr(Stdio::null()))
    }

    /// In a process group of its own, by which it is ended.
    pub fn begin(command: &mut Command) -> Self {
        Self(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        // What the shell has started goes with it, before anything is looked at.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// All that could be changed of a file or of a directory and what is in it.
pub fn state_of(path: &Path) -> Vec<(PathBuf, u32, u32, u32, u64, Vec<u8>)> {
    let about = path.symlink_metadata().unwrap();
    let mut all = Vec::new();
    let content = if about.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    all.push((path.to_path_buf(), about.uid(), about.gid(), about.mode(), about.nlink(), content));
    if about.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        all.extend(entries.flat_map(|entry| state_of(&entry)));
    }
    all.sort();
    all
}
