//! Restored memory: every page as it was frozen, whatever the VMM does meanwhile; and a VMM that cannot have its memory
//! ends. The VMM is this program itself, started anew in the VMM's working directory.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use mvm::pager::{self, Ahead, Figures, PagerHandle, Plan, Recording, Removals, State};
use mvm::process::{Cgroups, Identity, Limits};
use mvm::sys::deadline::Deadline;
use mvm::sys::mapping::{Mapping, PageSize};
use mvm::sys::socket::UnixConnection;
use mvm::sys::userfault::Userfault;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const SIGKILL: i32 = 9;
const AMPLE: Duration = Duration::from_secs(20);
/// Which part this process plays.
const PART: &str = "MVM_PAGER_PART";

#[test]
fn every_page_is_as_it_was_frozen() {
    for (workers, around, ahead, removals) in [
        (1, 0, Ahead::Nothing, Removals::Impossible),
        (1, 2 * MIB, Ahead::Nothing, Removals::Possible),
        (3, 2 * MIB, Ahead::Everything, Removals::Possible),
        (2, 64 << 10, Ahead::Everything, Removals::Impossible),
    ] {
        let vm = Frozen::new(8 * MIB, 1);
        let plan = Plan { workers, fault_around_bytes: around as u64, ahead, removals, ..vm.plan() };
        let figures = vm.is_served_to("reads_everything", &plan);
        assert_eq!(figures.present_pages, 2048, "{plan:?}");
        match (ahead, around) {
            (Ahead::Everything, _) => assert!(figures.ahead_bytes > 0, "{figures:?}"),
            (_, 0) => assert_eq!((figures.faults, figures.around_bytes), (2048, 0)),
            _ => assert!(figures.faults < 64 && figures.avoided_faults > 1900, "{figures:?}"),
        }
    }
}

#[test]
fn a_page_that_is_touched_alone_comes_alone() {
    let vm = Frozen::new(8 * MIB, 1);
    let figures = vm.is_served_to("touches_here_and_there", &vm.plan());
    assert_eq!((figures.faults, figures.present_pages), (8, 8));
}

#[test]
fn regions_lie_where_the_vmm_has_them() {
    let vm = Frozen::new(8 * MIB, 1);
    vm.is_served_to("has_two_regions_and_a_gap", &vm.plan());
    vm.is_served_to("has_two_regions_and_a_gap", &Plan { ahead: Ahead::Everything, ..vm.plan() });
}

#[test]
fn the_newest_of_six_files_wins_and_holes_are_zeros() {
    let vm = Frozen::new(8 * MIB, 6);
    let figures = vm.is_served_to("reads_everything", &vm.plan());
    assert!(figures.zero_pages > 0, "{figures:?}");
    vm.is_served_to("reads_everything", &Plan { ahead: Ahead::Everything, workers: 2, ..vm.plan() });
}

#[test]
fn huge_pages_are_served_too() {
    if Mapping::new(8 * MIB, PageSize::Huge).is_err() {
        println!("skipped: no huge page is free (/proc/sys/vm/nr_hugepages)");
        return;
    }
    let vm = Frozen::new(8 * MIB, 3);
    let figures = vm.is_served_to("reads_everything_in_huge_pages", &vm.plan());
    assert_eq!((figures.page_bytes, figures.present_pages), (2 << 20, 4));
    vm.is_served_to("gives_huge_pages_back", &vm.plan());
}

/// The pager need not know that they are small: so this is tested where no huge page is free.
#[test]
fn several_huge_pages_come_at_once_where_that_is_wanted() {
    for layers in [1, 3] {
        let vm = Frozen::new(32 * MIB, layers);
        let plan = Plan { fault_around_bytes: 16 << 20, ..vm.plan() };
        let figures = vm.is_served_to("calls_its_pages_huge", &plan);
        assert_eq!((figures.page_bytes, figures.present_pages), (2 << 20, 16));
        assert!(figures.faults < 16, "{figures:?}");
    }
}

