//! What comes in from C, turned into Rust once: strings, arrays, and the places for results.
//!
//! Every raw pointer of the boundary is read or written here; the contract page of the header says what a caller
//! has to see to.

use super::failure::Failure;
use crate::settings;
use serde_json::Value;
use std::ffi::{CStr, CString, OsString, c_char};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// The text at `pointer`, which the caller lends for the call.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &'static str) -> Result<&'a str, Failure> {
    // SAFETY: passed on from the caller.
    unsafe { optional_text(pointer, name) }?.ok_or_else(|| Failure::null(name))
}

/// The same where NULL means that there is none.
pub(super) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &'static str,
) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller passes NULL or a NUL-terminated string that stays as it is during the call.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|_| Failure::not_utf8(name))
}

/// A JSON document.
pub(super) unsafe fn json(pointer: *const c_char, name: &'static str) -> Result<Value, Failure> {
    // SAFETY: passed on from the caller.
    Ok(settings::parse(unsafe { text(pointer, name) }?)?)
}

/// The same where NULL means that there is none.
pub(super) unsafe fn optional_json(
    pointer: *const c_char,
    name: &'static str,
) -> Result<Option<Value>, Failure> {
    // SAFETY: passed on from the caller.
    let text = unsafe { optional_text(pointer, name) }?;
    Ok(text.map(settings::parse).transpose()?)
}

/// The strings of a NULL-terminated array; NULL is an empty one. They need not be UTF-8.
pub(super) unsafe fn string_array(mut pointer: *const *const c_char) -> Vec<OsString> {
    let mut strings = Vec::new();
    // SAFETY: the caller passes NULL or a NULL-terminated array of NUL-terminated strings, and `pointer` never
    // goes past the terminator.
    while let Some(string) = unsafe { pointer.as_ref() }.filter(|string| !string.is_null()) {
        // SAFETY: as above, `string` is NUL-terminated.
        strings.push(OsString::from_vec(unsafe { CStr::from_ptr(*string) }.to_bytes().to_vec()));
        // SAFETY: the terminator has not been reached, so the next element is still in the array.
        pointer = unsafe { pointer.add(1) };
    }
    strings
}

/// The three descriptors at `pointer`, or three times "none".
pub(super) unsafe fn three_descriptors(pointer: *const i32) -> [i32; 3] {
    if pointer.is_null() {
        return [-1; 3];
    }
    // SAFETY: the caller passes NULL or three readable ints.
    unsafe { pointer.cast::<[i32; 3]>().read_unaligned() }
}

/// A buffer of the caller's; NULL is fine when it is empty.
pub(super) unsafe fn buffer<'a>(
    pointer: *mut u8,
    length: usize,
    name: &'static str,
) -> Result<&'a mut [u8], Failure> {
    match (pointer.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Failure::null(name)),
        // SAFETY: the caller passes `length` writable bytes, of which nobody else makes use during the call. No
        // object is larger than isize::MAX, so a greater length is capped and never reached.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts_mut(pointer, length.min(isize::MAX as usize)) }),
    }
}

/// A buffer of the caller's, which holds the empty string if it has room for anything.
pub(super) unsafe fn empty_string<'a>(
    buffer: *mut c_char,
    length: usize,
    name: &'static str,
) -> Result<&'a mut [u8], Failure> {
    // SAFETY: passed on from the caller; a char is a byte.
    let buffer = unsafe { self::buffer(buffer.cast::<u8>(), length, name) }?;
    buffer.iter_mut().take(1).for_each(|first| *first = 0);
    Ok(buffer)
}

/// Puts `text` and a NUL into the caller's buffer, or nothing but the NUL when it has no room for all.
pub(super) unsafe fn write_string(
    buffer: *mut c_char,
    length: usize,
    text: &str,
    name: &'static str,
) -> Result<(), Failure> {
    // SAFETY: passed on from the caller.
    let buffer = unsafe { empty_string(buffer, length, name) }?;
    let text = text.as_bytes();
    let least = text.len() + 1;
    let Some((terminator, place)) = buffer.get_mut(..least).and_then(<[u8]>::split_last_mut) else {
        return Err(Failure::too_small(name, length, least));
    };
    place.copy_from_slice(text);
    *terminator = 0;
    Ok(())
}

/// A place for a result, which already holds what it is to hold when the call fails.
pub(super) struct Out<'a, T: Copy> {
    place: *mut T,
    length: usize,
    lent: PhantomData<&'a mut T>,
}

impl<T: Copy> Out<'_, T> {
    /// Puts the result there; nowhere, when the caller passed NULL where that is allowed.
    pub(super) fn write(&self, value: T) {
        if !self.place.is_null() {
            // SAFETY: `length` bytes are writable at `place`, and at most `size_of::<T>()` of them are taken.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    (&raw const value).cast(),
                    self.place.cast::<u8>(),
                    self.length,
                );
            }
        }
    }
}

