//! The performance report: how fast, how loaded, how much was lost, over a time.

use super::table::Table;
use super::{Cell, Issue, Period, Report, TOP};
use crate::stats::history::{self, Point};
use crate::stats::signals::{Signals, share};
use crate::store::ids::Timestamp;

/// Share of packets lost in the gateway above which an operator should look.
const LOSS_MAX: f64 = 0.01;

/// Share of the time that cores work above which bursts wait.
const UTILISATION_MAX: f64 = 0.9;

/// Mean seconds of a turn above which people notice.
const LATENCY_MAX_S: f64 = 0.005;

/// What the report is made from.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Points of the history in the period, oldest first.
    pub points: Vec<Point>,
    /// How the gateway does now.
    pub now: Signals,
    /// Drops since the start, by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Cores that carry traffic.
    pub cores: usize,
    /// How long sign-ins took on average, in seconds, if there were any.
    pub sign_in_s: Option<f64>,
    /// How long the API took on average, in seconds, likewise.
    pub api_s: Option<f64>,
}

const NOTHING: &str = "nothing was read in this time";

/// Adds it up.
#[must_use]
pub fn report(period: Period, made: Timestamp, input: &Input) -> Report {
    let sum = history::sum(&input.points);
    let seen_s = sum.map(|sum| sum.seen_ms as f64 / 1e3).filter(|seen| *seen > 0.0);
    let per_second =
        |part: fn(&Point) -> u64| sum.zip(seen_s).map(|(sum, seen_s)| part(&sum) as f64 / seen_s);
    let bits = |part: fn(&Point) -> u64| per_second(part).map(|bytes| bytes * 8.0);
    let loss = sum.and_then(|sum| share(sum.counted.lost, sum.counted.lost + sum.counted.packets));
    let errors = sum
        .and_then(|sum| share(sum.counted.refused, sum.counted.refused + sum.counted.handshakes));
    let latency = sum.and_then(|sum| sum.counted.turn_s());
    let worst = input.points.iter().filter_map(|point| point.counted.turn_s()).reduce(f64::max);
    let worked = per_second(|point| point.counted.turns_ns);
    let utilisation = worked.map(|ns| (ns / 1e9 / input.cores.max(1) as f64).min(1.0));
    let to_exit = bits(|point| point.counted.to_exit_bytes);
    let to_client = bits(|point| point.counted.to_client_bytes);
    let handshakes = per_second(|point| point.counted.handshakes);
    let peak = sum.map(|sum| sum.bps_peak as f64);
    let sessions = sum.map(|sum| sum.sessions_peak);
    let values = vec![
        (
            "throughput_to_exit_bps",
            "Mean from clients",
            Cell::or(to_exit, Cell::BitsPerSecond, NOTHING),
        ),
        (
            "throughput_to_client_bps",
            "Mean to clients",
            Cell::or(to_client, Cell::BitsPerSecond, NOTHING),
        ),
        (
            "throughput_peak_bps",
            "Largest, both directions",
            Cell::or(peak, Cell::BitsPerSecond, NOTHING),
        ),
        ("sessions_peak", "Most sessions", Cell::or(sessions, Cell::Count, NOTHING)),
        ("handshakes_per_second", "Handshakes", number(handshakes, NOTHING)),
        ("latency_mean_s", "Latency added, mean", Cell::or(latency, Cell::Seconds, NOTHING)),
        (
            "latency_worst_s",
            "Latency added, worst minute or hour",
            Cell::or(worst, Cell::Seconds, NOTHING),
        ),
        ("utilisation", "Time in which cores worked", Cell::or(utilisation, Cell::Share, NOTHING)),
        (
            "packet_loss_rate",
            "Packets lost in the gateway",
            Cell::or(loss, Cell::Share, "no packets"),
        ),
        ("error_rate", "Handshakes refused", Cell::or(errors, Cell::Share, "no handshakes")),
        (
            "sign_in_mean_s",
            "Sign-in, mean",
            Cell::or(input.sign_in_s, Cell::Seconds, "nobody signed in"),
        ),
        ("api_mean_s", "API, mean", Cell::or(input.api_s, Cell::Seconds, "nobody asked")),
    ];
    let issues = issues(loss, utilisation, worst);
    let tables = vec![now(&input.now), drops(&input.drops), course(period, &input.points)];
    Report {
        kind: "performance",
        title: "Performance report",
        period,
        made,
        values,
        tables,
        issues,
    }
}

