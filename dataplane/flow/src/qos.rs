//! Token buckets: how many bytes may pass, by time that is handed in.
//!
//! A [`Bucket`] gains [`Rate::bytes_per_second`] bytes in every second and holds at most
//! [`Rate::burst`] of them. It counts in whole bytes and keeps what is below a byte, so it neither
//! drifts over days nor overflows, however large a rate or long a gap is. A bucket is not asked for
//! every packet: whoever carries packets takes portions of [`Rate::portion`] out of it and spends
//! those.
//!
//! This module must not know accounts, cores or packets.

use ringway_proto::Instant;

/// A burst is at least this long, in bytes: a few of the largest packets of a usual path. A smaller
/// one would let no packet pass.
pub const BURST_MIN: u64 = 16 << 10;

/// Bytes of the largest super-packet.
const SUPER_PACKET: u64 = 64 << 10;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// A limit on bytes over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second in the long run. With 0 nothing passes once the burst is used up.
    pub bytes_per_second: u64,
    /// Bytes that may pass at once after a pause. Less than [`BURST_MIN`] counts as that.
    pub burst: u64,
}

impl Rate {
    /// A rate with the burst that is right for most.
    #[must_use]
    pub const fn of(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, burst: default_burst(bytes_per_second) }
    }

    /// The burst that holds.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        if self.burst < BURST_MIN { BURST_MIN } else { self.burst }
    }

    /// Bytes that are taken out of a bucket at once, to be spent packet by packet: what passes in
    /// two milliseconds, or a super-packet if that is more, but never more than a quarter of the
    /// burst.
    #[must_use]
    pub const fn portion(&self) -> u64 {
        let steady = self.bytes_per_second / 500;
        let portion = if steady < SUPER_PACKET { SUPER_PACKET } else { steady };
        if portion < self.portion_max() { portion } else { self.portion_max() }
    }

    /// Bytes that are taken out of a bucket at once at the most.
    #[must_use]
    pub const fn portion_max(&self) -> u64 {
        self.burst() / 4
    }

    /// Bytes of a portion that whoever is idle keeps, so that the first packets after a pause pass.
    #[must_use]
    pub const fn reserve(&self) -> u64 {
        let eighth = self.burst() / 8;
        if eighth < SUPER_PACKET { eighth } else { SUPER_PACKET }
    }
}

/// The burst of a rate for which none was chosen: a quarter of a second. What TCP leaves unused
/// while it recovers from a loss, even by its timer of 200 ms, is not lost to it then.
#[must_use]
pub const fn default_burst(bytes_per_second: u64) -> u64 {
    let quarter = bytes_per_second / 4;
    if quarter < 2 * SUPER_PACKET { 2 * SUPER_PACKET } else { quarter }
}

/// Bytes that may pass now.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    level: u64,
    /// Below a byte, in billionths.
    part: u64,
    /// Up to when bytes have been gained.
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, level: rate.burst(), part: 0, at: now }
    }

    /// What it is filled by.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Bytes in it, as of the last [`Bucket::refill`].
    #[must_use]
    pub const fn level(&self) -> u64 {
        self.level
    }

    /// Gains what the time since the last call brought. A time before that brings nothing.
    pub fn refill(&mut self, now: Instant) {
        let ns = now.as_nanos().saturating_sub(self.at.as_nanos());
        if ns == 0 {
            return;
        }
        self.at = now;
        let gained = self.rate.bytes_per_second.checked_mul(ns);
        let bytes = match gained.and_then(|gained| gained.checked_add(self.part)) {
            Some(gained) => {
                self.part = gained % NS_PER_SECOND;
                gained / NS_PER_SECOND
            }
            None => self.gain_much(ns),
        };
        self.add(bytes);
    }

    /// Takes up to `bytes` out of it; returns how many.
    pub fn take_up_to(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.level);
        self.level -= taken;
        taken
    }

    /// Gives back what was taken and not spent. What does not fit is lost.
    pub fn give_back(&mut self, bytes: u64) {
        self.add(bytes);
    }

    /// Goes on with another rate from `now` on. What is in it stays, up to the new burst.
    pub fn change(&mut self, rate: Rate, now: Instant) {
        self.refill(now);
        if self.rate.bytes_per_second != rate.bytes_per_second {
            self.part = 0;
        }
        self.rate = rate;
        self.level = self.level.min(rate.burst());
    }

    fn add(&mut self, bytes: u64) {
        self.level = self.level.saturating_add(bytes);
        if self.level >= self.rate.burst() {
            self.level = self.rate.burst();
            self.part = 0;
        }
    }

    /// A rate or a gap beyond 64 bits.
    #[cold]
    fn gain_much(&mut self, ns: u64) -> u64 {
        let rate = u128::from(self.rate.bytes_per_second);
        let gained = rate * u128::from(ns) + u128::from(self.part);
        // A remainder is smaller than its divisor, which has 64 bits.
        self.part = (gained % u128::from(NS_PER_SECOND)) as u64;
        u64::try_from(gained / u128::from(NS_PER_SECOND)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "qos_tests.rs"]
mod tests;
