//! Reports beside traffic of a known amount: two users, both ways, counted on the wire.
//!
//! What the wire had is compared with what each form of the report says of each user; datagrams
//! that a test sent are counted by who got them. Speeds have bounds that follow from the amounts
//! and from how the counters are read: the gateway reads them every ten seconds or later.

#![allow(clippy::print_stdout, reason = "what was reported, with the result")]

use std::time::Instant;

use ringway_perf::programs::Program;
use ringway_perf::topology::Family;
use ringway_perf::wait::wait_for;
use serde_json::Value;
use serde_json::json;

use super::capture::{Capture, both_ways};
use super::flows::{Flow, HEADERS};
use super::house::{Device, House};
use super::quotas::v4;
use crate::product::ringway;
use crate::setup::{LATER, SOON, destination_at, stock_client};

const PAYLOAD: usize = 1_000;

/// Datagrams of each flow, at least: ada up and down, bob up and down.
const DATAGRAMS: [u64; 4] = [3_000, 1_000, 500, 2_000];

/// Inner bytes of a user: from its devices and to them.
type Moved = (u64, u64);

/// A report as an operator asks for it.
fn report(house: &House, words: &str) -> String {
    let words: Vec<&str> = ["report"].into_iter().chain(words.split(' ')).collect();
    ringway(&house.line, &house.state, &words).run().unwrap()
}

fn as_json(house: &House, words: &str) -> Value {
    serde_json::from_str(&report(house, &format!("{words} --json"))).unwrap()
}

/// The present second: since the epoch, and as a report is asked for it.
fn now(house: &House) -> (u64, String) {
    let said = house.line.gw.exec("date -u +%s_%Y-%m-%dT%H:%M:%SZ").unwrap();
    let (epoch, text) = said.trim().split_once('_').unwrap();
    (epoch.parse().unwrap(), text.to_owned())
}

/// What two users moved, as the wire had it.
struct Carried {
    devices: [Device; 2],
    wire: [Wire; 2],
}

/// What of a user passed where.
#[derive(Clone, Copy, Debug)]
struct Wire {
    /// From the gateway to its host: what came from the client.
    up: u64,
    /// From the host to the gateway.
    given: u64,
    /// From the gateway to the client; less than what was given if a busy machine lost some.
    arrived: u64,
}

impl Wire {
    /// Whether a report has it. What the client lost on its side the gateway has moved.
    fn is(&self, (up, down): Moved) -> bool {
        up == self.up && (self.arrived..=self.given).contains(&down)
    }
}

/// Both users come and move what they move; nothing moves any more afterwards.
fn carry(house: &mut House) -> (Carried, impl Sized + use<>) {
    let more = house.host();
    let devices = [("ada", "laptop"), ("bob", "phone")].map(|(user, device)| {
        house.user(user, json!({}));
        house.device(user, device)
    });
    let inside = Capture::start(&house.line.gw, &house.interface, "ip");
    let programs = [(Program::Gotatun, 0), (stock_client(), more)];
    let clients: Vec<_> = devices
        .iter()
        .zip(programs)
        .map(|(device, (program, host))| (house.load(device, program, host), host))
        .collect();
    let down = clients
        .iter()
        .map(|(client, host)| Capture::start(house.netns(*host), client.interface(), "ip"));
    let down: Vec<Capture> = down.collect();
    clients.iter().for_each(|(_, host)| house.until_answered(*host, LATER));

    let at = |port| destination_at(Family::V4, port);
    let dst = &house.line.dst;
    let flow = |number: usize| {
        let (device, host) = (&devices[number / 2], house.netns(clients[number / 2].1));
        let port = 7_400 + number as u16;
        let (near, far) = ((host, device.at(port)), (dst, at(port)));
        let bits = DATAGRAMS[number] * 3_000;
        if number.is_multiple_of(2) {
            Flow::start(near, far, PAYLOAD, bits)
        } else {
            Flow::start(far, near, PAYLOAD, bits)
        }
    };
    let flows: Vec<Flow> = (0..4).map(flow).collect();
    wait_for("all datagrams", LATER, || {
        flows.iter().zip(DATAGRAMS).all(|(flow, count)| flow.datagrams() >= count)
    })
    .unwrap();
    devices.iter().for_each(|device| drop(house.expect_session(device)));
    let arrived: Vec<u64> =
        flows.into_iter().map(|flow| flow.finish().1 * (PAYLOAD as u64 + HEADERS)).collect();
    let inside = inside.finish(PAYLOAD as u64);
    let down: Vec<_> = down.into_iter().map(|one| one.finish(PAYLOAD as u64)).collect();
    let wire = [0, 1].map(|user| {
        let address = v4(&devices[user]);
        let (up, given) = both_ways(&inside, address);
        Wire { up, given, arrived: both_ways(&down[user], address).1 }
    });
    for (wire, sent) in wire.iter().zip(arrived.chunks(2)) {
        // Some pings more than the datagrams.
        println!("{wire:?}, of which datagrams {sent:?}");
        assert!(wire.up - sent[0] < 10_000 && wire.arrived - sent[1] < 10_000);
    }
    (Carried { devices, wire }, clients)
}

