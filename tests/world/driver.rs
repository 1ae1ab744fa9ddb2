//! The world as a shard's driver sees it: what is injected comes out of `next`, what is committed
//! is kept for the test.
//!
//! Buffers are real arena buffers with the real ownership rules, so that a leak, a double use or an
//! exhausted pool shows here as it would on the ring. Nothing here knows time or randomness.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ringway_alloc::{Arena, Buf};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{
    BUFFER_BYTES, Driver, Ecn, Inside, Local, Outside, Received, Train, TunWrite, UdpSockets, Wait,
};

/// Offset of the first byte in an injected buffer, so that code which forgets `start` fails.
const HEADROOM: usize = 64;

/// Sizes of the pools of a [`WorldDriver`].
#[derive(Clone, Copy, Debug)]
pub struct Pools {
    /// Receive buffers, for both sides together.
    pub receive: u32,
    /// Transmit buffers.
    pub transmit: u32,
    /// TUN writes.
    pub tun: usize,
}

impl Default for Pools {
    fn default() -> Self {
        Self { receive: 64, transmit: 64, tun: 128 }
    }
}

/// One datagram as it went onto the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Where to.
    pub to: SocketAddr,
    /// Where from, if the shard chose.
    pub from: Option<Local>,
    /// Congestion bits of the outer header.
    pub ecn: Ecn,
    /// Code point of the outer header.
    pub dscp: u8,
    /// Datagrams that left together with it, itself included.
    pub together: usize,
}

/// A driver whose world is the test.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "boxes are what circulates between driver and shard")]
pub struct WorldDriver {
    receive: Arena,
    transmit: Arena,
    spare_writes: Vec<Box<TunWrite>>,
    inbox: VecDeque<Received>,
    /// What comes while nothing is received.
    waiting: VecDeque<Received>,
    held: bool,
    /// Where the shard said that trains are lost.
    pub suspected: Vec<IpAddr>,
    /// Committed trains, until the turn ends.
    trains: Vec<Train>,
    /// Committed TUN writes, until the turn ends.
    writes: Vec<Box<TunWrite>>,
    /// Datagrams that left.
    pub sent: Vec<Sent>,
    /// Packets written to the TUN, virtio header included.
    pub written: Vec<Vec<u8>>,
    /// Datagrams that found the receive pool empty.
    pub refused: u64,
    /// How long the shard was willing to wait last time.
    pub last_wait: Option<Wait>,
}

