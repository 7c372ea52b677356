//! Reading the library's own JSON: strict about keys and types, and helpful about both.
//!
//! Firecracker's part of a spec is not read here: a VMM judges its own configuration.

#[cfg(test)]
pub(crate) mod reference;

use crate::json;
use serde_json::{Map, Value};
use std::path::PathBuf;
use thiserror::Error;

/// An object that is read key by key. What nobody has asked for when it is finished is unknown.
#[derive(Debug)]
pub(crate) struct Section {
    path: String,
    content: Map<String, Value>,
    asked: Vec<&'static str>,
}

/// A kind of value.
pub(crate) trait Setting: Sized {
    /// What it is called.
    const WANTED: &'static str;
    /// The value, if it is of this kind.
    fn of(value: Value) -> Option<Self>;
}

/// What is wrong with a JSON document.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not JSON.
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
    /// It is JSON, but no object.
    #[error("{0}: this must be an object")]
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
    #[error("{path}: this must be {wanted}, not {found}")]
    Value {
        /// Where it stands.
        path: String,
        /// What is wanted.
        wanted: &'static str,
        /// The beginning of what is there.
        found: String,
    },
    /// A word that is none of those that are allowed.
    #[error("{path}: {found} is not allowed; use one of {}", Words(allowed))]
    Word {
        /// Where it stands.
        path: String,
        /// The words that are allowed.
        allowed: Vec<&'static str>,
        /// The beginning of what is there.
        found: String,
    },
}

struct Words<'a>(&'a [&'static str]);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            write!(f, "{}{word:?}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
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
    json::parse(text.as_bytes()).map_err(Error::Syntax)
}

impl Section {
    /// The object that `json` holds; nothing is an empty one. It is called `name` in messages.
    pub(crate) fn parse(json: Option<&str>, name: &str) -> Result<Self, Error> {
        match json.map(parse).transpose()? {
            Some(Value::Null) => Err(Error::NotAnObject(name.to_owned())),
            value => Self::of(value.unwrap_or_default(), name),
        }
    }

    /// The object `value`; null is an empty one.
    pub(crate) fn of(value: Value, path: impl Into<String>) -> Result<Self, Error> {
        let (path, asked) = (path.into(), Vec::new());
        match value {
            Value::Null => Ok(Self { path, content: Map::new(), asked }),
            Value::Object(content) => Ok(Self { path, content, asked }),
            _ => Err(Error::NotAnObject(path)),
        }
    }

    /// The value at `key`, if there is one; null is none.
    pub(crate) fn take<T: Setting>(&mut self, key: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.take_any(key) else { return Ok(None) };
        let found = beginning(&value);
        T::of(value).ok_or_else(|| self.wrong(key, T::WANTED, found)).map(Some)
    }

    /// The path at `key`, or the paths of the list there.
    pub(crate) fn paths(&mut self, key: &'static str) -> Result<Option<Vec<PathBuf>>, Error> {
        let Some(value) = self.take_any(key) else { return Ok(None) };
        let found = beginning(&value);
        let list = if let Value::Array(list) = value { list } else { vec![value] };
        let paths = list.into_iter().map(PathBuf::of).collect::<Option<Vec<_>>>();
        let wrong = || Error::Value { path: self.path_of(key), wanted: "a path, or a list of paths", found };
        paths.ok_or_else(wrong).map(Some)
    }

    /// The same, with what holds otherwise.
    pub(crate) fn take_or<T: Setting>(&mut self, key: &'static str, otherwise: T) -> Result<T, Error> {
        Ok(self.take(key)?.unwrap_or(otherwise))
    }

    /// What the word at `key` means; the first of `words` holds when there is none.
    pub(crate) fn choose<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<T, Error> {
        let chosen = self.choose_word(key, words.iter().map(|(word, _)| *word).collect())?;
        let (_, meaning) = words[chosen];
        Ok(meaning)
    }

    /// The object at `key`; an empty one when there is none.
    pub(crate) fn section(&mut self, key: &'static str) -> Result<Self, Error> {
        let value = self.take_any(key).unwrap_or_default();
        Self::of(value, self.path_of(key))
    }

    /// The same, and nothing when there is none.
    pub(crate) fn optional_section(&mut self, key: &'static str) -> Result<Option<Self>, Error> {
        let path = self.path_of(key);
        self.take_any(key).map(|value| Self::of(value, path)).transpose()
    }

    /// The objects of the list at `key`; none when there is none.
    pub(crate) fn sections(&mut self, key: &'static str) -> Result<Vec<Self>, Error> {
        let elements = self.take_or(key, Vec::<Value>::new())?.into_iter().enumerate();
        elements
            .map(|(index, element)| Self::of(element, format!("{}[{index}]", self.path_of(key))))
            .collect()
    }

    /// The value at `key`, which has to be there.
    pub(crate) fn need<T: Setting>(&mut self, key: &'static str) -> Result<T, Error> {
        self.take(key)?.ok_or_else(|| self.wrong(key, T::WANTED, "nothing".to_owned()))
    }

    /// The place of the word at `key` in `allowed`.
    fn choose_word(&mut self, key: &'static str, allowed: Vec<&'static str>) -> Result<usize, Error> {
        let Some(value) = self.take_any(key) else { return Ok(0) };
        let chosen = allowed.iter().position(|word| value == *word);
        chosen.ok_or_else(|| Error::Word { path: self.path_of(key), allowed, found: beginning(&value) })
    }

    #[cold]
    fn wrong(&self, key: &'static str, wanted: &'static str, found: String) -> Error {
        Error::Value { path: self.path_of(key), wanted, found }
    }

    /// Any value at `key`; null is none.
    pub(crate) fn take_any(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        #[cfg(test)]
        reference::note(&self.path_of(key));
        self.content.remove(key).filter(|value| !value.is_null())
    }

    /// What is left, for somebody else to read.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.content
    }

    /// Refuses what nobody has asked for.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some(key) = self.content.keys().next() else { return Ok(()) };
        let key = key.chars().take(64).collect::<String>();
        Err(Error::UnknownKey { nearest: nearest(&key, &self.asked), path: self.path, key })
    }

    fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

impl Setting for u64 {
    const WANTED: &'static str = "a whole number";
    fn of(value: Value) -> Option<Self> {
        value.as_u64()
    }
}

impl Setting for u32 {
    const WANTED: &'static str = "a whole number below 2^32";
    fn of(value: Value) -> Option<Self> {
        Self::try_from(value.as_u64()?).ok()
    }
}

impl Setting for f64 {
    const WANTED: &'static str = "a number";
    fn of(value: Value) -> Option<Self> {
        value.as_f64()
    }
}

impl Setting for bool {
    const WANTED: &'static str = "true or false";
    fn of(value: Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Setting for String {
    const WANTED: &'static str = "a string";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl Setting for PathBuf {
    const WANTED: &'static str = "a path";
    fn of(value: Value) -> Option<Self> {
        String::of(value).map(Self::from)
    }
}

impl Setting for Map<String, Value> {
    const WANTED: &'static str = "an object";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Object(content) => Some(content),
            _ => None,
        }
    }
}

impl Setting for Vec<Value> {
    const WANTED: &'static str = "a list";
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }
}

impl Setting for Vec<String> {
    const WANTED: &'static str = "a list of strings";
    fn of(value: Value) -> Option<Self> {
        Vec::of(value)?.into_iter().map(String::of).collect()
    }
}

fn beginning(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
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
