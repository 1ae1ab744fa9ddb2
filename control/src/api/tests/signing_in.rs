use std::fs;

use serde_json::json;

use crate::api::caller::Source;
use crate::api::fake::{Ask, World};
use crate::api::first_start;
use crate::api::gatekeeper::Door;
use crate::api::logins::{AGE_MS_MAX, IDLE_MS_MAX};
use crate::api::state::Allowances;
use crate::events::{Heard, Kind};
use crate::store::records::UserState;

const SESSION: &str = "/api/v1/session";

fn kill(cookie: &str) -> Ask {
    Ask::new("DELETE", "/api/v1/sessions/17").header("cookie", cookie)
}

#[tokio::test]
async fn the_cookie_cannot_be_read_by_scripts_nor_sent_by_other_pages() {
    let world = World::new("sign_cookie").await;
    let body = json!({ "name": "root", "password": "password of root" });
    let answer = world.send(Ask::post(SESSION).json(&body)).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-ringway="), "{cookie}");
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Secure", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    assert!(answer.headers.contains_key("strict-transport-security"));
    let local = Source::Ip("127.0.0.1".parse().unwrap());
    let plain = Ask::post(SESSION).json(&body).via(Door::Loopback, local).without("host");
    let answer = world.send(plain.header("host", "localhost:8080")).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("ringway=") && !cookie.contains("Secure"), "{cookie}");
    assert!(!answer.headers.contains_key("strict-transport-security"));
}

#[tokio::test]
async fn two_sign_ins_share_no_secret() {
    let world = World::new("sign_fresh").await;
    let (one, two) = (world.sign_in("root").await, world.sign_in("root").await);
    assert_ne!(one.0, two.0);
    assert_ne!(one.1, two.1);
    assert!(one.0.len() > 64 && one.1.len() == 64);
}

#[tokio::test]
async fn a_change_with_a_cookie_needs_the_token_of_the_same_login() {
    let world = World::new("sign_csrf").await;
    let (cookie, csrf) = world.sign_in("root").await;
    let (_, other) = world.sign_in("root").await;
    let get = Ask::get("/api/v1/status").header("cookie", &cookie);
    assert_eq!(world.send(get).await.status, 200, "reading needs none");
    for wrong in [None, Some(""), Some("x"), Some(&other[..]), Some(&csrf[1..])] {
        let mut ask = kill(&cookie);
        if let Some(wrong) = wrong {
            ask = ask.header("x-csrf-token", wrong);
        }
        assert_eq!(world.send(ask).await.problem(), "csrf-refused", "{wrong:?}");
    }
    assert_eq!(world.live.told().len(), 1, "only the status");
    assert_eq!(world.send(kill(&cookie).header("x-csrf-token", &csrf)).await.status, 204);
    // The page asks for it when it is loaded anew.
    let shown = world.send(Ask::get(SESSION).header("cookie", &cookie)).await.json();
    assert_eq!(shown["csrf_token"], csrf.as_str());
}

#[tokio::test]
async fn a_page_of_another_origin_can_change_nothing_with_any_credentials() {
    let world = World::new("sign_origin").await;
    let (cookie, csrf) = world.sign_in("root").await;
    let with_cookie = || kill(&cookie).header("x-csrf-token", &csrf);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "http://gw.example"),
        ("origin", "https://gw.example:8443"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        let by_token = Ask::new("DELETE", "/api/v1/sessions/17").token("token-root");
        let by_root =
            Ask::new("DELETE", "/api/v1/sessions/17").via(Door::Unix, Source::Unix { uid: 0 });
        let body = json!({ "name": "root", "password": "password of root" });
        let sign_in = Ask::post(SESSION).json(&body);
        for ask in [with_cookie(), by_token, by_root, sign_in] {
            let answer = world.send(ask.header(name, value)).await;
            assert_eq!(answer.problem(), "csrf-refused", "{name}: {value}");
        }
    }
    let own = with_cookie()
        .header("origin", "https://gw.example")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(world.send(own).await.status, 204);
}

