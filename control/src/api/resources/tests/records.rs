//! Users, groups, policies, pools, quotas, the audit log, bans and backups.

use super::*;

#[tokio::test]
async fn a_user_is_made_shown_changed_listed_and_removed() {
    let office = Office::new("users").await;
    let form = json!({"name": "Ada", "rate": {"up_bps": 1_000_000}, "password": "correct horse"});
    let made = office.tell("olga", "POST", "/api/v1/users", form).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.headers[header::ETAG], "\"1\"");
    assert_eq!(made.json()["name"], "ada");
    assert!(!made.text().contains("horse"), "{}", made.text());
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for word in ["ada", "ADA", &id] {
        let shown = office.ask("vera", "GET", &format!("/api/v1/users/{word}")).await;
        assert_eq!(shown.json()["user"]["id"], id.as_str(), "{word}");
        assert_eq!(shown.json()["effective"]["origins"]["user_rate"], "user");
    }
    let path = "/api/v1/users/ada";
    let patch = |version: &str| {
        Ask::new("PATCH", path)
            .token(office.token("olga"))
            .header("if-match", version)
            .body("application/merge-patch+json", r#"{"display_name": "Ada L.", "rate": null}"#)
    };
    let changed = office.world.send(patch("\"1\"")).await;
    assert_eq!(
        (changed.status, &changed.headers[header::ETAG]),
        (StatusCode::OK, &"\"2\"".parse().unwrap())
    );
    assert_eq!(changed.json()["rate"], Value::Null);
    refused(&office.world.send(patch("\"1\"")).await, 412, "stale-version", &[]);
    refused(&office.world.send(patch("one")).await, 400, "bad-request", &[]);
    let listed = office.ask("vera", "GET", "/api/v1/users?name=ad&limit=1").await;
    assert_eq!(listed.json()["items"][0]["name"], "ada");
    refused(
        &office.ask("vera", "GET", "/api/v1/users?limit=0").await,
        400,
        "bad-query",
        &["?limit"],
    );
    refused(
        &office.ask("vera", "GET", "/api/v1/users?colour=1").await,
        400,
        "bad-query",
        &["?colour"],
    );
    let gone = office.ask("olga", "DELETE", path).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    refused(&office.ask("vera", "GET", path).await, 404, "not-found", &[]);
}

#[tokio::test]
async fn what_is_wrong_with_a_user_is_named_by_pointer() {
    let office = Office::new("users_wrong").await;
    let tell = |body| office.tell("olga", "POST", "/api/v1/users", body);
    let wrong = json!({"name": "a b", "rate": {"up_bps": 1}, "expires_at": "2001-01-01T00:00:00Z"});
    refused(&tell(wrong).await, 422, "invalid", &["/name", "/rate/up_bps", "/expires_at"]);
    refused(&tell(json!({"name": "nora"})).await, 409, "name-taken", &["/name"]);
    refused(&tell(json!({"name": "x", "group": "none"})).await, 422, "invalid", &["/group"]);
    refused(&tell(json!({"name": "x", "role": "viewer"})).await, 403, "forbidden", &[]);
    refused(&tell(json!({"name": "x", "nick": 1})).await, 422, "invalid", &["/nick"]);
    refused(&tell(json!({"name": 1})).await, 422, "invalid", &["/name"]);
    let last =
        office.tell("chief", "PUT", "/api/v1/users/chief/state", json!({"state": "banned"})).await;
    refused(&last, 409, "conflict", &[]);
    let above = office.tell(
        "olga",
        "PUT",
        "/api/v1/users/chief/password",
        json!({"new": "a new password"}),
    );
    refused(&above.await, 403, "forbidden", &[]);
}

