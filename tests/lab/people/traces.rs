//! In the mode that keeps no log, a client's address is in no file, whatever is logged; and when
//! its access has ended, nowhere in the memory of the gateway either.

#![allow(clippy::print_stdout, reason = "what memory had, with the result")]

use std::net::IpAddr;

use ringway_perf::programs::Program;
use ringway_perf::wait::wait_for;
use ringway_tests::scan::{self, Needle};
use serde_json::json;

use super::house::{House, Plan};
use super::quotas::both;
use crate::setup::{LATER, SOON};

#[test]
fn privileged_without_a_log_a_clients_address_is_in_no_file_and_soon_in_no_memory() {
    let config = "[log]\nlevel = \"trace\"\nconnections = \"no-log\"\nfile = \"gateway.log\"\n";
    let mut house = House::with(Plan { config: config.to_owned(), ..Plan::default() });
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    // The client comes from an address that stands nowhere by chance.
    let address = scan::distinctive();
    let (cli, gw) = (&house.line.cli, &house.line.gw);
    cli.address("out", &[&format!("{address}/32")]).unwrap();
    cli.ip(&format!("route replace 10.91.1.1 dev out src {address}")).unwrap();
    gw.ip(&format!("route replace {address} dev out")).unwrap();
    let client = house.join(&laptop, Program::Gotatun, 0);
    let session = house.expect_session(&laptop);
    println!("while it lives: {}", session["endpoint"]);
    house.until_answered(0, SOON);
    // Not only handshakes and pings: many buffers have had it.
    let flows = both(&house, &laptop, 16_000_000);
    wait_for("a mebibyte each way", LATER, || flows.iter().all(|flow| flow.bytes() > 1 << 20))
        .unwrap();
    drop(flows);
    let needles = scan::needles(IpAddr::V4(address));
    // What looks can find it: while the session lives, its address is needed.
    let (alive, bytes) = scan::memory(house.process.pid(), &needles).unwrap();
    println!("{bytes} bytes of memory, {} places while the session lives", alive.len());
    assert!(!alive.is_empty(), "the address of a live session is somewhere");
    is_in_no_file(&house, &needles);

    drop(client);
    house.api.put("/api/v1/users/ada/state", &json!({ "state": "disabled" }));
    house.expect_no_session(&laptop, LATER);
    house.api.delete("/api/v1/users/ada");
    let mut left = Vec::new();
    wait_for("the gateway to forget it", SOON, || {
        left = scan::memory(house.process.pid(), &needles).unwrap().0;
        left.is_empty()
    })
    .unwrap_or_else(|error| panic!("{error}: {left:#?}"));
    is_in_no_file(&house, &needles);
    house.process.stop();
    is_in_no_file(&house, &needles);
}

/// State, run and log folders, and what the process printed.
fn is_in_no_file(house: &House, needles: &[Needle]) {
    let run = std::fs::read_dir("/run/ringway").unwrap().flatten();
    let mine = run.filter(|entry| entry.file_name().to_string_lossy().contains(&house.interface));
    let mut roots: Vec<_> = mine.map(|entry| entry.path()).collect();
    roots.push(house.state.clone());
    let roots: Vec<_> = roots.iter().map(AsRef::as_ref).collect();
    let found = scan::files(&roots, needles).unwrap();
    assert!(found.is_empty(), "{found:#?}");
    let said = house.process.output() + &house.process.errors();
    let text = scan::distinctive().to_string();
    assert!(!said.contains(&text), "{said}");
}
