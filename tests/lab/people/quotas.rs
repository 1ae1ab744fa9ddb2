//! What people may move in all, and that every byte is in the ledger once.

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ringway_perf::programs::Program;
use ringway_perf::topology::Family;
use ringway_perf::wait::wait_for;
use serde_json::{Value, json};

use super::capture::{Capture, Seen, both_ways};
use super::flows::{Flow, rate_over};
use super::house::{Device, House};
use crate::setup::{LATER, SOON, destination_at, settled, stock_client};

const PAYLOAD: usize = 1_000;
const MIB: u64 = 1 << 20;

/// Datagrams both ways, so many bits per second each.
pub(crate) fn both(house: &House, device: &Device, bits: u64) -> [Flow; 2] {
    let (cli, dst) = (&house.line.cli, &house.line.dst);
    let at = |port| destination_at(Family::V4, port);
    [
        Flow::start((cli, device.at(7_301)), (dst, at(7_301)), PAYLOAD, bits),
        Flow::start((dst, at(7_302)), (cli, device.at(7_302)), PAYLOAD, bits),
    ]
}

pub(crate) fn v4(device: &Device) -> Ipv4Addr {
    match device.address() {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => panic!("an IPv4 address is first"),
    }
}

fn quota(house: &House, bytes: u64, action: &str, throttle: Option<u64>) {
    let mut quota = json!({ "bytes": bytes, "period": "month", "action": action });
    if let Some(bits) = throttle {
        quota["throttle_bps"] = bits.into();
    }
    house.api.patch("/api/v1/users/ada", &json!({ "quota": quota }));
}

fn standing(house: &House) -> Value {
    let rows = house.api.get("/api/v1/quotas");
    let items = rows["items"].as_array().unwrap();
    items.iter().find(|row| row["name"] == "ada").unwrap()["standing"].clone()
}

/// A kibibyte of a megabyte, or the pings that come while nobody looks.
pub(crate) fn expect_ledger(house: &House, user: &str, seen: (u64, u64)) {
    let close = |ledger: u64, seen: u64| ledger.abs_diff(seen) * 1_000 <= seen;
    let mut last = (0, 0);
    wait_for("the ledger to have all of it", SOON, || {
        last = house.used(user);
        close(last.0, seen.0) && close(last.1, seen.1)
    })
    .unwrap_or_else(|e| panic!("{e}: ledger {last:?}, wire {seen:?}"));
    println!("ledger {last:?}, wire {seen:?}");
}

#[test]
fn privileged_the_ledger_has_what_the_wire_had_also_when_the_gateway_was_killed_twice() {
    let mut house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let client = house.load(&laptop, Program::Gotatun, 0);
    // What came from the client is what the gateway gave to its host, and what went to the client
    // is what arrived there: packets that nobody took over are in neither.
    let arriving = Capture::start(&house.line.cli, client.interface(), "ip");
    let mut leaving = Some(Capture::start(&house.line.gw, &house.interface, "ip"));
    house.until_answered(0, LATER);
    let mut left: Vec<Seen> = Vec::new();
    for round in 0..3 {
        let flows = both(&house, &laptop, 16_000_000);
        let enough = || flows.iter().all(|flow| flow.bytes() > 8 * MIB);
        wait_for("eight mebibytes each way", LATER, enough).unwrap();
        if round == 2 {
            for flow in flows {
                flow.finish();
            }
            break;
        }
        // In the middle of it.
        house.process.kill();
        drop(flows);
        left.extend(leaving.take().unwrap().finish(PAYLOAD as u64));
        house.start();
        leaving = Some(Capture::start(&house.line.gw, &house.interface, "ip"));
        house.is_served();
        house.until_answered(0, LATER);
    }
    left.extend(leaving.take().unwrap().finish(PAYLOAD as u64));
    let arrived = arriving.finish(PAYLOAD as u64);
    let wire = (both_ways(&left, v4(&laptop)).0, both_ways(&arrived, v4(&laptop)).1);
    assert!(wire.0 > 24 * MIB && wire.1 > 24 * MIB, "{wire:?}");
    expect_ledger(&house, "ada", wire);
}

#[test]
fn privileged_a_quota_that_is_used_up_disconnects_and_stays_used_up_after_a_restart() {
    let mut house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, stock_client(), 0);
    house.expect_session(&laptop);
    let before = house.used("ada");
    quota(&house, 4 * MIB + before.0 + before.1, "disconnect", None);
    let flows = both(&house, &laptop, 8_000_000);
    house.expect_no_session(&laptop, LATER);
    let carried: u64 = flows.iter().map(Flow::bytes).sum();
    assert!(!house.answers(0), "a user without anything left gets through");
    drop(flows);
    println!("{carried} bytes of {} arrived", 4 * MIB);
    // The flows may begin before the cores know of the quota: what passes while they are told.
    assert!(carried <= 4 * MIB + 4 * MIB / 1_000, "{carried}");
    // What is asked for is counted before it is dropped nowhere: all but pings and handshakes.
    assert!(carried > 4 * MIB - 64 * 1024, "{carried}");
    let exceeded = || standing(&house)["exceeded"] == true;
    wait_for("the quota to be used up", SOON, exceeded).unwrap();
    assert_eq!(standing(&house)["action"], "disconnect");

    for _ in 0..2 {
        house.kill_and_start();
        assert_eq!(standing(&house)["exceeded"], true);
        assert!(!house.answers(0), "a restart gave a quota again");
    }
    house.api.post("/api/v1/users/ada/quota/reset", &json!({}));
    house.grant("ada");
    house.until_answered(0, LATER);
    assert_eq!(standing(&house)["exceeded"], false);
}

#[test]
fn privileged_a_quota_that_is_used_up_throttles_and_a_reset_gives_speed_back() {
    const SLOW: u64 = 1_000_000;
    let house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let client = house.join(&laptop, stock_client(), 0);
    let handshake = settled(&client);
    quota(&house, 2 * MIB, "throttle", Some(SLOW));
    let flows = both(&house, &laptop, 8_000_000);
    let all: u64 = 2 * MIB;
    wait_for("the quota to be used up", LATER, || {
        standing(&house)["exceeded"] == true && flows.iter().map(Flow::bytes).sum::<u64>() > all
    })
    .unwrap();
    // What was let through at once when the slower rate began is over.
    let both = [&flows[0], &flows[1]];
    let slow =
        || (rate_over(&both, Duration::from_secs(2)) / (2.0 * SLOW as f64) - 1.0).abs() < 0.05;
    wait_for("the throttled rate", LATER, slow).unwrap();
    house.api.post("/api/v1/users/ada/quota/reset", &json!({}));
    let fast = || rate_over(&both, Duration::from_millis(300)) > 4.0 * SLOW as f64;
    wait_for("the full speed", SOON, fast).unwrap();
    assert_eq!(client.peers().unwrap()[0].handshake_s, handshake, "the session stayed");
}

#[test]
fn privileged_a_quota_that_only_notifies_lets_everything_through_and_says_so() {
    let house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, Program::Gotatun, 0);
    quota(&house, MIB, "notify", None);
    let flows = both(&house, &laptop, 8_000_000);
    wait_for("the quota to be used up", SOON, || standing(&house)["exceeded"] == true).unwrap();
    let [up, down] = flows;
    for flow in [up, down] {
        let (sent, arrived) = flow.finish();
        assert!(sent > 0 && arrived * 100 >= sent * 99, "{arrived} of {sent} arrived");
    }
    assert!(house.session(&laptop).is_some());
    assert_eq!(standing(&house)["action"], "notify");
}
