//! Whether a core is under load, so that initiations need a cookie before any curve work (section
//! 5.3).
//!
//! The paper leaves open what load is. A long queue alone is none here: after a power cut thousands
//! of honest clients come at once, and who is sent for a cookie comes back five seconds later,
//! while the core could have answered all of them within two. So a queue is load when much of the
//! work on it turns out to be worthless, as it does in a flood of forged or repeated initiations,
//! or when it takes more than a second whatever is in it.

use std::time::Duration;

use crate::Instant;
use crate::limits::HANDSHAKES_QUEUED_MAX;

/// How long a core stays under load after it was last under it.
pub const UNDER_LOAD_FOR: Duration = Duration::from_secs(1);

/// Handshake messages waiting from which a core is under load if working on them is wasted (an
/// eighth of the queue of the kernel's implementation, where a core is under load from there on).
pub const UNDER_LOAD_FROM: usize = 512;

/// Handshake messages waiting from which a core is under load in any case: at 8,000 a second, a
/// second and a half of work; ten thousand clients at once are fewer.
pub const CROWDED_FROM: usize = HANDSHAKES_QUEUED_MAX / 4 * 3;

/// How long work is remembered.
const WINDOW: Duration = Duration::from_secs(1);

/// Worthless messages within a window that may be chance. A flood is known after ten turns.
pub const WASTED_MIN: u32 = 40;

/// One worthless message in so many is too much. In a crowd there are always some whose key was
/// withdrawn or whose clock was set back: where these are one in seven, chance makes a quarter of
/// them less than once in a hundred crowds.
const WASTED_SHARE: u32 = 4;

/// Whether a core is under load. Global to the core, never per source: a flood from spoofed
/// addresses has to bring cookies out too.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadGauge {
    until: Option<Instant>,
    /// Messages without a cookie since the load began or was last prolonged.
    turned_away: usize,
    /// When what was worked on is forgotten.
    window_ends: Instant,
    /// Messages on which curve work was spent in this window.
    worked: u32,
    /// Those of them that led to nothing.
    wasted: u32,
}

impl LoadGauge {
    /// Tells the length of the queue and asks whether the core is under load.
    pub fn observe(&mut self, queued: usize, now: Instant) -> bool {
        if queued >= CROWDED_FROM || queued >= UNDER_LOAD_FROM && self.wastes(now) {
            self.prolong(now);
        }
        self.until.is_some_and(|until| now < until)
    }

    /// Curve work was spent on a message, and led to nothing if it was `wasted`.
    pub fn worked(&mut self, wasted: bool, now: Instant) {
        if now >= self.window_ends {
            (self.worked, self.wasted) = (0, 0);
            self.window_ends = now + WINDOW;
        }
        self.worked += 1;
        self.wasted += u32::from(wasted);
    }

    /// A message that had no cookie was turned away, under load: it takes no place in the queue,
    /// but as many as would fill it that far are load all the same.
    pub fn turned_away(&mut self, now: Instant) {
        self.turned_away += 1;
        if self.turned_away >= UNDER_LOAD_FROM {
            self.prolong(now);
        }
    }

    /// When the load ends, or ended, if there was one.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    fn wastes(&self, now: Instant) -> bool {
        let enough = self.wasted >= WASTED_MIN && self.wasted * WASTED_SHARE >= self.worked;
        enough && now < self.window_ends
    }

    fn prolong(&mut self, now: Instant) {
        self.until = Some(now + UNDER_LOAD_FOR);
        self.turned_away = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000_000 + ms * 1_000_000)
    }

    /// A gauge that has seen so much work, and so much of it wasted.
    fn gauge(worked: u32, wasted: u32, now: Instant) -> LoadGauge {
        let mut gauge = LoadGauge::default();
        (0..worked).for_each(|number| gauge.worked(number < wasted, now));
        gauge
    }

    #[test]
    fn load_begins_with_many_worthless_messages_and_lasts_a_second_after_them() {
        let mut gauge = gauge(40, 40, at_ms(0));
        assert!(!gauge.observe(UNDER_LOAD_FROM - 1, at_ms(0)));
        assert!(gauge.observe(UNDER_LOAD_FROM, at_ms(10)));
        assert!(gauge.observe(0, at_ms(1009)));
        assert!(!gauge.observe(0, at_ms(1010)));
        assert_eq!(UNDER_LOAD_FROM, 512);
    }

    #[test]
    fn a_crowd_of_honest_clients_is_load_only_when_it_takes_more_than_a_second() {
        for (worked, wasted) in [(0, 0), (39, 39), (1_000, 40), (1_000, 249)] {
            let mut gauge = gauge(worked, wasted, at_ms(0));
            assert!(!gauge.observe(CROWDED_FROM - 1, at_ms(1)), "{wasted} of {worked} wasted");
            assert!(gauge.observe(CROWDED_FROM, at_ms(1)));
        }
        assert!(gauge(1_000, 250, at_ms(0)).observe(UNDER_LOAD_FROM, at_ms(1)));
        const { assert!(CROWDED_FROM > 10_000, "as many as may come at once") };
    }

    #[test]
    fn what_was_wasted_is_forgotten_after_a_second() {
        let mut gauge = gauge(100, 100, at_ms(0));
        assert!(!gauge.observe(UNDER_LOAD_FROM, at_ms(1_000)));
        gauge.worked(true, at_ms(1_000));
        assert!(!gauge.observe(UNDER_LOAD_FROM, at_ms(1_001)));
    }

    #[test]
    fn load_lasts_as_long_as_many_are_turned_away() {
        let mut gauge = gauge(40, 40, at_ms(0));
        assert!(gauge.observe(UNDER_LOAD_FROM, at_ms(0)));
        (0..UNDER_LOAD_FROM).for_each(|_| gauge.turned_away(at_ms(900)));
        assert!(gauge.observe(0, at_ms(1899)));
        (1..UNDER_LOAD_FROM).for_each(|_| gauge.turned_away(at_ms(1899)));
        assert!(!gauge.observe(0, at_ms(1900)));
    }
}
