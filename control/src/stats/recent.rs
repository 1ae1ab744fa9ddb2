//! What happened in the last minute: the difference between two readings of all counters.
//!
//! Rates and shares are not counted anywhere; they follow from counters and time. A reading is
//! taken every [`STEP`], and the window reaches from the newest one back to the one a minute older.
//! Pure: whoever reads the counters brings them with the time.

use std::collections::VecDeque;
use std::time::Duration;

use ringway_dataplane::counters::Field;
use ringway_proto::DropReason;

use super::snapshot::{Histogram, Snapshot, Value, values};

/// How often a reading is taken.
pub const STEP: Duration = Duration::from_secs(10);

/// How far back the window reaches.
pub const SPAN: Duration = Duration::from_secs(60);

/// Readings that are kept: a minute and both ends.
const READINGS: usize = (SPAN.as_secs() / STEP.as_secs()) as usize + 1;

/// All counters at one moment.
#[derive(Clone, Debug)]
struct Reading {
    at: Duration,
    cpu: Duration,
    started: Option<u64>,
    words: Vec<u64>,
}

/// The readings of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    readings: VecDeque<Reading>,
}

/// What happened between two readings.
#[derive(Clone, Debug)]
pub struct Window {
    /// How long it is.
    pub span: Duration,
    /// CPU time of the process in it.
    pub cpu: Duration,
    /// Cores that count.
    pub cores: usize,
    started: Option<u64>,
    layout: Vec<Field>,
    words: Vec<u64>,
}

impl Recent {
    /// Takes a reading at `now`, since any moment that stays the same. `cpu` is the CPU time of the
    /// process so far, `started` the sessions that began so far, if somebody counts them.
    pub fn take(
        &mut self,
        now: Duration,
        cpu: Duration,
        started: Option<u64>,
        snapshot: &Snapshot,
    ) {
        let words = snapshot.total();
        // After an upgrade the layout may be another; old readings say nothing then.
        if self.readings.back().is_some_and(|last| last.words.len() != words.len()) {
            self.readings.clear();
        }
        if self.readings.len() == READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading { at: now, cpu, started, words });
    }

    /// The window from the oldest reading to the newest; none before there are two.
    #[must_use]
    pub fn window(&self, snapshot: &Snapshot) -> Option<Window> {
        let (old, new) = (self.readings.front()?, self.readings.back()?);
        let span = new.at.checked_sub(old.at).filter(|span| !span.is_zero())?;
        let pairs = new.words.iter().zip(&old.words);
        Some(Window {
            span,
            cpu: new.cpu.saturating_sub(old.cpu),
            cores: snapshot.cores.len(),
            started: new.started.zip(old.started).map(|(new, old)| new.saturating_sub(old)),
            layout: snapshot.layout.clone(),
            // A counter that went back belongs to another run: it says nothing.
            words: pairs.map(|(new, old)| new.saturating_sub(*old)).collect(),
        })
    }
}

impl Window {
    /// How much a counter grew; 0 for one that there is not.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        match self.find(name) {
            Some(Value::Number(value)) => value,
            Some(Value::ByReason(counts)) => counts.iter().sum(),
            Some(Value::Histogram(histogram)) => histogram.count(),
            None => 0,
        }
    }

    /// How much a counter grew, per second.
    #[must_use]
    pub fn per_second(&self, name: &str) -> f64 {
        self.counter(name) as f64 / self.span.as_secs_f64()
    }

    /// Sessions that began per second, if somebody counts them.
    #[must_use]
    pub fn established_per_second(&self) -> Option<f64> {
        self.started.map(|started| started as f64 / self.span.as_secs_f64())
    }

    /// The values that a histogram counted.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<Histogram<'_>> {
        match self.find(name)? {
            Value::Histogram(histogram) => Some(histogram),
            Value::Number(_) | Value::ByReason(_) => None,
        }
    }

    /// Drops for the reasons that `wanted` chooses.
    #[must_use]
    pub fn drops(&self, wanted: impl Fn(DropReason) -> bool) -> u64 {
        let Some(Value::ByReason(counts)) = self.find("drops") else { return 0 };
        let pairs = DropReason::ALL.iter().zip(counts);
        pairs.filter(|(reason, _)| wanted(**reason)).map(|(_, count)| count).sum()
    }

    fn find(&self, name: &str) -> Option<Value<'_>> {
        let mut fields = values(&self.layout, &self.words);
        fields.find(|(field, _)| field.name == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::stats::snapshot::samples;

    fn snapshot(bytes: u64) -> Snapshot {
        let mut snapshot = samples::snapshot();
        snapshot.cores[0][0] = bytes;
        snapshot
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_reading_is_no_window() {
        let mut recent = Recent::default();
        assert!(recent.window(&snapshot(0)).is_none());
        recent.take(S, S, None, &snapshot(0));
        assert!(recent.window(&snapshot(0)).is_none());
    }

    #[test]
    fn the_window_is_the_last_minute_however_long_the_gateway_runs() {
        let mut recent = Recent::default();
        for step in 0..100_u64 {
            let now = STEP * step as u32;
            recent.take(now, now / 4, Some(step * 5), &snapshot(1000 * step * step));
        }
        let window = recent.window(&snapshot(0)).unwrap();
        assert_eq!((window.span, window.cpu, window.cores), (SPAN, SPAN / 4, 2));
        assert_eq!(window.counter("to_exit_bytes"), 1000 * (99 * 99 - 93 * 93));
        assert!((window.per_second("to_exit_bytes") - 19_200.0).abs() < 1e-6);
        assert_eq!(window.established_per_second(), Some(0.5));
        assert_eq!(window.counter("drops"), 0);
        assert_eq!(window.histogram("turn_ns").unwrap().count(), 0);
        assert_eq!(window.counter("no_such_counter"), 0);
    }

    #[test]
    fn counters_of_another_run_are_not_taken_for_a_jump() {
        let mut recent = Recent::default();
        recent.take(S, S, None, &snapshot(1_000_000));
        recent.take(2 * S, S, None, &snapshot(10));
        assert_eq!(recent.window(&snapshot(0)).unwrap().counter("to_exit_bytes"), 0);
        let mut other = snapshot(20);
        other.layout.truncate(2);
        recent.take(3 * S, S, None, &other);
        assert!(recent.window(&other).is_none());
    }
}