#[test]
fn what_is_given_back_in_a_storm_of_faults_reads_as_zeros() {
    for (workers, ahead) in [(1, Ahead::Nothing), (3, Ahead::Nothing), (2, Ahead::Everything)] {
        let vm = Frozen::new(16 * MIB, 1);
        let figures = vm.is_served_to("gives_back_in_a_storm", &Plan { workers, ahead, ..vm.plan() });
        assert!(figures.removed_pages > 0, "{figures:?}");
    }
}

#[test]
fn a_handshake_may_come_in_parts() {
    let vm = Frozen::new(MIB, 1);
    vm.is_served_to("says_it_in_parts", &vm.plan());
}

#[test]
fn a_memory_file_that_is_cut_off_ends_the_vm() {
    for around in [0, 2 << 20] {
        let vm = Frozen::new(8 * MIB, 1);
        vm.is_ended("cuts_the_file_off", &Plan { fault_around_bytes: around, ..vm.plan() }, "was cut off");
    }
}

#[test]
fn a_fault_outside_every_region_ends_the_vm() {
    let vm = Frozen::new(8 * MIB, 1);
    vm.is_ended("touches_what_it_did_not_name", &vm.plan(), "outside of its memory");
}

#[test]
fn a_vmm_that_makes_no_sense_is_ended() {
    for part in ["says_garbage", "names_too_much_memory", "says_half_of_it"] {
        let vm = Frozen::new(MIB, 1);
        vm.is_ended(part, &vm.plan(), "understand");
    }
}

