//! Simulated runs: whatever the network, the clocks and an attacker do, nothing arrives that may
//! not, and after the storm everything works; with a gateway of one core, of two and of four,
//! however badly the kernel steers.
//!
//! `RINGWAY_SEEDS` says how many seeds (`200`) or which (`1000..5000`, or `42..` for one). A
//! failure names its seed, and the same seed fails the same way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ringway_tests::scenario::Scenario;
use ringway_tests::simulation::World;

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("RINGWAY_SEEDS").unwrap_or_else(|_| "200".to_owned());
    let number = |text: &str| text.parse().expect("RINGWAY_SEEDS is a number or a range");
    match wanted.split_once("..") {
        Some((first, "")) => number(first)..number(first) + 1,
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&wanted),
    }
}

/// What became of many seeds.
#[derive(Default)]
struct Sum {
    sent: usize,
    delivered: usize,
    lost: u64,
    crossed: u64,
    slowest: (Duration, u64),
    failed: Vec<u64>,
}

impl Sum {
    /// Runs one seed with a gateway of so many cores. If it fails, what was wrong has been printed
    /// by then.
    fn run(&mut self, seed: u64, cores: u16) {
        self.run_scenario(Scenario::on(seed, cores));
    }

    fn run_scenario(&mut self, scenario: Scenario) {
        let (seed, cores) = (scenario.seed, scenario.cores);
        let run = AssertUnwindSafe(|| World::new(scenario).run());
        let Ok(outcome) = catch_unwind(run) else {
            eprintln!("seed {seed} failed with {cores} cores");
            self.failed.push(seed);
            return;
        };
        self.sent += outcome.sent;
        self.delivered += outcome.delivered;
        self.lost += outcome.lost;
        self.crossed += outcome.crossed;
        self.slowest = self.slowest.max((outcome.recovery, seed));
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.crossed += other.crossed;
        self.slowest = self.slowest.max(other.slowest);
        self.failed.extend(other.failed);
    }
}

#[test]
fn whatever_happens_nothing_wrong_arrives_and_after_it_everything_works() {
    // Worlds are independent: each CPU takes its share.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        let share = |first| {
            move || {
                let mut sum = Sum::default();
                for seed in seeds().skip(first).step_by(threads) {
                    sum.run(seed, 1);
                    sum.run(seed, if seed % 2 == 0 { 2 } else { 4 });
                }
                sum
            }
        };
        let shares: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        for share in shares {
            sum.add(share.join().expect("failures were caught"));
        }
    });
    let Sum { sent, delivered, lost, crossed, slowest, failed } = sum;
    eprintln!("{sent} packets sent, {delivered} delivered, {lost} datagrams lost on the way");
    eprintln!("{crossed} times something went from one core to another");
    eprintln!("slowest recovery {:?}, seed {}", slowest.0, slowest.1);
    assert!(failed.is_empty(), "seeds {failed:?}; one again: RINGWAY_SEEDS={0}..", failed[0]);
    assert!(crossed > sent as u64 / 10, "cores that never meet prove nothing");
    assert!(delivered > sent / 4, "a world in which nothing works proves nothing");
}

#[test]
fn with_every_offload_and_with_none_nothing_wrong_arrives() {
    for offloads in [true, false] {
        let mut sum = Sum::default();
        for (seed, cores) in (1_000..1_030).zip([1, 2, 4].into_iter().cycle()) {
            sum.run_scenario(Scenario { offloads, ..Scenario::on(seed, cores) });
        }
        assert!(sum.failed.is_empty(), "offloads {offloads}: seeds {:?}", sum.failed);
        assert!(sum.delivered > sum.sent / 4, "a world in which nothing works proves nothing");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for (seed, cores) in (0..12).zip([1, 2, 4].into_iter().cycle()) {
        let first = World::new(Scenario::on(seed, cores)).run();
        assert_eq!(World::new(Scenario::on(seed, cores)).run(), first);
    }
}
