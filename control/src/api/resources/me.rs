//! `/api/v1/me`: what users see and do about themselves, with a role or without.
//!
//! What would make a stolen token worth more than it was made for (a new password, a second factor,
//! another token) asks for a session, that is for somebody who signed in.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use zeroize::Zeroizing;

use super::devices::{AddedView, FileQuery};
use super::enrolments::InvitationView;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::tokens::TokenView;
use super::users::UsageQuery;
use super::versions::{IfMatch, Versioned};
use super::{is_session, oneself};
use crate::api::problem::FieldError;
use crate::api::{ApiState, Caller, Need, Paged, Problem, Reason, StrictJson, StrictQuery, Who};
use crate::directory::input::{NewDevice, NewEnrolment, NewToken, RotateKey, Secret};
use crate::directory::{DeviceView, Directory, UserView};
use crate::store::records::{OtpKind, Token, TokenId, Usage};

const TAG: &str = "me";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/me", Who::SignedIn, "me:read"),
    Need::new("GET", "/api/v1/me/usage", Who::SignedIn, "me:read"),
    Need::new("PUT", "/api/v1/me/password", Who::SignedIn, "me:write"),
    Need::new("POST", "/api/v1/me/totp", Who::SignedIn, "me:write"),
    Need::new("PUT", "/api/v1/me/totp", Who::SignedIn, "me:write"),
    Need::new("GET", "/api/v1/me/devices", Who::SignedIn, "me:read"),
    Need::new("POST", "/api/v1/me/devices", Who::SignedIn, "me:write"),
    Need::new("DELETE", "/api/v1/me/devices/{device}", Who::SignedIn, "me:write"),
    Need::new("POST", "/api/v1/me/devices/{device}/key", Who::SignedIn, "me:write"),
    Need::new("GET", "/api/v1/me/devices/{device}/file", Who::SignedIn, "me:read"),
    Need::new("POST", "/api/v1/me/enrolments", Who::SignedIn, "me:write"),
    Need::new("GET", "/api/v1/me/tokens", Who::SignedIn, "me:read"),
    Need::new("POST", "/api/v1/me/tokens", Who::SignedIn, "me:write"),
    Need::new("DELETE", "/api/v1/me/tokens/{id}", Who::SignedIn, "me:write"),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(show_me))
        .routes(routes!(my_usage))
        .routes(routes!(set_my_password))
        .routes(routes!(offer_my_totp, confirm_my_totp))
        .routes(routes!(list_my_devices, add_my_device))
        .routes(routes!(delete_my_device))
        .routes(routes!(rotate_my_device_key))
        .routes(routes!(my_device_file))
        .routes(routes!(create_my_enrolment))
        .routes(routes!(list_my_tokens, create_my_token))
        .routes(routes!(delete_my_token))
}

/// The caller's identifier, as the directory takes it.
fn me(caller: &Caller) -> Result<String, Problem> {
    caller.own_user().map(|user| user.to_string())
}

/// As [`me`], for what only somebody who signed in may do.
fn me_signed_in(caller: &Caller) -> Result<String, Problem> {
    let user = me(caller)?;
    if is_session(caller) {
        return Ok(user);
    }
    let detail = "Sign in for this: a token is not enough";
    Err(Problem::new(Reason::Forbidden, detail))
}

/// Shows who calls, what holds for it and how it stands with its quota.
#[utoipa::path(get, path = "/api/v1/me", operation_id = "showMe", tag = TAG,
    responses((status = 200, body = UserView), Refusals))]
async fn show_me(
    Extension(directory): Extension<Directory>,
    caller: Caller,
) -> Result<Versioned<UserView>, Problem> {
    let view = directory.user_view(&me(&caller)?).await?;
    Ok(Versioned::ok(view.user.version, view))
}

/// Shows what the caller moved, by device and day.
#[utoipa::path(get, path = "/api/v1/me/usage", operation_id = "myUsage", tag = TAG,
    params(UsageQuery), responses((status = 200, body = Vec<Usage>), Refusals))]
async fn my_usage(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictQuery(query): StrictQuery<UsageQuery>,
) -> Result<Json<Vec<Usage>>, Problem> {
    let (from, to) = query.days(directory.now());
    Ok(Json(directory.usage(&me(&caller)?, from, to).await?))
}

