use serde_json::json;

use crate::api::caller::Source;
use crate::api::fake::{Ask, World};
use crate::api::gatekeeper::{Door, Via};
use crate::api::needs::{Need, Who};
use crate::api::rate::Allowance;
use crate::api::state::Allowances;
use crate::store::records::{Role, UserState};

/// What anybody may call: all there is, so that a new line in the table must be put here as well.
const OPEN: &[&str] = &[
    "GET /api/docs",
    "GET /api/docs/",
    "GET /api/docs/{file}",
    "GET /api/v1/health",
    "GET /api/v1/openapi.json",
    "GET /health",
    "POST /api/v1/session",
    "POST /api/v1/setup",
];

/// What a caller with the lowest role may call although it is no GET: it is about itself.
const OWN: &[&str] = &["DELETE /api/v1/session"];

fn unlimited() -> Allowances {
    let much = Allowance { per_second: 100_000, burst: 100_000 };
    Allowances { per_source: much, per_caller: much, ..Allowances::default() }
}

/// A sign-in from `source` that is accepted and whose body never comes.
fn stuck(door: Door, source: Source) -> axum::extract::Request {
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let mut request = axum::extract::Request::builder()
        .method("POST")
        .uri("/api/v1/session")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("content-length", "100")
        .body(axum::body::Body::from_stream(never))
        .unwrap();
    request.extensions_mut().insert(Via { door, source });
    request
}

#[tokio::test]
async fn requests_without_credentials_keep_nobody_out_who_has_some() {
    use futures_util::FutureExt as _;
    use tower::ServiceExt as _;
    let world = World::with("access_stuck", unlimited(), true).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for number in 0..200u32 {
        let (door, source) = match number % 2 {
            0 => (Door::Unix, Source::Unix { uid: 1000 + number % 5 }),
            _ => (Door::Https, Source::Ip(format!("203.0.113.{}", number / 8).parse().unwrap())),
        };
        let mut answer = Box::pin(world.router.clone().oneshot(stuck(door, source)));
        // It either waits for its body or is refused at once.
        match (&mut answer).now_or_never() {
            Some(answer) => {
                assert_eq!(answer.unwrap().status(), 503);
                refused += 1;
            }
            None => held.push(answer),
        }
    }
    assert_eq!((held.len(), refused), (32, 168));
    let health = || Ask::get("/health");
    assert_eq!(world.send(health()).await.problem(), "overloaded");
    for uid in [0, 4242] {
        let local = |ask: Ask| ask.via(Door::Unix, Source::Unix { uid });
        assert_eq!(world.send(local(Ask::get("/api/v1/status"))).await.status, 200);
        assert_eq!(world.send(local(health())).await.status, 200);
    }
    assert_eq!(world.send(Ask::get("/api/v1/status").token("token-vera")).await.status, 200);
    drop(held);
    assert_eq!(world.send(health()).await.status, 200);
}

#[tokio::test]
async fn one_address_without_credentials_has_a_small_share_but_a_proxy_on_this_host_has_all() {
    use futures_util::FutureExt as _;
    use tower::ServiceExt as _;
    for (address, share) in [("203.0.113.9", 4), ("2001:db8::7", 4), ("127.0.0.1", 32)] {
        let name = format!("access_share{share}{}", address.len());
        let world = World::with(&name, unlimited(), true).await;
        let source = Source::Ip(address.parse().unwrap());
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut answer = Box::pin(world.router.clone().oneshot(stuck(Door::Https, source)));
            if (&mut answer).now_or_never().is_none() {
                held.push(answer);
            }
        }
        assert_eq!(held.len(), share, "{address}");
        let elsewhere = world.send(Ask::get("/health").from("198.51.100.7")).await.status;
        assert_eq!(elsewhere, if share == 4 { 200 } else { 503 });
    }
}

/// A request that would do something if it were let through.
fn ask(need: Need) -> Ask {
    let path = need.path.replace("{id}", "17").replace("{version}", "1").replace("{file}", "x");
    let ask = Ask::new(need.method, &path);
    match (need.method, need.path) {
        ("PUT", _) => ask.header("if-match", "*").body("application/toml", "[interface]\n"),
        ("POST", _) => ask.json(&json!({})),
        _ => ask,
    }
}

