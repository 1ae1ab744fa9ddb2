//! In front of every handler: who calls, and may they?
//!
//! The order: requests that could be understood in two ways are refused; the source's bucket; the
//! route's line in the table of needs (a route without one does not exist); credentials; role and
//! scope; for cookies the proof that the page itself sends the request; the caller's bucket. A
//! request has one set of credentials: a token that is not accepted is never replaced by a cookie.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::caller::{Caller, Proof, Source, UNAUTHENTICATED};
use super::json::{BodyMax, STRANGERS_BODY_BYTES_MAX};
use super::logins;
use super::needs::{Need, Who};
use super::problem::Problem;
use super::reason::Reason;
use super::state::{ApiState, SourceKey};
use crate::store::ids::TokenId;
use crate::store::records::Role;

/// By which door a request came, and from whom. The server puts it into every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// Which door.
    pub door: Door,
    /// From whom.
    pub source: Source,
}

/// A kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The Unix socket: the kernel says who it is.
    Unix,
    /// TCP on this host, without encryption.
    Loopback,
    /// TLS.
    Https,
}

/// Header that an unsafe request with a cookie must repeat the CSRF token in.
pub const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");

/// Longest token. Ours have less than half of it.
const TOKEN_BYTES_MAX: usize = 256;

/// What wrong credentials cost the source, in requests: guessing is thirty times slower than
/// asking.
const WRONG_COST: u32 = 30;

/// Routes by which users see to their own things.
const SELF_SERVICE: &str = "/api/v1/me/";

/// How often the use of a token is noted.
const TOUCH_MS: i64 = 60_000;

/// Judges a request and hands it on, or refuses it.
pub async fn guard(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    match admit(&state, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Whether who came with these headers would be let in again, for as long as an answer lasts.
pub(super) async fn still_may(state: &ApiState, headers: &HeaderMap, via: Via, need: Need) -> bool {
    let found = identify(state, headers, via).await;
    found.is_ok_and(|(caller, _)| may(&caller, need).is_ok())
}

async fn admit(state: &ApiState, request: &mut Request) -> Result<(), Problem> {
    let Some(via) = request.extensions().get::<Via>().copied() else {
        return Err(Problem::internal(&"a request without its door"));
    };
    refuse_ambiguous(request, via.door)?;
    let limited = via.door != Door::Unix;
    let source = SourceKey::new(via.source);
    if limited {
        state.take_source(source, 1).map_err(too_many)?;
    }
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        // No route: the router says so.
        return Ok(());
    };
    let method = request.method().clone();
    let Some(need) = state.needs().of(&method, path.as_str()) else {
        return Err(no_such_method(state, path.as_str()));
    };
    if !method.is_safe() {
        refuse_foreign_pages(request.headers(), via.door)?;
    }
    let found = identify(state, request.headers(), via).await;
    if need.who == Who::Anybody {
        request.extensions_mut().insert(BodyMax(STRANGERS_BODY_BYTES_MAX));
        // Some say more to callers they know; wrong credentials make no difference here.
        if let Ok((caller, _)) = found {
            request.extensions_mut().insert(caller);
        }
        return Ok(());
    }
    let (caller, login) = found.inspect_err(|problem| {
        if limited && problem.reason == Reason::Unauthenticated {
            charge_wrong(state, via);
        }
    })?;
    may(&caller, need)?;
    if let (Some(login), false) = (&login, method.is_safe()) {
        let given = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok());
        if !given.is_some_and(|given| login.csrf_matches(given)) {
            let detail = "Repeat the csrf_token of the sign-in in the header X-CSRF-Token";
            return Err(Problem::new(Reason::CsrfRefused, detail));
        }
    }
    if let (true, Some(key)) = (limited, key_of(&caller)) {
        state.take_caller(key).map_err(too_many)?;
        if !method.is_safe() && need.path.starts_with(SELF_SERVICE) {
            state.take_self_service(key).map_err(too_many)?;
        }
    }
    request.extensions_mut().insert(caller);
    if let Some(login) = login {
        request.extensions_mut().insert(login);
    }
    Ok(())
}

/// Has whoever came with a wrong secret pay for it.
pub(super) fn charge_wrong(state: &ApiState, via: Via) {
    if via.door != Door::Unix {
        state.charge_source(SourceKey::new(via.source), WRONG_COST);
    }
}

fn too_many(seconds: u32) -> Problem {
    let detail = format!("Too many requests: try again in {seconds} s");
    Problem::new(Reason::TooManyRequests, detail).retry_after(seconds)
}

fn key_of(caller: &Caller) -> Option<u128> {
    match &caller.proof {
        Proof::Local { .. } => None,
        Proof::Session { user, .. } => Some(user.0.as_u128()),
        Proof::Token { token, .. } => Some(token.0.as_u128()),
    }
}

/// 405 with the methods there are, or 404 if the route itself is not in the table.
fn no_such_method(state: &ApiState, path: &str) -> Problem {
    let methods: Vec<&str> =
        state.needs().iter().filter(|need| need.path == path).map(|need| need.method).collect();
    if methods.is_empty() {
        return Problem::new(Reason::NotFound, "There is nothing at this address");
    }
    let allow = methods.join(", ");
    let detail = format!("This address takes {allow}");
    Problem { allow: Some(allow.into()), ..Problem::new(Reason::MethodNotAllowed, detail) }
}

