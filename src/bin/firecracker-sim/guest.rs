//! The scripted guest: a thread that does what its kernel file says while the machine runs, in the guest's memory.
//! Pausing stops it between two steps of its work; what it has left to do is part of a snapshot.

mod script;

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::log::{self, Speaker};
use crate::memory::GuestMemory;
use crate::metrics;
use mvm::sys::sync::lock;
pub(crate) use script::Script;
use script::{Command, Walk};

/// How often a busy guest looks up from its work.
const WORK_SLICE: Duration = Duration::from_millis(1);
/// How often one reports.
const REPORT_PACE: Duration = Duration::from_millis(20);
/// How many pages a walk comes to in one step; the most it goes on after a pause.
const PAGES_PER_STEP: u64 = 64;
const PAGE: u64 = 4096;
/// Where a counting guest counts.
const COUNTER_ADDRESS: u64 = 32 << 20;
/// The word of an address is its product with this.
const PATTERN_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a guest ends; most never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    PoweredOff,
    TripleFault,
}

/// What came of asking it to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Done,
    NotYet,
}

/// A guest as a snapshot keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GuestState {
    pub(crate) script: Script,
    /// The command it is at, and how far it has come with it.
    position: usize,
    slept: Duration,
    walked: Walked,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Walked {
    pages: u64,
    /// The number of the page before, where the order is not the natural one.
    last: u64,
    has_found_wrong_word: bool,
}

/// The console's other end.
#[derive(Debug)]
pub(crate) enum Serial {
    Stdout,
    File(File),
}

/// The handle by which the machine pauses, resumes and addresses its guest.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
    memory: Arc<GuestMemory>,
}

#[derive(Debug)]
struct Progress {
    state: GuestState,
    is_running: bool,
    /// In the middle of a step; a page fault can keep it there.
    is_at_work: bool,
    ctrl_alt_del: bool,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// More of the same.
    Stay(Walked),
    Advance,
    Back(usize),
}

impl GuestState {
    pub(crate) fn at_start(script: Script) -> Self {
        Self { script, position: 0, slept: Duration::ZERO, walked: Walked::default() }
    }

    fn go(&mut self, next: Next) {
        let position = match next {
            Next::Stay(walked) => {
                self.walked = walked;
                return;
            }
            Next::Advance => self.position + 1,
            Next::Back(commands) => self.position.saturating_sub(commands),
        };
        (self.position, self.slept, self.walked) = (position, Duration::ZERO, Walked::default());
    }
}

impl Serial {
    /// Where nobody listens any more the guest is not told.
    fn print(&mut self, line: &str) {
        let _ = match self {
            Self::Stdout => log::write_to_stdout(line.as_bytes()),
            Self::File(file) => file.write_all(line.as_bytes()),
        };
        let bytes = line.len() as u64;
        metrics::add("uart", "write_count", bytes);
        metrics::add("vcpu", "exit_io_out", bytes);
    }
}

impl Guest {
    pub(crate) fn new(state: GuestState, memory: Arc<GuestMemory>) -> Self {
        let progress = Progress { state, is_running: false, is_at_work: false, ctrl_alt_del: false };
        Self { shared: Arc::new(Shared { progress: Mutex::new(progress), changed: Condvar::new(), memory }) }
    }

    /// Returns when it has come to a stop, and its memory does not change any more, or when patience is at its end.
    pub(crate) fn pause(&self, patience: Duration) -> Stop {
        self.change(|progress| progress.is_running = false);
        let progress = lock(&self.shared.progress);
        let at_work = |progress: &mut Progress| progress.is_at_work;
        let waited = self.shared.changed.wait_timeout_while(progress, patience, at_work);
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if progress.is_at_work { Stop::NotYet } else { Stop::Done }
    }

    pub(crate) fn resume(&self) {
        self.change(|progress| progress.is_running = true);
    }

    pub(crate) fn press_ctrl_alt_del(&self) {
        self.change(|progress| progress.ctrl_alt_del = true);
    }

