//! Which part of a list a query asks for, and which record a path names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::api::paged::{LIMIT_DEFAULT, LIMIT_MAX, Paged};
use crate::api::problem::{FieldError, Problem};
use crate::api::reason::Reason;
use crate::store::{Page, Rows};

/// The page of the parameters `after` and `limit`.
pub(super) fn page(after: Option<String>, limit: Option<u32>) -> Result<Page, Problem> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let message = format!("1 to {LIMIT_MAX} rows, not {limit}");
        let errors = vec![FieldError::new("?limit", message.clone())];
        return Err(Problem { errors, ..Problem::new(Reason::BadQuery, message) });
    }
    Ok(Page { after, limit })
}

/// Rows as they are shown.
pub(super) fn paged<T>(rows: Rows<T>) -> Paged<T> {
    Paged { items: rows.items, next: rows.next }
}

/// The words of a path. What is no text is the name of nothing.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        let Ok(Path(words)) = read else {
            let detail = "A part of the address is neither a name nor an identifier";
            return Err(Problem::new(Reason::NotFound, detail));
        };
        Ok(Self(words))
    }
}
