//! The usage report: how many sessions, how much they moved, who moved most, and when.

use std::collections::BTreeMap;

use super::table::Table;
use super::{Cell, Issue, Period, Report, TOP};
use crate::stats::history::{self, Point};
use crate::store::ids::Timestamp;

/// Share of connection attempts that succeed below which an operator should look: in a healthy
/// gateway only noise fails.
const SUCCESS_MIN: f64 = 0.95;

const DAY_MS: i64 = 86_400_000;

/// What the report is made from.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Bytes of each device in the period.
    pub moved: Vec<Moved>,
    /// Sessions that touch the period.
    pub sessions: Vec<Session>,
    /// Sign-ins and handshakes that were refused in the period, by code.
    pub refused: Vec<(&'static str, u64)>,
    /// Sign-ins and handshakes that succeeded.
    pub accepted: u64,
    /// Points of the history in the period, oldest first.
    pub points: Vec<Point>,
    /// Whether where clients are may be kept: without that devices are named by user alone.
    pub no_log: bool,
}

/// What one device moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Name of the user; its identifier if it is gone.
    pub user: String,
    /// Name of the device.
    pub device: String,
    /// Inner bytes from the client.
    pub up_bytes: u64,
    /// Inner bytes to the client.
    pub down_bytes: u64,
}

/// A session in the connection log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Name of its user.
    pub user: String,
    /// When it began.
    pub from: Timestamp,
    /// When it ended, if it did.
    pub to: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// Adds it up.
#[must_use]
pub fn report(period: Period, made: Timestamp, input: &Input) -> Report {
    let sum = |part: fn(&Moved) -> u64| input.moved.iter().map(part).fold(0, u64::saturating_add);
    let (up, down) = (sum(|moved| moved.up_bytes), sum(|moved| moved.down_bytes));
    let refused: u64 = input.refused.iter().map(|(_, count)| count).sum();
    let success = share(input.accepted, input.accepted + refused);
    let all = history::sum(&input.points);
    let latency = all.and_then(|all| all.counted.turn_s());
    let users = by_user(&input.moved);
    let days = whole_days(period, made);
    // Of a part of a day the whole is known, so the mean is over the whole too.
    let average =
        (days.seconds() > 0.0).then(|| up.saturating_add(down) as f64 * 8.0 / days.seconds());
    let values = vec![
        ("total_sessions", "Sessions", Cell::Count(input.sessions.len() as u64)),
        ("users", "Users that moved anything", Cell::Count(users.len() as u64)),
        ("total_bandwidth_bytes", "Moved, both directions", Cell::Bytes(up.saturating_add(down))),
        ("received_bytes", "From clients", Cell::Bytes(up)),
        ("sent_bytes", "To clients", Cell::Bytes(down)),
        ("usage_from", "Moved from, by whole days", Cell::At(days.from)),
        ("usage_to", "Moved before", Cell::At(days.to)),
        (
            "average_bandwidth_bps",
            "Average bandwidth of these days",
            Cell::or(average, Cell::BitsPerSecond, "the time has not come yet"),
        ),
        (
            "average_latency_s",
            "Average latency added by the gateway",
            Cell::or(latency, Cell::Seconds, "nothing was read in this time"),
        ),
        ("success_rate", "Success rate", Cell::or(success, Cell::Share, "nobody tried")),
        ("mean_session_s", "Mean length of a session", mean_length(period, &input.sessions)),
    ];
    let tables = vec![
        peak(&input.points),
        top_users(&users),
        top_devices(&input.moved),
        counts("ended", "Sessions that ended, by reason", &endings(period, &input.sessions)),
        counts("refused", "Refused, by reason", &refusals(&input.refused)),
        Table::absent("top_countries", "Countries", "no database of countries is used"),
        Table::absent("top_applications", "Applications", "traffic is not looked into"),
    ];
    let issues = issues(period, input, success);
    Report { kind: "usage", title: "Usage report", period, made, values, tables, issues }
}

