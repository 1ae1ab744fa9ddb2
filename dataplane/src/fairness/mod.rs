//! What an overloaded core does: each session has its share, and who floods waits behind himself.
//!
//! Reading order: [`shares`] (whose turn it is, knowing neither bytes nor drivers), then [`Shard`]
//! below (what is received, whose it is, and what becomes of it).
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
//! Turns become shorter while much comes in, down to a thirty-second where that is many small
//! buffers: throwing away what is beyond a share costs little, but only what has been received can
//! be thrown away. A turn that has seen everything lets the next one carry a sixteenth of what it
//! looked at, up to a full turn, which takes about as long as looking did: so who sends little
//! stays below a share.
//!
//! **Bound.** A turn carries at most [`TURN_UNITS_MAX`](ringway_proto::limits::TURN_UNITS_MAX)
//! units, one buffer, and one parcel that crossed. What arrives for a session below its share waits
//! for the end of the turn that is under way and leaves at the end of the next but one: three
//! turns. If all others spend at that moment what they have saved, which is two turns' worth, up to
//! eight turns pass instead of two. The condition is that the turn sees it: at most
//! [`COMPLETIONS_PRESSED_MAX`] buffers are looked at in a turn, and what the kernel's buffers do
//! not hold is lost there for everybody. What arrives while an overload begins may wait until
//! [`PATIENCE_UNITS`](shares::PATIENCE_UNITS) have been carried (a millisecond or so).
//!
//! Work is measured in bytes and packets as they lie in the buffer: nothing is opened, no clock is
//! read, nothing is allocated. A core that is not pressed adds up the work of a turn and does
//! nothing else. The receiver index of a datagram can be copied by whoever sees the traffic: only
//! datagrams from where the session was last heard are on its account, all others share one, parted
//! by where they come from. (Who moves is known there once the first datagram was opened, at the
//! end of the turn at the latest.)

mod shares;

use std::net::SocketAddr;

use ringway_proto::limits::{BUFFER_UNITS, COMPLETIONS_PRESSED_MAX, PACKET_UNITS};
use ringway_proto::offload::VnetHeader;
use ringway_proto::wireguard::{self, Message};
use ringway_proto::{DropReason, Now, PeerId, ip};
use ringway_ring::{Driver, Received};

use crate::classify;
use crate::crossing::{Arrival, Datagrams};
use crate::routes::Route;
use crate::shard::Shard;
pub(crate) use shares::{Fairness, Portion};
use shares::{Fate, UNCARRIED, WAITING, Waiting, is_outside};

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
        let mut looked_at = 0;
        for taken in 0..COMPLETIONS_PRESSED_MAX {
            if *spent >= end {
                return false;
            }
            let Some(received) = self.driver.next() else {
                self.fairness.set_budget(taken, looked_at);
                return true;
            };
            let units = units_of(&received);
            looked_at += units;
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

/// A power of two near the usual size of a segment, 1,400 bytes.
const SEGMENT_SHIFT: u32 = 11;
