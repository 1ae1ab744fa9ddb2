//! Simulated runs: whatever the network, the clocks and an attacker do, nothing arrives that may
//! not, and after the storm everything works.
//!
//! `RINGWAY_SEEDS` says how many seeds (`200`) or which (`1000..5000`, or `42..` for one). A
//! failure names its seed, and the same seed fails the same way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ringway_tests::scenario::Scenario;
use ringway_tests::simulation::{Outcome, World};

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("RINGWAY_SEEDS").unwrap_or_else(|_| "200".to_owned());
    let number = |text: &str| text.parse().expect("RINGWAY_SEEDS is a number or a range");
    match wanted.split_once("..") {
        Some((first, "")) => number(first)..number(first) + 1,
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&wanted),
    }
}

/// Runs one seed; `None` if it failed. What was wrong has been printed by then.
fn outcome_of(seed: u64) -> Option<Outcome> {
    catch_unwind(AssertUnwindSafe(|| World::new(Scenario::new(seed)).run())).ok()
}

#[test]
fn whatever_happens_nothing_wrong_arrives_and_after_it_everything_works() {
    let (mut sent, mut delivered, mut lost) = (0, 0, 0);
    let mut slowest = (Duration::ZERO, 0);
    let mut failed = Vec::new();
    for seed in seeds() {
        match outcome_of(seed) {
            Some(outcome) => {
                sent += outcome.sent;
                delivered += outcome.delivered;
                lost += outcome.lost;
                slowest = slowest.max((outcome.recovery, seed));
            }
            None => {
                eprintln!("seed {seed} failed");
                failed.push(seed);
            }
        }
    }
    eprintln!("{sent} packets sent, {delivered} delivered, {lost} datagrams lost on the way");
    eprintln!("slowest recovery {:?}, seed {}", slowest.0, slowest.1);
    assert!(failed.is_empty(), "seeds {failed:?}; one again: RINGWAY_SEEDS={0}..", failed[0]);
    assert!(delivered > sent / 4, "a world in which nothing works proves nothing");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..6 {
        let first = World::new(Scenario::new(seed)).run();
        assert_eq!(World::new(Scenario::new(seed)).run(), first);
    }
}
