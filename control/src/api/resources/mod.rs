//! What the API offers about records: users, groups, policies, pools, devices, tokens and so on.
//!
//! One file per resource, each thin: read the request, ask the directory, show the answer. Which
//! role a route needs is in the table beside its routes; rules that need records are the
//! directory's. Records have versions: an answer carries one as its `ETag`, and a change with
//! `If-Match` happens only to that version. Nothing here may know the store.

#![expect(unused_qualifications, reason = "the macro that documents parameters writes them so")]

mod access;
mod audit;
mod backup;
mod bans;
mod devices;
mod enrol;
mod enrolments;
mod groups;
mod me;
mod page;
mod policies;
mod pools;
mod quotas;
mod refusals;
mod tokens;
mod users;
mod versions;

use axum::Extension;
use utoipa_axum::router::OpenApiRouter;

use super::caller::{Caller, Proof};
use super::needs::Need;
use super::{ApiState, Part};
use crate::directory::{Actor, Directory};

/// The part of the API that is about records.
#[must_use]
pub fn part(directory: Directory) -> Part {
    let router: OpenApiRouter<ApiState> = OpenApiRouter::new()
        .merge(access::router())
        .merge(audit::router())
        .merge(backup::router())
        .merge(bans::router())
        .merge(devices::router())
        .merge(enrol::router())
        .merge(enrolments::router())
        .merge(groups::router())
        .merge(me::router())
        .merge(policies::router())
        .merge(pools::router())
        .merge(quotas::router())
        .merge(tokens::router())
        .merge(users::router());
    Part { router: router.layer(Extension(directory)), needs: needs() }
}

/// The lines of all resources.
fn needs() -> &'static [Need] {
    static NEEDS: std::sync::OnceLock<Vec<Need>> = std::sync::OnceLock::new();
    NEEDS.get_or_init(|| {
        [
            access::NEEDS,
            audit::NEEDS,
            backup::NEEDS,
            bans::NEEDS,
            devices::NEEDS,
            enrol::NEEDS,
            enrolments::NEEDS,
            groups::NEEDS,
            me::NEEDS,
            policies::NEEDS,
            pools::NEEDS,
            quotas::NEEDS,
            tokens::NEEDS,
            users::NEEDS,
        ]
        .concat()
    })
}

/// The scope of a token that was made for everything. No route asks for it by name.
const ALL: &str = "*";

/// The caller as the directory knows it.
fn actor(caller: &Caller) -> Actor {
    let is_narrow = !caller.covers(ALL);
    Actor { name: caller.actor(), role: caller.role, user: caller.user(), is_narrow }
}

/// As [`actor`], for what a user does about itself: whatever its role is, it is nobody's superior
/// there, so that a token made for `me` does not become one for others.
fn oneself(caller: &Caller) -> Actor {
    Actor { role: None, ..actor(caller) }
}

/// Whether somebody signed in for this, rather than a program with a token.
const fn is_session(caller: &Caller) -> bool {
    matches!(caller.proof, Proof::Session { .. })
}

#[cfg(test)]
mod tests;