/// A new password, and the one before.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"old": "the one before", "new": "a sentence that only I know"}))]
struct MyPassword {
    /// The one that holds now; left out by whoever has none yet.
    #[serde(default)]
    old: Option<Secret>,
    /// 10 to 1024 bytes, not a common one.
    new: Secret,
}

/// Changes the caller's password. All its sessions of the API end, this one too.
#[utoipa::path(put, path = "/api/v1/me/password", operation_id = "setMyPassword", tag = TAG,
    request_body = MyPassword, responses((status = 204, description = "It holds now."), Refusals))]
async fn set_my_password(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<MyPassword>,
) -> Result<StatusCode, Problem> {
    let user = me_signed_in(&caller)?;
    let user = directory.set_password(&oneself(&caller), &user, form.old, form.new).await?;
    state.end_logins(user.id);
    Ok(StatusCode::NO_CONTENT)
}

/// A second factor that the caller is to take over.
#[derive(Serialize, ToSchema)]
struct TotpView {
    /// To be given back with the first code.
    secret: String,
    /// The same as authenticators take it by hand (base32).
    text: String,
    /// The same as authenticators read it (`otpauth://…`).
    url: String,
    /// The same as an image (SVG) for a camera.
    qr_svg: Option<String>,
}

/// Of which kind.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct TotpQuery {
    /// `time` (TOTP), or `counter` (HOTP) for an authenticator without a clock.
    kind: OtpKind,
}

/// Draws a secret for one-time passwords. It holds once it is confirmed by a first code.
#[utoipa::path(post, path = "/api/v1/me/totp", operation_id = "offerMyTotp", tag = TAG,
    params(TotpQuery), responses((status = 200, body = TotpView), Refusals))]
async fn offer_my_totp(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictQuery(query): StrictQuery<TotpQuery>,
) -> Result<Json<TotpView>, Problem> {
    let (user, actor) = (me_signed_in(&caller)?, oneself(&caller));
    let offer = match query.kind {
        OtpKind::Time => directory.offer_totp(&actor, &user).await?,
        OtpKind::Counter => directory.offer_hotp(&actor, &user).await?,
    };
    Ok(Json(TotpView {
        secret: STANDARD.encode(&*offer.secret),
        text: offer.text.to_string(),
        qr_svg: crate::peers::qr::svg(&offer.url).map(|svg| svg.to_string()),
        url: offer.url.to_string(),
    }))
}

/// The secret that was drawn, and a code that it gives now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"secret": "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", "code": "123456"}))]
struct TotpProof {
    /// As it was drawn.
    secret: Secret,
    /// Six digits; of the kind `counter` also two codes in a row, which find a device that is up to
    /// 100 counters ahead.
    code: Secret,
    /// As it was drawn: `time` if it is left out.
    #[serde(default)]
    kind: OtpKind,
    /// Of the kind `counter`: where the device began to count, 0 for a secret that was drawn here.
    #[serde(default)]
    counter: u64,
}

/// Codes for whoever loses the second factor. They are shown once.
#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// Each counts once.
    recovery_codes: Vec<String>,
}

/// Takes a second factor into use. From now on sign-in asks for it where the policy does.
#[utoipa::path(put, path = "/api/v1/me/totp", operation_id = "confirmMyTotp", tag = TAG,
    request_body = TotpProof, responses((status = 200, body = RecoveryCodes), Refusals))]
async fn confirm_my_totp(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<TotpProof>,
) -> Result<Json<RecoveryCodes>, Problem> {
    let (user, actor, code) = (me_signed_in(&caller)?, oneself(&caller), &form.code.0);
    let secret = STANDARD.decode(form.secret.0.as_bytes()).unwrap_or_default();
    let secret = Zeroizing::new(secret);
    let codes = match form.kind {
        OtpKind::Time if form.counter != 0 => {
            let wrong = FieldError::new("/counter", "goes with the kind counter only");
            return Err(Problem::invalid(vec![wrong]));
        }
        OtpKind::Time => directory.confirm_totp(&actor, &user, secret, code).await?,
        OtpKind::Counter => {
            directory.confirm_hotp(&actor, &user, secret, form.counter, code).await?
        }
    };
    let recovery_codes = codes.iter().map(|code| code.0.to_string()).collect();
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// Lists the caller's devices.
#[utoipa::path(get, path = "/api/v1/me/devices", operation_id = "listMyDevices", tag = TAG,
    responses((status = 200, body = Vec<DeviceView>), Refusals))]
