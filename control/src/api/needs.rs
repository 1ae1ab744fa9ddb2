//! What each route asks of its caller: one table.
//!
//! The frame and the resources each give a part of it; [`Needs::new`] joins them. A route that is
//! in no part is refused for everybody, and a test compares the table with the OpenAPI document.

use std::collections::BTreeMap;

use axum::http::Method;

use crate::store::records::Role;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Anybody, without credentials.
    Anybody,
    /// Any user who signed in or has a token, with a role or without: what it may do is about
    /// itself.
    SignedIn,
    /// Whoever has at least this role.
    Role(Role),
    /// Root or the gateway's own user on the Unix socket.
    Local,
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// As in the OpenAPI document: `/api/v1/users/{user}`.
    pub path: &'static str,
    /// Who may.
    pub who: Who,
    /// What a token must have been made for: `KIND:read` or `KIND:write`; empty for
    /// [`Who::Anybody`].
    pub scope: &'static str,
}

impl Need {
    /// A line of the table.
    #[must_use]
    pub const fn new(
        method: &'static str,
        path: &'static str,
        who: Who,
        scope: &'static str,
    ) -> Self {
        Self { method, path, who, scope }
    }
}

/// The whole table.
#[derive(Clone, Debug, Default)]
pub struct Needs(BTreeMap<(&'static str, &'static str), Need>);

impl Needs {
    /// A table without lines: everything is refused.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Joins the parts.
    #[must_use]
    pub fn new(parts: &[&[Need]]) -> Self {
        let all = parts.iter().flat_map(|part| part.iter());
        Self(all.map(|need| ((need.path, need.method), *need)).collect())
    }

    /// What `method` at the route `path` needs; none if the table does not have it. HEAD needs what
    /// GET needs.
    #[must_use]
    pub fn of(&self, method: &Method, path: &str) -> Option<Need> {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.0.get(&(path, method)).copied()
    }

    /// All lines, by path and method.
    pub fn iter(&self) -> impl Iterator<Item = &Need> {
        self.0.values()
    }
}