#[tokio::test]
async fn no_route_answers_without_credentials_but_those_that_must() {
    let world = World::with("access_none", unlimited(), true).await;
    let mut open = Vec::new();
    for need in world.state.needs().iter() {
        let line = format!("{} {}", need.method, need.path);
        let wrong = [
            ask(*need),
            ask(*need).token("token-nobody"),
            ask(*need).token(&"x".repeat(300)),
            ask(*need).header("authorization", "Basic cm9vdDpyb290"),
            ask(*need).header("authorization", "Bearer "),
            ask(*need).token("token-root").token("token-root"),
            ask(*need).header("cookie", &format!("__Host-ringway={}", "a".repeat(64))),
            // A cookie does not stand in for a token that is wrong.
            ask(*need).token("token-nobody").header("cookie", &world.sign_in("root").await.0),
            ask(*need).via(Door::Unix, Source::Unix { uid: 1000 }),
        ];
        for ask in wrong {
            let shown = format!("{ask:?}");
            let answer = world.send(ask).await;
            if need.who == Who::Anybody {
                continue;
            }
            assert_eq!(answer.problem(), "unauthenticated", "{line}: {shown}");
            assert_eq!(answer.status, 401);
            assert!(answer.headers.contains_key("www-authenticate"));
        }
        if need.who == Who::Anybody {
            open.push(line);
        }
    }
    open.sort();
    assert_eq!(open, OPEN);
    assert_eq!(world.live.told().iter().filter(|told| *told != "health").count(), 0);
}

#[tokio::test]
async fn a_viewer_changes_nothing_and_an_operator_not_the_gateway_itself() {
    let world = World::with("access_roles", unlimited(), true).await;
    for need in world.state.needs().iter().filter(|need| need.who != Who::Anybody) {
        let line = format!("{} {}", need.method, need.path);
        for (token, role) in [
            ("token-nora", None),
            ("token-vera", Some(Role::Viewer)),
            ("token-olga", Some(Role::Operator)),
            ("token-root", Some(Role::Administrator)),
        ] {
            let answer = world.send(ask(*need).token(token)).await;
            let may = match need.who {
                Who::Anybody | Who::SignedIn => true,
                Who::Role(least) => role.is_some_and(|role| role >= least),
                Who::Local => false,
            };
            assert_eq!(answer.problem() == "forbidden", !may, "{line} by {token}: {answer:?}");
            if role == Some(Role::Viewer) && need.method != "GET" {
                assert!(!may || OWN.contains(&&*line), "a viewer may {line}");
            }
        }
        if let (Who::Role(least), true) = (need.who, need.path.starts_with("/api/v1/config")) {
            assert_eq!(least == Role::Administrator, need.method != "GET", "{line}");
        }
    }
}

#[tokio::test]
async fn a_token_is_worth_what_it_was_made_for_and_no_more_than_its_owner() {
    let world = World::new("access_scopes").await;
    let (root, vera) = (world.accounts.id("root"), world.accounts.id("vera"));
    world.accounts.give_token(root, "t-status", &["status:read", "nodes:write"]);
    world.accounts.give_token(vera, "t-vera", &["sessions:write"]);
    for (token, ask, problem) in [
        ("t-status", Ask::get("/api/v1/status"), ""),
        ("t-status", Ask::get("/api/v1/nodes"), ""),
        ("t-status", Ask::get("/api/v1/sessions"), "scope-missing"),
        ("t-status", Ask::get("/api/v1/config"), "scope-missing"),
        ("t-status", Ask::post("/api/v1/nodes/second/disable"), ""),
        ("t-vera", Ask::get("/api/v1/sessions"), ""),
        ("t-vera", Ask::new("DELETE", "/api/v1/sessions/17"), "forbidden"),
    ] {
        let shown = format!("{ask:?}");
        assert_eq!(world.send(ask.token(token)).await.problem(), problem, "{shown}");
    }
}

#[tokio::test]
async fn a_token_dies_with_its_time_and_with_the_rights_of_its_owner() {
    let world = World::new("access_life").await;
    let ask = || Ask::get("/api/v1/status").token("token-vera");
    assert_eq!(world.send(ask()).await.status, 200);
    world.accounts.change("vera", |user, _| user.state = UserState::Disabled);
    assert_eq!(world.send(ask()).await.status, 401);
    world.accounts.change("vera", |user, _| user.state = UserState::Active);
    world.accounts.change("vera", |user, _| user.role = None);
    assert_eq!(world.send(ask()).await.status, 403);
    world.accounts.change("vera", |user, _| user.role = Some(Role::Viewer));
    let now = world.state.now();
    world.accounts.change("vera", |user, _| user.expires_at = Some(now.plus_ms(1)));
    assert_eq!(world.send(ask()).await.status, 200);
    world.pass(1);
    assert_eq!(world.send(ask()).await.status, 401);
    for token in world.accounts.tokens.lock().unwrap().values_mut() {
        token.expires_at = Some(world.state.now());
    }
    assert_eq!(world.send(Ask::get("/api/v1/status").token("token-root")).await.status, 401);
}

