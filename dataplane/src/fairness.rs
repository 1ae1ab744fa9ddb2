//! What an overloaded core does: each session has its share, and who floods waits behind himself.
//!
//! A core is overloaded (*pressed*) when a turn ended with things left that had been received: from
//! then on, until everything has been taken, each turn looks at all that has come in before it
//! carries more than a share of anything. A share is half of what a turn carries, divided by the
//! sessions of the turn before; what a session leaves of it is carried over, to four shares at the
//! most, so that bursts below the share pass. Both directions draw on the same share.
//!
//! 1. What belongs to a session that has some of its share left is carried at once.
//! 2. The rest waits in a short queue, in order. It gets the other half of the turn, and what the
//!    first left of its own.
//! 3. What finds no place there is dropped, not decrypted ([`DropReason::OverShare`]). A session
//!    may take as many places as it leaves free for others, so several floods do not shut out a
//!    download. At first nothing is dropped, but less is looked at: it may be a burst.
//!
//! A session that presses the core alone for a while is left alone: what it sends too much waits in
//! the kernel's buffers. Another one is noticed when its first packet has passed through them, and
//! shares are kept from then on.
//!
//! Turns become shorter, down to a thirty-second, while much comes in: throwing away what is beyond
//! a share costs little, but only what has been received can be thrown away.
//!
//! **Bound.** A turn carries at most [`TURN_UNITS_MAX`] units and one buffer. What arrives for a
//! session below its share waits for the end of the turn that is under way and leaves at the end of
//! the next but one, whatever others send and have saved: three turns. The condition is that the turn sees it: at most
//! [`COMPLETIONS_PRESSED_MAX`] buffers are looked at in a turn, and what the kernel's buffers do
//! not hold is lost there for everybody. What arrives while an overload begins may wait until
//! [`PATIENCE_UNITS`] have been carried (some milliseconds).
//!
//! Work is measured in bytes and packets as they lie in the buffer: nothing is opened, no clock is
//! read, nothing is allocated. A core that is not pressed adds up the work of a turn and does
//! nothing else. The receiver index of a datagram can be copied by whoever sees the traffic: only
//! datagrams from where the session was last heard are on its account, all others share one.

use std::collections::VecDeque;
use std::net::SocketAddr;
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

/// What is not on any session's account costs this fraction of what it would if it were carried: a
/// look-up, or a copy for another core.
const UNCARRIED: u64 = 16;

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
    /// Nobody: it will not be opened here.
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
    strangers: Portion,
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
            strangers: Portion::default(),
            waiting: VecDeque::with_capacity(PLACES_MAX),
            waiting_outside: 0,
        }
    }

    /// Whether the core is overloaded.
    #[inline]
    pub(crate) const fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// A turn ended with things left.
    pub(crate) fn press(&mut self, now: Instant) {
        self.pressed = true;
        // A pause of a turn is none: patience comes back in a tenth of a second.
        let rested = now.since(self.pressed_at).min(PATIENCE_BACK).as_micros() as u64;
        let regained = PATIENCE_UNITS * rested / PATIENCE_BACK.as_micros() as u64;
        self.patience = (self.patience + regained).min(PATIENCE_UNITS);
        // Nobody has counted yet: the first shares must not be so large that one turn cannot serve
        // them.
        self.seen = self.seen.max(SESSIONS_AT_FIRST);
    }

    fn begin_round(&mut self) {
        self.alone_for = if self.seen > 1 { 0 } else { self.alone_for.saturating_add(1) };
        // The strangers' account is one of them, so a session alone has half of the shares.
        let accounts = u64::from(self.seen) + 1;
        self.share = (self.budget / 2 / accounts) as i64;
        self.round = self.round.wrapping_add(1);
        self.seen = 0;
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

    /// Judges a buffer of a portion.
    fn judge(&mut self, portion: &mut Portion, units: u64, outside: bool) -> Fate {
        self.refill(portion);
        // What comes after something that waits waits too: order is kept within a session.
        let alone = self.alone_for > ALONE_AFTER;
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
    /// A turn of an overloaded core. Always returns `true`: there was something, or there may be.
    pub(crate) fn carry_fairly(&mut self, now: Now) -> bool {
        self.fairness.begin_round();
        self.counters.turns_pressed += 1;
        let mut spent = 0;
        let taken = self.take_in(&mut spent, now);
        self.serve_waiting(&mut spent, now);
        self.fairness.patience = self.fairness.patience.saturating_sub(spent);
        self.fairness.pressed_at = now.mono;
        self.fairness.pressed = !(taken && self.fairness.waiting.is_empty());
        true
    }

    /// Looks at all that was received and carries what is below its share. Returns whether nothing
    /// is left.
    fn take_in(&mut self, spent: &mut u64, now: Now) -> bool {
        for taken in 0..COMPLETIONS_PRESSED_MAX {
            if *spent >= self.fairness.budget {
                return false;
            }
            let Some(received) = self.driver.next() else {
                self.fairness.set_budget(taken);
                return true;
            };
            let units = units_of(&received);
            let (fate, owner) = self.judge(&received, units);
            match (fate, owner) {
                (Fate::Carried, Account::Nobody) => {
                    *spent += units / UNCARRIED;
                    self.carry_one(received, now);
                }
                (Fate::Carried, Account::Session(_) | Account::Strangers) => {
                    *spent += units;
                    self.carry_one(received, now);
                }
                (Fate::Waits | Fate::Last, Account::Session(owner)) => {
                    self.counters.buffers_waited += 1;
                    self.fairness.put(Waiting { received, owner, units });
                    if fate == Fate::Last {
                        return false;
                    }
                }
                (Fate::Waits | Fate::Last, Account::Strangers | Account::Nobody)
                | (Fate::Dropped, _) => {
                    self.counters.drops[DropReason::OverShare as usize] += packets_of(&received);
                }
            }
        }
        false
    }

    /// Carries what waits, as long as there is something left of the turn: what nobody else asked
    /// for is charged to nobody.
    fn serve_waiting(&mut self, spent: &mut u64, now: Now) {
        while *spent < self.fairness.budget {
            let Some(first) = self.fairness.take() else { return };
            if let Some(peer) = self.peers.get_mut(first.owner) {
                self.fairness.refill(&mut peer.portion);
                peer.portion.waiting = peer.portion.waiting.saturating_sub(1);
            }
            *spent += first.units;
            self.carry_one(first.received, now);
        }
    }

    fn judge(&mut self, received: &Received, units: u64) -> (Fate, Account) {
        let outside = is_outside(received);
        let account = self.account_of(received);
        let fate = match account {
            Account::Nobody => Fate::Carried,
            Account::Strangers => {
                let mut portion = self.fairness.strangers;
                portion.waiting = 0;
                let fate = self.fairness.judge(&mut portion, units, outside);
                self.fairness.strangers = portion;
                fate
            }
            Account::Session(id) => match self.peers.get_mut(id) {
                Some(peer) => self.fairness.judge(&mut peer.portion, units, outside),
                None => Fate::Carried,
            },
        };
        (fate, account)
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
            Some(Route::Core(_)) | None => Account::Nobody,
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

/// A power of two near the usual size of a segment, 1,400 bytes.
const SEGMENT_SHIFT: u32 = 11;

const fn is_outside(received: &Received) -> bool {
    matches!(received, Received::Outside(_))
}
