//! A person from the first record to the last packet.

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use ringway_perf::iperf::{Amount, Direction, Run, Server};
use ringway_perf::ping;
use ringway_perf::programs::Program;
use ringway_perf::topology::{Family, Place};
use ringway_perf::wait::wait_for;
use ringway_perf::wg::KeyPair;
use serde_json::json;

use super::capture::Capture;
use super::flows::Flow;
use super::house::{Device, House};
use crate::setup::{LATER, SOON, destination_at, stock_client};

const PASSWORD: &str = "a quiet harbour at seven";

#[test]
fn privileged_a_person_is_let_in_seen_shut_out_within_a_second_and_let_in_again() {
    let house = House::new();
    house.user("ada", json!({ "password": PASSWORD }));
    let keys = KeyPair::generate().unwrap();
    let form = json!({ "name": "laptop", "public_key": keys.public });
    let added = house.api.post("/api/v1/users/ada/devices", &form);
    assert_eq!(added["has_private_key"], false, "the gateway never saw the private key");
    let laptop = Device::new("ada", "laptop", keys, added["client_file"].as_str().unwrap());
    let client = house.load(&laptop, Program::Gotatun, 0);
    assert!(!house.answers(0), "a device gets through before its user has signed in");
    sign_in(&house, PASSWORD);
    house.until_answered(0, LATER);
    for inside in Family::BOTH {
        ping::until_answered(&house.line.cli, Place::Destination.address(inside), SOON).unwrap();
        let server =
            Server::start(&house.line.dst, Place::Destination.address(inside), 5201, None).unwrap();
        for direction in [Direction::Up, Direction::Down] {
            let amount = Amount::Bytes(4 << 20);
            let run = Run { streams: 1, direction, amount, rate_limit: None };
            server.run(&house.line.cli, run, None).unwrap();
        }
    }
    is_seen(&house, &laptop);
    is_shut_out_within_a_second(&house, &laptop);

    let handshake = client.peers().unwrap()[0].handshake_s;
    house.api.put("/api/v1/users/ada/state", &json!({ "state": "active" }));
    sign_in(&house, PASSWORD);
    house.until_answered(0, LATER);
    let again = house.api.get("/api/v1/users/ada/devices/laptop");
    assert_eq!(again["lease"]["address4"], laptop.address().to_string());
    assert_eq!(again["device"]["public_key"], laptop.keys.public.as_str());
    assert!(client.peers().unwrap()[0].handshake_s >= handshake);
}

fn sign_in(house: &House, password: &str) {
    let form = json!({ "name": "ada", "password": password });
    house.api.post("/api/v1/access/sign-in", &form);
}

/// The session record has every field of the contract, and the metrics know of it.
fn is_seen(house: &House, device: &Device) {
    let moved = || {
        let session = house.session(device)?;
        let bytes = |field: &str| session[field].as_u64().unwrap();
        // iperf3 ends when the last bytes of what it counts are still on their way.
        let least = 6 << 20;
        (bytes("bytes_sent") > least && bytes("bytes_received") > least).then_some(session)
    };
    let session = ringway_perf::wait::wait_until("the bytes to be counted", SOON, moved)
        .unwrap_or_else(|e| panic!("{e}: {:?}", house.session(device)));
    println!("{session}");
    assert!(session["id"].is_u64());
    assert_eq!(session["user"], "ada");
    assert_eq!(session["client_ip"], "10.91.1.2");
    assert_eq!(session["exit_node"], "local");
    assert_eq!(session["status"], "active");
    assert_eq!(session["tunnel"][0], format!("{}/32", device.address()));
    assert_eq!(session["public_key"], device.keys.public.as_str());
    for moment in ["connected_at", "last_activity", "state_since"] {
        assert!(session[moment].as_str().is_some_and(|text| text.starts_with("20")), "{moment}");
    }
    let metrics = house.api.ask("GET", "/api/v1/metrics", None);
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.trim_end().ends_with("# EOF"));
    let counted =
        metrics.text.lines().find_map(|line| line.strip_prefix("ringway_active_sessions "));
    let counted = counted
        .or_else(|| metrics.text.lines().find_map(|line| line.strip_prefix("active_sessions ")));
    assert_eq!(counted, Some("1"), "{}", metrics.text);
}

