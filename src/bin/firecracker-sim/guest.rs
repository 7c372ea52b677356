//! The scripted guest: a thread that does what its kernel file says, one command a line, while the machine
//! runs. Pausing stops it where it is, and what it has left to do is part of a snapshot.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::log::{self, Speaker};
use crate::metrics;
use mvm::sys::sync::lock;

/// How often a busy guest looks up from its work; also the most it goes on after a pause.
const WORK_SLICE: Duration = Duration::from_millis(1);

/// What a guest does from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script {
    commands: Vec<Command>,
    /// A guest with drivers answers to its balloon and its hotpluggable memory.
    pub(crate) has_drivers: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Command {
    Say(String),
    Sleep(Duration),
    Halt,
    Obey,
    Off,
    Crash,
    Count,
    Flood,
}

/// How a guest ends; most never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    PoweredOff,
    TripleFault,
}

/// A guest as a snapshot keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GuestState {
    pub(crate) script: Script,
    /// The command it is at, and for how long it has been at it, where that matters.
    position: usize,
    slept: Duration,
    pub(crate) counter: u64,
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
}

#[derive(Debug)]
struct Progress {
    state: GuestState,
    is_running: bool,
    ctrl_alt_del: bool,
}

impl Script {
    /// What a kernel without a script does: it boots like a small Linux, and obeys.
    pub(crate) fn well_behaved() -> Self {
        let boot = ["Linux version 6.1.0 (simulated)", "Run /sbin/init as init process", "login:"];
        let mut commands: Vec<Command> = boot.iter().map(|line| Command::Say((*line).to_owned())).collect();
        commands.push(Command::Obey);
        Self { commands, has_drivers: true }
    }

    /// A line that is no command is said on the console, and the guest halts there: a test sees its typing
    /// error.
    pub(crate) fn parse(text: &str) -> Self {
        let mut commands: Vec<Command> = Vec::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match Command::parse(line) {
                Some(command) => commands.push(command),
                None => {
                    commands.push(Command::Say(format!("firecracker-sim: no such guest command: {line}")));
                    break;
                }
            }
        }
        commands.push(Command::Halt);
        Self { commands, has_drivers: false }
    }
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        let (name, argument) = line.split_once(' ').unwrap_or((line, ""));
        Some(match (name, argument) {
            ("say", text) => Self::Say(text.to_owned()),
            ("sleep", milliseconds) => Self::Sleep(Duration::from_millis(milliseconds.parse().ok()?)),
            ("halt", "") => Self::Halt,
            ("obey", "") => Self::Obey,
            ("off", "") => Self::Off,
            ("crash", "") => Self::Crash,
            ("count", "") => Self::Count,
            ("flood", "") => Self::Flood,
            _ => return None,
        })
    }
}

impl GuestState {
    pub(crate) fn at_start(script: Script) -> Self {
        Self { script, position: 0, slept: Duration::ZERO, counter: 0 }
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
    pub(crate) fn new(state: GuestState) -> Self {
        let progress = Progress { state, is_running: false, ctrl_alt_del: false };
        Self { shared: Arc::new(Shared { progress: Mutex::new(progress), changed: Condvar::new() }) }
    }

    pub(crate) fn pause(&self) {
        self.change(|progress| progress.is_running = false);
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

    /// Does what the script says, until it ends; a halted guest never does.
    pub(crate) fn run(&self, mut serial: Serial) -> Ending {
        loop {
            let command = {
                let progress = self.while_running();
                progress.state.script.commands.get(progress.state.position).cloned().unwrap_or(Command::Halt)
            };
            match command {
                Command::Say(text) => serial.print(&format!("{text}\n")),
                Command::Sleep(time) => self.sleep(time),
                Command::Halt => self.halt(),
                Command::Obey => {
                    self.wait_for_ctrl_alt_del();
                    return Ending::PoweredOff;
                }
                Command::Off => return Ending::PoweredOff,
                Command::Crash => {
                    let line = "Unexpected exit reason on vcpu run: Shutdown";
                    log::error(Speaker::Vcpu, "src/vmm/src/vstate/vcpu.rs:452", line);
                    metrics::count("vcpu", "failures");
                    return Ending::TripleFault;
                }
                Command::Count => self.count(),
                Command::Flood => {
                    serial.print("The quick brown fox jumps over the lazy dog.\n");
                    continue;
                }
            }
            let mut progress = lock(&self.shared.progress);
            progress.state.position += 1;
            progress.state.slept = Duration::ZERO;
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

    /// The time that a machine is paused is no time to its guest.
    fn sleep(&self, time: Duration) {
        loop {
            let progress = self.while_running();
            let left = time.saturating_sub(progress.state.slept);
            if left.is_zero() {
                return;
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
        let _pressed = self.shared.changed.wait_while(progress, deaf);
    }

    fn count(&self) {
        loop {
            let mut progress = self.while_running();
            progress.state.counter = progress.state.counter.wrapping_add(1);
            // The guest is to be busy, the host's processor is not.
            let _slice = self.shared.changed.wait_timeout(progress, WORK_SLICE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_command_a_line_and_then_halts() {
        let script = Script::parse("say hello  world\nsleep 20\noff\n");
        let expected = [
            Command::Say("hello  world".to_owned()),
            Command::Sleep(Duration::from_millis(20)),
            Command::Off,
            Command::Halt,
        ];
        assert_eq!(script.commands, expected);
    }

    #[test]
    fn a_typing_error_in_a_script_is_seen_on_the_console() {
        let script = Script::parse("sleep soon\noff\n");
        assert!(
            matches!(&script.commands[..], [Command::Say(text), Command::Halt] if text.contains("sleep soon"))
        );
    }

    #[test]
    fn a_paused_guest_does_not_end() {
        let guest = Guest::new(GuestState::at_start(Script::parse("off")));
        let runner = guest.clone();
        let thread = std::thread::spawn(move || runner.run(Serial::Stdout));
        assert!(!thread.is_finished());
        guest.resume();
        assert_eq!(thread.join().unwrap(), Ending::PoweredOff);
    }
}
