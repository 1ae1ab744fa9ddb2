//! Shares of an overloaded core: who has how much left, what waits, and what is too much.
//!
//! This module must not know what is in a buffer, and reads no clock.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ringway_alloc::forget;
use ringway_proto::limits::{TURN_UNITS_MAX, WAITING_INSIDE_MAX, WAITING_OUTSIDE_MAX};
use ringway_proto::{Instant, PeerId};
use ringway_ring::Received;

/// Shares that a session may have saved.
const SAVED_MAX: i64 = 4;

/// Pressed turns, a third of a second or so, after which a session that has seen no other is left
/// alone.
const ALONE_AFTER: u32 = 1_024;

/// Units that an overloaded core carries before it drops anything: what a download has on the way,
/// which may come at once when the core did not run for a while. More of it waits in the kernel's
/// buffers, which must not overflow meanwhile.
pub(super) const PATIENCE_UNITS: u64 = 1 << 20;

/// Time without an overload in which all patience comes back.
const PATIENCE_BACK: Duration = Duration::from_millis(100);

/// Places for what waits: some more for turns that do not drop.
const PLACES_MAX: usize = WAITING_OUTSIDE_MAX + WAITING_INSIDE_MAX + 16;

/// Sessions that are supposed to be there before the first turn has counted them.
const SESSIONS_AT_FIRST: u32 = 15;

/// Buffers that came in during a turn, of about 128 that were lent: too many for comfort.
const TAKEN_MANY: usize = 64;

/// What is not opened or sealed here costs this fraction of what it would otherwise: a look-up, or
/// a copy for another core.
pub(super) const UNCARRIED: u64 = 16;

/// Accounts of those who know a session's index, from elsewhere. They have one share together.
const STRANGERS: usize = 16;

// Parts of a turn's budget, as divisors.

/// What nobody can open or seal, at the most.
const NOBODY: u64 = 8;

/// What crossed beyond its session's share, at the most.
const BEYOND: u64 = 16;

/// What waits, at the least.
pub(super) const WAITING: u64 = 4;

/// What a session has left of its share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portion {
    /// The pressed turn in which it was last looked at.
    round: u32,
    /// Buffers that wait.
    pub(super) waiting: u16,
    /// Units; negative after a buffer that was larger than what was left.
    credit: i64,
}

/// What becomes of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Carried,
    Waits,
    /// As above, and nothing more is looked at in this turn.
    Last,
    Dropped,
}

/// A buffer that waits, and whose it is.
pub(super) struct Waiting {
    pub(super) received: Received,
    pub(super) owner: PeerId,
    pub(super) units: u64,
}

/// The shares of one core.
pub(crate) struct Fairness {
    pub(super) pressed: bool,
    /// Units of a turn: fewer than [`TURN_UNITS_MAX`] while much comes in.
    pub(super) budget: u64,
    round: u32,
    /// Units still to be carried before anything is dropped.
    pub(super) patience: u64,
    /// The last pressed turn.
    pub(super) pressed_at: Instant,
    /// Pressed turns since another session than the one that presses was seen.
    alone_for: u32,
    /// Units of a session in a round.
    share: i64,
    /// Sessions looked at in this round.
    seen: u32,
    /// The overload has just begun.
    uncounted: bool,
    strangers: [Portion; STRANGERS],
    /// The round in which one of them was last looked at.
    strangers_round: u32,
    /// Units of this turn that nobody was charged for.
    pub(super) uncharged: u64,
    /// Units of this turn that crossed.
    pub(super) crossed: u64,
    /// Units of this turn that crossed although they were beyond a share.
    pub(super) crossed_beyond: u64,
    /// More may have crossed than this turn took.
    pub(super) crossings_left: bool,
    pub(super) waiting: VecDeque<Waiting>,
    waiting_outside: usize,
}

impl Fairness {
    /// Wipes what waited and does no more.
    pub(crate) fn forget(&mut self) {
        forget::wipe_queue(&mut self.waiting);
    }

    pub(crate) fn new() -> Self {
        Self {
            pressed: false,
            budget: TURN_UNITS_MAX,
            round: 0,
            patience: PATIENCE_UNITS,
            pressed_at: Instant::ZERO,
            // As long as nobody else was seen.
            alone_for: u32::MAX,
            share: 0,
            seen: 0,
            uncounted: false,
            strangers: [Portion::default(); STRANGERS],
            strangers_round: 0,
            uncharged: 0,
            crossed: 0,
            crossed_beyond: 0,
            crossings_left: false,
            waiting: VecDeque::with_capacity(PLACES_MAX),
            waiting_outside: 0,
        }
    }