impl WorldDriver {
    /// A driver with pools of these sizes.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    pub fn new(pools: Pools) -> io::Result<Self> {
        Ok(Self {
            receive: Arena::with_capacity(pools.receive, BUFFER_BYTES + HEADROOM)?,
            transmit: Arena::with_capacity(pools.transmit, BUFFER_BYTES)?,
            spare_writes: (0..pools.tun).map(|_| TunWrite::new()).collect(),
            inbox: VecDeque::with_capacity(1024),
            waiting: VecDeque::new(),
            held: false,
            suspected: Vec::new(),
            trains: Vec::with_capacity(256),
            writes: Vec::with_capacity(256),
            sent: Vec::new(),
            written: Vec::new(),
            refused: 0,
            last_wait: None,
        })
    }

    /// Delivers datagrams of equal length (the last may be shorter) that arrived together.
    pub fn inject_outside(
        &mut self,
        datagrams: &[Vec<u8>],
        from: SocketAddr,
        to: Option<Local>,
        ecn: Ecn,
    ) {
        let Some(first) = datagrams.first() else { return };
        let stride = first.len();
        let Some(mut buf) = self.receive.take() else {
            self.refused += datagrams.len() as u64;
            return;
        };
        let mut len = 0;
        for datagram in datagrams {
            let at = HEADROOM + len;
            buf[at..at + datagram.len()].copy_from_slice(datagram);
            len += datagram.len();
        }
        let start = HEADROOM;
        self.arrive(Received::Outside(Outside { buf, start, len, stride, from, to, ecn }));
    }

    /// Delivers a packet from the TUN, virtio header included.
    pub fn inject_inside(&mut self, packet: &[u8]) {
        let Some(mut buf) = self.receive.take() else {
            self.refused += 1;
            return;
        };
        buf[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let len = packet.len();
        self.arrive(Received::Inside(Inside { buf, start: HEADROOM, len }));
    }

    fn arrive(&mut self, received: Received) {
        let queue = if self.held { &mut self.waiting } else { &mut self.inbox };
        queue.push_back(received);
    }

    /// Delivers a plain IP packet from the TUN, without offloads.
    pub fn inject_packet(&mut self, packet: &[u8]) {
        let mut bytes = vec![0; VNET_HEADER_BYTES];
        bytes.extend_from_slice(packet);
        self.inject_inside(&bytes);
    }

    /// Whether every buffer and every TUN write is back in its pool.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.receive.free() == self.receive.count()
            && self.transmit.free() == self.transmit.count()
            && self.inbox.is_empty()
            && self.waiting.is_empty()
            && self.trains.is_empty()
            && self.writes.is_empty()
    }

    /// Whether something waits for the shard.
    #[must_use]
    pub fn has_received(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Receive buffers in use.
    #[must_use]
    pub fn receive_in_use(&self) -> usize {
        self.receive.count() - self.receive.free()
    }

    /// Takes everything out of the world without looking at it, and without allocating.
    pub fn swallow(&mut self) {
        self.trains.clear();
        while let Some(mut write) = self.writes.pop() {
            write.clear();
            self.spare_writes.push(write);
        }
    }

    fn deliver(&mut self) {
        for train in self.trains.drain(..) {
            let suspected = self.suspected.contains(&train.to.ip());
            let together = if suspected { 1 } else { train.len.div_ceil(train.segment_bytes) };
            for segment in train.buf[..train.len].chunks(train.segment_bytes) {
                self.sent.push(Sent {
                    bytes: segment.to_vec(),
                    to: train.to,
                    from: train.from,
                    ecn: train.ecn,
                    dscp: train.dscp,
                    together,
                });
            }
        }
        for mut write in self.writes.drain(..) {
            self.written.push(gather(&write));
            write.clear();
            self.spare_writes.push(write);
        }
    }
}

/// Copies a write out as the kernel would: the owners of its buffers have let go by now.
fn gather(write: &TunWrite) -> Vec<u8> {
    let mut bytes = write.head().to_vec();
    let mut held: &[u8] = &[];
    for piece in write.pieces() {
        if let Some(hold) = &piece.hold {
            held = hold.bytes().expect("a committed write is the only user of its buffers");
        }
        let start = piece.start as usize;
        bytes.extend_from_slice(&held[start..start + piece.len as usize]);
    }
    bytes
}

impl Driver for WorldDriver {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.last_wait = Some(wait);
        self.deliver();
        Ok(())
    }

    fn next(&mut self) -> Option<Received> {
        self.inbox.pop_front()
    }

    fn reserve_train(&mut self) -> Option<Buf> {
        self.transmit.take()
    }

    fn send(&mut self, train: Train) {
        self.trains.push(train);
    }

    fn suspect(&mut self, to: IpAddr) {
        self.suspected.push(to);
    }

    fn reserve_tun(&mut self) -> Option<Box<TunWrite>> {
        self.spare_writes.pop()
    }

    fn write_tun(&mut self, write: Box<TunWrite>) {
        self.writes.push(write);
    }

    fn cancel_tun(&mut self, mut write: Box<TunWrite>) {
        write.clear();
        self.spare_writes.push(write);
    }

    fn set_receiving(&mut self, on: bool) -> io::Result<()> {
        self.held = !on;
        if on {
            self.inbox.append(&mut self.waiting);
        }
        Ok(())
    }

    fn set_sockets(&mut self, _sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        Ok(None)
    }
}
