//! What it costs traffic that somebody scrapes the metrics: a saturated TCP upload without scrapes,
//! with one a second and with ten a second, interleaved; and what one scrape takes of a processor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::asking::{Until, ask};
use super::house::{House, SEED, ends_cpu};
use crate::fleet::{Fleet, Roster};
use crate::iperf::{Amount, Direction, Run, Server};
use crate::outcomes::{Outcome, Size, float, must};
use crate::report::{Figure, Spread};
use crate::topology::{Family, Place};

/// Time between two scrapes; `None` for nobody who scrapes.
const VARIANTS: [(&str, Option<Duration>); 3] = [
    ("no scrape", None),
    ("a scrape every second", Some(Duration::from_secs(1))),
    ("a scrape every 100 ms", Some(Duration::from_millis(100))),
];

/// What a scrape every second may cost beyond the noise.
const SHARE_MAX: f64 = 0.01;

/// How large one measurement is.
struct Plan {
    rounds: u32,
    run: Run,
}

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let house = House::start("", |_| Ok(()))?;
    let _client = house.stock_client("ada")?;
    let amount = Amount::Seconds { omitted_s: 0, measured_s: size.pick(1, 3) };
    let run = Run { streams: 1, direction: Direction::Up, amount, rate_limit: None };
    let plan = Plan { rounds: size.pick(3, 5), run };
    let mut rows = measure(&house, &plan, 1)?;
    let mut fleet = house.connected("client", Roster::new(SEED, size.pick(50, 1_000)))?;
    let count = fleet.roster().count;
    let (over, sessions) = (AtomicBool::new(false), u64::from(count) + 1);
    let more = std::thread::scope(|scope| {
        let holding = scope.spawn(|| hold(&mut fleet, &over));
        let rows = measure(&house, &plan, sessions);
        over.store(true, Ordering::Release);
        holding.join().map_err(|_| anyhow!("The fleet panicked"))??;
        rows
    })?;
    rows.extend(more);
    Ok(rows)
}

/// Keeps the sessions.
fn hold(fleet: &mut Fleet, over: &AtomicBool) -> Result<()> {
    fleet.keep_alive(0..fleet.roster().count, 25)?;
    while !over.load(Ordering::Acquire) {
        fleet.hold(Duration::from_millis(50))?;
    }
    Ok(())
}

fn measure(house: &House, plan: &Plan, sessions: u64) -> Result<Vec<Outcome>> {
    let to = Place::Destination.address(Family::V4);
    let cpus = ends_cpu().map(|_| "0");
    let server = Server::start(&house.line.dst, to, 5_201, cpus)?;
    let mut costs = [const { Vec::new() }; 3];
    let mut scrapes = [0; 3];
    for _ in 0..plan.rounds {
        for ((variant, (_, period)), scraped) in (0..).zip(VARIANTS).zip(&mut scrapes) {
            let (cost, count) = upload(house, &server, plan.run, period)?;
            costs[variant as usize].push(cost);
            *scraped += count;
        }
    }
    let one = scrape_cost(house)?;
    let spreads: Vec<Spread> = costs.iter().filter_map(|costs| Spread::of(costs)).collect();
    let calm = spreads.first().copied().context("Nothing was uploaded")?;
    // What a scrape takes is far below what one upload differs from the next: those without any
    // tell how much that is.
    let noise = (calm.max - calm.min) / calm.median;
    let rows = VARIANTS.iter().zip(&spreads).zip(scrapes).map(|(((name, period), cost), count)| {
        let more = cost.median / calm.median - 1.0;
        let mut figures = vec![
            Figure::lower("CPU-s per GB", cost.median),
            Figure::told("least", cost.min),
            Figure::told("largest", cost.max),
        ];
        let mut invariants = Vec::new();
        if let Some(period) = period {
            figures.push(Figure::lower("more than without, %", more * 100.0));
            figures.push(Figure::told("noise, %", noise * 100.0));
            figures.push(Figure::told("scrapes", float(count)));
            figures.push(Figure::lower("ms per scrape", one.took_ms));
            figures.push(Figure::lower("CPU-ms per scrape", one.cpu_ms));
            let share = one.cpu_ms / 1e3 / period.as_secs_f64();
            figures.push(Figure::told("share of a core, %", share * 100.0));
            figures.push(Figure::told("kB of an answer", one.bytes / 1e3));
            if period.as_secs() == 1 {
                let says = format!(
                    "{sessions} sessions: a scrape every second costs {:.2} %, noise {:.2} % (at \
                     most 1 % beyond it)",
                    more * 100.0,
                    noise * 100.0
                );
                invariants.push(must(more < SHARE_MAX + noise, says));
                let says = format!(
                    "{sessions} sessions: a scrape every second takes {:.3} % of a core by itself \
                     (at most 1 %)",
                    share * 100.0
                );
                invariants.push(must(share < SHARE_MAX, says));
            }
        }
        let variant = format!("{name}, {sessions} session{}", if sessions == 1 { "" } else { "s" });
        Outcome { variant, figures, invariants }
    });
    Ok(rows.collect())
}

/// One upload: processor seconds of the gateway for each gigabyte, and how often it was scraped.
fn upload(
    house: &House,
    server: &Server,
    run: Run,
    period: Option<Duration>,
) -> Result<(f64, u64)> {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let spent = house.cpu_s();
    let carried = std::thread::scope(|scope| {
        let (over, count) = (&over, &count);
        let scraping = period.map(|period| scope.spawn(move || scrape(house, period, over, count)));
        let carried = server.run(&house.line.cli, run, ends_cpu().map(|_| "0"));
        over.store(true, Ordering::Release);
        if let Some(scraping) = scraping {
            scraping.join().map_err(|_| anyhow!("Whoever scrapes panicked"))??;
        }
        carried
    })?;
    let cost = (house.cpu_s() - spent) / (carried.bytes / 1e9);
    Ok((cost, count.load(Ordering::Acquire)))
}

fn scrape(house: &House, period: Duration, over: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let (api, begun) = (house.dial(), Instant::now());
    while !over.load(Ordering::Acquire) {
        api.call("GET", "/api/v1/metrics", None)?;
        let next = period * (count.fetch_add(1, Ordering::AcqRel) as u32 + 1);
        while begun.elapsed() < next && !over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// One scrape by itself.
struct Scrape {
    took_ms: f64,
    cpu_ms: f64,
    bytes: f64,
}

/// Scrapes often enough that the ticks of the processor's accounting do not matter.
fn scrape_cost(house: &House) -> Result<Scrape> {
    const TIMES: u64 = 200;
    let bytes = house.api.request("GET", "/api/v1/metrics", None)?.text.len() as u64;
    let spent = house.cpu_s();
    let scraped = ask(
        1,
        Until::Asked(TIMES),
        |_| Ok(house.dial()),
        |api, _, _| {
            api.call("GET", "/api/v1/metrics", None)?;
            Ok(())
        },
    )?;
    let cpu_ms = (house.cpu_s() - spent) * 1e3 / float(TIMES);
    Ok(Scrape { took_ms: scraped.ms(0.5), cpu_ms, bytes: float(bytes) })
}
