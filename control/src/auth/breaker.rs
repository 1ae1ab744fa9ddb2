//! When a back end is left alone: a circuit breaker, pure, with time as an argument.
//!
//! Closed: everything goes through, and failures in a row are counted. Open: nothing goes through
//! for a while, so that clients are told at once instead of at the deadline, and the back end is
//! not hit while it is down. Then one attempt is the probe: if it succeeds all is well, if it fails
//! the while doubles. A back end whose threads all hang is open for as long as they do.

use std::time::{Duration, Instant};

/// Failures in a row that open it. One lost packet is no outage; five in a row are, and by then
/// five clients waited for the deadline.
const FAILURES_MAX: u32 = 5;
/// How long it is left alone at first: about what a restart of a service takes.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// And at most, so that it is found within half a minute when it is back.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The breaker of one back end.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    failures: u32,
    wait: Duration,
    open_until: Option<Instant>,
    probing: bool,
}

/// What an attempt is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Goes through like any other.
    Normal,
    /// Decides whether the back end is back.
    Probe,
    /// Is refused at once.
    Shut,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { failures: 0, wait: WAIT_MIN, open_until: None, probing: false }
    }

    /// What to do with an attempt; after [`Admission::Probe`] the outcome must be told.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        match self.open_until {
            None => Admission::Normal,
            Some(_) if self.probing => Admission::Shut,
            Some(until) if now < until => Admission::Shut,
            Some(_) => {
                self.probing = true;
                Admission::Probe
            }
        }
    }

    /// It answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// It did not, or said that it cannot.
    pub(super) fn failed(&mut self, admission: Admission, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if admission == Admission::Probe {
            self.probing = false;
            self.wait = (self.wait * 2).min(WAIT_MAX);
            self.open_until = Some(now + self.wait);
        } else if self.open_until.is_none() && self.failures >= FAILURES_MAX {
            self.open_until = Some(now + self.wait);
        }
    }

    /// The probe went away without an outcome: another may be one.
    pub(super) fn forgotten(&mut self, admission: Admission) {
        if admission == Admission::Probe {
            self.probing = false;
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_in_between_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                breaker.failed(Admission::Normal, now);
            }
            assert_eq!(breaker.admit(now), Admission::Normal);
            breaker.succeeded();
        }
        for _ in 0..FAILURES_MAX {
            breaker.failed(Admission::Normal, now);
        }
        assert_eq!(breaker.admit(now), Admission::Shut);
        assert!(breaker.is_open());
    }

    #[test]
    fn one_probe_at_a_time_and_the_while_doubles_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES_MAX {
            breaker.failed(Admission::Normal, now);
        }
        let mut wait = WAIT_MIN;
        for _ in 0..8 {
            assert_eq!(breaker.admit(now + wait - Duration::from_millis(1)), Admission::Shut);
            now += wait;
            assert_eq!(breaker.admit(now), Admission::Probe);
            assert_eq!(breaker.admit(now), Admission::Shut);
            breaker.failed(Admission::Probe, now);
            wait = (wait * 2).min(WAIT_MAX);
        }
        assert_eq!(wait, WAIT_MAX);
        now += wait;
        assert_eq!(breaker.admit(now), Admission::Probe);
        breaker.forgotten(Admission::Probe);
        assert_eq!(breaker.admit(now), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.admit(now), Admission::Normal);
        assert!(!breaker.is_open());
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_prolong_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..50 {
            breaker.failed(Admission::Normal, now);
        }
        assert_eq!(breaker.admit(now + WAIT_MIN), Admission::Probe);
    }
}
