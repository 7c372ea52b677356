//! Tiny guests: ELF files of a few dozen instructions, which Firecracker enters in 64-bit mode.
//!
//! The same file holds the guest's behaviour as a script for the simulator, which runs no machine code.

use std::ops::Range;
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
    /// The same, slowly, and prints each number: sixteen hexadecimal digits on a line.
    Report,
    /// Writes one word in each page from 64 to 96 MiB, prints "D", and halts.
    Dirty,
    /// Fills [`PATTERN`], prints "filled", then goes on looking whether it is still there: "ok" or "bad".
    Pattern,
    /// Fills [`PATTERN`], prints "filled", and looks whenever it hears Ctrl-Alt-Del, page after page.
    Scan,
    /// The same, in an order that no read-ahead foresees.
    Scatter,
    /// Prints for ever.
    Flood,
    /// Is no kernel at all.
    NoElf,
}

const ALL: [Guest; 12] = [
    Guest::Halt,
    Guest::Obey,
    Guest::Off,
    Guest::Crash,
    Guest::Count,
    Guest::Report,
    Guest::Dirty,
    Guest::Pattern,
    Guest::Scan,
    Guest::Scatter,
    Guest::Flood,
    Guest::NoElf,
];

/// Which MiB of their memory the guests fill that look after a pattern: the first word of each page. Another number
/// of them goes by [`write_with_pattern`]; they reach up to 1 GiB, which is what Firecracker maps for them, and stand
/// themselves in the page at 16 MiB.
pub const PATTERN: Range<u32> = 32..96;

const LOAD: u64 = 0x100_0000;
const PAGE: u64 = 0x1000;
const FILE_PAGE: usize = 0x1000;

/// Writes the guest into `directory` and says where.
pub fn write(directory: &Path, guest: Guest) -> PathBuf {
    write_with_pattern(directory, guest, &PATTERN)
}

/// The same, with the MiB that a guest fills; [`Guest::Scatter`] takes a power of two of them.
pub fn write_with_pattern(directory: &Path, guest: Guest, pattern: &Range<u32>) -> PathBuf {
    let path = directory.join(format!("{guest:?}.elf").to_lowercase());
    std::fs::write(&path, image(guest, pattern)).unwrap();
    path
}

/// Writes every guest into `directory`, under its name in small letters.
pub fn write_all(directory: &Path) {
    ALL.into_iter().for_each(|guest| drop(write(directory, guest)));
}

fn image(guest: Guest, pattern: &Range<u32>) -> Vec<u8> {
    if guest == Guest::NoElf {
        return b"this is no kernel\n".repeat(100);
    }
    let (code, script) = behaviour(guest, pattern);
    let script = format!("#!mvm-guest\nsay hello\n{script}\n\0");
    elf(&[&say("hello\n"), code.as_slice(), script.as_bytes()].concat())
}

/// The machine code behind the greeting, and the same as a script. The code finds the serial port in `dx`.
fn behaviour(guest: Guest, pattern: &Range<u32>) -> (Vec<u8>, String) {
    const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
    const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
    // An undefined instruction, with no handler for it, nor for the fault that follows.
    const UNDEFINED: &[u8] = &[0x0f, 0x0b];
    // mov ebx, 32 MiB; then for ever: inc qword [rbx].
    const COUNT: &[u8] = &[0xbb, 0, 0, 0, 2, 0x48, 0xff, 0x03, 0xeb, 0xfb];
    // For ever: out dx, al; the port and the last letter are those of the greeting.
    const FLOOD: &[u8] = &[0xee, 0xeb, 0xfd];
    let Range { start, end } = pattern;
    let (code, script) = match guest {
        Guest::Halt | Guest::NoElf => (HALT.to_vec(), "halt"),
        Guest::Obey => ([UNTIL_DEL, RESET].concat(), "obey"),
        Guest::Off => (RESET.to_vec(), "off"),
        Guest::Crash => (UNDEFINED.to_vec(), "crash"),
        Guest::Count => (COUNT.to_vec(), "count"),
        Guest::Report => (report(), "report"),
        Guest::Dirty => ([dirty(64..96), say("D\n"), HALT.to_vec()].concat(), "dirty 64 96\nsay D"),
        Guest::Flood => (FLOOD.to_vec(), "flood"),
        Guest::Pattern => {
            let script = format!("fill {start} {end}\nsay filled\ncheck {start} {end}\nsleep 20\nback 2");
            return (watch_pattern(pattern, &for_ever(&check(pattern, &[]), &delay())), script);
        }
        Guest::Scan => {
            let script = format!("fill {start} {end}\nsay filled\nawait\ncheck {start} {end}\nback 2");
            return (watch_pattern(pattern, &for_ever(UNTIL_DEL, &check(pattern, &[]))), script);
        }
        Guest::Scatter => {
            let script = format!("fill {start} {end}\nsay filled\nawait\nscatter {start} {end}\nback 2");
            return (
                watch_pattern(pattern, &for_ever(UNTIL_DEL, &check(pattern, &scattered(pattern)))),
                script,
            );
        }
    };
    (code, script.to_owned())
}

// Until the keyboard controller gives the scan code of Del: look again.
const UNTIL_DEL: &[u8] =
    &[0xf3, 0x90, 0xe4, 0x64, 0xa8, 0x01, 0x74, 0xf8, 0xe4, 0x60, 0x3c, 0x71, 0x75, 0xf2];

