//! What every answer passes on its way out, and every request on its way in.
//!
//! From the outside: security headers and the final form of problems; panics; the time for an
//! answer; `gatekeeper`; then the number of requests at the same time, which is counted by who
//! calls. So whatever refuses a request, the client gets a problem with its path, the reason is
//! counted, and no answer goes out without its headers.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::caller::Caller;
use super::gatekeeper::{Door, Via, guard};
use super::problem::{self, Problem};
use super::reason::Reason;
use super::state::ApiState;

/// How long an answer may take to begin. The store's deadline is 5 s, a report may take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Policy of everything but pages: nothing may be loaded, nobody may frame it.
const NOTHING_LOADS: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; \
                             form-action 'none'";

/// Puts all of it around `router`.
pub(super) fn wrap(router: Router, state: &ApiState) -> Router {
    let with = |state: &ApiState| state.clone();
    router
        .fallback(async || Problem::new(Reason::NotFound, "There is nothing at this address"))
        .layer(middleware::from_fn_with_state(with(state), in_turn))
        .layer(middleware::from_fn_with_state(with(state), guard))
        .layer(middleware::from_fn(in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(with(state), finish))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("There was no answer within {} s", ANSWER_TIMEOUT.as_secs());
            Problem::new(Reason::HandlerTimeout, detail).retry_after(5).into_response()
        }
    }
}

async fn in_turn(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let Some(via) = request.extensions().get::<Via>().copied() else {
        return Problem::internal(&"a request without its door").into_response();
    };
    let Some(_place) = state.take_place(request.extensions().get::<Caller>(), via.source) else {
        let detail = "Too many requests are being worked on: try again";
        return Problem::new(Reason::Overloaded, detail).retry_after(1).into_response();
    };
    next.run(request).await
}

fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    // The panic hook has written what and where.
    Problem::new(Reason::Internal, Reason::Internal.title()).into_response()
}

async fn finish(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let unread = request.extensions_mut().remove::<Unread>();
    let path = unread.is_none().then(|| request.uri().path().to_owned());
    let https = request.extensions().get::<Via>().is_some_and(|via| via.door == Door::Https);
    let mut response = match unread {
        Some(Unread(problem)) => problem.into_response(),
        None => next.run(request).await,
    };
    let refused = response.extensions_mut().remove::<Problem>().or_else(|| plain(&response));
    if let Some(refused) = refused {
        state.refusals().count(refused.reason);
        let allow = response.headers().get(header::ALLOW).cloned();
        response = problem::render(&refused, path);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if ends_connection(refused.reason) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
    }
    secure(&mut response, https);
    response
}

/// Whether what follows on the connection may be the rest of a body that was not read.
const fn ends_connection(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::HeadersTooLarge
            | Reason::LengthRequired
            | Reason::BodyTooLarge
            | Reason::RequestTimeout
            | Reason::HandlerTimeout
            | Reason::Overloaded
    )
}

/// The problem of an answer that axum itself refused with, in its own words.
fn plain(response: &Response) -> Option<Problem> {
    let status = response.status();
    let form = response.headers().get(header::CONTENT_TYPE);
    let is_problem = form.is_some_and(|form| form == problem::CONTENT_TYPE);
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let meant = response.extensions().get::<Meant>().is_some();
    let reason = match status {
        _ if meant => return None,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Reason::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Reason::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Reason::UnsupportedMediaType,
        other if other.is_server_error() => Reason::Internal,
        _ => Reason::BadRequest,
    };
    Some(Problem::new(reason, reason.title()))
}

/// Marks an answer whose error status is not a refusal (an unhealthy gateway says so with 503).
#[derive(Clone, Copy, Debug)]
pub(super) struct Meant;

/// Stands for a request that could not be read, with why: the server found that out by itself.
#[derive(Clone, Debug)]
pub(super) struct Unread(pub(super) Problem);

fn secure(response: &mut Response, https: bool) {
    let headers = response.headers_mut();
    let always = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A page brings its own, as narrow as it can be.
    let csp = header::CONTENT_SECURITY_POLICY;
    headers.entry(csp).or_insert(HeaderValue::from_static(NOTHING_LOADS));
    if https {
        let hsts = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
}
