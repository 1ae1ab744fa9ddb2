//! Very many sign-ins from one place.
//!
//! ```text
//!   gw: 127.0.0.2 floods ──┐
//!   gw: 127.0.0.3 signs in ┴ the API on 127.0.0.1
//! ```

#![allow(clippy::print_stdout, reason = "what was measured, with the result")]

use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use ringway_perf::programs::Program;
use ringway_perf::wait::wait_for;
use serde_json::json;

use super::api::{Api, Wire};
use super::house::{House, Plan};
use super::quotas::both;
use crate::setup::SOON;

const PASSWORD: &str = "a quiet harbour at seven";

const PORT: u16 = 8_480;

/// What is offered, in a second.
const OFFERED: u64 = 10_000;

const FLOODERS: u64 = 8;

/// The API over TCP, from this host of the gateway's loopback.
fn from(house: &House, host: u8) -> Api {
    let netns = format!("/run/netns/{}", house.line.gw.name());
    Api::by(move || {
        let netns = std::fs::File::open(&netns)?;
        let dialled = thread::spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
            dial(host)
        });
        let stream = dialled.join().unwrap()?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Box::new(stream) as Box<dyn Wire>)
    })
}

fn dial(host: u8) -> std::io::Result<TcpStream> {
    use std::os::fd::AsRawFd as _;
    let at = |host: u8, port: u16| {
        SockaddrIn::from(SocketAddrV4::new(std::net::Ipv4Addr::new(127, 0, 0, host), port))
    };
    let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(stream.as_raw_fd(), &at(host, 0))?;
    connect(stream.as_raw_fd(), &at(1, PORT))?;
    Ok(stream.into())
}

/// How long sign-ins take, and the median.
fn median(api: &Api, count: usize) -> Duration {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            let form = json!({ "name": "ada", "password": PASSWORD });
            let answer = api.ask("POST", "/api/v1/access/sign-in", Some(&form));
            assert_eq!(answer.status, 200, "{}", answer.text);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[count / 2]
}

#[test]
fn privileged_ten_thousand_sign_ins_a_second_from_one_place_slow_no_other_place_and_no_packet() {
    let config = format!("[api]\nlisten = [\"127.0.0.1:{PORT}\"]\n");
    let house = House::with(Plan { config, ..Plan::default() });
    house.user("ada", json!({ "password": PASSWORD }));
    let laptop = house.device("ada", "laptop");
    let _client = house.join(&laptop, Program::Gotatun, 0);
    let flows = both(&house, &laptop, 2_000_000);
    wait_for("traffic", SOON, || flows.iter().all(|flow| flow.datagrams() > 50)).unwrap();
    let honest = from(&house, 3);
    let calm = median(&honest, 15);

    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|number| {
            let api = from(&house, 2);
            let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
            thread::spawn(move || flood(&api, number, &done, &answered))
        })
        .collect();
    wait_for("the flood to be answered", SOON, || answered.load(Ordering::Acquire) > 500).unwrap();
    let (begun, before) = (Instant::now(), answered.load(Ordering::Acquire));
    let flooded = median(&honest, 15);
    let rate = (answered.load(Ordering::Acquire) - before) as f64 / begun.elapsed().as_secs_f64();
    done.store(true, Ordering::Release);
    flooders.into_iter().for_each(|flooder| flooder.join().unwrap());
    println!(
        "a sign-in takes {calm:?}, beside {rate:.0} of {OFFERED} answered in a second {flooded:?}"
    );
    // Hashing a password takes the same either way; both processors are shared with the flood.
    assert!(flooded < 4 * calm + Duration::from_millis(250), "{calm:?} became {flooded:?}");
    for flow in flows {
        let (sent, arrived) = flow.finish();
        println!("{arrived} of {sent} arrived");
        assert!(arrived * 1_000 >= sent * 999, "the flood cost datagrams: {arrived} of {sent}");
    }
}

/// Offers its share of sign-ins with wrong passwords, as fast as they are answered at most.
fn flood(api: &Api, number: u64, done: &AtomicBool, answered: &AtomicU64) {
    let (begun, mut sent) = (Instant::now(), 0);
    while !done.load(Ordering::Acquire) {
        let due = Duration::from_nanos(sent * 1_000_000_000 * FLOODERS / OFFERED);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let form = json!({ "name": format!("nobody{number}-{sent}"), "password": "wrong horse" });
        let headers = [("content-type", "application/json")];
        let answer = api.try_ask("POST", "/api/v1/access/sign-in", &headers, &form.to_string());
        sent += 1;
        if let Ok(answer) = answer {
            assert_ne!(answer.status, 200);
            answered.fetch_add(1, Ordering::Release);
        }
    }
}
