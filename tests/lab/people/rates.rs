//! Limits of speed: what a user gets by two devices on two workers, and that a change is felt at
//! once.
//!
//! ```text
//!   cli: laptop ──┐
//!   more: phone ──┴ gw: two workers, one device on each ── dst
//! ```

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::time::{Duration, Instant};

use ringway_perf::iperf::{Amount, Direction, Run, Server};
use ringway_perf::programs::{Program, Tunnel};
use ringway_perf::topology::{Family, Place};
use ringway_perf::wait::wait_for;
use serde_json::{Value, json};

use super::flows::{Flow, rate_over};
use super::house::{Device, House, Plan};
use crate::setup::{SOON, destination_at, settled, stock_client};

/// Bits per second each way. Four times as much is within what a build without optimisation on a
/// busy machine carries.
const CAP: u64 = 8_000_000;

/// Load on each of two devices, each way.
const LOAD: u64 = 2 * CAP;

/// How long a rate is measured.
const MEASURED: Duration = Duration::from_secs(10);

/// Payload of a datagram.
const PAYLOAD: usize = 1_172;

/// Two devices of one user whose owners are different workers.
struct Pair {
    house: House,
    devices: [Device; 2],
    clients: [Tunnel; 2],
}

impl Pair {
    fn new(config: &str, user: Value) -> Self {
        let flags = vec!["--workers", "2", "--oversubscribe"];
        let mut house = House::with(Plan { config: config.to_owned(), flags, state: None });
        house.host();
        let group = json!({ "name": "crew" });
        house.api.post("/api/v1/groups", &group);
        house.user("ada", user);
        let laptop = house.device("ada", "laptop");
        let client = house.join(&laptop, Program::Gotatun, 0);
        let core = house.expect_session(&laptop)["core"].clone();
        // Whose it is follows from the key: some try meets the other worker.
        for number in 0..40 {
            let phone = house.device("ada", &format!("phone{number}"));
            let second = house.join(&phone, stock_client(), 1);
            if house.expect_session(&phone)["core"] != core {
                return Self { house, devices: [laptop, phone], clients: [client, second] };
            }
            drop(second);
            house.api.delete(&format!("/api/v1/users/ada/devices/{}", phone.name));
        }
        panic!("forty keys have the same owner");
    }

    /// Datagrams of both devices, to or from the destination.
    fn load(&self, direction: Direction, bits: u64) -> [Flow; 2] {
        [0, 1].map(|number| self.one(direction, number, bits))
    }

    fn one(&self, direction: Direction, number: usize, bits: u64) -> Flow {
        let port = 7_200 + number as u16 + if direction == Direction::Up { 10 } else { 0 };
        let inside = (self.house.netns(number), self.devices[number].at(port));
        let outside = (&self.house.line.dst, destination_at(Family::V4, port));
        match direction {
            Direction::Up => Flow::start(inside, outside, PAYLOAD, bits),
            Direction::Down => Flow::start(outside, inside, PAYLOAD, bits),
        }
    }

    fn handshakes(&self) -> [u64; 2] {
        [0, 1].map(|number| self.clients[number].peers().unwrap()[0].handshake_s)
    }

    /// Both directions at once, by both devices.
    fn expect_both_ways(&self, what: &str, cap: u64) {
        let (up, down) = (self.load(Direction::Up, LOAD), self.load(Direction::Down, LOAD));
        settle(&up);
        settle(&down);
        let all = [&up[0], &up[1], &down[0], &down[1]];
        let before = all.map(Flow::bytes);
        let rate = rate_over(&all, MEASURED) / 2.0;
        let after = all.map(Flow::bytes);
        let share: Vec<u64> = after.iter().zip(before).map(|(now, then)| now - then).collect();
        let [to_exit, to_client] = [share[0] + share[1], share[2] + share[3]];
        let sum = (to_exit + to_client) as f64;
        for (way, bytes) in [("up", to_exit), ("down", to_client)] {
            let part = 2.0 * rate * bytes as f64 / sum / cap as f64;
            println!("{what} {way}: {:.2} % of the cap, devices {share:?}", part * 100.0);
            assert!((0.98..=1.02).contains(&part), "{what} {way}: {part}");
        }
    }
}

/// Waits until the burst is used up: as much has arrived as one may be.
fn settle(flows: &[Flow; 2]) {
    wait_for("a flow", SOON, || flows.iter().all(|flow| flow.datagrams() > 10)).unwrap();
    let sent = || flows.iter().map(Flow::bytes).sum::<u64>();
    wait_for("the burst to be used up", SOON, || sent() > CAP / 8).unwrap();
}