#[tokio::test]
async fn groups_policies_and_pools_are_made_shown_changed_and_removed() {
    let office = Office::new("crud").await;
    for (plural, body, patch, who) in [
        ("policies", json!({"name": "p1", "devices_max": 2}), json!({"devices_max": 3}), "olga"),
        ("groups", json!({"name": "g1", "policy": "p1"}), json!({"policy": null}), "olga"),
        ("pools", json!({"name": "o1", "net4": "10.77.9.0/24"}), json!({"random": true}), "chief"),
    ] {
        let all = format!("/api/v1/{plural}");
        let made = office.tell(who, "POST", &all, body.clone()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let again = office.tell(who, "POST", &all, body.clone()).await;
        if plural == "pools" {
            // That it overlaps itself is found before its name is looked at.
            refused(&again, 422, "invalid", &["/net4"]);
        } else {
            refused(&again, 409, "name-taken", &["/name"]);
        }
        let one = format!("{all}/{}", body["name"].as_str().unwrap());
        let shown = office.ask("vera", "GET", &one).await;
        assert_eq!(
            (shown.status, &shown.headers[header::ETAG]),
            (StatusCode::OK, &"\"1\"".parse().unwrap())
        );
        let ask = Ask::new("PATCH", &one).token(office.token(who)).header("if-match", "\"9\"");
        refused(&office.world.send(ask.json(&patch)).await, 412, "stale-version", &[]);
        let changed = office.tell(who, "PATCH", &one, patch).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        let listed = office.ask("vera", "GET", &format!("{all}?limit=1000")).await.json();
        assert!(!listed["items"].as_array().unwrap().is_empty(), "{listed}");
        let viewer = office.ask("vera", "DELETE", &one).await;
        refused(&viewer, 403, "forbidden", &[]);
    }
    for one in ["pools/o1", "groups/g1", "policies/p1"] {
        let gone = office.ask("chief", "DELETE", &format!("/api/v1/{one}")).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT, "{gone:?}");
        refused(
            &office.ask("chief", "DELETE", &format!("/api/v1/{one}")).await,
            404,
            "not-found",
            &[],
        );
    }
    refused(&office.ask("chief", "DELETE", "/api/v1/policies/default").await, 409, "conflict", &[]);
    let overlap = json!({"name": "o2", "net4": "10.77.0.0/25"});
    refused(
        &office.tell("chief", "POST", "/api/v1/pools", overlap).await,
        422,
        "invalid",
        &["/net4"],
    );
    refused(
        &office.tell("olga", "POST", "/api/v1/pools", json!({"name": "o2"})).await,
        403,
        "forbidden",
        &[],
    );
}

#[tokio::test]
async fn quotas_are_set_listed_reset_and_taken_away() {
    let office = Office::new("quotas").await;
    let path = "/api/v1/users/nora/quota";
    let quota = json!({"bytes": 1_048_576, "period": "month", "action": "disconnect"});
    let set = office.tell("olga", "PUT", path, quota).await;
    assert_eq!(set.json()["quota"]["bytes"], 1_048_576, "{set:?}");
    let listed = office.ask("vera", "GET", "/api/v1/quotas").await.json();
    let rows = listed["items"].as_array().unwrap();
    let nora = rows.iter().find(|row| row["name"] == "nora").unwrap();
    assert_eq!(nora["standing"]["left_bytes"], 1_048_576);
    let reset = office.ask("olga", "POST", &format!("{path}/reset")).await;
    assert_eq!(reset.json()["used_bytes"], 0, "{reset:?}");
    let wrong = json!({"bytes": 1, "period": "day", "action": "throttle"});
    refused(
        &office.tell("olga", "PUT", path, wrong).await,
        422,
        "invalid",
        &["/bytes", "/throttle_bps"],
    );
    let gone = office.ask("olga", "DELETE", path).await;
    assert_eq!(gone.json()["quota"], Value::Null);
    refused(&office.ask("olga", "POST", &format!("{path}/reset")).await, 409, "conflict", &[]);
    refused(
        &office.ask("olga", "POST", "/api/v1/users/chief/quota/reset").await,
        403,
        "forbidden",
        &[],
    );
}

