//! How long things took, counted by size: for what control does, not for packets.
//!
//! Bounds double from a quarter of a millisecond to above a minute, which tells a hash of a
//! password from a directory that does not answer. Pure: whoever measures brings the time.

use std::time::Duration;

/// Bounds of the buckets; one more bucket holds what is longer.
pub const BOUNDS: usize = 18;

/// The smallest bound, in microseconds.
const SMALLEST_US: u64 = 250;

/// Counts by length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    counts: [u64; BOUNDS + 1],
    sum_us: u64,
}

/// Bound `at`, in seconds: what is not longer is counted in a bucket up to this one.
#[must_use]
pub fn bound_s(at: usize) -> f64 {
    (SMALLEST_US << at) as f64 / 1e6
}

impl Latency {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (0..BOUNDS).find(|at| us <= SMALLEST_US << at).unwrap_or(BOUNDS);
        self.counts[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Counts as many as were counted elsewhere, up to each of these bounds and above the one
    /// before; what is above all of them comes last.
    #[must_use]
    pub fn of(bounds_us: &[u64], counts: &[u64], sum_us: u64) -> Self {
        let mut latency = Self { sum_us, ..Self::default() };
        for (at, count) in counts.iter().enumerate() {
            let bound = bounds_us.get(at).copied().unwrap_or(u64::MAX);
            let bucket = (0..BOUNDS).find(|at| bound <= SMALLEST_US << at).unwrap_or(BOUNDS);
            latency.counts[bucket] += count;
        }
        latency
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    #[must_use]
    pub fn sum_s(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// Mean in seconds; none without any.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_s() / count as f64)
    }

    /// How many took no longer than each bound, and all of them last.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> + '_ {
        let mut sum = 0;
        self.counts.iter().enumerate().map(move |(at, count)| {
            sum += count;
            ((at < BOUNDS).then(|| bound_s(at)), sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_counted_below_the_first_bound_that_holds_it() {
        let mut latency = Latency::default();
        for us in [0, 250, 251, 1_000, 60_000_000, u64::MAX] {
            latency.record(Duration::from_micros(us));
        }
        let seen: Vec<_> = latency.cumulative().collect();
        assert_eq!(seen[0], (Some(0.000_25), 2));
        assert_eq!(seen[1], (Some(0.000_5), 3));
        assert_eq!(seen[2], (Some(0.001), 4));
        assert_eq!(seen[BOUNDS], (None, 6));
        assert_eq!(latency.count(), 6);
        assert!(bound_s(BOUNDS - 1) < 60.0 && bound_s(BOUNDS - 1) > 30.0);
    }

    #[test]
    fn the_mean_is_that_of_what_was_counted() {
        let mut latency = Latency::default();
        assert_eq!(latency.mean_s(), None);
        latency.record(Duration::from_millis(10));
        latency.record(Duration::from_millis(30));
        assert!((latency.mean_s().unwrap() - 0.02).abs() < 1e-9);
    }
}
