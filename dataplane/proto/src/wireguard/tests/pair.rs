//! The bench of the tests: two parties, each with an identity, a tunnel and an index table, and a
//! clock that only the test moves.

use std::time::Duration;

use crate::crypto::{PresharedKey, PrivateKey, Random};
use crate::wireguard::{
    Cx, Datagram, Identity, Indices, OpenedInitiation, Outcome, Outgoing, OutgoingKind, PeerConfig,
    Plain, RunSummary, SendState, TimeoutEvents, Tunnel,
};
use crate::{DropReason, Instant, Now, ReceiverIndex};

/// Randomness that repeats itself: SplitMix64 from a seed.
pub(super) struct Seeded(pub(super) u64);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed >> 56) as u8;
        }
    }
}

/// An index table that hands out ascending numbers and notices what is released wrongly.
pub(super) struct Table {
    next: u32,
    pub(super) live: Vec<ReceiverIndex>,
    pub(super) exhausted: bool,
}

impl Table {
    pub(super) fn new(first: u32) -> Self {
        Self { next: first, live: Vec::new(), exhausted: false }
    }
}

impl Indices for Table {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        if self.exhausted {
            return None;
        }
        self.next += 1;
        self.live.push(ReceiverIndex(self.next));
        Some(ReceiverIndex(self.next))
    }

    fn release(&mut self, index: ReceiverIndex) {
        let position = self.live.iter().position(|live| *live == index);
        self.live.remove(position.expect("only a live index is released, and once"));
    }
}

/// One end.
pub(super) struct Party {
    pub(super) identity: Identity,
    pub(super) tunnel: Tunnel,
    pub(super) table: Table,
    pub(super) random: Seeded,
}

impl Party {
    pub(super) fn new(private: PrivateKey, config: PeerConfig, seed: u64) -> Self {
        let identity = Identity::new(private);
        let tunnel = Tunnel::new(&identity, config);
        Self { identity, tunnel, table: Table::new((seed as u32) << 16), random: Seeded(seed) }
    }

    fn with<T>(&mut self, now: Now, call: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            identity: &self.identity,
            now,
            random: &mut self.random,
            indices: &mut self.table,
        };
        call(&mut self.tunnel, &mut cx)
    }

    /// The next message it wants to send by itself.
    pub(super) fn transmit(&mut self, now: Now) -> Option<(Outgoing, Vec<u8>)> {
        let mut out = [0xee; 256];
        let outgoing = self.with(now, |tunnel, cx| tunnel.poll_transmit(cx, &mut out))?;
        Some((outgoing, out[..outgoing.len].to_vec()))
    }

    /// The next message, which has to be of this kind.
    pub(super) fn expect(&mut self, kind: OutgoingKind, now: Now) -> Vec<u8> {
        let (outgoing, message) = self.transmit(now).expect("a message");
        assert_eq!(outgoing.kind, kind);
        message
    }

    pub(super) fn initiation(&mut self, message: &[u8], now: Now) -> Result<(), DropReason> {
        let opened = OpenedInitiation::open(&self.identity, message)?;
        self.accept(opened, now)
    }

    pub(super) fn accept(&mut self, opened: OpenedInitiation, now: Now) -> Result<(), DropReason> {
        self.with(now, |tunnel, cx| tunnel.accept_initiation(opened, cx))
    }

    pub(super) fn response(&mut self, message: &[u8], now: Now) -> Result<(), DropReason> {
        self.with(now, |tunnel, cx| tunnel.accept_response(message, cx))
    }

    pub(super) fn timeout(&mut self, now: Now) -> TimeoutEvents {
        self.with(now, Tunnel::handle_timeout)
    }

    pub(super) fn clear(&mut self) {
        self.tunnel.clear(&mut self.table);
    }

    /// Opens a copy of one datagram.
    pub(super) fn open(&mut self, message: &[u8], now: Now) -> (Outcome, RunSummary) {
        self.open_in_place(&mut message.to_vec(), now)
    }

    /// Opens one datagram.
    pub(super) fn open_in_place(&mut self, bytes: &mut [u8], now: Now) -> (Outcome, RunSummary) {
        let index = ReceiverIndex(u32::from_le_bytes(bytes[4..8].try_into().unwrap()));
        let mut run = [Datagram::new(bytes)];
        let summary = self.tunnel.open_run(index, &mut run, now);
        (run[0].outcome, summary)
    }

    /// Seals one packet (or a keepalive).
    pub(super) fn seal(&mut self, packet: &[u8], now: Now) -> Result<Vec<u8>, DropReason> {
        let mut message = vec![0; 16];
        message.extend_from_slice(packet);
        message.extend_from_slice(&[0; 16]);
        self.tunnel.seal_run(&mut [Plain { bytes: &mut message }], now)?;
        Ok(message)
    }
}

/// Two ends and the clock.
pub(super) struct Pair {
    pub(super) a: Party,
    pub(super) b: Party,
    pub(super) now: Now,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with_keys(PresharedKey([7; 32]), PresharedKey([7; 32]))
    }

    pub(super) fn with_keys(psk_of_a: PresharedKey, psk_of_b: PresharedKey) -> Self {
        let mut random = Seeded(1);
        let (a, b) = (PrivateKey::generate(&mut random), PrivateKey::generate(&mut random));
        let (public_a, public_b) = (a.public(), b.public());
        let config = |public, preshared| PeerConfig { public, preshared, keepalive_s: 0 };
        Self {
            a: Party::new(a, config(public_b, psk_of_a), 2),
            b: Party::new(b, config(public_a, psk_of_b), 3),
            now: Now {
                mono: Instant::from_nanos(1_000_000_000_000),
                wall: Duration::from_secs(1_760_000_000),
            },
        }
    }

    /// Lets time pass on both clocks.
    pub(super) fn pass(&mut self, by: Duration) -> Now {
        self.now = Now { mono: self.now.mono + by, wall: self.now.wall + by };
        self.now
    }

    pub(super) fn pass_s(&mut self, seconds: u64) -> Now {
        self.pass(Duration::from_secs(seconds))
    }

    /// A handshake that `a` starts, up to and without its confirmation.
    pub(super) fn handshake_unconfirmed(&mut self) {
        let now = self.now;
        self.a.tunnel.want_handshake(now);
        let initiation = self.a.expect(OutgoingKind::Initiation, now);
        self.b.initiation(&initiation, now).unwrap();
        let response = self.b.expect(OutgoingKind::Response, now);
        self.a.response(&response, now).unwrap();
    }

    /// A whole handshake that `a` starts.
    pub(super) fn handshake(&mut self) {
        self.handshake_unconfirmed();
        let now = self.now;
        let keepalive = self.a.expect(OutgoingKind::Keepalive, now);
        let (outcome, summary) = self.b.open(&keepalive, now);
        assert_eq!(outcome, Outcome::Keepalive);
        assert!(summary.confirmed);
        assert_eq!(self.b.tunnel.send_state(now), SendState::Ready);
    }

    /// Sends a packet from `a` to `b` (or back) and says what became of it.
    pub(super) fn send(&mut self, from_a: bool, packet: &[u8]) -> Outcome {
        let now = self.now;
        let (from, to) =
            if from_a { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
        let message = from.seal(packet, now).unwrap();
        to.open(&message, now).0
    }
}

/// An IPv4 packet of `len` bytes, padded to a multiple of 16.
pub(super) fn ipv4(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.next_multiple_of(16)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

/// An IPv6 packet of `len` bytes, padded to a multiple of 16.
pub(super) fn ipv6(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.next_multiple_of(16)];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
    packet
}
