//! What stands beside a directory that comes whole and goes whole: it is made aside and renamed to its place; to be
//! removed it is renamed out of it first. What stands aside is this library's own half-done work.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const MAKING: &str = ".new";
const REMOVAL: &str = ".gone";

/// Where `directory` is made.
pub(crate) fn making_of(directory: &Path) -> PathBuf {
    beside(directory, MAKING)
}

/// Where `directory` is removed.
pub(crate) fn removal_of(directory: &Path) -> PathBuf {
    beside(directory, REMOVAL)
}

/// The name of the directory beside which an entry called `name` stands; nothing when it stands beside none.
pub(crate) fn stands_beside(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?.strip_prefix('.')?;
    name.strip_suffix(MAKING).or_else(|| name.strip_suffix(REMOVAL))
}

fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_aside_says_beside_what() {
        let directory = Path::new("/state/vms/web-1");
        for aside in [making_of(directory), removal_of(directory)] {
            assert_eq!(aside.parent(), directory.parent());
            assert_eq!(stands_beside(aside.file_name().unwrap()), Some("web-1"));
        }
        for name in ["", ".", "web-1", "web-1.new", ".web-1", "lost+found"] {
            assert_eq!(stands_beside(OsStr::new(name)), None, "{name}");
        }
    }
}