/// The rows of a list in the report, by the name in their first column.
fn row<'a>(report: &'a Value, list: &str, user: &str) -> &'a Value {
    let rows = report[list].as_array().unwrap_or_else(|| panic!("no {list}: {report}"));
    rows.iter().find(|row| row["user"] == user).unwrap_or_else(|| panic!("no {user}: {report}"))
}

fn moved(row: &Value) -> Moved {
    let bytes = |field: &str| row[field].as_u64().unwrap();
    (bytes("received_bytes"), bytes("sent_bytes"))
}

#[test]
fn privileged_reports_say_of_each_user_what_the_wire_had_in_every_form() {
    let mut house = House::new();
    let before = now(&house);
    let (carried, clients) = carry(&mut house);
    let Carried { devices, wire } = &carried;
    let usage = format!("usage --from {}", before.1);
    // The records have it within seconds.
    let users =
        |report: &Value| [0, 1].map(|at| moved(row(report, "top_users", &devices[at].user)));
    let has = |report: &Value| {
        report["users"] == 2 && wire.iter().zip(users(report)).all(|(wire, moved)| wire.is(moved))
    };
    let mut said = Value::Null;
    wait_for("the records to have all of it", SOON, || {
        said = as_json(&house, &usage);
        has(&said)
    })
    .unwrap_or_else(|error| panic!("{error}: {said:#}\nwire {wire:?}"));
    let users = users(&said);
    println!("reported {users:?}");
    says_who_moved_how_much(&said, devices, &users);
    is_a_table(&report(&house, &format!("{usage} --format csv")), &users);
    is_a_page(&report(&house, &format!("{usage} --format html")), &users);

    // Sessions count in the time in which they were, also when they ended after it.
    let between = now(&house);
    house.api.put("/api/v1/users/bob/state", &json!({ "state": "disabled" }));
    house.expect_no_session(&devices[1], SOON);
    wait_for("its end in the records", SOON, || {
        as_json(&house, &usage)["ended"].as_array().is_some_and(|ended| ended.len() == 1)
    })
    .unwrap();
    is_cut(&house, &before, &between, &said);
    drop(clients);
}

fn says_who_moved_how_much(said: &Value, devices: &[Device; 2], users: &[Moved; 2]) {
    let all = (users[0].0 + users[1].0, users[0].1 + users[1].1);
    assert_eq!(moved(said), all, "{said:#}");
    assert_eq!(said["total_bandwidth_bytes"], all.0 + all.1);
    assert_eq!((&said["users"], &said["total_sessions"]), (&json!(2), &json!(2)));
    for (device, user) in devices.iter().zip(users) {
        let row = row(said, "top_devices", &device.user);
        assert_eq!((&row["device"], moved(row)), (&json!(device.name), *user));
    }
    let most = if users[0].0 + users[0].1 > users[1].0 + users[1].1 { "ada" } else { "bob" };
    assert_eq!(said["top_users"][0]["user"], most, "who moved most is first");
}

/// The rows of a list in CSV.
fn list<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (_, rest) = text.split_once(&format!("table,{name}\r\n")).unwrap();
    rest.split("\r\n").skip(1).take_while(|line| !line.is_empty()).collect()
}

fn is_a_table(text: &str, users: &[Moved; 2]) {
    let has = |line: &str| text.split("\r\n").any(|one| one == line);
    assert!(has(&format!("received_bytes,{}", users[0].0 + users[1].0)), "{text}");
    assert!(has(&format!("sent_bytes,{}", users[0].1 + users[1].1)), "{text}");
    let [ada, bob] = users.map(|(up, down)| format!("{up},{down}"));
    let mut users = list(text, "top_users");
    users.sort_unstable();
    assert_eq!(users, [format!("ada,{ada}"), format!("bob,{bob}")]);
    let mut devices = list(text, "top_devices");
    devices.sort_unstable();
    assert_eq!(devices, [format!("ada,laptop,{ada}"), format!("bob,phone,{bob}")]);
}

/// People are told in mebibytes.
fn is_a_page(text: &str, users: &[Moved; 2]) {
    let page = text.replace('\n', "");
    for (name, (up, down)) in ["ada", "bob"].into_iter().zip(users) {
        let [up, down] = [up, down].map(|bytes| {
            let kibibytes = *bytes as f64 / 1024.0;
            let (value, unit) =
                if kibibytes < 1024.0 { (kibibytes, "KiB") } else { (kibibytes / 1024.0, "MiB") };
            format!("{value:.1} {unit}")
        });
        let row = page.split("<tr").find(|row| row.contains(name) && row.contains(&up));
        assert!(row.is_some_and(|row| row.contains(&down)), "{name} {up} {down}: {page}");
    }
    assert!(!page.contains("<script") && !page.contains("://"), "{page}");
}

