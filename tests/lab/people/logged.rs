//! Who was connected, over a stop, a kill -9 and upgrades, as the log, the report and the export of
//! a person have it.

#![allow(clippy::print_stdout, reason = "what was logged, with the result")]

use ringway_perf::wait::{wait_for, wait_until};
use serde_json::{Value, json};

use super::house::{Device, House};
use super::quotas::both;
use super::upgrades::upgrade;
use crate::product::ringway;
use crate::setup::{LATER, SOON, stock_client};

/// An entry of the log, as `ringway user export` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    at: String,
    event: String,
    reason: Option<String>,
    duration_s: Option<u64>,
    bytes: (u64, u64),
}

fn log(house: &House) -> Vec<Entry> {
    let shown = ringway(&house.line, &house.state, &["user", "export", "ada"]).run().unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entry = |entry: &Value| Entry {
        at: text(&entry["at"]).unwrap(),
        event: text(&entry["event"]).unwrap(),
        reason: text(&entry["reason"]),
        duration_s: entry["duration_s"].as_u64(),
        bytes: (entry["up_bytes"].as_u64().unwrap(), entry["down_bytes"].as_u64().unwrap()),
    };
    shown["connections"].as_array().unwrap().iter().map(entry).collect()
}

/// Waits for so many entries; there are never more.
fn expect_log(house: &House, count: usize) -> Vec<Entry> {
    let log = wait_until("the log", SOON, || {
        let log = log(house);
        (log.len() >= count).then_some(log)
    });
    let log = log.unwrap_or_else(|e| panic!("{e}: {:?}", self::log(house)));
    assert_eq!(log.len(), count, "{log:?}");
    log
}

fn report(house: &House) -> Value {
    let said = ringway(&house.line, &house.state, &["report", "usage", "--json"]).run().unwrap();
    serde_json::from_str(&said).unwrap()
}

/// The client has a session and moves something both ways; returns its beginning.
fn moves(house: &House, laptop: &Device) -> Value {
    house.until_answered(0, LATER);
    let session = house.expect_session(laptop);
    let flows = both(house, laptop, 4_000_000);
    wait_for("traffic", SOON, || flows.iter().all(|flow| flow.datagrams() > 300)).unwrap();
    for flow in flows {
        flow.finish();
    }
    session["connected_at"].clone()
}

/// What all sessions moved that are over, as the log has it, is what was used.
fn expect_all_used(house: &House, log: &[Entry]) {
    let of = |way: fn(&Entry) -> u64| {
        log.iter().filter(|entry| entry.event == "disconnected").map(way).sum::<u64>()
    };
    let logged = (of(|entry| entry.bytes.0), of(|entry| entry.bytes.1));
    println!("logged {logged:?}, used {:?}", house.used("ada"));
    assert_eq!(logged, house.used("ada"));
}

fn epoch(house: &House, at: &str) -> f64 {
    house.line.gw.exec(&format!("date -u -d {at} +%s.%N")).unwrap().trim().parse().unwrap()
}

/// What a reader hears that comes back after the event `last`.
fn hears(house: &House, last: &str) -> String {
    let said = format!(
        "curl --silent --no-buffer --max-time 2 --unix-socket /run/ringway/{}.api \
         -H 'Last-Event-ID: {last}' http://gateway/api/v1/events || true",
        house.interface
    );
    house.line.gw.launch("sh").args(["-c", &said]).run().unwrap()
}

#[test]
fn privileged_each_session_is_in_the_log_once_over_a_stop_a_kill_and_upgrades() {
    let mut house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.load(&laptop, stock_client(), 0);
    moves(&house, &laptop);
    let heard = hears(&house, "0");
    assert!(heard.starts_with("id: ") && heard.contains("event: session.started"), "{heard}");
    let last = heard.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();

    // A stop tells the end before the process leaves.
    house.restart();
    let log = expect_log(&house, 2);
    assert_eq!(log[1].reason.as_deref(), Some("gateway_stopped"), "{log:?}");
    let lasted = epoch(&house, &log[1].at) - epoch(&house, &log[0].at);
    assert_eq!(log[1].duration_s, Some(lasted as u64), "{log:?}");
    expect_all_used(&house, &log);
    let again = hears(&house, &last);
    assert!(again.starts_with("event: restarted\ndata: {\"missed\":null}\n"), "{again}");
    assert!(again.contains("event: access.granted"), "what is there since: {again}");

    // A kill: the next start tells it, with a time that was noted and all bytes.
    moves(&house, &laptop);
    expect_log(&house, 3);
    let killed = house.line.gw.exec("date -u +%s.%N").unwrap().trim().parse::<f64>().unwrap();
    house.kill_and_start();
    let log = expect_log(&house, 4);
    assert_eq!(log[3].reason.as_deref(), Some("gateway_lost"), "{log:?}");
    let (began, ended) = (epoch(&house, &log[2].at), epoch(&house, &log[3].at));
    assert!(began <= ended && ended <= killed + 1.0, "{log:?}, killed at {killed}");
    assert!(killed - ended < 10.0, "{log:?}, killed at {killed}");
    assert_eq!(log[3].duration_s, Some((ended - began) as u64));
    expect_all_used(&house, &log);

    // Upgrades: one session goes on, and so does what it moves.
    let since = moves(&house, &laptop);
    expect_log(&house, 5);
    for _ in 0..2 {
        upgrade(&mut house);
        assert_eq!(moves(&house, &laptop), since);
    }
    assert_eq!(report(&house)["total_sessions"], 3);
    house.restart();
    let log = expect_log(&house, 6);
    assert_eq!(log[5].reason.as_deref(), Some("gateway_stopped"), "{log:?}");
    assert_eq!(since, log[4].at.as_str(), "since its first beginning");
    let lasted = epoch(&house, &log[5].at) - epoch(&house, &log[4].at);
    assert_eq!(log[5].duration_s, Some(lasted as u64), "{log:?}");
    expect_all_used(&house, &log);
    let report = report(&house);
    assert_eq!(report["total_sessions"], 3, "{report}");
    let used = house.used("ada");
    assert_eq!(report["total_bandwidth_bytes"], used.0 + used.1);
    for (reason, count) in [("gateway_stopped", 2), ("gateway_lost", 1)] {
        let expected = json!({ "reason": reason, "count": count });
        assert!(report["ended"].as_array().unwrap().contains(&expected), "{report}");
    }
}
