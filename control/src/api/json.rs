//! Bodies as JSON, read strictly.
//!
//! Duplicate keys, nesting beyond [`DEPTH_MAX`], unknown fields, wrong types and numbers out of
//! range are refused, with the JSON pointer of the place. Types that are read here derive
//! `Deserialize` with `deny_unknown_fields` and do not use `flatten`, which would hide places.

use std::fmt;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::pointer;
use super::problem::{FieldError, Problem};
use super::reason::Reason;

/// Arrays and objects inside each other. The deepest body of the API has four.
pub const DEPTH_MAX: usize = 16;

/// Bytes of a body. A configuration of 5,000 peers fits; nothing else comes near.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Bytes of a body that anybody may send. The largest is a sign-in with an access token.
pub const STRANGERS_BODY_BYTES_MAX: usize = 32 << 10;

/// In a request: most bytes of its body, if these are fewer than [`BODY_BYTES_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct BodyMax(pub usize);

/// How long a body may take to arrive. 1 MiB in 10 s is 0.8 Mbit/s; a body as most are fits into
/// the packet of its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of `application/json` (or `application/merge-patch+json`) as `T`.
#[derive(Clone, Copy, Debug)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        expect_type(request.headers(), &["application/json", "application/merge-patch+json"])?;
        read(&body(request).await?).map(Self)
    }
}

/// Refuses a body that is of none of these types, or packed.
///
/// # Errors
/// 415.
pub fn expect_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(Reason::UnsupportedMediaType, detail));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return refuse("Send the body as it is, without Content-Encoding".to_owned());
    }
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let (essence, parameters) = match given {
        Some(given) => given.split_once(';').unwrap_or((given, "")),
        None => ("", ""),
    };
    let parameters = parameters.trim().replace('"', "").to_ascii_lowercase();
    let utf8 = parameters.is_empty() || parameters == "charset=utf-8";
    if utf8 && types.iter().any(|known| essence.trim().eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let types = types.join(" or ");
    refuse(format!("Send the body with Content-Type: {types}; got {:?}", given.unwrap_or("none")))
}

/// The whole body.
///
/// # Errors
/// 413 if it is too large, 408 if it does not come, 400 if it breaks off.
pub async fn body(request: Request) -> Result<Bytes, Problem> {
    let most = request.extensions().get::<BodyMax>().map_or(BODY_BYTES_MAX, |max| max.0);
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        let detail = format!("The body may have {most} bytes");
        Problem::new(Reason::BodyTooLarge, detail)
    };
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let read = to_bytes(request.into_body(), most);
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.to_string().contains("length limit") => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Reason::BadRequest, "The body broke off")),
        Err(_) => {
            let detail = format!("The body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(Reason::RequestTimeout, detail))
        }
    }
}

/// Reads `bytes` as `T`.
///
/// # Errors
/// What is wrong, and where.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value = parse(bytes)?;
    pointer::read(&value)
        .map_err(|wrong| Problem::invalid(vec![FieldError::new(wrong.pointer(), wrong.message)]))
}

/// Reads `bytes` as a value without duplicate keys and not too deep.
///
/// # Errors
/// 400, with line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let strict = Strict { depth: 0 }.deserialize(&mut reader);
    strict.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        let reason = match text {
            _ if text.starts_with(TOO_DEEP) => Reason::TooDeep,
            _ if text.starts_with(TWICE) => Reason::DuplicateKey,
            _ => Reason::BadJson,
        };
        let place = FieldError::new(format!("{line}:{column}"), text);
        let detail = format!("Line {line}, column {column}: {text}");
        Problem { errors: vec![place], ..Problem::new(reason, detail) }
    })
}

const TOO_DEEP: &str = "nested deeper than";
const TWICE: &str = "the key is given twice";

/// Reads one value at a depth.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("{TOO_DEEP} {DEPTH_MAX}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("{TWICE}: {key:?}")));
            }
            let value = fields.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
