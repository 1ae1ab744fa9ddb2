//! One session is one session in the log, whichever process serves it and however that ends.

use std::time::Duration;

use ringway_perf::programs::Program;
use ringway_perf::wait::wait_for;
use serde_json::{Value, json};

use super::house::House;
use super::upgrades::upgrade;
use crate::product::ringway;
use crate::setup::LATER;

/// What the log has of ada: what happened, and why.
fn log(house: &House) -> Vec<(String, Value)> {
    let export = house.api.get("/api/v1/users/ada/export");
    let entries = export["connections"].as_array().unwrap_or_else(|| panic!("{export}"));
    let of = |entry: &Value| (entry["event"].as_str().unwrap().to_owned(), entry["reason"].clone());
    entries.iter().map(of).collect()
}

fn is_log(house: &House, expected: &[(&str, Value)]) -> bool {
    let log = log(house);
    let is_same =
        |(one, other): (&(String, Value), &(&str, Value))| one.0 == other.0 && one.1 == other.1;
    log.len() == expected.len() && log.iter().zip(expected).all(is_same)
}

fn expect_log(house: &House, expected: &[(&str, Value)]) {
    wait_for("the log", Duration::from_secs(15), || is_log(house, expected))
        .unwrap_or_else(|e| panic!("{e}: {:?} is not {expected:?}", log(house)));
}

#[test]
fn privileged_the_log_has_one_beginning_and_one_end_of_each_session_however_its_gateway_ends() {
    let mut house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, Program::Gotatun, 0);
    house.until_answered(0, LATER);
    let mut expected = vec![("connected", Value::Null)];
    expect_log(&house, &expected);

    let before = house.expect_session(&laptop);
    upgrade(&mut house);
    assert!(house.answers(0));
    let after = house.expect_session(&laptop);
    for field in ["id", "connected_at", "user", "device"] {
        assert_eq!(after[field], before[field], "{field} of {after}");
    }
    let up =
        |session: &Value| session["bytes_received"].as_u64().unwrap_or_else(|| panic!("{session}"));
    assert!(up(&after) >= up(&before), "{after} has less than {before}");
    expect_log(&house, &expected);

    house.kill_and_start();
    expected.push(("disconnected", json!("gateway_lost")));
    house.until_answered(0, LATER);
    expected.push(("connected", Value::Null));
    expect_log(&house, &expected);
    assert_ne!(house.expect_session(&laptop)["id"], before["id"]);

    house.restart();
    expected.push(("disconnected", json!("gateway_stopped")));
    house.until_answered(0, LATER);
    expected.push(("connected", Value::Null));
    expect_log(&house, &expected);

    let words = ["report", "usage", "--from", "1h", "--json"];
    let report = ringway(&house.line, &house.state, &words).run().unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["total_sessions"], 3, "{report}");
}
