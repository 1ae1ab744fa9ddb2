//! `/api/v1/devices` and `/api/v1/users/{user}/devices`: clients with keys of their own.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor;
use super::page::{At, page, paged};
use super::refusals::Refusals;
use super::versions::{IfMatch, Versioned};
use crate::api::{ApiState, Caller, Need, Paged, Problem, Reason, StrictJson, StrictQuery, Who};
use crate::directory::input::{DevicePatch, NewDevice, RotateKey};
use crate::directory::{AddedDevice, ClientText, DeviceView, Directory};
use crate::store::query::DeviceFilter;
use crate::store::records::{Device, Role};

const TAG: &str = "devices";

pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/devices", Who::Role(Role::Viewer), "devices:read"),
    Need::new("GET", "/api/v1/users/{user}/devices", Who::Role(Role::Viewer), "devices:read"),
    Need::new("POST", "/api/v1/users/{user}/devices", Who::Role(Role::Operator), "devices:write"),
    Need::new(
        "GET",
        "/api/v1/users/{user}/devices/{device}",
        Who::Role(Role::Viewer),
        "devices:read",
    ),
    Need::new(
        "PATCH",
        "/api/v1/users/{user}/devices/{device}",
        Who::Role(Role::Operator),
        "devices:write",
    ),
    Need::new(
        "DELETE",
        "/api/v1/users/{user}/devices/{device}",
        Who::Role(Role::Operator),
        "devices:write",
    ),
    Need::new(
        "POST",
        "/api/v1/users/{user}/devices/{device}/key",
        Who::Role(Role::Operator),
        "devices:write",
    ),
    Need::new(
        "GET",
        "/api/v1/users/{user}/devices/{device}/file",
        Who::Role(Role::Viewer),
        "devices:read",
    ),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_devices))
        .routes(routes!(list_user_devices, add_device))
        .routes(routes!(show_device, patch_device, delete_device))
        .routes(routes!(rotate_device_key))
        .routes(routes!(device_file))
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DevicesQuery {
    /// Of this user, by name or identifier.
    user: Option<String>,
    /// Enabled, or not.
    enabled: Option<bool>,
    /// Whose name contains this.
    name: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// Rows of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A device with what to load into it. The private key, if it was made here, is in this answer and
/// nowhere else.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct AddedView {
    /// The device and its addresses.
    #[serde(flatten)]
    view: DeviceView,
    /// What `wg-quick` and the applications read.
    client_file: String,
    /// Whether the private key is in it; if not, the device puts in its own.
    has_private_key: bool,
    /// The same as an image (SVG) for the camera of a phone; absent if it is too long for one, and
    /// if the private key is not in it: no phone could use it.
    qr_svg: Option<String>,
}

impl From<AddedDevice> for AddedView {
    fn from(added: AddedDevice) -> Self {
        let file = &added.file;
        // Drawing takes milliseconds of the thread that answers everybody.
        let image = if file.has_private_key { file.svg() } else { None };
        Self {
            view: added.view,
            client_file: file.text.to_string(),
            has_private_key: file.has_private_key,
            qr_svg: image.map(|svg| svg.to_string()),
        }
    }
}

/// Lists the devices of everybody.
#[utoipa::path(get, path = "/api/v1/devices", operation_id = "listDevices", tag = TAG,
    params(DevicesQuery), responses((status = 200, body = Paged<DeviceView>), Refusals))]
async fn list_devices(
    Extension(directory): Extension<Directory>,
    StrictQuery(query): StrictQuery<DevicesQuery>,
) -> Result<Json<Paged<DeviceView>>, Problem> {
    let filter = DeviceFilter { user: None, enabled: query.enabled, name_contains: query.name };
    let rows = directory.devices(filter, query.user, page(query.after, query.limit)?).await?;
    Ok(Json(paged(rows)))
}

/// Lists the devices of a user.
#[utoipa::path(get, path = "/api/v1/users/{user}/devices", operation_id = "listUserDevices",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = Vec<DeviceView>), Refusals))]
async fn list_user_devices(
    Extension(directory): Extension<Directory>,
    At(user): At<String>,
) -> Result<Json<Vec<DeviceView>>, Problem> {
    Ok(Json(directory.devices_of(&user).await?))
}

/// Adds a device to a user. Without a key, a pair is made here and handed out once.
#[utoipa::path(post, path = "/api/v1/users/{user}/devices", operation_id = "addDevice", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier")),
    request_body = NewDevice, responses((status = 201, body = AddedView), Refusals))]