/// Reading an event of a userfaultfd makes descriptors: who forges one names descriptors of the pager's process.
#[test]
fn what_only_looks_like_a_userfaultfd_is_not_listened_to() {
    let vm = Frozen::new(MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let ours = File::create(vm.path().join("ours")).unwrap();
    fs::write(vm.path().join("number"), ours.as_raw_fd().to_string()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = PagerHandle::start_thread(vm.path(), Identity::own().unwrap(), listener).unwrap();
    assert_eq!(Vmm::start(&vm, "forges_a_fork").end().signal(), Some(SIGKILL));
    held.end(AMPLE).unwrap();
    assert!(std::mem::ManuallyDrop::new(ours).metadata().is_ok(), "a descriptor of the operator was closed");
    let words = pager::last_words(vm.path()).unwrap();
    assert!(words.contains("not a userfaultfd"), "{words}");
}

#[test]
fn figures_that_the_vmm_cuts_off_harm_nobody() {
    let vm = Frozen::new(8 * MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = PagerHandle::start_thread(vm.path(), Identity::own().unwrap(), listener).unwrap();
    assert_eq!(Vmm::start(&vm, "cuts_the_figures_off").end().code(), Some(0));
    held.end(AMPLE).unwrap();
    assert!(Figures::read(vm.path()).is_err());
}

#[test]
fn a_failure_is_not_missed_while_somebody_connects_and_says_nothing() {
    let vm = Frozen::new(8 * MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = program(&vm, &listener);
    drop(listener);
    let mut vmm = Vmm::start(&vm, "is_silent_and_cuts_the_file_off");
    assert_eq!(vmm.end().signal(), Some(SIGKILL));
    held.end(AMPLE).unwrap();
    assert!(pager::last_words(vm.path()).unwrap().contains("was cut off"));
}

#[test]
fn a_vmm_that_takes_events_away_does_not_keep_its_pager_for_ever() {
    let vm = Frozen::new(8 * MIB, 1);
    for removals in [Removals::Possible, Removals::Impossible] {
        Plan { removals, fault_around_bytes: 0, ..vm.plan() }.write(vm.path()).unwrap();
        let listener = pager::bind(vm.path()).unwrap();
        let held = PagerHandle::start_thread(vm.path(), Identity::own().unwrap(), listener).unwrap();
        assert_eq!(Vmm::start(&vm, "takes_events_away").end().signal(), Some(SIGKILL));
        wait_until(|| !held.is_alive());
        held.end(AMPLE).unwrap();
        let words = pager::last_words(vm.path()).unwrap();
        assert!(words.contains("made to wait"), "{words}");
    }
}

#[test]
fn memory_that_is_protected_in_parts_is_served() {
    let vm = Frozen::new(8 * MIB, 1);
    for ahead in [Ahead::Nothing, Ahead::Everything] {
        vm.is_served_to("protects_memory", &Plan { ahead, ..vm.plan() });
    }
}

#[test]
fn without_its_files_there_is_no_vm() {
    let vm = Frozen::new(MIB, 1);
    vm.is_ended("reads_everything", &Plan { bytes: 2 << 20, ..vm.plan() }, "belongs to another snapshot");
    vm.is_ended("reads_everything", &Plan { layers: vec!["/nowhere".into()], ..vm.plan() }, "/nowhere");
}

#[test]
fn a_damaged_plan_is_told_and_ends_the_vm() {
    let vm = Frozen::new(MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let plan = fs::read(vm.path().join("pager.json")).unwrap();
    fs::write(vm.path().join("pager.json"), &plan[..plan.len() / 2]).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let mut vmm = Vmm::start(&vm, "reads_everything");
    vmm.await_connection(&listener);
    let held = program(&vm, &listener);
    drop(listener);
    assert_eq!(vmm.end().signal(), Some(SIGKILL));
    held.end(AMPLE).unwrap();
    assert!(pager::last_words(vm.path()).unwrap().contains("damaged"));
}

#[test]
fn strangers_do_not_disturb_a_pager_that_waits() {
    let vm = Frozen::new(MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = program(&vm, &listener);
    drop(listener);
    for garbage in [&b"garbage\n"[..], b"[{\"base_host_virt_addr\":0}]", b"", b"store\n"] {
        UnixConnection::connect(&pager::socket_file(vm.path())).unwrap().send(garbage).unwrap();
    }
    assert_eq!(Vmm::start(&vm, "reads_everything").end().code(), Some(0));
    held.end(AMPLE).unwrap();
    assert_eq!(Figures::read(vm.path()).unwrap().state, State::Ended);
}

#[test]
fn a_pager_without_a_vmm_ends_with_its_owner() {
    let vm = Frozen::new(MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let mut owner = Command::new("sleep").arg("1000").spawn().unwrap();
    let identity = Identity::of(owner.id().cast_signed()).unwrap();
    let held =
        PagerHandle::start_program(keeper(), vm.path(), identity, &listener, &Cgroups::default()).unwrap();
    assert!(held.is_alive() && held.identity().is_some());
    owner.kill().unwrap();
    owner.wait().unwrap();
    held.end(AMPLE).unwrap();
    assert_eq!(Figures::read(vm.path()).unwrap().state, State::Ended);
    assert_eq!(pager::last_words(vm.path()), None);
}

/// A VMM goes on when it has said what its memory is, and its owner then: the pager may not even have begun.
#[test]
fn a_vmm_that_came_is_served_though_its_owner_was_killed_before_the_pager_looked() {
    for part in ["reads_everything", "says_it_in_parts"] {
        let vm = Frozen::new(MIB, 1);
        vm.plan().write(vm.path()).unwrap();
        let listener = pager::bind(vm.path()).unwrap();
        let mut owner = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = Identity::of(owner.id().cast_signed()).unwrap();
        let mut vmm = Vmm::start(&vm, part);
        vmm.await_connection(&listener);
        owner.kill().unwrap();
        owner.wait().unwrap();
        let held = PagerHandle::start_program(keeper(), vm.path(), identity, &listener, &Cgroups::default())
            .unwrap();
        drop(listener);
        assert_eq!(vmm.end().code(), Some(0), "{:?}", pager::last_words(vm.path()));
        held.end(AMPLE).unwrap();
    }
}

#[test]
fn a_pager_that_is_killed_is_seen_by_its_owner() {
    let vm = Frozen::new(MIB, 1);
    vm.plan().write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = program(&vm, &listener);
    let mut kill = Command::new("kill");
    kill.args(["-9", &held.identity().unwrap().pid.to_string()]).status().unwrap();
    let ended = mvm::sys::poll::wait(
        [mvm::sys::poll::Interest::Readable(held.pidfd().unwrap())],
        Deadline::after(AMPLE),
    );
    assert_eq!(ended.unwrap(), [true]);
    assert!(!held.is_alive());
}

#[test]
fn what_was_touched_first_is_replayed_for_the_next() {
    let vm = Frozen::new(16 * MIB, 1);
    let working_set = Some(vm.path().join("working-set.json"));
    let record = Some(Recording { limit_bytes: 64 << 20, for_ms: 600_000 });
    let recording = Plan { working_set: working_set.clone(), record, fault_around_bytes: 0, ..vm.plan() };
    let figures = vm.is_served_to("touches_a_quarter", &recording);
    assert_eq!((figures.faults, figures.recorded_pages), (1024, 1024));
    let replaying = Plan { record: None, ahead: Ahead::WorkingSet, ..recording.clone() };
    for workers in [1, 3] {
        let figures = vm.is_served_to("waits_and_touches_a_quarter", &Plan { workers, ..replaying.clone() });
        assert_eq!((figures.faults, figures.replayed_pages), (0, 1024), "{figures:?}");
    }
    fs::write(vm.path().join("working-set.json"), "garbage").unwrap();
    assert_eq!(vm.is_served_to("touches_a_quarter", &replaying).faults, 1024);
}

#[test]
fn a_working_set_is_stored_when_it_is_asked_for_or_full() {
    let vm = Frozen::new(16 * MIB, 1);
    let file = vm.path().join("working-set.json");
    let record = Some(Recording { limit_bytes: 1 << 30, for_ms: 600_000 });
    let plan = Plan { working_set: Some(file.clone()), record, ..vm.plan() };
    plan.write(vm.path()).unwrap();
    let listener = pager::bind(vm.path()).unwrap();
    let held = PagerHandle::start_thread(vm.path(), Identity::own().unwrap(), listener).unwrap();
    let mut vmm = Vmm::start(&vm, "touches_one_and_waits");
    wait_until(|| Figures::read(vm.path()).is_ok_and(|figures| figures.recorded_pages == 1));
    let limits = Limits { deadline: Deadline::after(AMPLE), interrupt: None };
    assert_eq!(pager::store_working_set(vm.path(), limits).unwrap(), 1);
    assert!(file.exists());
    vmm.kill();
    held.end(AMPLE).unwrap();
    fs::remove_file(&file).unwrap();
    let record = Some(Recording { limit_bytes: 4096, for_ms: 600_000 });
    let plan = Plan { record, ..plan };
    plan.write(vm.path()).unwrap();
    let held =
        PagerHandle::start_thread(vm.path(), Identity::own().unwrap(), pager::bind(vm.path()).unwrap())
            .unwrap();
    let mut vmm = Vmm::start(&vm, "touches_two_and_waits");
    wait_until(|| file.exists());
    vmm.kill();
    held.end(AMPLE).unwrap();
}

/// What this program does when it plays the VMM. Each part ends with the process.
#[test]
#[ignore = "the part of the VMM, which the other tests start"]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let expected = fs::read("../expected").unwrap();
    let all = expected.len();
    let whole = || Memory::new(&[(0, all)], PageSize::Small);
    match part.as_str() {
        "reads_everything" => whole().connect().check(&expected),
        "reads_everything_in_huge_pages" => {
            Memory::new(&[(0, all)], PageSize::Huge).connect().check(&expected);
        }
        "has_two_regions_and_a_gap" => {
            Memory::new(&[(all / 4, all / 4), (all / 2 + MIB, MIB)], PageSize::Small)
                .connect()
                .check(&expected);
        }
        "touches_here_and_there" => {
            let memory = whole().connect();
            (0..8).for_each(|step| memory.check_at(step * MIB + 5 * PAGE, &expected));
        }
        "touches_a_quarter" => touch_a_quarter(&whole().connect(), &expected),
        "waits_and_touches_a_quarter" => {
            let memory = whole().connect();
            // There are none before the pager has begun.
            wait_until(|| Figures::read(Path::new("..")).is_ok_and(|figures| figures.replayed_pages == 1024));
            touch_a_quarter(&memory, &expected);
        }
        "touches_one_and_waits" | "touches_two_and_waits" => {
            let memory = whole().connect();
            memory.check_at(0, &expected);
            if part == "touches_two_and_waits" {
                memory.check_at(MIB, &expected);
            }
            std::thread::sleep(10 * AMPLE);
        }
        "gives_back_in_a_storm" => give_back_in_a_storm(&whole().connect(), &expected),
        "gives_huge_pages_back" => {
            let memory = Memory::new(&[(0, all)], PageSize::Huge).connect();
            memory.check(&expected);
            memory.regions[0].1.discard(&(0..2 * MIB)).unwrap();
            assert!((0..512).all(|page| memory.page(page * PAGE).iter().all(|byte| *byte == 0)));
            memory.check_at(2 * MIB, &expected);
        }
        "says_it_in_parts" => {
            let memory = whole();
            let (socket, text) = (memory.socket(), memory.handshake(all));
            let (first, second) = text.split_at(10);
            socket.send(first.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            socket.send_with_descriptor(second.as_bytes(), memory.faults.as_fd()).unwrap();
            memory.check(&expected);
        }
        "cuts_the_file_off" => {
            let memory = whole().connect();
            memory.check_at(0, &expected);
            OpenOptions::new().write(true).open("../layer-0").unwrap().set_len(4 << 20).unwrap();
            memory.page(6 * MIB);
        }
        "is_silent_and_cuts_the_file_off" => {
            let memory = whole().connect();
            memory.check_at(0, &expected);
            let _silent = memory.socket();
            OpenOptions::new().write(true).open("../layer-0").unwrap().set_len(4 << 20).unwrap();
            // The pager listens to nobody but the silent one for a while.
            std::thread::sleep(Duration::from_millis(300));
            memory.page(6 * MIB);
            std::thread::sleep(10 * AMPLE);
        }
        "cuts_the_figures_off" => {
            let memory = whole().connect();
            memory.check_at(0, &expected);
            OpenOptions::new().write(true).open("../pager.stat").unwrap().set_len(0).unwrap();
            memory.check(&expected);
        }
        "calls_its_pages_huge" => {
            let memory = Memory::new(&[(0, all + 2 * MIB)], PageSize::Small);
            let own = memory.regions[0].1.address();
            let start = own.next_multiple_of(2 << 20);
            memory.say(&format!(
                r#"[{{"base_host_virt_addr":{start},"size":{all},"offset":0,"page_size":{}}}]"#,
                2 << 20
            ));
            let skipped = usize::try_from(start - own).unwrap();
            let is_right = |at: usize| memory.page(skipped + at) == expected[at..at + PAGE];
            assert!((0..all).step_by(PAGE).all(is_right));
        }
        "protects_memory" => {
            // As a VMM does with memory that is not plugged in.
            let memory = whole();
            let protected = 3 * MIB + 5 * PAGE..5 * MIB + PAGE;
            memory.regions[0].1.protect(&protected).unwrap();
            let memory = memory.connect();
            let offsets = (0..all).step_by(PAGE).filter(|offset| !protected.contains(offset));
            offsets.for_each(|offset| memory.check_at(offset, &expected));
            let is_over = || match Figures::read(Path::new("..")).unwrap() {
                Figures { ahead_bytes: 0, .. } => true,
                Figures { state, .. } => state == State::Complete,
            };
            wait_until(is_over);
        }
        "takes_events_away" => take_events_away(whole().connect()),
        "forges_a_fork" => {
            let number = fs::read_to_string("../number").unwrap().parse::<u64>().unwrap();
            let mut event = [[0; 8]; 4];
            event[0][0] = 0x13;
            event[1] = number.to_ne_bytes();
            let (near, far) = UnixStream::pair().unwrap();
            (&near).write_all(event.as_flattened()).unwrap();
            let memory = whole();
            let text = memory.handshake(all);
            memory.socket().send_with_descriptor(text.as_bytes(), far.as_fd()).unwrap();
            std::thread::sleep(10 * AMPLE);
        }
        "touches_what_it_did_not_name" => {
            let memory = whole();
            memory.say(&memory.handshake(MIB));
            memory.check_at(0, &expected);
            memory.page(2 * MIB);
        }
        "says_garbage" => {
            whole().say("[{\"base\":17}]");
            std::thread::sleep(10 * AMPLE);
        }
        "says_half_of_it" => {
            let memory = whole();
            memory.socket().send(&memory.handshake(all).as_bytes()[..9]).unwrap();
            std::thread::sleep(10 * AMPLE);
        }
        "names_too_much_memory" => {
            let memory = whole();
            memory.say(&memory.handshake(all + PAGE));
            std::thread::sleep(10 * AMPLE);
        }
        unknown => panic!("there is no part {unknown}"),
    }
}

/// Reads events beside the pager, so that what it was woken for may be gone; and has whoever reads wait for the next.
fn take_events_away(memory: Memory) {
    let memory: &Memory = Box::leak(Box::new(memory));
    for _ in 0..2 {
        std::thread::spawn(|| {
            loop {
                let flags = UnixStream::from(memory.faults.as_fd().try_clone_to_owned().unwrap());
                flags.set_nonblocking(false).unwrap();
                let _taken = memory.faults.read(1, &mut Vec::new());
            }
        });
    }
    for page in 0..500 {
        std::thread::spawn(move || memory.page(page * PAGE));
    }
    std::thread::sleep(AMPLE);
}

/// In an order that no readahead guesses.
fn touch_a_quarter(memory: &Memory, expected: &[u8]) {
    let pages = expected.len() / PAGE;
    (0..pages / 4).for_each(|step| memory.check_at((step * 2039 % (pages / 4)) * 4 * PAGE, expected));
}

/// Every other MiB is given back, piece by piece, while others touch everything.
fn give_back_in_a_storm(memory: &Memory, expected: &[u8]) {
    let may_be_zero = |offset: usize| (offset / MIB) % 2 == 1;
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 1..=4_usize {
            let rounds = &rounds;
            scope.spawn(move || {
                let mut place = seed * 7919;
                while rounds.load(Ordering::Relaxed) < 3 {
                    place =
                        place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let offset = (place >> 33) % (expected.len() / PAGE) * PAGE;
                    // It may be given back in the middle of the look.
                    let fits =
                        |(byte, wanted): (&u8, &u8)| byte == wanted || may_be_zero(offset) && *byte == 0;
                    let page = memory.page(offset);
                    assert!(page.iter().zip(&expected[offset..offset + PAGE]).all(fits), "at {offset}");
                }
            });
        }
        let _also_when_it_fails = EndOfStorm(&rounds);
        for _ in 0..3 {
            for start in (0..expected.len()).step_by(64 << 10).filter(|start| may_be_zero(*start)) {
                memory.regions[0].1.discard(&(start..start + (64 << 10))).unwrap();
                assert!(memory.page(start + PAGE).iter().all(|byte| *byte == 0), "at {start}");
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    });
    for offset in (0..expected.len()).step_by(PAGE) {
        match may_be_zero(offset) {
            true => assert!(memory.page(offset).iter().all(|byte| *byte == 0), "at {offset}"),
            false => memory.check_at(offset, expected),
        }
    }
}

struct EndOfStorm<'a>(&'a AtomicUsize);

impl Drop for EndOfStorm<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }
}

/// A guest's memory in the VMM: regions by their offset in the memory files.
struct Memory {
    regions: Vec<(usize, Mapping)>,
    faults: Userfault,
    pages: PageSize,
    sockets: std::sync::Mutex<Vec<UnixConnection>>,
}

impl Memory {
    fn new(regions: &[(usize, usize)], pages: PageSize) -> Self {
        let faults = Userfault::new().unwrap();
        let map = |(offset, size): &(usize, usize)| (*offset, Mapping::new(*size, pages).unwrap());
        let regions = regions.iter().map(map).collect::<Vec<_>>();
        regions.iter().for_each(|(_, mapping)| faults.register(mapping).unwrap());
        Self { regions, faults, pages, sockets: std::sync::Mutex::default() }
    }

    fn connect(self) -> Self {
        let regions =
            self.regions.iter().map(|(offset, mapping)| self.region(*offset, mapping, mapping.size()));
        self.say(&format!("[{}]", regions.collect::<Vec<_>>().join(",")));
        self
    }

    /// For the first region, as if it had `size` bytes.
    fn handshake(&self, size: usize) -> String {
        let (offset, mapping) = &self.regions[0];
        format!("[{}]", self.region(*offset, mapping, size))
    }

    fn region(&self, offset: usize, mapping: &Mapping, size: usize) -> String {
        let (start, page) = (mapping.address(), self.pages.bytes());
        format!(
            r#"{{"base_host_virt_addr":{start},"size":{size},"offset":{offset},"page_size":{page},"page_size_kib":{page}}}"#
        )
    }

    fn socket(&self) -> UnixConnection {
        UnixConnection::connect(Path::new("pager.sock")).unwrap()
    }

    /// The connection stays, as Firecracker's does.
    fn say(&self, text: &str) {
        let socket = self.socket();
        assert_eq!(socket.send_with_descriptor(text.as_bytes(), self.faults.as_fd()).unwrap(), text.len());
        self.sockets.lock().unwrap().push(socket);
    }

    fn page(&self, offset: usize) -> [u8; PAGE] {
        let holds = |region: &&(usize, Mapping)| (region.0..region.0 + region.1.size()).contains(&offset);
        let (start, mapping) = self.regions.iter().find(holds).unwrap();
        let mut page = [0; PAGE];
        mapping.read(offset - start, &mut page);
        page
    }

    fn check_at(&self, offset: usize, expected: &[u8]) {
        assert!(self.page(offset) == expected[offset..offset + PAGE], "at {offset}");
    }

    fn check(&self, expected: &[u8]) {
        for (start, mapping) in &self.regions {
            (*start..start + mapping.size()).step_by(PAGE).for_each(|at| self.check_at(at, expected));
        }
    }
}

/// A VM's directory with memory files in it, and what they make together.
struct Frozen {
    directory: PathBuf,
    layers: Vec<PathBuf>,
    bytes: usize,
}

impl Frozen {
    /// Memory in so many files: the first is whole when it is the only one.
    fn new(bytes: usize, layers: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("mvm-pager-{}-{count}", std::process::id()));
        fs::create_dir_all(directory.join("vmm")).unwrap();
        let mut expected = vec![0; bytes];
        let paths = (0..layers).map(|layer| {
            let path = directory.join(format!("layer-{layer}"));
            let file = File::create(&path).unwrap();
            file.set_len(bytes as u64).unwrap();
            for page in (0..bytes / PAGE).filter(|page| layers == 1 || has_data(layer, *page)) {
                let content = content(layer, page);
                file.write_all_at(&content, (page * PAGE) as u64).unwrap();
                expected[place(page)].copy_from_slice(&content);
            }
            path
        });
        let layers = paths.collect();
        fs::write(directory.join("expected"), expected).unwrap();
        Self { directory, layers, bytes }
    }

    fn path(&self) -> &Path {
        &self.directory
    }

    fn plan(&self) -> Plan {
        Plan {
            layers: self.layers.clone(),
            bytes: self.bytes as u64,
            workers: 1,
            fault_around_bytes: 2 << 20,
            ahead: Ahead::Nothing,
            record: None,
            working_set: None,
            removals: Removals::Possible,
        }
    }

    /// A VMM that does its part to the end, served by threads.
    fn is_served_to(&self, part: &str, plan: &Plan) -> Figures {
        plan.write(self.path()).unwrap();
        let listener = pager::bind(self.path()).unwrap();
        let held = PagerHandle::start_thread(self.path(), Identity::own().unwrap(), listener).unwrap();
        let exit = Vmm::start(self, part).end();
        held.end(AMPLE).unwrap();
        let errors = fs::read_to_string(self.path().join("vmm.err")).unwrap();
        assert_eq!(exit.code(), Some(0), "{part}: {exit}: {errors}{:?}", pager::last_words(self.path()));
        let figures = Figures::read(self.path()).unwrap();
        assert_eq!(figures.state, State::Ended);
        figures
    }

    /// A VMM that cannot be served, and is told from one that waits for ever by its end.
    fn is_ended(&self, part: &str, plan: &Plan, told: &str) {
        plan.write(self.path()).unwrap();
        let listener = pager::bind(self.path()).unwrap();
        let held = program(self, &listener);
        // A pager that cannot begin lets nobody in: then the VMM's restore fails, as a panic here.
        let exit = Vmm::start(self, part).end();
        held.end(AMPLE).unwrap();
        assert!(exit.signal() == Some(SIGKILL) || exit.code() == Some(101), "{part}: {exit}");
        let words = pager::last_words(self.path()).unwrap();
        assert!(words.contains(told), "{part}: {words}");
        assert_eq!(Figures::read(self.path()).unwrap().state, State::Failed);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

fn has_data(layer: usize, page: usize) -> bool {
    (page * 2_654_435_761 + layer * 40_503) >> 4 & 3 == 0
}

fn place(page: usize) -> Range<usize> {
    page * PAGE..(page + 1) * PAGE
}

fn content(layer: usize, page: usize) -> [u8; PAGE] {
    let mut content = [0; PAGE];
    for (at, byte) in content.iter_mut().enumerate() {
        *byte = u8::try_from((page * 31 + layer * 7 + at / 8 + at * page) % 255 + 1).unwrap();
    }
    content
}

fn keeper() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_mvm-keeper"))
}

fn program(vm: &Frozen, listener: &UnixListener) -> PagerHandle {
    PagerHandle::start_program(keeper(), vm.path(), Identity::own().unwrap(), listener, &Cgroups::default())
        .unwrap()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Deadline::after(AMPLE);
    while !is_so() {
        assert!(!deadline.has_passed(), "it has not come to be");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// This program as a VMM.
struct Vmm(Child);

impl Vmm {
    fn start(vm: &Frozen, part: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["plays_its_part", "--exact", "--ignored", "--nocapture"])
            .current_dir(vm.path().join("vmm"));
        // What it says when it fails is told by whoever did not expect that.
        let errors = File::create(vm.path().join("vmm.err")).unwrap();
        Self(
            command
                .env(PART, part)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(errors)
                .spawn()
                .unwrap(),
        )
    }

    /// Waits until it has connected, before anybody listens to it.
    fn await_connection(&mut self, listener: &UnixListener) {
        let soon = Deadline::after(AMPLE);
        let waiting = [mvm::sys::poll::Interest::Readable(listener.as_fd())];
        assert_eq!(mvm::sys::poll::wait(waiting, soon).unwrap(), [true]);
    }

    /// Waits for its end; one that waits for ever is a failure of the test.
    fn end(&mut self) -> ExitStatus {
        let deadline = Deadline::after(3 * AMPLE);
        loop {
            match self.0.try_wait().unwrap() {
                Some(exit) => return exit,
                None if deadline.has_passed() => panic!("the VMM waits for ever"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
