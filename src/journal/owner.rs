//! Who owns a state directory, as its lock file says; whether that is true, the lock itself and `/proc` tell.

use crate::process::Identity;
use crate::sys::mask;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The name of the file that an owner locks.
pub(crate) const LOCK: &str = "lock";

/// The file itself.
pub(crate) fn lock_file(directory: &Path) -> PathBuf {
    directory.join(LOCK)
}

/// Says in the lock file who has locked it.
pub(crate) fn write_owner(mut file: &File, owner: Identity, boot: &str) -> io::Result<()> {
    let Identity { pid, started } = owner;
    file.set_len(0)?;
    file.rewind()?;
    mask::without_sigxfsz(|| file.write_all(format!("{pid} {started} {boot}\n").as_bytes()))
}

/// Says that nobody has locked it.
pub(crate) fn strike_out_owner(file: &File) -> io::Result<()> {
    file.set_len(0)
}

/// Whom the lock file names; one of another boot of the machine is nobody.
pub(crate) fn read_owner(mut file: &File, boot: &str) -> Option<Identity> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(128).read_to_string(&mut text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let identity = Identity { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
    (words.next()? == boot).then_some(identity)
}