fn may(caller: &Caller, need: Need) -> Result<(), Problem> {
    match need.who {
        Who::Anybody | Who::SignedIn => (),
        Who::Role(role) => caller.require(role)?,
        Who::Local => {
            if !caller.is_local() {
                let detail = "This is possible on the gateway's own host only, as root by the Unix \
                              socket";
                return Err(Problem::new(Reason::Forbidden, detail));
            }
        }
    }
    if caller.covers(need.scope) {
        return Ok(());
    }
    let detail = format!("The token was not made for {}: make one that is", need.scope);
    Err(Problem::new(Reason::ScopeMissing, detail))
}

/// Refuses what two programs in a row could understand differently: a length that is not told
/// beforehand (the classic way to smuggle one request inside another), several Host headers, and
/// on plain TCP a name that is not this host's (a page of a foreign name that points here).
fn refuse_ambiguous(request: &Request, door: Door) -> Result<(), Problem> {
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let detail = "Send the body with Content-Length, not in chunks";
        return Err(Problem::new(Reason::LengthRequired, detail));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Problem::new(Reason::BadRequest, "Host or Content-Length is given twice"));
    }
    let Some(host) = host else {
        return Err(Problem::new(Reason::BadRequest, "The header Host is missing"));
    };
    if door == Door::Loopback && !is_loopback_name(host) {
        let detail = "Without TLS this is reached as localhost, 127.0.0.1 or [::1] only";
        return Err(Problem::new(Reason::Misdirected, detail));
    }
    Ok(())
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Refuses an unsafe request that a browser sends for a page of somebody else, with whatever
/// credentials. Programs send neither header.
fn refuse_foreign_pages(headers: &HeaderMap, door: Door) -> Result<(), Problem> {
    let refused = |header: &str| {
        let detail = format!("The request comes from a page of another origin ({header})");
        Err(Problem::new(Reason::CsrfRefused, detail))
    };
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return refused("Sec-Fetch-Site");
    }
    let Some(origin) = text("origin") else { return Ok(()) };
    let scheme = match door {
        Door::Https => "https",
        Door::Loopback => "http",
        // No browser gets here by itself.
        Door::Unix => return refused("Origin"),
    };
    let host = text("host").unwrap_or_default();
    if origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")) {
        return Ok(());
    }
    refused("Origin")
}

/// Who calls, and for a cookie the login whose CSRF token counts.
async fn identify(
    state: &ApiState,
    headers: &HeaderMap,
    via: Via,
) -> Result<(Caller, Option<logins::Login>), Problem> {
    let refused = || Problem::new(Reason::Unauthenticated, UNAUTHENTICATED);
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = given.next() {
        if given.next().is_some() {
            return Err(refused());
        }
        let token = first.to_str().ok().and_then(bearer).ok_or_else(refused)?;
        return Ok((by_token(state, token, via.source).await?.ok_or_else(refused)?, None));
    }
    if let Some(cookie) = cookie(headers, cookie_name(via.door)) {
        let (caller, login) = by_cookie(state, cookie, via.source).await?.ok_or_else(refused)?;
        return Ok((caller, Some(login)));
    }
    match via.source {
        Source::Unix { uid } if via.door == Door::Unix && (uid == 0 || uid == state.own_uid()) => {
            let role = Some(Role::Administrator);
            Ok((Caller { proof: Proof::Local { uid }, role, source: via.source }, None))
        }
        Source::Unix { .. } | Source::Ip(_) => Err(refused()),
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    let fits = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

async fn by_token(
    state: &ApiState,
    token: &str,
    source: Source,
) -> Result<Option<Caller>, Problem> {
    let found = state.accounts().by_token(logins::hash(token.as_bytes())).await?;
    let Some((token, user)) = found else { return Ok(None) };
    let now = state.now();
    let role = user.role;
    let account = super::accounts::Account { user, password_print: [0; 32] };
    if token.expires_at.is_some_and(|end| now >= end) || !account.may_enter(now) {
        return Ok(None);
    }
    if token.last_used_at.is_none_or(|last| now.since(last) >= TOUCH_MS) {
        touch(state, token.id);
    }
    let name = account.user.name;
    let proof = Proof::Token { token: token.id, user: token.user, name, scopes: token.scopes };
    Ok(Some(Caller { proof, role, source }))
}

/// Notes the use beside the request, which need not wait for it.
fn touch(state: &ApiState, token: TokenId) {
    let noted = state.accounts().touch(token, state.now());
    tokio::spawn(async move {
        if let Err(error) = noted.await {
            tracing::debug!(%error, "The use of a token was not noted");
        }
    });
}

async fn by_cookie(
    state: &ApiState,
    cookie: &str,
    source: Source,
) -> Result<Option<(Caller, logins::Login)>, Problem> {
    let now = state.now();
    let Some(login) = state.logins().find(cookie, now) else { return Ok(None) };
    let account = state.accounts().by_id(login.user).await?;
    let account = account
        .filter(|account| account.may_enter(now) && account.password_print == login.password_print);
    let Some(account) = account else {
        state.logins().end(cookie);
        return Ok(None);
    };
    let proof = Proof::Session { user: login.user, name: account.user.name };
    Ok(Some((Caller { proof, role: account.user.role, source }, login)))
}

/// Name of the cookie. With TLS the browser itself sees to it that no other host can set it.
#[must_use]
pub const fn cookie_name(door: Door) -> &'static str {
    match door {
        Door::Https => "__Host-ringway",
        Door::Unix | Door::Loopback => "ringway",
    }
}

/// The value of a cookie; none if it is given more than once, as when a neighbour planted one.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
