//! Time as an argument.
//!
//! The protocol never reads a clock. The shard reads one per turn and passes it down as [`Now`];
//! the simulated world passes its own.

use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds on the machine's boot clock (`CLOCK_BOOTTIME`): monotonic, counts suspended time,
/// and means the same in every process of one machine, so that exported state keeps its deadlines.
///
/// Kept as one more than the nanoseconds, which leaves zero to say that there is none: a peer has a
/// dozen optional instants, and each takes eight bytes instead of sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

const _: () = assert!(size_of::<Option<Instant>>() == size_of::<Instant>());

impl Instant {
    /// The start of the clock.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// From nanoseconds since the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        // A span of 584 years saturates: a deadline that far away never fires, which is what was
        // asked.
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        NonZeroU64::new(self.0.get().saturating_sub(nanos)).map_or(Self::ZERO, Self)
    }
}

/// An instant to an eighth of a second, or none, in four bytes: for what people look at, of which
/// every peer has some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u32);

impl Stamp {
    /// Nanoseconds of half a step, as a power of two. All steps are nine years.
    const SHIFT: u32 = 26;

    /// No instant.
    pub const NONE: Self = Self(0);

    /// The step that `now` is in.
    #[must_use]
    #[inline]
    pub const fn at(now: Instant) -> Self {
        // After nine years of the clock it begins anew, just as if the machine had been restarted.
        Self((now.as_nanos() >> Self::SHIFT) as u32 | 1)
    }

    /// As a number: it means the same in every process of one machine.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From that number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The beginning of the step.
    #[must_use]
    pub const fn instant(self) -> Option<Instant> {
        match self.0 {
            0 => None,
            step => Some(Instant::from_nanos((step as u64 & !1) << Self::SHIFT)),
        }
    }
}

/// Both clocks, read once per turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What deadlines are made of.
    pub mono: Instant,
    /// Time since the Unix epoch, for TAI64N stamps and the time of the last handshake. May jump.
    pub wall: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_an_eighth_of_a_second_before_at_the_most() {
        assert_eq!(Stamp::NONE.instant(), None);
        for ms in [0, 1, 134, 135, 1_000, 86_400_000, 200_000_000_000] {
            let at = Instant::from_nanos(ms * 1_000_000);
            let stamped = Stamp::at(at).instant().expect("an instant");
            assert!(stamped <= at && at.since(stamped) < Duration::from_millis(135), "{ms} ms");
        }
    }
}
