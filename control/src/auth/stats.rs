//! What signing in counts: attempts, refusals by reason, and how long each factor takes.
//!
//! Plain atomic counters that only grow; whoever shows them takes a [`Snapshot`]. This module must
//! not know HTTP or the format of metrics beyond its names.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lane::LaneStatus;
use super::queue::Priority;
use super::reason::Reason;
use crate::store::records::Factor;

/// Upper bounds of the latency histogram, in milliseconds. A password takes 20 to 100; remote
/// servers up to the deadline.
pub const LATENCY_BOUNDS_MS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 1000, 5000, 10_000];

/// The counters of one gate.
#[derive(Debug)]
pub struct Stats {
    attempts: AtomicU64,
    accepted: AtomicU64,
    challenged: AtomicU64,
    pending: AtomicU64,
    cached: AtomicU64,
    refused: [AtomicU64; Reason::COUNT],
    latency: [Histogram; Factor::ALL.len()],
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

/// The counters at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Calls, whatever came of them.
    pub attempts: u64,
    /// Sign-ins that succeeded.
    pub accepted: u64,
    /// Calls that ended with a question.
    pub challenged: u64,
    /// Calls that ended with "ask again later".
    pub pending: u64,
    /// Refusals that were remembered instead of looked at again.
    pub cached: u64,
    /// Refusals by reason, in the order of [`Reason::ALL`].
    pub refused: Vec<u64>,
    /// Latency by factor, in the order of [`Factor::ALL`].
    pub latency: Vec<Latency>,
    /// What the back ends are doing.
    pub lanes: Vec<(&'static str, LaneStatus)>,
    /// Sources and users that are kept out now.
    pub bans: usize,
    /// Sign-ins that are half done.
    pub challenges: usize,
}

/// How long a factor took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many were within each bound of [`LATENCY_BOUNDS_MS`] and not the one before; the last
    /// one is beyond all.
    pub buckets: Vec<u64>,
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Default for Stats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            attempts: zero(),
            accepted: zero(),
            challenged: zero(),
            pending: zero(),
            cached: zero(),
            refused: std::array::from_fn(|_| zero()),
            latency: std::array::from_fn(|_| Histogram::default()),
        }
    }
}