#[tokio::test]
async fn the_use_of_a_token_is_noted_once_a_minute() {
    let world = World::new("access_touch").await;
    let used = || {
        let tokens = world.accounts.tokens.lock().unwrap();
        tokens.values().find_map(|token| token.last_used_at)
    };
    for (pass, noted) in [(0, 0), (30_000, 0), (30_000, 60_000)] {
        world.pass(pass);
        world.send(Ask::get("/api/v1/status").token("token-root")).await;
        tokio::task::yield_now().await;
        assert_eq!(used(), Some(crate::api::fake::BEGIN.plus_ms(noted)));
    }
}

#[tokio::test]
async fn on_the_unix_socket_root_and_the_gateway_are_administrators() {
    let world = World::new("access_unix").await;
    for (uid, status) in [(0, 200), (4242, 200), (1, 401), (4243, 401)] {
        let ask = Ask::get("/api/v1/session").via(Door::Unix, Source::Unix { uid });
        let answer = world.send(ask.clone()).await;
        assert_eq!(answer.status, status, "{uid}");
        if status == 200 {
            assert_eq!(answer.json()["actor"], format!("local:{uid}"));
            assert_eq!(answer.json()["role"], "administrator");
        }
        // A token goes before, for everybody.
        assert_eq!(world.send(ask.token("token-vera")).await.json()["role"], "viewer");
    }
    // The same number means nothing by another door.
    let ask = Ask::get("/api/v1/session").via(Door::Https, Source::Unix { uid: 0 });
    assert_eq!(world.send(ask).await.status, 401);
}

#[tokio::test]
async fn a_source_or_caller_that_asks_too_much_waits_and_others_do_not() {
    let few = Allowance { per_second: 1, burst: 40 };
    let many = Allowance { per_second: 1000, burst: 1000 };
    let allowances = Allowances { per_source: few, per_caller: many, ..Allowances::default() };
    let world = World::with("access_source", allowances, true).await;
    let ask = |from: &str| Ask::get("/health").from(from);
    for _ in 0..40 {
        assert_eq!(world.send(ask("192.0.2.1")).await.status, 200);
    }
    let refused = world.send(ask("192.0.2.1")).await;
    assert_eq!(
        (refused.problem().as_str(), &refused.headers["retry-after"]),
        ("too-many-requests", &axum::http::HeaderValue::from(1))
    );
    assert_eq!(world.send(ask("192.0.2.2")).await.status, 200);
    // IPv4 in IPv6 is the same source, a /64 is one.
    assert_eq!(world.send(ask("::ffff:192.0.2.1")).await.status, 429);
    for number in 0..40 {
        assert_eq!(world.send(ask(&format!("2001:db8::{number}"))).await.status, 200);
    }
    assert_eq!(world.send(ask("2001:db8::ffff")).await.status, 429);
    assert_eq!(world.send(ask("2001:db8:0:1::1")).await.status, 200);
    // The Unix socket is not limited.
    for _ in 0..60 {
        let ask = Ask::get("/api/v1/status").via(Door::Unix, Source::Unix { uid: 0 });
        assert_eq!(world.send(ask).await.status, 200);
    }
    world.pass(1000);
    assert_eq!(world.send(ask("192.0.2.1")).await.status, 200);
    // Wrong credentials cost more.
    let guess = || Ask::get("/api/v1/status").token("guess").from("192.0.2.3");
    for status in [401, 401, 429] {
        assert_eq!(world.send(guess()).await.status, status);
    }
}

#[tokio::test]
async fn a_caller_is_limited_whatever_address_it_comes_from() {
    let few = Allowance { per_second: 1, burst: 5 };
    let allowances = Allowances { per_caller: few, ..Allowances::default() };
    let world = World::with("access_caller", allowances, true).await;
    let ask = |token: &str, from: u8| {
        Ask::get("/api/v1/status").token(token).from(&format!("192.0.2.{from}"))
    };
    for from in 0..5 {
        assert_eq!(world.send(ask("token-vera", from)).await.status, 200);
    }
    assert_eq!(world.send(ask("token-vera", 9)).await.status, 429);
    assert_eq!(world.send(ask("token-olga", 9)).await.status, 200);
}
