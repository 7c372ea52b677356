use super::*;
use crate::sys::deadline::Deadline;
use crate::sys::eventfd::EventFd;
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const FREELY: Limits<'_> = Limits { deadline: Deadline::NEVER, interrupt: None };

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mvm-disk-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A file with a page of data wherever `pages` has one, and holes elsewhere.
    fn file(&self, name: &str, pages: &[Option<u8>]) -> PathBuf {
        let path = self.0.join(name);
        let file = File::create_new(&path).unwrap();
        file.set_len((pages.len() * PAGE) as u64).unwrap();
        for (at, byte) in pages.iter().enumerate().filter_map(|(at, page)| Some((at, (*page)?))) {
            file.write_all_at(&[byte; PAGE], (at * PAGE) as u64).unwrap();
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn pages() -> impl Strategy<Value = Vec<Option<u8>>> {
    proptest::collection::vec(proptest::option::of(any::<u8>()), 40)
}

fn content(pages: &[Option<u8>]) -> Vec<u8> {
    pages.iter().flat_map(|page| [page.unwrap_or_default(); PAGE]).collect()
}

#[test]
fn a_copy_is_a_new_file_of_its_owner_alone_with_the_same_holes() {
    let scratch = Scratch::new();
    let (from, to) =
        (scratch.file("from", &[None, Some(1), None, None, Some(2), None]), scratch.0.join("to"));
    let copied = copy(&from, &to, FREELY).unwrap();
    assert_eq!((copied.bytes, fs::read(&to).unwrap()), (6 * 4096, fs::read(&from).unwrap()));
    let (original, duplicate) = (File::open(&from).unwrap(), File::open(&to).unwrap());
    assert_eq!(sparse::data_extents(&duplicate).unwrap(), sparse::data_extents(&original).unwrap());
    let about = duplicate.metadata().unwrap();
    assert_eq!((about.mode() & 0o7777, about.nlink()), (0o600, 1));
    assert_ne!(about.ino(), original.metadata().unwrap().ino());
}

#[test]
fn a_copy_to_another_file_system_is_the_same() {
    let scratch = Scratch::new();
    let other = PathBuf::from(format!("/dev/shm/mvm-disk-{}", std::process::id()));
    let from = scratch.file("from", &[None, Some(1), None, Some(2)]);
    assert_eq!(copy(&from, &other, FREELY).unwrap().how, How::Sparse);
    assert_eq!(fs::read(&other).unwrap(), fs::read(&from).unwrap());
    fs::remove_file(other).unwrap();
}

#[test]
fn what_is_there_is_never_overwritten_nor_removed() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("from", &[Some(1)]), scratch.file("to", &[Some(2)]));
    let error = copy(&from, &to, FREELY).unwrap_err();
    assert!(matches!(&error, DiskError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
    assert_eq!(fs::read(&to).unwrap(), [2; PAGE]);
}

#[test]
fn only_plain_files_are_copied() {
    let scratch = Scratch::new();
    let (file, link) = (scratch.file("file", &[Some(1)]), scratch.0.join("link"));
    symlink(&file, &link).unwrap();
    for (from, to, advice) in [
        (link.as_path(), scratch.0.join("new"), "name the file itself"),
        (Path::new("/dev/null"), scratch.0.join("new"), "not a regular file"),
        (scratch.0.as_path(), scratch.0.join("new"), "not a regular file"),
        (file.as_path(), link.clone(), "name the file itself"),
    ] {
        let error = copy(from, &to, FREELY).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains(to.to_str().unwrap()), "{error}");
    }
    assert!(!scratch.0.join("new").exists());
}

#[test]
#[allow(clippy::print_stderr)]
fn a_block_device_is_refused_with_advice() {
    let mut entries = fs::read_dir("/dev").unwrap().flatten();
    let Some(device) = entries.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()))
    else {
        return;
    };
    let scratch = Scratch::new();
    let error = copy(&device.path(), &scratch.0.join("new"), FREELY).unwrap_err().to_string();
    assert!(error.contains("LVM"), "{error}");
}

