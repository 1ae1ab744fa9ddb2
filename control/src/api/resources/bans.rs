//! `/api/v1/bans`: who is kept out for a while after too many failures.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::At;
use super::refusals::Refusals;
use crate::api::{ApiState, Caller, Need, Problem, Who};
use crate::auth::source::Prefix;
use crate::directory::Directory;
use crate::store::records::{Ban, Role};

const TAG: &str = "bans";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/bans", Who::Role(Role::Viewer), "bans:read"),
    Need::new("DELETE", "/api/v1/bans/{subject}", Who::Role(Role::Operator), "bans:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_bans)).routes(routes!(lift_ban))
}

/// Lists who is kept out now, and until when. In mode `no-log` addresses are not listed: nothing
/// keeps them.
#[utoipa::path(get, path = "/api/v1/bans", operation_id = "listBans", tag = TAG,
    responses((status = 200, body = Vec<Ban>), Refusals))]
async fn list_bans(Extension(directory): Extension<Directory>) -> Result<Json<Vec<Ban>>, Problem> {
    Ok(Json(directory.bans().await?))
}

/// Lets somebody try again.
#[utoipa::path(delete, path = "/api/v1/bans/{subject}", operation_id = "liftBan", tag = TAG,
    params(("subject" = String, Path,
        description = "As the list shows it, or an address; the slash of a prefix is written %2F")),
    responses((status = 204, description = "It is lifted."), Refusals))]
async fn lift_ban(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(subject): At<String>,
) -> Result<StatusCode, Problem> {
    let subject = Prefix::subject(&subject);
    if state.sign_in().lift_unstored(&subject) {
        directory.note_lifted(&actor(&caller)).await?;
    } else {
        directory.lift_ban(&actor(&caller), &subject).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
