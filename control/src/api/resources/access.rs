//! `/api/v1/access`: a person signs in, and its devices may connect for as long as the policy says.
//!
//! A token does not count here: it would turn a sign-in with several factors into one without any.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::At;
use super::refusals::Refusals;
use super::{actor, is_session, oneself};
use crate::api::gatekeeper::Via;
use crate::api::{
    ApiState, Caller, FieldError, Need, Problem, Reason, SignInAttempt, SignInOutcome, StrictJson,
    Who,
};
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
    StrictJson(form): StrictJson<WhichDevice>,
) -> Result<Json<Granted>, Problem> {
    let user = caller.own_user()?.to_string();
    if !is_session(&caller) {
        let detail = "Sign in for this: a token is not enough";
        return Err(Problem::new(Reason::Forbidden, detail));
    }
    Ok(Json(directory.grant_access(&oneself(&caller), &user, form.device).await?))
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
    /// Name of the user.
    #[schema(max_length = 64)]
    name: String,
    /// Password, if the policy asks for one.
    #[serde(default)]
    password: Option<Secret>,
    /// One-time password or recovery code.
    #[serde(default)]
    totp: Option<Secret>,
    /// `continuation` of the challenge before.
    #[serde(default)]
    #[schema(max_length = 512)]
    continuation: Option<String>,
    /// Name or identifier; all that are enabled if it is left out.
    #[serde(default)]
    device: Option<String>,
}

/// One more factor is needed.
#[derive(Debug, Serialize, ToSchema)]
struct AccessChallenge {
    /// What to ask the person for.
    prompt: String,
    /// To be sent back with the answer.
    continuation: String,
}

/// Longest text of a credential in bytes; `auth` takes no longer password.
const CREDENTIAL_BYTES_MAX: usize = 1024;

/// Signs a person in and lets its devices connect, without a session of the API: for programs on
/// devices. Every refusal of the credentials is the same, whatever is wrong.
#[utoipa::path(post, path = "/api/v1/access/sign-in", operation_id = "signInForAccess", tag = TAG,
    request_body = AccessSignIn,
    responses((status = 200, body = Granted),
        (status = 202, body = AccessChallenge, description = "One more factor is needed."),
        Refusals))]
async fn sign_in_for_access(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    Extension(via): Extension<Via>,
    StrictJson(form): StrictJson<AccessSignIn>,
) -> Result<Response, Problem> {
    if form.name.chars().count() > 64 {
        let wrong = FieldError::new("/name", "may have 64 characters");
        return Err(Problem::invalid(vec![wrong]));
    }
    let secrets = [&form.password, &form.totp].map(|one| one.as_ref().map(|one| one.0.as_str()));
    let texts = [Some(form.name.as_str()), form.continuation.as_deref(), form.device.as_deref()];
    if secrets.iter().chain(&texts).flatten().any(|text| text.len() > CREDENTIAL_BYTES_MAX) {
        let message = format!("Nothing here has more than {CREDENTIAL_BYTES_MAX} bytes");
        return Err(Problem::invalid(vec![FieldError::new("", message)]));
    }
    let attempt = SignInAttempt {
        name: form.name,
        password: form.password.map(|password| password.0),
        totp: form.totp.map(|totp| totp.0),
        continuation: form.continuation,
        source: via.source,
    };
    let (user, name) = match state.sign_in().sign_in(attempt).await {
        SignInOutcome::Accepted { user, name } => (user, name),
        SignInOutcome::Challenge { prompt, continuation } => {
            let challenge = Json(AccessChallenge { prompt, continuation });
            return Ok((StatusCode::ACCEPTED, challenge).into_response());
        }
        SignInOutcome::Refused => {
            let reason = Reason::SignInRefused;
            return Err(Problem::new(reason, reason.title()));
        }
        SignInOutcome::TooMany { retry_after_s } => {
            let detail = "Too many attempts: wait";
            return Err(Problem::new(Reason::TooManyRequests, detail).retry_after(retry_after_s));
        }
        SignInOutcome::Unavailable { retry_after_s } => {
            let detail = "Nobody can be signed in now: try again";
            return Err(Problem::new(Reason::Overloaded, detail).retry_after(retry_after_s));
        }
    };
    let actor = Actor { name: format!("user:{name}"), role: None, user: Some(user) };
    let granted = directory.grant_access(&actor, &user.to_string(), form.device).await?;
    state.hub().publish(state.now(), Kind::SignInAccepted, name, json!({"by": "access"}));
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
