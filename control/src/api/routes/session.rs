//! Signing in with a browser: a cookie, and a token against requests of foreign pages.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use crate::api::credentials::{Chain, ChallengeState, Given, Judged, refused};
use crate::api::gatekeeper::{Door, Via, cookie, cookie_name};
use crate::api::logins::{AGE_MS_MAX, Login, Secret, hex};
use crate::api::{ApiState, Caller, Need, Part, Problem, Reason, StrictJson, Who};
use crate::events::Kind;
use crate::store::ids::{Timestamp, UserId};
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("POST", "/api/v1/session", Who::Anybody, ""),
    Need::new("GET", "/api/v1/session", Who::SignedIn, "session:read"),
    Need::new("DELETE", "/api/v1/session", Who::SignedIn, "session:write"),
];

/// What events say signed somebody in here.
const BY: &str = "api";

pub(super) fn part() -> Part {
    Part { router: OpenApiRouter::new().routes(routes!(begin, show, end)), needs: NEEDS }
}

/// What somebody signs in with
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignInInput {
    /// Name of the user; may be left out if a token or a client certificate says it.
    #[serde(default)]
    #[schema(max_length = 64, example = "anna")]
    name: Option<String>,
    /// Password.
    #[serde(default)]
    #[schema(max_length = 1024)]
    password: Option<String>,
    /// One-time password, two in a row if it goes by a counter and is far ahead, or recovery code.
    #[serde(default)]
    #[schema(max_length = 64)]
    totp: Option<String>,
    /// Access token (JWT) of an issuer that the configuration names.
    #[serde(default)]
    #[schema(max_length = 8192)]
    token: Option<String>,
    /// `continuation` of the challenge before.
    #[serde(default)]
    #[schema(max_length = 512)]
    continuation: Option<String>,
}

/// Who is signed in
#[derive(Debug, Serialize, ToSchema)]
struct SignedIn {
    /// As the audit log writes it: `user:NAME`, `token:ID` or `local:UID`.
    actor: String,
    /// The user, unless it is root on the Unix socket.
    user: Option<UserId>,
    /// What it may do with the API.
    role: Option<Role>,
    /// To be repeated in the header X-CSRF-Token of every change; with a cookie only.
    csrf_token: Option<String>,
    /// When the login ends if nothing happens; with a cookie only.
    ends_at: Option<Timestamp>,
}

/// Sign in
///
/// Sets a cookie that no script can read. A client certificate is taken from the connection. Every
/// refusal is the same, whatever is wrong; only what is wrong with a certificate is told. The first
/// question is the same for every name, what the policy `default` begins with: whoever's policy
/// begins with something else sends that at once.
#[utoipa::path(post, path = "/api/v1/session", operation_id = "signIn", tag = "session",
    request_body = SignInInput,
    responses(
        (status = 200, description = "Signed in", body = SignedIn,
            headers(("Set-Cookie" = String, description = "The session"))),
        (status = 202, description = "One more factor is needed", body = ChallengeState)))]
async fn begin(
    State(state): State<ApiState>,
    Extension(via): Extension<Via>,
    chain: Chain,
    StrictJson(input): StrictJson<SignInInput>,
) -> Result<Response, Problem> {
    let given = Given {
        name: input.name,
        password: input.password.map(Zeroizing::new),
        totp: input.totp.map(Zeroizing::new),
        token: input.token.map(Zeroizing::new),
        continuation: input.continuation,
    };
    let (user, name, proved) = match given.judge(&state, via.source, &chain, BY).await? {
        Judged::In { user, name, proved } => (user, name, proved),
        Judged::Challenge(challenge) => {
            return Ok((StatusCode::ACCEPTED, Json(challenge)).into_response());
        }
    };
    let account = state.accounts().by_id(user).await?;
    // The login is bound to the password that was proved, whatever is stored by now.
    let print = proved.password_print;
    let account = account.filter(|account| {
        let is_stored = print.is_none_or(|print| print == account.password_print);
        is_stored && account.may_enter(state.now())
    });
    let Some(account) = account else {
        return Err(refused(&state, name, BY, Reason::SignInRefused).await);
    };
    let (secret, csrf) = (random()?, random()?);
    let begun = state
        .logins()
        .begin((user, name.clone(), account.password_print), proved, &secret, csrf, state.now())
        .cloned();
    let login = begun
        .map_err(|error| Problem::new(Reason::Overloaded, error.to_string()).retry_after(60))?;
    state.hub().publish(state.now(), Kind::SignInAccepted, name.clone(), json!({ "by": BY }));
    let shown = SignedIn {
        actor: format!("user:{name}"),
        user: Some(user),
        role: account.user.role,
        csrf_token: Some(login.csrf()),
        ends_at: Some(login.ends_at()),
    };
    let cookie = set_cookie(via.door, &Zeroizing::new(hex(&secret)), AGE_MS_MAX / 1000)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(shown)).into_response())
}

fn random() -> Result<Secret, Problem> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Problem::internal(&error))?;
    Ok(secret)
}

fn set_cookie(door: Door, value: &str, seconds: i64) -> Result<HeaderValue, Problem> {
    let (name, secure) = (cookie_name(door), if door == Door::Https { "; Secure" } else { "" });
    let text =
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::from_str(&text).map_err(|error| Problem::internal(&error))?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

/// Who is signed in
#[utoipa::path(get, path = "/api/v1/session", operation_id = "getSession", tag = "session",
    responses((status = 200, description = "The caller", body = SignedIn)))]
async fn show(caller: Caller, login: Option<Extension<Login>>) -> Json<SignedIn> {
    Json(SignedIn {
        actor: caller.actor(),
        user: caller.user(),
        role: caller.role,
        csrf_token: login.as_ref().map(|login| login.csrf()),
        ends_at: login.as_ref().map(|login| login.ends_at()),
    })
}

/// Sign out
#[utoipa::path(delete, path = "/api/v1/session", operation_id = "signOut", tag = "session",
    responses((status = 204, description = "Signed out")))]
async fn end(
    State(state): State<ApiState>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(value) = cookie(&headers, cookie_name(via.door)) {
        state.logins().end(value);
    }
    let cookie = set_cookie(via.door, "", 0)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
