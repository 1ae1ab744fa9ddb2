//! `/api/v1/audit`: who changed what, and whether that record is whole.

use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::{page, paged};
use super::refusals::Refusals;
use crate::api::{ApiState, Need, Paged, Problem, StrictQuery, Who};
use crate::directory::{AuditState, Directory};
use crate::store::query::AuditFilter;
use crate::store::records::{AuditEntry, Role, Timestamp};

const TAG: &str = "audit";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/audit", Who::Role(Role::Viewer), "audit:read"),
    Need::new("GET", "/api/v1/audit/verify", Who::Role(Role::Viewer), "audit:read"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_audit)).routes(routes!(verify_audit))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// By whom: `user:NAME`, `token:ID`, `local:UID` or `gateway`.
    actor: Option<String>,
    /// What was done: `user.created`, …
    action: Option<String>,
    /// To what: a name or an identifier.
    object: Option<String>,
    /// Not before.
    from: Option<Timestamp>,
    /// Before.
    until: Option<Timestamp>,
    /// The latest first; the oldest first if left out.
    newest_first: Option<bool>,
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists entries of the audit log.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "listAudit", tag = TAG,
    params(AuditQuery), responses((status = 200, body = Paged<AuditEntry>), Refusals))]
async fn list_audit(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<AuditQuery>,
) -> Result<Json<Paged<AuditEntry>>, Problem> {
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        object: query.object,
        from: query.from,
        until: query.until,
        newest_first: query.newest_first.unwrap_or(false),
    };
    Ok(Json(paged(directory.audit(filter, page(query.after, query.limit)?).await?)))
}

/// Follows the chain of the audit log from its beginning. Keep the head elsewhere: compared with a
/// later one it proves that nothing was cut off.
#[utoipa::path(get, path = "/api/v1/audit/verify", operation_id = "verifyAudit", tag = TAG,
    responses((status = 200, body = AuditState), Refusals))]
async fn verify_audit(
    Extension(directory): Extension<Directory>,
) -> Result<Json<AuditState>, Problem> {
    Ok(Json(directory.verify_audit().await?))
}
