//! Turns JSON values into types, and says where a value is wrong.
//!
//! A deserializer over [`serde_json::Value`] whose errors collect the place on their way out, as a
//! JSON pointer (RFC 6901). It also reads the texts of a query as numbers and flags where the type
//! asks for those. This module must not know HTTP.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// What is wrong with a value, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// From the inside out.
    place: Vec<String>,
    /// What, without the place.
    pub message: String,
}

impl Wrong {
    /// The place as a JSON pointer; empty for the whole.
    #[must_use]
    pub fn pointer(&self) -> String {
        let parts = self.place.iter().rev();
        parts.map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
    }

    /// The innermost name, for a query.
    #[must_use]
    pub fn name(&self) -> &str {
        self.place.last().map_or("", String::as_str)
    }

    fn at(mut self, part: impl Into<String>) -> Self {
        self.place.push(part.into());
        self
    }
}

/// Reads `value` as `T`.
///
/// # Errors
/// The first thing that is wrong.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Wrong> {
    T::deserialize(Node { value, texts: false })
}

/// Reads the parameters of a query as `T`: all values are texts.
///
/// # Errors
/// The first thing that is wrong.
pub fn read_texts<T: DeserializeOwned>(values: Map<String, Value>) -> Result<T, Wrong> {
    T::deserialize(Node { value: &Value::Object(values), texts: true })
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer(), self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: Vec::new(), message: message.to_string() }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = match expected {
            [] => "nothing is taken here".to_owned(),
            known => format!("known here: {}", known.join(", ")),
        };
        Self::custom(format_args!("is not known here; {known}")).at(field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom("is missing").at(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom("is given twice").at(field)
    }
}

/// A value that is being read.
#[derive(Clone, Copy)]
struct Node<'a> {
    value: &'a Value,
    /// Whether texts stand for numbers and flags.
    texts: bool,
}

impl<'a> Node<'a> {
    fn text(self) -> Option<&'a str> {
        self.value.as_str().filter(|_| self.texts)
    }
}

macro_rules! from_text {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let Some(text) = self.text() else { return self.deserialize_any(visitor) };
            match text.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(de::Error::custom(format_args!("{text:?} is not {}", $what))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, Some(number)) => visitor.visit_f64(number),
                _ => Err(de::Error::custom("is no number that can be read")),
            },
            Value::Array(list) => {
                let mut items = Items { list: list.iter().enumerate(), texts: self.texts };
                let value = visitor.visit_seq(&mut items)?;
                match items.list.next() {
                    None => Ok(value),
                    Some((at, _)) => {
                        let wrong: Wrong = de::Error::custom("is one item too many");
                        Err(wrong.at(at.to_string()))
                    }
                }
            }
            Value::Object(map) => {
                let fields = map.iter();
                visitor.visit_map(Fields { fields, current: None, texts: self.texts })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let read = self.value.deserialize_enum(name, variants, visitor);
                read.map_err(|error| de::Error::custom(error.to_string()))
            }
        }
    }

    /// A derived type would take its fields from a list as well, by their order: nobody means that.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if self.value.is_array() {
            return Err(de::Error::custom("invalid type: list, expected an object"));
        }
        self.deserialize_any(visitor)
    }

    from_text! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0 to 18446744073709551615";
        deserialize_i32 visit_i32 i32, "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
        deserialize_f64 visit_f64 f64, "a number";
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    list: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    texts: bool,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((at, value)) = self.list.next() else { return Ok(None) };
        let read = seed.deserialize(Node { value, texts: self.texts });
        read.map(Some).map_err(|wrong| wrong.at(at.to_string()))
    }
}

struct Fields<'a> {
    fields: serde_json::map::Iter<'a>,
    current: Option<(&'a String, &'a Value)>,
    texts: bool,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.current = self.fields.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((key, value)) = self.current.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        let read = seed.deserialize(Node { value, texts: self.texts });
        read.map_err(|wrong| wrong.at(key))
    }
}
