//! Reports. What is in them and how they are written is the business of `Live`.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::live::{Report, ReportFormat, ReportSpan};
use crate::api::problem::FieldError;
use crate::api::{ApiState, Need, Part, Problem, Reason, StrictQuery, Who};
use crate::store::ids::Timestamp;
use crate::store::records::Role;

/// Longest time of a report: ten years and the leap days.
const SPAN_MS_MAX: i64 = 3653 * DAY_MS;
const DAY_MS: i64 = 86_400_000;

const NEEDS: &[Need] = &[
    Need::new("GET", "/api/v1/reports/usage", Who::Role(Role::Viewer), "reports:read"),
    Need::new("GET", "/api/v1/reports/performance", Who::Role(Role::Viewer), "reports:read"),
];

pub(super) fn part() -> Part {
    let router = OpenApiRouter::new().routes(routes!(usage)).routes(routes!(performance));
    Part { router, needs: NEEDS }
}

/// Which time, and how it is written
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReportQuery {
    /// First moment; by default a day before `to`.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// First moment after it; by default now.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// How it is written.
    #[param(inline)]
    format: Option<ReportFormat>,
}

/// Who moved how much
#[utoipa::path(get, path = "/api/v1/reports/usage", operation_id = "getUsageReport",
    tag = "reports", params(ReportQuery),
    responses((status = 200, description = "The report", content(
        (Object = "application/json"), (String = "text/csv"), (String = "text/html")))))]
async fn usage(
    State(state): State<ApiState>,
    StrictQuery(query): StrictQuery<ReportQuery>,
) -> Result<Response, Problem> {
    let (span, format) = read(&query, state.now())?;
    Ok(answer(state.live().usage_report(span, format).await?, format, "usage"))
}

/// How fast it was
#[utoipa::path(get, path = "/api/v1/reports/performance", operation_id = "getPerformanceReport",
    tag = "reports", params(ReportQuery),
    responses((status = 200, description = "The report", content(
        (Object = "application/json"), (String = "text/csv"), (String = "text/html")))))]
async fn performance(
    State(state): State<ApiState>,
    StrictQuery(query): StrictQuery<ReportQuery>,
) -> Result<Response, Problem> {
    let (span, format) = read(&query, state.now())?;
    Ok(answer(state.live().performance_report(span, format).await?, format, "performance"))
}

fn read(query: &ReportQuery, now: Timestamp) -> Result<(ReportSpan, ReportFormat), Problem> {
    let to = query.to.unwrap_or(now);
    let from = query.from.unwrap_or_else(|| to.plus_ms(-DAY_MS));
    let wrong = if to <= from {
        "is not before to"
    } else if to.since(from) > SPAN_MS_MAX {
        "is more than ten years before to"
    } else {
        return Ok((ReportSpan { from, to }, query.format.unwrap_or_default()));
    };
    let errors = vec![FieldError::new("?from", wrong)];
    Err(Problem { errors, ..Problem::new(Reason::BadQuery, format!("from {wrong}")) })
}

fn answer(report: Report, format: ReportFormat, name: &str) -> Response {
    let form = match format {
        ReportFormat::Json => "application/json",
        ReportFormat::Csv => "text/csv; charset=utf-8",
        ReportFormat::Html => "text/html; charset=utf-8",
    };
    let mut response = ([(header::CONTENT_TYPE, form)], report.body).into_response();
    let headers = response.headers_mut();
    match format {
        ReportFormat::Json => (),
        ReportFormat::Csv => {
            let name = format!("attachment; filename=\"ringway-{name}.csv\"");
            if let Ok(name) = name.parse() {
                headers.insert(header::CONTENT_DISPOSITION, name);
            }
        }
        ReportFormat::Html => {
            // Its own style, and nothing else.
            let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                          frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
            let policy = HeaderValue::from_static(policy);
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
    }
    response
}