/// Times that cut what happened, that come before it, and that cannot be.
fn is_cut(house: &House, before: &(u64, String), between: &(u64, String), whole: &Value) {
    let length = between.0 - before.0;
    let (before, between) = (&before.1, &between.1);
    let first = as_json(house, &format!("usage --from {before} --to {between}"));
    assert_eq!(first["total_sessions"], 2, "one ended later, one lives: {first:#}");
    assert_eq!(first["ended"], json!([]), "it ended later: {first:#}");
    let mean = first["mean_session_s"].as_f64().unwrap();
    assert!(mean > 0.0 && mean <= length as f64, "{mean} of {length} s");
    let second = as_json(house, &format!("usage --from {between}"));
    assert_eq!(second["total_sessions"], 2, "both reach into it: {second:#}");
    assert_eq!(second["ended"][0]["count"], 1, "{second:#}");
    for part in [&first, &second] {
        // Bytes are of the whole day, and said to be.
        assert_eq!(moved(part), moved(whole), "{part:#}");
        assert!(part["usage_from"].as_str().unwrap().contains("T00:00:00"), "{part:#}");
    }

    let empty = as_json(house, "usage --from 2001-01-01 --to 2001-01-02");
    for zero in ["total_sessions", "users", "received_bytes", "sent_bytes"] {
        assert_eq!(empty[zero], 0, "{empty:#}");
    }
    for unknown in ["average_latency_s", "success_rate", "mean_session_s", "peak_usage"] {
        assert!(empty[unknown].is_null() && empty["absent"][unknown].is_string(), "{empty:#}");
    }
    let backwards = format!("report usage --from {between} --to {before}");
    let words: Vec<&str> = backwards.split(' ').collect();
    let refused = ringway(&house.line, &house.state, &words).run().unwrap_err();
    assert!(format!("{refused:#}").contains("not before"), "{refused:#}");
}

#[test]
fn privileged_the_performance_report_has_the_speed_of_what_was_carried() {
    let begun = Instant::now();
    let mut house = House::new();
    let (carried, clients) = carry(&mut house);
    let mut usage = Value::Null;
    wait_for("the records to have all of it", SOON, || {
        usage = as_json(&house, "usage --from 1h");
        let has = |(wire, device): (&Wire, &Device)| {
            wire.is(moved(row(&usage, "top_users", &device.user)))
        };
        usage["users"] == 2 && carried.wire.iter().zip(&carried.devices).all(has)
    })
    .unwrap_or_else(|error| panic!("{error}: {usage:#}\nwire {:?}", carried.wire));
    let (up, down) = moved(&usage);
    let (up, down) = (up as f64, down as f64);
    // Until the next reading its last part is not known.
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap_or_default();
    let ask = || as_json(&house, "performance --from 1h");
    let speed = |report: &Value| number(report, "throughput_to_exit_bps");
    let (old, mut said) = (speed(&ask()), Value::Null);
    wait_for("the next reading", LATER, || {
        said = ask();
        (speed(&said) - old).abs() > 0.0
    })
    .unwrap();
    let known = begun.elapsed().as_secs_f64() + 1.0;
    let peak = number(&said, "throughput_peak_bps");
    // To clients packets are counted as they are sealed: 12 bytes fill each up to sixteen.
    let sealed = number(&said, "throughput_to_client_bps") / speed(&said) * up - down;
    let least = down / (PAYLOAD as u64 + HEADERS) as f64 * 12.0;
    println!("{sealed} bytes fill packets up, of them {least} datagrams\n{said:#}");
    assert!((least * 0.99..least + 3_000.0).contains(&sealed), "{sealed} {least}");
    // At most all of it between two readings; on the mean what was known in all this time.
    let bits = (up + down + sealed) * 8.0;
    assert!(peak <= bits / 9.9 && peak >= bits / known, "{peak} of {bits} in {known} s");
    let mean = speed(&said);
    assert!(mean <= up * 8.0 / 9.9 && mean >= up * 8.0 / known, "{mean}");
    assert_eq!(said["sessions_peak"], 2, "{said:#}");
    let course = said["course"].as_array().unwrap();
    assert!(course.iter().any(|part| part["peak_bps"].as_f64() == Some(peak)), "{said:#}");

    let usage = as_json(&house, "usage --from 1h");
    let [busiest, fullest] = [0, 1].map(|at| &usage["peak_usage"][at]);
    assert_eq!(
        (&busiest["peak_of"], &fullest["peak_of"]),
        (&json!("bandwidth"), &json!("sessions"))
    );
    assert_eq!(busiest["bandwidth_bps"].as_f64(), Some(peak), "{usage:#}");
    assert_eq!(fullest["sessions"], 2, "{usage:#}");
    // Of a time before its start it knows nothing, and says so.
    let empty = as_json(&house, "performance --from 2001-01-01 --to 2001-01-02");
    assert!(empty["throughput_peak_bps"].is_null() && empty["course"] == json!([]), "{empty:#}");
    drop(clients);
}
