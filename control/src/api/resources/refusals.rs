//! Refusals of the directory as problems of the API, and as its document describes them.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::api::problem::{CONTENT_TYPE, FieldError, Problem};
use crate::api::reason::Reason;
use crate::directory::Refusal;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Invalid(problems) => {
                let error =
                    |one: crate::directory::FieldProblem| FieldError::new(one.pointer, one.message);
                Self::invalid(problems.into_iter().map(error).collect())
            }
            Refusal::NotFound { .. } => Self::new(Reason::NotFound, text),
            Refusal::Taken { pointer, message } => Self {
                errors: vec![FieldError::new(pointer, message)],
                ..Self::new(Reason::NameTaken, text)
            },
            Refusal::Stale { .. } => Self::new(Reason::StaleVersion, text),
            Refusal::InUse(_) => Self::new(Reason::InUse, text),
            Refusal::Forbidden(_) => Self::new(Reason::Forbidden, text),
            Refusal::LastAdministrator(_) | Refusal::Conflict(_) => {
                Self::new(Reason::Conflict, text)
            }
            Refusal::PoolFull(_) | Refusal::Full(_) => Self::new(Reason::LimitReached, text),
            Refusal::LinkRefused => Self::new(Reason::Gone, text),
            Refusal::Store(error) => error.into(),
        }
    }
}

/// What any operation about records may be answered with instead: the document's part of it.
pub(super) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let problem = |what: &str| {
            let schema = Ref::from_schema_name("Problem");
            let content = ContentBuilder::new().schema(Some(schema)).build();
            ResponseBuilder::new().description(what).content(CONTENT_TYPE, content).build()
        };
        [
            ("400", "The request cannot be read."),
            ("401", "Credentials are missing or wrong."),
            ("403", "The caller may not do this."),
            ("404", "There is no such thing."),
            ("409", "It does not fit the present state, a name or key is taken, or there are as many as \
                 there may be."),
            ("412", "The record is not the version of If-Match any more."),
            ("413", "The body is too large."),
            ("415", "The body is not JSON."),
            ("422", "A value is wrong: see errors."),
            ("429", "Too many requests: see Retry-After."),
            ("503", "The records cannot be reached now: see Retry-After."),
        ]
        .into_iter()
        .map(|(status, what)| (status.to_owned(), RefOr::T(problem(what))))
        .collect()
    }
}
