//! What a guest does, as its kernel file says it: one command a line. How it is done is the parent module's.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a guest does from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(super) commands: Vec<Command>,
    /// A guest with drivers answers to its balloon and its hotpluggable memory.
    pub(crate) has_drivers: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Command {
    Say(String),
    Sleep(Duration),
    Halt,
    /// Until Ctrl-Alt-Del.
    Await,
    Off,
    Crash,
    Count,
    Report,
    Flood,
    /// From page to page of these addresses.
    Walk(Walk, Range<u64>),
    /// All pages of these addresses, from so many threads at once.
    Storm(u64, Range<u64>),
    /// So many commands.
    Back(usize),
}

/// What is done at each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Walk {
    Fill,
    Check,
    /// The same in an order that no read-ahead foresees.
    CheckScattered,
    Dirty,
}

impl Script {
    /// What a kernel without a script does: it boots like a small Linux, and obeys.
    pub(crate) fn well_behaved() -> Self {
        let boot = ["Linux version 6.1.0 (simulated)", "Run /sbin/init as init process", "login:"];
        let mut commands: Vec<Command> = boot.iter().map(|line| Command::Say((*line).to_owned())).collect();
        commands.extend([Command::Await, Command::Off]);
        Self { commands, has_drivers: true }
    }

    /// A line that is no command is said on the console, and the guest halts there: a test sees its typing
    /// error.
    pub(crate) fn parse(text: &str) -> Self {
        let mut commands: Vec<Command> = Vec::new();
        let mut has_drivers = false;
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match (line, Command::parse(line)) {
                ("drivers", _) => has_drivers = true,
                ("obey", _) => commands.extend([Command::Await, Command::Off]),
                (_, Some(command)) => commands.push(command),
                (_, None) => {
                    commands.push(Command::Say(format!("firecracker-sim: no such guest command: {line}")));
                    break;
                }
            }
        }
        commands.push(Command::Halt);
        Self { commands, has_drivers }
    }
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        let (name, argument) = line.split_once(' ').unwrap_or((line, ""));
        Some(match (name, argument) {
            ("say", text) => Self::Say(text.to_owned()),
            ("sleep", milliseconds) => Self::Sleep(Duration::from_millis(milliseconds.parse().ok()?)),
            ("halt", "") => Self::Halt,
            ("await", "") => Self::Await,
            ("off", "") => Self::Off,
            ("crash", "") => Self::Crash,
            ("count", "") => Self::Count,
            ("report", "") => Self::Report,
            ("flood", "") => Self::Flood,
            ("fill", range) => Self::Walk(Walk::Fill, addresses(range)?),
            ("check", range) => Self::Walk(Walk::Check, addresses(range)?),
            ("scatter", range) => Self::Walk(Walk::CheckScattered, addresses(range).filter(is_power_of_two)?),
            ("dirty", range) => Self::Walk(Walk::Dirty, addresses(range)?),
            ("storm", rest) => {
                let (threads, range) = rest.split_once(' ')?;
                Self::Storm(
                    threads.parse().ok().filter(|threads| (1..=64).contains(threads))?,
                    addresses(range)?,
                )
            }
            ("back", commands) => Self::Back(commands.parse().ok()?),
            _ => return None,
        })
    }
}

/// `FROM TO`, in MiB.
fn addresses(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once(' ')?;
    let (start, end): (u32, u32) = (start.parse().ok()?, end.parse().ok()?);
    (start < end).then(|| u64::from(start) << 20..u64::from(end) << 20)
}

fn is_power_of_two(range: &Range<u64>) -> bool {
    (range.end - range.start).is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_command_a_line_and_then_halts() {
        let script = Script::parse("say hello  world\nsleep 20\nfill 1 2\ndrivers\noff\n");
        let expected = [
            Command::Say("hello  world".to_owned()),
            Command::Sleep(Duration::from_millis(20)),
            Command::Walk(Walk::Fill, 1 << 20..2 << 20),
            Command::Off,
            Command::Halt,
        ];
        assert_eq!(script.commands, expected);
        assert!(script.has_drivers);
    }

    #[test]
    fn a_typing_error_in_a_script_is_seen_on_the_console() {
        for line in ["sleep soon", "fill 2 1", "scatter 1 4", "storm 0 1 2"] {
            let script = Script::parse(&format!("{line}\noff\n"));
            assert!(
                matches!(&script.commands[..], [Command::Say(text), Command::Halt] if text.contains(line)),
                "{line}"
            );
        }
    }
}
