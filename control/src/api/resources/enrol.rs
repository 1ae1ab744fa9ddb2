//! `/api/v1/enrol` and the page `/enrol`: what whoever has a one-time link sees.
//!
//! The page makes the key in the browser where that can be done (X25519 of Web Crypto), so that the
//! private key never leaves the device; else it says how to make one by hand. It loads nothing from
//! elsewhere, and its policy lets exactly this one script run, by its hash.

use std::sync::OnceLock;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::refusals::Refusals;
use crate::api::gatekeeper::{Via, charge_wrong};
use crate::api::{ApiState, Need, Problem, StrictJson, Who};
use crate::directory::input::Redeem;
use crate::directory::{DeviceView, Directory, Refusal};

const TAG: &str = "enrol";

pub(super) const NEEDS: &[Need] = &[
    Need::new("POST", "/api/v1/enrol", Who::Anybody, ""),
    Need::new("GET", "/enrol", Who::Anybody, ""),
];

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(redeem)).routes(routes!(enrol_page))
}

/// A device that was added by a one-time link.
#[derive(Clone, Serialize, ToSchema)]
struct RedeemedView {
    /// The device and its addresses.
    device: DeviceView,
    /// What `wg-quick` and the applications read, without the private key: the device puts in its
    /// own.
    client_file: String,
}

/// Adds a device with a key that it made itself, by a one-time link. The link is used up by it.
#[utoipa::path(post, path = "/api/v1/enrol", operation_id = "redeemEnrolment", tag = TAG,
    request_body = Redeem,
    responses((status = 201, body = RedeemedView),
        (status = 410, body = inline(crate::api::ProblemBody),
            content_type = "application/problem+json",
            description = "The link was used, is too old, or never was."), Refusals),
    security(()))]
async fn redeem(
    State(state): State<ApiState>,
    Extension(directory): Extension<Directory>,
    Extension(via): Extension<Via>,
    StrictJson(form): StrictJson<Redeem>,
) -> Result<(StatusCode, Json<RedeemedView>), Problem> {
    let redeemed = directory.redeem(form).await.inspect_err(|refusal| {
        if matches!(refusal, Refusal::LinkRefused) {
            charge_wrong(&state, via);
        }
    })?;
    let client_file = redeemed.file.text.to_string();
    Ok((StatusCode::CREATED, Json(RedeemedView { device: redeemed.view, client_file })))
}

/// The page behind a one-time link.
#[utoipa::path(get, path = "/enrol", operation_id = "enrolPage", tag = TAG,
    responses((status = 200, content_type = "text/html", body = String)), security(()))]
async fn enrol_page() -> Response {
    let page = page();
    let mut response = page.html.into_response();
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    headers.insert(header::CONTENT_SECURITY_POLICY, page.policy.clone());
    // Whoever has the link has the invitation: it is not passed on to anybody.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    response
}

struct Page {
    html: &'static str,
    policy: HeaderValue,
}

fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| {
        let html = include_str!("enrol.html");
        let between = |open: &str, close: &str| {
            let inner = html.split_once(open).and_then(|(_, rest)| rest.split_once(close));
            STANDARD.encode(Sha256::digest(inner.map_or("", |(inner, _)| inner).as_bytes()))
        };
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            between("<script>", "</script>"),
            between("<style>", "</style>")
        );
        // Base64 and the words above are always a header value; nothing at all is allowed if not.
        let nothing = HeaderValue::from_static("default-src 'none'");
        let policy = HeaderValue::from_str(&policy).unwrap_or(nothing);
        Page { html, policy }
    })
}
