//! Datagrams that came alone, or few together, and are opened together.
//!
//! Eight messages are opened for the price of two or three short ones, or of six full ones
//! (`ringway_simd`), and they need not have one key. So a receive buffer with a short run waits
//! until enough have come, or something comes that must not overtake it, or nothing else is there:
//! never beyond the turn. Then each pass of `wireguard::data` is done over all of them. Order is
//! that of arrival. What other cores hand over does not wait: it lies in buffers of theirs.

use std::ops::Range;

use ringway_alloc::forget;
use ringway_proto::crypto::AeadKey;
use ringway_proto::limits::RUN_MAX;
use ringway_proto::wireguard::{Datagram, Message, Outcome, open_batch};
use ringway_proto::{DropReason, Now, PeerId, ReceiverIndex};
use ringway_ring::{Driver, Outside};

use crate::classify;
use crate::shard::Shard;

/// Datagrams of a buffer that waits at most. More are opened together anyway, and their text would
/// no longer be in the nearest cache when it is their turn.
const SHORT_MAX: usize = 8;

/// Up to this many are opened with small arrays: clearing the large ones costs more than opening
/// one short message.
const FEW: usize = 4;

/// Buffers in a row of one session, from one place.
#[derive(Clone, Debug)]
struct Group {
    receiver: ReceiverIndex,
    peer: PeerId,
    /// Which of the buffers.
    buffers: Range<usize>,
    datagrams: usize,
}

/// When a buffer is carried.
enum Place {
    /// With others: all its datagrams are data of one session of this core, and few.
    Waits { receiver: ReceiverIndex, peer: PeerId },
    /// At once, behind what waits.
    Behind,
    /// At once: it concerns nobody who waits.
    Apart,
}

/// What waits to be opened. Nothing in it is allocated after its start.
#[derive(Default)]
pub(crate) struct Opening {
    buffers: Vec<Outside>,
    groups: Vec<Group>,
    datagrams: usize,
}

/// Which groups have been heard, a bit each.
#[derive(Clone, Copy, Default)]
struct Heard {
    authenticated: u64,
    confirmed: u64,
}

const _: () = assert!(RUN_MAX <= u64::BITS as usize, "a bit for each group");

impl Opening {
    /// Nothing waits, with room for all that may.
    pub(crate) fn new() -> Self {
        Self {
            buffers: Vec::with_capacity(RUN_MAX),
            groups: Vec::with_capacity(RUN_MAX),
            datagrams: 0,
        }
    }

    /// Wipes who sent what has been opened.
    pub(crate) fn forget(&mut self) {
        forget::wipe_list(&mut self.buffers);
    }

    fn has_room(&self, datagrams: usize) -> bool {
        self.datagrams + datagrams <= RUN_MAX
    }

    /// The peer that the last buffer is of, if it is of this session.
    fn last_peer(&self, receiver: ReceiverIndex) -> Option<PeerId> {
        self.groups.last().filter(|group| group.receiver == receiver).map(|group| group.peer)
    }

    fn put(&mut self, outside: Outside, receiver: ReceiverIndex, peer: PeerId, datagrams: usize) {
        let at = self.buffers.len();
        let alike = self
            .buffers
            .last()
            .is_some_and(|last| last.from == outside.from && last.to == outside.to);
        match self.groups.last_mut().filter(|group| alike && group.receiver == receiver) {
            Some(group) => {
                group.buffers.end = at + 1;
                group.datagrams += datagrams;
            }
            None => {
                self.groups.push(Group { receiver, peer, buffers: at..at + 1, datagrams });
            }
        }
        self.buffers.push(outside);
        self.datagrams += datagrams;
    }
}

impl<D: Driver> Shard<D> {
    /// Takes a buffer that may wait; gives back one that is to be carried at once. If that has data
    /// of a session of this core, nothing waits before it any more.
    pub(crate) fn put_off(&mut self, outside: Outside, now: Now) -> Option<Outside> {
        let datagrams = outside.len.div_ceil(outside.stride.max(1));
        match self.place_of(&outside, datagrams) {
            Place::Waits { receiver, peer } => {
                if !self.opening.has_room(datagrams) {
                    self.open_waiting(now);
                }
                self.opening.put(outside, receiver, peer, datagrams);
                return None;
            }
            Place::Behind => self.open_waiting(now),
            Place::Apart => {}
        }
        Some(outside)
    }

    fn place_of(&self, outside: &Outside, datagrams: usize) -> Place {
        let bytes = &outside.buf[outside.start..outside.start + outside.len];
        // Long buffers are mostly the only ones: nothing is looked at twice then.
        if bytes.is_empty() || datagrams > SHORT_MAX && self.opening.datagrams == 0 {
            return Place::Apart;
        }
        let run = classify::next_run(bytes, outside.stride);
        if run.count != datagrams {
            return self.place_of_mixed(bytes, outside.stride);
        }
        // Handshake messages are only queued here, and what is dropped or another core's overtakes
        // nobody: a stranger must not be able to part what is better opened together.
        let Ok(Message::Data { receiver, .. }) = run.message else { return Place::Apart };
        let last = self.opening.last_peer(receiver);
        match last.or_else(|| self.indices.lookup(receiver)) {
            Some(peer) if self.is_mute(peer) => Place::Apart,
            Some(_) if datagrams > SHORT_MAX => Place::Behind,
            Some(peer) => Place::Waits { receiver, peer },
            None => Place::Apart,
        }
    }

