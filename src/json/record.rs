//! Values on their way into the library's own types. A struct is read of an object only: serde_json takes a list for one
//! too, for which each type would need a second reader.

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// A value that is read.
pub(super) struct Content(pub(super) Value);

impl IntoDeserializer<'_, Error> for Content {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Content {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(choice) => visitor.visit_bool(choice),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(list) => visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Self))),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Object(object) = self.0 else {
            return Err(Error::invalid_type(Unexpected::Other("no object"), &visitor));
        };
        visitor.visit_map(entries(object))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(variant) => visitor.visit_enum(variant.into_deserializer()),
            Value::Object(variant) if variant.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(entries(variant)))
            }
            _ => Err(Error::invalid_type(Unexpected::Other("no variant"), &visitor)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier ignored_any
    }
}

fn entries<'de>(
    object: Map<String, Value>,
) -> MapDeserializer<'de, impl Iterator<Item = (String, Content)>, Error> {
    MapDeserializer::new(object.into_iter().map(|(key, value)| (key, Content(value))))
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Told {
        kind: Kind,
        path: Option<String>,
        #[serde(default)]
        pairs: Vec<(u64, i32)>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Nothing,
        Code(u8),
    }

    #[test]
    fn what_was_written_is_read_again() {
        for (kind, path, pairs) in [
            (Kind::Nothing, None, vec![]),
            (Kind::Code(7), Some("/x".to_owned()), vec![(1, -2), (u64::MAX, 3)]),
        ] {
            let told = Told { kind, path, pairs };
            let text = serde_json::to_vec(&told).unwrap();
            assert_eq!(read::<Told>(&text).unwrap(), told);
        }
    }

    #[test]
    fn what_is_no_such_thing_is_an_error() {
        for (text, wanted) in [
            (r#"["Nothing", null, []]"#, "invalid type: no object"),
            (r#"{"kind":"Nothing","other":1}"#, "unknown field `other`"),
            (r#"{"path":"/x"}"#, "missing field `kind`"),
            (r#"{"kind":"Something"}"#, "unknown variant `Something`"),
            (r#"{"kind":{"Code":300}}"#, "invalid value: integer `300`"),
            (r#"{"kind":{"Code":3,"Other":4}}"#, "invalid type: no variant"),
            (r#"{"kind":"Code"}"#, "invalid type: unit variant"),
            (r#"{"kind":"Nothing","pairs":[[1]]}"#, "invalid length 1"),
            (r#"{"kind""#, "EOF"),
        ] {
            let error = read::<Told>(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
