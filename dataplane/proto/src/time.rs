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

/// Both clocks, read once per turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// What deadlines are made of.
    pub mono: Instant,
    /// Time since the Unix epoch, for TAI64N stamps and the time of the last handshake. May jump.
    pub wall: Duration,
}