impl Stats {
    pub(super) fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn challenge(&self) {
        self.challenged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn pend(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn cached(&self) {
        self.cached.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, reason: Reason) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn took(&self, factor: Factor, time: Duration) {
        let Some(histogram) = self.latency.get(position(factor)) else { return };
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| ms < *bound);
        if let Some(count) = histogram.buckets.get(bucket.unwrap_or(LATENCY_BOUNDS_MS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        histogram.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How often `reason` was given.
    #[must_use]
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(reason as usize).map_or(0, load)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let latency = |histogram: &Histogram| Latency {
            buckets: histogram.buckets.iter().map(load).collect(),
            sum_us: load(&histogram.sum_us),
        };
        Snapshot {
            attempts: load(&self.attempts),
            accepted: load(&self.accepted),
            challenged: load(&self.challenged),
            pending: load(&self.pending),
            cached: load(&self.cached),
            refused: self.refused.iter().map(load).collect(),
            latency: self.latency.iter().map(latency).collect(),
            lanes: Vec::new(),
            bans: 0,
            challenges: 0,
        }
    }
}

impl Snapshot {
    /// Writes the families of metrics as OpenMetrics has them, without the end mark.
    pub fn openmetrics(&self, out: &mut String) {
        let counts = [
            ("attempts", "Sign-in attempts.", self.attempts),
            ("accepted", "Sign-ins that succeeded.", self.accepted),
            ("challenged", "Attempts that ended with a question.", self.challenged),
            ("pending", "Attempts that ended with \"ask again later\".", self.pending),
            ("cached", "Refusals that were remembered.", self.cached),
        ];
        for (name, help, value) in counts {
            head(out, &format!("authentication_{name}"), "counter", help);
            put(out, format_args!("ringway_authentication_{name}_total {value}"));
        }
        head(out, "authentication_refused", "counter", "Refused attempts by reason.");
        for (reason, count) in Reason::ALL.iter().zip(&self.refused) {
            let code = reason.code();
            put(
                out,
                format_args!("ringway_authentication_refused_total{{reason=\"{code}\"}} {count}"),
            );
        }
        self.levels(out);
        self.latencies(out);
    }

    fn levels(&self, out: &mut String) {
        let levels = [
            ("bans", "Sources and users that are kept out.", self.bans),
            ("challenges", "Sign-ins that are half done.", self.challenges),
        ];
        for (name, help, value) in levels {
            head(out, &format!("authentication_{name}"), "gauge", help);
            put(out, format_args!("ringway_authentication_{name} {value}"));
        }
        head(out, "authentication_waiting", "gauge", "Attempts that wait for a thread.");
        for (lane, status) in &self.lanes {
            for (priority, waiting) in Priority::ALL.iter().zip(status.waiting) {
                let priority = priority.word();
                let labels = format!("back_end=\"{lane}\",priority=\"{priority}\"");
                put(out, format_args!("ringway_authentication_waiting{{{labels}}} {waiting}"));
            }
        }
        type Level = fn(&LaneStatus) -> usize;
        let levels: [(&str, &str, Level); 3] = [
            ("in_flight", "Attempts that a thread works on.", |status| status.in_flight),
            ("hanging", "Threads that hang past the deadline.", |status| status.hanging),
            ("shut", "1 while a back end is left alone.", |status| usize::from(status.is_open)),
        ];
        for (name, help, level) in levels {
            head(out, &format!("authentication_{name}"), "gauge", help);
            for (lane, status) in &self.lanes {
                let value = level(status);
                put(
                    out,
                    format_args!("ringway_authentication_{name}{{back_end=\"{lane}\"}} {value}"),
                );
            }
        }
    }

    fn latencies(&self, out: &mut String) {
        let help = "Time that a factor took, waiting included.";
        head(out, "authentication_latency_seconds", "histogram", help);
        let name = "ringway_authentication_latency_seconds";
        for (factor, latency) in Factor::ALL.iter().zip(&self.latency) {
            let label = format!("factor=\"{}\"", factor.word());
            let mut sum = 0;
            let bounds = LATENCY_BOUNDS_MS.iter().map(|ms| (*ms as f64 / 1e3).to_string());
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&latency.buckets) {
                sum += count;
                put(out, format_args!("{name}_bucket{{{label},le=\"{bound}\"}} {sum}"));
            }
            put(out, format_args!("{name}_count{{{label}}} {sum}"));
            let seconds = latency.sum_us as f64 / 1e6;
            put(out, format_args!("{name}_sum{{{label}}} {seconds}"));
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    put(out, format_args!("# TYPE ringway_{name} {kind}\n# HELP ringway_{name} {help}"));
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = writeln!(out, "{line}");
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn position(factor: Factor) -> usize {
    Factor::ALL.iter().position(|other| *other == factor).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let stats = Stats::default();
        stats.attempt();
        stats.refuse(Reason::PasswordWrong);
        stats.took(Factor::Password, Duration::from_millis(30));
        stats.took(Factor::Password, Duration::from_secs(60));
        let mut text = String::new();
        let lanes = vec![("password", LaneStatus { hanging: 2, ..LaneStatus::default() })];
        Snapshot { lanes, ..stats.snapshot() }.openmetrics(&mut text);
        for line in [
            "ringway_authentication_attempts_total 1",
            "ringway_authentication_refused_total{reason=\"password_wrong\"} 1",
            "ringway_authentication_refused_total{reason=\"user_unknown\"} 0",
            "ringway_authentication_hanging{back_end=\"password\"} 2",
            "ringway_authentication_latency_seconds_bucket{factor=\"password\",le=\"0.025\"} 0",
            "ringway_authentication_latency_seconds_bucket{factor=\"password\",le=\"0.05\"} 1",
            "ringway_authentication_latency_seconds_bucket{factor=\"password\",le=\"+Inf\"} 2",
            "ringway_authentication_latency_seconds_count{factor=\"password\"} 2",
            "ringway_authentication_latency_seconds_sum{factor=\"password\"} 60.03",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
        }
    }
}
