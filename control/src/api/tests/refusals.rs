use std::sync::atomic::Ordering;

use serde_json::json;

use crate::api::caller::Source;
use crate::api::fake::{Ask, World};
use crate::api::gatekeeper::Door;
use crate::api::json::{BODY_BYTES_MAX, STRANGERS_BODY_BYTES_MAX};
use crate::api::live::LiveError;
use crate::api::reason::Reason;
use crate::api::state::Allowances;
use crate::store::StoreError;

fn root(ask: Ask) -> Ask {
    ask.token("token-root")
}

#[tokio::test]
async fn each_way_to_ask_wrongly_has_its_problem() {
    let world = World::new("refuse_each").await;
    let drain = || root(Ask::post("/api/v1/drain"));
    let huge = "x".repeat(BODY_BYTES_MAX + 1);
    for (ask, status, problem) in [
        (Ask::get("/nothing"), 404, "not-found"),
        (Ask::get("/api/v1/users2"), 404, "not-found"),
        (Ask::get("/api/v1/status/"), 404, "not-found"),
        (root(Ask::new("PATCH", "/api/v1/status")), 405, "method-not-allowed"),
        (Ask::new("OPTIONS", "/api/v1/status"), 405, "method-not-allowed"),
        (Ask::new("TRACE", "/api/v1/status"), 405, "method-not-allowed"),
        (Ask::new("BREW", "/health"), 405, "method-not-allowed"),
        (drain().body("application/json", "{"), 400, "bad-json"),
        (drain().body("application/json", "{\"within_s\":1,\"within_s\":2}"), 400, "duplicate-key"),
        (drain().body("application/json", "[".repeat(99)), 400, "too-deep"),
        (drain().body("text/plain", "{}"), 415, "unsupported-media-type"),
        (drain(), 415, "unsupported-media-type"),
        (drain().body("application/json", huge), 413, "body-too-large"),
        (drain().json(&json!({ "within_s": 86_401 })), 422, "invalid"),
        (drain().json(&json!({ "within_s": -1 })), 422, "invalid"),
        (drain().json(&json!({ "within": 1 })), 422, "invalid"),
        (root(Ask::get("/api/v1/sessions?limit=0")), 400, "bad-query"),
        (root(Ask::get("/api/v1/sessions?limit=1001")), 400, "bad-query"),
        (root(Ask::get("/api/v1/sessions?colour=red")), 400, "bad-query"),
        (root(Ask::get("/api/v1/sessions?state=asleep")), 400, "bad-query"),
        (root(Ask::get("/api/v1/events?kind=session.eaten")), 400, "bad-query"),
        (root(Ask::get("/api/v1/reports/usage?from=yesterday")), 400, "bad-query"),
        (root(Ask::new("DELETE", "/api/v1/sessions/18")), 404, "not-found"),
        (root(Ask::new("DELETE", "/api/v1/sessions/x")), 404, "not-found"),
        (root(Ask::new("DELETE", "/api/v1/sessions/%ff")), 400, "bad-request"),
        (root(Ask::post("/api/v1/nodes/mars/disable")), 404, "not-found"),
        (root(Ask::post("/api/v1/nodes/local/disable")), 409, "conflict"),
    ] {
        let shown = format!("{ask:.200?}");
        let answer = world.send(ask).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, problem),
            "{shown}"
        );
    }
    assert_eq!(world.state.refusals().get(Reason::MethodNotAllowed), 4);
    // Whoever has shown nothing yet may say less.
    for length in [STRANGERS_BODY_BYTES_MAX + 1, BODY_BYTES_MAX] {
        for path in ["/api/v1/session", "/api/v1/setup"] {
            let body = format!("{{\"name\":\"{}\"}}", "x".repeat(length));
            let answer = world.send(Ask::post(path).body("application/json", body)).await;
            assert_eq!((answer.status.as_u16(), &*answer.problem()), (413, "body-too-large"));
        }
    }
    assert_eq!(world.state.refusals().get(Reason::TooDeep), 1);
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_answered_with_those_that_are() {
    let world = World::new("refuse_allow").await;
    let answer = world.send(Ask::new("PATCH", "/api/v1/config")).await;
    assert_eq!(answer.headers["allow"], "GET, PUT");
    assert_eq!(answer.json()["instance"], "/api/v1/config");
}

