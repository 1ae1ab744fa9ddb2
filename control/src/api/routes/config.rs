//! The configuration: read, change, try, confirm, take back.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::sessions::page;
use crate::api::json::{body, expect_type};
use crate::api::problem::FieldError;
use crate::api::{
    ApiState, Caller, Need, Paged, Part, Problem, Reason, StrictJson, StrictQuery, Who,
};
use crate::configs::{CONFIRM_WITHIN_S, ConfigError, Outcome, TrialView, Wanted};
use crate::store::query::Page;
use crate::store::records::{ConfigVersion, Role};

const READ: Who = Who::Role(Role::Viewer);
const WRITE: Who = Who::Role(Role::Administrator);

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/config", READ, "config:read"),
    Need::new("PUT", "/api/v1/config", WRITE, "config:write"),
    Need::new("GET", "/api/v1/config/trial", READ, "config:read"),
    Need::new("POST", "/api/v1/config/confirm", WRITE, "config:write"),
    Need::new("POST", "/api/v1/config/rollback", WRITE, "config:write"),
    Need::new("GET", "/api/v1/config/versions", READ, "config:read"),
    Need::new("GET", "/api/v1/config/versions/{version}", READ, "config:read"),
];

/// Media type of the configuration.
const TOML: &str = "application/toml";

pub(super) fn part() -> Part {
    let router = OpenApiRouter::new()
        .routes(routes!(show, put))
        .routes(routes!(trial))
        .routes(routes!(confirm))
        .routes(routes!(roll_back))
        .routes(routes!(versions))
        .routes(routes!(version));
    Part { router, needs: NEEDS }
}

/// What to show
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Every option with its value and where it comes from, as `ringway check` prints it.
    effective: Option<bool>,
}

/// The configuration
///
/// Preshared keys and passwords inside addresses are shown as `(redacted)`. The ETag is what a
/// change names in `If-Match`.
#[utoipa::path(get, path = "/api/v1/config", operation_id = "getConfig", tag = "config",
    params(ShowQuery),
    responses((status = 200, description = "The file, or its effective form", body = String,
        content_type = "application/toml",
        headers(("ETag" = String, description = "Version and hash; not with `effective`")))))]
async fn show(
    State(state): State<ApiState>,
    StrictQuery(query): StrictQuery<ShowQuery>,
) -> Result<Response, Problem> {
    let form = (header::CONTENT_TYPE, format!("{TOML}; charset=utf-8"));
    if query.effective == Some(true) {
        return Ok(([form], state.configs().effective().await?).into_response());
    }
    let current = state.configs().current().await?;
    let tag = (header::ETAG, format!("\"{}\"", current.tag));
    Ok(([form, tag], current.text).into_response())
}

/// How to change it
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PutQuery {
    /// Only say what would change.
    dry_run: Option<bool>,
    /// Apply it now and take it back after so many seconds unless it is confirmed.
    #[param(minimum = 10, maximum = 3600)]
    confirm_within: Option<u32>,
}

/// Change the configuration
///
/// All of it is applied, or nothing. `(redacted)` in the place of a preshared key, or of a password
/// inside an address that is otherwise the same, means "as it is".
/// With `confirm_within` it takes itself back, also after a crash or a restart in between, unless
/// `POST /api/v1/config/confirm` comes in time.
#[utoipa::path(put, path = "/api/v1/config", operation_id = "putConfig", tag = "config",
    params(PutQuery, ("If-Match" = Option<String>, Header,
        description = "ETag of what the change starts from, or `*`; without it 428 is answered")),
    request_body(content((String = "application/toml"), (String = "text/plain")),
        description = "The whole file"),
    responses((status = 200, description = "What changed, or would", body = Outcome,
        headers(("ETag" = String, description = "Version and hash")))))]
async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    StrictQuery(query): StrictQuery<PutQuery>,
    request: Request,
) -> Result<Response, Problem> {
    if query.confirm_within.is_some_and(|seconds| !CONFIRM_WITHIN_S.contains(&seconds)) {
        let message = "must be 10 to 3600 seconds";
        let errors = vec![FieldError::new("?confirm_within", message)];
        let detail = format!("confirm_within {message}");
        return Err(Problem { errors, ..Problem::new(Reason::BadQuery, detail) });
    }
    let tag = if_match(request.headers())?;
    expect_type(request.headers(), &[TOML, "text/plain"])?;
    let bytes = body(request).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Problem::new(Reason::ConfigInvalid, "The text is not UTF-8"))?;
    let wanted = Wanted {
        text: Zeroizing::new(text.to_owned()),
        tag,
        dry_run: query.dry_run == Some(true),
        confirm_within_s: query.confirm_within,
        actor: caller.actor(),
    };
    // A client that hangs up must not leave a change half on its way.
    let configs = std::sync::Arc::clone(state.configs());
    finish(tokio::spawn(async move { configs.put(wanted).await })).await
}

/// Waits for a change that goes on even if the client does not wait.
async fn finish(
    task: tokio::task::JoinHandle<Result<Outcome, ConfigError>>,
) -> Result<Response, Problem> {
    let outcome = task.await.map_err(|error| Problem::internal(&error))??;
    let tag = (header::ETAG, format!("\"{}\"", outcome.etag));
    Ok(([tag], Json(outcome)).into_response())
}

