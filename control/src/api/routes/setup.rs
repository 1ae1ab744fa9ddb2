//! The first administrator, made with the one-time secret of the first start.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use crate::api::problem::FieldError;
use crate::api::{ApiState, Need, Part, Problem, Reason, StrictJson, Who};
use crate::events::Kind;
use crate::store::ids::UserId;

const NEEDS: &[Need] = &[Need::new("POST", "/api/v1/setup", Who::Anybody, "")];

pub(super) fn part() -> Part {
    Part { router: OpenApiRouter::new().routes(routes!(setup)), needs: NEEDS }
}

/// Who becomes the first administrator
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetupInput {
    /// The one-time secret, from the file `setup-secret` in the state folder.
    #[schema(max_length = 128)]
    secret: String,
    /// Name to sign in with: 1 to 64 of `a-z 0-9 . _ @ -`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-z0-9._@-]+$", example = "admin")]
    name: String,
    /// A password of at least ten bytes, which obeys the rules for passwords.
    #[schema(min_length = 10, max_length = 1024)]
    password: String,
}

/// The first administrator
#[derive(Debug, Serialize, ToSchema)]
struct SetupDone {
    /// Its identifier.
    user: UserId,
    /// Its name.
    name: String,
}

/// Make the first administrator
///
/// Works once, with the one-time secret of the first start: afterwards 410.
#[utoipa::path(post, path = "/api/v1/setup", operation_id = "makeFirstAdministrator",
    tag = "session", request_body = SetupInput,
    responses((status = 201, description = "Made: sign in", body = SetupDone)))]
async fn setup(
    State(state): State<ApiState>,
    StrictJson(input): StrictJson<SetupInput>,
) -> Result<(StatusCode, Json<SetupDone>), Problem> {
    let (secret, password) = (Zeroizing::new(input.secret), Zeroizing::new(input.password));
    let name = input.name;
    check(&secret, &name, &password)?;
    state.first_start().check(&secret, state.now())?;
    let made = state.accounts().make_first(name.clone(), password, state.now()).await;
    if made.as_ref().is_ok() || made.as_ref().is_err_and(|no| no.reason == Reason::Gone) {
        state.first_start().close();
    }
    let user = made?;
    let detail = json!({ "by": "setup", "name": name });
    state.hub().publish(state.now(), Kind::UserCreated, user.to_string(), detail);
    Ok((StatusCode::CREATED, Json(SetupDone { user, name })))
}

fn check(secret: &str, name: &str, password: &str) -> Result<(), Problem> {
    let letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._@-".contains(&byte);
    let named = (1..=64).contains(&name.len()) && name.bytes().all(letter);
    let right = [
        ("/secret", secret.len() <= 128, "may have 128 bytes"),
        ("/name", named, "must be 1 to 64 of a-z 0-9 . _ @ -"),
        ("/password", (10..=1024).contains(&password.len()), "must have 10 to 1024 bytes"),
    ];
    let errors: Vec<FieldError> = right
        .iter()
        .filter(|(_, right, _)| !right)
        .map(|(pointer, _, message)| FieldError::new(*pointer, *message))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}
