//! Live sessions: list, end.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::live::{LivePage, SessionFilter, SessionState, SessionView};
use crate::api::paged::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::api::problem::FieldError;
use crate::api::query::bounded;
use crate::api::{ApiState, Caller, Need, Paged, Part, Problem, Reason, StrictQuery, Who};
use crate::store::records::Role;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/sessions", Who::Role(Role::Viewer), "sessions:read"),
    Need::new("DELETE", "/api/v1/sessions/{id}", Who::Role(Role::Operator), "sessions:write"),
];

pub(super) fn part() -> Part {
    Part { router: OpenApiRouter::new().routes(routes!(list)).routes(routes!(end)), needs: NEEDS }
}

/// Which sessions, and which page
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Of this user, by name or identifier.
    #[param(max_length = 128)]
    user: Option<String>,
    /// Of this device, by name, identifier or public key.
    #[param(max_length = 128)]
    device: Option<String>,
    /// In this state.
    #[param(inline)]
    state: Option<SessionState>,
    /// From this address or prefix.
    #[param(max_length = 64, example = "192.0.2.0/24")]
    source: Option<String>,
    /// `next` of the page before.
    #[param(max_length = 256)]
    after: Option<String>,
    /// Most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Live sessions
#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "listSessions", tag = "sessions",
    params(ListQuery),
    responses((status = 200, description = "A page", body = Paged<SessionView>)))]
async fn list(
    State(state): State<ApiState>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<Paged<SessionView>>, Problem> {
    bounded("user", query.user.as_ref(), 128)?;
    bounded("device", query.device.as_ref(), 128)?;
    bounded("source", query.source.as_ref(), 64)?;
    let page = page(query.after, query.limit)?;
    let ListQuery { user, device, state: in_state, source, .. } = query;
    let filter = SessionFilter { user, device, state: in_state, source };
    Ok(Json(state.live().sessions(filter, page).await?))
}

/// Characters of a cursor; the longest of ours is a name.
const AFTER_MAX: usize = 256;

/// Reads which page is meant.
pub(super) fn page(after: Option<String>, limit: Option<u32>) -> Result<LivePage, Problem> {
    bounded("after", after.as_ref(), AFTER_MAX)?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(LivePage { after, limit });
    }
    let message = format!("is {limit}: 1 to {LIMIT_MAX} rows make a page");
    let detail = format!("limit {message}");
    let errors = vec![FieldError::new("?limit", message)];
    Err(Problem { errors, ..Problem::new(Reason::BadQuery, detail) })
}

/// Why a session ends
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EndQuery {
    /// For the log and the event; at most 200 characters.
    #[param(max_length = 200)]
    reason: Option<String>,
}

/// End a session
///
/// A client whose device may still connect comes back by itself: disable the device or the user to
/// keep it out.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", operation_id = "endSession",
    tag = "sessions", params(("id" = u64, Path, description = "Its number"), EndQuery),
    responses((status = 204, description = "It has ended")))]
async fn end(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    StrictQuery(query): StrictQuery<EndQuery>,
) -> Result<StatusCode, Problem> {
    let number = id.parse().map_err(|_| Problem::not_found("session", &id))?;
    let fits =
        |reason: &String| reason.chars().count() <= 200 && !reason.chars().any(char::is_control);
    if query.reason.as_ref().is_some_and(|reason| !fits(reason)) {
        let message = "may have 200 characters and no control characters";
        let errors = vec![FieldError::new("?reason", message)];
        let detail = format!("reason {message}");
        return Err(Problem { errors, ..Problem::new(Reason::BadQuery, detail) });
    }
    state.live().end_session(number, query.reason, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
