//! When a tunnel wants to be woken. In prose (sections 6.1 to 6.5; what each does is in
//! `tunnel.rs`):
//!
//! - *Retransmit handshake*: 5 s and a jitter after an initiation was sent; another one goes out,
//!   up to 18 times (90 s), then the tunnel gives up until somebody wants to send again. Also armed
//!   when a handshake is wanted sooner than 5 s after the last handshake message.
//! - *Send keepalive*: 10 s after data was received, unless something authenticated was sent since.
//! - *New handshake*: 15 s and a jitter after data was sent, unless something authenticated was
//!   received since: the peer may have lost its keys.
//! - *Zero keys*: 540 s after the last keypair was made, all key material is erased.
//! - *Persistent keepalive*: the configured interval after the last authenticated packet in either
//!   direction, with or without a session.
//!
//! Rekeying at 120 s and refusing at 180 s need no timer: they are looked at when a packet passes.

use std::time::Duration;

use crate::Instant;

/// After this time the initiator of a keypair starts a new handshake when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// After this time a keypair neither sends nor receives.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Least time between two initiations, and between an initiation and its repetition.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long initiations are repeated.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Silence after received data before a passive keepalive answers it.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Upper end of the jitter of a repetition (the kernel's third of a second), exclusive.
pub const REKEY_JITTER: Duration = Duration::from_millis(334);
/// Age at which the initiator of a keypair starts a new handshake when it receives: the last moment
/// at which the new one can be there before the old one is refused.
pub const REKEY_ON_RECEIVE_AFTER: Duration = Duration::from_secs(180 - 10 - 5);
/// Silence after sent data before a new handshake is tried.
pub const NEW_HANDSHAKE_AFTER: Duration = Duration::from_secs(10 + 5);
/// Age of the last keypair at which all keys are erased.
pub const ZERO_KEYS_AFTER: Duration = Duration::from_secs(3 * 180);
/// Repetitions of an initiation before giving up.
pub const RETRIES_MAX: u8 = (REKEY_ATTEMPT_TIME.as_secs() / REKEY_TIMEOUT.as_secs()) as u8;

/// The timers of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Timer {
    RetransmitHandshake,
    SendKeepalive,
    NewHandshake,
    ZeroKeys,
    PersistentKeepalive,
}

impl Timer {
    const ALL: [Self; 5] = [
        Self::RetransmitHandshake,
        Self::SendKeepalive,
        Self::NewHandshake,
        Self::ZeroKeys,
        Self::PersistentKeepalive,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::RetransmitHandshake => "retransmit handshake",
            Self::SendKeepalive => "send keepalive",
            Self::NewHandshake => "new handshake",
            Self::ZeroKeys => "zero keys",
            Self::PersistentKeepalive => "persistent keepalive",
        }
    }
}

/// How many timers there are.
pub(super) const TIMERS: usize = Timer::ALL.len();

/// One optional deadline per timer, and the earliest of them.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: [Option<Instant>; TIMERS],
    earliest: Option<(Instant, Timer)>,
}

impl Timers {
    /// With these deadlines, in the order of [`Timers::deadlines`].
    pub(super) fn of(deadlines: [Option<Instant>; TIMERS]) -> Self {
        let mut timers = Self { deadlines, earliest: None };
        timers.find_earliest();
        timers
    }

    /// All deadlines, in the order of [`Timer`].
    pub(super) const fn deadlines(&self) -> [Option<Instant>; TIMERS] {
        self.deadlines
    }

    /// The earliest deadline and its reason.
    #[inline]
    pub(super) fn earliest(&self) -> Option<(Instant, &'static str)> {
        self.earliest.map(|(at, timer)| (at, timer.reason()))
    }

    #[inline]
    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    /// Arms a timer, moving it if it was armed.
    #[inline]
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.deadlines[timer as usize] = Some(at);
        match self.earliest {
            Some((_, earliest)) if earliest == timer => self.find_earliest(),
            Some((soonest, _)) if soonest <= at => {}
            Some(_) | None => self.earliest = Some((at, timer)),
        }
    }

    /// Arms a timer unless it is armed.
    #[inline]
    pub(super) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        if !self.is_armed(timer) {
            self.set(timer, at);
        }
    }

    #[inline]
    pub(super) fn cancel(&mut self, timer: Timer) {
        if self.deadlines[timer as usize].take().is_some()
            && self.earliest.is_some_and(|(_, earliest)| earliest == timer)
        {
            self.find_earliest();
        }
    }

    pub(super) fn cancel_all(&mut self) {
        *self = Self::default();
    }

    /// Disarms and returns the earliest timer whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = self.earliest?;
        (at <= now).then(|| {
            self.cancel(timer);
            timer
        })
    }

    fn find_earliest(&mut self) {
        self.earliest = Timer::ALL
            .into_iter()
            .filter_map(|timer| self.deadlines[timer as usize].map(|at| (at, timer)))
            .min_by_key(|&(at, _)| at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_s(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_earliest_deadline_is_known_with_its_reason() {
        let mut timers = Timers::default();
        assert_eq!(timers.earliest(), None);
        timers.set(Timer::ZeroKeys, at_s(540));
        timers.set(Timer::SendKeepalive, at_s(10));
        assert_eq!(timers.earliest(), Some((at_s(10), "send keepalive")));
        timers.set(Timer::SendKeepalive, at_s(600));
        assert_eq!(timers.earliest(), Some((at_s(540), "zero keys")));
        timers.set_if_idle(Timer::ZeroKeys, at_s(1));
        timers.cancel(Timer::ZeroKeys);
        assert_eq!(timers.earliest(), Some((at_s(600), "send keepalive")));
    }

    #[test]
    fn due_timers_come_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::NewHandshake, at_s(3));
        timers.set(Timer::PersistentKeepalive, at_s(2));
        timers.set(Timer::ZeroKeys, at_s(9));
        assert_eq!(timers.pop_due(at_s(1)), None);
        assert_eq!(timers.pop_due(at_s(3)), Some(Timer::PersistentKeepalive));
        assert_eq!(timers.pop_due(at_s(3)), Some(Timer::NewHandshake));
        assert_eq!(timers.pop_due(at_s(3)), None);
        assert_eq!(timers.earliest(), Some((at_s(9), "zero keys")));
    }

    proptest! {
        #[test]
        fn the_cached_earliest_is_always_the_minimum(
            steps in proptest::collection::vec((0..5_usize, any::<Option<u64>>()), 1..80),
        ) {
            let mut timers = Timers::default();
            for (timer, at) in steps {
                match at {
                    Some(at) => timers.set(Timer::ALL[timer], at_s(at % 20)),
                    None => timers.cancel(Timer::ALL[timer]),
                }
                let minimum = timers.deadlines.iter().flatten().min().copied();
                prop_assert_eq!(timers.earliest().map(|(at, _)| at), minimum);
            }
        }
    }
}