impl Out<'_, *mut c_char> {
    /// Puts text there, which the caller frees with `mvm_string_free`; none is made where none is wanted.
    pub(super) fn write_text(&self, text: &impl ToString) {
        if self.place.is_null() {
            return;
        }
        self.write(owned_text(&text.to_string()).into_raw());
    }
}

/// `text` as C has it, with a space for each NUL in it.
pub(super) fn owned_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// The place for a result that the caller must want.
pub(super) unsafe fn out<'a, T: Copy>(
    place: *mut T,
    empty: T,
    name: &'static str,
) -> Result<Out<'a, T>, Failure> {
    if place.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: passed on from the caller.
    Ok(unsafe { optional_out(place, empty) })
}

/// The place for a result that the caller may not want: NULL then.
pub(super) unsafe fn optional_out<'a, T: Copy>(place: *mut T, empty: T) -> Out<'a, T> {
    if !place.is_null() {
        // SAFETY: the caller passes NULL or a writable place, aligned as its type asks.
        unsafe { place.write(empty) };
    }
    Out { place, length: size_of::<T>(), lent: PhantomData }
}

/// The places for so many results, each of which holds `empty` already.
pub(super) unsafe fn out_array<'a, T: Copy>(
    places: *mut T,
    count: usize,
    empty: T,
    name: &'static str,
) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    if places.is_null() {
        return Err(Failure::null(name));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::argument(format!("{count} is more than {name:?} can have room for")));
    }
    for index in 0..count {
        // SAFETY: the caller passes writable places for `count` elements, aligned as their type asks.
        unsafe { places.add(index).write(empty) };
    }
    // SAFETY: as above; all of them hold a value now, and nobody else uses them during the call.
    Ok(unsafe { std::slice::from_raw_parts_mut(places, count) })
}

/// A struct that begins with its size, as the caller's header knew it.
pub(super) trait Sized32: Copy {
    /// Its size in the first release that had it; no caller knows a smaller one.
    const FIRST_SIZE: usize;
    /// What it holds when there is nothing to say, with `size` as its size.
    fn empty(size: u32) -> Self;
    /// The same struct with `size` as its size.
    fn with_size(self, size: u32) -> Self;
}

/// The place for such a struct, as much of it as the caller knows.
pub(super) unsafe fn sized_out<'a, T: Sized32>(
    place: *mut T,
    name: &'static str,
) -> Result<SizedOut<'a, T>, Failure> {
    if place.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: every such struct begins with a u32 that the caller has set; only that is read, because the rest
    // of a caller's older struct may not be there.
    let size = unsafe { place.cast::<u32>().read() };
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if length < T::FIRST_SIZE {
        return Err(Failure::too_small(name, length, T::FIRST_SIZE));
    }
    let length = length.min(size_of::<T>());
    let out = SizedOut { size, out: Out { place, length, lent: PhantomData } };
    out.write(T::empty(size));
    Ok(out)
}

/// See [`sized_out`].
pub(super) struct SizedOut<'a, T: Sized32> {
    size: u32,
    out: Out<'a, T>,
}

impl<T: Sized32> SizedOut<'_, T> {
    /// Puts the result there, with the caller's own size.
    pub(super) fn write(&self, value: T) {
        self.out.write(value.with_size(self.size));
    }
}

/// `text` with a NUL behind it, cut at a character where it is too long, without NULs inside.
pub(super) fn fixed<const N: usize>(text: &str) -> [c_char; N] {
    let end = text.floor_char_boundary(N - 1);
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().zip(text.as_bytes().iter().take(end)) {
        *place = if *byte == 0 { b' ' } else { *byte }.cast_signed() as c_char;
    }
    bytes
}

/// Takes back what [`Out::write_text`] has given.
pub(super) unsafe fn free_text(pointer: *mut c_char) {
    if !pointer.is_null() {
        // SAFETY: the caller passes what `write_text` made, once.
        drop(unsafe { CString::from_raw(pointer) });
    }
}

/// Which of the `known` flags are set; no other may be.
pub(super) fn flags<const N: usize>(given: u32, known: [u32; N]) -> Result<[bool; N], Failure> {
    let unknown = known.iter().fold(given, |rest, flag| rest & !flag);
    match unknown {
        0 => Ok(known.map(|flag| given & flag != 0)),
        _ => Err(Failure::argument(format!("{unknown:#x} in \"flags\" is not a flag of this call"))),
    }
}

/// Milliseconds; `MVM_FOREVER` is so long that it never ends.
pub(super) fn milliseconds(ms: u64) -> Duration {
    if ms == u64::MAX { Duration::MAX } else { Duration::from_millis(ms) }
}

/// The longest time between two checks of a process; zero sets no limit.
pub(super) fn poll_interval(ms: u64) -> Option<Duration> {
    (ms != 0).then(|| milliseconds(ms))
}
