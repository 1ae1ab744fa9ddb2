//! `/api/v1/policies`: what users may do, under a name.

use axum::Extension;
use axum::Json;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::versions::{IfMatch, Versioned};
use crate::api::{ApiState, Caller, Need, Paged, Problem, StrictJson, StrictQuery, Who};
use crate::directory::Directory;
use crate::directory::input::{NewPolicy, PolicyPatch};
use crate::store::records::{Policy, Role};

const TAG: &str = "policies";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/policies", Who::Role(Role::Viewer), "policies:read"),
    Need::new("POST", "/api/v1/policies", Who::Role(Role::Operator), "policies:write"),
    Need::new("GET", "/api/v1/policies/{policy}", Who::Role(Role::Viewer), "policies:read"),
    Need::new("PATCH", "/api/v1/policies/{policy}", Who::Role(Role::Operator), "policies:write"),
    Need::new("DELETE", "/api/v1/policies/{policy}", Who::Role(Role::Operator), "policies:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_policies, create_policy)).routes(routes!(
        show_policy,
        patch_policy,
        delete_policy
    ))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PolicyQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists policies by name.
#[utoipa::path(get, path = "/api/v1/policies", operation_id = "listPolicies", tag = TAG,
    params(PolicyQuery), responses((status = 200, body = Paged<Policy>), Refusals))]
async fn list_policies(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<PolicyQuery>,
) -> Result<Json<Paged<Policy>>, Problem> {
    Ok(Json(paged(directory.policies(page(query.after, query.limit)?).await?)))
}

/// Makes a policy.
#[utoipa::path(post, path = "/api/v1/policies", operation_id = "createPolicy", tag = TAG,
    request_body = NewPolicy, responses((status = 201, body = Policy), Refusals))]
async fn create_policy(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewPolicy>,
) -> Result<Versioned<Policy>, Problem> {
    let policy = directory.create_policy(&actor(&caller), form).await?;
    Ok(Versioned::created(policy.version, policy))
}

/// Shows a policy.
#[utoipa::path(get, path = "/api/v1/policies/{policy}", operation_id = "showPolicy", tag = TAG,
    params(("policy" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = Policy), Refusals))]
async fn show_policy(
    Extension(directory): Extension<Directory>,
    At(policy): At<String>,
) -> Result<Versioned<Policy>, Problem> {
    let policy = directory.policy(&policy).await?;
    Ok(Versioned::ok(policy.version, policy))
}

/// Changes a policy by a merge patch: what is absent stays, what is null is taken away.
#[utoipa::path(patch, path = "/api/v1/policies/{policy}", operation_id = "patchPolicy", tag = TAG,
    params(("policy" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body(content((PolicyPatch = "application/merge-patch+json"),
        (PolicyPatch = "application/json"))),
    responses((status = 200, body = Policy), Refusals))]
async fn patch_policy(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(policy): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(patch): StrictJson<PolicyPatch>,
) -> Result<Versioned<Policy>, Problem> {
    let policy = directory.patch_policy(&actor(&caller), &policy, version, patch).await?;
    Ok(Versioned::ok(policy.version, policy))
}

/// Removes a policy that nothing refers to.
#[utoipa::path(delete, path = "/api/v1/policies/{policy}", operation_id = "deletePolicy", tag = TAG,
    params(("policy" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_policy(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(policy): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_policy(&actor(&caller), &policy, version).await?;
    Ok(StatusCode::NO_CONTENT)
}
