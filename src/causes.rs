//! An error and its causes as one line of text.

use std::error::Error;

/// The error and its causes, without line breaks.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.replace(['\n', '\r'], " ")
}
