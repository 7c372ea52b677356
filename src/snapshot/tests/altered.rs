//! What was altered after it was taken is found.

use super::*;
use std::fs::OpenOptions;
use std::time::{Duration, SystemTime};

fn pages() -> Vec<Option<u8>> {
    vec![Some(1), None, Some(2)]
}

/// Changes one byte of the file, which does not change when it seems to have been written.
fn flip(path: &Path, at: u64, by: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ by], at).unwrap();
    file.set_modified(modified).unwrap();
}

fn touch(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

#[test]
fn what_was_not_altered_passes_every_check() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Taken);
    for check in [Check::Cheap, Check::WhenChanged, Check::Always] {
        taken.check(&scratch.store, check, FREELY).unwrap();
    }
    let report = scratch.store.verify(&id("one"), FREELY).unwrap();
    assert_eq!((report["files"].as_array().unwrap().len(), &report["id"]), (3, &json!("one")));
}

#[test]
fn every_truncation_is_found_without_reading() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Omitted);
    for stored in taken.manifest.files() {
        let path = taken.directory.join(&stored.name);
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, whole.len() - 1, whole.len() + 1] {
            File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
            let error = taken.check(&scratch.store, Check::Cheap, FREELY).unwrap_err();
            assert!(
                matches!(&error, Error::Length { expected, found, .. }
                    if (*expected, *found) == (whole.len() as u64, length as u64)),
                "{error}"
            );
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn what_is_missing_or_something_else_is_named() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Omitted);
    let memory = taken.memory_file();
    fs::remove_file(&memory).unwrap();
    let check = || taken.check(&scratch.store, Check::Cheap, FREELY).unwrap_err();
    assert!(matches!(check(), Error::Missing { path } if path == memory));
    std::os::unix::fs::symlink("/dev/zero", &memory).unwrap();
    assert!(matches!(check(), Error::NotPlain { path } if path == memory));
}

#[test]
fn an_altered_state_is_found_even_when_nothing_seems_changed() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Omitted);
    flip(&taken.state_file(), 3, 1);
    let error = taken.check(&scratch.store, Check::WhenChanged, FREELY).unwrap_err();
    assert!(matches!(error, Error::Altered { path, .. } if path == taken.state_file()));
}

#[test]
fn a_file_that_was_written_to_is_read_or_else_refused() {
    let scratch = Scratch::new();
    let known = scratch.take("known", None, &pages(), Checksums::Taken);
    touch(&known.memory_file());
    known.check(&scratch.store, Check::WhenChanged, FREELY).unwrap();
    flip(&known.memory_file(), 0, 1);
    let error = known.check(&scratch.store, Check::WhenChanged, FREELY).unwrap_err();
    assert!(matches!(error, Error::Altered { .. }), "{error}");

    let unknown = scratch.take("unknown", None, &pages(), Checksums::Omitted);
    touch(&unknown.memory_file());
    let error = unknown.check(&scratch.store, Check::WhenChanged, FREELY).unwrap_err();
    assert!(matches!(error, Error::Touched { .. }), "{error}");
    unknown.check(&scratch.store, Check::Cheap, FREELY).unwrap();
}

#[test]
fn without_checksums_nothing_is_called_verified() {
    let scratch = Scratch::new();
    scratch.take("one", None, &pages(), Checksums::Omitted);
    let error = scratch.store.verify(&id("one"), FREELY).unwrap_err();
    assert!(matches!(error, Error::NoChecksum { path } if path.ends_with("memory")));
}

#[test]
fn a_diff_that_was_copied_without_its_holes_is_found() {
    let scratch = Scratch::new();
    scratch.take("base", None, &pages(), Checksums::Taken);
    let diff = scratch.take("diff", Some("base"), &[None, None, Some(3)], Checksums::Taken);
    let content = fs::read(diff.memory_file()).unwrap();
    fs::write(diff.memory_file(), content).unwrap();
    let error = diff.check(&scratch.store, Check::Cheap, FREELY).unwrap_err();
    assert!(matches!(error, Error::Holes { expected: 4096, found: 12_288, .. }), "{error}");
}

#[test]
fn a_directory_with_another_name_is_no_snapshot() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Omitted);
    fs::rename(&taken.directory, taken.directory.with_file_name("two")).unwrap();
    assert!(matches!(scratch.store.find(&id("two")), Err(Error::Content { .. })));
    let (whole, damaged) = scratch.store.list();
    assert_eq!((whole.len(), damaged.len()), (0, 1));
    scratch.store.delete(&id("two"), &[]).unwrap();
}

#[test]
fn every_truncation_of_a_manifest_is_told() {
    let scratch = Scratch::new();
    let taken = scratch.take("one", None, &pages(), Checksums::Omitted);
    let path = taken.directory.join("manifest.json");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = scratch.store.find(&id("one")).unwrap_err();
        assert!(matches!(error, Error::Manifest { .. }), "{length} of {} bytes: {error}", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_flip_of_bits_in_any_file_passes(file in 0_usize..4, at in any::<u64>(), by in 1_u8..=255) {
        let scratch = Scratch::new();
        let taken = scratch.take("one", None, &pages(), Checksums::Taken);
        let names = taken.manifest.files().map(|file| file.name.clone()).chain(["manifest.json".into()]);
        let path = taken.directory.join(names.collect::<Vec<_>>().swap_remove(file));
        flip(&path, at % fs::metadata(&path).unwrap().len(), by);
        let verified = scratch.store.verify(&id("one"), FREELY);
        prop_assert!(verified.is_err(), "{} passed", path.display());
    }
}
