//! All routes of all resources: none answers without credentials, none lets a viewer change
//! anything, and the document has all of them.

use std::collections::BTreeSet;

use super::*;
use crate::api::Who;
use crate::api::resources::needs;

fn ask(method: &str, path: &str) -> Ask {
    let path = path
        .replace("{id}", "01a22e3a-0000-7000-8000-000000000000")
        .replace("{user}", "nobody")
        .replace("{device}", "none")
        .replace("{subject}", "none")
        .replace(['{', '}'], "");
    Ask::new(method, &path).json(&json!({}))
}

#[tokio::test]
async fn no_route_answers_without_credentials_unless_it_says_so() {
    let office = Office::new("routes_anybody").await;
    let mut open = Vec::new();
    for need in needs() {
        let answer = office.world.send(ask(need.method, need.path)).await;
        if need.who == Who::Anybody {
            open.push((need.method, need.path));
            assert_ne!(answer.problem(), "unauthenticated", "{need:?}");
        } else {
            refused(&answer, 401, "unauthenticated", &[]);
        }
    }
    open.sort_unstable();
    let expected =
        [("GET", "/enrol"), ("POST", "/api/v1/access/sign-in"), ("POST", "/api/v1/enrol")];
    assert_eq!(open, expected);
}

#[tokio::test]
async fn a_viewer_changes_nothing_but_himself_and_an_operator_nothing_administrative() {
    let office = Office::new("routes_roles").await;
    for need in needs().iter().filter(|need| need.method != "GET") {
        let (allowed, who) = match need.who {
            Who::Anybody | Who::SignedIn => continue,
            Who::Local | Who::Role(Role::Administrator) => (&["chief"][..], ["vera", "olga"]),
            Who::Role(_) => (&["olga", "chief"][..], ["vera", "nora"]),
        };
        for name in who {
            let request = ask(need.method, need.path).token(office.token(name));
            let answer = office.world.send(request).await;
            refused(&answer, 403, "forbidden", &[]);
        }
        if need.who != Who::Local {
            for name in allowed {
                let request = ask(need.method, need.path).token(office.token(name));
                let problem = office.world.send(request).await.problem();
                assert!(problem != "unauthenticated" && problem != "scope-missing", "{need:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_and_the_table_have_the_same_routes_each_with_a_name_of_its_own() {
    let office = Office::new("routes_document").await;
    let document = serde_json::to_value(&office.world.document).unwrap();
    let (mut documented, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            documented.insert((method.to_uppercase(), path.clone()));
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(names.insert(name), "{operation}");
            assert!(operation["summary"].is_string(), "{path} {method} has no summary");
        }
    }
    for need in needs() {
        let line = (need.method.to_owned(), need.path.to_owned());
        assert!(documented.contains(&line), "{line:?} is not in the document");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is missing");
    }
}

#[tokio::test]
async fn whoever_may_call_a_route_may_have_a_token_for_it_unless_it_takes_more() {
    let office = Office::new("routes_scopes").await;
    for need in needs() {
        let name = match need.who {
            Who::Anybody | Who::Local => continue,
            Who::SignedIn => "nora",
            Who::Role(Role::Viewer) => "vera",
            Who::Role(Role::Operator) => "olga",
            Who::Role(Role::Administrator) => "chief",
        };
        // Some administrative routes share a scope with others, and are refused by their role.
        let form = json!({"name": "t", "scopes": [need.scope]});
        let path = format!("/api/v1/users/{name}/tokens");
        let made = office.tell("chief", "POST", &path, form).await;
        assert_eq!(made.status, StatusCode::CREATED, "{need:?}: {made:?}");
    }
}

#[tokio::test]
async fn a_token_for_users_does_not_become_one_for_everything() {
    let office = Office::new("routes_narrow").await;
    let form =
        NewToken { name: "crm".into(), scopes: vec!["users:write".into()], expires_at: None };
    let made = office.desk.directory.create_token(&root(), "chief", form).await.unwrap();
    let crm = made.secret.0.to_string();
    let user = json!({"name": "customer", "password": "a sentence for one only"});
    let made = office.world.send(Ask::post("/api/v1/users").token(&crm).json(&user)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let chief = json!({"name": "other", "role": "administrator"});
    for (method, path, body) in [
        ("POST", "/api/v1/users", chief),
        ("PATCH", "/api/v1/users/vera", json!({"role": "administrator"})),
        ("PATCH", "/api/v1/users/vera", json!({"display_name": "V"})),
        ("PATCH", "/api/v1/users/customer", json!({"role": "viewer"})),
        ("PUT", "/api/v1/users/vera/state", json!({"state": "disabled"})),
        ("PUT", "/api/v1/users/vera/password", json!({"new": "a sentence for one only"})),
        ("PUT", "/api/v1/users/customer/password", json!({"new": "a sentence for one only"})),
        ("DELETE", "/api/v1/users/vera/totp", json!(null)),
        ("DELETE", "/api/v1/users/vera", json!(null)),
        ("POST", "/api/v1/users/vera/erase", json!(null)),
    ] {
        let ask = Ask::new(method, path).token(&crm);
        let ask = if body.is_null() { ask } else { ask.json(&body) };
        refused(&office.world.send(ask).await, 403, "forbidden", &[]);
    }
    for (method, path, body) in [
        ("PATCH", "/api/v1/users/customer", json!({"display_name": "C"})),
        ("PUT", "/api/v1/users/customer/state", json!({"state": "disabled"})),
    ] {
        let answer = office.world.send(Ask::new(method, path).token(&crm).json(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let new = json!({"new": "a sentence for one only"});
    let answer = office.tell("chief", "PUT", "/api/v1/users/vera/password", new).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "a token for everything may: {answer:?}");
}