#[test]
fn a_call_that_is_to_end_leaves_no_copy() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("from", &[Some(1), None, Some(2)]), scratch.0.join("to"));
    let flag = EventFd::new().unwrap();
    flag.raise();
    let interrupted = Limits { interrupt: Some(&flag), ..FREELY };
    assert!(matches!(copy(&from, &to, interrupted), Err(DiskError::Interrupted { .. })));
    assert!(matches!(apply(&from, &from, interrupted), Err(DiskError::Interrupted { .. })));
    assert!(matches!(sha256(&from, interrupted), Err(DiskError::Interrupted { .. })));
    let late = Limits { deadline: Deadline::after(Duration::ZERO), ..FREELY };
    assert!(matches!(copy(&from, &to, late), Err(DiskError::TimeIsUp { .. })));
    assert!(!to.exists());
}

#[test]
fn a_long_copy_is_interrupted_in_its_middle() {
    let scratch = Scratch::new();
    // On another file system, where no blocks can be shared.
    let to = PathBuf::from(format!("/dev/shm/mvm-disk-long-{}", std::process::id()));
    // Data and holes by turns, so that it takes many steps; more of them when a fast machine was done too soon.
    for round in 0..6 {
        let from = scratch.file("from", &[Some(7), None].repeat(4000 << round));
        let flag = EventFd::new().unwrap();
        let copied = std::thread::scope(|scope| {
            scope.spawn(|| {
                let give_up = Instant::now() + Duration::from_secs(60);
                while fs::metadata(&to).map_or(0, |to| to.blocks()) == 0 && Instant::now() < give_up {
                    std::thread::yield_now();
                }
                flag.raise();
            });
            copy(&from, &to, Limits { interrupt: Some(&flag), ..FREELY })
        });
        fs::remove_file(&from).unwrap();
        match copied {
            Ok(_) => fs::remove_file(&to).unwrap(),
            Err(error) => {
                assert!(matches!(error, DiskError::Interrupted { .. }), "{error}");
                assert!(!to.exists());
                return;
            }
        }
    }
    panic!("no copy was interrupted");
}

#[test]
fn a_copy_shares_blocks_where_the_file_system_can() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.file("from", &[Some(1), None]), scratch.0.join("to"));
    let by_cp = std::process::Command::new("cp")
        .arg("--reflink=always")
        .args([&from, &scratch.0.join("cp")])
        .output();
    let can = by_cp.unwrap().status.success();
    assert_eq!(copy(&from, &to, FREELY).unwrap().how == How::Reflink, can);
}

#[test]
fn a_diff_of_another_length_is_refused() {
    let scratch = Scratch::new();
    let (diff, base) = (scratch.file("diff", &[Some(1)]), scratch.file("base", &[Some(2), None]));
    let error = apply(&diff, &base, FREELY).unwrap_err().to_string();
    assert!(error.contains("4096") && error.contains("8192"), "{error}");
}

#[test]
fn checksums_are_those_of_sha256sum() {
    let scratch = Scratch::new();
    let empty = scratch.file("empty", &[]);
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sha256(&empty, FREELY).unwrap(), of_nothing);
    let sparse = scratch.file("sparse", &[None, Some(1), None, Some(2), None]);
    let theirs = std::process::Command::new("sha256sum").arg(&sparse).output().unwrap().stdout;
    assert_eq!(sha256(&sparse, FREELY).unwrap().as_bytes(), &theirs[..64]);
}

#[test]
fn too_little_room_is_told_where_it_is_certain() {
    let scratch = Scratch::new();
    let path = scratch.0.join("memory");
    check_room(&path, 1).unwrap();
    match check_room(&path, u64::MAX) {
        Err(DiskError::NoRoom { bytes: u64::MAX, .. }) => {
            assert!(filesystem::room(&scratch.0).unwrap().is_some());
        }
        checked => assert!(checked.is_ok() && filesystem::room(&scratch.0).unwrap().is_none()),
    }
}

