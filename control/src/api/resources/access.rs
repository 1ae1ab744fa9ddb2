//! `/api/v1/access`: a person signs in, and its devices may connect for as long as the policy says.
//!
//! A token does not count here: it would turn a sign-in with several factors into one without any.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::At;
use super::refusals::Refusals;
use super::{actor, is_session, oneself};
use crate::api::credentials::{Chain, ChallengeState, Given, Judged};
use crate::api::gatekeeper::Via;
use crate::api::logins::Login;
use crate::api::{ApiState, Caller, Need, Problem, Reason, StrictJson, Who};
use crate::directory::input::Secret;
use crate::directory::{Actor, Directory, Granted};
use crate::events::Kind;
use crate::store::records::Role;

const TAG: &str = "access";

pub(super) const NEEDS: &[Need] = &[
    Need::new("POST", "/api/v1/access", Who::SignedIn, "me:write"),
    Need::new("DELETE", "/api/v1/access", Who::SignedIn, "me:write"),
    Need::new("POST", "/api/v1/access/sign-in", Who::Anybody, ""),
    Need::new("POST", "/api/v1/users/{user}/access", Who::Role(Role::Operator), "devices:write"),
    Need::new("DELETE", "/api/v1/users/{user}/access", Who::Role(Role::Operator), "devices:write"),
];

/// What events say signed somebody in here.
const BY: &str = "access";

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(grant_my_access, end_my_access))
        .routes(routes!(sign_in_for_access))
        .routes(routes!(grant_access, end_access))
}

/// For which device.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"device": "laptop"}))]
struct WhichDevice {
    /// Name or identifier; all that are enabled if it is left out.
    device: Option<String>,
}

/// Lets devices of the caller, who signed in, connect until the time of its policy is over. Renews
/// what is running, without a new key.
#[utoipa::path(post, path = "/api/v1/access", operation_id = "grantMyAccess", tag = TAG,
    request_body = WhichDevice, responses((status = 200, body = Granted), Refusals))]
async fn grant_my_access(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    login: Option<Extension<Login>>,
    StrictJson(form): StrictJson<WhichDevice>,
) -> Result<Json<Granted>, Problem> {
    let user = caller.own_user()?.to_string();
    let Some(Extension(login)) = login.filter(|_| is_session(&caller)) else {
        let detail = "Sign in for this: a token is not enough";
        return Err(Problem::new(Reason::Forbidden, detail));
    };
    let (actor, proved) = (oneself(&caller), login.proved);
    Ok(Json(directory.grant_signed_in(&actor, &user, form.device, proved).await?))
}

/// Ends the access of all devices of the caller.
#[utoipa::path(delete, path = "/api/v1/access", operation_id = "endMyAccess", tag = TAG,
    responses((status = 204, description = "They may not connect any more."), Refusals))]
async fn end_my_access(
    Extension(directory): Extension<Directory>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let user = caller.own_user()?.to_string();
    directory.end_access(&oneself(&caller), &user, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a person signs in with, and for which device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ada", "password": "a sentence that only I know"}))]
struct AccessSignIn {
    /// Name of the user; may be left out if a token or a client certificate says it.
    #[serde(default)]
    #[schema(max_length = 64)]
    name: Option<String>,
    /// Password, if the policy asks for one.
    #[serde(default)]
    password: Option<Secret>,
    /// One-time password, two in a row if it goes by a counter and is far ahead, or recovery code.
    #[serde(default)]
    totp: Option<Secret>,
    /// Access token (JWT) of an issuer that the configuration names.
    #[serde(default)]
    token: Option<Secret>,
    /// `continuation` of the challenge before.
    #[serde(default)]
    #[schema(max_length = 512)]
    continuation: Option<String>,
    /// Name or identifier; all that are enabled if it is left out.
    #[serde(default)]
    device: Option<String>,
}

/// Signs a person in and lets its devices connect, without a session of the API: for programs on
/// devices. A client certificate is taken from the connection. Every refusal of the credentials is
/// the same, whatever is wrong; only what is wrong with a certificate is told. The first question
/// is the same for every name, what the policy `default` begins with: whoever's policy begins with
/// something else sends that at once.
#[utoipa::path(post, path = "/api/v1/access/sign-in", operation_id = "signInForAccess", tag = TAG,
    request_body = AccessSignIn,
    responses((status = 200, body = Granted),
        (status = 202, body = ChallengeState, description = "One more factor is needed."),
        Refusals))]
async fn sign_in_for_access(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    Extension(via): Extension<Via>,
    chain: Chain,
    StrictJson(form): StrictJson<AccessSignIn>,
) -> Result<Response, Problem> {
    let given = Given {
        name: form.name,
        password: form.password.map(|password| password.0),
        totp: form.totp.map(|totp| totp.0),
        token: form.token.map(|token| token.0),
        continuation: form.continuation,
    };
    let (user, name, proved) = match given.judge(&state, via.source, &chain, BY).await? {
        Judged::In { user, name, proved } => (user, name, proved),
        Judged::Challenge(challenge) => {
            return Ok((StatusCode::ACCEPTED, Json(challenge)).into_response());
        }
    };
    let actor = Actor::oneself(&name, user);
    let granted = directory.grant_signed_in(&actor, &user.to_string(), form.device, proved).await?;
    state.hub().publish(state.now(), Kind::SignInAccepted, name, json!({ "by": BY }));
    Ok(Json(granted).into_response())
}

/// Lets devices of a user connect without a sign-in, until the time of its policy is over.
#[utoipa::path(post, path = "/api/v1/users/{user}/access", operation_id = "grantAccess", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    request_body = WhichDevice, responses((status = 200, body = Granted), Refusals))]
async fn grant_access(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    StrictJson(form): StrictJson<WhichDevice>,
) -> Result<Json<Granted>, Problem> {
    Ok(Json(directory.grant_access(&actor(&caller), &user, form.device).await?))
}

/// Ends the access of all devices of a user.
#[utoipa::path(delete, path = "/api/v1/users/{user}/access", operation_id = "endAccess", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 204, description = "They may not connect any more."), Refusals))]
async fn end_access(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
) -> Result<StatusCode, Problem> {
    directory.end_access(&actor(&caller), &user, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
