//! Thousands of handshakes at once: alone, beside an honest session, and beside a flood as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::honest::{Honest, Kept, SEED};
use super::{Invariant, Outcome, Settings, Spent, float, must};
use crate::fleet::{Fleet, Forger, Forgery, Grounds, Roster, Shaken};
use crate::report::Figure;

/// Everybody must be in by then: what is lost or refused is repeated every 5 s.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let clients = settings.size.pick(500, 10_000);
    let flood = settings.size.pick(20_000, 300_000);
    let mut outcomes = vec![alone(settings, clients, clients)?, alone(settings, clients, 256)?];
    outcomes.push(beside(settings, clients, None)?);
    outcomes.push(beside(settings, clients, Some(flood))?);
    Ok(outcomes)
}

fn crowd(grounds: &Grounds, clients: u32) -> Result<Fleet> {
    grounds.fleet(Roster::new(SEED, clients))
}

/// All at once, or a bounded number under way at a time: what a core can do when nobody pushes.
fn alone(settings: &Settings, clients: u32, at_once: u32) -> Result<Outcome> {
    let grounds = settings.grounds()?;
    let mut fleet = crowd(&grounds, clients)?;
    let spent = Spent::since_now(grounds.pid());
    let shaken = fleet.shake(0..clients, at_once, LIMIT)?;
    let what = match at_once {
        all if all == clients => format!("{clients} at once"),
        some => format!("{clients}, {some} at a time"),
    };
    let effort = Effort::of(&grounds, &spent)?;
    let mut outcome = outcome(settings, &what, &shaken, &effort, None);
    outcome.invariants.push(complete(&what, &shaken));
    Ok(outcome)
}

fn beside(settings: &Settings, clients: u32, flood: Option<u64>) -> Result<Outcome> {
    let grounds = settings.grounds()?;
    let mut fleet = crowd(&grounds, clients)?;
    let honest = Honest::connect(&grounds, settings)?;
    let mut forger = flood
        .map(|per_s| {
            let forgery = Forgery { per_s, merged: false, right_mac1: true };
            Forger::new(forgery, &grounds.public(), grounds.gateway(), &grounds.line.cli)
        })
        .transpose()?;
    let period = Duration::from_secs(settings.size.pick(4, 20));
    let spent = Spent::since_now(grounds.pid());
    let over = AtomicBool::new(false);
    let (shaken, kept) = honest.beside(period, || {
        std::thread::scope(|scope| {
            let forging = forger
                .as_mut()
                .map(|forger| scope.spawn(|| forger.run(|| over.load(Ordering::Acquire))));
            let shaken = fleet.shake(0..clients, clients, LIMIT);
            over.store(true, Ordering::Release);
            if let Some(forging) = forging {
                forging.join().map_err(|_| anyhow!("The forger panicked"))??;
            }
            shaken
        })
    })?;
    let what = match flood {
        Some(_) => format!("{clients} at once, honest session, flood"),
        None => format!("{clients} at once, honest session"),
    };
    let effort = Effort::of(&grounds, &spent)?;
    let mut outcome = outcome(settings, &what, &shaken, &effort, Some(&kept));
    if flood.is_none() {
        outcome.invariants.push(complete(&what, &shaken));
    }
    Ok(outcome)
}

/// What the gateway had to do for it.
struct Effort {
    cpu_s: f64,
    /// Handshake messages that one core handed to another.
    crossed: u64,
    turn_p99_us: f64,
}

impl Effort {
    fn of(grounds: &Grounds, spent: &Spent) -> Result<Self> {
        let cpu_s = spent.seconds();
        let page = grounds.stats.settled()?;
        let turn_p99_us = float(page.quantile("turn_ns", "p99")) / 1e3;
        Ok(Self { cpu_s, crossed: page.total("crossed_in_handshakes"), turn_p99_us })
    }
}

/// Beside a flood that fills the bank of initiations, who is new waits for luck; everybody else
/// must get in.
fn complete(what: &str, shaken: &Shaken) -> Invariant {
    let failed = shaken.failed;
    must(failed == 0, format!("{what}: every handshake completes ({failed} do not)"))
}

fn outcome(
    settings: &Settings,
    what: &str,
    shaken: &Shaken,
    effort: &Effort,
    kept: Option<&Kept>,
) -> Outcome {
    let completed = f64::from(shaken.completed.max(1));
    let ms = |share| shaken.percentile_ms(share).unwrap_or(f64::NAN);
    let mut figures = vec![
        Figure::told("completed", shaken.completed.into()),
        Figure::lower("failed", shaken.failed.into()),
        Figure::lower("handshake p50 ms", ms(0.5)),
        Figure::lower("handshake p99 ms", ms(0.99)),
        Figure::lower("handshake max ms", ms(1.0)),
        Figure::told("repeated", float(shaken.retries)),
        Figure::told("cookies", float(shaken.cookies)),
        Figure::higher("per s", shaken.per_second()),
        Figure::lower("gateway µs each", effort.cpu_s * 1e6 / completed),
        Figure::told("crossings each", float(effort.crossed) / completed),
        Figure::told("turn p99 µs", effort.turn_p99_us),
    ];
    let mut invariants = Vec::new();
    if let Some(kept) = kept {
        figures.extend(kept.figures());
        invariants.extend(kept.unharmed(what));
    }
    Outcome { variant: settings.variant(what), figures, invariants }
}
