//! The OpenAPI document: what the code says, and what the frame knows about every operation.
//!
//! A handler documents its own answers; credentials, role, scope and the refusals that any request
//! may meet are added here from the table of needs, so that document and gatekeeper cannot differ.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use utoipa::PartialSchema as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Info, License, OpenApi, Ref, RefOr, ResponseBuilder};

use super::needs::{Need, Needs, Who};
use super::problem::{self, FieldError, Problem, ProblemBody};
use super::reason::Reason;
use super::state::ApiState;

/// Where the document is.
pub const DOCUMENT_PATH: &str = "/api/v1/openapi.json";

/// Lines of the table for the document and the page; neither is an operation of the document.
pub(super) const NEEDS: &[Need] = &[
    Need::new("GET", DOCUMENT_PATH, Who::Anybody, ""),
    Need::new("GET", "/api/docs", Who::Anybody, ""),
    Need::new("GET", "/api/docs/", Who::Anybody, ""),
    Need::new("GET", "/api/docs/{file}", Who::Anybody, ""),
];

/// What the page may load: its own files, and pictures written into its style sheet.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                           img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
                           base-uri 'none'; form-action 'none'";

/// Adds what the frame knows.
pub(super) fn complete(document: &mut OpenApi, needs: &Needs) {
    let mut info = Info::new("Ringway", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Management of a Ringway gateway. Refusals are RFC 9457 problems; their types are a closed \
         list. So is the answer to a head that cannot be read (400, 408, 431), if it is the first \
         of its connection; after others only the status says it. Lists come in pages: give `next` of a page as `after` to get the one behind it."
            .to_owned(),
    );
    info.license = Some(License::new("MIT OR Apache-2.0"));
    document.info = info;
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    components.schemas.insert("FieldError".to_owned(), FieldError::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("rw_…").build();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new("__Host-ringway"));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let need = needs.iter().find(|need| need.path == path && need.method == method);
            describe(operation, need.copied());
        }
    }
}

/// All operations of a path, with their methods.
pub(super) fn operations(
    item: &mut PathItem,
) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("GET", item.get.as_mut()),
        ("PUT", item.put.as_mut()),
        ("POST", item.post.as_mut()),
        ("DELETE", item.delete.as_mut()),
        ("PATCH", item.patch.as_mut()),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation?)))
}

fn describe(operation: &mut Operation, need: Option<Need>) {
    let Some(need) = need else { return };
    let who = match need.who {
        Who::Anybody => "Needs no credentials.".to_owned(),
        Who::SignedIn => format!("For any user who signed in; tokens need `{}`.", need.scope),
        Who::Role(role) => {
            format!("Needs the role {}; tokens need `{}`.", role.word(), need.scope)
        }
        Who::Local => "Only on the gateway's own host, by the Unix socket.".to_owned(),
    };
    let said = operation.description.take();
    operation.description =
        Some(said.map_or_else(|| who.clone(), |said| format!("{said}\n\n{who}")));
    if need.who == Who::Anybody {
        operation.security = Some(Vec::new());
    } else {
        let none: [&str; 0] = [];
        let either = ["token", "session"].map(|name| SecurityRequirement::new(name, none));
        operation.security = Some(either.to_vec());
    }
    let responses = &mut operation.responses.responses;
    if !responses.contains_key("default") {
        let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let refused = ResponseBuilder::new()
            .description("Refused: an RFC 9457 problem")
            .content(problem::CONTENT_TYPE, content)
            .build();
        responses.insert("default".to_owned(), RefOr::T(refused));
    }
}

/// Serves the document and the page.
pub(super) fn routes(document: &OpenApi) -> Router<ApiState> {
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    let page = Arc::new(utoipa_swagger_ui::Config::from(DOCUMENT_PATH));
    Router::new()
        .route(DOCUMENT_PATH, axum::routing::get(serve_document))
        .route("/api/docs", axum::routing::get(redirect))
        .route("/api/docs/", axum::routing::get(async |page| file(page, "index.html")))
        .route("/api/docs/{file}", axum::routing::get(serve_file))
        .layer(Extension(text))
        .layer(Extension(page))
}

async fn serve_document(Extension(text): Extension<Arc<str>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

async fn redirect() -> Response {
    axum::response::Redirect::permanent("/api/docs/").into_response()
}

type Page = Extension<Arc<utoipa_swagger_ui::Config<'static>>>;

async fn serve_file(page: Page, Path(name): Path<String>) -> Response {
    file(page, &name)
}

fn file(Extension(page): Page, name: &str) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(name, page) else {
        return Problem::new(Reason::NotFound, "The page has no such file").into_response();
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(form) = file.content_type.parse() {
        headers.insert(header::CONTENT_TYPE, form);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    response
}
