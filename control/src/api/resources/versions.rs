//! Versions of records in headers: `ETag` in answers, `If-Match` in requests (RFC 9110).

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::problem::Problem;
use crate::api::reason::Reason;

/// A record with its version.
pub(super) struct Versioned<T> {
    status: StatusCode,
    version: u64,
    record: T,
}

impl<T> Versioned<T> {
    /// 200 with the record.
    pub(super) const fn ok(version: u64, record: T) -> Self {
        Self { status: StatusCode::OK, version, record }
    }

    /// 201 with the record.
    pub(super) const fn created(version: u64, record: T) -> Self {
        Self { status: StatusCode::CREATED, version, record }
    }
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.record)).into_response();
        // A number in quotes is always a header value.
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.version)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// The version that a change is meant for; none if the caller does not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IfMatch(pub(super) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(header::IF_MATCH).iter();
        let Some(value) = given.next() else { return Ok(Self(None)) };
        let only = given.next().is_none();
        let text = value.to_str().ok().filter(|_| only);
        match text.map(str::trim) {
            Some("*") => Ok(Self(None)),
            Some(tag) => version(tag).map(|version| Self(Some(version))),
            None => Err(malformed()),
        }
    }
}

fn version(tag: &str) -> Result<u64, Problem> {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let digits = inner.filter(|inner| inner.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> Problem {
    let detail = "If-Match is one ETag as an answer had it: a number in double quotes";
    Problem::new(Reason::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(values: &[&str]) -> Result<IfMatch, Problem> {
        let mut request = axum::http::Request::builder().uri("/");
        for value in values {
            request = request.header(header::IF_MATCH, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_version_is_a_number_in_quotes_and_anything_else_is_refused() {
        assert_eq!(read(&[]).await.unwrap(), IfMatch(None));
        assert_eq!(read(&["*"]).await.unwrap(), IfMatch(None));
        assert_eq!(read(&["\"17\""]).await.unwrap(), IfMatch(Some(17)));
        for wrong in ["17", "W/\"17\"", "\"x\"", "\"\"", "\"1\", \"2\"", "\"99999999999999999999\""]
        {
            assert_eq!(read(&[wrong]).await.unwrap_err().reason, Reason::BadRequest, "{wrong}");
        }
        assert!(read(&["\"1\"", "\"2\""]).await.is_err());
    }
}
