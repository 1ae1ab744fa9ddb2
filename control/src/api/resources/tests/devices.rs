//! Devices and tokens.

use super::*;
use crate::directory::tests::key;

#[tokio::test]
async fn a_device_is_added_shown_changed_rotated_and_removed() {
    let office = Office::new("devices").await;
    let all = "/api/v1/users/nora/devices";
    let one = "/api/v1/users/nora/devices/laptop";
    let made = office.tell("olga", "POST", all, json!({"name": "laptop"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let body = made.json();
    assert_eq!(
        (&body["has_private_key"], &body["lease"]["address4"]),
        (&json!(true), &json!("10.77.0.2"))
    );
    assert!(body["client_file"].as_str().unwrap().contains("\nPrivateKey = "));
    assert!(body["qr_svg"].as_str().unwrap().starts_with("<svg "));
    let shown = office.ask("vera", "GET", one).await;
    assert!(
        !shown.text().contains("rivateKey") && !shown.text().contains("reshared"),
        "{}",
        shown.text()
    );
    refused(&office.ask("vera", "GET", &format!("{one}/file")).await, 409, "conflict", &[]);
    let own = json!({"public_key": key(1)});
    let rotated = office.tell("olga", "POST", &format!("{one}/key"), own.clone()).await;
    assert_eq!(rotated.json()["lease"]["address4"], "10.77.0.2", "{rotated:?}");
    assert!(rotated.json()["qr_svg"].is_null(), "an image without the key is of no use");
    let file = office.ask("vera", "GET", &format!("{one}/file")).await;
    assert!(file.text().starts_with("# laptop\n[Interface]\n"), "{}", file.text());
    let drawn = office.ask("vera", "GET", &format!("{one}/file?format=svg")).await;
    assert_eq!(drawn.headers[header::CONTENT_TYPE], "image/svg+xml");
    refused(
        &office.ask("vera", "GET", &format!("{one}/file?format=png")).await,
        400,
        "bad-query",
        &[],
    );
    refused(
        &office.tell("olga", "POST", all, json!({"name": "b", "public_key": key(1)})).await,
        409,
        "name-taken",
        &["/public_key"],
    );
    refused(
        &office.tell("olga", "POST", all, json!({"name": "b", "public_key": "x"})).await,
        422,
        "invalid",
        &["/public_key"],
    );
    refused(&office.tell("vera", "POST", all, json!({"name": "b"})).await, 403, "forbidden", &[]);
    let off = office.tell("olga", "PATCH", one, json!({"enabled": false})).await;
    assert_eq!(off.json()["enabled"], false, "{off:?}");
    let listed = office.ask("vera", "GET", "/api/v1/devices?enabled=false&user=nora").await.json();
    assert_eq!(listed["items"][0]["device"]["name"], "laptop");
    assert_eq!(listed["items"][0]["origin"], "directory");
    let ask = Ask::new("DELETE", one).token(office.token("olga")).header("if-match", "\"1\"");
    refused(&office.world.send(ask).await, 412, "stale-version", &[]);
    assert_eq!(office.ask("olga", "DELETE", one).await.status, StatusCode::NO_CONTENT);
    refused(&office.ask("vera", "GET", one).await, 404, "not-found", &[]);
}

#[tokio::test]
async fn a_token_is_shown_once_works_within_its_scopes_and_ends_when_it_is_revoked() {
    let office = Office::new("tokens").await;
    let form = json!({"name": "monitoring", "scopes": ["users:read", "tokens:write"]});
    let path = "/api/v1/users/chief/tokens";
    refused(&office.tell("olga", "POST", path, form.clone()).await, 403, "forbidden", &[]);
    let made = office.tell("chief", "POST", path, form).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let listed = office.ask("vera", "GET", "/api/v1/tokens?user=chief").await;
    assert!(listed.text().contains("monitoring") && !listed.text().contains(&secret));
    let with = |method: &str, path: &str| Ask::new(method, path).token(&secret);
    assert_eq!(office.world.send(with("GET", "/api/v1/users")).await.status, StatusCode::OK);
    refused(&office.world.send(with("GET", "/api/v1/groups")).await, 403, "scope-missing", &[]);
    // It must not make itself a better one.
    let more = json!({"name": "more", "scopes": ["*"]});
    refused(&office.world.send(with("POST", path).json(&more)).await, 403, "scope-missing", &[]);
    let wrong = json!({"name": "x", "scopes": ["users:eat"]});
    refused(&office.tell("chief", "POST", path, wrong).await, 422, "invalid", &["/scopes/0"]);
    let id = made.json()["token"]["id"].as_str().unwrap().to_owned();
    let gone = office.ask("chief", "DELETE", &format!("/api/v1/tokens/{id}")).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    refused(&office.world.send(with("GET", "/api/v1/users")).await, 401, "unauthenticated", &[]);
    refused(&office.ask("chief", "DELETE", "/api/v1/tokens/x").await, 404, "not-found", &[]);
}

#[tokio::test]
async fn a_device_beyond_the_limit_is_refused_as_one_too_many_with_both_numbers() {
    let office = Office::new("device_limit").await;
    let limit = json!({"devices_max": 2});
    let narrowed = office.tell("olga", "PATCH", "/api/v1/policies/default", limit).await;
    assert_eq!(narrowed.status, StatusCode::OK, "{narrowed:?}");
    let all = "/api/v1/users/nora/devices";
    for name in ["one", "two"] {
        let made = office.tell("olga", "POST", all, json!({ "name": name })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    for (who, path) in [("olga", all), ("nora", "/api/v1/me/devices")] {
        let third = office.tell(who, "POST", path, json!({"name": "three"})).await;
        refused(&third, 409, "limit-reached", &[]);
        let detail = third.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("has 2 devices and may have 2"), "{detail}");
    }
}
