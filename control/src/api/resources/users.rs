//! `/api/v1/users`: who may come in.
//!
//! A token for `users` is for programs that keep a list of customers. Roles, passwords, second
//! factors and users with a role are not for it (`directory/actor.rs`): they ask for a session, or
//! for a token for everything.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::versions::{IfMatch, Versioned};
use crate::api::{ApiState, Caller, Need, Paged, Problem, StrictJson, StrictQuery, Who};
use crate::directory::input::{NewUser, Secret, UserPatch};
use crate::directory::quota::day_of;
use crate::directory::{Directory, UserView};
use crate::store::query::UserFilter;
use crate::store::records::{Role, Timestamp, Usage, User, UserState};

const TAG: &str = "users";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/users", Who::Role(Role::Viewer), "users:read"),
    Need::new("POST", "/api/v1/users", Who::Role(Role::Operator), "users:write"),
    Need::new("GET", "/api/v1/users/{user}", Who::Role(Role::Viewer), "users:read"),
    Need::new("PATCH", "/api/v1/users/{user}", Who::Role(Role::Operator), "users:write"),
    Need::new("DELETE", "/api/v1/users/{user}", Who::Role(Role::Operator), "users:write"),
    Need::new("PUT", "/api/v1/users/{user}/state", Who::Role(Role::Operator), "users:write"),
    Need::new("PUT", "/api/v1/users/{user}/password", Who::Role(Role::Operator), "users:write"),
    Need::new("DELETE", "/api/v1/users/{user}/totp", Who::Role(Role::Operator), "users:write"),
    Need::new("GET", "/api/v1/users/{user}/usage", Who::Role(Role::Viewer), "users:read"),
    Need::new("GET", "/api/v1/users/{user}/export", Who::Role(Role::Operator), "users:write"),
    Need::new("POST", "/api/v1/users/{user}/erase", Who::Role(Role::Administrator), "users:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(show_user, patch_user, delete_user))
        .routes(routes!(set_user_state))
        .routes(routes!(set_user_password))
        .routes(routes!(remove_user_totp))
        .routes(routes!(user_usage))
        .routes(routes!(export_user))
        .routes(routes!(erase_user))
}

/// Which users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UsersQuery {
    /// Of this group, by name or identifier.
    group: Option<String>,
    /// In this state.
    state: Option<UserState>,
    /// With this role.
    role: Option<Role>,
    /// Whose name contains this.
    name: Option<String>,
    /// Whose time ends before.
    expires_before: Option<Timestamp>,
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists users by name.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "listUsers", tag = TAG,
    params(UsersQuery), responses((status = 200, body = Paged<User>), Refusals))]
async fn list_users(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<UsersQuery>,
) -> Result<Json<Paged<User>>, Problem> {
    let filter = UserFilter {
        group: None,
        state: query.state,
        role: query.role,
        name_contains: query.name,
        expires_before: query.expires_before,
    };
    let rows = directory.users(filter, query.group, page(query.after, query.limit)?).await?;
    Ok(Json(paged(rows)))
}

/// Makes a user.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "createUser", tag = TAG,
    request_body = NewUser, responses((status = 201, body = User), Refusals))]
async fn create_user(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewUser>,
) -> Result<Versioned<User>, Problem> {
    let user = directory.create_user(&actor(&caller), form).await?;
    Ok(Versioned::created(user.version, user))
}

/// Shows a user, what holds for it and where each value comes from.
#[utoipa::path(get, path = "/api/v1/users/{user}", operation_id = "showUser", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = UserView), Refusals))]
async fn show_user(
    Extension(directory): Extension<Directory>,
    At(user): At<String>,
) -> Result<Versioned<UserView>, Problem> {
    let view = directory.user_view(&user).await?;
    Ok(Versioned::ok(view.user.version, view))
}

/// Changes a user by a merge patch: what is absent stays, what is null is taken away. Roles, and
/// users with a role, are changed in a session or by a token that was made for everything (`*`).
#[utoipa::path(patch, path = "/api/v1/users/{user}", operation_id = "patchUser", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body(content((UserPatch = "application/merge-patch+json"),
        (UserPatch = "application/json"))),
    responses((status = 200, body = User), Refusals))]
