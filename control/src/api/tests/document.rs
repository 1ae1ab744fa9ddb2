use std::collections::BTreeSet;

use crate::api::document::operations;
use crate::api::fake::{Ask, World};
use crate::api::reason::Reason;

#[tokio::test]
async fn every_operation_says_what_it_is_and_what_it_needs() {
    let world = World::new("doc_whole").await;
    let mut document = world.document.clone();
    let (mut ids, mut documented) = (BTreeSet::new(), BTreeSet::new());
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let place = format!("{method} {path}");
            let id = operation.operation_id.clone().expect(&place);
            assert!(ids.insert(id), "{place}: its id is given twice");
            assert!(operation.summary.as_deref().is_some_and(|text| text.len() > 4), "{place}");
            assert!(operation.tags.as_ref().is_some_and(|tags| tags.len() == 1), "{place}");
            assert!(operation.security.is_some(), "{place}");
            let responses = &operation.responses.responses;
            assert!(responses.contains_key("default") && responses.len() > 1, "{place}");
            documented.insert(place);
        }
    }
    let table: BTreeSet<String> =
        world.state.needs().iter().map(|need| format!("{} {}", need.method, need.path)).collect();
    assert!(documented.is_subset(&table), "{:?}", documented.difference(&table));
    let page: Vec<&String> = table.difference(&documented).collect();
    let page_only = page
        .iter()
        .all(|line| line.contains("/api/docs") || line.ends_with("/api/v1/openapi.json"));
    assert!(page_only, "not in the document: {page:?}");
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let world = World::new("doc_refs").await;
    let answer = world.send(Ask::get("/api/v1/openapi.json")).await;
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    fn walk(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    if let ("$ref", Some(target)) = (key.as_str(), value.as_str()) {
                        found.push(target.to_owned());
                    }
                    walk(value, found);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => (),
        }
    }
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
}

#[tokio::test]
async fn words_are_documented_as_they_are_written() {
    let world = World::new("doc_words").await;
    let document = world.send(Ask::get("/api/v1/openapi.json")).await.json();
    let words = |name: &str| document["components"]["schemas"][name]["enum"].clone();
    assert_eq!(words("Role"), serde_json::json!(["viewer", "operator", "administrator"]));
    let kinds: Vec<&str> = crate::events::Kind::ALL.iter().map(|kind| kind.word()).collect();
    assert_eq!(words("Kind"), serde_json::json!(kinds));
}

#[tokio::test]
async fn the_page_is_whole_without_the_internet() {
    let world = World::new("doc_page").await;
    let page = world.send(Ask::get("/api/docs/")).await;
    assert_eq!(page.status, 200);
    let text = page.text();
    // What the page loads is here, and nothing of it is elsewhere or written into the page.
    let loads: Vec<&str> = text
        .split(['"', '\''])
        .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
        .collect();
    assert!(loads.len() >= 4, "{text}");
    for file in loads {
        assert!(!file.contains("//"), "{file}");
        let file = file.trim_start_matches("./");
        let answer = world.send(Ask::get(&format!("/api/docs/{file}"))).await;
        assert_eq!(answer.status, 200, "{file}");
    }
    assert!(!text.contains("<script>") && !text.contains("<style>"));
    let start = world.send(Ask::get("/api/docs/swagger-initializer.js")).await;
    assert!(start.text().contains("/api/v1/openapi.json"));
    assert_eq!(world.send(Ask::get("/api/docs")).await.headers["location"], "/api/docs/");
    assert_eq!(world.send(Ask::get("/api/docs/..%2f..%2fetc")).await.status, 404);
}

#[test]
fn the_manual_lists_every_reason_with_its_status_and_title() {
    let manual = include_str!("../../../manual/api_reasons.md");
    for reason in Reason::ALL {
        let (code, status, title) = (reason.code(), reason.status().as_u16(), reason.title());
        let line = format!("| `{code}` | {status} | {title} |");
        assert!(manual.contains(&line), "control/manual/api_reasons.md lacks: {line}");
    }
    let lines = manual.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(lines, Reason::ALL.len(), "the manual has reasons that do not exist");
}

#[test]
fn every_reason_has_a_code_of_its_own_and_an_error_status() {
    let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        let status = reason.status();
        assert!(status.is_client_error() || status.is_server_error(), "{reason:?}");
        let inner = status == 500;
        assert_eq!(inner, matches!(reason, Reason::Internal | Reason::StoreCorrupt), "{reason:?}");
    }
}
