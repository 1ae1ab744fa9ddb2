//! `/api/v1/groups`: users with a policy and a rate in common.

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
use crate::directory::input::{GroupPatch, NewGroup};
use crate::store::records::{Group, Role};

const TAG: &str = "groups";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/groups", Who::Role(Role::Viewer), "groups:read"),
    Need::new("POST", "/api/v1/groups", Who::Role(Role::Operator), "groups:write"),
    Need::new("GET", "/api/v1/groups/{group}", Who::Role(Role::Viewer), "groups:read"),
    Need::new("PATCH", "/api/v1/groups/{group}", Who::Role(Role::Operator), "groups:write"),
    Need::new("DELETE", "/api/v1/groups/{group}", Who::Role(Role::Operator), "groups:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_groups, create_group)).routes(routes!(
        show_group,
        patch_group,
        delete_group
    ))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct GroupQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists groups by name.
#[utoipa::path(get, path = "/api/v1/groups", operation_id = "listGroups", tag = TAG,
    params(GroupQuery), responses((status = 200, body = Paged<Group>), Refusals))]
async fn list_groups(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<GroupQuery>,
) -> Result<Json<Paged<Group>>, Problem> {
    Ok(Json(paged(directory.groups(page(query.after, query.limit)?).await?)))
}

/// Makes a group.
#[utoipa::path(post, path = "/api/v1/groups", operation_id = "createGroup", tag = TAG,
    request_body = NewGroup, responses((status = 201, body = Group), Refusals))]
async fn create_group(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewGroup>,
) -> Result<Versioned<Group>, Problem> {
    let group = directory.create_group(&actor(&caller), form).await?;
    Ok(Versioned::created(group.version, group))
}

/// Shows a group.
#[utoipa::path(get, path = "/api/v1/groups/{group}", operation_id = "showGroup", tag = TAG,
    params(("group" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = Group), Refusals))]
async fn show_group(
    Extension(directory): Extension<Directory>,
    At(group): At<String>,
) -> Result<Versioned<Group>, Problem> {
    let group = directory.group(&group).await?;
    Ok(Versioned::ok(group.version, group))
}

/// Changes a group by a merge patch: what is absent stays, what is null is taken away.
#[utoipa::path(patch, path = "/api/v1/groups/{group}", operation_id = "patchGroup", tag = TAG,
    params(("group" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body(content((GroupPatch = "application/merge-patch+json"),
        (GroupPatch = "application/json"))),
    responses((status = 200, body = Group), Refusals))]
async fn patch_group(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(group): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(patch): StrictJson<GroupPatch>,
) -> Result<Versioned<Group>, Problem> {
    let group = directory.patch_group(&actor(&caller), &group, version, patch).await?;
    Ok(Versioned::ok(group.version, group))
}

/// Removes a group that nothing refers to.
#[utoipa::path(delete, path = "/api/v1/groups/{group}", operation_id = "deleteGroup", tag = TAG,
    params(("group" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_group(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(group): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_group(&actor(&caller), &group, version).await?;
    Ok(StatusCode::NO_CONTENT)
}