async fn patch_user(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(patch): StrictJson<UserPatch>,
) -> Result<Versioned<User>, Problem> {
    let user = directory.patch_user(&actor(&caller), &user, version, patch).await?;
    Ok(Versioned::ok(user.version, user))
}

/// Removes a user with its devices, tokens and links. Its usage stays for the reports.
#[utoipa::path(delete, path = "/api/v1/users/{user}", operation_id = "deleteUser", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_user(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_user(&actor(&caller), &user, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a user may come in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"state": "disabled"}))]
struct NewState {
    /// `active`, `disabled` or `banned`.
    state: UserState,
}

/// Lets a user in, disables or bans it. Sessions end at once when it may not come in any more.
#[utoipa::path(put, path = "/api/v1/users/{user}/state", operation_id = "setUserState", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body = NewState, responses((status = 200, body = User), Refusals))]
async fn set_user_state(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(form): StrictJson<NewState>,
) -> Result<Versioned<User>, Problem> {
    let user = directory.set_user_state(&actor(&caller), &user, version, form.state).await?;
    Ok(Versioned::ok(user.version, user))
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"new": "a sentence that only I know"}))]
struct NewPassword {
    /// 10 to 1024 bytes, not a common one.
    new: Secret,
}

/// Gives a user a new password. A token must have been made for everything (`*`).
#[utoipa::path(put, path = "/api/v1/users/{user}/password", operation_id = "setUserPassword",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier")),
    request_body = NewPassword, responses((status = 204, description = "It holds now."), Refusals))]
async fn set_user_password(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    StrictJson(form): StrictJson<NewPassword>,
) -> Result<StatusCode, Problem> {
    let user = directory.set_password(&actor(&caller), &user, None, form.new).await?;
    state.end_logins(user.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the second factor of another user away, for one who lost it. A token must have been made
/// for everything (`*`).
#[utoipa::path(delete, path = "/api/v1/users/{user}/totp", operation_id = "removeUserTotp",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn remove_user_totp(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
) -> Result<StatusCode, Problem> {
    directory.remove_totp(&actor(&caller), &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which time.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// From the day of this moment (UTC) on; 30 days ago if left out.
    pub(super) from: Option<Timestamp>,
    /// Up to the day of this moment; today if left out.
    pub(super) to: Option<Timestamp>,
}

impl UsageQuery {
    /// First and last day, in days since the Unix epoch.
    pub(super) fn days(&self, now: Timestamp) -> (i32, i32) {
        let to = day_of(self.to.unwrap_or(now));
        (self.from.map_or(to - 30, day_of), to)
    }
}

/// Shows what a user moved, by device and day.
#[utoipa::path(get, path = "/api/v1/users/{user}/usage", operation_id = "userUsage", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"), UsageQuery),
    responses((status = 200, body = Vec<Usage>), Refusals))]
async fn user_usage(
    Extension(directory): Extension<Directory>,
    At(user): At<String>,
    StrictQuery(query): StrictQuery<UsageQuery>,
) -> Result<Json<Vec<Usage>>, Problem> {
    let (from, to) = query.days(directory.now());
    Ok(Json(directory.usage(&user, from, to).await?))
}

/// Gives everything that is kept about a user, without secrets. That it was asked for is written
/// into the audit log.
#[utoipa::path(get, path = "/api/v1/users/{user}/export", operation_id = "exportUser", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = serde_json::Value), Refusals))]
async fn export_user(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
) -> Result<Json<serde_json::Value>, Problem> {
    Ok(Json(directory.export_user(&actor(&caller), &user).await?))
}

/// Removes a user and everything that is kept about it, usage and connections included. This cannot
/// be undone.
#[utoipa::path(post, path = "/api/v1/users/{user}/erase", operation_id = "eraseUser", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "Nothing is left."), Refusals))]
async fn erase_user(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.erase_user(&actor(&caller), &user, version).await?;
    Ok(StatusCode::NO_CONTENT)
}
