//! Guests for both VMMs: an ELF file that holds real machine code, which Firecracker runs in long mode, and
//! the same deeds as a script, which the simulator reads. No kernel and no assembler are needed.

use std::fs;
use std::io;
use std::path::Path;

const LOAD_ADDRESS: u64 = 16 << 20;
const CODE_OFFSET: u16 = 0x1000;

/// Every guest says hello first; then each does what it is named after.
const GUESTS: &[(&str, &[u8], &str)] = &[
    ("halt", HALT, "halt"),
    ("off", OFF, "off"),
    ("crash", CRASH, "crash"),
    ("count", COUNT, "count"),
    ("obey", OBEY, "obey"),
];

/// `hlt; jmp` back to it.
const HALT: &[u8] = b"\xf4\xeb\xfd";
/// `mov al, 0xfe; out 0x64, al`: the keyboard controller resets the machine.
const OFF: &[u8] = b"\xb0\xfe\xe6\x64\xf4\xeb\xfd";
/// `ud2`, with no handler for it, nor for the fault that follows.
const CRASH: &[u8] = b"\x0f\x0b";
/// `mov ebx, 32 MiB; inc qword [rbx]; jmp` back to the increment.
const COUNT: &[u8] = b"\xbb\x00\x00\x00\x02\x48\xff\x03\xeb\xfb";
/// `in al, 0x64; test al, 1; pause; jz` back; then as `OFF`: any key will do.
const OBEY: &[u8] = b"\xe4\x64\xa8\x01\xf3\x90\x74\xf8\xb0\xfe\xe6\x64\xf4\xeb\xfd";

/// Writes `<name>.elf` for each guest.
pub(crate) fn write_all(directory: &Path) -> io::Result<()> {
    for (name, tail, deed) in GUESTS {
        let script = format!("#!mvm-guest\nsay hello\n{deed}\n\0");
        let code = [say("hello\n").as_slice(), tail, script.as_bytes()].concat();
        fs::write(directory.join(format!("{name}.elf")), elf(&code))?;
    }
    Ok(())
}

/// `mov dx, 0x3f8`, then `mov al, BYTE; out dx, al` for each byte.
fn say(text: &str) -> Vec<u8> {
    let mut code = b"\x66\xba\xf8\x03".to_vec();
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]);
    }
    code
}

/// One loadable segment, entered at its start.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for (value, size) in [
        (2, 2),
        (62, 2),
        (1, 4),
        (LOAD_ADDRESS, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (0, 2),
        (0, 2),
        (0, 2),
    ] {
        push(&mut file, value, size);
    }
    let length = code.len() as u64;
    for (value, size) in [
        (1, 4),
        (7, 4),
        (CODE_OFFSET.into(), 8),
        (LOAD_ADDRESS, 8),
        (LOAD_ADDRESS, 8),
        (length, 8),
        (length.max(4096), 8),
        (0x1000, 8),
    ] {
        push(&mut file, value, size);
    }
    file.resize(CODE_OFFSET.into(), 0);
    file.extend_from_slice(code);
    file
}

fn push(file: &mut Vec<u8>, value: u64, size: usize) {
    file.extend_from_slice(&value.to_le_bytes()[..size]);
}
