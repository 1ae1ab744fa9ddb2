//! Who calls: what a request has proved, and what that allows.
//!
//! Made by `gatekeeper` from a token, a session cookie or the credentials of a Unix socket; a
//! handler takes it as an argument. A handler that has one may rely on the route's entry in the
//! table of needs having been met; finer rules (only an administrator gives roles) are its own.

use std::fmt;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;
use super::reason::Reason;
use crate::store::ids::{TokenId, UserId};
use crate::store::records::Role;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A process on this host, by its user id.
    Unix {
        /// User id as the kernel says it.
        uid: u32,
    },
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid } => write!(f, "local:{uid}"),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// What the caller has proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is root or the gateway's own user, on the Unix socket.
    Local {
        /// User id as the kernel says it.
        uid: u32,
    },
    /// It has a session cookie.
    Session {
        /// Whose session.
        user: UserId,
        /// Its name at sign-in.
        name: String,
    },
    /// It has an API token.
    Token {
        /// Which.
        token: TokenId,
        /// Whose.
        user: UserId,
        /// The owner's name.
        name: String,
        /// What the token was made for: `KIND:read`, `KIND:write` or `*`.
        scopes: Vec<String>,
    },
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it has proved.
    pub proof: Proof,
    /// Its role now; none for a user who may only see to its own things.
    pub role: Option<Role>,
    /// Where from.
    pub source: Source,
}

impl Caller {
    /// As the audit log writes it: `user:NAME`, `token:ID` or `local:UID`.
    #[must_use]
    pub fn actor(&self) -> String {
        match &self.proof {
            Proof::Local { uid } => format!("local:{uid}"),
            Proof::Session { name, .. } => format!("user:{name}"),
            Proof::Token { token, .. } => format!("token:{token}"),
        }
    }

    /// The user behind it; none on the Unix socket.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        match &self.proof {
            Proof::Local { .. } => None,
            Proof::Session { user, .. } | Proof::Token { user, .. } => Some(*user),
        }
    }

    /// Whether it is root or the gateway's own user on the Unix socket.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self.proof, Proof::Local { .. })
    }

    /// Whether its role is at least `role`.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.role.is_some_and(|own| own >= role)
    }

    /// Refuses a caller whose role is below `role`.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        if self.has(role) {
            return Ok(());
        }
        let has = self.role.map_or("no role", Role::word);
        let detail = format!("This needs the role {}, and {} has {has}", role.word(), self.actor());
        Err(Problem::new(Reason::Forbidden, detail))
    }

    /// The user behind it, for what users do about themselves.
    ///
    /// # Errors
    /// 403 on the Unix socket, where nobody signed in.
    pub fn own_user(&self) -> Result<UserId, Problem> {
        let detail =
            "This is about the user who signed in, and nobody did: sign in, or use a token";
        self.user().ok_or_else(|| Problem::new(Reason::Forbidden, detail))
    }

    /// Whether its token, if it has one, was made for `scope` (`users:read`).
    #[must_use]
    pub fn covers(&self, scope: &str) -> bool {
        let Proof::Token { scopes, .. } = &self.proof else { return true };
        let read_of = scope.strip_suffix(":read").map(|kind| format!("{kind}:write"));
        scopes.iter().any(|own| own == "*" || own == scope || Some(own) == read_of.as_ref())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Reason::Unauthenticated, UNAUTHENTICATED))
    }
}

/// What somebody without credentials is told.
pub const UNAUTHENTICATED: &str =
    "Send an API token as \"Authorization: Bearer TOKEN\", or sign in at POST /api/v1/session";
