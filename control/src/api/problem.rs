//! Refusals as RFC 9457 writes them: `application/problem+json`.
//!
//! A handler returns a [`Problem`]; the frame adds `instance` (the path) and counts it. `detail` is
//! for people and says what, where, why and what to do; `errors` point into the body. Nothing of
//! the inside of the gateway is ever in one: what failed here goes to the log.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::live::LiveError;
use super::reason::Reason;
use crate::store::StoreError;

/// Media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One thing that is wrong in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer into the body (`/rate/up_bps`), `?NAME` for a parameter of the query,
    /// `line:column` for a text, or empty for the whole.
    pub pointer: String,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl FieldError {
    /// What is wrong at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From the closed list.
    pub reason: Reason,
    /// About this request.
    pub detail: Cow<'static, str>,
    /// Where in the request, if that can be said.
    pub errors: Vec<FieldError>,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u32>,
    /// For 405: the methods that are taken here.
    pub allow: Option<Cow<'static, str>>,
}

impl Problem {
    /// A refusal with its sentence for people.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), errors: Vec::new(), retry_after_s: None, allow: None }
    }

    /// 422 with everything that is wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.message),
            more => format!("{} values are wrong, see errors", more.len()),
        };
        Self { errors, ..Self::new(Reason::Invalid, detail) }
    }

    /// 404: `what` ("user", "session") called `name` does not exist.
    #[must_use]
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(Reason::NotFound, format!("There is no {what} {name:?}"))
    }

    /// 500 without a word about the inside; `why` goes to the log.
    #[must_use]
    pub fn internal(why: &dyn std::fmt::Display) -> Self {
        tracing::error!(%why, "A request failed");
        Self::new(Reason::Internal, Reason::Internal.title())
    }

    /// The same with a time after which trying again makes sense.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// A problem as it is written.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Stable name of the reason: `urn:ringway:problem:CODE`.
    #[serde(rename = "type")]
    #[schema(example = "urn:ringway:problem:stale-version")]
    pub kind: String,
    /// What all problems of this type have in common.
    pub title: String,
    /// The status of the answer.
    #[schema(example = 412)]
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Where it is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl ProblemBody {
    /// `problem` of a request for `instance`.
    #[must_use]
    pub fn new(problem: &Problem, instance: Option<String>) -> Self {
        Self {
            kind: format!("urn:ringway:problem:{}", problem.reason.code()),
            title: problem.reason.title().to_owned(),
            status: problem.reason.status().as_u16(),
            detail: problem.detail.clone().into_owned(),
            instance,
            errors: problem.errors.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = render(&self, None);
        // The frame writes it again, with the path, and counts it.
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes a problem as the answer to a request for `instance`.
pub fn render(problem: &Problem, instance: Option<String>) -> Response {
    let mut response =
        (problem.reason.status(), Json(ProblemBody::new(problem, instance))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = problem.allow.as_deref().and_then(|allow| allow.parse().ok()) {
        headers.insert(header::ALLOW, allow);
    }
    if problem.reason == Reason::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"ringway\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

impl From<StoreError> for Problem {
    /// What a request may be told. What is wrong with the store itself goes to the log only.
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::NotFound { .. } => Reason::NotFound,
            StoreError::Conflict { .. } => Reason::NameTaken,
            StoreError::Stale { .. } => Reason::StaleVersion,
            StoreError::InUse { .. } => Reason::InUse,
            StoreError::Missing { .. } | StoreError::Invalid { .. } => Reason::Invalid,
            StoreError::Busy { .. } | StoreError::Collision { .. } => Reason::StoreBusy,
            StoreError::Timeout { .. } => Reason::StoreTimeout,
            StoreError::Unavailable { .. } => Reason::StoreUnavailable,
            StoreError::Full { .. } => Reason::StorageFull,
            StoreError::Corrupt { .. } | StoreError::Newer { .. } => Reason::StoreCorrupt,
        };
        if !error.is_about_the_store() {
            return Self::new(reason, error.to_string());
        }
        tracing::warn!(%error, "The store failed a request");
        let problem = Self::new(reason, reason.title());
        if reason.status() == StatusCode::SERVICE_UNAVAILABLE {
            return problem.retry_after(STORE_RETRY_S);
        }
        problem
    }
}

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        let text = error.to_string();
        match error {
            LiveError::NotFound(_) => Self::new(Reason::NotFound, text),
            LiveError::Conflict(_) => Self::new(Reason::Conflict, text),
            LiveError::Unavailable(why) => {
                tracing::warn!(why, "The gateway did not answer a request");
                let reason = Reason::GatewayUnavailable;
                Self::new(reason, reason.title()).retry_after(STORE_RETRY_S)
            }
            LiveError::Invalid(pointer, message) if pointer.starts_with('?') => {
                let detail = format!("{} {message}", &pointer[1..]);
                let errors = vec![FieldError::new(pointer, message)];
                Self { errors, ..Self::new(Reason::BadQuery, detail) }
            }
            LiveError::Invalid(pointer, message) => {
                Self::invalid(vec![FieldError::new(pointer, message)])
            }
            LiveError::Failed(why) => Self::internal(&why),
        }
    }
}

/// When to try again if the store or the control thread had too much to do: most stalls (a backup,
/// a burst of changes) are over by then.
const STORE_RETRY_S: u32 = 2;
