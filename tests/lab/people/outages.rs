//! The store is locked, full, frozen, dead or not there yet: traffic does not notice, changes are
//! refused whole, and everything heals by itself.

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_perf::process::{Launch, Process, scratch};
use ringway_perf::programs::{Program, unique_interface};
use ringway_perf::wait::{wait_for, wait_until};
use ringway_perf::wg::KeyPair;
use serde_json::json;

use super::api::Answer;
use super::database::Database;
use super::flows::Flow;
use super::house::{Device, House, Plan};
use super::quotas::both;
use crate::product::ringway;
use crate::setup::{LATER, SOON, stock_client};

/// The longest that a store takes to be used again once it is there.
const HEALED: Duration = Duration::from_secs(30);

/// A device with traffic both ways, of which nothing may be lost.
struct Steady {
    flows: [Flow; 2],
}

impl Steady {
    fn of(house: &House, device: &Device) -> Self {
        let flows = both(house, device, 2_000_000);
        wait_for("traffic", SOON, || flows.iter().all(|flow| flow.datagrams() > 50)).unwrap();
        Self { flows }
    }

    /// Waits until some seconds' worth of it has arrived, however the store is.
    fn goes_on(&self) {
        let before = self.flows.each_ref().map(Flow::datagrams);
        wait_for("traffic to go on", LATER, || {
            self.flows.iter().zip(before).all(|(flow, before)| flow.datagrams() > before + 500)
        })
        .unwrap();
    }

    fn finish(self, what: &str) {
        for flow in self.flows {
            let (sent, arrived) = flow.finish();
            println!("{what}: {arrived} of {sent} arrived");
            assert_eq!(sent, arrived, "{what} cost datagrams");
        }
    }
}

/// Tries to make a user.
fn make(house: &House, name: &str) -> Answer {
    house.api.ask("POST", "/api/v1/users", Some(&json!({ "name": name })))
}

/// Whether there is this user, as soon as anybody can say.
fn exists(house: &House, name: &str) -> bool {
    // What reads the store has a connection of its own, which may heal a moment later.
    wait_until("the store to be read", HEALED, || {
        match house.api.ask("GET", &format!("/api/v1/users/{name}"), None).status {
            200 => Some(true),
            404 => Some(false),
            _ => None,
        }
    })
    .unwrap()
}

/// Changes are refused with 503 and a reason while `house` has no store.
fn is_refused(house: &House, reasons: &[&str]) {
    for number in 0..3 {
        let answer = make(house, &format!("lost{number}"));
        assert!([503, 507].contains(&answer.status), "{}: {}", answer.status, answer.text);
        println!("{} {}", answer.status, answer.json()["detail"]);
        assert!(reasons.contains(&answer.reason().as_str()), "{}", answer.text);
    }
}

/// By itself, and nothing of what was refused is there.
fn is_healed(house: &House, name: &str) {
    wait_until("a change to be taken", HEALED, || {
        let answer = make(house, name);
        (answer.status == 201).then_some(())
    })
    .unwrap();
    assert!(exists(house, name));
    for number in 0..3 {
        assert!(!exists(house, &format!("lost{number}")), "a refused change took effect");
    }
}

/// Holds the lock of a SQLite file until it is dropped.
fn lock(file: &std::path::Path) -> Process {
    let script = "import sqlite3, sys, time\n\
        c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        c.execute('begin immediate')\n\
        print('locked', flush=True)\n\
        time.sleep(600)\n";
    let process = Launch::new("python3").args(["-c", script]).arg(file).spawn().unwrap();
    wait_for("the lock", SOON, || process.output().contains("locked"))
        .unwrap_or_else(|e| panic!("{e}: {}", process.errors()));
    process
}

#[test]
fn privileged_a_locked_sqlite_file_costs_no_packet_and_refuses_changes_until_it_is_free() {
    let house = House::new();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, Program::Gotatun, 0);
    house.expect_session(&laptop);
    let steady = Steady::of(&house, &laptop);
    let held = lock(&house.state.join("ringway.db"));
    is_refused(&house, &["store-busy", "store-timeout", "store-unavailable"]);
    assert!(exists(&house, "ada"), "what is known can be read");
    steady.goes_on();
    drop(held);
    is_healed(&house, "eve");
    steady.finish("a locked store");
    // What was used meanwhile is entered.
    wait_for("the ledger", SOON, || house.used("ada").0 > 100_000).unwrap();
}

#[test]
fn privileged_a_full_disk_costs_no_packet_and_refuses_changes_until_there_is_room() {
    let state = scratch().unwrap().join(format!("full-{}", unique_interface()));
    fs::create_dir_all(&state).unwrap();
    let mounted = Mount::tmpfs(&state, "3m");
    let house = House::with(Plan { state: Some(state.clone()), ..Plan::default() });
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, stock_client(), 0);
    house.expect_session(&laptop);
    let steady = Steady::of(&house, &laptop);
    let ballast = state.join("ballast");
    // As much as fits: writing ends with an error.
    let _ = fs::write(&ballast, vec![1; 4 << 20]);
    wait_for("a change to be refused", HEALED, || {
        make(&house, "filler").status != 201 || {
            house.api.delete("/api/v1/users/filler");
            false
        }
    })
    .unwrap();
    is_refused(&house, &["storage-full", "store-full", "store-unavailable", "store-busy"]);
    steady.goes_on();
    fs::remove_file(&ballast).unwrap();
    is_healed(&house, "eve");
    steady.finish("a full disk");
    drop(house);
    drop(mounted);
}

/// A file system that goes away with its owner.
struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: &std::path::Path, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        Launch::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).run().unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Launch::new("umount").arg("-l").arg(&self.0).run();
    }
}

#[test]
fn privileged_postgresql_that_stands_still_or_dies_costs_no_packet_and_heals_by_itself() {
    let mut database = Database::new();
    database.start();
    let config = database.config();
    let mut house = House::with(Plan { config, ..Plan::default() });
    house.host();
    house.user("ada", json!({}));
    let [laptop, phone] = ["laptop", "phone"].map(|name| house.device("ada", name));
    let _client = house.join(&laptop, Program::Gotatun, 0);
    house.expect_session(&laptop);
    let reasons = ["store-timeout", "store-unavailable", "store-busy"];

    let steady = Steady::of(&house, &laptop);
    database.signal(Signal::SIGSTOP);
    is_refused(&house, &reasons);
    // A device that is known comes in while the store does not answer.
    let _second = house.join(&phone, stock_client(), 1);
    house.expect_session(&phone);
    database.signal(Signal::SIGCONT);
    is_healed(&house, "eve");
    database.kill();
    is_refused(&house, &reasons);
    steady.goes_on();
    database.start();
    is_healed(&house, "mallory");
    steady.finish("a store that stood still and died");
    let before = house.used("ada");

    // And the gateway is started while it is down: who is in its file is served.
    let file = ringway(&house.line, &house.state, &["peer", "add", "guest"]).run().unwrap();
    let unused = KeyPair::generate().unwrap();
    let guest = Device::new("", "guest", unused, &file);
    let host = house.host();
    database.kill();
    house.process.kill();
    house.start();
    let _guest = house.join(&guest, Program::Gotatun, host);
    assert!(!house.answers(0), "nobody of the store is known yet");
    database.start();
    house.is_served();
    house.until_answered(0, LATER);
    wait_for("the ledger", SOON, || house.used("ada").0 >= before.0).unwrap();
}
