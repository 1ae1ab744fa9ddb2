//! Two TUNs, one core: what comes out of one goes into the other, super-packets whole.
//!
//! `cargo run --release -p ringway-ring --example tun_pair -- NAME NAME [epoll]` and then give the
//! interfaces addresses in two network namespaces. It ends when an interface is deleted and prints
//! what a packet cost.

#![allow(clippy::print_stdout, reason = "it prints its result")]

use std::error::Error;
use std::time::Duration;

use ringway_ring::{
    Backend, DriverConfig, EpollDriver, Received, TunOptions, TunQueue, UringDriver, Wait,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let names: Vec<String> = words.by_ref().take(2).collect();
    match words.next().as_deref() {
        Some("epoll") => run::<EpollDriver>(&names),
        Some(_) | None => run::<UringDriver>(&names),
    }
}

fn run<B: Backend>(names: &[String]) -> Result<(), Box<dyn Error>> {
    let mut drivers = Vec::new();
    for name in names {
        let mut driver = B::make(DriverConfig::new()?)?;
        driver.set_tun(Some(TunQueue::open(&TunOptions::named(name))?))?;
        drivers.push(driver);
    }
    let [near, far] = &mut drivers[..] else { return Err("two names, please".into()) };
    while near.health().inside.is_none() && far.health().inside.is_none() {
        let idle = Wait::AtMost(Duration::from_micros(200));
        let worked = carry(near, far, Wait::No)?;
        carry(far, near, if worked { Wait::No } else { idle })?;
    }
    for driver in &mut drivers {
        println!("{:#?}", driver.stats());
    }
    Ok(())
}

fn carry<B: Backend>(from: &mut B, to: &mut B, wait: Wait) -> Result<bool, Box<dyn Error>> {
    from.turn(wait)?;
    let mut worked = false;
    while let Some(Received::Inside(inside)) = from.next() {
        worked = true;
        let Some(mut write) = to.reserve_tun() else { break };
        if write.attach(&inside.buf, inside.start, inside.len).is_ok() {
            to.write_tun(write);
        }
    }
    to.turn(Wait::No)?;
    Ok(worked)
}
