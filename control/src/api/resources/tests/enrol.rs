//! One-time links, and the page behind them.

use super::*;
use crate::directory::tests::key;
use sha2::{Digest as _, Sha256};

#[tokio::test]
async fn a_link_is_made_and_redeemed_once_by_somebody_without_credentials() {
    let office = Office::new("enrol").await;
    let form = json!({"device_name": "phone"});
    let path = "/api/v1/users/nora/enrolments";
    refused(&office.tell("vera", "POST", path, form.clone()).await, 403, "forbidden", &[]);
    let made = office.tell("olga", "POST", path, form).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let link = made.json()["link"].as_str().unwrap().to_owned();
    assert_eq!(link, format!("https://vpn.example.org/enrol#{secret}"));
    let listed = office.ask("vera", "GET", "/api/v1/enrolments?user=nora").await;
    assert!(listed.text().contains("phone") && !listed.text().contains(&secret));
    let redeem = |key: String| {
        let body = json!({"secret": secret, "public_key": key});
        office.world.send(Ask::post("/api/v1/enrol").json(&body))
    };
    refused(&redeem("x".to_owned()).await, 422, "invalid", &["/public_key"]);
    let device = redeem(key(1)).await;
    assert_eq!(device.status, StatusCode::CREATED, "{device:?}");
    assert_eq!(device.json()["device"]["device"]["name"], "phone");
    assert!(device.json()["client_file"].as_str().unwrap().contains("\n# PrivateKey = "));
    refused(&redeem(key(2)).await, 410, "gone", &[]);
    let other = office.tell("olga", "POST", path, json!({"device_name": "b"})).await.json();
    let id = other["enrolment"]["id"].as_str().unwrap().to_owned();
    let back = office.ask("olga", "DELETE", &format!("/api/v1/enrolments/{id}")).await;
    assert_eq!(back.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_page_loads_nothing_and_runs_exactly_its_own_script() {
    use base64::Engine as _;
    let office = Office::new("enrol_page").await;
    let page = office.world.send(Ask::get("/enrol")).await;
    assert_eq!(page.status, StatusCode::OK);
    let (text, policy) = (page.text(), page.headers["content-security-policy"].to_str().unwrap());
    for (open, close, directive) in
        [("<script>", "</script>", "script-src"), ("<style>", "</style>", "style-src")]
    {
        assert_eq!(text.matches(open).count(), 1);
        let inner = text.split_once(open).unwrap().1.split_once(close).unwrap().0;
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inner));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}'")), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for outside in ["src=", "http://", "https://", "@import", "url(", "onclick=", "style="] {
        assert!(!text.contains(outside), "{outside} in the page");
    }
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
}

#[tokio::test]
async fn guessing_links_costs_as_much_as_guessing_tokens() {
    let few = crate::api::rate::Allowance { per_second: 1, burst: 100 };
    let office = Office::with("enrol_guess", Allowances { per_source: few, ..generous() }).await;
    let mut said = Vec::new();
    for number in 0..6 {
        let body = json!({"secret": format!("re_{number}"), "public_key": key(number)});
        let ask = Ask::post("/api/v1/enrol").json(&body).from("192.0.2.1");
        said.push(office.world.send(ask).await.status.as_u16());
    }
    assert_eq!(said, [410, 410, 410, 410, 429, 429]);
    let body = json!({"secret": "re_1", "public_key": key(1)});
    let other = office.world.send(Ask::post("/api/v1/enrol").json(&body).from("192.0.2.2")).await;
    assert_eq!(other.status.as_u16(), 410);
}

#[tokio::test]
async fn what_users_change_about_themselves_is_slower_than_what_they_look_at() {
    let few = crate::api::rate::Allowance { per_second: 1, burst: 3 };
    let office = Office::with("me_slow", Allowances { self_service: few, ..generous() }).await;
    let mut said = Vec::new();
    for number in 0..5 {
        let form = json!({"device_name": format!("d{number}")});
        let answer = office.tell("nora", "POST", "/api/v1/me/enrolments", form).await;
        said.push(answer.status.as_u16());
    }
    assert_eq!(said, [201, 201, 201, 429, 429]);
    assert_eq!(office.ask("nora", "GET", "/api/v1/me/devices").await.status, StatusCode::OK);
    let form = json!({"device_name": "d"});
    let other = office.tell("olga", "POST", "/api/v1/me/enrolments", form).await;
    assert_eq!(other.status, StatusCode::CREATED, "{other:?}");
}
