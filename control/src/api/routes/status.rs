//! What the gateway is and does, in a few numbers and in many.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::live::StatusView;
use crate::api::reason::{Counters, Reason};
use crate::api::{ApiState, Need, Part, Problem, Who};
use crate::stats::openmetrics::CONTENT_TYPE;
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/status", Who::Role(Role::Viewer), "status:read"),
    Need::new("GET", "/api/v1/metrics", Who::Role(Role::Viewer), "metrics:read"),
    Need::new("GET", "/metrics", Who::Role(Role::Viewer), "metrics:read"),
];

pub(super) fn part() -> Part {
    let router = OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(metrics))
        .routes(routes!(metrics_where_scrapers_look));
    Part { router, needs: NEEDS }
}

/// The gateway in a few numbers
#[utoipa::path(get, path = "/api/v1/status", operation_id = "getStatus", tag = "gateway",
    responses((status = 200, description = "The gateway", body = StatusView)))]
async fn status(State(state): State<ApiState>) -> Result<Json<StatusView>, Problem> {
    Ok(Json(state.live().status().await?))
}

/// All metrics as OpenMetrics text
#[utoipa::path(get, path = "/api/v1/metrics", operation_id = "getMetrics", tag = "gateway",
    responses((status = 200, description = "OpenMetrics 1.0", body = String,
        content_type = "application/openmetrics-text")))]
async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    let mut text = state.live().metrics().await?;
    let whole = text.strip_suffix(END).unwrap_or(&text).len();
    text.truncate(whole);
    own_metrics(&mut text, state.refusals());
    text.push_str(END);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// The same where scrapers look by themselves
#[utoipa::path(get, path = "/metrics", operation_id = "scrapeMetrics", tag = "gateway",
    responses((status = 200, description = "OpenMetrics 1.0", body = String,
        content_type = "application/openmetrics-text")))]
async fn metrics_where_scrapers_look(state: State<ApiState>) -> Result<Response, Problem> {
    metrics(state).await
}

const END: &str = "# EOF\n";

/// Refusals of the API, by reason.
fn own_metrics(text: &mut String, refusals: &Counters) {
    text.push_str(
        "# TYPE ringway_api_refusals counter\n\
         # HELP ringway_api_refusals Requests that the API refused, by reason.\n",
    );
    for reason in Reason::ALL {
        let (code, count) = (reason.code(), refusals.get(*reason));
        text.push_str(&format!("ringway_api_refusals_total{{reason=\"{code}\"}} {count}\n"));
    }
}
