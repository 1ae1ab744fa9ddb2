use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::fake::{Answer, Ask, BEGIN, World};
use crate::api::state::Allowances;
use crate::configs::fake::{SHARED, text};
use crate::events::Kind;
use crate::store::records::UserState;

fn root(ask: Ask) -> Ask {
    ask.token("token-root")
}

async fn put(world: &World, query: &str, tag: &str, body: &str) -> Answer {
    let ask = root(Ask::new("PUT", &format!("/api/v1/config{query}")));
    world.send(ask.header("if-match", tag).body("application/toml", body)).await
}

async fn tag(world: &World) -> String {
    let answer = world.send(root(Ask::get("/api/v1/config"))).await;
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_has_the_ten_fields_of_the_contract() {
    let world = World::new("res_sessions").await;
    let path = "/api/v1/sessions?user=anna&device=phone&state=active&source=192.0.2.0%2F24\
                &after=16&limit=7";
    let page = world.send(root(Ask::get(path))).await.json();
    let session = page["items"][0].as_object().unwrap();
    for field in [
        "id",
        "user",
        "client_ip",
        "exit_node",
        "connected_at",
        "last_activity",
        "bytes_sent",
        "bytes_received",
        "status",
        "tunnel",
    ] {
        assert!(session.contains_key(field), "{field}");
    }
    assert_eq!((&session["status"], &page["next"]), (&json!("active"), &json!("18")));
    let told = world.live.told().remove(0);
    for part in ["\"anna\"", "\"phone\"", "Active", "192.0.2.0/24", "\"16\"", "limit: 7"] {
        assert!(told.contains(part), "{told} lacks {part}");
    }
    world.send(root(Ask::get("/api/v1/sessions"))).await;
    assert!(world.live.told()[0].contains("limit: 100"));
}

#[tokio::test]
async fn a_session_is_ended_with_a_reason_and_the_name_of_who_did_it() {
    let world = World::new("res_end").await;
    let (cookie, csrf) = world.sign_in("olga").await;
    let ask = Ask::new("DELETE", "/api/v1/sessions/17?reason=lost+phone");
    let answer = world.send(ask.header("cookie", &cookie).header("x-csrf-token", &csrf)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(world.live.told(), ["end 17 Some(\"lost phone\") user:olga"]);
    for reason in ["x".repeat(201), "a%0ab".to_owned()] {
        let ask = Ask::new("DELETE", &format!("/api/v1/sessions/17?reason={reason}"));
        assert_eq!(world.send(root(ask)).await.problem(), "bad-query");
    }
}

#[tokio::test]
async fn health_says_why_to_callers_with_a_role_only() {
    let world = World::new("res_health").await;
    for path in ["/health", "/api/v1/health"] {
        world.live.unhealthy.store(false, Ordering::SeqCst);
        let answer = world.send(Ask::get(path)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["parts"].as_array().unwrap().len()),
            (200, 0)
        );
        world.live.unhealthy.store(true, Ordering::SeqCst);
        let answer = world.send(Ask::get(path)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["healthy"]), (503, &json!(false)));
        assert!(!answer.text().contains("hangs"));
        assert!(!world.send(Ask::get(path).token("token-nora")).await.text().contains("hangs"));
        let answer = world.send(Ask::get(path).token("token-vera")).await;
        assert!(answer.text().contains("core 1 hangs"));
    }
}

