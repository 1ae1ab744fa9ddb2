//! How it was: what moved in each minute of the last day and each hour of the last month.
//!
//! Counters only grow; here their growth is kept by the time in which it happened, in two rings
//! that never become longer. It is in memory: a restart begins anew, and what must survive one is
//! in the records. Pure: time is an argument.

use std::collections::VecDeque;

use super::signals::is_handshake;
use super::snapshot::{Snapshot, Value, reasons, values};
use crate::store::ids::Timestamp;

/// Minutes that are kept: a day.
pub const MINUTES: usize = 24 * 60;

/// Hours that are kept: thirty days.
pub const HOURS: usize = 30 * 24;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// What the counters said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clients with a session, at this moment.
    pub sessions: u64,
    /// Inner bytes towards exits.
    pub to_exit_bytes: u64,
    /// Inner bytes towards clients.
    pub to_client_bytes: u64,
    /// Inner packets of both directions.
    pub packets: u64,
    /// Packets that ended in the gateway.
    pub lost: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Handshakes refused.
    pub refused: u64,
    /// Turns in which cores worked.
    pub turns: u64,
    /// Nanoseconds they took.
    pub turns_ns: u64,
}

/// What happened in a minute or an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// When it began.
    pub at: Timestamp,
    /// Milliseconds of it that were seen.
    pub seen_ms: u64,
    /// Most sessions at a reading.
    pub sessions_peak: u64,
    /// Largest inner bits per second between two readings, both directions together.
    pub bps_peak: u64,
    /// What was counted; `sessions` is the last reading.
    pub counted: Totals,
}

/// The two rings.
#[derive(Debug, Default)]
pub struct History {
    minutes: VecDeque<Point>,
    hours: VecDeque<Point>,
    last: Option<(Timestamp, Totals)>,
}

impl Totals {
    /// What a snapshot says.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let total = snapshot.total();
        let mut sum = Self::default();
        for (field, value) in values(&snapshot.layout, &total) {
            match (field.name, value) {
                ("sessions", Value::Number(value)) => sum.sessions = value,
                ("to_exit_bytes", Value::Number(value)) => sum.to_exit_bytes = value,
                ("to_client_bytes", Value::Number(value)) => sum.to_client_bytes = value,
                ("to_exit_packets" | "to_client_packets", Value::Number(value)) => {
                    sum.packets += value;
                }
                ("handshakes_completed_responder", Value::Number(value)) => sum.handshakes = value,
                ("turn_ns", Value::Histogram(turns)) => {
                    (sum.turns, sum.turns_ns) = (turns.count(), turns.sum);
                }
                ("drops", Value::ByReason(counts)) => {
                    for (reason, count) in reasons(counts) {
                        let part =
                            if is_handshake(reason) { &mut sum.refused } else { &mut sum.lost };
                        *part += count;
                    }
                }
                _ => {}
            }
        }
        sum
    }

    /// Growth since `earlier`. What went back belongs to another run and counts from its zero.
    fn since(self, earlier: Self) -> Self {
        let grown = |new: u64, old: u64| if new >= old { new - old } else { new };
        Self {
            sessions: self.sessions,
            to_exit_bytes: grown(self.to_exit_bytes, earlier.to_exit_bytes),
            to_client_bytes: grown(self.to_client_bytes, earlier.to_client_bytes),
            packets: grown(self.packets, earlier.packets),
            lost: grown(self.lost, earlier.lost),
            handshakes: grown(self.handshakes, earlier.handshakes),
            refused: grown(self.refused, earlier.refused),
            turns: grown(self.turns, earlier.turns),
            turns_ns: grown(self.turns_ns, earlier.turns_ns),
        }
    }

    /// Both together; sessions are those of `later`.
    const fn plus(self, later: Self) -> Self {
        Self {
            sessions: later.sessions,
            to_exit_bytes: self.to_exit_bytes.saturating_add(later.to_exit_bytes),
            to_client_bytes: self.to_client_bytes.saturating_add(later.to_client_bytes),
            packets: self.packets.saturating_add(later.packets),
            lost: self.lost.saturating_add(later.lost),
            handshakes: self.handshakes.saturating_add(later.handshakes),
            refused: self.refused.saturating_add(later.refused),
            turns: self.turns.saturating_add(later.turns),
            turns_ns: self.turns_ns.saturating_add(later.turns_ns),
        }
    }

    /// Inner bytes of both directions.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.to_exit_bytes.saturating_add(self.to_client_bytes)
    }

    /// Mean seconds of a turn.
    #[must_use]
    pub fn turn_s(&self) -> Option<f64> {
        (self.turns > 0).then(|| self.turns_ns as f64 / self.turns as f64 / 1e9)
    }
}

impl Point {
    fn plus(&mut self, later: &Self) {
        self.seen_ms += later.seen_ms;
        self.sessions_peak = self.sessions_peak.max(later.sessions_peak);
        self.bps_peak = self.bps_peak.max(later.bps_peak);
        self.counted = self.counted.plus(later.counted);
    }
}

