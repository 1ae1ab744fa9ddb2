//! Whom a core under load begins a session with.
//!
//! Three counts, kept at all times and asked under load only: live sessions of each source, live
//! sessions, and half-open ones (answered, but their initiator has not shown that it has the keys).
//! None of them ever stands in the way of a session that is live: it is renewed whatever the
//! counts say. Memory is bounded by the number of sessions; nothing is ever forgotten early.
//!
//! This module must not know peers: who counts as live, and when, is said by the shard.

// HashMap: changed when a session begins, ends or moves, never per packet.
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::limiter::Source;
use super::timers::REKEY_TIMEOUT;
use crate::limits::{HALF_OPEN_MAX, SESSIONS_MAX, SESSIONS_PER_SOURCE_MAX};
use crate::{DropReason, Instant};

/// Whole seconds in which a session counts as half-open: then its initiator has begun another
/// handshake, or has gone.
const SECONDS: usize = REKEY_TIMEOUT.as_secs() as usize;

/// How much a core may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Live sessions of one source.
    pub per_source: u32,
    /// Live sessions.
    pub sessions: u32,
    /// Half-open sessions.
    pub half_open: u32,
}

impl Default for AdmissionLimits {
    /// Those of a whole gateway.
    fn default() -> Self {
        Self {
            per_source: SESSIONS_PER_SOURCE_MAX,
            sessions: SESSIONS_MAX,
            half_open: HALF_OPEN_MAX,
        }
    }
}

impl AdmissionLimits {
    /// The share of one of `cores` cores. Sessions spread by the hash of their keys, evenly to a
    /// sixteenth; those of one source may all meet on one core, so each core allows them all.
    #[must_use]
    pub fn share_of(self, cores: u16) -> Self {
        let cores = u32::from(cores.max(1));
        let uneven = |share: u32| if cores == 1 { share } else { share + share / 16 };
        Self {
            per_source: self.per_source,
            sessions: uneven(self.sessions.div_ceil(cores)),
            half_open: uneven(self.half_open.div_ceil(cores)),
        }
    }
}

/// When a session became half-open; to be given back when it is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen(NonZeroU32);

/// The counts of one core.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    // HashMap: as above.
    sources: HashMap<Source, u32>,
    sessions: u32,
    /// Half-open sessions by the second in which they began: now, and the seconds before.
    half_open: [u32; SECONDS + 1],
    second: u32,
}