async fn list_my_devices(
    Extension(directory): Extension<Directory>,
    caller: Caller,
) -> Result<Json<Vec<DeviceView>>, Problem> {
    Ok(Json(directory.devices_of(&me(&caller)?).await?))
}

/// Adds a device to the caller. Without a key, a pair is made here and handed out once.
#[utoipa::path(post, path = "/api/v1/me/devices", operation_id = "addMyDevice", tag = TAG,
    request_body = NewDevice, responses((status = 201, body = AddedView), Refusals))]
async fn add_my_device(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewDevice>,
) -> Result<Versioned<AddedView>, Problem> {
    let added = directory.add_device(&oneself(&caller), &me(&caller)?, form).await?;
    Ok(Versioned::created(added.view.device.version, added.into()))
}

/// Removes a device of the caller.
#[utoipa::path(delete, path = "/api/v1/me/devices/{device}", operation_id = "deleteMyDevice",
    tag = TAG, params(("device" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_my_device(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(device): At<String>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_device(&oneself(&caller), &me(&caller)?, &device, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a device of the caller a new key. It keeps its addresses.
#[utoipa::path(post, path = "/api/v1/me/devices/{device}/key", operation_id = "rotateMyDeviceKey",
    tag = TAG, params(("device" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body = RotateKey, responses((status = 200, body = AddedView), Refusals))]
async fn rotate_my_device_key(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(device): At<String>,
    IfMatch(version): IfMatch,
    StrictJson(form): StrictJson<RotateKey>,
) -> Result<Versioned<AddedView>, Problem> {
    let (actor, user) = (oneself(&caller), me(&caller)?);
    let added = directory.rotate_key(&actor, &user, &device, version, form).await?;
    Ok(Versioned::ok(added.view.device.version, added.into()))
}

/// Gives the client file of a device that made its own key, without the private key.
#[utoipa::path(get, path = "/api/v1/me/devices/{device}/file", operation_id = "myDeviceFile",
    tag = TAG, params(("device" = String, Path, description = "Name or identifier"), FileQuery),
    responses((status = 200, content((String = "text/plain"), (String = "image/svg+xml"))),
        Refusals))]
async fn my_device_file(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(device): At<String>,
    StrictQuery(query): StrictQuery<FileQuery>,
) -> Result<Response, Problem> {
    query.answer(&directory.client_file(&me(&caller)?, &device).await?)
}

/// Makes a one-time link by which another device of the caller is added.
#[utoipa::path(post, path = "/api/v1/me/enrolments", operation_id = "createMyEnrolment", tag = TAG,
    request_body = NewEnrolment, responses((status = 201, body = InvitationView), Refusals))]
async fn create_my_enrolment(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewEnrolment>,
) -> Result<(StatusCode, Json<InvitationView>), Problem> {
    let invitation = directory.invite(&oneself(&caller), &me(&caller)?, form).await?;
    Ok((StatusCode::CREATED, Json(invitation.into())))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MyTokensQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the caller's tokens without their secrets.
#[utoipa::path(get, path = "/api/v1/me/tokens", operation_id = "listMyTokens", tag = TAG,
    params(MyTokensQuery), responses((status = 200, body = Paged<Token>), Refusals))]
async fn list_my_tokens(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictQuery(query): StrictQuery<MyTokensQuery>,
) -> Result<Json<Paged<Token>>, Problem> {
    let rows = directory.tokens(Some(me(&caller)?), page(query.after, query.limit)?).await?;
    Ok(Json(paged(rows)))
}

/// Makes a token for the caller. Its secret is shown once.
#[utoipa::path(post, path = "/api/v1/me/tokens", operation_id = "createMyToken", tag = TAG,
    request_body = NewToken, responses((status = 201, body = TokenView), Refusals))]
async fn create_my_token(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    StrictJson(form): StrictJson<NewToken>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    let user = me_signed_in(&caller)?;
    let made = directory.create_token(&oneself(&caller), &user, form).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Revokes a token of the caller.
#[utoipa::path(delete, path = "/api/v1/me/tokens/{id}", operation_id = "deleteMyToken", tag = TAG,
    params(("id" = TokenId, Path, description = "Identifier")),
    responses((status = 204, description = "It is worth nothing now."), Refusals))]
async fn delete_my_token(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(id): At<TokenId>,
) -> Result<StatusCode, Problem> {
    me(&caller)?;
    directory.remove_token(&oneself(&caller), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