impl History {
    /// Takes a reading at `now`. The first one, and one after the clock went back, only begins.
    pub fn feed(&mut self, now: Timestamp, totals: Totals) {
        let last = self.last.replace((now, totals));
        let Some((before, earlier)) = last.filter(|(before, _)| before < &now) else { return };
        let seen_ms = now.since(before).unsigned_abs();
        let counted = totals.since(earlier);
        let bps = u128::from(counted.bytes()) * 8000 / u128::from(seen_ms.max(1));
        let bps_peak = u64::try_from(bps).unwrap_or(u64::MAX);
        let sessions_peak = totals.sessions;
        let point = |at| Point { at, seen_ms, sessions_peak, bps_peak, counted };
        let begins = |length: i64| Timestamp(now.0.div_euclid(length) * length);
        add(&mut self.minutes, point(begins(MINUTE_MS)), MINUTES);
        add(&mut self.hours, point(begins(HOUR_MS)), HOURS);
    }

    /// Points that begin from `from` on and before `to`: minutes if they reach back that far or
    /// nearly, else hours.
    #[must_use]
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Vec<Point> {
        let reaches = self.minutes.front().is_some_and(|first| first.at.since(from) < HOUR_MS)
            || self.minutes.len() < MINUTES;
        let ring = if reaches { &self.minutes } else { &self.hours };
        ring.iter().filter(|point| from <= point.at && point.at < to).copied().collect()
    }

    /// The last minutes, oldest first.
    pub fn minutes(&self) -> impl Iterator<Item = &Point> {
        self.minutes.iter()
    }

    /// The last hours, oldest first.
    pub fn hours(&self) -> impl Iterator<Item = &Point> {
        self.hours.iter()
    }
}

fn add(ring: &mut VecDeque<Point>, point: Point, kept: usize) {
    match ring.back_mut() {
        // A clock that went back a little adds to what is there.
        Some(last) if last.at >= point.at => last.plus(&point),
        Some(_) | None => {
            if ring.len() == kept {
                ring.pop_front();
            }
            ring.push_back(point);
        }
    }
}

/// All points together; none without any.
#[must_use]
pub fn sum(points: &[Point]) -> Option<Point> {
    let mut points = points.iter();
    let mut sum = *points.next()?;
    points.for_each(|point| sum.plus(point));
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp(1_796_000_040_000 + ms)
    }

    fn totals(bytes: u64, sessions: u64) -> Totals {
        Totals { sessions, to_exit_bytes: bytes, handshakes: bytes / 1000, ..Totals::default() }
    }

    #[test]
    fn growth_is_kept_by_the_minute_in_which_it_happened() {
        let mut history = History::default();
        for step in 0..=12_u64 {
            history.feed(at(10_000 * step as i64), totals(step * step * 1000, step));
        }
        let minutes: Vec<_> = history.minutes().collect();
        assert_eq!(minutes.len(), 3);
        assert_eq!(minutes[0].at, at(0));
        // The reading at 60 s closes what happened before it, and is in the minute it is taken in.
        assert_eq!(minutes[0].counted.to_exit_bytes, 25_000);
        assert_eq!(minutes[0].seen_ms, 50_000);
        assert_eq!(minutes[1].counted.to_exit_bytes, 121_000 - 25_000);
        assert_eq!(minutes[1].sessions_peak, 11);
        assert_eq!(minutes[1].bps_peak, 21_000 * 8 / 10);
        assert_eq!(history.hours().count(), 1);
        assert_eq!(sum(&history.between(at(0), at(1 << 40))).unwrap().counted.bytes(), 144_000);
    }

    #[test]
    fn a_month_fits_and_no_more() {
        let mut history = History::default();
        let hours = HOURS as i64 + 10;
        for minute in 0..hours * 60 {
            history.feed(at(minute * MINUTE_MS), totals(minute as u64 * 60, 1));
        }
        assert_eq!((history.minutes().count(), history.hours().count()), (MINUTES, HOURS));
        let day = history.between(at((hours - 23) * HOUR_MS), at(hours * HOUR_MS));
        assert_eq!(day.len(), 23 * 60, "a day by the minute");
        let week = history.between(at((hours - 168) * HOUR_MS), at(hours * HOUR_MS));
        assert!((167..=169).contains(&week.len()), "a week by the hour: {}", week.len());
    }

    #[test]
    fn a_restart_or_a_clock_that_goes_back_is_no_jump() {
        let mut history = History::default();
        history.feed(at(0), totals(1_000_000, 1));
        history.feed(at(10_000), totals(500, 1));
        assert_eq!(history.minutes().next().unwrap().counted.to_exit_bytes, 500);
        history.feed(at(5_000), totals(700, 1));
        history.feed(at(15_000), totals(900, 1));
        assert_eq!(history.minutes().next().unwrap().counted.to_exit_bytes, 700);
        assert_eq!(history.minutes().count(), 1);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_counted_twice(
            steps in proptest::collection::vec((1..100_000_i64, 0..1_000_000_u64), 2..200)
        ) {
            let mut history = History::default();
            let (mut now, mut bytes) = (0, 0);
            let mut first = None;
            for (ms, more) in steps {
                (now, bytes) = (now + ms, bytes + more);
                first.get_or_insert(bytes);
                history.feed(at(now), totals(bytes, 1));
            }
            let all = |points: Vec<Point>| sum(&points).map_or(0, |sum| sum.counted.bytes());
            let expected = bytes - first.unwrap_or(0);
            prop_assert_eq!(all(history.hours().copied().collect()), expected);
            prop_assert_eq!(all(history.minutes().copied().collect()), expected);
        }
    }
}