#[tokio::test]
async fn metrics_have_the_refusals_of_the_api_and_one_end() {
    let world = World::new("res_metrics").await;
    world.send(Ask::get("/api/v1/status")).await;
    for path in ["/metrics", "/api/v1/metrics"] {
        let answer = world.send(root(Ask::get(path))).await;
        assert!(
            answer.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics")
        );
        let text = answer.text();
        assert!(text.contains("\nringway_api_refusals_total{reason=\"unauthenticated\"} 1\n"));
        assert!(text.starts_with("# TYPE ringway_x gauge\n") && text.ends_with("\n# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}

#[tokio::test]
async fn reports_come_as_they_are_asked_for() {
    let world = World::new("res_reports").await;
    for kind in ["usage", "performance"] {
        for (format, form) in
            [("json", "application/json"), ("csv", "text/csv"), ("html", "text/html")]
        {
            let path = format!("/api/v1/reports/{kind}?format={format}");
            let answer = world.send(root(Ask::get(&path))).await;
            assert!(answer.headers["content-type"].to_str().unwrap().starts_with(form));
            assert_eq!(answer.headers.contains_key("content-disposition"), format == "csv");
        }
        // The last day, by default.
        let answer = world.send(root(Ask::get(&format!("/api/v1/reports/{kind}")))).await.json();
        assert_eq!(answer["to"], json!(BEGIN));
        assert_eq!(answer["from"], json!(BEGIN.plus_ms(-86_400_000)));
    }
    for wrong in [
        "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "from=2006-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "format=pdf",
    ] {
        let answer = world.send(root(Ask::get(&format!("/api/v1/reports/usage?{wrong}")))).await;
        assert_eq!(answer.problem(), "bad-query", "{wrong}");
    }
}

#[tokio::test]
async fn nodes_and_drains_are_handed_on_with_the_name_of_who_asks() {
    let world = World::new("res_nodes").await;
    let answer = world.send(root(Ask::get("/api/v1/nodes"))).await.json();
    assert_eq!(answer["items"][0]["id"], "local");
    let uid = crate::api::caller::Source::Unix { uid: 0 };
    let local = |ask: Ask| ask.via(crate::api::gatekeeper::Door::Unix, uid);
    for ask in [
        local(Ask::post("/api/v1/nodes/second/disable")),
        local(Ask::post("/api/v1/drain").json(&json!({ "within_s": 60 }))),
        local(Ask::post("/api/v1/drain").json(&json!({}))),
        local(Ask::new("DELETE", "/api/v1/drain")),
    ] {
        assert_eq!(world.send(ask).await.status, 200);
    }
    assert_eq!(
        world.live.told(),
        [
            "nodes",
            "second false local:0",
            "drain 60000 local:0",
            "drain 300000 local:0",
            "undrain local:0",
        ]
    );
    let drain = world.send(root(Ask::get("/api/v1/drain"))).await.json();
    assert_eq!(drain["sessions"][0]["why"], "active");
}

#[tokio::test]
async fn the_configuration_is_read_without_keys_and_written_from_what_was_read() {
    let world = World::new("res_config").await;
    let shown = world.send(root(Ask::get("/api/v1/config"))).await;
    assert!(!shown.text().contains(SHARED));
    let effective = world.send(root(Ask::get("/api/v1/config?effective=true"))).await;
    assert!(effective.text().contains("[workers]") && !effective.text().contains(SHARED));
    assert!(!effective.headers.contains_key("etag"));
    let old = tag(&world).await;
    let wanted = text(&[2, 3]);
    assert_eq!(put(&world, "", "\"v9-x\"", &wanted).await.problem(), "stale-version");
    assert_eq!(put(&world, "", "W/\"v1\"", &wanted).await.problem(), "bad-request");
    let without = root(Ask::new("PUT", "/api/v1/config")).body("application/toml", &*wanted);
    assert_eq!(world.send(without).await.problem(), "precondition-required");
    let dry = put(&world, "?dry_run=true", &old, &wanted).await.json();
    assert_eq!((&dry["applied"], &dry["peers_added"]), (&json!(false), &json!(1)));
    assert!(dry["diff"].as_str().unwrap().contains("+name = \"p3\""));
    assert_eq!(*world.gateway.has.lock().unwrap(), text(&[2]));
    let done = put(&world, "", &old, &wanted).await;
    assert_eq!((&done.json()["version"], &done.json()["applied"]), (&json!(2), &json!(true)));
    assert_eq!(done.headers["etag"].to_str().unwrap(), tag(&world).await);
    assert_eq!(*world.gateway.has.lock().unwrap(), wanted);
    assert_eq!(put(&world, "", &old, &wanted).await.problem(), "stale-version");
    let versions = world.send(root(Ask::get("/api/v1/config/versions"))).await.json();
    assert_eq!(versions["items"][0]["actor"].as_str().unwrap().split(':').next(), Some("token"));
    let one = world.send(root(Ask::get("/api/v1/config/versions/1"))).await.json();
    assert_eq!(one["actor"], "gateway");
    for none in ["9", "x", "18446744073709551615"] {
        let ask = Ask::get(&format!("/api/v1/config/versions/{none}"));
        assert_eq!(world.send(root(ask)).await.problem(), "not-found");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_lines() {
    let world = World::new("res_config_wrong").await;
    let wrong = format!("{}[stats]\nsocket = 5\ncolour = 1\n", text(&[2]));
    let answer = put(&world, "", "*", &wrong).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "config-invalid"));
    let place = answer.json()["errors"][0]["pointer"].as_str().unwrap().to_owned();
    assert_eq!(place, format!("{}:1", wrong.lines().count()));
    let moved = text(&[2]).replace("51820", "51821");
    assert_eq!(put(&world, "", "*", &moved).await.problem(), "needs-restart");
    for query in ["?confirm_within=9", "?confirm_within=3601", "?confirm=10"] {
        assert_eq!(put(&world, query, "*", &moved).await.problem(), "bad-query", "{query}");
    }
    world.gateway.refuses.store(true, Ordering::SeqCst);
    assert_eq!(put(&world, "", "*", &text(&[2, 3])).await.problem(), "conflict");
    let form = root(Ask::new("PUT", "/api/v1/config")).header("if-match", "*");
    let json = form.clone().body("application/json", "{}");
    assert_eq!(world.send(json).await.problem(), "unsupported-media-type");
    let bytes = form.body("application/toml", vec![0xff, 0xfe]);
    assert_eq!(world.send(bytes).await.problem(), "config-invalid");
}

#[tokio::test]
async fn a_trial_is_confirmed_or_taken_back_by_the_api() {
    let world = World::new("res_trial").await;
    let trial = || root(Ask::get("/api/v1/config/trial"));
    let confirm = || root(Ask::post("/api/v1/config/confirm"));
    let back = |body| root(Ask::post("/api/v1/config/rollback").json(&body));
    assert_eq!(world.send(confirm()).await.problem(), "conflict");
    assert_eq!(world.send(back(json!({}))).await.problem(), "conflict");
    assert_eq!(world.send(back(json!({ "version": 7 }))).await.problem(), "not-found");
    let answer = put(&world, "?confirm_within=60", "*", &text(&[2, 3])).await.json();
    assert_eq!(answer["confirm_by"], json!(BEGIN.plus_ms(60_000)));
    let shown = world.send(trial()).await.json();
    assert_eq!(shown["on_trial"]["until"], json!(BEGIN.plus_ms(60_000)));
    assert_eq!(put(&world, "", "*", &text(&[2])).await.problem(), "conflict");
    assert_eq!(world.send(confirm()).await.json()["on_trial"], json!(null));
    put(&world, "?confirm_within=60", "*", &text(&[2])).await;
    let answer = world.send(back(json!({}))).await.json();
    assert_eq!(answer["peers_added"], 1);
    assert_eq!(*world.gateway.has.lock().unwrap(), text(&[2, 3]));
    let answer = world.send(back(json!({ "version": 1 }))).await.json();
    assert_eq!(answer["peers_removed"], 1);
}

/// The first bytes of a stream of events that holds so many of them.
async fn hear(world: &World, ask: Ask, events: usize) -> String {
    use futures_util::StreamExt as _;
    let mut stream = world.stream(ask).await;
    let mut text = String::new();
    while text.matches("\n\n").count() < events {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn events_are_heard_again_after_a_break_and_by_kind() {
    let world = World::new("res_events").await;
    for number in 1..=3 {
        let kind = if number == 2 { Kind::UserCreated } else { Kind::SessionStarted };
        world.state.hub().publish(BEGIN, kind, format!("s{number}"), json!({ "n": number }));
    }
    let ask = || root(Ask::get("/api/v1/events"));
    let text = hear(&world, ask().header("last-event-id", "1"), 2).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..2], ["id: 2", "event: user.created"]);
    let data = lines[2].strip_prefix("data: ").unwrap();
    let event: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&event["subject"], &event["detail"]["n"]), (&json!("s2"), &json!(2)));
    let ask = root(Ask::get("/api/v1/events?kind=session.started,session.ended"));
    let text = hear(&world, ask.header("last-event-id", "0"), 2).await;
    assert!(text.contains("id: 1\n") && text.contains("id: 3\n") && !text.contains("id: 2\n"));
}

#[tokio::test]
async fn whoever_loses_the_right_to_listen_hears_nothing_a_second_later() {
    use futures_util::StreamExt as _;
    type Take = fn(&World);
    let ways: [Take; 3] = [
        |world| world.accounts.tokens.lock().unwrap().clear(),
        |world| world.accounts.change("vera", |user, _| user.state = UserState::Disabled),
        |world| world.accounts.change("vera", |user, _| user.role = None),
    ];
    for (number, take) in ways.into_iter().enumerate() {
        let world = World::new(&format!("res_right{number}")).await;
        let mut stream = world.stream(Ask::get("/api/v1/events").token("token-vera")).await;
        let tell = |what: &str| {
            world.state.hub().publish(BEGIN, Kind::SessionStarted, what, json!({}));
        };
        tell("before");
        let heard = stream.next().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&heard).contains("before"));
        take(&world);
        let taken = Instant::now();
        loop {
            let told = taken.elapsed();
            tell("after");
            let Some(heard) = stream.next().await else { break };
            heard.unwrap();
            assert!(told < Duration::from_millis(1_100), "way {number}: heard {told:?} later");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_reader_that_was_away_too_long_is_told_what_it_missed() {
    let world = World::new("res_lagged").await;
    for _ in 0..crate::events::KEPT + 5 {
        world.state.hub().publish(BEGIN, Kind::Warning, "x", json!({}));
    }
    let ask = root(Ask::get("/api/v1/events")).header("last-event-id", "1");
    let text = hear(&world, ask, 2).await;
    assert!(text.starts_with("event: lagged\ndata: {\"missed\":4}\n\nid: 6\n"), "{text:.80}");
}

#[tokio::test]
async fn one_caller_does_not_take_the_places_of_all_readers() {
    let world = World::new("res_greedy").await;
    let ask = |name: &str| Ask::get("/api/v1/events").token(&format!("token-{name}"));
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(world.stream(ask("vera")).await);
    }
    assert_eq!(world.send(ask("vera")).await.problem(), "overloaded");
    let (cookie, _) = world.sign_in("vera").await;
    let by_cookie = Ask::get("/api/v1/events").header("cookie", &cookie);
    assert_eq!(world.send(by_cookie).await.problem(), "overloaded", "it is the same user");
    let _other = world.stream(ask("olga")).await;
    streams.pop();
    let _again = world.stream(ask("vera")).await;
}

#[tokio::test]
async fn there_is_an_end_to_the_number_of_readers_and_their_places_come_back() {
    let allowances = Allowances { listeners: 2, ..Allowances::default() };
    let world = World::with("res_readers", allowances, true).await;
    let ask = || root(Ask::get("/api/v1/events"));
    let (one, _two) = (world.stream(ask()).await, world.stream(ask()).await);
    assert_eq!(world.send(ask()).await.problem(), "overloaded");
    assert_eq!(world.state.hub().listeners(), 2);
    drop(one);
    let _three = world.stream(ask()).await;
    assert_eq!(world.state.hub().listeners(), 2);
}
