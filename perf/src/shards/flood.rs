//! An honest session beside forged initiations: one by one from ever new sources, and merged.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::honest::{Honest, Kept, SEED};
use super::{Outcome, Settings, Spent, float, must};
use crate::fleet::{Forged, Forger, Forgery, Grounds, Roster};
use crate::report::Figure;
use crate::stats::Page;

/// A client that connects for the first time during the flood gets this long.
const NEWCOMER_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let single = settings.size.pick(20_000, 300_000);
    let merged = settings.size.pick(60_000, 1_000_000);
    let forgery = |per_s, merged, right_mac1| Forgery { per_s, merged, right_mac1 };
    let mut outcomes = Vec::new();
    for (what, forgery) in [
        ("single", forgery(single, false, true)),
        ("merged", forgery(merged, true, true)),
        ("single, wrong MAC1", forgery(single, false, false)),
    ] {
        outcomes.extend(beside(settings, what, forgery)?);
    }
    Ok(outcomes)
}

/// What was asked of the gateway and of the honest session while initiations were forged.
struct Flooded {
    forged: Forged,
    kept: Kept,
    newcomer_s: Option<f64>,
    cpu_s: f64,
    before: Page,
    after: Page,
    socket_drops: u64,
}

fn beside(settings: &Settings, what: &str, forgery: Forgery) -> Result<Vec<Outcome>> {
    let grounds = settings.grounds()?;
    let period = Duration::from_secs(settings.size.pick(2, 5));
    let (honest, alone) = Honest::alone(&grounds, settings, period)?;
    let flooded = flooded(&grounds, honest, forgery, period)?;
    let mut first = vec![Figure::told("forged kpps", 0.0)];
    first.extend(alone.figures());
    let mut rows = vec![Outcome {
        variant: settings.variant(&format!("{what}: before")),
        figures: first,
        invariants: alone.unharmed("before the flood"),
    }];
    rows.push(flooded.outcome(settings, what, &alone));
    Ok(rows)
}

fn flooded(
    grounds: &Grounds,
    honest: Honest,
    forgery: Forgery,
    period: Duration,
) -> Result<Flooded> {
    let mut forger = Forger::new(forgery, &grounds.public(), grounds.gateway(), &grounds.line.cli)?;
    let mut newcomer = grounds.fleet(Roster { first: 4 << 20, ..Roster::new(SEED, 1) })?;
    let before = grounds.stats.settled()?;
    let socket_before = grounds.socket_drops()?;
    let spent = Spent::since_now(grounds.pid());
    let ((forged, newcomer_s), kept) = honest.beside(period, || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let forging = scope.spawn(|| forger.run(|| start.elapsed() >= period));
            // Once the flood is there.
            std::thread::sleep(period / 4);
            let connecting = Instant::now();
            let shaken = newcomer.shake(0..1, 1, NEWCOMER_LIMIT.min(period * 4))?;
            let took = (shaken.completed == 1).then(|| connecting.elapsed().as_secs_f64());
            let forged = forging.join().map_err(|_| anyhow!("The forger panicked"))??;
            Ok((forged, took))
        })
    })?;
    let cpu_s = spent.seconds();
    let (after, socket_drops) = (grounds.stats.settled()?, grounds.socket_drops()? - socket_before);
    Ok(Flooded { forged, kept, newcomer_s, cpu_s, before, after, socket_drops })
}

impl Flooded {
    fn outcome(&self, settings: &Settings, what: &str, alone: &Kept) -> Outcome {
        let more = |name| float(self.after.total(name).saturating_sub(self.before.total(name)));
        let mut figures = vec![Figure::told("forged kpps", self.forged.per_second() / 1e3)];
        figures.extend(self.kept.figures());
        figures.extend([
            Figure::told("p99 / before", self.kept.percentile_us(0.99) / alone.percentile_us(0.99)),
            Figure::told("newcomer s", self.newcomer_s.unwrap_or(f64::NAN)),
            Figure::told("gateway core", self.cpu_s / self.forged.wall.as_secs_f64()),
            Figure::told("cookies", more("cookies_sent")),
            Figure::told("socket drops", float(self.socket_drops)),
            Figure::told("turn p99 µs", float(self.after.quantile("turn_ns", "p99")) / 1e3),
        ]);
        let mut invariants = self.kept.unharmed("during the flood");
        invariants.push(must(
            self.newcomer_s.is_some(),
            format!("a client without a session connects during the flood {:?}", self.newcomer_s),
        ));
        Outcome { variant: settings.variant(&format!("{what}: during")), figures, invariants }
    }
}
