//! A store on a file system without space: a small tmpfs in a mount namespace of a process of its own.

use super::*;
use crate::host::DiskError;
use std::io::{self, Write};
use std::process::Command;

const MOUNT: &str = r#"mount -t tmpfs -o size=1m disk "$1" && cd "$1" || exit 77
exec "$2" --exact snapshot::tests::full_disk::on_a_small_disk --ignored"#;
const NO_MOUNT: i32 = 77;

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let mount_point = std::env::temp_dir().join(format!("mvm-full-{}", std::process::id()));
    fs::create_dir(&mount_point).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]);
    let ended = command.arg(&mount_point).arg(std::env::current_exe().unwrap()).output();
    fs::remove_dir(&mount_point).unwrap();
    match ended {
        Ok(ended) if ended.status.success() => {
            assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
        }
        Ok(ended) if !is_refusal(ended.status.code()) => panic!("{}", String::from_utf8_lossy(&ended.stdout)),
        refused => skipped(&format!("no mount namespace to be had: {refused:?}")),
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
    let here = std::env::current_dir().unwrap();
    let scratch = Scratch::at(here.join("state"));
    scratch.take("base", None, &[Some(1); 60], Checksums::Omitted);
    scratch.take("diff", Some("base"), &[Some(2); 60], Checksums::Omitted);
    let before = scratch.store.list().0;
    fill(&here, 25);

    let error = scratch.store.merge(&id("diff"), FREELY, Checksums::Taken).unwrap_err();
    assert!(matches!(error, Error::Disk(DiskError::NoSpace { .. })), "{error}");
    let unfinished = scratch.store.begin(&id("other")).unwrap();
    let manifest = manifest("other", None, &unfinished);
    for path in [unfinished.state_file(), unfinished.memory_file(), unfinished.disk_file("rootfs")] {
        File::create(path).unwrap();
    }
    fill(&here, 0);
    assert!(matches!(unfinished.finish(manifest, Checksums::Omitted, FREELY), Err(Error::Note { .. })));
    assert_eq!((scratch.store.list().0, scratch.names()), (before, vec!["base".into(), "diff".into()]));

    fs::remove_file(here.join("ballast-25")).unwrap();
    scratch.store.merge(&id("diff"), FREELY, Checksums::Taken).unwrap();
    fill(&here, 0);
    scratch.store.delete(&id("base"), &[]).unwrap();
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