    pub(crate) fn state(&self) -> GuestState {
        lock(&self.shared.progress).state.clone()
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    /// Does what the script says, until it ends; a halted guest never does.
    pub(crate) fn run(&self, mut serial: Serial) -> Ending {
        loop {
            let command = {
                let progress = self.while_running();
                progress.state.script.commands.get(progress.state.position).cloned().unwrap_or(Command::Halt)
            };
            match command {
                Command::Off => return Ending::PoweredOff,
                Command::Crash => {
                    let line = "Unexpected exit reason on vcpu run: Shutdown";
                    log::error(Speaker::Vcpu, "src/vmm/src/vstate/vcpu.rs:452", line);
                    metrics::count("vcpu", "failures");
                    return Ending::TripleFault;
                }
                Command::Halt => self.halt(),
                Command::Await => self.wait_for_ctrl_alt_del(),
                Command::Sleep(time) => self.sleep(time),
                working => self.work(&working, &mut serial),
            }
        }
    }

    /// One step of what it does; a pause waits for its end.
    fn work(&self, command: &Command, serial: &mut Serial) {
        let walked = {
            let mut progress = self.while_running();
            progress.is_at_work = true;
            progress.state.walked
        };
        let memory = self.memory();
        let next = match command {
            Command::Say(text) => {
                serial.print(&format!("{text}\n"));
                Next::Advance
            }
            Command::Count => {
                count(memory);
                Next::Stay(walked)
            }
            Command::Report => {
                serial.print(&format!("{:016x}\n", count(memory)));
                Next::Stay(walked)
            }
            Command::Flood => {
                serial.print("The quick brown fox jumps over the lazy dog.\n");
                Next::Stay(walked)
            }
            Command::Walk(walk, range) => step(memory, *walk, range, walked, serial),
            Command::Storm(threads, range) => {
                storm(memory, *threads, range);
                Next::Advance
            }
            Command::Back(commands) => Next::Back(*commands),
            _ => Next::Advance,
        };
        self.change(|progress| {
            progress.is_at_work = false;
            progress.state.go(next);
        });
        match command {
            Command::Count => self.doze(WORK_SLICE),
            Command::Report => self.doze(REPORT_PACE),
            _ => {}
        }
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.shared.progress));
        self.shared.changed.notify_all();
    }

    /// Waits until the machine runs.
    fn while_running(&self) -> MutexGuard<'_, Progress> {
        let progress = lock(&self.shared.progress);
        let waited = self.shared.changed.wait_while(progress, |progress| !progress.is_running);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest is to be busy, the host's processor is not.
    fn doze(&self, time: Duration) {
        let _slice = self.shared.changed.wait_timeout(lock(&self.shared.progress), time);
    }

    /// The time that a machine is paused is no time to its guest.
    fn sleep(&self, time: Duration) {
        loop {
            let mut progress = self.while_running();
            let left = time.saturating_sub(progress.state.slept);
            if left.is_zero() {
                return progress.state.go(Next::Advance);
            }
            let started = Instant::now();
            let waited = self.shared.changed.wait_timeout(progress, left);
            let (mut progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
            progress.state.slept += started.elapsed();
        }
    }

    fn halt(&self) {
        let progress = lock(&self.shared.progress);
        let _never = self.shared.changed.wait_while(progress, |_| true);
    }

    fn wait_for_ctrl_alt_del(&self) {
        let progress = lock(&self.shared.progress);
        let deaf = |progress: &mut Progress| !(progress.is_running && progress.ctrl_alt_del);
        let waited = self.shared.changed.wait_while(progress, deaf);
        let mut progress = waited.unwrap_or_else(PoisonError::into_inner);
        progress.ctrl_alt_del = false;
        progress.state.go(Next::Advance);
    }
}

fn count(memory: &GuestMemory) -> u64 {
    let counted = memory.word(COUNTER_ADDRESS).wrapping_add(1);
    memory.set_word(COUNTER_ADDRESS, counted);
    counted
}

fn step(
    memory: &GuestMemory,
    walk: Walk,
    range: &Range<u64>,
    mut walked: Walked,
    serial: &mut Serial,
) -> Next {
    let pages = (range.end - range.start) / PAGE;
    for _ in 0..PAGES_PER_STEP.min(pages - walked.pages) {
        let page = match walk {
            Walk::CheckScattered => scattered(walked.last, pages),
            _ => walked.pages,
        };
        let address = range.start + page * PAGE;
        match walk {
            Walk::Fill => memory.set_word(address, pattern(address)),
            Walk::Check | Walk::CheckScattered => {
                walked.has_found_wrong_word |= memory.word(address) != pattern(address);
            }
            Walk::Dirty => memory.set_word(address, memory.word(address).wrapping_add(1)),
        }
        (walked.last, walked.pages) = (page, walked.pages + 1);
    }
    if walked.pages < pages {
        return Next::Stay(walked);
    }
    match walk {
        Walk::Check | Walk::CheckScattered if walked.has_found_wrong_word => serial.print("bad\n"),
        Walk::Check | Walk::CheckScattered => serial.print("ok\n"),
        Walk::Fill | Walk::Dirty => {}
    }
    Next::Advance
}

/// The threads take turns at the pages, so that they are close together at any time, as a storm of faults is.
fn storm(memory: &GuestMemory, threads: u64, range: &Range<u64>) {
    let touch = move |first: u64| {
        let mut address = range.start + first * PAGE;
        while address < range.end {
            memory.word(address);
            address += threads * PAGE;
        }
    };
    thread::scope(|scope| {
        for first in 0..threads {
            // A thread that cannot be had leaves its pages alone.
            let named = thread::Builder::new().name(format!("fc_vcpu {first}"));
            let _ = named.spawn_scoped(scope, move || touch(first));
        }
    });
}

fn pattern(address: u64) -> u64 {
    address.wrapping_mul(PATTERN_FACTOR)
}

/// The page after `last` in an order that comes to each once; their number is a power of two.
fn scattered(last: u64, pages: u64) -> u64 {
    last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (pages - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MachineConfig;
    use crate::memory::Layout;

    fn guest(script: &str) -> Guest {
        let machine = MachineConfig { mem_size_mib: 4, ..MachineConfig::default() };
        let memory = GuestMemory::new(&Layout::of(&machine, None)).unwrap();
        Guest::new(GuestState::at_start(Script::parse(script)), Arc::new(memory))
    }

    #[test]
    fn a_paused_guest_does_not_end() {
        let guest = guest("off");
        let runner = guest.clone();
        let thread = thread::spawn(move || runner.run(Serial::Stdout));
        assert!(!thread.is_finished());
        guest.resume();
        assert_eq!(thread.join().unwrap(), Ending::PoweredOff);
    }

    #[test]
    fn a_pattern_is_found_in_any_order_where_it_was_filled_in() {
        let guest = guest("fill 1 3\ncheck 1 3\nscatter 1 3\nstorm 3 0 4\noff");
        guest.resume();
        assert_eq!(guest.run(Serial::File(File::create("/dev/null").unwrap())), Ending::PoweredOff);
        assert_eq!(guest.memory().word(1 << 20), pattern(1 << 20));
        assert_eq!(guest.memory().word((3 << 20) - PAGE), pattern((3 << 20) - PAGE));
    }

    #[test]
    fn a_scattered_order_comes_to_each_page_once() {
        let mut seen = [false; 256];
        let mut page = 0;
        for _ in 0..256 {
            page = scattered(page, 256);
            seen[usize::try_from(page).unwrap()] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
