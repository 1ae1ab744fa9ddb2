//! What an overloaded core does: each session has its share, and who floods waits behind himself.
//!
//! A core is overloaded (*pressed*) when a turn ended with things left that had been received: from
//! then on, until everything has been taken, each turn looks at all that has come in before it
//! carries more than a share of anything. A share is half of what a turn carries, divided by the
//! sessions of the turn before; what a session leaves of it is carried over, to four shares at the
//! most, so that bursts below the share pass. Both directions draw on the same share.
//!
//! 1. What belongs to a session that has some of its share left is carried at once.
//! 2. The rest waits in a short queue, in order. It gets what the first left of the turn: a
//!    quarter,
//!    less what is below, and one buffer in any case.
//! 3. What finds no place there is dropped, not decrypted ([`DropReason::OverShare`]). A session
//!    may take as many places as it leaves free for others, so several floods do not shut out a
//!    download. At first nothing is dropped, but less is looked at: it may be a burst.
//!
//! What crossed from other cores is taken first, up to half of a turn. It draws on the same shares
//! but cannot wait here: once patience is lost, a sixteenth of a turn of it passes beyond them.
//! What nobody can open has an eighth. Both are at the expense of what waits.
//!
//! A session that presses the core alone for a while is left alone: what it sends too much waits in
//! the kernel's buffers. Another one is noticed when its first packet has passed through them, and
//! shares are kept from then on.
//!
//! Turns become shorter, down to a thirty-second, while much comes in: throwing away what is beyond
//! a share costs little, but only what has been received can be thrown away.
//!
//! **Bound.** A turn carries at most [`TURN_UNITS_MAX`] units, one buffer, and one parcel that
//! crossed. What arrives for a session below its share waits for the end of the turn that is under
//! way and leaves at the end of the next but one: three turns. If all others spend at that moment
//! what they have saved, which is two turns' worth, up to eight turns pass instead of two. The
//! condition is that the turn sees it: at most [`COMPLETIONS_PRESSED_MAX`] buffers are looked at in
//! a turn, and what the kernel's buffers do not hold is lost there for everybody. What arrives
//! while an overload begins may wait until [`PATIENCE_UNITS`] have been carried (some
//! milliseconds).
//!
//! Work is measured in bytes and packets as they lie in the buffer: nothing is opened, no clock is
//! read, nothing is allocated. A core that is not pressed adds up the work of a turn and does
//! nothing else. The receiver index of a datagram can be copied by whoever sees the traffic: only
//! datagrams from where the session was last heard are on its account, all others share one, parted
//! by where they come from.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_proto::limits::{
    BUFFER_UNITS, COMPLETIONS_PRESSED_MAX, PACKET_UNITS, TURN_UNITS_MAX, WAITING_INSIDE_MAX,
    WAITING_OUTSIDE_MAX,
};
use ringway_proto::offload::VnetHeader;
use ringway_proto::wireguard::{self, Message};
use ringway_proto::{DropReason, Instant, Now, PeerId, ip};
use ringway_ring::{Driver, Received};

use crate::classify;
use crate::crossing::{Arrival, Datagrams};
use crate::routes::Route;
use crate::shard::Shard;

/// Shares that a session may have saved.
const SAVED_MAX: i64 = 4;

/// Pressed turns, a third of a second or so, after which a session that has seen no other is left
/// alone.
const ALONE_AFTER: u32 = 1_024;

/// Units that an overloaded core carries before it drops anything: what a fast download has on the
/// way, which may come at once when the core did not run for a while.
const PATIENCE_UNITS: u64 = 4 << 20;

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
const UNCARRIED: u64 = 16;

/// Accounts of those who know a session's index, from elsewhere. They have one share together.
const STRANGERS: usize = 16;

// Parts of a turn's budget, as divisors.

/// What nobody can open or seal, at the most.
const NOBODY: u64 = 8;

/// What crossed beyond its session's share, at the most.
const BEYOND: u64 = 16;

/// What waits, at the least.
const WAITING: u64 = 4;

/// What a session has left of its share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Portion {
    /// The pressed turn in which it was last looked at.
    round: u32,
    /// Buffers that wait.
    waiting: u16,
    /// Units; negative after a buffer that was larger than what was left.
    credit: i64,
}

/// Who is charged for a buffer.
#[derive(Clone, Copy, Debug)]
enum Account {
    /// A session.
    Session(PeerId),
    /// Somebody who knows a session's index, from elsewhere.
    Strangers,
    /// A session of another core.
    Elsewhere,
    /// Nobody: a handshake, or what will be dropped.
    Nobody,
}

/// What becomes of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Carried,
    Waits,
    /// As above, and nothing more is looked at in this turn.
    Last,
    Dropped,
}

struct Waiting {
    received: Received,
    owner: PeerId,
    units: u64,
}

