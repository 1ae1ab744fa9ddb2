//! Open GSO trains: datagrams of equal size for one peer, sealed together, sent with one operation.
//!
//! A train shares destination, source address, congestion bits and segment size; a datagram that
//! differs closes it, a shorter one closes it as its last. Plain packets are written into the
//! train's own buffer, with room for header and tag around them, and sealed there: after the copy
//! out of the TUN buffer nothing moves again.

use ringway_alloc::Buf;
use ringway_proto::limits::{RUN_MAX, UDP_PAYLOAD_MAX};
use ringway_proto::wireguard::Plain;
use ringway_proto::wireguard::messages::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES};
use ringway_proto::{DropReason, Now, PeerId};
use ringway_ring::{Driver, Ecn, Train};

use crate::counters::Counters;
use crate::peers::{Peer, Peers};

/// Trains open at once. More destinations than this in one turn close the oldest; at 64 the linear
/// search stays cheap.
const OPEN_MAX: usize = 64;

struct Open {
    peer: PeerId,
    buf: Buf,
    len: usize,
    count: usize,
    segment_bytes: usize,
    ecn: Ecn,
    /// A shorter datagram was appended: nothing may follow it.
    complete: bool,
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

    /// Seals and commits all trains, oldest first.
    pub fn flush<D: Driver>(&mut self, out: &mut Departure<'_, D>) {
        for open in self.open.drain(..) {
            note(&mut self.departed, open.peer);
            out.depart(open);
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
            let oldest = self.open.remove(0);
            note(&mut self.departed, oldest.peer);
            out.depart(oldest);
        }
        let buf = out.driver.reserve_train().ok_or(DropReason::TransmitExhausted)?;
        self.open.push(Open {
            peer,
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
        let Some(peer) = self.peers.get_mut(open.peer) else {
            return self.drop_all(open.count, DropReason::PeerGone);
        };
        let Some(endpoint) = peer.endpoint else {
            return self.drop_all(open.count, DropReason::InsideNoEndpoint);
        };
        if let Err(reason) = seal(peer, &mut open, self.now) {
            return self.drop_all(open.count, reason);
        }
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

fn seal(peer: &mut Peer, open: &mut Open, now: Now) -> Result<(), DropReason> {
    let bytes = &mut open.buf[..open.len];
    // Two sizes of array: a lone packet must not pay for setting up sixty-four.
    if open.count == 1 {
        return peer.tunnel.seal_run(&mut [Plain { bytes }], now);
    }
    let mut datagrams = bytes.chunks_mut(open.segment_bytes);
    let mut run: [Plain<'_>; RUN_MAX] =
        std::array::from_fn(|_| Plain { bytes: datagrams.next().unwrap_or_default() });
    peer.tunnel.seal_run(&mut run[..open.count], now)
}
