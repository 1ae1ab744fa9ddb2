//! What users do about themselves.

use super::*;

#[tokio::test]
async fn somebody_without_a_role_sees_and_changes_only_himself() {
    let office = Office::new("me").await;
    let me = office.ask("nora", "GET", "/api/v1/me").await;
    assert_eq!(me.json()["user"]["name"], "nora", "{me:?}");
    let made = office.tell("nora", "POST", "/api/v1/me/devices", json!({"name": "phone"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let wish = json!({"name": "b", "address4": "10.77.0.9"});
    refused(&office.tell("nora", "POST", "/api/v1/me/devices", wish).await, 403, "forbidden", &[]);
    let listed = office.ask("nora", "GET", "/api/v1/me/devices").await.json();
    assert_eq!(listed[0]["device"]["name"], "phone");
    let usage = office.ask("nora", "GET", "/api/v1/me/usage").await;
    assert_eq!(usage.json(), json!([]));
    let rotated = office.tell("nora", "POST", "/api/v1/me/devices/phone/key", json!({})).await;
    assert_eq!(rotated.status, StatusCode::OK, "{rotated:?}");
    let invited =
        office.tell("nora", "POST", "/api/v1/me/enrolments", json!({"device_name": "tv"})).await;
    assert_eq!(invited.status, StatusCode::CREATED);
    let gone = office.ask("nora", "DELETE", "/api/v1/me/devices/phone").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    for path in ["/api/v1/users", "/api/v1/users/nora", "/api/v1/devices", "/api/v1/tokens"] {
        refused(&office.ask("nora", "GET", path).await, 403, "forbidden", &[]);
    }
    refused(&office.on_the_host("GET", "/api/v1/me", json!({})).await, 403, "forbidden", &[]);
}

#[tokio::test]
async fn what_a_stolen_token_could_use_to_become_more_asks_for_a_session() {
    let office = Office::new("me_token").await;
    let token = json!({"name": "t", "scopes": ["*"]});
    for (method, path, body) in [
        ("PUT", "/api/v1/me/password", json!({"new": "a new long password"})),
        ("POST", "/api/v1/me/totp", json!({})),
        ("PUT", "/api/v1/me/totp", json!({"secret": "x", "code": "1"})),
        ("POST", "/api/v1/me/tokens", token.clone()),
        ("POST", "/api/v1/access", json!({})),
    ] {
        refused(&office.tell("nora", method, path, body).await, 403, "forbidden", &[]);
    }
    let made = office.signed_in("nora", "POST", "/api/v1/me/tokens", token).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let id = made.json()["token"]["id"].as_str().unwrap().to_owned();
    let listed = office.ask("nora", "GET", "/api/v1/me/tokens").await;
    assert!(listed.text().contains(&id));
    let foreign = office.ask("vera", "DELETE", &format!("/api/v1/me/tokens/{id}")).await;
    refused(&foreign, 403, "forbidden", &[]);
    let gone = office.ask("nora", "DELETE", &format!("/api/v1/me/tokens/{id}")).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_password_and_a_second_factor_are_changed_by_their_owner() {
    let office = Office::new("me_password").await;
    let path = "/api/v1/me/password";
    let new = "an entirely new one";
    let missing = office.signed_in("nora", "PUT", path, json!({"new": new})).await;
    refused(&missing, 422, "invalid", &["/old"]);
    let weak = json!({"old": password_of("nora"), "new": "short"});
    refused(&office.signed_in("nora", "PUT", path, weak).await, 422, "invalid", &["/new"]);
    let offer = office.signed_in("nora", "POST", "/api/v1/me/totp", json!({})).await;
    let secret = offer.json()["secret"].as_str().unwrap().to_owned();
    assert!(offer.json()["qr_svg"].as_str().unwrap().starts_with("<svg "), "{offer:?}");
    let wrong = json!({"secret": secret, "code": "000000"});
    refused(
        &office.signed_in("nora", "PUT", "/api/v1/me/totp", wrong).await,
        422,
        "invalid",
        &["/code"],
    );
    let right = json!({"secret": secret, "code": "123456"});
    let set = office.signed_in("nora", "PUT", "/api/v1/me/totp", right).await;
    assert_eq!(set.json()["recovery_codes"].as_array().unwrap().len(), 1, "{set:?}");
    let me = office.ask("vera", "GET", "/api/v1/users/nora").await.json();
    assert_eq!(me["user"]["totp_kind"], "time", "{me}");
    let gone = office.ask("olga", "DELETE", "/api/v1/users/nora/totp").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    second_factor_by_counter(&office).await;
    let body = json!({"old": password_of("nora"), "new": new});
    let changed = office.signed_in("nora", "PUT", path, body).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT, "{changed:?}");
    let old = json!({"name": "nora", "password": password_of("nora")});
    let old = office.world.send(Ask::post("/api/v1/session").json(&old)).await;
    refused(&old, 401, "sign-in-refused", &[]);
}

/// The same verbs for one that goes by a counter.
async fn second_factor_by_counter(office: &Office) {
    let at = "/api/v1/me/totp";
    let offer = office.signed_in("nora", "POST", &format!("{at}?kind=counter"), json!({})).await;
    let offer = offer.json();
    assert!(offer["url"].as_str().unwrap().starts_with("otpauth://hotp/"), "{offer}");
    let unknown = office.signed_in("nora", "POST", &format!("{at}?kind=moon"), json!({})).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST, "{unknown:?}");
    let secret = offer["secret"].clone();
    let mut proof = json!({"secret": secret, "code": "000000", "kind": "counter"});
    refused(&office.signed_in("nora", "PUT", at, proof.clone()).await, 422, "invalid", &["/code"]);
    proof["code"] = json!("123456");
    proof["counter"] = json!(u64::MAX);
    let late = office.signed_in("nora", "PUT", at, proof.clone()).await;
    refused(&late, 422, "invalid", &["/counter"]);
    proof["counter"] = json!(7);
    let by_time = json!({"secret": secret, "code": "123456", "counter": 7});
    let by_time = office.signed_in("nora", "PUT", at, by_time).await;
    refused(&by_time, 422, "invalid", &["/counter"]);
    let set = office.signed_in("nora", "PUT", at, proof).await;
    assert_eq!(set.json()["recovery_codes"].as_array().unwrap().len(), 1, "{set:?}");
    let me = office.ask("vera", "GET", "/api/v1/users/nora").await.json();
    assert_eq!(me["user"]["totp_kind"], "counter", "{me}");
    let gone = office.ask("olga", "DELETE", "/api/v1/users/nora/totp").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
    let document = office.world.send(Ask::get("/api/v1/openapi.json")).await.json();
    let kind = &document["components"]["schemas"]["OtpKind"]["enum"];
    assert_eq!(*kind, json!(["time", "counter"]));
}

#[tokio::test]
async fn signing_in_lets_the_devices_of_a_person_in() {
    let office = Office::new("me_access").await;
    office.tell("nora", "POST", "/api/v1/me/devices", json!({"name": "phone"})).await;
    let session = office.signed_in("nora", "POST", "/api/v1/access", json!({})).await;
    assert_eq!(session.json()["devices"][0]["name"], "phone", "{session:?}");
    let until = session.json()["until"].clone();
    office.desk.pass_ms(60_000);
    let path = "/api/v1/access/sign-in";
    let credentials =
        |password: &str| json!({"name": "nora", "password": password, "device": "phone"});
    let given = credentials(&password_of("nora"));
    let renewed = office.world.send(Ask::post(path).json(&given)).await;
    assert_eq!(renewed.status, StatusCode::OK, "{renewed:?}");
    assert!(renewed.json()["until"].as_str() > until.as_str());
    let mut events = office.world.state.hub().listen();
    let wrong = office.world.send(Ask::post(path).json(&credentials("wrong"))).await;
    refused(&wrong, 401, "sign-in-refused", &[]);
    assert!(matches!(events.try_next(), Some(crate::events::Heard::Event(event))
        if event.kind == crate::events::Kind::SignInRefused && event.detail["by"] == "access"));
    let long = office.world.send(Ask::post(path).json(&credentials(&"x".repeat(1025)))).await;
    refused(&long, 422, "invalid", &["/password"]);
    let ended = office.ask("nora", "DELETE", "/api/v1/access").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    let device = office.ask("vera", "GET", "/api/v1/users/nora/devices/phone").await.json();
    assert_eq!(device["device"]["access_until"], Value::Null);
    let granted = office.tell("olga", "POST", "/api/v1/users/nora/access", json!({})).await;
    assert_eq!(granted.status, StatusCode::OK, "{granted:?}");
    let ended = office.ask("olga", "DELETE", "/api/v1/users/nora/access").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
}
