//! The HTTP API of the gateway: its frame.
//!
//! The frame decides who may call what ([`needs`], [`caller`]), reads requests strictly ([`json`],
//! [`query`]) and refuses in one way ([`problem`], [`reason`]). Resources are thin: they read, call
//! what does the work, and show. A part of the API is a [`Part`]: its routes with their
//! documentation, and its lines of the table of needs; [`router`] joins the parts. Nothing here
//! runs on a core or on the control thread.

pub mod accounts;
pub mod caller;
pub mod credentials;
pub mod document;
pub mod doors;
mod ending;
#[cfg(test)]
pub(crate) mod fake;
pub mod first_start;
mod front;
mod gate;
pub mod gatekeeper;
pub mod joining;
pub mod json;
pub mod live;
pub mod logins;
pub mod needs;
pub mod paged;
mod places;
pub mod pointer;
pub mod problem;
pub mod query;
pub mod rate;
pub mod reason;
pub mod resources;
mod routes;
pub mod server;
pub mod sign_in;
pub mod state;

#[cfg(test)]
mod tests;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use caller::{Caller, Proof, Source};
pub use json::StrictJson;
pub use live::{Live, LiveError};
pub use needs::{Need, Needs, Who};
pub use paged::Paged;
pub use problem::{FieldError, Problem, ProblemBody};
pub use query::StrictQuery;
pub use reason::Reason;
pub use sign_in::{SignIn, SignInAttempt, SignInOutcome};
pub use state::{ApiState, Parts};

/// Some routes of the API. What they need beyond [`ApiState`] (the directory) they bring along as
/// a layer: `router.layer(axum::Extension(directory))`.
pub struct Part {
    /// Routes with full paths (`/api/v1/users/{user}`), registered with `routes!`, so that each is
    /// in the OpenAPI document.
    pub router: OpenApiRouter<ApiState>,
    /// What each asks of its caller.
    pub needs: &'static [Need],
}

/// Joins the routes of the frame and `more` to the whole API, with everything in front of them, and
/// gives the OpenAPI document beside it.
pub fn router(state: &ApiState, more: Vec<Part>) -> (Router, OpenApi) {
    let mut all = OpenApiRouter::default();
    let mut lines = vec![document::NEEDS];
    for part in routes::parts().into_iter().chain(more) {
        all = all.merge(part.router);
        lines.push(part.needs);
    }
    let needs = Needs::new(&lines);
    let (router, mut openapi) = all.split_for_parts();
    document::complete(&mut openapi, &needs);
    state.set_needs(needs);
    let router = router.merge(document::routes(&openapi)).with_state(state.clone());
    (front::wrap(router, state), openapi)
}
