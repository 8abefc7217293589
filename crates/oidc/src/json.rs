//! Strict JSON objects: every member name once, bounded depth, nothing after the end.
//!
//! A repeated name is how one parser is made to see another value than the next (RFC 7519 section 4 lets a
//! reader refuse it; we do, at every depth). `serde_json` alone keeps the last value silently.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::fmt;

/// Deepest nesting of arrays and objects. Claims of real providers nest three or four deep.
pub const DEPTH_MAX: usize = 32;

/// Why bytes are not the JSON object they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A member name appears twice in one object.
    #[error("the name {0:?} appears twice")]
    DuplicateName(String),
    /// Arrays and objects nest deeper than [`DEPTH_MAX`].
    #[error("it nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Not JSON, not UTF-8, or followed by something else.
    #[error("it is not JSON (line {line}, column {column})")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
}

/// Reads one JSON object and nothing else.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let problem = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Strict {
        depth: 0,
        problem: &problem,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value));
    match parsed {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(JsonError::NotAnObject),
        Err(error) => Err(problem.into_inner().unwrap_or(JsonError::Syntax {
            line: error.line(),
            column: error.column(),
        })),
    }
}

/// A value at some depth, that notes why it gave up where `serde_json`'s own error could only hold words.
#[derive(Clone, Copy)]
struct Strict<'p> {
    depth: usize,
    problem: &'p RefCell<Option<JsonError>>,
}

impl Strict<'_> {
    fn refuse<E: Error>(self, why: JsonError) -> E {
        let error = E::custom(&why);
        *self.problem.borrow_mut() = Some(why);
        error
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.refuse(JsonError::TooDeep));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.refuse(JsonError::DuplicateName(name)));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_object_is_accepted() {
        assert_eq!(
            parse_object(br#"{"a":[1,-2,1.5,true,null,"x"],"b":{"a":1}}"#)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            parse_object(br#"{"a":1,"b":{"c":1,"c":2}}"#),
            Err(JsonError::DuplicateName("c".into())),
            "also where the names are equal only after unescaping"
        );
        assert_eq!(
            parse_object(br#"{"a":1,"\u0061":2}"#),
            Err(JsonError::DuplicateName("a".into()))
        );
        assert_eq!(parse_object(b"[]"), Err(JsonError::NotAnObject));
        for bad in [
            &b""[..],
            b"{",
            b"{}{}",
            b"{} x",
            b"{\"a\":NaN}",
            b"\xff",
            b"{\"a\":\"\xff\"}",
            b"{a:1}",
            b"{\"a\":01}",
        ] {
            assert!(
                matches!(parse_object(bad), Err(JsonError::Syntax { .. })),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn depth_is_limited_at_thirty_two() {
        let nested = |depth: usize| format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth));
        assert!(parse_object(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(
            parse_object(nested(DEPTH_MAX + 1).as_bytes()),
            Err(JsonError::TooDeep)
        );
        assert!(parse_object(nested(100_000).as_bytes()).is_err());
    }
}