/// The word of an address is its product with this.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn watch_pattern(pattern: &Range<u32>, watch: &[u8]) -> Vec<u8> {
    // r8 is the factor from here on.
    let factor = [&[0x49, 0xb8][..], &FACTOR.to_le_bytes()].concat();
    let store = [0x48, 0x89, 0x0b]; // mov [rbx], rcx
    let fill = page_by_page(pattern, &[&WORD_OF_RBX[..], &store].concat());
    [factor, fill, say("filled\n"), watch.to_vec()].concat()
}

/// mov rcx, rbx; imul rcx, r8.
const WORD_OF_RBX: [u8; 7] = [0x48, 0x89, 0xd9, 0x49, 0x0f, 0xaf, 0xc8];

/// Looks at each page, in the order of `order` where it is not empty, and says "ok" or "bad".
fn check(pattern: &Range<u32>, order: &[u8]) -> Vec<u8> {
    let (ok, bad) = (say("ok\n"), say("bad\n"));
    // cmp [rbx], rcx; mov edi, 1 unless they are equal.
    let compare = [0x48, 0x39, 0x0b, 0x74, 0x05, 0xbf, 1, 0, 0, 0];
    let look = [&WORD_OF_RBX[..], &compare].concat();
    let pages = if order.is_empty() { page_by_page(pattern, &look) } else { in_order(pattern, order, &look) };
    // xor edi, edi; the pages; test edi, edi; jnz bad; ok; jmp behind; bad.
    let to_bad = [0x85, 0xff, 0x75, short(ok.len() + 2)];
    let behind = [0xeb, short(bad.len())];
    [&[0x31, 0xff], pages.as_slice(), &to_bad, &ok, &behind, &bad].concat()
}

/// Takes `body` to each page of a range, its address in rbx.
fn page_by_page(range: &Range<u32>, body: &[u8]) -> Vec<u8> {
    let mut code = [&[0xbb][..], &(range.start << 20).to_le_bytes(), body].concat(); // mov ebx, start
    code.extend([0x48, 0x81, 0xc3, 0, 0x10, 0, 0, 0x81, 0xfb]); // add rbx, 4096; cmp ebx, end
    code.extend((range.end << 20).to_le_bytes());
    let back = code.len() + 2 - 5;
    code.extend([0x72, short(back).wrapping_neg()]); // jb body
    code
}

/// esi is the page's number in an order that comes to each page once; the range is a power of two.
fn scattered(range: &Range<u32>) -> Vec<u8> {
    let pages = (range.end - range.start) << 8;
    assert!(pages.is_power_of_two(), "an order for {pages} pages");
    let [factor, summand] = [1_664_525u32, 1_013_904_223].map(u32::to_le_bytes);
    let mask = (pages - 1).to_le_bytes();
    // imul esi, esi, factor; add esi, summand; and esi, mask.
    [&[0x69, 0xf6][..], &factor, &[0x81, 0xc6], &summand, &[0x81, 0xe6], &mask].concat()
}

/// The same as `page_by_page`, with the page's number from `order`.
fn in_order(range: &Range<u32>, order: &[u8], body: &[u8]) -> Vec<u8> {
    let pages = ((range.end - range.start) << 8).to_le_bytes();
    let start = (range.start << 20).to_le_bytes();
    let head = [&[0x41, 0xb9][..], &pages, &[0x31, 0xf6]].concat(); // mov r9d, pages; xor esi, esi
    // mov ebx, esi; shl ebx, 12; add ebx, start.
    let address = [&[0x89, 0xf3, 0xc1, 0xe3, 12, 0x81, 0xc3][..], &start].concat();
    let round = [order, &address, body, &[0x41, 0xff, 0xc9]].concat(); // dec r9d
    let back = short(round.len() + 2).wrapping_neg();
    [head, round, vec![0x75, back]].concat()
}

fn dirty(range: Range<u32>) -> Vec<u8> {
    page_by_page(&range, &[0x48, 0xff, 0x03]) // inc qword [rbx]
}

/// Counts at 32 MiB, prints the number, and waits a little.
fn report() -> Vec<u8> {
    // mov ebx, 32 MiB; inc qword [rbx]; mov rsi, [rbx]; mov ecx, 16.
    let count = [0xbb, 0, 0, 0, 2, 0x48, 0xff, 0x03, 0x48, 0x8b, 0x33, 0xb9, 16, 0, 0, 0];
    // rol rsi, 4; mov eax, esi; and al, 15; add al, '0'; cmp al, '9'; jbe +2; add al, 39; out dx, al; dec ecx; jnz.
    let digits = [
        0x48, 0xc1, 0xc6, 4, 0x89, 0xf0, 0x24, 0x0f, 0x04, 0x30, 0x3c, 0x39, 0x76, 2, 0x04, 0x27, 0xee, 0xff,
        0xc9, 0x75, 0xeb,
    ];
    for_ever(&[&count[..], &digits, &[0xb0, b'\n', 0xee]].concat(), &delay())
}

/// Some twenty milliseconds by the clock: loops take very different times on different hosts.
fn delay() -> Vec<u8> {
    // rdtsc; mov edi, eax; then until 50 000 000 ticks have passed: rdtsc; sub eax, edi; cmp; jb. mov dx, 0x3f8.
    let ticks = 50_000_000_u32.to_le_bytes();
    [&[0x0f, 0x31, 0x89, 0xc7, 0x0f, 0x31, 0x29, 0xf8, 0x3d][..], &ticks, &[0x72, 0xf5, 0x66, 0xba, 0xf8, 3]]
        .concat()
}

/// The distance of a jump.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap()
}

fn for_ever(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u32::try_from(first.len() + second.len() + 5).unwrap();
    [first, second, &[0xe9], &length.wrapping_neg().to_le_bytes()].concat()
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
