//! Emptying the gateway: no new sessions, and the old ones leave until a deadline.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::live::DrainView;
use crate::api::problem::FieldError;
use crate::api::{ApiState, Caller, Need, Part, Problem, StrictJson, Who};
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/drain", Who::Role(Role::Viewer), "drain:read"),
    Need::new("POST", "/api/v1/drain", Who::Role(Role::Administrator), "drain:write"),
    Need::new("DELETE", "/api/v1/drain", Who::Role(Role::Administrator), "drain:write"),
];

/// Seconds that a drain may last: a day.
const SECONDS_MAX: u32 = 86_400;

pub(super) fn part() -> Part {
    let router = OpenApiRouter::new().routes(routes!(show, start, stop));
    Part { router, needs: NEEDS }
}

/// How to drain
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DrainInput {
    /// Seconds until the sessions that are left end.
    #[serde(default = "five_minutes")]
    #[schema(minimum = 0, maximum = 86_400, default = 300)]
    within_s: u32,
}

const fn five_minutes() -> u32 {
    300
}

/// Who is left, and why
#[utoipa::path(get, path = "/api/v1/drain", operation_id = "getDrain", tag = "gateway",
    responses((status = 200, description = "The drain", body = DrainView)))]
async fn show(State(state): State<ApiState>) -> Result<Json<DrainView>, Problem> {
    Ok(Json(state.live().drain().await?))
}

/// Start draining, or move the deadline
#[utoipa::path(post, path = "/api/v1/drain", operation_id = "startDrain", tag = "gateway",
    request_body = DrainInput,
    responses((status = 200, description = "No new sessions are taken", body = DrainView)))]
async fn start(
    State(state): State<ApiState>,
    caller: Caller,
    StrictJson(input): StrictJson<DrainInput>,
) -> Result<Json<DrainView>, Problem> {
    if input.within_s > SECONDS_MAX {
        let message = format!("is {}: at most {SECONDS_MAX} seconds", input.within_s);
        return Err(Problem::invalid(vec![FieldError::new("/within_s", message)]));
    }
    let deadline = state.now().plus_ms(i64::from(input.within_s) * 1000);
    Ok(Json(state.live().start_drain(deadline, caller.actor()).await?))
}

/// Take new sessions again
#[utoipa::path(delete, path = "/api/v1/drain", operation_id = "stopDrain", tag = "gateway",
    responses((status = 200, description = "New sessions are taken", body = DrainView)))]
async fn stop(State(state): State<ApiState>, caller: Caller) -> Result<Json<DrainView>, Problem> {
    Ok(Json(state.live().stop_drain(caller.actor()).await?))
}
