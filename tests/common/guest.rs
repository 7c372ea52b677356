//! Tiny guests: ELF files of a few dozen instructions, which Firecracker enters in 64-bit mode.
//!
//! The same file holds the guest's behaviour as a script for the simulator, which runs no machine code.

use std::path::{Path, PathBuf};

/// What a guest does after it has printed "hello".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Halts for ever; hears no Ctrl-Alt-Del.
    Halt,
    /// Powers off on Ctrl-Alt-Del.
    Obey,
    /// Powers off at once.
    Off,
    /// Crashes at once (a triple fault).
    Crash,
    /// Counts for ever, in memory at 32 MiB.
    Count,
    /// Prints for ever.
    Flood,
    /// Is no kernel at all.
    NoElf,
}

const ALL: [Guest; 7] =
    [Guest::Halt, Guest::Obey, Guest::Off, Guest::Crash, Guest::Count, Guest::Flood, Guest::NoElf];

const LOAD: u64 = 0x100_0000;
const PAGE: u64 = 0x1000;
const FILE_PAGE: usize = 0x1000;

/// Writes the guest into `directory` and says where.
pub fn write(directory: &Path, guest: Guest) -> PathBuf {
    let path = directory.join(format!("{guest:?}.elf").to_lowercase());
    std::fs::write(&path, image(guest)).unwrap();
    path
}

/// Writes every guest into `directory`, under its name in small letters.
pub fn write_all(directory: &Path) {
    ALL.into_iter().for_each(|guest| drop(write(directory, guest)));
}

fn image(guest: Guest) -> Vec<u8> {
    const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
    const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
    // Until the keyboard controller gives the scan code of Del: look again.
    const UNTIL_DEL: &[u8] =
        &[0xf3, 0x90, 0xe4, 0x64, 0xa8, 0x01, 0x74, 0xf8, 0xe4, 0x60, 0x3c, 0x71, 0x75, 0xf2];
    // An undefined instruction, with no handler for it, nor for the fault that follows.
    const UNDEFINED: &[u8] = &[0x0f, 0x0b];
    // mov ebx, 32 MiB; then for ever: inc qword [rbx].
    const COUNT: &[u8] = &[0xbb, 0, 0, 0, 2, 0x48, 0xff, 0x03, 0xeb, 0xfb];
    // For ever: out dx, al; the port and the last letter are those of the greeting.
    const FLOOD: &[u8] = &[0xee, 0xeb, 0xfd];
    let (code, script) = match guest {
        Guest::Halt => (HALT.to_vec(), "halt"),
        Guest::Obey => ([UNTIL_DEL, RESET].concat(), "obey"),
        Guest::Off => (RESET.to_vec(), "off"),
        Guest::Crash => (UNDEFINED.to_vec(), "crash"),
        Guest::Count => (COUNT.to_vec(), "count"),
        Guest::Flood => (FLOOD.to_vec(), "flood"),
        Guest::NoElf => return b"this is no kernel\n".repeat(100),
    };
    let script = format!("#!mvm-guest\nsay hello\n{script}\n\0");
    elf(&[&say("hello\n"), code.as_slice(), script.as_bytes()].concat())
}

/// mov dx, 0x3f8, then for each byte: mov al, byte; out dx, al.
fn say(text: &str) -> Vec<u8> {
    let port = [0x66, 0xba, 0xf8, 0x03];
    port.into_iter().chain(text.bytes().flat_map(|byte| [0xb0, byte, 0xee])).collect()
}

fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let word = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&mut file, &[2, 62]);
    word(&mut file, &[1]);
    long(&mut file, &[LOAD, 64, 0]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    word(&mut file, &[1, 7]);
    long(&mut file, &[PAGE, LOAD, LOAD, PAGE, PAGE, PAGE]);
    file.resize(FILE_PAGE, 0);
    file.extend_from_slice(code);
    file.resize(2 * FILE_PAGE, 0);
    file
}
