//! `/api/v1/enrolments`: one-time links for devices, as operators see them.

use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use crate::api::{ApiState, Caller, Need, Paged, Problem, StrictJson, StrictQuery, Who};
use crate::directory::input::NewEnrolment;
use crate::directory::{Directory, Invitation};
use crate::store::records::{Enrolment, EnrolmentId, Role};

const TAG: &str = "enrolments";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/enrolments", Who::Role(Role::Viewer), "devices:read"),
    Need::new("DELETE", "/api/v1/enrolments/{id}", Who::Role(Role::Operator), "devices:write"),
    Need::new(
        "POST",
        "/api/v1/users/{user}/enrolments",
        Who::Role(Role::Operator),
        "devices:write",
    ),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_enrolments))
        .routes(routes!(delete_enrolment))
        .routes(routes!(create_enrolment))
}

/// A link as it is shown once.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct InvitationView {
    /// The record.
    enrolment: Enrolment,
    /// What whoever redeems it sends.
    secret: String,
    /// What to give to the person; absent while the configuration does not say where people reach
    /// the API.
    link: Option<String>,
}

impl From<Invitation> for InvitationView {
    fn from(invitation: Invitation) -> Self {
        Self {
            secret: invitation.secret.0.to_string(),
            link: invitation.link.map(|link| link.0.to_string()),
            enrolment: invitation.enrolment,
        }
    }
}

/// Which links.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EnrolmentsQuery {
    /// Of this user, by name or identifier.
    user: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists one-time links, used ones too, without their secrets.
#[utoipa::path(get, path = "/api/v1/enrolments", operation_id = "listEnrolments", tag = TAG,
    params(EnrolmentsQuery), responses((status = 200, body = Paged<Enrolment>), Refusals))]
async fn list_enrolments(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<EnrolmentsQuery>,
) -> Result<Json<Paged<Enrolment>>, Problem> {
    Ok(Json(paged(directory.enrolments(query.user, page(query.after, query.limit)?).await?)))
}

/// Makes a one-time link by which somebody adds a device to a user. It is shown once.
#[utoipa::path(post, path = "/api/v1/users/{user}/enrolments", operation_id = "createEnrolment",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier")),
    request_body = NewEnrolment, responses((status = 201, body = InvitationView), Refusals))]
async fn create_enrolment(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    StrictJson(form): StrictJson<NewEnrolment>,
) -> Result<(StatusCode, Json<InvitationView>), Problem> {
    let invitation = directory.invite(&actor(&caller), &user, form).await?;
    Ok((StatusCode::CREATED, Json(invitation.into())))
}

/// Takes a one-time link back.
#[utoipa::path(delete, path = "/api/v1/enrolments/{id}", operation_id = "deleteEnrolment",
    tag = TAG, params(("id" = EnrolmentId, Path, description = "Identifier")),
    responses((status = 204, description = "It is worth nothing now."), Refusals))]
async fn delete_enrolment(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(id): At<EnrolmentId>,
) -> Result<StatusCode, Problem> {
    directory.remove_enrolment(&actor(&caller), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
