//! Open GSO trains: datagrams of equal size for one peer, sealed together, sent with one operation.
//!
//! A train shares destination, source address, congestion bits and segment size; a datagram that
//! differs closes it, a shorter one closes it as its last. Plain packets are written into the
//! train's own buffer, with room for header and tag around them, and sealed there: after the copy
//! out of the TUN buffer nothing moves again.

use ringway_alloc::Buf;
use ringway_proto::crypto::AeadKey;
use ringway_proto::limits::{RUN_MAX, UDP_PAYLOAD_MAX};
use ringway_proto::wireguard::messages::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES};
use ringway_proto::wireguard::{Plain, seal_batch};
use ringway_proto::{DropReason, Now, PeerId};
use ringway_ring::{Driver, Ecn, Train};

use crate::counters::Counters;
use crate::peers::Peers;

/// Trains open at once. More destinations than this in one turn close all of them; at 64 the linear
/// search stays cheap.
const OPEN_MAX: usize = 64;

/// Up to this many packets are sealed with small arrays.
const FEW: usize = 4;

struct Open {
    peer: PeerId,
    content: Content,
    buf: Buf,
    len: usize,
    count: usize,
    segment_bytes: usize,
    ecn: Ecn,
    /// A shorter datagram was appended: nothing may follow it.
    complete: bool,
}

/// What the buffer of a train holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Packets with room around them: never to be sent.
    Plain,
    /// The same with headers, whose counters are given out.
    Prepared,
    /// Datagrams.
    Sealed,
    /// What will never be sealed.
    Refused(DropReason),
}

impl Open {
    fn takes(&self, datagram_bytes: usize, ecn: Ecn) -> bool {
        !self.complete
            && self.ecn == ecn
            && datagram_bytes <= self.segment_bytes
            && self.count < RUN_MAX
            && self.len + datagram_bytes <= UDP_PAYLOAD_MAX
    }
}

/// The open trains of one core.
#[derive(Default)]
pub struct Trains {
    open: Vec<Open>,
    /// Peers for whom something was sealed and who have not been settled since.
    departed: Vec<PeerId>,
}

impl Trains {
    /// None open, with room for all that may be.
    #[must_use]
    pub fn new() -> Self {
        Self { open: Vec::with_capacity(OPEN_MAX), departed: Vec::with_capacity(3 * OPEN_MAX) }
    }

    /// Room for a packet of `padded` bytes in the peer's train: the returned slice takes exactly
    /// the packet and its padding. A train that cannot take it is sealed and committed first, in
    /// order.
    ///
    /// # Errors
    /// [`DropReason::TransmitExhausted`] when no buffer is free; what sealing an earlier train says
    /// is counted there.
    pub fn room<'a, D: Driver>(
        &'a mut self,
        peer: PeerId,
        padded: usize,
        ecn: Ecn,
        out: &mut Departure<'_, D>,
    ) -> Result<&'a mut [u8], DropReason> {
        let datagram_bytes = padded + DATA_OVERHEAD_BYTES;
        let at = match self.open.iter().rposition(|open| open.peer == peer) {
            Some(at) if self.open[at].takes(datagram_bytes, ecn) => at,
            Some(at) => {
                let full = self.open.remove(at);
                note(&mut self.departed, peer);
                out.depart(full);
                self.start(peer, datagram_bytes, ecn, out)?
            }
            None => self.start(peer, datagram_bytes, ecn, out)?,
        };
        let open = &mut self.open[at];
        let begin = open.len + DATA_HEADER_BYTES;
        open.len += datagram_bytes;
        open.count += 1;
        open.complete = datagram_bytes < open.segment_bytes;
        Ok(&mut open.buf[begin..begin + padded])
    }

    /// Seals and commits the peer's open train, if there is one: nothing joins it any more.
    pub fn close<D: Driver>(&mut self, peer: PeerId, out: &mut Departure<'_, D>) {
        if let Some(at) = self.open.iter().rposition(|open| open.peer == peer) {
            let open = self.open.remove(at);
            note(&mut self.departed, peer);
            out.depart(open);
        }
    }

    /// A peer for whom something was sealed: sealing arms timers and may make a handshake due.
    pub fn next_departed(&mut self) -> Option<PeerId> {
        self.departed.pop()
    }

    /// Whether any waits to be settled.
    #[must_use]
    pub const fn has_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Whether so many wait to be settled that the rest of the turn might not find room.
    #[must_use]
    pub const fn is_settling_due(&self) -> bool {
        self.departed.len() >= OPEN_MAX
    }

    /// Seals and commits all trains, oldest first; short ones are sealed with others.
    pub fn flush<D: Driver>(&mut self, out: &mut Departure<'_, D>) {
        let mut rest = &mut *self.open;
        while !rest.is_empty() {
            let (together, later) = rest.split_at_mut(batch_of(rest));
            out.seal(together);
            rest = later;
        }
        for open in self.open.drain(..) {
            note(&mut self.departed, open.peer);
            out.send(open);
        }
    }

    fn start<D: Driver>(
        &mut self,
        peer: PeerId,
        datagram_bytes: usize,
        ecn: Ecn,
        out: &mut Departure<'_, D>,
    ) -> Result<usize, DropReason> {
        if self.open.len() == OPEN_MAX {
            // All, not the oldest alone, which would be sealed alone.
            self.flush(out);
        }
        let buf = out.driver.reserve_train().ok_or(DropReason::TransmitExhausted)?;
        self.open.push(Open {
            peer,
            content: Content::Plain,
            buf,
            len: 0,
            count: 0,
            segment_bytes: datagram_bytes,
            ecn,
            complete: false,
        });
        Ok(self.open.len() - 1)
    }
}

