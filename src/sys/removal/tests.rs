use super::*;
use crate::sys::deadline::Deadline;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let memory = Some(PathBuf::from("/dev/shm")).filter(|memory| memory.is_dir());
        let parent = memory.unwrap_or_else(std::env::temp_dir);
        let path = parent.join(format!("mvm-removal-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_all(&self.0, Deadline::NEVER).unwrap();
    }
}

/// Directories in each other, each beside a file.
fn nest(top: &Path, levels: usize) {
    fs::create_dir(top).unwrap();
    let mut directory = Directory::open(top).unwrap();
    for _ in 0..levels {
        directory.make_directory("deeper".as_ref()).unwrap();
        let flags = libc::O_CREAT | libc::O_WRONLY;
        drop(directory.open_file("beside".as_ref(), flags).unwrap());
        directory = directory.open_directory("deeper".as_ref()).unwrap();
    }
}

#[test]
fn what_is_deeper_than_any_stack_and_any_limit_of_descriptors_is_removed() {
    let scratch = Scratch::new("deep");
    nest(&scratch.tree(), 20_000);
    let tree = scratch.tree();
    let removal = std::thread::Builder::new().stack_size(64 << 10);
    removal.spawn(move || remove_all(&tree, Deadline::NEVER)).unwrap().join().unwrap().unwrap();
    assert!(!scratch.tree().exists());
}

#[test]
fn what_is_not_removed_in_time_is_removed_by_another_call() {
    let scratch = Scratch::new("slow");
    nest(&scratch.tree(), 2_000);
    let mut calls = 0;
    loop {
        calls += 1;
        match remove_all(&scratch.tree(), Deadline::after(Duration::from_millis(1))) {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        }
    }
    assert!(calls > 1 && !scratch.tree().exists());
}

#[test]
fn a_link_is_removed_and_not_followed() {
    let scratch = Scratch::new("link");
    let kept = scratch.0.join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "mine").unwrap();
    fs::create_dir_all(scratch.tree().join("below")).unwrap();
    symlink(&kept, scratch.tree().join("link")).unwrap();
    symlink(&kept, scratch.tree().join("below/link")).unwrap();
    remove_all(&scratch.tree(), Deadline::NEVER).unwrap();
    symlink(&kept, scratch.tree()).unwrap();
    remove_all(&scratch.tree(), Deadline::NEVER).unwrap();
    assert!(scratch.tree().symlink_metadata().is_err() && kept.join("file").exists());
}

#[test]
fn what_its_owner_may_not_enter_is_removed_all_the_same() {
    let scratch = Scratch::new("closed");
    let below = scratch.tree().join("closed/below");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("file"), "").unwrap();
    for directory in [&below, &scratch.tree().join("closed"), &scratch.tree()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o000)).unwrap();
    }
    remove_all(&scratch.tree(), Deadline::NEVER).unwrap();
    assert!(!scratch.tree().exists());
}

#[test]
fn sockets_fifos_and_strange_names_go_too() {
    let scratch = Scratch::new("kinds");
    fs::create_dir_all(scratch.tree().join("a\nb/ /\u{fffd}")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(scratch.tree().join("socket")).unwrap());
    let fifo = scratch.tree().join("a\nb/fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    (0..1000).for_each(|n| fs::write(scratch.tree().join(format!("a\nb/{n}")), "").unwrap());
    remove_all(&scratch.tree(), Deadline::NEVER).unwrap();
    remove_all(&scratch.tree(), Deadline::NEVER).unwrap();
}

#[test]
fn what_is_to_be_kept_is_kept() {
    let scratch = Scratch::new("kept");
    fs::create_dir_all(scratch.tree().join("more/deeper")).unwrap();
    fs::write(scratch.tree().join("journal"), "").unwrap();
    let directory = Directory::open(&scratch.tree()).unwrap();
    empty(&directory, Some("journal".as_ref()), Deadline::NEVER).unwrap();
    assert_eq!(fs::read_dir(scratch.tree()).unwrap().count(), 1);
}
