//! Why the directory did not do what it was asked for.
//!
//! Whatever is refused left everything as it was. Each refusal says what, where, why and what to
//! do, in words for people and in a code for programs. What is wrong with an input names the place
//! in it by a JSON pointer (RFC 6901). This module must not know HTTP: which status a refusal has
//! is the API's business.

use std::fmt;

use crate::store::StoreError;

/// One thing that is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where, as a JSON pointer: `/rate/up_bps`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The input is wrong: every problem that was found.
    #[error("{}", listed(.0))]
    Invalid(Vec<FieldProblem>),
    /// There is no such record.
    #[error("There is no {kind} \"{what}\": the list of all shows what there is")]
    NotFound {
        /// `user`, `device`, …
        kind: &'static str,
        /// The name or identifier that was asked for.
        what: String,
    },
    /// Somebody else has this already.
    #[error("{message}")]
    Taken {
        /// The field of the input, as a JSON pointer.
        pointer: String,
        /// What is taken, and what to do.
        message: String,
    },
    /// The record changed since it was read.
    #[error(
        "The {kind} was changed by somebody else since you read it: read it again, look at what \
         changed, and repeat"
    )]
    Stale {
        /// `user`, `device`, …
        kind: &'static str,
    },
    /// Others still need it.
    #[error("{0}")]
    InUse(String),
    /// The actor may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// It would leave nobody who can administer the gateway.
    #[error(
        "{0} is the last administrator who can sign in: make another one first, so that nobody is \
         locked out"
    )]
    LastAdministrator(String),
    /// The state of things does not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// No address is free.
    #[error("IP allocation failed: {0}")]
    PoolFull(String),
    /// There are as many as there may be: how many, the limit, and what to do.
    #[error("{0}")]
    Full(String),
    /// A one-time link is unknown, used or too old. Which of them is not told to whoever holds it.
    #[error("The link is not valid: it was used, or is too old. Ask for a new one")]
    LinkRefused,
    /// The store could not do it.
    #[error(transparent)]
    Store(StoreError),
}

impl Refusal {
    /// One problem of an input.
    pub fn field(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldProblem { pointer: pointer.into(), message: message.into() }])
    }

    /// No such record.
    pub fn missing(kind: &'static str, what: impl fmt::Display) -> Self {
        Self::NotFound { kind, what: what.to_string() }
    }

    /// A stable word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound { .. } => "not_found",
            Self::Taken { .. } => "taken",
            Self::Stale { .. } => "stale_version",
            Self::InUse(_) => "in_use",
            Self::Forbidden(_) => "forbidden",
            Self::LastAdministrator(_) => "last_administrator",
            Self::Conflict(_) => "conflict",
            Self::PoolFull(_) => "pool_full",
            Self::Full(_) => "limit_reached",
            Self::LinkRefused => "link_refused",
            Self::Store(error) => error.reason(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        #[allow(clippy::wildcard_enum_match_arm, reason = "whatever else there is, is the store's")]
        match error {
            StoreError::NotFound { kind, id } => Self::NotFound { kind, what: id },
            StoreError::Stale { kind } => Self::Stale { kind },
            StoreError::Conflict { kind, field, value } => Self::Taken {
                message: format!(
                    "There is a {kind} with the {} \"{value}\" already: choose another",
                    field.replace('_', " ")
                ),
                pointer: format!("/{field}"),
            },
            StoreError::InUse { .. } => Self::InUse(error.to_string()),
            other => Self::Store(other),
        }
    }
}

fn listed(problems: &[FieldProblem]) -> String {
    let lines: Vec<String> =
        problems.iter().map(|one| format!("{}: {}", one.pointer, one.message)).collect();
    lines.join("; ")
}
