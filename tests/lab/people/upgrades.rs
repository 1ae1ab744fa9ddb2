//! A new process takes over while people's devices carry traffic.

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::time::Duration;

use ringway_perf::programs::{Program, matrix_flags};
use ringway_perf::wait::wait_for;
use serde_json::json;

use super::capture::{Capture, both_ways};
use super::flows::{Flow, rate_over};
use super::house::House;
use super::quotas::{both, expect_ledger, v4};
use crate::product::ringway;
use crate::setup::{LATER, SOON};

/// Inner bits per second that the user may move each way.
const CAP: u64 = 8_000_000;

/// Starts the next process; the one before ends.
pub(crate) fn upgrade(house: &mut House) {
    let launch = ringway(&house.line, &house.state, &["upgrade", "-f"]).args(matrix_flags());
    let mut next = launch.spawn().unwrap();
    wait_for("the new process to take over", Duration::from_secs(20), || {
        next.ended().is_some() || next.output().contains("Took over")
    })
    .unwrap_or_else(|e| panic!("{e}: {}{}", next.output(), next.errors()));
    assert!(next.ended().is_none(), "{}{}", next.errors(), next.output());
    let mut before = std::mem::replace(&mut house.process, next);
    wait_for("the process before to end", SOON, || before.ended().is_some()).unwrap();
    assert!(before.ended().unwrap().success(), "{}", before.errors());
    house.is_served();
}

#[test]
fn privileged_an_upgrade_keeps_sessions_limits_and_counts_and_the_api_answers_from_the_new_one() {
    let mut house = House::new();
    house.user("ada", json!({ "rate": { "up_bps": CAP, "down_bps": CAP } }));
    let laptop = house.device("ada", "laptop");
    let client = house.load(&laptop, Program::Gotatun, 0);
    let arriving = Capture::start(&house.line.cli, client.interface(), "ip");
    let leaving = Capture::start(&house.line.gw, &house.interface, "ip");
    house.until_answered(0, LATER);
    let since = house.expect_session(&laptop)["connected_at"].clone();
    let handshake = client.peers().unwrap()[0].handshake_s;

    // Less than the cap: nothing is lost.
    let flows = both(&house, &laptop, CAP / 4);
    wait_for("traffic", SOON, || flows.iter().all(|flow| flow.datagrams() > 50)).unwrap();
    for _ in 0..2 {
        upgrade(&mut house);
        let before = flows.each_ref().map(Flow::datagrams);
        wait_for("traffic to go on", SOON, || {
            flows.iter().zip(before).all(|(flow, before)| flow.datagrams() > before + 50)
        })
        .unwrap();
    }
    for flow in flows {
        let (sent, arrived) = flow.finish();
        assert_eq!(sent, arrived, "an upgrade lost datagrams");
    }
    assert!(client.peers().unwrap()[0].handshake_s.abs_diff(handshake) <= 1, "a new handshake");
    let session = house.expect_session(&laptop);
    assert_eq!(session["connected_at"], since);

    // More than the cap: the limit holds in the new process.
    let flows = both(&house, &laptop, 4 * CAP);
    let enough = |flow: &Flow| flow.bytes() > CAP / 8;
    wait_for("the burst to be used up", SOON, || flows.iter().all(enough)).unwrap();
    for (flow, way) in flows.iter().zip(["up", "down"]) {
        let part = rate_over(&[flow], Duration::from_secs(4)) / CAP as f64;
        println!("after the upgrade, {way}: {:.2} % of the cap", part * 100.0);
        assert!((0.97..=1.03).contains(&part), "{way}: {part}");
    }
    drop(flows);
    let left = both_ways(&leaving.finish(1_000), v4(&laptop)).0;
    let arrived = both_ways(&arriving.finish(1_000), v4(&laptop)).1;
    expect_ledger(&house, "ada", (left, arrived));
}
