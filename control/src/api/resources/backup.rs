//! `/api/v1/backup`: a copy of the records, on the gateway's own host.

use axum::Extension;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::refusals::Refusals;
use crate::api::{ApiState, Caller, Need, Problem, StrictJson, Who};
use crate::directory::Directory;

const TAG: &str = "backup";

pub(super) const NEEDS: &[Need] = &[Need::new("POST", "/api/v1/backup", Who::Local, "*")];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(make_backup))
}

/// Where to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"path": "/var/backups/ringway.db"}))]
struct NewBackup {
    /// A file that does not exist yet, from / on.
    path: String,
}

/// Writes a copy of the records to a file of the gateway's host. By the Unix socket only.
#[utoipa::path(post, path = "/api/v1/backup", operation_id = "makeBackup", tag = TAG,
    request_body = NewBackup,
    responses((status = 204, description = "It is written and checked."), Refusals))]
async fn make_backup(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewBackup>,
) -> Result<StatusCode, Problem> {
    directory.backup(&actor(&caller), form.path.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}
