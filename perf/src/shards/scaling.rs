//! Full load over many sessions, numbered both ways: what a byte costs, how often it crosses cores,
//! and whether order is kept.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::honest::SEED;
use super::{Outcome, Settings, Size, Spent, float, must};
use crate::fleet::far::{FarEnd, blast};
use crate::fleet::{Fleet, Grounds, Load, Roster, pin_this_thread};
use crate::order::OrderReport;
use crate::report::Figure;
use crate::stats::Page;

/// Sessions that share the load: enough for every worker to have some.
const SESSIONS: u32 = 32;

/// Bytes, datagrams in a row, datagrams per second: about what one core of the gateway can do, so
/// that the ends, which share a processor, do not starve each other.
const UP: [(usize, usize, u64); 3] =
    [(1_360, 64, 600_000), (64, 64, 1_500_000), (1_360, 1, 300_000)];
const DOWN: [(usize, usize, u64); 2] = [(1_360, 32, 300_000), (256, 1, 250_000)];

/// Inner port that the far end sends to; nobody listens there but the fleet.
const PORT: u16 = 7_000;

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (size, batch, per_s) in UP {
        outcomes.push(up(settings, size, batch, per_s)?);
    }
    for (size, batch, per_s) in DOWN {
        outcomes.push(down(settings, size, batch, per_s)?);
    }
    if settings.workers > 1 && settings.size == Size::Full && !settings.flags.contains("steering") {
        // What the hand-over costs where nobody steers.
        let flags = format!("{} --steering off", settings.flags);
        let unsteered = Settings { flags, ..settings.clone() };
        let ((up_size, up_batch, up_per_s), (size, batch, per_s)) = (UP[0], DOWN[0]);
        outcomes.push(up(&unsteered, up_size, up_batch, up_per_s)?);
        outcomes.push(down(&unsteered, size, batch, per_s)?);
    }
    Ok(outcomes)
}

/// One direction at full load, between two looks at the counters.
struct Window {
    sent: u64,
    report: OrderReport,
    cpu_s: f64,
    wall_s: f64,
    before: Page,
    after: Page,
}

fn up(settings: &Settings, size: usize, batch: usize, per_s: u64) -> Result<Outcome> {
    let (grounds, mut fleet) = connected(settings)?;
    let far = FarEnd::start(&grounds.line.dst, grounds.far(), settings.ends_cpu())?;
    let load = Load {
        clients: 0..SESSIONS,
        to: far.at(),
        size,
        batch,
        per_s: Some(per_s),
        echo: false,
        period: period(settings),
    };
    let before = grounds.stats.settled()?;
    let spent = Spent::since_now(grounds.pid());
    let start = Instant::now();
    let driven = fleet.drive(&load)?;
    let (cpu_s, wall_s) = (spent.seconds(), start.elapsed().as_secs_f64());
    let report = far.stop()?;
    let after = grounds.stats.settled()?;
    let window = Window { sent: driven.sent, report, cpu_s, wall_s, before, after };
    Ok(window.outcome(settings, "up", size, batch))
}

fn down(settings: &Settings, size: usize, batch: usize, per_s: u64) -> Result<Outcome> {
    let (grounds, mut fleet) = connected(settings)?;
    let to: Vec<SocketAddrV4> =
        (0..SESSIONS).map(|number| SocketAddrV4::new(fleet.roster().inner(number), PORT)).collect();
    let period = period(settings);
    let before = grounds.stats.settled()?;
    let spent = Spent::since_now(grounds.pid());
    let start = Instant::now();
    let (line, from, cpu) = (&grounds.line, grounds.far(), settings.ends_cpu());
    let (sent, report) = std::thread::scope(|scope| {
        let blasting = scope.spawn(move || {
            pin_this_thread(cpu)?;
            blast(&line.dst, from, &to, (size - 28, batch), Some(per_s), period)
        });
        let report = fleet.listen(period)?;
        let sent = blasting.join().map_err(|_| anyhow!("The far end panicked"))??;
        Ok::<_, anyhow::Error>((sent, report))
    })?;
    let (cpu_s, wall_s) = (spent.seconds(), start.elapsed().as_secs_f64());
    let after = grounds.stats.settled()?;
    let window = Window { sent, report, cpu_s, wall_s, before, after };
    Ok(window.outcome(settings, "down", size, batch))
}

fn period(settings: &Settings) -> Duration {
    Duration::from_millis(settings.size.pick(1_500, 4_000))
}

fn connected(settings: &Settings) -> Result<(Grounds, Fleet)> {
    let grounds = settings.grounds()?;
    let mut fleet = grounds.fleet(Roster::new(SEED, SESSIONS))?;
    let shaken = fleet.shake(0..SESSIONS, 8, Duration::from_secs(20))?;
    ensure!(shaken.failed == 0, "{} of {SESSIONS} got no session", shaken.failed);
    // The confirming keepalives have to be there before anything is sent the other way.
    fleet.hold(Duration::from_millis(100))?;
    Ok((grounds, fleet))
}

impl Window {
    fn outcome(&self, settings: &Settings, way: &str, size: usize, batch: usize) -> Outcome {
        let arrived = self.report.arrived;
        let bytes = float(arrived) * float(size as u64);
        let more = |name| self.after.total(name).saturating_sub(self.before.total(name));
        let crossed = more("crossed_in_datagrams") + more("crossed_in_packets");
        let carried = more("to_exit_packets") + more("to_client_packets");
        let twice = self.after.drops("crossed_twice") - self.before.drops("crossed_twice");
        let per_packet = float(crossed) / float(carried.max(1));
        let figures = vec![
            Figure::higher("kpps", float(arrived) / self.wall_s / 1e3),
            Figure::told("Gbit/s", bytes * 8.0 / self.wall_s / 1e9),
            Figure::lower("CPU-s/GB", self.cpu_s / (bytes / 1e9)),
            Figure::lower("µs/packet", self.cpu_s * 1e6 / float(carried.max(1))),
            Figure::told("cores used", self.cpu_s / self.wall_s),
            Figure::lower("crossings/packet", per_packet),
            Figure::lower("late", float(self.report.late)),
            Figure::told("duplicates", float(self.report.duplicates)),
            Figure::told(
                "lost %",
                100.0 * float(self.sent.saturating_sub(arrived)) / float(self.sent.max(1)),
            ),
        ];
        let regime = if batch > 1 { "merged" } else { "single" };
        let what = format!("{way} {size} {regime}");
        let invariants = vec![
            must(arrived > 0, format!("{what}: traffic passes")),
            must(
                self.report.late == 0,
                format!("{what}: order is kept ({} of {arrived} late)", self.report.late),
            ),
            must(self.report.duplicates == 0, format!("{what}: nothing arrives twice")),
            must(per_packet <= 1.0, format!("{what}: at most one crossing ({per_packet:.3})")),
            must(
                crossed == 0 || settings.flags.contains("--steering off"),
                format!("{what}: what the kernel steers does not cross ({crossed})"),
            ),
            must(twice == 0, format!("{what}: nothing crosses twice ({twice})")),
        ];
        Outcome { variant: settings.variant(&what), figures, invariants }
    }
}
