//! `/api/v1/access`: a person signs in, and its devices may connect for as long as the policy says.
//!
//! A token does not count here: it would turn a sign-in with several factors into one without any.

use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::At;
use super::refusals::Refusals;
use super::{actor, is_session, oneself};
use crate::api::{ApiState, Caller, Need, Problem, Reason, StrictJson, Who};
use crate::directory::{Directory, Granted};
use crate::store::records::Role;

const TAG: &str = "access";

pub(super) const NEEDS: &[Need] = &[
    Need::new("POST", "/api/v1/access", Who::SignedIn, "me:write"),
    Need::new("DELETE", "/api/v1/access", Who::SignedIn, "me:write"),
    Need::new("POST", "/api/v1/users/{user}/access", Who::Role(Role::Operator), "devices:write"),
    Need::new("DELETE", "/api/v1/users/{user}/access", Who::Role(Role::Operator), "devices:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(grant_my_access, end_my_access))
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
