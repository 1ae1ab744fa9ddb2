//! `/api/v1/tokens`: secrets by which programs use the API.

use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use crate::api::{ApiState, Caller, Need, Paged, Problem, Reason, StrictJson, StrictQuery, Who};
use crate::directory::input::NewToken;
use crate::directory::{Directory, MadeToken};
use crate::store::records::{Role, Token, TokenId};

const TAG: &str = "tokens";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/tokens", Who::Role(Role::Viewer), "tokens:read"),
    Need::new("DELETE", "/api/v1/tokens/{id}", Who::Role(Role::Administrator), "tokens:write"),
    Need::new(
        "POST",
        "/api/v1/users/{user}/tokens",
        Who::Role(Role::Administrator),
        "tokens:write",
    ),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens))
        .routes(routes!(delete_token))
        .routes(routes!(create_token))
}

/// A token as it is shown once.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct TokenView {
    /// The record.
    token: Token,
    /// What to send as `Authorization: Bearer`. It cannot be shown again.
    secret: String,
}

impl From<MadeToken> for TokenView {
    fn from(made: MadeToken) -> Self {
        Self { secret: made.secret.0.to_string(), token: made.token }
    }
}

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TokensQuery {
    /// Of this user, by name or identifier.
    user: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists tokens without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "listTokens", tag = TAG,
    params(TokensQuery), responses((status = 200, body = Paged<Token>), Refusals))]
async fn list_tokens(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<TokensQuery>,
) -> Result<Json<Paged<Token>>, Problem> {
    Ok(Json(paged(directory.tokens(query.user, page(query.after, query.limit)?).await?)))
}

/// Makes a token for a user. Its secret is shown once.
#[utoipa::path(post, path = "/api/v1/users/{user}/tokens", operation_id = "createToken", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    request_body = NewToken, responses((status = 201, body = TokenView), Refusals))]
async fn create_token(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    StrictJson(form): StrictJson<NewToken>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    // A token that was made for little must not make one for more.
    if let Some(scope) = form.scopes.iter().find(|scope| !caller.covers(scope)) {
        let detail = format!("Your token was not made for \"{}\"", scope.escape_debug());
        return Err(Problem::new(Reason::ScopeMissing, detail));
    }
    let made = directory.create_token(&actor(&caller), &user, form).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Revokes a token. It is worth nothing from the next request on.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", operation_id = "deleteToken", tag = TAG,
    params(("id" = TokenId, Path, description = "Identifier")),
    responses((status = 204, description = "It is worth nothing now."), Refusals))]
async fn delete_token(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(id): At<TokenId>,
) -> Result<StatusCode, Problem> {
    directory.remove_token(&actor(&caller), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