    /// Whether the core is overloaded.
    #[inline]
    pub(crate) const fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Nothing is left.
    pub(crate) const fn relax(&mut self) {
        self.pressed = false;
    }

    /// A turn ended with things left.
    pub(crate) fn press(&mut self, now: Instant) {
        self.pressed = true;
        // A pause of a turn is none: patience comes back in a tenth of a second.
        let rested = now.since(self.pressed_at).min(PATIENCE_BACK).as_micros() as u64;
        let regained = PATIENCE_UNITS * rested / PATIENCE_BACK.as_micros() as u64;
        self.patience = (self.patience + regained).min(PATIENCE_UNITS);
        self.uncounted = true;
    }

    /// Begins a turn, before what crossed is looked at.
    pub(crate) fn begin_turn(&mut self) {
        (self.crossed, self.crossed_beyond, self.crossings_left) = (0, 0, false);
        if self.pressed {
            self.begin_round();
        }
    }

    /// Whether this turn has room for another parcel. If not, the core is overloaded.
    pub(crate) const fn takes_crossings(&mut self) -> bool {
        let budget = if self.pressed { self.budget } else { TURN_UNITS_MAX };
        self.crossings_left = self.crossed >= budget / 2;
        !self.crossings_left
    }

    /// Something that crossed was carried.
    pub(crate) const fn charge_crossed(&mut self, units: u64) {
        self.crossed += units;
    }

    /// Units of this turn that crossed.
    pub(crate) const fn crossed(&self) -> u64 {
        self.crossed
    }

    /// Whether more may have crossed than this turn took.
    pub(crate) const fn has_crossings_left(&self) -> bool {
        self.crossings_left
    }

    fn begin_round(&mut self) {
        self.alone_for = if self.seen > 1 { 0 } else { self.alone_for.saturating_add(1) };
        // The strangers' account is one of them, so a session alone has half of the shares.
        // Nobody has counted since the overload began: the first shares must not be so large that
        // one turn cannot serve them.
        let least = if std::mem::take(&mut self.uncounted) { SESSIONS_AT_FIRST } else { 0 };
        let accounts = u64::from(self.seen.max(least)) + 1;
        self.share = (self.budget / 2 / accounts) as i64;
        self.round = self.round.wrapping_add(1);
        self.seen = 0;
        self.uncharged = 0;
    }

    /// The more buffers come in during a turn, the shorter the next one has to be: those that are
    /// lent to the kernel last for one turn, and what finds none waits in the kernel's own, which
    /// overflow blindly. But a turn carries for about as long as it looked: to carry less would
    /// save little, and what a quiet session sends would no longer be below its share.
    pub(super) fn set_budget(&mut self, taken: usize, looked_at: u64) {
        if taken >= TAKEN_MANY {
            let least = (looked_at / UNCARRIED).clamp(TURN_UNITS_MAX / 32, TURN_UNITS_MAX);
            self.budget = (self.budget / 2).max(least);
        } else if taken < TAKEN_MANY / 2 {
            self.budget = (self.budget * 2).min(TURN_UNITS_MAX);
        }
    }

    /// Gives a portion what it has earned since it was last looked at.
    pub(super) fn refill(&mut self, portion: &mut Portion) {
        let rounds = i64::from(self.round.wrapping_sub(portion.round));
        self.seen += u32::from(rounds > 0);
        portion.round = self.round;
        portion.credit += self.share * rounds.min(SAVED_MAX);
        portion.credit = portion.credit.min(self.share * SAVED_MAX);
    }

    /// Whether the session that presses the core has been alone with it for a while.
    const fn is_alone(&self) -> bool {
        self.alone_for > ALONE_AFTER
    }

    /// Whether there is room for something that nobody can open or seal.
    pub(super) const fn judge_nobody(&mut self, units: u64) -> Fate {
        if self.uncharged >= self.budget / NOBODY {
            return Fate::Dropped;
        }
        self.uncharged += units / UNCARRIED;
        Fate::Carried
    }

    /// Judges what came from where the session that it names does not live.
    pub(super) fn judge_stranger(&mut self, from: IpAddr, units: u64) -> Fate {
        self.seen += u32::from(self.strangers_round != self.round);
        self.strangers_round = self.round;
        let alone = self.is_alone();
        let share = (self.share / STRANGERS as i64).max(1);
        let portion = &mut self.strangers[stranger(from)];
        let rounds = i64::from(self.round.wrapping_sub(portion.round));
        portion.round = self.round;
        portion.credit += share * rounds.min(SAVED_MAX);
        portion.credit = portion.credit.min(share * SAVED_MAX);
        if portion.credit > 0 || alone {
            portion.credit -= units as i64;
            return Fate::Carried;
        }
        Fate::Dropped
    }