fn number(value: Option<f64>, why: &'static str) -> Cell {
    Cell::or(value, |value| Cell::Text(format!("{value:.2}")), why)
}

/// The last minute.
fn now(now: &Signals) -> Table {
    const YET: &str = "not known yet";
    let row = |name: &str, cell: Cell| vec![Cell::Text(name.to_owned()), cell];
    let [p50, p95, p99] = [0, 1, 2].map(|at| now.latency_s.map(|quantiles| quantiles[at]));
    let memory = now.memory_per_connection.map(|bytes| bytes as u64);
    let rows = vec![
        row("active connections", Cell::Count(now.active)),
        row("latency added, half below", Cell::or(p50, Cell::Seconds, YET)),
        row("latency added, 95 % below", Cell::or(p95, Cell::Seconds, YET)),
        row("latency added, 99 % below", Cell::or(p99, Cell::Seconds, YET)),
        row("time in which cores work", Cell::or(now.utilisation, Cell::Share, YET)),
        row("memory per connection", Cell::or(memory, Cell::Bytes, "nobody is connected")),
        row(
            "sends without a copy",
            Cell::or(now.zero_copy_efficiency, Cell::Share, "none asked for"),
        ),
    ];
    Table::new("last_minute", "The last minute", vec![("what", ""), ("value", "Value")], rows)
}

fn drops(drops: &[(&'static str, u64)]) -> Table {
    let mut drops: Vec<_> = drops.iter().filter(|(_, count)| *count > 0).collect();
    drops.sort_by_key(|(code, count)| (u64::MAX - count, *code));
    let rows = drops.into_iter().take(TOP);
    let rows = rows.map(|(code, count)| vec![Cell::Text((*code).to_owned()), Cell::Count(*count)]);
    let columns = vec![("reason", "Reason"), ("count", "Packets")];
    Table::new("drops", "Packets dropped since the start, by reason", columns, rows.collect())
}

/// At most this many points, so that a month by the hour and a day by the minute both fit a page.
const COURSE_ROWS: usize = 48;

/// How it went, in parts of the period of the same length.
fn course(period: Period, points: &[Point]) -> Table {
    let length = period.to.since(period.from) / COURSE_ROWS as i64 + 1;
    let part = |point: &Point| point.at.since(period.from).max(0) / length;
    let mut rows: Vec<(i64, Point)> = Vec::new();
    for point in points {
        let number = part(point);
        let merged = rows
            .pop_if(|(last, _)| *last == number)
            .and_then(|(_, last)| history::sum(&[last, *point]));
        rows.push((number, merged.unwrap_or(*point)));
    }
    let rows = rows.into_iter().map(|(_, point)| {
        let mean = point.counted.bytes() as f64 * 8000.0 / point.seen_ms.max(1) as f64;
        vec![
            Cell::At(point.at),
            Cell::BitsPerSecond(mean),
            Cell::BitsPerSecond(point.bps_peak as f64),
            Cell::Count(point.sessions_peak),
            Cell::or(point.counted.turn_s(), Cell::Seconds, "no turns"),
        ]
    });
    let columns = vec![
        ("at", "From"),
        ("mean_bps", "Mean"),
        ("peak_bps", "Peak"),
        ("sessions", "Sessions"),
        ("latency_s", "Latency added"),
    ];
    Table::new("course", "How it went", columns, rows.collect())
}

fn issues(loss: Option<f64>, utilisation: Option<f64>, worst: Option<f64>) -> Vec<Issue> {
    let mut issues = Vec::new();
    if let Some(loss) = loss.filter(|loss| *loss > LOSS_MAX) {
        let text = format!("{} of packets were dropped here: see the reasons", Cell::Share(loss));
        issues.push(Issue { code: "packet_loss", text });
    }
    if let Some(used) = utilisation.filter(|used| *used > UTILISATION_MAX) {
        let text = format!("Cores worked {} of the time: add workers", Cell::Share(used));
        issues.push(Issue { code: "overloaded", text });
    }
    if let Some(worst) = worst.filter(|worst| *worst > LATENCY_MAX_S) {
        let text = format!("Packets waited {} on average at worst", Cell::Seconds(worst));
        issues.push(Issue { code: "slow", text });
    }
    issues
}