#[tokio::test]
async fn what_could_be_understood_in_two_ways_is_refused() {
    let world = World::new("refuse_two").await;
    let ask = || Ask::post("/api/v1/session");
    let local = Source::Ip("127.0.0.1".parse().unwrap());
    let by_name = |host: &str| {
        Ask::get("/health").without("host").header("host", host).via(Door::Loopback, local)
    };
    for (ask, status) in [
        (ask().header("transfer-encoding", "chunked"), 411),
        (ask().header("transfer-encoding", "identity").json(&json!({})), 411),
        (ask().header("content-length", "0").header("content-length", "0"), 400),
        (ask().header("host", "other.example"), 400),
        (ask().without("host"), 400),
        (by_name("evil.example"), 421),
        (by_name("evil.example:8080"), 421),
        (by_name("127.0.0.1.evil.example"), 421),
        (by_name("192.0.2.1:8080"), 421),
        (by_name("localhost:8080"), 200),
        (by_name("127.0.0.1"), 200),
        (by_name("[::1]:8080"), 200),
    ] {
        let shown = format!("{ask:?}");
        let answer = world.send(ask).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}");
        let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
        assert_eq!(closes, matches!(status, 400 | 411), "{shown}");
    }
}

#[tokio::test]
async fn nothing_of_the_inside_is_told_when_something_fails_here() {
    let world = World::new("refuse_inside").await;
    let ask = || root(Ask::get("/api/v1/status"));
    let secret = "/var/lib/secret/path";
    let why = || secret.to_owned();
    for (error, problem, retries) in [
        (StoreError::Busy { why: why() }, "store-busy", true),
        (StoreError::Timeout { why: why() }, "store-timeout", true),
        (StoreError::Collision { tries: 3 }, "store-busy", true),
        (StoreError::Unavailable { why: why() }, "store-unavailable", true),
        (StoreError::Full { why: why() }, "storage-full", false),
        (StoreError::Corrupt { why: why() }, "store-corrupt", false),
        (StoreError::Newer { found: 2, known: 1 }, "store-corrupt", false),
    ] {
        *world.accounts.fails.lock().unwrap() = Some(error);
        let answer = world.send(ask()).await;
        assert_eq!(answer.problem(), problem);
        assert_eq!(answer.headers.contains_key("retry-after"), retries, "{problem}");
        assert!(!answer.text().contains(secret), "{problem}");
    }
    *world.accounts.fails.lock().unwrap() = None;
    for (error, problem) in [
        (LiveError::Unavailable(why()), "gateway-unavailable"),
        (LiveError::Failed(why()), "internal"),
        (LiveError::Conflict("It is so".to_owned()), "conflict"),
        (LiveError::Invalid("?source".to_owned(), "is no prefix".to_owned()), "bad-query"),
        (LiveError::Invalid("/x".to_owned(), "is wrong".to_owned()), "invalid"),
    ] {
        *world.live.fails.lock().unwrap() = Some(error);
        let answer = world.send(ask()).await;
        assert_eq!(answer.problem(), problem);
        assert!(!answer.text().contains(secret), "{problem}");
    }
    *world.live.fails.lock().unwrap() = None;
    world.live.panics.store(true, Ordering::SeqCst);
    let answer = world.send(ask()).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (500, "internal"));
    assert!(!answer.text().contains("secret"));
}

#[tokio::test]
async fn errors_of_the_store_about_the_request_are_told() {
    for (error, problem) in [
        (StoreError::NotFound { kind: "user", id: "anna".to_owned() }, Reason::NotFound),
        (
            StoreError::Conflict { kind: "user", field: "name", value: "a".to_owned() },
            Reason::NameTaken,
        ),
        (StoreError::Stale { kind: "user" }, Reason::StaleVersion),
        (
            StoreError::InUse { kind: "group", id: "g".to_owned(), by: "anna".to_owned() },
            Reason::InUse,
        ),
        (StoreError::Missing { kind: "user", target: "group" }, Reason::Invalid),
    ] {
        let text = error.to_string();
        let told = crate::api::Problem::from(error);
        assert_eq!((told.reason, &*told.detail), (problem, &*text));
    }
}

#[tokio::test]
async fn one_request_too_many_at_the_same_time_is_refused_at_once() {
    let allowances = Allowances { strangers: 0, ..Allowances::default() };
    let world = World::with("refuse_flight", allowances, true).await;
    let answer = world.send(Ask::get("/health")).await;
    assert_eq!(
        (answer.problem().as_str(), &answer.headers["retry-after"]),
        ("overloaded", &axum::http::HeaderValue::from(1))
    );
}
