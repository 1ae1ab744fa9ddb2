//! `/api/v1/quotas`: who used how much of what they may.

use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::versions::{IfMatch, Versioned};
use crate::api::{ApiState, Caller, Need, Paged, Problem, StrictJson, StrictQuery, Who};
use crate::directory::input::{Patch, QuotaPatch, UserPatch};
use crate::directory::{Directory, QuotaRow, Standing};
use crate::store::records::{Quota, Role, User};

const TAG: &str = "quotas";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/quotas", Who::Role(Role::Viewer), "quotas:read"),
    Need::new("PUT", "/api/v1/users/{user}/quota", Who::Role(Role::Operator), "quotas:write"),
    Need::new("DELETE", "/api/v1/users/{user}/quota", Who::Role(Role::Operator), "quotas:write"),
    Need::new(
        "POST",
        "/api/v1/users/{user}/quota/reset",
        Who::Role(Role::Operator),
        "quotas:write",
    ),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_quotas))
        .routes(routes!(put_quota, delete_quota))
        .routes(routes!(reset_quota))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct QuotasQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists users by name, each with how it stands with its quota.
#[utoipa::path(get, path = "/api/v1/quotas", operation_id = "listQuotas", tag = TAG,
    params(QuotasQuery), responses((status = 200, body = Paged<QuotaRow>), Refusals))]
async fn list_quotas(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<QuotasQuery>,
) -> Result<Json<Paged<QuotaRow>>, Problem> {
    Ok(Json(paged(directory.quotas(page(query.after, query.limit)?).await?)))
}

/// Gives a user a quota of its own.
#[utoipa::path(put, path = "/api/v1/users/{user}/quota", operation_id = "putQuota", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body = Quota, responses((status = 200, body = User), Refusals))]
async fn put_quota(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(quota): StrictJson<Quota>,
) -> Result<Versioned<User>, Problem> {
    let whole = QuotaPatch {
        bytes: Patch::Set(quota.bytes),
        period: Patch::Set(quota.period),
        action: Patch::Set(quota.action),
        throttle_bps: quota.throttle_bps.map_or(Patch::Clear, Patch::Set),
    };
    let patch = UserPatch { quota: Patch::Set(whole), ..UserPatch::default() };
    let user = directory.patch_user(&actor(&caller), &user, version, patch).await;
    let user = user.map_err(outside_of("/quota"))?;
    Ok(Versioned::ok(user.version, user))
}

/// Takes a user's own quota away: that of its policy holds.
#[utoipa::path(delete, path = "/api/v1/users/{user}/quota", operation_id = "deleteQuota", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 200, body = User), Refusals))]
async fn delete_quota(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
) -> Result<Versioned<User>, Problem> {
    let patch = UserPatch { quota: Patch::Clear, ..UserPatch::default() };
    let user = directory.patch_user(&actor(&caller), &user, version, patch).await?;
    Ok(Versioned::ok(user.version, user))
}

/// Lets a user's quota begin anew now, until its period ends.
#[utoipa::path(post, path = "/api/v1/users/{user}/quota/reset", operation_id = "resetQuota",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = Standing), Refusals))]
async fn reset_quota(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
) -> Result<Json<Standing>, Problem> {
    Ok(Json(directory.reset_quota(&actor(&caller), &user).await?))
}

/// The body is only a part of what is checked: places in it begin after `prefix`.
fn outside_of(prefix: &'static str) -> impl Fn(crate::directory::Refusal) -> Problem {
    move |refusal| {
        let mut problem = Problem::from(refusal);
        for error in &mut problem.errors {
            if let Some(inner) = error.pointer.strip_prefix(prefix) {
                error.pointer = inner.to_owned();
            }
        }
        problem
    }
}
