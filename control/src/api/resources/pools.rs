//! `/api/v1/pools`: inner addresses that devices lease.

use axum::Extension;
use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::versions::{IfMatch, Versioned};
use crate::api::{ApiState, Caller, Need, Paged, Problem, StrictJson, StrictQuery, Who};
use crate::directory::Directory;
use crate::directory::input::{NewPool, PoolPatch};
use crate::store::records::{Lease, Pool, Role};

const TAG: &str = "pools";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/pools", Who::Role(Role::Viewer), "pools:read"),
    Need::new("POST", "/api/v1/pools", Who::Role(Role::Administrator), "pools:write"),
    Need::new("GET", "/api/v1/pools/{pool}", Who::Role(Role::Viewer), "pools:read"),
    Need::new("PATCH", "/api/v1/pools/{pool}", Who::Role(Role::Administrator), "pools:write"),
    Need::new("DELETE", "/api/v1/pools/{pool}", Who::Role(Role::Administrator), "pools:write"),
    Need::new("GET", "/api/v1/pools/{pool}/leases", Who::Role(Role::Viewer), "pools:read"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_pools, create_pool))
        .routes(routes!(show_pool, patch_pool, delete_pool))
        .routes(routes!(list_leases))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PoolQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists pools by name.
#[utoipa::path(get, path = "/api/v1/pools", operation_id = "listPools", tag = TAG,
    params(PoolQuery), responses((status = 200, body = Paged<Pool>), Refusals))]
async fn list_pools(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<PoolQuery>,
) -> Result<Json<Paged<Pool>>, Problem> {
    Ok(Json(paged(directory.pools(page(query.after, query.limit)?).await?)))
}

/// Makes a pool.
#[utoipa::path(post, path = "/api/v1/pools", operation_id = "createPool", tag = TAG,
    request_body = NewPool, responses((status = 201, body = Pool), Refusals))]
async fn create_pool(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewPool>,
) -> Result<Versioned<Pool>, Problem> {
    let pool = directory.create_pool(&actor(&caller), form).await?;
    Ok(Versioned::created(pool.version, pool))
}

/// Shows a pool.
#[utoipa::path(get, path = "/api/v1/pools/{pool}", operation_id = "showPool", tag = TAG,
    params(("pool" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = PoolView), Refusals))]
async fn show_pool(
    Extension(directory): Extension<Directory>,
    At(pool): At<String>,
) -> Result<Versioned<PoolView>, Problem> {
    let (pool, free) = directory.pool(&pool).await?;
    Ok(Versioned::ok(pool.version, PoolView { pool, free }))
}

/// Changes a pool by a merge patch: what is absent stays, what is null is taken away.
#[utoipa::path(patch, path = "/api/v1/pools/{pool}", operation_id = "patchPool", tag = TAG,
    params(("pool" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body(content((PoolPatch = "application/merge-patch+json"),
        (PoolPatch = "application/json"))),
    responses((status = 200, body = Pool), Refusals))]
async fn patch_pool(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(pool): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(patch): StrictJson<PoolPatch>,
) -> Result<Versioned<Pool>, Problem> {
    let pool = directory.patch_pool(&actor(&caller), &pool, version, patch).await?;
    Ok(Versioned::ok(pool.version, pool))
}

/// Removes a pool that nothing refers to.
#[utoipa::path(delete, path = "/api/v1/pools/{pool}", operation_id = "deletePool", tag = TAG,
    params(("pool" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_pool(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(pool): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_pool(&actor(&caller), &pool, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A pool, and how much of it is left.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct PoolView {
    /// The record.
    pool: Pool,
    /// How many more devices find an address in it.
    free: u64,
}

/// Lists the addresses that are leased from a pool.
#[utoipa::path(get, path = "/api/v1/pools/{pool}/leases", operation_id = "listLeases", tag = TAG,
    params(("pool" = String, Path, description = "Name or identifier"), PoolQuery),
    responses((status = 200, body = Paged<Lease>), Refusals))]
async fn list_leases(
    Extension(directory): Extension<Directory>,
    At(pool): At<String>,
    StrictQuery(query): StrictQuery<PoolQuery>,
) -> Result<Json<Paged<Lease>>, Problem> {
    Ok(Json(paged(directory.leases(&pool, page(query.after, query.limit)?).await?)))
}
