//! Between values of an engine and fields of records.
//!
//! What an engine returns was written by this program; if it does not fit, the store is damaged,
//! and the error says which table. This module must not know a record.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::engine::{Row, Value};
use super::super::error::StoreError;
use super::super::records::{
    DeviceId, EnrolmentId, GroupId, PolicyId, PoolId, Timestamp, TokenId, UserId,
};

/// The columns of a row, taken from left to right.
pub(crate) struct Columns {
    table: &'static str,
    rest: std::vec::IntoIter<Value>,
}

impl Columns {
    pub(crate) fn new(table: &'static str, row: Row) -> Self {
        Self { table, rest: row.into_iter() }
    }

    pub(crate) fn maybe_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.next()? {
            Value::Int(number) => Ok(Some(number)),
            Value::Null => Ok(None),
            Value::Text(_) | Value::Blob(_) => Err(self.damaged("a number")),
        }
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.maybe_int()?.ok_or_else(|| self.damaged("a number"))
    }

    pub(crate) fn maybe_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.next()? {
            Value::Text(text) => Ok(Some(text)),
            Value::Null => Ok(None),
            Value::Int(_) | Value::Blob(_) => Err(self.damaged("text")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.maybe_text()?.ok_or_else(|| self.damaged("text"))
    }

    pub(crate) fn blob(&mut self) -> Result<Vec<u8>, StoreError> {
        let blob = self.maybe_blob()?;
        blob.ok_or_else(|| self.damaged("bytes"))
    }

    pub(crate) fn maybe_blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.next()? {
            Value::Blob(bytes) => Ok(Some(bytes)),
            Value::Null => Ok(None),
            Value::Int(_) | Value::Text(_) => Err(self.damaged("bytes")),
        }
    }

    /// A number that is never negative.
    pub(crate) fn count(&mut self) -> Result<u64, StoreError> {
        u64::try_from(self.int()?).map_err(|_| self.damaged("a number from 0 on"))
    }

    /// All 64 bits, as [`bits`] writes them.
    pub(crate) fn bits(&mut self) -> Result<u64, StoreError> {
        Ok(self.int()?.cast_unsigned())
    }

    pub(crate) fn small<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        T::try_from(self.int()?).map_err(|_| self.damaged("a smaller number"))
    }

    pub(crate) fn truth(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.int().map(Timestamp)
    }

    pub(crate) fn maybe_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.maybe_int()?.map(Timestamp))
    }

    /// Identifiers and addresses.
    pub(crate) fn parsed<T: FromStr>(&mut self) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|_| self.damaged("an identifier or address"))
    }

    pub(crate) fn maybe_parsed<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        let text = self.maybe_text()?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|_| self.damaged("an identifier or address"))
    }

    pub(crate) fn word<T>(&mut self, from: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let word = self.text()?;
        from(&word).ok_or_else(|| self.damaged("a known word"))
    }

    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|_| self.damaged("JSON of the expected form"))
    }

    pub(crate) fn maybe_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(text) = self.maybe_text()? else { return Ok(None) };
        serde_json::from_str(&text).map_err(|_| self.damaged("JSON of the expected form"))
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.maybe_blob()?.unwrap_or_default();
        bytes.try_into().map_err(|_| self.damaged(&format!("{N} bytes")))
    }

    /// Whether the next column holds nothing, without taking it.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.rest.as_slice().first(), None | Some(Value::Null))
    }

    pub(crate) fn damaged(&self, expected: &str) -> StoreError {
        StoreError::Corrupt {
            why: format!(
                "a row of table {} does not hold {expected} where it should; stop the gateway, keep \
                 a copy of the store for inspection and restore the last backup",
                self.table
            ),
        }
    }

    fn next(&mut self) -> Result<Value, StoreError> {
        self.rest.next().ok_or_else(|| self.damaged("enough columns"))
    }
}

/// All 64 bits of a number that is only compared for equality.
pub(crate) const fn bits(number: u64) -> Value {
    Value::Int(number.cast_signed())
}

/// JSON as text.
pub(crate) fn json(value: &impl Serialize) -> Result<Value, StoreError> {
    let text = serde_json::to_string(value);
    text.map(Value::Text).map_err(|error| StoreError::Invalid { why: error.to_string() })
}

/// JSON as text, or nothing.
pub(crate) fn maybe_json(value: Option<&impl Serialize>) -> Result<Value, StoreError> {
    value.map_or(Ok(Value::Null), json)
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    /// The largest numbers are beyond what either engine keeps, and beyond what is counted here.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Int(truth.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        Self::Int(moment.0)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl From<$name> for Value {
            fn from(value: $name) -> Self {
                shown(value)
            }
        }
    )*};
}

shown_as_text!(
    UserId,
    GroupId,
    PolicyId,
    DeviceId,
    TokenId,
    PoolId,
    EnrolmentId,
    Ipv4Addr,
    Ipv6Addr
);

fn shown(value: impl Display) -> Value {
    Value::Text(value.to_string())
}
