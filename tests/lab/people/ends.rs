//! How sessions end: time, idleness, expiry, one too many, an operator, a drain.

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::time::{Duration, Instant};

use ringway_perf::iperf::{Amount, Direction, Run, Server};
use ringway_perf::programs::Program;
use ringway_perf::topology::{Family, Place};
use ringway_perf::wait::wait_for;
use serde_json::{Value, json};

use super::house::House;
use crate::setup::{LATER, SOON, stock_client};

/// The shortest time that a policy may name.
const SHORTEST_S: u64 = 60;

fn policy(house: &House, patch: &Value) {
    house.api.patch("/api/v1/policies/default", patch);
}

fn refused(house: &House, reason: &str) -> u64 {
    house.total(&format!("drops.{reason}"))
}

#[test]
fn privileged_access_ends_with_the_time_of_the_sign_in_and_with_the_users_own() {
    let house = House::new();
    house.user("ada", json!({}));
    policy(&house, &json!({ "session_timeout_s": SHORTEST_S }));
    let laptop = house.device("ada", "laptop");
    let granted = Instant::now();
    let client = house.join(&laptop, Program::Gotatun, 0);
    house.expect_session(&laptop);
    // Traffic goes on all the time and makes no difference.
    let limit = Duration::from_secs(SHORTEST_S + 15);
    wait_for("access to end", limit, || !house.answers(0)).unwrap();
    let lasted = granted.elapsed();
    println!("access of {SHORTEST_S} s ended after {lasted:?}");
    assert!(lasted > Duration::from_secs(SHORTEST_S - 2), "{lasted:?}");
    house.expect_no_session(&laptop, SOON);

    // Renewal changes no key; then the user itself expires.
    house.grant("ada");
    house.until_answered(0, LATER);
    house.expect_session(&laptop);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let expires = now + Duration::from_secs(4);
    let date = house.line.gw.launch("date").args(["-u", "-d"]);
    let date = date.arg(format!("@{}", expires.as_secs())).arg("+%Y-%m-%dT%H:%M:%SZ");
    let moment = date.run().unwrap();
    house.api.patch("/api/v1/users/ada", &json!({ "expires_at": moment.trim() }));
    assert!(house.answers(0), "it has not expired yet");
    house.expect_no_session(&laptop, LATER);
    assert!(!house.answers(0), "an expired user gets through");
    let again = house.api.ask("POST", "/api/v1/users/ada/access", Some(&json!({})));
    assert_eq!(again.status, 403, "{}", again.text);
    drop(client);
}

#[test]
fn privileged_access_ends_when_nothing_came_for_the_idle_time() {
    let house = House::new();
    house.user("ada", json!({}));
    policy(&house, &json!({ "idle_timeout_s": SHORTEST_S }));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, stock_client(), 0);
    house.expect_session(&laptop);
    let idle = Instant::now();
    house.expect_no_session(&laptop, Duration::from_secs(SHORTEST_S + 15));
    println!("access without a packet ended after {:?}", idle.elapsed());
    assert!(idle.elapsed() > Duration::from_secs(SHORTEST_S - 5), "{:?}", idle.elapsed());
    assert!(!house.answers(0), "access that is over lets a packet through");
}

#[test]
fn privileged_one_session_too_many_is_refused_or_ends_the_oldest_as_the_policy_says() {
    let mut house = House::new();
    house.host();
    house.user("ada", json!({}));
    policy(&house, &json!({ "sessions_max": 1, "excess": "refuse" }));
    let [laptop, phone] = ["laptop", "phone"].map(|name| house.device("ada", name));
    let first = house.join(&laptop, Program::Gotatun, 0);
    house.expect_session(&laptop);
    let second = house.load(&phone, stock_client(), 1);
    let kept_out = || {
        house.answers(1);
        !house.answers(1) && house.session(&phone).is_none() && house.session(&laptop).is_some()
    };
    wait_for("the second to be refused", LATER, kept_out).unwrap();
    assert!(house.answers(0), "the first stays");

    policy(&house, &json!({ "excess": "kick-oldest" }));
    // Whoever waited may try again, and the newest stays.
    house.grant("ada");
    house.until_answered(1, LATER);
    wait_for("the oldest to end", LATER, || {
        house.session(&laptop).is_none() && house.session(&phone).is_some()
    })
    .unwrap();
    assert!(house.answers(1) && !house.answers(0));
    drop((first, second));
}

#[test]
fn privileged_a_session_that_is_killed_ends_at_once_and_another_sign_in_begins_the_next() {
    let house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, Program::Boringtun, 0);
    let id = house.expect_session(&laptop)["id"].clone();
    let begun = Instant::now();
    house.api.delete(&format!("/api/v1/sessions/{id}?reason=test"));
    wait_for("traffic to end", Duration::from_secs(5), || !house.answers(0)).unwrap();
    println!("ended {:?} after the request began", begun.elapsed());
    house.expect_no_session(&laptop, SOON);
    let gone = house.api.ask("DELETE", &format!("/api/v1/sessions/{id}"), None);
    assert_eq!(gone.status, 404, "{}", gone.text);
    house.grant("ada");
    house.until_answered(0, LATER);
    assert!(house.expect_session(&laptop)["id"].as_u64() > id.as_u64());
}

#[test]
fn privileged_a_drain_lets_what_is_there_go_on_until_its_deadline_and_nobody_in() {
    let mut house = House::new();
    house.host();
    house.user("ada", json!({}));
    let [laptop, phone] = ["laptop", "phone"].map(|name| house.device("ada", name));
    let first = house.join(&laptop, Program::Gotatun, 0);
    let handshake = first.peers().unwrap()[0].handshake_s;
    house.expect_session(&laptop);
    let to = Place::Destination.address(Family::V4);
    let server = Server::start(&house.line.dst, to, 5201, None).unwrap();
    let amount = Amount::Seconds { omitted_s: 0, measured_s: 8 };
    let run = Run { streams: 1, direction: Direction::Down, amount, rate_limit: Some(5_000_000) };
    let mut iperf = server.client(&house.line.cli, run, None).spawn().unwrap();
    let before = refused(&house, "handshake_draining");
    house.api.post("/api/v1/drain", &json!({ "within_s": 600 }));
    let second = house.load(&phone, stock_client(), 1);
    wait_for("a refusal with its reason", LATER, || {
        assert!(!house.answers(1), "somebody new came in during a drain");
        refused(&house, "handshake_draining") > before
    })
    .unwrap();
    let drain = house.api.get("/api/v1/drain");
    assert_eq!((&drain["draining"], &drain["left"]), (&json!(true), &json!(1)), "{drain}");
    assert_eq!(drain["sessions"][0]["user"], "ada", "{drain}");
    let ended = iperf.wait(Duration::from_secs(30)).unwrap();
    assert!(ended.success(), "{}{}", iperf.errors(), iperf.output());
    assert!(first.peers().unwrap()[0].handshake_s.abs_diff(handshake) <= 1);

    house.api.post("/api/v1/drain", &json!({ "within_s": 2 }));
    house.expect_no_session(&laptop, SOON);
    assert!(!house.answers(0), "the deadline has passed");
    assert_eq!(house.api.get("/api/v1/drain")["left"], 0);

    house.api.delete("/api/v1/drain");
    house.until_answered(0, LATER);
    house.until_answered(1, LATER);
    drop(second);
}