    /// Several runs: behind what waits if one of them is a session's of this core.
    fn place_of_mixed(&self, mut bytes: &[u8], stride: usize) -> Place {
        while !bytes.is_empty() {
            let run = classify::next_run(bytes, stride);
            if let Ok(Message::Data { receiver, .. }) = run.message
                && self.indices.lookup(receiver).is_some()
            {
                return Place::Behind;
            }
            bytes = &bytes[run.bytes..];
        }
        Place::Apart
    }

    /// Opens and carries all that waits.
    pub(crate) fn open_waiting(&mut self, now: Now) {
        if self.opening.datagrams == 0 {
            return;
        }
        // Taken out, because what is opened may change anything else; it has its room back below.
        let Opening { mut buffers, mut groups, datagrams } = std::mem::take(&mut self.opening);
        self.counters.run_packets.record(datagrams as u64);
        let mut outcomes = [Outcome::Pending; RUN_MAX];
        let outcomes = &mut outcomes[..datagrams];
        let heard = if datagrams <= FEW {
            self.open_groups::<FEW>(&groups, &mut buffers, outcomes, now)
        } else {
            self.open_groups::<RUN_MAX>(&groups, &mut buffers, outcomes, now)
        };
        let mut rest = &*outcomes;
        for (at, group) in groups.iter().enumerate() {
            let (outcomes, later) = rest.split_at(group.datagrams);
            rest = later;
            let heard_at = |bits: u64| bits >> at & 1 == 1;
            let buffers = &mut buffers[group.buffers.clone()];
            if heard_at(heard.authenticated) {
                self.heard(group.peer, &buffers[0], now);
            }
            self.deliver_group(group.peer, buffers, outcomes, now);
            self.settle_data(group.peer, heard_at(heard.confirmed), now);
            if self.trains.is_settling_due() {
                self.settle_departed(now);
            }
        }
        buffers.clear();
        groups.clear();
        self.opening = Opening { buffers, groups, datagrams: 0 };
    }

    /// The three passes, with arrays of `N` places.
    fn open_groups<const N: usize>(
        &mut self,
        groups: &[Group],
        buffers: &mut [Outside],
        outcomes: &mut [Outcome],
        now: Now,
    ) -> Heard {
        let mut datagrams = buffers.iter_mut().flat_map(|outside| {
            let bytes = &mut outside.buf[outside.start..outside.start + outside.len];
            bytes.chunks_mut(outside.stride)
        });
        let mut all: [Datagram<'_>; N] =
            std::array::from_fn(|_| Datagram::new(datagrams.next().unwrap_or_default()));
        let all = &mut all[..outcomes.len()];

        let mut keys: [Option<&AeadKey>; N] = [None; N];
        let mut begin = 0;
        for group in groups {
            let run = begin..begin + group.datagrams;
            begin = run.end;
            let (run, keys) = (&mut all[run.clone()], &mut keys[run]);
            match self.peers.get(group.peer) {
                Some(peer) => keys.fill(peer.tunnel.admit(group.receiver, run, now)),
                None => run
                    .iter_mut()
                    .for_each(|it| it.outcome = Outcome::Dropped(DropReason::PeerGone)),
            }
        }

        open_batch(&keys[..all.len()], all);

        let mut heard = Heard::default();
        let mut begin = 0;
        for (at, group) in groups.iter().enumerate() {
            let run = begin..begin + group.datagrams;
            begin = run.end;
            let Some(peer) = self.peers.get_mut(group.peer) else { continue };
            let summary = peer.tunnel.accept(group.receiver, &mut all[run], now);
            heard.authenticated |= u64::from(summary.authenticated) << at;
            heard.confirmed |= u64::from(summary.confirmed) << at;
        }
        outcomes.iter_mut().zip(all).for_each(|(outcome, datagram)| *outcome = datagram.outcome);
        heard
    }

    fn deliver_group(
        &mut self,
        peer: PeerId,
        buffers: &mut [Outside],
        mut outcomes: &[Outcome],
        now: Now,
    ) {
        let mut sender = match self.sender(peer) {
            Ok(sender) => sender,
            Err(reason) => {
                self.counters.drops[reason as usize] += outcomes.len() as u64;
                return;
            }
        };
        for outside in buffers {
            let datagrams = outside.len.div_ceil(outside.stride);
            let (of_this, later) = outcomes.split_at(datagrams);
            outcomes = later;
            let at = outside.start;
            self.deliver_run(&mut sender, outside, at, of_this, now);
        }
    }
}