/// The days (UTC) that a period touches, as far as they have passed.
fn whole_days(period: Period, made: Timestamp) -> Period {
    let begins = |moment: Timestamp| moment.0.div_euclid(DAY_MS).saturating_mul(DAY_MS);
    let from = begins(period.from);
    let to = begins(period.to.plus_ms(-1)).saturating_add(DAY_MS);
    Period { from: Timestamp(from), to: Timestamp(to.min(made.0.max(from))) }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Up and down by user.
fn by_user(moved: &[Moved]) -> BTreeMap<&str, (u64, u64)> {
    let mut users: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in moved.iter().filter(|row| row.up_bytes > 0 || row.down_bytes > 0) {
        let (up, down) = users.entry(&row.user).or_default();
        *up = up.saturating_add(row.up_bytes);
        *down = down.saturating_add(row.down_bytes);
    }
    users
}

fn top_users(users: &BTreeMap<&str, (u64, u64)>) -> Table {
    let mut rows: Vec<_> = users.iter().map(|(name, moved)| (*name, *moved)).collect();
    rows.sort_by_key(|(name, (up, down))| (u64::MAX - up.saturating_add(*down), *name));
    let rows = rows.into_iter().take(TOP).map(|(name, (up, down))| {
        vec![Cell::Text(name.to_owned()), Cell::Bytes(up), Cell::Bytes(down)]
    });
    let columns = vec![("user", "User"), ("received_bytes", "From it"), ("sent_bytes", "To it")];
    Table::new("top_users", "Users that moved most", columns, rows.collect())
}

fn top_devices(moved: &[Moved]) -> Table {
    let mut devices: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for row in moved.iter().filter(|row| row.up_bytes > 0 || row.down_bytes > 0) {
        let (up, down) = devices.entry((&row.user, &row.device)).or_default();
        *up = up.saturating_add(row.up_bytes);
        *down = down.saturating_add(row.down_bytes);
    }
    let mut rows: Vec<_> = devices.into_iter().collect();
    rows.sort_by_key(|(name, (up, down))| (u64::MAX - up.saturating_add(*down), *name));
    let rows = rows.into_iter().take(TOP).map(|((user, device), (up, down))| {
        let names = [user, device].map(|name| Cell::Text(name.to_owned()));
        names.into_iter().chain([Cell::Bytes(up), Cell::Bytes(down)]).collect()
    });
    let columns = vec![
        ("user", "User"),
        ("device", "Device"),
        ("received_bytes", "From it"),
        ("sent_bytes", "To it"),
    ];
    Table::new("top_devices", "Devices that moved most", columns, rows.collect())
}

/// The moments of most traffic and of most sessions.
fn peak(points: &[Point]) -> Table {
    if points.is_empty() {
        return Table::absent("peak_usage", "Peaks", "nothing was read in this time");
    }
    // The earliest of several that are as large.
    let busiest = points.iter().rev().max_by_key(|point| point.bps_peak);
    let fullest = points.iter().rev().max_by_key(|point| point.sessions_peak);
    let rows = [("bandwidth", busiest), ("sessions", fullest)];
    let rows = rows.into_iter().filter_map(|(what, point)| {
        let point = point?;
        let bits = Cell::BitsPerSecond(point.bps_peak as f64);
        let sessions = Cell::Count(point.sessions_peak);
        Some(vec![Cell::Text(what.to_owned()), Cell::At(point.at), bits, sessions])
    });
    let columns = vec![
        ("peak_of", "Peak of"),
        ("at", "In the minute or hour from"),
        ("bandwidth_bps", "Bandwidth"),
        ("sessions", "Sessions"),
    ];
    Table::new("peak_usage", "Peaks", columns, rows.collect())
}

/// Only what of a session lies in the period counts.
fn mean_length(period: Period, sessions: &[Session]) -> Cell {
    let within = sessions.iter().map(|session| {
        let end = session.to.unwrap_or(period.to).min(period.to);
        end.since(session.from.max(period.from)).max(0) as f64 / 1e3
    });
    let total: f64 = within.sum();
    let mean = (!sessions.is_empty()).then(|| total / sessions.len() as f64);
    Cell::or(mean, Cell::Seconds, "there were no sessions")
}

fn endings(period: Period, sessions: &[Session]) -> BTreeMap<String, u64> {
    let mut endings = BTreeMap::new();
    let ended = |session: &&Session| session.to.is_some_and(|to| to < period.to);
    for session in sessions.iter().filter(ended) {
        let reason = session.reason.clone().unwrap_or_else(|| "unknown".to_owned());
        *endings.entry(reason).or_default() += 1;
    }
    endings
}

fn refusals(refused: &[(&'static str, u64)]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (code, count) in refused.iter().filter(|(_, count)| *count > 0) {
        *sums.entry((*code).to_owned()).or_default() += count;
    }
    sums
}

/// The largest counts of codes.
fn counts(name: &'static str, title: &'static str, counts: &BTreeMap<String, u64>) -> Table {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|(code, count)| (u64::MAX - **count, *code));
    let rows = rows.into_iter().take(TOP);
    let rows = rows.map(|(code, count)| vec![Cell::Text(code.clone()), Cell::Count(*count)]);
    Table::new(name, title, vec![("reason", "Reason"), ("count", "Times")], rows.collect())
}

fn issues(period: Period, input: &Input, success: Option<f64>) -> Vec<Issue> {
    let mut issues = Vec::new();
    if let Some(rate) = success.filter(|rate| *rate < SUCCESS_MIN) {
        let text = format!(
            "Only {} of attempts to connect succeeded: see what was refused, and why, in the manual",
            Cell::Share(rate)
        );
        issues.push(Issue { code: "low_success_rate", text });
    }
    let seen: u64 = input.points.iter().map(|point| point.seen_ms).fold(0, u64::saturating_add);
    let seen_share = seen as f64 / 1e3 / period.seconds();
    if seen_share < 0.99 {
        let text = format!(
            "Peaks and latency are known for {} of the period only: they are in memory, and a \
             restart begins anew",
            Cell::Share(seen_share.min(1.0))
        );
        issues.push(Issue { code: "history_incomplete", text });
    }
    let quota = input.sessions.iter().filter(|s| s.reason.as_deref() == Some("quota_exceeded"));
    let quota = quota.count();
    if quota > 0 {
        let text = format!("{quota} session(s) ended because a quota was used up");
        issues.push(Issue { code: "quotas_exceeded", text });
    }
    if input.no_log {
        let text =
            "The gateway keeps no log of connections: sessions are those that live".to_owned();
        issues.push(Issue { code: "no_log", text });
    }
    issues
}