#[tokio::test]
async fn the_audit_log_is_filtered_and_verified() {
    let office = Office::new("audit").await;
    let state =
        office.tell("olga", "PUT", "/api/v1/users/nora/state", json!({"state": "banned"})).await;
    assert_eq!(state.status, StatusCode::OK, "{state:?}");
    let actor = office
        .ask("vera", "GET", "/api/v1/audit?action=user.changed&newest_first=true")
        .await
        .json();
    assert_eq!(actor["items"][0]["detail"]["state"], json!(["active", "banned"]), "{actor}");
    assert!(actor["items"][0]["actor"].as_str().unwrap().starts_with("token:"), "{actor}");
    let verified = office.ask("vera", "GET", "/api/v1/audit/verify").await.json();
    assert_eq!(verified["intact"], true);
    // Whoever is banned is nobody any more, and without a role the log is not shown.
    refused(&office.ask("nora", "GET", "/api/v1/audit").await, 401, "unauthenticated", &[]);
    office.tell("olga", "PUT", "/api/v1/users/nora/state", json!({"state": "active"})).await;
    refused(&office.ask("nora", "GET", "/api/v1/audit").await, 403, "forbidden", &[]);
}

#[tokio::test]
async fn bans_are_listed_and_lifted() {
    let office = Office::new("bans").await;
    let ban = crate::store::records::Ban {
        subject: "192.0.2.0/24".to_owned(),
        until: office.desk.directory.now().plus_ms(60_000),
        score: 9,
        reason: "password-wrong".to_owned(),
    };
    let first = ban.clone();
    office.desk.directory.store().write(move |db| db.put_ban(&first)).await.unwrap();
    let listed = office.ask("vera", "GET", "/api/v1/bans").await.json();
    assert_eq!(listed[0]["subject"], "192.0.2.0/24");
    let path = "/api/v1/bans/192.0.2.0%2F24";
    refused(&office.ask("vera", "DELETE", path).await, 403, "forbidden", &[]);
    assert_eq!(office.ask("olga", "DELETE", path).await.status, StatusCode::NO_CONTENT);
    refused(&office.ask("olga", "DELETE", path).await, 404, "not-found", &[]);
    // An address alone stands for its prefix.
    let ban = crate::store::records::Ban { subject: "2001:db8::/64".to_owned(), ..ban };
    office.desk.directory.store().write(move |db| db.put_ban(&ban)).await.unwrap();
    let path = "/api/v1/bans/2001:DB8::7";
    assert_eq!(office.ask("olga", "DELETE", path).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_backup_is_made_on_the_gateways_own_host_only() {
    let office = Office::new("backup").await;
    let file = office.world.folder.path().join("copy.db");
    let body = json!({"path": file});
    refused(
        &office.tell("chief", "POST", "/api/v1/backup", body.clone()).await,
        403,
        "forbidden",
        &[],
    );
    let made = office.on_the_host("POST", "/api/v1/backup", body.clone()).await;
    assert_eq!(made.status, StatusCode::NO_CONTENT, "{made:?}");
    assert!(file.metadata().unwrap().len() > 0);
    let again = office.on_the_host("POST", "/api/v1/backup", body).await;
    assert!(again.status.is_client_error(), "{again:?}");
    let relative = office.on_the_host("POST", "/api/v1/backup", json!({"path": "copy.db"})).await;
    refused(&relative, 422, "invalid", &["/path"]);
    // A place that cannot be written to is said to be one, and is no trouble of the store.
    for path in ["/proc/copy.db", "/nowhere/copy.db"] {
        let refusal = office.on_the_host("POST", "/api/v1/backup", json!({ "path": path })).await;
        refused(&refusal, 422, "invalid", &["/path"]);
    }
}

#[tokio::test]
async fn what_is_kept_of_a_user_is_exported_and_erased() {
    let office = Office::new("privacy").await;
    let export = office.ask("olga", "GET", "/api/v1/users/nora/export").await;
    assert!(
        export.text().contains("nora") && !export.text().contains("plain:"),
        "{}",
        export.text()
    );
    refused(&office.ask("vera", "GET", "/api/v1/users/nora/export").await, 403, "forbidden", &[]);
    refused(&office.ask("olga", "POST", "/api/v1/users/nora/erase").await, 403, "forbidden", &[]);
    let erased = office.ask("chief", "POST", "/api/v1/users/nora/erase").await;
    assert_eq!(erased.status, StatusCode::NO_CONTENT, "{erased:?}");
    assert!(!office.ask("vera", "GET", "/api/v1/users").await.text().contains("nora"));
}
