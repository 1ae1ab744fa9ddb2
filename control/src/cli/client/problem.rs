//! What the API refuses, as a sentence and an exit code.
//!
//! The API says what is wrong, where and why (RFC 9457); this adds the code of the reason, names
//! each wrong value, and sorts the kinds of refusals into exit codes. What is not an answer of the
//! API is said to be none.

use serde::Deserialize;

use crate::cli::show::plain;
use crate::failure::{Failure, Status};

/// What begins the type of every problem.
const PREFIX: &str = "urn:ringway:problem:";

/// The parts of a problem that are told.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    #[serde(default)]
    errors: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    pointer: String,
    message: String,
}

/// The failure of an answer that is none of success.
pub(super) fn failure(status: u16, body: &str, wait_s: Option<u32>, place: &str) -> Failure {
    let told: Option<Told> = serde_json::from_str(body).ok();
    let told = told.filter(|told| told.kind.starts_with(PREFIX));
    let Some(told) = told else {
        let message = format!(
            "{place} answered with status {status} and is not the API of a gateway: check the \
             address"
        );
        return Failure::new(Status::NotRunning, message);
    };
    let code = plain(&told.kind[PREFIX.len()..]);
    let mut message = plain(&told.detail);
    message = format!("{} ({code})", message.trim_end_matches('.'));
    for error in &told.errors {
        let known = told.errors.len() == 1 && told.detail.contains(&error.message);
        if !known {
            let (pointer, why) = (plain(&error.pointer), plain(&error.message));
            message.push_str(&format!("\n  {pointer}: {why}"));
        }
    }
    if let Some(wait) = wait_s {
        message.push_str(&format!("; try again in {wait} s"));
    }
    Failure::new(kind(status, &code), message)
}

/// Which exit code a refusal has.
fn kind(status: u16, code: &str) -> Status {
    match (status, code) {
        (_, "config-invalid") => Status::Config,
        (401 | 403, _) => Status::Denied,
        (404, _) => Status::NotFound,
        (409 | 410 | 412 | 428, _) => Status::Conflict,
        (507, _) => Status::State,
        (408 | 429 | 503 | 504, _) => Status::Unavailable,
        (500.., _) => Status::Findings,
        _ => Status::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FieldError, Problem, ProblemBody, Reason};

    fn told(problem: &Problem, wait_s: Option<u32>) -> Failure {
        let body = serde_json::to_string(&ProblemBody::new(problem, None)).unwrap();
        failure(problem.reason.status().as_u16(), &body, wait_s, "/run/x.api")
    }

    #[test]
    fn every_reason_of_the_api_has_an_exit_code_and_is_named() {
        for reason in Reason::ALL {
            let failure = told(&Problem::new(*reason, "It is so."), None);
            assert_eq!(failure.message, format!("It is so ({})", reason.code()));
            assert_ne!(failure.status, Status::Done);
            assert_ne!(failure.status, Status::NotRunning, "{}", reason.code());
        }
        for (reason, status) in [
            (Reason::Unauthenticated, Status::Denied),
            (Reason::ScopeMissing, Status::Denied),
            (Reason::NotFound, Status::NotFound),
            (Reason::NameTaken, Status::Conflict),
            (Reason::StaleVersion, Status::Conflict),
            (Reason::Invalid, Status::Refused),
            (Reason::ConfigInvalid, Status::Config),
            (Reason::StoreUnavailable, Status::Unavailable),
            (Reason::TooManyRequests, Status::Unavailable),
            (Reason::StorageFull, Status::State),
            (Reason::Internal, Status::Findings),
        ] {
            assert_eq!(told(&Problem::new(reason, "x"), None).status, status, "{}", reason.code());
        }
    }

    #[test]
    fn several_wrong_values_are_listed_and_one_is_not_said_twice() {
        let errors = vec![FieldError::new("/name", "is long"), FieldError::new("/rate", "is low")];
        let failure = told(&Problem::invalid(errors), None);
        assert_eq!(
            failure.message,
            "2 values are wrong, see errors (invalid)\n  /name: is long\n  /rate: is low"
        );
        let one = told(&Problem::invalid(vec![FieldError::new("/name", "is long")]), Some(7));
        assert_eq!(one.message, "/name: is long (invalid); try again in 7 s");
    }

    #[test]
    fn what_is_not_the_api_is_said_to_be_none_and_cannot_reach_the_terminal() {
        let failure = failure(502, "<html>\x1b[2J</html>", None, "https://a");
        assert_eq!(failure.status, Status::NotRunning);
        assert!(failure.message.contains("https://a answered with status 502"), "{failure}");
        let body = "{\"type\":\"urn:ringway:problem:x\",\"detail\":\"a\\u001b[2Jb\"}";
        let hostile = super::failure(409, body, None, "x");
        assert_eq!(hostile.message, "a\\u{1b}[2Jb (x)");
    }
}
