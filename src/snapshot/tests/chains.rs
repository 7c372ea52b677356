//! Diffs upon diffs, and what becomes of them when they are merged.

use super::*;
use crate::host::DiskError;
use crate::sys::eventfd::EventFd;

fn pages() -> impl Strategy<Value = Vec<Option<u8>>> {
    proptest::collection::vec(proptest::option::of(any::<u8>()), 24)
}

fn content(pages: &[Option<u8>]) -> Vec<u8> {
    pages.iter().flat_map(|page| [page.unwrap_or_default(); PAGE]).collect()
}

/// `base`, `middle` and `top`, one upon the other.
fn chain() -> Scratch {
    let scratch = Scratch::new();
    scratch.take("base", None, &[Some(1), Some(1), None], Checksums::Omitted);
    scratch.take("middle", Some("base"), &[None, Some(2), None], Checksums::Omitted);
    scratch.take("top", Some("middle"), &[None, None, Some(3)], Checksums::Omitted);
    scratch
}

/// Writes a manifest as nobody should.
fn rewrite(scratch: &Scratch, name: &str, change: impl FnOnce(&mut Manifest)) {
    let Snapshot { directory, mut manifest } = scratch.store.find(&id(name)).unwrap();
    change(&mut manifest);
    crate::journal::write(&directory.join("manifest.json"), &manifest).unwrap();
}

#[test]
fn layers_begin_with_the_full_one() {
    let scratch = chain();
    let top = scratch.store.find(&id("top")).unwrap();
    let memory = |name: &str| scratch.store.directory().join(name).join("memory");
    assert_eq!(top.layers(&scratch.store).unwrap(), [memory("base"), memory("middle"), memory("top")]);
    let info = scratch.store.info(&id("middle")).unwrap();
    assert_eq!((&info["chain"], &info["children"]), (&json!(["base", "middle"]), &json!(["top"])));
}

#[test]
fn a_chain_that_does_not_hold_names_what_is_wrong() {
    let scratch = chain();
    let layers = || scratch.store.find(&id("top")).unwrap().layers(&scratch.store).unwrap_err().to_string();
    rewrite(&scratch, "middle", |manifest| manifest.memory.bytes += 4096);
    assert!(layers().contains("16384"), "{}", layers());
    rewrite(&scratch, "middle", |manifest| {
        manifest.memory.bytes -= 4096;
        manifest.parent = Some("top".into());
    });
    assert!(layers().contains("is its own ancestor"), "{}", layers());
    fs::remove_dir_all(scratch.store.directory().join("middle")).unwrap();
    assert!(layers().contains("needs snapshot middle"), "{}", layers());
    assert!(
        scratch.store.info(&id("top")).unwrap()["problem"].as_str().unwrap().contains("no snapshot middle")
    );
}

#[test]
fn a_diff_costs_no_more_upon_a_long_chain() {
    let scratch = Scratch::new();
    let read = |parent: Option<&str>, name: &str| {
        let before = bytes_read();
        scratch.take(name, parent, &[Some(1)], Checksums::Omitted);
        bytes_read() - before
    };
    read(None, "diff-0");
    let costs = (1..40).map(|number| read(Some(&format!("diff-{}", number - 1)), &format!("diff-{number}")));
    let costs = costs.collect::<Vec<_>>();
    assert!(costs[38] <= 2 * costs[3], "{costs:?}");
    // The same holds for who holds the last one, as a diff upon it does, and for who asks what builds upon one.
    let before = bytes_read();
    drop(scratch.store.hold(&id("diff-38")).unwrap());
    assert!(bytes_read() - before <= 2 * costs[3]);
    let before = bytes_read();
    assert_eq!(scratch.store.dependents(&id("diff-3")).unwrap(), ["diff-4"]);
    assert!(bytes_read() - before <= 2 * costs[3]);
}

