//! An honest client beside an authenticated one that sends as fast as it can.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::honest::{Honest, Kept, SEED};
use super::{Outcome, Settings, float, must};
use crate::fleet::far::FarEnd;
use crate::fleet::{Fleet, Grounds, Load, Roster};
use crate::report::Figure;
use crate::stats::Page;

const PORT: u16 = 9_011;

/// The stated bound: what the flooder may add to the honest client's 99th percentile, in
/// microseconds. Two full turns of a core under a merged flood, each way.
const ADDED_P99_US_MAX: f64 = 20_000.0;

/// The same where workers, flooder and honest client share two processors, as small runs may: then
/// the scheduler adds its own slices.
const ADDED_P99_US_SHARED_MAX: f64 = 60_000.0;

/// How long the flooder floods beforehand. The first time that a kernel wants so much memory for
/// packets, a virtual machine gets it from its host page by page, and its cores stand still for
/// tens of milliseconds in all, whatever the gateway does.
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (what, size, batch) in
        [("1360 merged", 1_360, 64), ("64 merged", 64, 64), ("256 single", 256, 1)]
    {
        outcomes.extend(beside(settings, what, size, batch)?);
    }
    Ok(outcomes)
}

fn beside(settings: &Settings, what: &str, size: usize, batch: usize) -> Result<[Outcome; 2]> {
    let grounds = settings.grounds()?;
    let period = Duration::from_secs(settings.size.pick(2, 5));
    let (honest, alone) = Honest::alone(&grounds, settings, period)?;
    let mut flooder = flooder(&grounds)?;
    let mut at = grounds.far();
    at.set_port(PORT);
    let load = Load { clients: 0..1, to: at, size, batch, per_s: None, echo: false, period };
    let warming = FarEnd::start(&grounds.line.dst, at, settings.ends_cpu())?;
    flooder.drive(&Load { period: WARM_UP, ..load.clone() })?;
    warming.stop()?;
    let far = FarEnd::start(&grounds.line.dst, at, settings.ends_cpu())?;
    let before = grounds.stats.settled()?;
    let socket_before = grounds.socket_drops()?;
    let (driven, kept) = honest.beside(period, || flooder.drive(&load))?;
    let arrived = far.stop()?;
    let after = grounds.stats.settled()?;

    let more = |of: &dyn Fn(&Page) -> u64| float(of(&after).saturating_sub(of(&before)));
    let lost = driven.sent.saturating_sub(arrived.arrived);
    let added = kept.percentile_us(0.99) - alone.percentile_us(0.99);
    let mut figures =
        vec![Figure::told("flooder kpps", float(driven.sent) / driven.wall.as_secs_f64() / 1e3)];
    figures.extend(kept.figures());
    figures.extend([
        Figure::lower("added p99 µs", added),
        Figure::told("flooder lost %", 100.0 * float(lost) / float(driven.sent.max(1))),
        Figure::told("turn p99 µs", float(after.quantile("turn_ns", "p99")) / 1e3),
        Figure::told("over share", more(&|page| page.drops("over_share"))),
        Figure::told("turns pressed", more(&|page| page.total("turns_pressed"))),
        Figure::told("socket drops", float(grounds.socket_drops()? - socket_before)),
    ]);
    let mut invariants = kept.unharmed(what);
    let small = settings.size == super::Size::Small;
    let most = if small { ADDED_P99_US_SHARED_MAX } else { ADDED_P99_US_MAX };
    invariants.push(must(
        added <= most,
        format!("{what}: the flooder adds {added:.0} µs to the honest p99 (at most {most:.0})"),
    ));
    let mut first = vec![Figure::told("flooder kpps", 0.0)];
    first.extend(alone.figures());
    Ok([
        Outcome {
            variant: settings.variant(&format!("{what}: before")),
            figures: first,
            invariants: alone_unharmed(&alone, what),
        },
        Outcome { variant: settings.variant(&format!("{what}: during")), figures, invariants },
    ])
}

fn alone_unharmed(alone: &Kept, what: &str) -> Vec<super::Invariant> {
    alone.unharmed(&format!("{what}, before"))
}

fn flooder(grounds: &Grounds) -> Result<Fleet> {
    let mut fleet = grounds.fleet(Roster::new(SEED, 1))?;
    let shaken = fleet.shake(0..1, 1, Duration::from_secs(20))?;
    ensure!(shaken.completed == 1, "The flooder got no session");
    Ok(fleet)
}