/// What a train needs to leave: the peers' keys and endpoints, and the driver.
pub struct Departure<'a, D: Driver> {
    /// Who seals.
    pub peers: &'a mut Peers,
    /// Where it goes.
    pub driver: &'a mut D,
    /// What happened.
    pub counters: &'a mut Counters,
    /// When.
    pub now: Now,
}

impl<D: Driver> Departure<'_, D> {
    fn depart(&mut self, mut open: Open) {
        self.seal(std::slice::from_mut(&mut open));
        self.send(open);
    }

    /// Seals trains of at most [`RUN_MAX`] packets together.
    fn seal(&mut self, trains: &mut [Open]) {
        let packets: usize = trains.iter().map(|open| open.count).sum();
        // Two sizes of array: a lone packet must not pay for setting up sixty-four.
        if packets <= FEW {
            self.seal_together::<FEW>(trains, packets);
        } else {
            self.seal_together::<RUN_MAX>(trains, packets);
        }
    }

    /// Headers and counters of all trains, then the cryptography of all.
    fn seal_together<const N: usize>(&mut self, trains: &mut [Open], packets: usize) {
        let mut run: [Plain<'_>; N] = std::array::from_fn(|_| Plain { bytes: Default::default() });
        let mut peers: [Option<PeerId>; N] = [None; N];
        let mut begin = 0;
        for open in &mut *trains {
            let span = begin..begin + open.count;
            begin = span.end;
            let run = &mut run[span.clone()];
            let datagrams = open.buf[..open.len].chunks_mut(open.segment_bytes);
            run.iter_mut().zip(datagrams).for_each(|(plain, bytes)| plain.bytes = bytes);
            match self.prepare(open.peer, run) {
                Ok(()) => {
                    peers[span].fill(Some(open.peer));
                    open.content = Content::Prepared;
                }
                Err(reason) => open.content = Content::Refused(reason),
            }
        }
        let mut keys: [Option<&AeadKey>; N] = [None; N];
        let mut last = (None, None);
        for (key, peer) in keys.iter_mut().zip(peers).filter(|(_, peer)| peer.is_some()) {
            if last.0 != peer {
                last = (peer, peer.and_then(|id| self.peers.get(id)?.tunnel.sending_key()));
            }
            assert!(last.1.is_some(), "who gave out a counter has a key");
            *key = last.1;
        }
        seal_batch(&keys[..packets], &mut run[..packets]);
        let sealed = keys.iter().flatten().count();
        if sealed > 0 {
            self.counters.seal_packets.record(sealed as u64);
        }
        let prepared = trains.iter_mut().filter(|open| open.content == Content::Prepared);
        prepared.for_each(|open| open.content = Content::Sealed);
    }

    fn prepare(&mut self, id: PeerId, run: &mut [Plain<'_>]) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(id).ok_or(DropReason::PeerGone)?;
        peer.endpoint.ok_or(DropReason::InsideNoEndpoint)?;
        peer.tunnel.prepare_run(run, self.now)
    }

    fn send(&mut self, open: Open) {
        let endpoint = match open.content {
            Content::Sealed => self.peers.get(open.peer).and_then(|peer| peer.endpoint),
            Content::Plain | Content::Prepared => {
                unreachable!("a train is sealed before it leaves")
            }
            Content::Refused(reason) => return self.drop_all(open.count, reason),
        };
        let Some(endpoint) = endpoint else {
            return self.drop_all(open.count, DropReason::InsideNoEndpoint);
        };
        self.counters.to_client_packets += open.count as u64;
        self.counters.to_client_bytes += (open.len - open.count * DATA_OVERHEAD_BYTES) as u64;
        self.counters.train_packets.record(open.count as u64);
        self.counters.trains_sent += 1;
        self.driver.send(Train {
            len: open.len,
            segment_bytes: open.segment_bytes,
            to: endpoint.remote,
            from: endpoint.local,
            ecn: open.ecn,
            dscp: 0,
            buf: open.buf,
        });
    }

    fn drop_all(&mut self, count: usize, reason: DropReason) {
        self.counters.drops[reason as usize] += count as u64;
    }
}

/// Remembers a peer, mostly the one remembered last. Beyond the reserved room the list would have
/// to grow; a peer that is forgotten then is settled with its next packet.
fn note(departed: &mut Vec<PeerId>, peer: PeerId) {
    if departed.last() != Some(&peer) && departed.len() < departed.capacity() {
        departed.push(peer);
    }
}

/// How many trains at the beginning of these, of which there is one, are sealed together.
fn batch_of(trains: &[Open]) -> usize {
    let sums = trains.iter().scan(0, |sum, open| {
        *sum += open.count;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= RUN_MAX).count().max(1)
}