#[tokio::test]
async fn a_login_ends_by_signing_out_by_time_and_with_the_rights_of_the_user() {
    let world = World::new("sign_end").await;
    let alive = async |cookie: &str| {
        world.send(Ask::get(SESSION).header("cookie", cookie)).await.status == 200
    };
    let (cookie, csrf) = world.sign_in("vera").await;
    assert!(alive(&cookie).await);
    let out = Ask::new("DELETE", SESSION).header("cookie", &cookie);
    assert_eq!(world.send(out.clone()).await.problem(), "csrf-refused");
    let out = world.send(out.header("x-csrf-token", &csrf)).await;
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert!(!alive(&cookie).await, "signed out");

    let (cookie, _) = world.sign_in("vera").await;
    world.pass(IDLE_MS_MAX);
    assert!(!alive(&cookie).await, "idle");

    let (cookie, _) = world.sign_in("vera").await;
    for _ in 0..AGE_MS_MAX / (IDLE_MS_MAX / 2) - 1 {
        world.pass(IDLE_MS_MAX / 2);
        assert!(alive(&cookie).await);
    }
    world.pass(IDLE_MS_MAX / 2);
    assert!(!alive(&cookie).await, "old");

    let (one, two) = (world.sign_in("vera").await.0, world.sign_in("vera").await.0);
    let other = world.sign_in("olga").await.0;
    world.accounts.change("vera", |_, password| password.push('!'));
    assert!(!alive(&one).await && !alive(&two).await, "the password changed");
    assert!(alive(&other).await);
    world.accounts.change("olga", |user, _| user.state = UserState::Banned);
    assert!(!alive(&other).await, "banned");
    world.accounts.change("olga", |user, _| user.state = UserState::Active);
    assert!(!alive(&other).await, "and it does not come back");
}