    /// Judges what crossed, which cannot wait here.
    pub(super) fn judge_crossed(&mut self, portion: &mut Portion, units: u64) -> Fate {
        self.refill(portion);
        if portion.credit > 0 {
            portion.credit -= units as i64;
            return Fate::Carried;
        }
        // Beyond that less is taken: it waits on its way, until patience is lost.
        if self.is_alone() || self.patience > 0 {
            return Fate::Carried;
        }
        if self.crossed_beyond >= self.budget / BEYOND {
            return Fate::Dropped;
        }
        self.crossed_beyond += units;
        Fate::Carried
    }

    /// Judges a buffer of a portion.
    pub(super) fn judge(&mut self, portion: &mut Portion, units: u64, outside: bool) -> Fate {
        self.refill(portion);
        // What comes after something that waits waits too: order is kept within a session.
        let alone = self.is_alone();
        if portion.waiting == 0 && (portion.credit > 0 || alone) {
            portion.credit -= units as i64;
            return Fate::Carried;
        }
        if usize::from(portion.waiting) < self.places(outside) {
            portion.waiting += 1;
            return Fate::Waits;
        }
        let patient = alone || self.patience > 0;
        if patient && self.waiting.len() < PLACES_MAX {
            portion.waiting += 1;
            return Fate::Last;
        }
        Fate::Dropped
    }

    fn places(&self, outside: bool) -> usize {
        let inside = self.waiting.len() - self.waiting_outside;
        if outside {
            WAITING_OUTSIDE_MAX.saturating_sub(self.waiting_outside)
        } else {
            WAITING_INSIDE_MAX.saturating_sub(inside)
        }
    }

    pub(super) fn put(&mut self, waiting: Waiting) {
        self.waiting_outside += usize::from(is_outside(&waiting.received));
        self.waiting.push_back(waiting);
    }

    pub(super) fn take(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.waiting_outside -= usize::from(is_outside(&first.received));
        Some(first)
    }
}

/// The account of a stranger: one for a whole network that one host may have.
const fn stranger(from: IpAddr) -> usize {
    let network = match from {
        IpAddr::V4(from) => from.to_bits() as u64,
        IpAddr::V6(from) => (from.to_bits() >> 64) as u64,
    };
    // The upper bits of a product with the golden ratio are spread evenly.
    (network.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % STRANGERS
}

pub(super) const fn is_outside(received: &Received) -> bool {
    matches!(received, Received::Outside(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD_BUFFER: u64 = 40_000;

    /// Turns that look at many buffers of this size, until the budget has settled.
    fn pressed(buffer: u64) -> Fairness {
        let mut fairness = Fairness::new();
        fairness.press(Instant::ZERO);
        fairness.patience = 0;
        for _ in 0..10 {
            fairness.begin_turn();
            fairness.set_budget(3 * TAKEN_MANY, 3 * TAKEN_MANY as u64 * buffer);
        }
        fairness
    }

    #[test]
    fn a_turn_is_short_when_much_comes_in_but_not_shorter_than_looking_at_it() {
        assert_eq!(pressed(16).budget, TURN_UNITS_MAX / 32);
        assert_eq!(pressed(4_096).budget, 192 * 4_096 / UNCARRIED);
        assert_eq!(pressed(FLOOD_BUFFER).budget, 192 * FLOOD_BUFFER / UNCARRIED);
        assert_eq!(pressed(100_000).budget, TURN_UNITS_MAX);
        let mut fairness = pressed(16);
        (0..5).for_each(|_| fairness.set_budget(1, 4_096));
        assert_eq!(fairness.budget, TURN_UNITS_MAX);
    }

    #[test]
    fn a_quiet_session_is_never_over_its_share_beside_large_buffers() {
        let mut fairness = pressed(FLOOD_BUFFER);
        let (mut quiet, mut flooder) = (Portion::default(), Portion::default());
        let mut dropped = 0;
        for _ in 0..1_000 {
            fairness.begin_turn();
            // A burst of four small datagrams among 192 buffers of the flood.
            for _ in 0..4 {
                assert_eq!(fairness.judge(&mut quiet, 4_096, true), Fate::Carried);
            }
            for _ in 0..188 {
                let fate = fairness.judge(&mut flooder, FLOOD_BUFFER, true);
                dropped += u32::from(fate == Fate::Dropped);
            }
            fairness.set_budget(192, 188 * FLOOD_BUFFER + 4 * 4_096);
        }
        assert!(dropped > 100_000, "{dropped}");
    }
}
