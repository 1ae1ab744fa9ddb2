//! Queries, read strictly.
//!
//! Unknown and repeated parameters and values of the wrong type are refused by name. Types that are
//! read here derive `Deserialize` with `deny_unknown_fields` and do not use `flatten`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::pointer;
use super::problem::{FieldError, Problem};
use super::reason::Reason;

/// Bytes of a query. The longest cursor and four filters have less than half of it.
const QUERY_BYTES_MAX: usize = 4096;

/// The query as `T`.
#[derive(Clone, Copy, Debug)]
pub struct StrictQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Reads a query as `T`.
///
/// # Errors
/// What is wrong, and with which parameter.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(refused("", format!("the query may have {QUERY_BYTES_MAX} bytes")));
    }
    let mut values = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).ok_or_else(|| refused(name, "is not UTF-8 as URLs write it"))?;
        let value = decode(value).ok_or_else(|| refused(&name, "is not UTF-8 as URLs write it"))?;
        if values.contains_key(&name) {
            return Err(refused(&name, "is given twice"));
        }
        values.insert(name, Value::String(value));
    }
    pointer::read_texts(values).map_err(|wrong| refused(wrong.name(), &*wrong.message))
}

/// Refuses a text of the query that is longer than `most` characters.
///
/// # Errors
/// 400 with the parameter's name.
pub fn bounded(name: &str, text: Option<&String>, most: usize) -> Result<(), Problem> {
    if text.is_some_and(|text| text.chars().count() > most) {
        return Err(refused(name, format!("may have {most} characters")));
    }
    Ok(())
}

fn refused(name: &str, message: impl Into<String>) -> Problem {
    let message = message.into();
    let detail = format!("{name} {message}");
    let error = FieldError::new(format!("?{name}"), message);
    Problem { errors: vec![error], ..Problem::new(Reason::BadQuery, detail.trim().to_owned()) }
}

/// Undoes percent encoding, `+` included. None if it is broken or no text.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                if digits.starts_with('+') {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
