//! Whether traffic can be served, for those who only want to know that.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::front::Meant;
use crate::api::live::{HealthPart, HealthView};
use crate::api::{ApiState, Caller, Need, Part, Who};
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/health", Who::Anybody, ""),
    Need::new("GET", "/health", Who::Anybody, ""),
];

pub(super) fn part() -> Part {
    let router =
        OpenApiRouter::new().routes(routes!(health)).routes(routes!(health_where_balancers_look));
    Part { router, needs: NEEDS }
}

/// Whether traffic can be served
///
/// Which parts fail, and why, is told to callers with a role only.
#[utoipa::path(get, path = "/api/v1/health", operation_id = "getHealth", tag = "gateway",
    responses(
        (status = 200, description = "It can", body = HealthView),
        (status = 503, description = "It cannot", body = HealthView)))]
async fn health(
    State(state): State<ApiState>,
    caller: Option<axum::Extension<Caller>>,
) -> Response {
    let view = state.live().health().await.unwrap_or_else(|error| HealthView {
        healthy: false,
        parts: vec![HealthPart {
            name: "control".to_owned(),
            healthy: false,
            why: Some(error.to_string()),
        }],
    });
    let view = match caller {
        Some(caller) if caller.has(Role::Viewer) => view,
        Some(_) | None => HealthView { healthy: view.healthy, parts: Vec::new() },
    };
    if view.healthy {
        return Json(view).into_response();
    }
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(view)).into_response();
    response.extensions_mut().insert(Meant);
    response
}

/// The same where balancers look by themselves
#[utoipa::path(get, path = "/health", operation_id = "checkHealth", tag = "gateway",
    responses(
        (status = 200, description = "It can", body = HealthView),
        (status = 503, description = "It cannot", body = HealthView)))]
async fn health_where_balancers_look(
    state: State<ApiState>,
    caller: Option<axum::Extension<Caller>>,
) -> Response {
    health(state, caller).await
}