/// The shares of one core.
pub(crate) struct Fairness {
    pressed: bool,
    /// Units of a turn: fewer than [`TURN_UNITS_MAX`] while much comes in.
    budget: u64,
    round: u32,
    /// Units still to be carried before anything is dropped.
    patience: u64,
    /// The last pressed turn.
    pressed_at: Instant,
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
    uncharged: u64,
    /// Units of this turn that crossed.
    crossed: u64,
    /// Units of this turn that crossed although they were beyond a share.
    crossed_beyond: u64,
    /// More may have crossed than this turn took.
    crossings_left: bool,
    waiting: VecDeque<Waiting>,
    waiting_outside: usize,
}

impl Fairness {
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
    /// lent to the kernel last for one turn, and what finds none is lost blindly.
    fn set_budget(&mut self, taken: usize) {
        if taken >= TAKEN_MANY {
            self.budget = (self.budget / 2).max(TURN_UNITS_MAX / 32);
        } else if taken < TAKEN_MANY / 2 {
            self.budget = (self.budget * 2).min(TURN_UNITS_MAX);
        }
    }

    /// Gives a portion what it has earned since it was last looked at.
    fn refill(&mut self, portion: &mut Portion) {
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
    const fn judge_nobody(&mut self, units: u64) -> Fate {
        if self.uncharged >= self.budget / NOBODY {
            return Fate::Dropped;
        }
        self.uncharged += units / UNCARRIED;
        Fate::Carried
    }

    /// Judges what came from where the session that it names does not live.
    fn judge_stranger(&mut self, from: IpAddr, units: u64) -> Fate {
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
    fn judge_crossed(&mut self, portion: &mut Portion, units: u64) -> Fate {
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
    fn judge(&mut self, portion: &mut Portion, units: u64, outside: bool) -> Fate {
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

    fn put(&mut self, waiting: Waiting) {
        self.waiting_outside += usize::from(is_outside(&waiting.received));
        self.waiting.push_back(waiting);
    }

    fn take(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.waiting_outside -= usize::from(is_outside(&first.received));
        Some(first)
    }
}

impl<D: Driver> Shard<D> {
    /// A turn of an overloaded core, after what crossed. Always returns `true`: there was
    /// something, or there may be.
    pub(crate) fn carry_fairly(&mut self, now: Now) -> bool {
        self.counters.turns_pressed += 1;
        // What crossed beyond a share is at the expense of what waits.
        let mut spent = self.fairness.crossed - self.fairness.crossed_beyond;
        let reserved = !self.fairness.waiting.is_empty();
        let taken = self.take_in(&mut spent, reserved, now);
        spent += self.fairness.crossed_beyond + self.fairness.uncharged;
        self.serve_waiting(&mut spent, reserved, now);
        self.fairness.patience = self.fairness.patience.saturating_sub(spent);
        self.fairness.pressed_at = now.mono;
        let done = taken && self.fairness.waiting.is_empty() && !self.fairness.crossings_left;
        self.fairness.pressed = !done;
        true
    }

    /// Looks at all that was received and carries what is below its share. Returns whether nothing
    /// is left.
    fn take_in(&mut self, spent: &mut u64, reserved: bool, now: Now) -> bool {
        let budget = self.fairness.budget;
        let end = if reserved { budget - budget / WAITING } else { budget };
        for taken in 0..COMPLETIONS_PRESSED_MAX {
            if *spent >= end {
                return false;
            }
            let Some(received) = self.driver.next() else {
                self.fairness.set_budget(taken);
                return true;
            };
            let units = units_of(&received);
            let (fate, account) = self.judge(&received, units);
            match (fate, account) {
                (Fate::Carried, _) => {
                    *spent += match account {
                        Account::Session(_) | Account::Strangers => units,
                        Account::Elsewhere => units / UNCARRIED,
                        // Counted apart.
                        Account::Nobody => 0,
                    };
                    self.carry_one(received, now);
                }
                (Fate::Waits | Fate::Last, Account::Session(owner)) => {
                    self.counters.buffers_waited += 1;
                    self.fairness.put(Waiting { received, owner, units });
                    if fate == Fate::Last {
                        return false;
                    }
                }
                (
                    Fate::Waits | Fate::Last,
                    Account::Strangers | Account::Elsewhere | Account::Nobody,
                )
                | (Fate::Dropped, _) => {
                    self.counters.drops[DropReason::OverShare as usize] += packets_of(&received);
                }
            }
        }
        false
    }

    /// Carries what waits, as long as there is something left of the turn, and one buffer if it was
    /// `reserved` a part: what nobody else asked for is charged to nobody.
    fn serve_waiting(&mut self, spent: &mut u64, reserved: bool, now: Now) {
        let mut promised = reserved;
        while promised || *spent < self.fairness.budget {
            let Some(units) = self.serve_one(now) else { return };
            *spent += units;
            promised = false;
        }
    }

    /// Carries the first of what waits, and returns its units.
    pub(crate) fn serve_one(&mut self, now: Now) -> Option<u64> {
        let first = self.fairness.take()?;
        if let Some(peer) = self.peers.get_mut(first.owner) {
            self.fairness.refill(&mut peer.portion);
            peer.portion.waiting = peer.portion.waiting.saturating_sub(1);
        }
        self.carry_one(first.received, now);
        Some(first.units)
    }

    fn judge(&mut self, received: &Received, units: u64) -> (Fate, Account) {
        let account = self.account_of(received);
        let fate = match (account, received) {
            (Account::Session(id), _) => match self.peers.get_mut(id) {
                Some(peer) => self.fairness.judge(&mut peer.portion, units, is_outside(received)),
                None => Fate::Carried,
            },
            (Account::Strangers, Received::Outside(outside)) => {
                self.fairness.judge_stranger(outside.from.ip(), units)
            }
            (Account::Elsewhere, _) => Fate::Carried,
            (Account::Strangers | Account::Nobody, _) => self.fairness.judge_nobody(units),
        };
        (fate, account)
    }

    /// Whether an overloaded core carries something that crossed: datagrams that came as `how`
    /// says, or a packet of the TUN. If it does, it is charged; if not, it is counted.
    pub(crate) fn admits_crossed(&mut self, bytes: &[u8], how: Option<&Datagrams>) -> bool {
        let (account, packets) = match how {
            Some(how) => (
                self.account_outside(bytes, how.stride, how.from),
                bytes.len().div_ceil(how.stride.max(1)) as u64,
            ),
            None => (self.account_inside(bytes), (bytes.len() >> SEGMENT_SHIFT) as u64 + 1),
        };
        let units = bytes.len() as u64 + packets * PACKET_UNITS;
        let fate = match (account, how) {
            (Account::Session(id), _) => match self.peers.get_mut(id) {
                Some(peer) => self.fairness.judge_crossed(&mut peer.portion, units),
                None => Fate::Carried,
            },
            (Account::Strangers, Some(how)) => self.fairness.judge_stranger(how.from.ip(), units),
            (Account::Strangers | Account::Elsewhere | Account::Nobody, _) => {
                self.fairness.judge_nobody(units)
            }
        };
        match (fate, account) {
            (Fate::Carried, Account::Session(_) | Account::Strangers) => {
                self.fairness.charge_crossed(units);
            }
            (Fate::Carried, Account::Elsewhere | Account::Nobody) => {}
            (Fate::Waits | Fate::Last | Fate::Dropped, _) => {
                self.counters.drops[DropReason::OverShare as usize] += packets;
                return false;
            }
        }
        true
    }

    fn account_of(&self, received: &Received) -> Account {
        match received {
            Received::Outside(outside) => {
                let bytes = &outside.buf[outside.start..outside.start + outside.len];
                self.account_outside(bytes, outside.stride, outside.from)
            }
            Received::Inside(inside) => {
                self.account_inside(&inside.buf[inside.start..inside.start + inside.len])
            }
        }
    }

    /// Whose datagrams these are. Those that arrived merged have one sender: all of them are on the
    /// account of the first session among them that lives where they came from, whatever lies
    /// before it.
    fn account_outside(&self, bytes: &[u8], stride: usize, from: SocketAddr) -> Account {
        let mut account = Account::Nobody;
        let mut rest = bytes;
        while !rest.is_empty() {
            let first = &rest[..stride.min(rest.len())];
            let mut passed = first.len();
            if let Ok(Message::Data { receiver, .. }) = wireguard::classify(first) {
                if let Some(id) = self.indices.lookup(receiver) {
                    let endpoint = self.peers.get(id).and_then(|peer| peer.endpoint);
                    if endpoint.is_some_and(|endpoint| endpoint.remote == from) {
                        return Account::Session(id);
                    }
                    account = Account::Strangers;
                } else if matches!(account, Account::Nobody)
                    && self.other_owner(receiver, Arrival::Direct).is_ok()
                {
                    account = Account::Elsewhere;
                }
                passed = classify::next_run(rest, stride).bytes;
            }
            rest = &rest[passed..];
        }
        account
    }

    fn account_inside(&self, bytes: &[u8]) -> Account {
        let route = VnetHeader::parse(bytes)
            .ok()
            .and_then(|(_, packet)| ip::Packet::parse(packet).ok())
            .and_then(|view| self.allowed_ips.lookup(view.destination()));
        match route {
            Some(Route::Peer(id)) => Account::Session(id),
            Some(Route::Core(_)) => Account::Elsewhere,
            None => Account::Nobody,
        }
    }
}

/// The work that a buffer is, as far as can be seen from outside it.
#[inline]
pub(crate) fn units_of(received: &Received) -> u64 {
    let bytes = match received {
        Received::Outside(outside) => outside.len,
        Received::Inside(inside) => inside.len,
    };
    (bytes as u64 + packets_of(received) * PACKET_UNITS).max(BUFFER_UNITS)
}

/// Datagrams in a buffer; a super-packet counts as the segments of usual size that it holds.
#[inline]
fn packets_of(received: &Received) -> u64 {
    match received {
        Received::Outside(outside) => outside.len.div_ceil(outside.stride.max(1)) as u64,
        Received::Inside(inside) => (inside.len >> SEGMENT_SHIFT) as u64 + 1,
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

/// A power of two near the usual size of a segment, 1,400 bytes.
const SEGMENT_SHIFT: u32 = 11;

const fn is_outside(received: &Received) -> bool {
    matches!(received, Received::Outside(_))
}