fn is_shut_out_within_a_second(house: &House, device: &Device) {
    let (cli, dst) = (&house.line.cli, &house.line.dst);
    let to = destination_at(Family::V4, 7100);
    let back = device.at(7101);
    let capture = Capture::start(&house.line.dst, "far", "udp");
    let up = Flow::start((cli, device.at(7100)), (dst, to), 1_000, 4_000_000);
    let down = Flow::start((dst, destination_at(Family::V4, 7101)), (cli, back), 1_000, 4_000_000);
    wait_for("traffic both ways", SOON, || up.datagrams() > 100 && down.datagrams() > 100).unwrap();
    let begun = Instant::now();
    house.api.put("/api/v1/users/ada/state", &json!({ "state": "disabled" }));
    let (took, answered) = (begun.elapsed(), epoch());
    house.expect_no_session(device, SOON);
    // As long again as it may take, so that a packet too late is seen.
    wait_for("what may be too late", SOON, || epoch() > answered + 2.0).unwrap();
    let seen = capture.finish(1_000);
    let theirs = seen.iter().filter(|one| one.to == Ipv4Addr::new(10, 91, 2, 2));
    let last = theirs.map(|one| one.at).fold(0.0, f64::max);
    let late = last - answered;
    println!("disabled in {took:?}; the last packet came {:.0} ms after the answer", late * 1e3);
    assert!(late < 1.0, "a packet came {late} s after the answer");
    let before = (up.datagrams(), down.datagrams());
    assert!(!house.answers(0), "a disabled user still gets through");
    assert_eq!((up.datagrams(), down.datagrams()), before);
}

fn epoch() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

#[test]
fn privileged_a_one_time_link_makes_one_device_and_no_second() {
    let house = House::new();
    house.user("ada", json!({}));
    let form = json!({ "device_name": "phone" });
    let invitation = house.api.post("/api/v1/users/ada/enrolments", &form);
    let keys = KeyPair::generate().unwrap();
    let redeem = json!({ "secret": invitation["secret"], "public_key": keys.public });
    let redeemed = house.api.post("/api/v1/enrol", &redeem);
    let phone = Device::new("ada", "phone", keys, redeemed["client_file"].as_str().unwrap());
    assert!(!phone.file.contains("\nPrivateKey"), "{}", phone.file);
    let other = KeyPair::generate().unwrap();
    let again = json!({ "secret": invitation["secret"], "public_key": other.public });
    assert_eq!(house.api.ask("POST", "/api/v1/enrol", Some(&again)).status, 410);
    let devices = house.api.get("/api/v1/users/ada/devices");
    assert_eq!(devices.as_array().unwrap().len(), 1, "{devices}");
    house.grant("ada");
    let _client = house.join(&phone, Program::Boringtun, 0);
    assert_eq!(house.expect_session(&phone)["device"], "phone");
}

/// The file is loaded by `wg-quick` as it is.
#[test]
fn privileged_wg_quick_takes_the_file_that_the_api_wrote_as_it_is() {
    let house = House::new();
    house.user("ada", json!({}));
    let added = house.api.post("/api/v1/users/ada/devices", &json!({ "name": "laptop" }));
    house.grant("ada");
    assert_eq!(added["has_private_key"], true);
    let svg = added["qr_svg"].as_str().unwrap_or_default();
    assert!(svg.starts_with("<?xml") || svg.starts_with("<svg"), "{svg}");
    let interface = ringway_perf::programs::unique_interface();
    let path = house.state.join(format!("{interface}.conf"));
    std::fs::write(&path, added["client_file"].as_str().unwrap()).unwrap();
    let program = stock_client().find().unwrap();
    let quick = |verb: &str| {
        let launch = house.line.cli.launch("wg-quick").args([verb]).arg(&path);
        launch.env("WG_QUICK_USERSPACE_IMPLEMENTATION", &program.to_string_lossy())
    };
    quick("up").output(Duration::from_secs(20)).unwrap();
    house.until_answered(0, LATER);
    let listed = house.api.get("/api/v1/sessions?user=ada");
    quick("down").output(Duration::from_secs(20)).unwrap();
    drop(listed);
    assert!(!house.answers(0), "without the tunnel nobody is reached");
}
