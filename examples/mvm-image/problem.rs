//! What can go wrong with the making of an image.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}\n\n{usage}", usage = crate::USAGE)]
    Usage(String),
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the archive is not used: {}: {what}", path.display())]
    Archive { path: PathBuf, what: &'static str },
    #[error("the archive has {what}: this is not an image that anybody wants")]
    TooMuch { what: &'static str },
    #[error("the OCI image is not usable: {what}")]
    Oci { what: String },
    #[error("{program} has failed: {said}")]
    Program { program: &'static str, said: String },
    #[error("cannot run {program}: install e2fsprogs")]
    NoProgram { program: &'static str, source: io::Error },
}

impl Problem {
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
