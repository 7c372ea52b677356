//! Reading the library's own JSON: strict about keys and types, and helpful about both.
//!
//! Firecracker's part of a spec is not read here: a VMM judges its own configuration.

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Which keys an object may have, by the path of the object.
pub(crate) type KnownKeys = &'static [(&'static str, &'static [&'static str])];

/// What is wrong with a JSON document.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not JSON.
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
    /// It is JSON, but no object.
    #[error("{0}: an object is wanted here")]
    NotAnObject(String),
    /// A key that nobody reads.
    #[error("{path}: unknown key {key:?}{}", DidYouMean(*.nearest))]
    UnknownKey {
        /// The object that has it.
        path: String,
        /// The key.
        key: String,
        /// The known key that comes nearest.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong kind.
    #[error("{path}")]
    Value {
        /// Where it stands.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

struct DidYouMean(Option<&'static str>);

impl std::fmt::Display for DidYouMean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(nearest) => write!(f, " (did you mean {nearest:?}?)"),
            None => Ok(()),
        }
    }
}

/// Parses `text` into any JSON value.
pub(crate) fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(Error::Syntax)
}

/// Reads `value`, which stands at `root`, and refuses keys that are not `known`.
pub(crate) fn read<T: DeserializeOwned>(value: Value, root: &str, known: KnownKeys) -> Result<T, Error> {
    check_keys(&value, root, known)?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => root.to_owned(),
            inner => format!("{root}.{inner}"),
        };
        Error::Value { path, source: error.into_inner() }
    })
}

fn check_keys(value: &Value, path: &str, known: KnownKeys) -> Result<(), Error> {
    let Some((_, keys)) = known.iter().find(|(at, _)| *at == path) else { return Ok(()) };
    let object = value.as_object().ok_or_else(|| Error::NotAnObject(path.to_owned()))?;
    for (key, inner) in object {
        if !keys.contains(&key.as_str()) {
            let key = key.chars().take(64).collect::<String>();
            return Err(Error::UnknownKey { path: path.to_owned(), nearest: nearest(&key, keys), key });
        }
        check_keys(inner, &format!("{path}.{key}"), known)?;
    }
    Ok(())
}

/// The key that `key` was most likely meant to be.
fn nearest(key: &str, keys: &[&'static str]) -> Option<&'static str> {
    let near = keys.iter().map(|known| (distance(key, known), *known)).min()?;
    (near.0 <= key.len().max(near.1.len()) / 2).then_some(near.1)
}

/// How many letters have to be changed, added or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row = (0..=b.chars().count()).collect::<Vec<_>>();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(from != to)).min(*cell + 1).min(left + 1);
            diagonal = *cell;
            *cell = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_the_letters_that_differ() {
        for (a, b, far) in
            [("", "abc", 3), ("abc", "abc", 0), ("shutdwn", "shutdown", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }

    #[test]
    fn a_key_that_resembles_nothing_gets_no_suggestion() {
        assert_eq!(nearest("zzzzzzzz", &["guest", "grace"]), None);
        assert_eq!(nearest("gest", &["guest", "grace"]), Some("guest"));
    }
}