#[test]
fn privileged_a_user_with_devices_on_two_workers_gets_the_cap_of_the_user_and_no_more() {
    let rate = json!({ "up_bps": CAP, "down_bps": CAP });
    let pair = Pair::new("", json!({ "rate": rate }));
    let before = [0, 1].map(|number| settled(&pair.clients[number]));
    pair.expect_both_ways("user", CAP);

    // A change takes effect within a second, and no session notices.
    let down = pair.load(Direction::Down, LOAD);
    settle(&down);
    let flows = [&down[0], &down[1]];
    for (cap, what) in [(CAP / 2, "half"), (CAP, "the whole again")] {
        let change = json!({ "rate": { "down_bps": cap } });
        pair.house.api.patch("/api/v1/users/ada", &change);
        let changed = Instant::now();
        // The window of half a second that begins within the second has the new rate.
        let kept = || {
            let rate = rate_over(&flows, Duration::from_millis(500));
            ((rate / cap as f64) - 1.0).abs() < 0.1
        };
        wait_for(&format!("{what} of the cap"), Duration::from_secs(5), kept).unwrap();
        let took = changed.elapsed();
        println!("{what} of the cap: measured {took:?} after the answer");
        assert!(took < Duration::from_millis(1_500), "{what}: {took:?}");
    }
    // Some clients know only how long ago it was, and round.
    let after = pair.handshakes();
    let same = |(now, then): (u64, u64)| now.abs_diff(then) <= 1;
    assert!(after.into_iter().zip(before).all(same), "a handshake: {before:?}, {after:?}");
}

#[test]
fn privileged_session_group_and_gateway_have_caps_of_their_own() {
    let user = json!({ "group": "crew" });
    let pair = Pair::new("", user);
    let api = &pair.house.api;

    let policy = json!({ "session_rate": { "up_bps": CAP / 2, "down_bps": CAP / 2 } });
    api.patch("/api/v1/policies/default", &policy);
    pair.expect_both_ways("two sessions of half the cap", CAP);
    api.patch("/api/v1/policies/default", &json!({ "session_rate": null }));

    let group = json!({ "rate": { "up_bps": CAP, "down_bps": CAP } });
    api.patch("/api/v1/groups/crew", &group);
    pair.expect_both_ways("group", CAP);
    api.patch("/api/v1/groups/crew", &json!({ "rate": null }));

    let path = pair.house.state.join("ringway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let cap = format!("\n[limits]\nrate_up = \"{CAP}bit\"\nrate_down = \"{CAP}bit\"\n");
    std::fs::write(&path, text + &cap).unwrap();
    let reload = crate::product::ringway(&pair.house.line, &pair.house.state, &["reload"]);
    reload.run().unwrap();
    pair.expect_both_ways("gateway", CAP);
}

#[test]
fn privileged_tcp_by_two_devices_uses_nearly_all_of_the_cap() {
    // As much as people buy; a burst of the size that the gateway chooses.
    const TCP_CAP: u64 = 20_000_000;
    let rate = json!({ "up_bps": TCP_CAP, "down_bps": TCP_CAP });
    let pair = Pair::new("", json!({ "rate": rate }));
    let to = Place::Destination.address(Family::V4);
    for direction in [Direction::Up, Direction::Down] {
        let amount = Amount::Seconds { omitted_s: 3, measured_s: 15 };
        let run = Run { streams: 1, direction, amount, rate_limit: None };
        let servers =
            [5201, 5202].map(|port| Server::start(&pair.house.line.dst, to, port, None).unwrap());
        let rates = std::thread::scope(|scope| {
            let runs = [0, 1].map(|number| {
                let (server, netns) = (&servers[number], pair.house.netns(number));
                scope.spawn(move || server.run(netns, run, None).unwrap().bits_per_second)
            });
            runs.map(|run| run.join().unwrap())
        });
        // The cap is of inner packets; TCP and IP take 52 bytes of 1,420.
        let part = rates.iter().sum::<f64>() * 1420.0 / 1368.0 / TCP_CAP as f64;
        println!("TCP {direction:?}: {:.1} % of the cap, {rates:?}", part * 100.0);
        assert!((0.85..=1.02).contains(&part), "{direction:?}: {part}");
    }
}
