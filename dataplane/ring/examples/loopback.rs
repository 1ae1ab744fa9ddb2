//! Two drivers over loopback: what a datagram costs the thread that sends and the one receiving.
//!
//! `cargo run --release -p ringway-ring --example loopback -- [BYTES [DATAGRAMS-PER-TRAIN
//! [epoll]]]`
//!
//! With one datagram per train nothing is merged on either side; with 46 of 1,420 bytes everything
//! is. Over loopback the sender's thread also pays for the way up to the receiving socket.

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_ring::{
    Backend, DriverConfig, Ecn, EpollDriver, Received, Train, UdpOptions, UdpSockets, UringDriver,
    Wait,
};

const RUN: Duration = Duration::from_secs(2);

/// Trains committed between two turns of the sender.
const TRAINS_PER_TURN: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let bytes: usize = arguments.next().map_or(Ok(1420), |text| text.parse())?;
    let datagrams: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    match arguments.next().as_deref() {
        Some("epoll") => run::<EpollDriver>(bytes, datagrams),
        Some(_) | None => run::<UringDriver>(bytes, datagrams),
    }
}

fn run<B: Backend>(bytes: usize, datagrams: usize) -> Result<(), Box<dyn Error>> {
    let sockets = UdpSockets::bind(&UdpOptions::default())?;
    let to = SocketAddr::from(([127, 0, 0, 1], sockets.port()));
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = {
        let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
        std::thread::spawn(move || receive::<B>(sockets, &stop, &received))
    };
    let sender = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || send::<B>(to, bytes, datagrams, &stop))
    };
    std::thread::sleep(RUN);
    stop.store(true, Ordering::Relaxed);
    for (name, thread) in [("sender", sender), ("receiver", receiver)] {
        let side = thread.join().map_err(|_| format!("the {name} panicked"))??;
        println!(
            "{name}: {:.0} datagrams/s, {:.1} ns of CPU each, {:.1} per turn, {:.2} calls per turn",
            side.datagrams as f64 / RUN.as_secs_f64(),
            side.cpu_ns as f64 / side.datagrams as f64,
            side.datagrams as f64 / side.turns as f64,
            side.enters as f64 / side.turns as f64,
        );
    }
    Ok(())
}

struct Side {
    datagrams: u64,
    turns: u64,
    enters: u64,
    cpu_ns: u64,
}

type SideResult = Result<Side, String>;

fn receive<B: Backend>(sockets: UdpSockets, stop: &AtomicBool, received: &AtomicU64) -> SideResult {
    let mut driver = new_driver::<B>(Some(sockets))?;
    let begin_ns = cpu_ns();
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        driver.turn(Wait::AtMost(Duration::from_millis(50))).map_err(|e| e.to_string())?;
        turns += 1;
        while let Some(next) = driver.next() {
            if let Received::Outside(outside) = next {
                received.fetch_add(outside.len as u64, Ordering::Relaxed);
            }
        }
    }
    let cpu_ns = cpu_ns() - begin_ns;
    let stats = driver.stats();
    Ok(Side { datagrams: stats.outside_datagrams, turns, enters: stats.enters, cpu_ns })
}

fn send<B: Backend>(
    to: SocketAddr,
    bytes: usize,
    datagrams: usize,
    stop: &AtomicBool,
) -> SideResult {
    let sockets = UdpSockets::bind(&UdpOptions::default()).map_err(|e| e.to_string())?;
    let mut driver = new_driver::<B>(Some(sockets))?;
    let begin_ns = cpu_ns();
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..TRAINS_PER_TURN {
            let Some(buf) = driver.reserve_train() else { break };
            let (len, segment_bytes) = (bytes * datagrams, bytes);
            driver.send(Train { buf, len, segment_bytes, to, from: None, ecn: Ecn(0), dscp: 0 });
        }
        driver.turn(Wait::No).map_err(|e| e.to_string())?;
        turns += 1;
    }
    let cpu_ns = cpu_ns() - begin_ns;
    let stats = driver.stats();
    Ok(Side { datagrams: stats.train_datagrams, turns, enters: stats.enters, cpu_ns })
}

fn new_driver<B: Backend>(sockets: Option<UdpSockets>) -> Result<B, String> {
    let config = DriverConfig::new().map_err(|error| error.to_string())?;
    let mut driver = B::make(config).map_err(|error| error.to_string())?;
    driver.set_sockets(sockets).map_err(|error| error.to_string())?;
    Ok(driver)
}

/// CPU time of the calling thread, in nanoseconds.
fn cpu_ns() -> u64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    line.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}