#[test]
fn a_sync_hears_of_its_limits() {
    let scratch = Scratch::new();
    let path = scratch.file("file", &[Some(1), None, Some(2)]);
    let file = File::open(&path).unwrap();
    sync(&file, &path, FREELY).unwrap();
    let over = Limits { deadline: Deadline::after(Duration::ZERO), interrupt: None };
    let error = sync(&file, &path, over).unwrap_err();
    assert!(matches!(error, DiskError::TimeIsUp { task: Task::Sync { .. } }), "{error}");
}

#[test]
fn this_file_system_tells_its_holes() {
    let scratch = Scratch::new();
    assert!(tells_holes(&scratch.0).unwrap());
    assert!(fs::read_dir(&scratch.0).unwrap().next().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_holes_there_are_a_copy_is_the_same(pages in pages()) {
        let scratch = Scratch::new();
        let (from, to) = (scratch.file("from", &pages), scratch.0.join("to"));
        copy(&from, &to, FREELY).unwrap();
        prop_assert_eq!(fs::read(&to).unwrap(), content(&pages));
        prop_assert_eq!(sha256(&to, FREELY).unwrap(), hexadecimal(&Hash::hash(&content(&pages))));
    }

    #[test]
    fn diffs_one_after_another_make_what_the_last_writer_wrote(base in pages(), diffs in proptest::collection::vec(pages(), 0..4)) {
        let scratch = Scratch::new();
        let onto = scratch.file("base", &base);
        let mut model = base;
        for (number, diff) in diffs.iter().enumerate() {
            apply(&scratch.file(&number.to_string(), diff), &onto, FREELY).unwrap();
            model = model.iter().zip(diff).map(|(old, new)| new.or(*old)).collect();
        }
        prop_assert_eq!(fs::read(&onto).unwrap(), content(&model));
    }
}

/// Makes a disk from an image that `meddle` changes as soon as the first of it was copied.
fn made_while(meddle: impl Fn(&Path) + Sync) -> Option<DiskError> {
    let scratch = Scratch::new();
    let to = PathBuf::from(format!("/dev/shm/mvm-image-{}", scratch.0.file_name().unwrap().display()));
    for round in 0..6 {
        let from = scratch.file("image", &[Some(7), None].repeat(4000 << round));
        let made = std::thread::scope(|scope| {
            scope.spawn(|| {
                let give_up = Instant::now() + Duration::from_secs(60);
                while fs::metadata(&to).map_or(0, |to| to.blocks()) == 0 && Instant::now() < give_up {
                    std::thread::yield_now();
                }
                meddle(&from);
            });
            make((&from, &to), &Finish::default(), &Tools::default(), FREELY)
        });
        fs::remove_file(&from).unwrap();
        match made {
            // It was done before.
            Ok(_) => fs::remove_file(&to).unwrap(),
            Err(error) => {
                assert!(!to.exists());
                return Some(error);
            }
        }
    }
    None
}

#[test]
fn an_image_that_changes_while_it_is_copied_is_noticed() {
    let overwritten = made_while(|image| {
        File::options().write(true).open(image).unwrap().write_all_at(b"other", 0).unwrap();
    });
    let replaced = made_while(|image| {
        let other = image.with_file_name("other");
        fs::write(&other, "another").unwrap();
        fs::rename(&other, image).unwrap();
    });
    let removed = made_while(|image| {
        let away = image.with_file_name("away");
        fs::rename(image, &away).unwrap();
        fs::write(image, "another").unwrap();
    });
    let shortened =
        made_while(|image| File::options().write(true).open(image).unwrap().set_len(4096).unwrap());
    for error in [overwritten, replaced, removed, shortened] {
        assert!(matches!(error, Some(DiskError::Changed { .. })), "{error:?}");
    }
}
