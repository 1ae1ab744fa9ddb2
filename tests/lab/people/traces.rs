//! In the mode that keeps no log, a client's address is in no file, whatever is logged.
//!
//! Memory is looked at too, and what is found there is printed: buffers of datagrams and memory
//! that was given back keep what they held until somebody else uses them.

#![allow(clippy::print_stdout, reason = "what memory still has, with the result")]

use std::net::IpAddr;

use ringway_perf::programs::Program;
use ringway_tests::scan::{self, Needle};
use serde_json::json;

use super::house::{House, Plan};
use crate::setup::{LATER, SOON};

#[test]
fn privileged_without_a_log_a_clients_address_is_in_no_file_whatever_is_logged() {
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
    let (left, _) = scan::memory(house.process.pid(), &needles).unwrap();
    println!("{} places after its end", left.len());
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
