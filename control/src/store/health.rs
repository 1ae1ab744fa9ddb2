//! How the store does, for metrics and for people. This module must not know why anything failed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::StoreError;

/// Upper bounds of [`Health::latency`], in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 8] =
    [500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// How the store does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `sqlite` or `postgresql`.
    pub engine: &'static str,
    /// Whether the last request that needed the store reached it.
    pub is_up: bool,
    /// Requests that wait now.
    pub queued: usize,
    /// Requests that were answered, with success or not.
    pub requests: u64,
    /// Requests that failed, in the order of [`StoreError::REASONS`].
    pub failures: [u64; StoreError::REASONS.len()],
    /// Requests by time from queue to answer: up to each of [`LATENCY_BOUNDS_US`], and above.
    pub latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of these times, in microseconds.
    pub latency_sum_us: u64,
    /// What went wrong with the store last, if anything did.
    pub last_error: Option<String>,
}

/// Counts what is answered.
pub(crate) struct Record {
    state: Mutex<Health>,
}

impl Record {
    pub(crate) const fn new(engine: &'static str) -> Self {
        let state = Health {
            engine,
            is_up: true,
            queued: 0,
            requests: 0,
            failures: [0; StoreError::REASONS.len()],
            latency: [0; LATENCY_BOUNDS_US.len() + 1],
            latency_sum_us: 0,
            last_error: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Notes an answer that took `took`.
    pub(crate) fn note(&self, took: Duration, error: Option<&StoreError>) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.iter().take_while(|bound| took_us > **bound).count();
        let mut state = self.lock();
        state.requests += 1;
        state.latency_sum_us = state.latency_sum_us.saturating_add(took_us);
        if let Some(count) = state.latency.get_mut(bucket) {
            *count += 1;
        }
        let Some(error) = error else {
            state.is_up = true;
            return;
        };
        if let Some(count) = state.failures.get_mut(error.code()) {
            *count += 1;
        }
        state.is_up = !error.is_about_the_store();
        if error.is_about_the_store() {
            state.last_error = Some(error.to_string());
        }
    }

    pub(crate) fn health(&self, queued: usize) -> Health {
        Health { queued, ..self.lock().clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_time_and_reason() {
        let record = Record::new("sqlite");
        record.note(Duration::from_micros(500), None);
        record.note(Duration::from_micros(501), Some(&StoreError::not_found("user", "a")));
        let health = record.health(3);
        assert_eq!((health.is_up, health.queued, health.requests), (true, 3, 2));
        assert_eq!(health.latency[..3], [1, 1, 0]);
        assert_eq!(health.failures[0], 1);
        assert_eq!(health.last_error, None);

        record.note(Duration::from_secs(9), Some(&StoreError::unavailable("gone")));
        let health = record.health(0);
        assert!(!health.is_up);
        assert_eq!(health.latency[LATENCY_BOUNDS_US.len()], 1);
        assert!(health.last_error.unwrap().contains("gone"));
        record.note(Duration::ZERO, None);
        assert!(record.health(0).is_up);
    }
}
