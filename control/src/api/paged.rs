//! Lists in pages.

use serde::Serialize;
use utoipa::ToSchema;

/// Rows of a page unless the query says otherwise.
pub const LIMIT_DEFAULT: u32 = 100;

/// Most rows of a page.
pub const LIMIT_MAX: u32 = 1000;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Paged<T> {
    /// The rows of this page.
    pub items: Vec<T>,
    /// Give this as `after` to get the next page; absent on the last.
    pub next: Option<String>,
}

impl<T> Paged<T> {
    /// The same page with other rows.
    #[must_use]
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Paged<U> {
        Paged { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}