#[tokio::test]
async fn every_refusal_at_sign_in_looks_the_same() {
    let world = World::new("sign_same").await;
    world.accounts.change("vera", |user, _| user.state = UserState::Disabled);
    let mut bodies = Vec::new();
    for body in [
        json!({ "name": "root", "password": "wrong" }),
        json!({ "name": "no such user", "password": "wrong" }),
        json!({ "name": "root" }),
        json!({ "name": "vera", "password": "password of vera" }),
    ] {
        let answer = world.send(Ask::post(SESSION).json(&body)).await;
        assert_eq!(answer.problem(), "sign-in-refused", "{body}");
        assert!(!answer.headers.contains_key("set-cookie"));
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn the_event_of_a_refusal_has_names_of_users_and_nothing_else_that_was_typed() {
    let world = World::new("sign_typed").await;
    let mut events = world.state.hub().listen();
    for (name, subject) in [("vera", "vera"), ("password of vera", "?"), ("", "?")] {
        let body = json!({ "name": name, "password": "wrong" });
        assert_eq!(world.send(Ask::post(SESSION).json(&body)).await.status, 401);
        let Some(Heard::Event(event)) = events.try_next() else { panic!("nothing was told") };
        assert_eq!((event.kind, &*event.subject), (Kind::SignInRefused, subject));
    }
}

#[tokio::test]
async fn what_the_authentication_says_reaches_the_client() {
    let world = World::new("sign_outcomes").await;
    let ask = |name: &str| Ask::post(SESSION).json(&json!({ "name": name, "password": "x" }));
    let answer = world.send(ask("challenged")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["continuation"]), (202, &json!("c1")));
    let answer = world.send(ask("flooder")).await;
    assert_eq!(
        (answer.problem().as_str(), answer.headers["retry-after"].to_str().unwrap()),
        ("too-many-requests", "9")
    );
    let answer = world.send(ask("nobody-home")).await;
    assert_eq!(answer.status, 503);
    let long = "x".repeat(1025);
    let answer =
        world.send(Ask::post(SESSION).json(&json!({ "name": "a", "password": long }))).await;
    assert_eq!(
        (answer.problem().as_str(), &answer.json()["errors"][0]["pointer"]),
        ("invalid", &json!("/password"))
    );
}

#[tokio::test]
async fn a_planted_second_cookie_counts_for_nothing() {
    let world = World::new("sign_planted").await;
    let (cookie, _) = world.sign_in("root").await;
    let planted = format!("__Host-ringway={}; {cookie}", "a".repeat(64));
    let answer = world.send(Ask::get(SESSION).header("cookie", &planted)).await;
    assert_eq!(answer.status, 401);
    let beside = format!("theme=dark; {cookie}; x=y");
    assert_eq!(world.send(Ask::get(SESSION).header("cookie", &beside)).await.status, 200);
}

#[tokio::test]
async fn the_first_administrator_is_made_once_with_the_secret() {
    let world = World::with("setup", Allowances::default(), false).await;
    let file = world.folder.path().join(first_start::FILE_NAME);
    let secret = fs::read_to_string(&file).unwrap().trim().to_owned();
    let setup = |secret: &str, name: &str, password: &str| {
        let body = json!({ "secret": secret, "name": name, "password": password });
        Ask::post("/api/v1/setup").json(&body)
    };
    let mut events = world.state.hub().listen();
    let wrong = world.send(setup("guess", "boss", "long enough")).await;
    assert_eq!(wrong.problem(), "setup-secret-wrong");
    let weak = world.send(setup(&secret, "boss", "short")).await;
    assert_eq!(weak.json()["errors"][0]["pointer"], "/password");
    let name = world.send(setup(&secret, "Böss", "long enough")).await;
    assert_eq!(name.json()["errors"][0]["pointer"], "/name");
    assert!(file.exists(), "it is still worth something");
    let made = world.send(setup(&secret, "boss", "long enough")).await;
    assert_eq!(made.status, 201);
    assert!(!file.exists());
    let again = world.send(setup(&secret, "boss2", "long enough")).await;
    assert_eq!(again.problem(), "gone");
    // As every other event of records: by number, with the name beside it.
    let Some(Heard::Event(event)) = events.try_next() else { panic!("nothing was told") };
    assert_eq!((event.kind, event.detail["name"].as_str()), (Kind::UserCreated, Some("boss")));
    assert_eq!(event.subject, made.json()["user"].as_str().unwrap());
    let body = json!({ "name": "boss", "password": "long enough" });
    assert_eq!(world.send(Ask::post(SESSION).json(&body)).await.json()["role"], "administrator");
}

#[tokio::test]
async fn guessing_the_secret_of_the_first_start_is_limited() {
    let world = World::with("setup_limit", Allowances::default(), false).await;
    let body = json!({ "secret": "guess", "name": "boss", "password": "long enough" });
    let mut said = Vec::new();
    for from in 0..30 {
        let ask = Ask::post("/api/v1/setup").json(&body).from(&format!("192.0.2.{from}"));
        said.push(world.send(ask).await.status.as_u16());
    }
    assert_eq!(said.iter().filter(|status| **status == 401).count(), 10);
    assert_eq!(said.iter().filter(|status| **status == 429).count(), 20);
}

#[tokio::test]
async fn a_password_that_was_changed_meanwhile_opens_no_session() {
    let world = World::new("sign_stale").await;
    let (name, password) = ("root", "password of root");
    let body = json!({ "name": name, "password": password });
    assert_eq!(world.send(Ask::post(SESSION).json(&body)).await.status, 200);
    let body = json!({ "name": name, "password": password, "totp": "stale" });
    let answer = world.send(Ask::post(SESSION).json(&body)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "sign-in-refused"));
    assert!(!answer.headers.contains_key("set-cookie"));
}