impl Admission {
    /// Nobody counted yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            // HashMap: as above.
            sources: HashMap::new(),
            sessions: 0,
            half_open: [0; SECONDS + 1],
            second: 0,
        }
    }

    /// Allows more or less from now on.
    pub const fn set_limits(&mut self, limits: AdmissionLimits) {
        self.limits = limits;
    }

    /// Under load, before any curve work: whether an initiation from here has a chance. Where a
    /// session is live at this source the initiation may be its renewal, which only curve work can
    /// tell.
    ///
    /// # Errors
    /// [`DropReason::HandshakeSessionsFull`], [`DropReason::HandshakeHalfOpenFull`].
    pub fn judge_unopened(&mut self, from: IpAddr, now: Instant) -> Result<(), DropReason> {
        if self.sources.contains_key(&Source::of(from)) {
            return Ok(());
        }
        self.judge_in_all(now)
    }

    /// Under load, once it is known who asks: whether a session may begin with a peer that has
    /// none.
    ///
    /// # Errors
    /// [`DropReason::HandshakeSourceFull`] and those of [`Admission::judge_unopened`].
    pub fn judge_new(&mut self, from: IpAddr, now: Instant) -> Result<(), DropReason> {
        let of_source = self.sources.get(&Source::of(from)).copied().unwrap_or(0);
        if of_source >= self.limits.per_source {
            return Err(DropReason::HandshakeSourceFull);
        }
        self.judge_in_all(now)
    }

    fn judge_in_all(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.sessions >= self.limits.sessions {
            return Err(DropReason::HandshakeSessionsFull);
        }
        if self.half_open(now) >= self.limits.half_open {
            return Err(DropReason::HandshakeHalfOpenFull);
        }
        Ok(())
    }

    /// A session became live at this source.
    pub fn began(&mut self, source: Source) {
        self.sessions += 1;
        // One place for each session, so that none is made when a session moves.
        let missing = (self.sessions as usize).saturating_sub(self.sources.len());
        self.sources.reserve(missing);
        *self.sources.entry(source).or_default() += 1;
    }

    /// A live session of this source ended.
    pub fn ended(&mut self, source: Source) {
        self.sessions = self.sessions.saturating_sub(1);
        self.leave(source);
        if self.sources.is_empty() {
            // HashMap: as above; memory returns to the base line with the last session.
            self.sources = HashMap::new();
        }
    }

    /// A live session moved. Allocates nothing.
    pub fn moved(&mut self, from: Source, to: Source) {
        self.leave(from);
        *self.sources.entry(to).or_default() += 1;
    }

    /// An initiation was answered.
    pub fn half_opened(&mut self, now: Instant) -> HalfOpen {
        self.pass_time(now);
        self.half_open[self.second as usize % self.half_open.len()] += 1;
        HalfOpen(NonZeroU32::MIN.saturating_add(self.second))
    }

    /// Its initiator showed that it has the keys, or the keys are gone.
    pub fn half_closed(&mut self, since: HalfOpen) {
        let second = since.0.get() - 1;
        if ((self.second - second.min(self.second)) as usize) < self.half_open.len() {
            let bucket = &mut self.half_open[second as usize % (SECONDS + 1)];
            *bucket = bucket.saturating_sub(1);
        }
    }

    /// How many are half-open, those of the last [`REKEY_TIMEOUT`] (to a second more).
    pub fn half_open(&mut self, now: Instant) -> u32 {
        self.pass_time(now);
        self.half_open.iter().sum()
    }

    /// Live sessions that are counted.
    #[must_use]
    pub const fn sessions(&self) -> u32 {
        self.sessions
    }

    /// Bytes of memory held, estimated from the capacity of the map.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // One control byte for each bucket, seven of eight buckets usable.
        self.sources.capacity() * 8 / 7 * (size_of::<(Source, u32)>() + 1)
    }

    fn leave(&mut self, source: Source) {
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn pass_time(&mut self, now: Instant) {
        let now = (now.as_nanos() / 1_000_000_000) as u32;
        // More seconds than there are buckets empty them all.
        let passed = now.saturating_sub(self.second).min(self.half_open.len() as u32);
        for ago in 0..passed {
            self.half_open[(now - ago) as usize % (SECONDS + 1)] = 0;
        }
        self.second = self.second.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const FEW: AdmissionLimits = AdmissionLimits { per_source: 2, sessions: 4, half_open: 3 };

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn host(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn a_source_has_so_many_sessions_and_no_more() {
        let mut admission = Admission::new(FEW);
        for _ in 0..2 {
            assert_eq!(admission.judge_new(host(1), at_ms(0)), Ok(()));
            admission.began(Source::of(host(1)));
        }
        let refused = Err(DropReason::HandshakeSourceFull);
        assert_eq!(admission.judge_new(host(1), at_ms(0)), refused);
        assert_eq!(admission.judge_unopened(host(1), at_ms(0)), Ok(()), "it may be a renewal");
        assert_eq!(admission.judge_new(host(2), at_ms(0)), Ok(()));
        admission.moved(Source::of(host(1)), Source::of(host(2)));
        assert_eq!(admission.judge_new(host(1), at_ms(0)), Ok(()));
    }

    #[test]
    fn when_there_are_enough_sessions_a_stranger_is_refused_unopened_and_a_renewal_is_not() {
        let mut admission = Admission::new(FEW);
        (1..5).for_each(|number| admission.began(Source::of(host(number))));
        let refused = Err(DropReason::HandshakeSessionsFull);
        assert_eq!(admission.judge_unopened(host(9), at_ms(0)), refused);
        assert_eq!(admission.judge_unopened(host(1), at_ms(0)), Ok(()));
        assert_eq!(admission.judge_new(host(1), at_ms(0)), refused);
        admission.ended(Source::of(host(3)));
        assert_eq!(admission.judge_unopened(host(9), at_ms(0)), Ok(()));
    }

    #[test]
    fn half_open_sessions_make_room_when_they_are_confirmed_or_old() {
        let mut admission = Admission::new(FEW);
        let first = admission.half_opened(at_ms(900));
        (0..2).for_each(|_| {
            admission.half_opened(at_ms(1_100));
        });
        let refused = Err(DropReason::HandshakeHalfOpenFull);
        assert_eq!(admission.judge_unopened(host(1), at_ms(1_100)), refused);
        admission.half_closed(first);
        assert_eq!(admission.judge_unopened(host(1), at_ms(1_100)), Ok(()));
        assert_eq!(admission.half_open(at_ms(6_999)), 2);
        assert_eq!(admission.half_open(at_ms(7_000)), 0);
        // One that was forgotten long ago is not taken from others.
        let late = admission.half_opened(at_ms(7_000));
        admission.half_closed(first);
        assert_eq!(admission.half_open(at_ms(7_000)), 1);
        admission.half_closed(late);
        assert_eq!(admission.half_open(at_ms(90_000)), 0);
    }

    #[test]
    fn shares_of_cores_add_up_to_the_limits_and_little_more() {
        assert_eq!(
            AdmissionLimits::default().share_of(1),
            AdmissionLimits { per_source: 50, sessions: 100_000, half_open: 5_000 }
        );
        for cores in [2, 3, 4, 64] {
            let share = AdmissionLimits::default().share_of(cores);
            let all = share.sessions * u32::from(cores);
            assert!((100_000..=106_400).contains(&all), "{all} with {cores} cores");
        }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(
            steps in proptest::collection::vec((0u8..4, 0u8..6, 0u8..6, 0u64..1_500), 0..200),
        ) {
            let mut admission = Admission::new(FEW);
            let mut live: Vec<u8> = Vec::new();
            let mut half: Vec<(u64, HalfOpen)> = Vec::new();
            let mut ms = 0;
            for (step, a, b, pause) in steps {
                match step {
                    0 => {
                        admission.began(Source::of(host(a)));
                        live.push(a);
                    }
                    1 if !live.is_empty() => {
                        let gone = live.remove(usize::from(b) % live.len());
                        admission.ended(Source::of(host(gone)));
                    }
                    2 if !live.is_empty() => {
                        let at = usize::from(b) % live.len();
                        admission.moved(Source::of(host(live[at])), Source::of(host(a)));
                        live[at] = a;
                    }
                    3 if b < 2 && !half.is_empty() => {
                        let (_, since) = half.remove(usize::from(a) % half.len());
                        admission.half_closed(since);
                    }
                    _ => {
                        ms += pause;
                        half.push((ms, admission.half_opened(at_ms(ms))));
                    }
                }
                let counted = half.iter().filter(|(since, _)| ms / 1_000 - since / 1_000 <= 5);
                prop_assert_eq!(admission.half_open(at_ms(ms)) as usize, counted.count());
                prop_assert_eq!(admission.sessions() as usize, live.len());
                let mut sources = BTreeMap::new();
                live.iter().for_each(|source| *sources.entry(*source).or_insert(0) += 1);
                for number in 0..6 {
                    let of_source = admission.sources.get(&Source::of(host(number))).copied();
                    prop_assert_eq!(of_source, sources.get(&number).copied());
                }
            }
        }
    }
}