async fn add_device(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At(user): At<String>,
    StrictJson(form): StrictJson<NewDevice>,
) -> Result<Versioned<AddedView>, Problem> {
    let added = directory.add_device(&actor(&caller), &user, form).await?;
    Ok(Versioned::created(added.view.device.version, added.into()))
}

/// Shows a device and its addresses.
#[utoipa::path(get, path = "/api/v1/users/{user}/devices/{device}", operation_id = "showDevice",
    tag = TAG, params(("user" = String, Path, description = "Name or identifier"),
        ("device" = String, Path, description = "Name or identifier")),
    responses((status = 200, body = DeviceView), Refusals))]
async fn show_device(
    Extension(directory): Extension<Directory>,
    At((user, device)): At<(String, String)>,
) -> Result<Versioned<DeviceView>, Problem> {
    let view = directory.device(&user, &device).await?;
    Ok(Versioned::ok(view.device.version, view))
}

/// Renames, enables or disables a device by a merge patch.
#[utoipa::path(patch, path = "/api/v1/users/{user}/devices/{device}",
    operation_id = "patchDevice", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("device" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body(content((DevicePatch = "application/merge-patch+json"),
        (DevicePatch = "application/json"))),
    responses((status = 200, body = Device), Refusals))]
async fn patch_device(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At((user, device)): At<(String, String)>,
    IfMatch(version): IfMatch,
    StrictJson(patch): StrictJson<DevicePatch>,
) -> Result<Versioned<Device>, Problem> {
    let device = directory.patch_device(&actor(&caller), &user, &device, version, patch).await?;
    Ok(Versioned::ok(device.version, device))
}

/// Removes a device. Its session ends and its addresses become free.
#[utoipa::path(delete, path = "/api/v1/users/{user}/devices/{device}",
    operation_id = "deleteDevice", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("device" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    responses((status = 204, description = "It is gone."), Refusals))]
async fn delete_device(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At((user, device)): At<(String, String)>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    directory.remove_device(&actor(&caller), &user, &device, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a device a new key. It keeps its addresses; the old key ends at once.
#[utoipa::path(post, path = "/api/v1/users/{user}/devices/{device}/key",
    operation_id = "rotateDeviceKey", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("device" = String, Path, description = "Name or identifier"),
        ("If-Match" = Option<String>, Header, description = "ETag that must still hold")),
    request_body = RotateKey, responses((status = 200, body = AddedView), Refusals))]
async fn rotate_device_key(
    Extension(directory): Extension<Directory>,
    caller: Caller,
    At((user, device)): At<(String, String)>,
    IfMatch(version): IfMatch,
    StrictJson(form): StrictJson<RotateKey>,
) -> Result<Versioned<AddedView>, Problem> {
    let actor = actor(&caller);
    let added = directory.rotate_key(&actor, &user, &device, version, form).await?;
    Ok(Versioned::ok(added.view.device.version, added.into()))
}

/// How a client file is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileQuery {
    /// `conf` for the text, `svg` for a QR code; the text if left out.
    format: Option<String>,
}

impl FileQuery {
    /// The answer in this format.
    pub(super) fn answer(&self, file: &ClientText) -> Result<Response, Problem> {
        let (kind, body) = match self.format.as_deref() {
            None | Some("conf") => ("text/plain; charset=utf-8", file.text.to_string()),
            Some("svg") => {
                let Some(svg) = file.svg() else {
                    let detail = "The file is too long for a QR code: give the policy fewer routes";
                    return Err(Problem::new(Reason::Conflict, detail));
                };
                ("image/svg+xml", svg.to_string())
            }
            Some(_) => {
                let detail = "format is conf or svg";
                return Err(Problem::new(Reason::BadQuery, detail));
            }
        };
        let mut response = body.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    }
}

/// Gives the client file of a device that made its own key, without the private key.
#[utoipa::path(get, path = "/api/v1/users/{user}/devices/{device}/file",
    operation_id = "deviceFile", tag = TAG,
    params(("user" = String, Path, description = "Name or identifier"),
        ("device" = String, Path, description = "Name or identifier"), FileQuery),
    responses((status = 200, content((String = "text/plain"), (String = "image/svg+xml"))),
        Refusals))]
async fn device_file(
    Extension(directory): Extension<Directory>,
    At((user, device)): At<(String, String)>,
    StrictQuery(query): StrictQuery<FileQuery>,
) -> Result<Response, Problem> {
    query.answer(&directory.client_file(&user, &device).await?)
}
