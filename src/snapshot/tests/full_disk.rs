//! A store on a file system without space, or with pages too large: a tmpfs in a mount namespace of a process of its
//! own.

use super::*;
use crate::host::DiskError;
use crate::sys::filesystem;
use std::io::{self, Write};
use std::process::Command;

const MOUNT: &str = r#"mount -t tmpfs -o "$3" disk "$1" && cd "$1" || exit 77
exec "$2" --exact "snapshot::tests::full_disk::$4" --ignored"#;
const NO_MOUNT: i32 = 77;

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    run_on("size=1m", "on_a_small_disk");
}

#[test]
fn a_diff_is_refused_where_holes_are_larger_than_pages() {
    run_on("size=64m,huge=always", "on_a_disk_of_huge_pages");
}

/// Runs the test called `name`, which is ignored otherwise, in a new tmpfs.
fn run_on(options: &str, name: &str) {
    let mount_point = std::env::temp_dir().join(format!("mvm-{name}-{}", std::process::id()));
    fs::create_dir(&mount_point).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]);
    command.arg(&mount_point).arg(std::env::current_exe().unwrap()).args([options, name]);
    let ended = command.output();
    fs::remove_dir(&mount_point).unwrap();
    match ended {
        Ok(ended) if ended.status.success() => {
            assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
        }
        Ok(ended) if !is_refusal(ended.status.code()) => {
            panic!("{}", String::from_utf8_lossy(&ended.stdout))
        }
        refused => skipped(&format!("no such disk to be had: {refused:?}")),
    }
}

/// `unshare` answers 1 where namespaces are forbidden; a test that fails answers 101.
fn is_refusal(code: Option<i32>) -> bool {
    matches!(code, Some(1 | 126 | 127 | NO_MOUNT))
}

#[allow(clippy::print_stderr)]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// The disk is the working directory.
#[test]
#[ignore = "run by a_full_disk_leaves_everything_as_it_was, in a namespace of its own"]
fn on_a_small_disk() {
    let Some(here) = disk_of_its_own() else { return };
    let scratch = Scratch::at(here.join("state"));
    scratch.take("base", None, &[Some(1); 60], Checksums::Omitted);
    scratch.take("diff", Some("base"), &[Some(2); 60], Checksums::Omitted);
    let before = scratch.store.list().0;
    fill(&here, 25);

    let error = scratch.store.merge(&id("diff"), FREELY, Some(Checksums::Taken)).unwrap_err();
    assert!(matches!(error, Error::Disk(DiskError::NoRoom { .. })), "{error}");
    let unfinished = scratch.store.begin(&id("other")).unwrap();
    let manifest = manifest("other", None, &unfinished);
    for path in [unfinished.state_file(), unfinished.memory_file(), unfinished.disk_file("disk", "rootfs")] {
        File::create(path).unwrap();
    }
    fill(&here, 0);
    assert!(matches!(unfinished.finish(manifest, Checksums::Omitted, FREELY), Err(Error::Note { .. })));
    assert_eq!((scratch.store.list().0, scratch.names()), (before, vec!["base".into(), "diff".into()]));

    fs::remove_file(here.join("ballast-25")).unwrap();
    scratch.store.merge(&id("diff"), FREELY, Some(Checksums::Taken)).unwrap();
    fill(&here, 0);
    scratch.store.delete(&id("base"), &[]).unwrap();
}

/// The disk is the working directory.
#[test]
#[ignore = "run by a_diff_is_refused_where_holes_are_larger_than_pages, in a namespace of its own"]
fn on_a_disk_of_huge_pages() {
    let Some(here) = disk_of_its_own() else { return };
    let scratch = Scratch::at(here.join("state"));
    let pages = [vec![Some(1)], vec![None; 2000]].concat();
    scratch.take("base", None, &pages, Checksums::Omitted);
    let error = scratch.try_take("diff", Some("base"), &pages, Checksums::Omitted).unwrap_err();
    assert!(matches!(error, Error::HolesUntold { .. }), "{error}");
    assert_eq!(scratch.names(), ["base"]);
}

/// The working directory, if its file system is one that may be filled: whoever runs all ignored tests at once stands on
/// the machine's own.
fn disk_of_its_own() -> Option<PathBuf> {
    const LARGEST: u64 = 64 << 20;
    let here = std::env::current_dir().unwrap();
    let room = filesystem::room(&here).unwrap();
    if room.is_some_and(|room| room <= LARGEST) {
        return Some(here);
    }
    skipped(&format!("{} is no disk to be filled", here.display()));
    None
}

/// Fills the disk, and gives so many pages back.
fn fill(directory: &Path, pages: u64) {
    let mut ballast = File::create(directory.join(format!("ballast-{pages}"))).unwrap();
    let full = loop {
        if let Err(error) = ballast.write_all(&[1; PAGE]) {
            break error;
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let length = ballast.metadata().unwrap().len();
    ballast.set_len(length.saturating_sub(pages * PAGE as u64)).unwrap();
}