fn if_match(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else {
        let detail = "Send the ETag of GET /api/v1/config as If-Match";
        return Err(Problem::new(Reason::PreconditionRequired, detail));
    };
    let given = given.to_str().unwrap_or_default().trim();
    if given == "*" {
        return Ok(given.to_owned());
    }
    let tag = given.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    tag.map(str::to_owned).ok_or_else(|| {
        let detail = "If-Match takes one ETag in quotation marks, or *";
        Problem::new(Reason::BadRequest, detail)
    })
}

/// Whether a change is on trial
#[derive(Debug, Serialize, ToSchema)]
struct TrialState {
    /// What the next change must name in `If-Match`.
    etag: String,
    /// The change, if there is one.
    on_trial: Option<TrialView>,
}

/// Whether a change is on trial
#[utoipa::path(get, path = "/api/v1/config/trial", operation_id = "getConfigTrial", tag = "config",
    responses((status = 200, description = "The trial, if there is one", body = TrialState)))]
async fn trial(State(state): State<ApiState>) -> Result<Json<TrialState>, Problem> {
    let current = state.configs().current().await?;
    Ok(Json(TrialState { etag: current.tag, on_trial: current.on_trial }))
}

/// Keep the change on trial
#[utoipa::path(post, path = "/api/v1/config/confirm", operation_id = "confirmConfig",
    tag = "config",
    responses((status = 200, description = "It stays", body = TrialState)))]
async fn confirm(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<TrialState>, Problem> {
    let current = state.configs().confirm(&caller.actor()).await?;
    Ok(Json(TrialState { etag: current.tag, on_trial: current.on_trial }))
}

/// Where to go back to
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RollbackInput {
    /// A version of the history; absent for what was before the change on trial.
    #[serde(default)]
    #[schema(example = 3)]
    version: Option<u64>,
}

/// Take the change on trial back, or go back to a version
///
/// The history has no secrets: those of peers and addresses that are still there are kept as they
/// are, and a version with others is refused.
#[utoipa::path(post, path = "/api/v1/config/rollback", operation_id = "rollbackConfig",
    tag = "config", request_body = RollbackInput,
    responses((status = 200, description = "What changed", body = Outcome)))]
async fn roll_back(
    State(state): State<ApiState>,
    caller: Caller,
    StrictJson(input): StrictJson<RollbackInput>,
) -> Result<Response, Problem> {
    let configs = std::sync::Arc::clone(state.configs());
    let actor = caller.actor();
    finish(tokio::spawn(async move { configs.roll_back(input.version, &actor).await })).await
}

/// Which page
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionsQuery {
    /// `next` of the page before.
    #[param(max_length = 256)]
    after: Option<String>,
    /// Most rows.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Versions that were in force, the newest first
#[utoipa::path(get, path = "/api/v1/config/versions", operation_id = "listConfigVersions",
    tag = "config", params(VersionsQuery),
    responses((status = 200, description = "A page", body = Paged<ConfigVersion>)))]
async fn versions(
    State(state): State<ApiState>,
    StrictQuery(query): StrictQuery<VersionsQuery>,
) -> Result<Json<Paged<ConfigVersion>>, Problem> {
    let page = page(query.after, query.limit)?;
    let page = Page { after: page.after, limit: page.limit };
    let rows = state.configs().versions(page).await?;
    Ok(Json(Paged { items: rows.items, next: rows.next }))
}

/// One version
#[utoipa::path(get, path = "/api/v1/config/versions/{version}", operation_id = "getConfigVersion",
    tag = "config", params(("version" = u64, Path, description = "Its number")),
    responses((status = 200, description = "The version", body = ConfigVersion)))]
async fn version(
    State(state): State<ApiState>,
    Path(version): Path<String>,
) -> Result<Json<ConfigVersion>, Problem> {
    // Numbers of the store are signed.
    let number = version.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    let number =
        number.ok_or_else(|| Problem::not_found("version of the configuration", &version))?;
    Ok(Json(state.configs().version(number).await?))
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let text = error.to_string();
        let reason = match error {
            ConfigError::Store(error) => return error.into(),
            ConfigError::Invalid(problems) => {
                let place = |(line, column, message): (usize, usize, String)| {
                    let place = if line == 0 { String::new() } else { format!("{line}:{column}") };
                    FieldError::new(place, message)
                };
                let errors = problems.into_iter().map(place).collect();
                return Self { errors, ..Self::new(Reason::ConfigInvalid, text) };
            }
            ConfigError::File(why) => return Self::internal(&why),
            ConfigError::Unavailable(why) => {
                tracing::warn!(why, "The gateway did not take its configuration");
                let reason = Reason::GatewayUnavailable;
                return Self::new(reason, reason.title()).retry_after(2);
            }
            ConfigError::Stale { .. } => Reason::StaleVersion,
            ConfigError::NeedsRestart(_) => Reason::NeedsRestart,
            ConfigError::OnTrial { .. }
            | ConfigError::NoTrial
            | ConfigError::Edited
            | ConfigError::RollBackRefused(_)
            | ConfigError::Refused(_) => Reason::Conflict,
            ConfigError::NoVersion(_) => Reason::NotFound,
            ConfigError::Full(_) => Reason::StorageFull,
        };
        Self::new(reason, text)
    }
}
