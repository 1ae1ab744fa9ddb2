//! Two clocks in one moment: what the calendar says, and how much time has really passed.
//!
//! A date (when a user expires, when a quota begins anew) follows the calendar, also when somebody
//! sets it. A span (a sign-in gives 24 hours) must not: a clock that was set back would prolong
//! every session, one set forward would end them all. So spans are measured on a steady clock which
//! agrees with the calendar at start and then only counts. A step between the two is noticed and
//! reported. This module must not read a clock.

use std::time::Duration;

use crate::store::records::Timestamp;

/// Differences below this are what calendars do when they are disciplined.
const STEP_MS_MIN: i64 = 2_000;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the calendar says. May go backwards.
    pub wall: Timestamp,
    /// The calendar at start plus the time since. Never goes backwards.
    pub steady: Timestamp,
}

/// Makes moments from readings of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The calendar when the gateway started.
    begun: Timestamp,
    /// How far the calendar was from the steady clock when last looked at.
    offset_ms: i64,
}

impl Clocks {
    /// Clocks that agree now.
    #[must_use]
    pub const fn new(wall: Timestamp) -> Self {
        Self { begun: wall, offset_ms: 0 }
    }

    /// The calendar when the gateway started.
    #[must_use]
    pub const fn begun(&self) -> Timestamp {
        self.begun
    }

    /// The moment at which the calendar says `wall` and `running` has passed since the start; and
    /// by how many milliseconds the calendar was set since the moment before, if it was.
    pub fn at(&mut self, wall: Timestamp, running: Duration) -> (Moment, Option<i64>) {
        let passed = i64::try_from(running.as_millis()).unwrap_or(i64::MAX);
        let steady = self.begun.plus_ms(passed);
        let offset = wall.since(steady);
        let step = offset.saturating_sub(self.offset_ms);
        self.offset_ms = offset;
        (Moment { wall, steady }, (step.saturating_abs() >= STEP_MS_MIN).then_some(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_calendar_is_reported_once_and_leaves_the_steady_clock_alone() {
        let mut clocks = Clocks::new(Timestamp(1_000_000));
        let (first, step) = clocks.at(Timestamp(1_001_000), Duration::from_secs(1));
        assert_eq!(
            (first.wall, first.steady, step),
            (Timestamp(1_001_000), Timestamp(1_001_000), None)
        );
        let (second, step) = clocks.at(Timestamp(502_000), Duration::from_secs(2));
        assert_eq!((second.wall, second.steady), (Timestamp(502_000), Timestamp(1_002_000)));
        assert_eq!(step, Some(-500_000));
        let (third, step) = clocks.at(Timestamp(503_000), Duration::from_secs(3));
        assert_eq!((third.steady, step), (Timestamp(1_003_000), None));
    }

    #[test]
    fn a_calendar_that_is_disciplined_is_no_step() {
        let mut clocks = Clocks::new(Timestamp(0));
        for second in 1..1000_i64 {
            let drift = second % 7 * 100;
            let (_, step) =
                clocks.at(Timestamp(second * 1000 + drift), Duration::from_secs(second as u64));
            assert_eq!(step, None, "second {second}");
        }
    }
}
