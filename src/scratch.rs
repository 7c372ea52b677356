//! A path for a unit test's files. What stands there goes with the test, however it ends.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A path below the directory for temporary files, at which there is nothing yet.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Another one at each call.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mvm-unit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = std::fs::remove_file(&self.0);
        let _gone = removed.or_else(|_| std::fs::remove_dir_all(&self.0));
    }
}
