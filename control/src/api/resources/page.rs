//! Which part of a list a query asks for, and which record a path names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::api::paged::{LIMIT_DEFAULT, Paged};
use crate::api::problem::Problem;
use crate::api::reason::Reason;
use crate::store::{Page, Rows};

/// The page of the parameters `after` and `limit`. Whether it can be is the store's to say.
pub(super) fn page(after: Option<String>, limit: Option<u32>) -> Page {
    Page { after, limit: limit.unwrap_or(LIMIT_DEFAULT) }
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