#[test]
fn a_chain_that_was_damaged_since_it_was_read_takes_no_diff() {
    for round in 0..3 {
        let scratch = chain();
        scratch.take("more", Some("top"), &[Some(1), None, None], Checksums::Omitted);
        let base = scratch.store.directory().join("base");
        match round {
            0 => rewrite(&scratch, "base", |manifest| manifest.memory.bytes += 4096),
            1 => fs::rename(&base, scratch.state.join("elsewhere")).unwrap(),
            _ => fs::write(base.join("manifest.json"), "{").unwrap(),
        }
        let refused = scratch.try_take("last", Some("more"), &[Some(1), None, None], Checksums::Omitted);
        assert!(matches!(refused, Err(Error::Parent { .. } | Error::Sizes { .. })), "{round}: {refused:?}");
        assert!(!scratch.store.directory().join("last").exists());
    }
}

/// How much this thread has read, in bytes.
fn bytes_read() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_snapshot_that_is_merged_while_it_is_checked_is_not_damaged() {
    let scratch = Scratch::new();
    scratch.take("base", None, &[Some(1), Some(1), None], Checksums::Omitted);
    for round in 0..100 {
        let top = id(&format!("top-{round}"));
        let taken = scratch.take(top.as_str(), Some("base"), &[None, Some(2), None], Checksums::Omitted);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let checking = scope.spawn(|| {
                let mut found = Ok(taken);
                while !over.load(Ordering::Relaxed) {
                    let check = |found: Snapshot| found.check(&scratch.store, Check::WhenChanged, FREELY);
                    found = found.and_then(check).and_then(|()| scratch.store.find(&top));
                }
                found
            });
            scratch.store.merge(&top, FREELY, Some(Checksums::Omitted)).unwrap();
            over.store(true, Ordering::Relaxed);
            checking.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_diff_whose_parent_is_gone_does_not_come_to_be() {
    let scratch = Scratch::new();
    let error = scratch.try_take("diff", Some("base"), &[None], Checksums::Omitted).unwrap_err();
    assert!(matches!(error, Error::Parent { .. }), "{error}");
    scratch.take("base", None, &[None, None], Checksums::Omitted);
    let error = scratch.try_take("diff", Some("base"), &[None], Checksums::Omitted).unwrap_err();
    assert!(matches!(error, Error::Sizes { .. }), "{error}");
    assert_eq!(scratch.names(), ["base"]);
}

#[test]
fn a_parents_memory_is_checked_and_its_other_files_are_not() {
    let scratch = chain();
    let (base, top) = (scratch.store.find(&id("base")).unwrap(), scratch.store.find(&id("top")).unwrap());
    fs::remove_file(base.state_file()).unwrap();
    top.check(&scratch.store, Check::WhenChanged, FREELY).unwrap();
    fs::write(base.memory_file(), "short").unwrap();
    let error = top.check(&scratch.store, Check::Cheap, FREELY).unwrap_err();
    assert!(matches!(error, Error::Length { path, .. } if path == base.memory_file()));
}

#[test]
fn a_merged_diff_is_full_and_its_children_do_not_notice() {
    let scratch = chain();
    let working_set = scratch.store.find(&id("middle")).unwrap().working_set_file();
    fs::write(&working_set, "pages").unwrap();
    let merged = scratch.store.merge(&id("middle"), FREELY, Some(Checksums::Taken)).unwrap();
    assert_eq!(merged, scratch.store.find(&id("middle")).unwrap());
    assert_eq!((merged.manifest.kind, merged.manifest.parent.as_ref()), (Kind::Full, None));
    assert_eq!(fs::read(merged.memory_file()).unwrap(), content(&[Some(1), Some(2), None]));
    assert_eq!(fs::read(&working_set).unwrap(), b"pages");
    merged.check(&scratch.store, Check::WhenChanged, FREELY).unwrap();
    scratch.store.delete(&id("base"), &[]).unwrap();

    let top = scratch.store.find(&id("top")).unwrap();
    top.check(&scratch.store, Check::WhenChanged, FREELY).unwrap();
    let flat = scratch.state.join("flat");
    scratch.store.flatten(&top, &flat, FREELY).unwrap();
    assert_eq!(fs::read(flat).unwrap(), content(&[Some(1), Some(2), Some(3)]));
    assert_eq!(scratch.names(), ["middle", "top"]);
    let again = scratch.store.merge(&id("middle"), FREELY, Some(Checksums::Taken)).unwrap_err();
    assert!(matches!(again, Error::NotADiff { .. }), "{again}");
}

#[test]
fn a_merge_that_is_interrupted_leaves_the_diff() {
    let scratch = chain();
    let before = scratch.store.find(&id("top")).unwrap();
    let flag = EventFd::new().unwrap();
    flag.raise();
    let interrupted = Limits { interrupt: Some(&flag), ..FREELY };
    let error = scratch.store.merge(&id("top"), interrupted, Some(Checksums::Taken)).unwrap_err();
    assert!(matches!(error, Error::Disk(DiskError::Interrupted { .. })), "{error}");
    assert_eq!(scratch.store.find(&id("top")).unwrap(), before);
    assert_eq!(scratch.names(), ["base", "middle", "top"]);
    scratch.store.merge(&id("top"), FREELY, Some(Checksums::Taken)).unwrap();
}

#[test]
fn what_was_altered_is_not_merged_into_something_that_seems_whole() {
    let scratch = chain();
    let base = scratch.store.find(&id("base")).unwrap();
    fs::write(base.memory_file(), [9; 3 * PAGE]).unwrap();
    let error = scratch.store.merge(&id("top"), FREELY, Some(Checksums::Taken)).unwrap_err();
    assert!(matches!(error, Error::Touched { path } if path == base.memory_file()));
}

#[test]
fn a_diff_and_the_end_of_its_parent_do_not_pass_each_other() {
    for _ in 0..20 {
        let scratch = Scratch::new();
        scratch.take("base", None, &[None], Checksums::Omitted);
        let (taken, deleted) = std::thread::scope(|scope| {
            let taken = scope.spawn(|| scratch.try_take("diff", Some("base"), &[None], Checksums::Omitted));
            let deleted = scratch.store.delete(&id("base"), &[]);
            (taken.join().unwrap(), deleted)
        });
        assert_ne!(taken.is_ok(), deleted.is_ok(), "{taken:?} {deleted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_merged_chain_is_what_the_last_writers_wrote(
        chain in proptest::collection::vec(pages(), 2..5),
        merged in any::<proptest::sample::Index>(),
    ) {
        let scratch = Scratch::new();
        let names = (0..chain.len()).map(|at| at.to_string()).collect::<Vec<_>>();
        let mut models: Vec<Vec<Option<u8>>> = Vec::new();
        for (at, pages) in chain.iter().enumerate() {
            let parent = at.checked_sub(1);
            scratch.take(&names[at], parent.map(|at| names[at].as_str()), pages, Checksums::Taken);
            let below = parent.map_or_else(|| vec![None; pages.len()], |at| models[at].clone());
            models.push(pages.iter().zip(below).map(|(new, old)| new.or(old)).collect());
        }
        // First one in the middle, so that the last is merged over a full one that was a diff.
        let middle = 1 + merged.index(chain.len() - 1);
        for at in [middle, chain.len() - 1] {
            if scratch.store.find(&id(&names[at])).unwrap().manifest.kind == Kind::Diff {
                scratch.store.merge(&id(&names[at]), FREELY, Some(Checksums::Taken)).unwrap();
            }
            let merged = scratch.store.find(&id(&names[at])).unwrap();
            prop_assert_eq!(fs::read(merged.memory_file()).unwrap(), content(&models[at]));
            scratch.store.verify(&id(&names[at]), FREELY).unwrap();
        }
    }
}
