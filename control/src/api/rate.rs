//! How often somebody may ask: token buckets, one per key, in bounded memory.
//!
//! Pure: time is an argument. When there are too many keys at once, those whose bucket is full
//! again are forgotten (forgetting them changes nothing), and if none is, newcomers share one
//! bucket: a flood of addresses hurts newcomers only.

use std::collections::BTreeMap;

use crate::store::ids::Timestamp;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests per second in the long run.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

/// Keys that are told apart. At 100 bytes each this is half a megabyte.
pub const KEYS_MAX: usize = 4096;

/// Buckets by key.
#[derive(Debug)]
pub struct Buckets<K> {
    allowance: Allowance,
    by_key: BTreeMap<K, Bucket>,
    /// For those who came when there was no room.
    rest: Bucket,
    /// When room was last looked for: looking costs as much as there are keys.
    looked_at: Option<Timestamp>,
}

/// How often room is looked for, at most.
const LOOK_MS: i64 = 1000;

/// Thousandths of requests that are left, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left_milli: u64,
    at: Timestamp,
}

impl<K: Ord> Buckets<K> {
    /// Full buckets.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        let rest = Bucket { left_milli: u64::from(allowance.burst) * 1000, at: Timestamp(0) };
        Self { allowance, by_key: BTreeMap::new(), rest, looked_at: None }
    }

    /// Takes `cost` from the bucket of `key`.
    ///
    /// # Errors
    /// Seconds until that much will be there; nothing is taken then.
    pub fn take(&mut self, key: K, cost: u32, now: Timestamp) -> Result<(), u32> {
        let allowance = self.allowance;
        let bucket = self.bucket(key, now);
        let cost = u64::from(cost) * 1000;
        if bucket.left_milli >= cost {
            bucket.left_milli -= cost;
            return Ok(());
        }
        let missing = cost - bucket.left_milli;
        let seconds = missing.div_ceil(u64::from(allowance.per_second.max(1)) * 1000);
        Err(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Takes `cost` from the bucket of `key`, or all that is left.
    pub fn charge(&mut self, key: K, cost: u32, now: Timestamp) {
        let bucket = self.bucket(key, now);
        bucket.left_milli = bucket.left_milli.saturating_sub(u64::from(cost) * 1000);
    }

    fn bucket(&mut self, key: K, now: Timestamp) -> &mut Bucket {
        let full = Bucket { left_milli: u64::from(self.allowance.burst) * 1000, at: now };
        if !self.by_key.contains_key(&key) && self.by_key.len() >= KEYS_MAX {
            self.forget_full(now);
        }
        let allowance = self.allowance;
        let bucket = if self.by_key.len() < KEYS_MAX || self.by_key.contains_key(&key) {
            self.by_key.entry(key).or_insert(full)
        } else {
            &mut self.rest
        };
        *bucket = bucket.filled(allowance, now);
        bucket
    }

    /// Keys that are told apart now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn forget_full(&mut self, now: Timestamp) {
        if self.looked_at.is_some_and(|at| (0..LOOK_MS).contains(&now.since(at))) {
            return;
        }
        self.looked_at = Some(now);
        let allowance = self.allowance;
        let full = u64::from(allowance.burst) * 1000;
        self.by_key.retain(|_, bucket| bucket.filled(allowance, now).left_milli < full);
    }
}

impl Bucket {
    /// The bucket at `now`. A clock that went back fills nothing.
    fn filled(self, allowance: Allowance, now: Timestamp) -> Self {
        let elapsed_ms = u64::try_from(now.since(self.at)).unwrap_or(0);
        let gained = elapsed_ms.saturating_mul(u64::from(allowance.per_second));
        let full = u64::from(allowance.burst) * 1000;
        Self { left_milli: self.left_milli.saturating_add(gained).min(full), at: now }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWANCE: Allowance = Allowance { per_second: 10, burst: 20 };

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let mut buckets = Buckets::new(ALLOWANCE);
        for _ in 0..20 {
            assert_eq!(buckets.take("a", 1, Timestamp(0)), Ok(()));
        }
        assert_eq!(buckets.take("a", 1, Timestamp(0)), Err(1));
        assert_eq!(buckets.take("b", 1, Timestamp(0)), Ok(()), "others do not suffer");
        assert_eq!(buckets.take("a", 1, Timestamp(99)), Err(1));
        assert_eq!(buckets.take("a", 1, Timestamp(100)), Ok(()));
        assert_eq!(buckets.take("a", 20, Timestamp(100)), Err(2));
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_memory_and_spares_those_who_were_there() {
        let mut buckets = Buckets::new(ALLOWANCE);
        for _ in 0..5 {
            buckets.take(0, 1, Timestamp(0)).unwrap();
        }
        let passed = (1..100_000).filter(|key| buckets.take(*key, 1, Timestamp(0)).is_ok()).count();
        assert_eq!(passed, KEYS_MAX - 1 + 20, "one each, and what the shared bucket holds");
        assert_eq!(buckets.len(), KEYS_MAX);
        assert_eq!(buckets.take(0, 15, Timestamp(0)), Ok(()));
        // Later all are full again and may be forgotten.
        assert_eq!(buckets.take(100_001, 1, Timestamp(10_000)), Ok(()));
        assert_eq!(buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_burst_and_rate_together(
            steps in prop::collection::vec((0i64..500, 1u32..4), 1..200),
        ) {
            let mut buckets = Buckets::new(ALLOWANCE);
            let (mut now, mut taken) = (0i64, 0u64);
            for (pause, cost) in steps {
                now += pause;
                if buckets.take((), cost, Timestamp(now)).is_ok() {
                    taken += u64::from(cost);
                }
                prop_assert!(taken * 1000 <= 20_000 + now as u64 * 10);
            }
        }
    }
}
