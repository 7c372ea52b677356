//! How the library reads and writes JSON: one reader for all that is read, objects by their keys, and enums as words.
//!
//! What operators write is judged in `settings`.

mod record;

use record::Content;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

/// An object: `object! { "id": id, "pid": pid }`. A value is whatever becomes a [`Value`].
///
/// `serde_json::json!` serializes each value at the place where it is called, which takes several times as much code.
macro_rules! object {
    ($($key:tt: $value:expr),* $(,)?) => {{
        let mut object = serde_json::Map::new();
        $($crate::json::put(&mut object, $key, $value);)*
        serde_json::Value::Object(object)
    }};
}
pub(crate) use object;

/// The words that stand for the variants of an enum, in what the library reads and writes.
///
/// serde's own derive makes a reader for each enum; with this there is one for all.
macro_rules! words {
    ($name:ident { $($variant:ident: $word:literal),* $(,)? }) => {
        impl $name {
            /// Every variant by its word, the default first.
            pub(crate) const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant)),*];

            /// The variant's word.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let place = $crate::json::place_of_word(deserializer, &[$($word),*])?;
                Ok(Self::WORDS[place].1)
            }
        }
    };
}
pub(crate) use words;

/// Whatever JSON `text` is. Everything is read by this: a reader of text for each type would be as large as this one.
///
/// # Errors
/// When it is not JSON.
pub(crate) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text)
}

/// What `text` says, as a `T`.
///
/// # Errors
/// When it is not JSON, or not that of a `T`.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    of(parse(text)?)
}

/// What `value` says, as a `T`.
///
/// # Errors
/// When it is not that of a `T`.
pub(crate) fn of<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(Content(value))
}

/// Adds a key to an object.
pub(crate) fn put(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    put_value(object, key, value.into());
}

fn put_value(object: &mut Map<String, Value>, key: &str, value: Value) {
    object.insert(key.to_owned(), value);
}

/// The place of the word that is read among those that are allowed.
pub(crate) fn place_of_word<'de, D: Deserializer<'de>>(
    deserializer: D,
    words: &'static [&'static str],
) -> Result<usize, D::Error> {
    let word = String::deserialize(deserializer)?;
    let place = words.iter().position(|known| *known == word);
    place.ok_or_else(|| D::Error::unknown_variant(&word, words))
}
