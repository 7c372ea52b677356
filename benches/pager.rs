//! The pager beside bare loops that make the same system calls, each in a process of its own: `cargo bench --bench pager`.
//!
//! This program plays the VMM, and, started anew, the bare loops. Pager and loop take turns. The name of one measurement
//! (`-- replay`) leaves out the others.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::cast_precision_loss)]

use mvm::pager::{self, Ahead, Figures, PagerHandle, Plan, Recording, Removals, State};
use mvm::process::{Cgroups, Identity, Limits};
use mvm::sys::deadline::Deadline;
use mvm::sys::mapping::{FileMapping, Mapping, PageSize};
use mvm::sys::poll::{self, Interest};
use mvm::sys::socket::UnixConnection;
use mvm::sys::userfault::Userfault;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const SIZE: usize = 256 * MIB;
const ROUNDS: usize = 9;
const FAULTS: usize = 1000;
/// The working set: this many pages all over the memory.
const TOUCHED: usize = 64 * MIB / PAGE;
/// Which bare loop this process is.
const BARE: &str = "MVM_BENCH_BARE";

fn main() {
    if let Ok(which) = std::env::var(BARE) {
        return be_bare(&which);
    }
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let directory = std::env::temp_dir().join(format!("mvm-bench-pager-{}", std::process::id()));
    // Where a VM's VMM works, which is this process.
    let working = directory.join("vmm");
    std::fs::create_dir_all(&working).unwrap();
    std::env::set_current_dir(&working).unwrap();
    freeze();
    take_places();
    println!("| what | pager | beside | ratio | wanted |\n|---|---|---|---|---|");
    let is_wanted = |name: &str| std::env::args().skip(1).all(|wanted| wanted == "--bench" || wanted == name);
    for (name, measure) in [
        ("one_fault", one_fault as fn()),
        ("everything", everything),
        ("page_after_page", page_after_page),
        ("replay", replay),
        ("replay_from_the_disk", replay_from_the_disk),
    ] {
        if is_wanted(name) {
            measure();
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

fn one_fault() {
    let touch = |vmm: &Vmm| {
        let times = (0..FAULTS).map(|step| timed(|| vmm.touch(place(step))).1).collect::<Vec<_>>();
        median(times)
    };
    let (ours, bare) = in_turns(|| touch(&Vmm::paged(&plan())), || touch(&Vmm::bare("faults")));
    row("one fault", ours, bare, ours / bare, "<= 1.10");
}

fn everything() {
    let stream = || {
        let began = Instant::now();
        let _vmm = Vmm::paged(&Plan { ahead: Ahead::Everything, ..plan() });
        wait_until(|| figures().state == State::Complete);
        began.elapsed().as_secs_f64()
    };
    let bare = || {
        let began = Instant::now();
        let vmm = Vmm::bare("everything");
        vmm.await_word();
        began.elapsed().as_secs_f64()
    };
    let (ours, bare) = in_turns(stream, bare);
    row("256 MiB streamed", ours, bare, bare / ours, ">= 0.9");
}

fn page_after_page() {
    const TOUCHED: usize = 64 * MIB / PAGE;
    let touch = |vmm: &Vmm| timed(|| (0..TOUCHED).for_each(|page| vmm.touch(page))).1;
    let around = Plan { fault_around_bytes: 2 << 20, ..plan() };
    let (ours, single) = in_turns(|| touch(&Vmm::paged(&around)), || touch(&Vmm::bare("faults")));
    row("64 MiB touched page after page", ours, single, single / ours, ">= 10");
}

fn replay() {
    let record = Some(Recording { limit_bytes: SIZE as u64, for_ms: 600_000 });
    let working_set = Some(PathBuf::from("working-set.json"));
    let recording = Plan { record, working_set: working_set.clone(), ..plan() };
    let touch = |vmm: &Vmm| (0..TOUCHED).for_each(|step| vmm.touch(place(step)));
    let ranges = touch_and_store(&recording, touch);
    let replaying = Plan { ahead: Ahead::WorkingSet, working_set, ..plan() };
    // From the time on when the guest runs.
    let touched = |plan: &Plan| {
        let vmm = Vmm::paged(plan);
        let took = timed(|| touch(&vmm)).1;
        (took, figures().faults)
    };
    let (mut early, mut best) = (Vec::new(), f64::INFINITY);
    let replayed = || {
        let (took, faults) = touched(&replaying);
        early.push(faults);
        best = took.min(best);
        took
    };
    let (ours, demand) = in_turns(replayed, || touched(&plan()).0);
    row("64 MiB of 256 in random order, replayed", ours, demand, demand / ours, ">= 3");
    // The other side is no measurement, so what else the machine does would be on one side alone.
    let cheap = CHEAP_FAULT * TOUCHED as f64;
    row("the best of these, beside faults of 20 µs each, reckoned", best, cheap, cheap / best, ">= 3");

    let alone = || {
        let began = Instant::now();
        let _vmm = Vmm::paged(&replaying);
        wait_until(|| figures().present_pages >= TOUCHED as u64);
        began.elapsed().as_secs_f64()
    };
    let bare = || {
        let began = Instant::now();
        let vmm = Vmm::bare("scattered");
        vmm.await_word();
        began.elapsed().as_secs_f64()
    };
    let (ours, bare) = in_turns(alone, bare);
    row("replayed while nobody touches it", ours, bare, bare / ours, ">= 0.9");
    early.sort_unstable();
    let early = early[early.len() / 2];
    println!("\n{TOUCHED} pages in {ranges} ranges, {early} of them touched before they were replayed");
}

/// The same with few pages of which none is in memory.
fn replay_from_the_disk() {
    let record = Some(Recording { limit_bytes: SIZE as u64, for_ms: 600_000 });
    let working_set = Some(PathBuf::from("working-set-of-few.json"));
    let recording = Plan { record, working_set: working_set.clone(), ..plan() };
    let touch = |vmm: &Vmm| (0..FAULTS).for_each(|step| vmm.touch(place(step)));
    touch_and_store(&recording, touch);
    let replaying = Plan { ahead: Ahead::WorkingSet, working_set, ..plan() };
    let touched = |plan: &Plan| {
        forget();
        timed(|| touch(&Vmm::paged(plan))).1
    };
    let (ours, demand) = in_turns(|| touched(&replaying), || touched(&plan()));
    row("4 MiB of 256 in random order, replayed from the disk", ours, demand, demand / ours, ">= 3");
}

/// Has the kernel drop from its cache what it has of the memory file.
fn forget() {
    let written = Command::new("sync").arg("memory").status().unwrap().success();
    let mut dd = Command::new("dd");
    let dropped = dd.args(["if=memory", "iflag=nocache", "count=0", "status=none"]).status().unwrap();
    assert!(written && dropped.success());
}

/// What a fault costs on a machine that is not virtual itself, in seconds.
const CHEAP_FAULT: f64 = 20e-6;

fn touch_and_store(plan: &Plan, touch: impl Fn(&Vmm)) -> usize {
    let vmm = Vmm::paged(plan);
    touch(&vmm);
    let limits = Limits { deadline: Deadline::after(Duration::from_secs(10)), interrupt: None };
    pager::store_working_set(Path::new(".."), limits).unwrap()
}

/// What the last pager has counted; nothing before there was one.
fn figures() -> Figures {
    Figures::read(Path::new("..")).unwrap_or_default()
}

/// Page for page without anything around or ahead, by one thread.
fn plan() -> Plan {
    Plan {
        layers: vec![std::env::current_dir().unwrap().join("memory")],
        bytes: SIZE as u64,
        workers: 1,
        fault_around_bytes: 0,
        ahead: Ahead::Nothing,
        record: None,
        working_set: None,
        removals: Removals::Possible,
    }
}

/// A page that no readahead guesses, another one at each step.
fn place(step: usize) -> usize {
    step * 40_503 % (SIZE / PAGE)
}

/// The VMM on one CPU and whoever serves it on another one, as on a host with vCPUs: where both share one, a fault costs
/// a tenth. They are left alone where there is but one, or no taskset(1).
fn take_places() {
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    let taskset = Path::new("/usr/bin/taskset");
    let is_placed = several && taskset.exists();
    if is_placed {
        let own = std::process::id().to_string();
        Command::new(taskset).args(["-p", "-c", "0", &own]).output().unwrap();
    }
    let prefix = if is_placed { "/usr/bin/taskset -c 1" } else { "" };
    let own = std::env::current_exe().unwrap();
    for (name, program) in [("keeper", Path::new(env!("CARGO_BIN_EXE_mvm-keeper"))), ("bare", &own)] {
        std::fs::write(name, format!("#!/bin/sh\nexec {prefix} {} \"$@\"\n", program.display())).unwrap();
        std::fs::set_permissions(name, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

fn freeze() {
    let file = File::create("memory").unwrap();
    for at in 0..SIZE / MIB {
        file.write_all_at(&vec![u8::try_from(at % 255 + 1).unwrap(); MIB], (at * MIB) as u64).unwrap();
    }
}

/// Memory of this process, and whoever serves it.
struct Vmm {
    memory: Mapping,
    _faults: Userfault,
    connection: UnixConnection,
    server: Option<Server>,
}

enum Server {
    Pager(PagerHandle),
    Bare(Child),
}

impl Vmm {
    fn paged(plan: &Plan) -> Self {
        let working = std::env::current_dir().unwrap();
        let directory = working.parent().unwrap();
        plan.write(directory).unwrap();
        Self::served_by(|listener| {
            let keeper = working.join("keeper");
            let owner = Identity::own().unwrap();
            Server::Pager(
                PagerHandle::start_program(&keeper, directory, owner, &listener, &Cgroups::default())
                    .unwrap(),
            )
        })
    }

    fn bare(which: &str) -> Self {
        Self::served_by(|listener| {
            let mut command = Command::new("./bare");
            Server::Bare(command.env(BARE, which).stdin(OwnedFd::from(listener)).spawn().unwrap())
        })
    }

    fn served_by(start: impl FnOnce(UnixListener) -> Server) -> Self {
        let (memory, faults) = (Mapping::new(SIZE, PageSize::Small).unwrap(), Userfault::new().unwrap());
        faults.register(&memory).unwrap();
        let server = Some(start(pager::bind(Path::new("..")).unwrap()));
        let connection = UnixConnection::connect(Path::new("pager.sock")).unwrap();
        let text = format!(
            r#"[{{"base_host_virt_addr":{},"size":{SIZE},"offset":0,"page_size":4096}}]"#,
            memory.address()
        );
        connection.send_with_descriptor(text.as_bytes(), faults.as_fd()).unwrap();
        let vmm = Self { memory, _faults: faults, connection, server };
        vmm.touch(SIZE / PAGE - 1);
        vmm
    }

    fn touch(&self, page: usize) {
        assert_ne!(self.memory.byte(page * PAGE), 0);
    }

    fn await_word(&self) {
        let long = Deadline::after(Duration::from_secs(60));
        assert_eq!(poll::wait([Interest::Readable(self.connection.as_fd())], long).unwrap(), [true]);
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        match self.server.take() {
            Some(Server::Pager(held)) => held.end(Duration::ZERO).unwrap(),
            Some(Server::Bare(mut child)) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            None => {}
        }
    }
}

/// The loop that a pager cannot do without: wait, read an event, copy a page. Or copy all in pieces of 64 KiB, or the working set.
fn be_bare(which: &str) {
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let connection = UnixConnection::from(listener.accept().unwrap().0);
    poll::wait([Interest::Readable(connection.as_fd())], Deadline::NEVER).unwrap();
    let mut text = [0; 512];
    let (length, descriptor) = connection.receive_with_descriptor(&mut text).unwrap();
    let regions = serde_json::from_slice::<serde_json::Value>(&text[..length]).unwrap();
    let start = regions[0]["base_host_virt_addr"].as_u64().unwrap();
    let faults = Userfault::serving(descriptor.unwrap()).unwrap();
    let memory = FileMapping::new(&File::open("memory").unwrap(), SIZE as u64).unwrap();
    if which == "everything" {
        for at in (0..SIZE as u64).step_by(64 << 10) {
            faults.copy_from_file(start + at, &memory, &(at..at + (64 << 10))).unwrap();
        }
        connection.send(b"done").unwrap();
    }
    if which == "scattered" {
        for at in (0..TOUCHED).map(|step| (place(step) * PAGE) as u64) {
            faults.copy_from_file(start + at, &memory, &(at..at + PAGE as u64)).unwrap();
        }
        connection.send(b"done").unwrap();
    }
    let mut events = Vec::new();
    loop {
        poll::wait([Interest::Readable(faults.as_fd())], Deadline::NEVER).unwrap();
        events.clear();
        let _none = faults.read(1, &mut events);
        for event in &events {
            let mvm::sys::userfault::Event::Fault { address, .. } = event else { panic!("{event:?}") };
            let (address, page) = (address & !4095, (address & !4095) - start);
            faults.copy_from_file(address, &memory, &(page..page + PAGE as u64)).unwrap();
        }
    }
}

fn in_turns(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> (f64, f64) {
    let times = (0..ROUNDS).map(|_| (ours(), theirs())).collect::<Vec<_>>();
    let (ours, theirs) = times.into_iter().unzip();
    (median(ours), median(theirs))
}

fn timed<T>(call: impl FnOnce() -> T) -> (T, f64) {
    let began = Instant::now();
    (call(), began.elapsed().as_secs_f64())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn row(what: &str, ours: f64, theirs: f64, ratio: f64, wanted: &str) {
    println!("| {what} | {} | {} | {ratio:.2} | {wanted} |", time(ours), time(theirs));
}

fn time(seconds: f64) -> String {
    format!("{:.1?}", Duration::from_secs_f64(seconds))
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_micros(200));
    }
}
