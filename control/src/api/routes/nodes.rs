//! Exits: list, take out of service, take back in.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::live::NodeView;
use crate::api::{ApiState, Caller, Need, Part, Problem, Who};
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/nodes", Who::Role(Role::Viewer), "nodes:read"),
    Need::new("POST", "/api/v1/nodes/{id}/disable", Who::Role(Role::Operator), "nodes:write"),
    Need::new("POST", "/api/v1/nodes/{id}/enable", Who::Role(Role::Operator), "nodes:write"),
];

pub(super) fn part() -> Part {
    let router =
        OpenApiRouter::new().routes(routes!(list)).routes(routes!(disable)).routes(routes!(enable));
    Part { router, needs: NEEDS }
}

/// All exits
#[derive(Debug, Serialize, ToSchema)]
struct Nodes {
    /// In the order of the configuration.
    items: Vec<NodeView>,
}

/// Exits
#[utoipa::path(get, path = "/api/v1/nodes", operation_id = "listNodes", tag = "nodes",
    responses((status = 200, description = "All exits", body = Nodes)))]
async fn list(State(state): State<ApiState>) -> Result<Json<Nodes>, Problem> {
    Ok(Json(Nodes { items: state.live().nodes().await? }))
}

/// Take an exit out of service
///
/// Refused with 409 if it is out already, or if traffic would have no exit left.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/disable", operation_id = "disableNode",
    tag = "nodes", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is out of service", body = NodeView)))]
async fn disable(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<NodeView>, Problem> {
    Ok(Json(state.live().enable_node(id, false, caller.actor()).await?))
}

/// Take an exit back into service
#[utoipa::path(post, path = "/api/v1/nodes/{id}/enable", operation_id = "enableNode",
    tag = "nodes", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is in service", body = NodeView)))]
async fn enable(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<NodeView>, Problem> {
    Ok(Json(state.live().enable_node(id, true, caller.actor()).await?))
}
