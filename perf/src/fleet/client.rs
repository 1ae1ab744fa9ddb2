//! One client: a tunnel, its identity, and where it sends from.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey, Random};
use ringway_proto::wireguard::{
    Cx, Datagram, Identity, Indices, Message, OpenedInitiation, Outcome, PeerConfig, Plain,
    SendState, Tunnel, classify,
};
use ringway_proto::{DropReason, Instant, Now, ReceiverIndex};

use super::wire::Wire;

/// Bits of a receiver index that name the client; the others count.
const NUMBER_BITS: u32 = 20;

/// The clock begins so late that what happened "long ago" is not before its start.
const CLOCK_START: Duration = Duration::from_secs(1_000);

/// What all clients share: clock and randomness.
pub(super) struct World {
    epoch: Clock,
    random: Seeded,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self { epoch: Clock::now(), random: Seeded(seed) }
    }

    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Instant::ZERO + CLOCK_START + self.epoch.elapsed(), wall }
    }

    /// Nanoseconds since the start, for time stamps in payloads.
    pub(super) fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a datagram brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The gateway answered: there is a session.
    Session,
    /// The gateway began a handshake, and was answered.
    Answered,
    Cookie,
    Keepalive,
    /// An inner packet, these bytes of the datagram.
    Packet(Range<usize>),
    Refused,
}

pub(super) struct Client {
    identity: Identity,
    tunnel: Tunnel,
    indices: Numbered,
    from: SocketAddrV4,
    /// The deadline in the agenda that counts.
    pub(super) armed: Option<Instant>,
}

impl Client {
    pub(super) fn new(
        number: u32,
        private: PrivateKey,
        gateway: PublicKey,
        from: SocketAddrV4,
    ) -> Self {
        let identity = Identity::new(private);
        let config =
            PeerConfig { public: gateway, preshared: PresharedKey::default(), keepalive_s: 0 };
        let tunnel = Tunnel::new(&identity, config);
        Self { identity, tunnel, indices: Numbered { number, serial: 0 }, from, armed: None }
    }

    pub(super) fn public(&self) -> PublicKey {
        self.identity.public()
    }

    pub(super) const fn from(&self) -> SocketAddrV4 {
        self.from
    }

    pub(super) const fn set_address(&mut self, address: Ipv4Addr) {
        self.from = SocketAddrV4::new(address, self.from.port());
    }

    pub(super) fn initiations(&self) -> u64 {
        self.tunnel.stats().initiations_sent.into()
    }

    pub(super) fn is_live(&self, now: Now) -> bool {
        self.tunnel.send_state(now) == SendState::Ready
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tunnel.poll_timeout().map(|(deadline, _)| deadline)
    }

    pub(super) fn set_keepalive(&mut self, seconds: u16, world: &World) {
        self.tunnel.set_keepalive(seconds, world.now());
    }

    pub(super) fn want_handshake(&mut self, world: &mut World, wire: &mut Wire) {
        self.tunnel.want_handshake(world.now());
        self.transmit(world, wire);
    }

    pub(super) fn handle_timeout(&mut self, world: &mut World, wire: &mut Wire) {
        let _events = self.with_cx(world, |tunnel, cx| tunnel.handle_timeout(cx));
        self.transmit(world, wire);
    }

    pub(super) fn forget(&mut self, world: &mut World) {
        self.with_cx(world, |tunnel, cx| tunnel.clear(cx.indices));
        self.armed = None;
    }

    /// Seals packets with room for header and tag around them.
    pub(super) fn seal(&mut self, run: &mut [Plain<'_>], world: &World) -> Result<(), DropReason> {
        self.tunnel.seal_run(run, world.now())
    }

    pub(super) fn take(
        &mut self,
        datagram: &mut [u8],
        message: Message,
        world: &mut World,
        wire: &mut Wire,
    ) -> Reaction {
        let reaction = match message {
            Message::Response { .. } => {
                let taken = self.with_cx(world, |tunnel, cx| tunnel.accept_response(datagram, cx));
                taken.map_or(Reaction::Refused, |()| Reaction::Session)
            }
            Message::Cookie { .. } => {
                let taken = self.tunnel.accept_cookie(datagram, world.now());
                taken.map_or(Reaction::Refused, |()| Reaction::Cookie)
            }
            Message::Initiation => match OpenedInitiation::open(&self.identity, datagram) {
                Ok(opened) => {
                    let taken =
                        self.with_cx(world, |tunnel, cx| tunnel.accept_initiation(opened, cx));
                    taken.map_or(Reaction::Refused, |()| Reaction::Answered)
                }
                Err(_) => Reaction::Refused,
            },
            Message::Data { receiver, .. } => self.open(receiver, datagram, world),
        };
        self.transmit(world, wire);
        reaction
    }

    fn open(&mut self, index: ReceiverIndex, bytes: &mut [u8], world: &World) -> Reaction {
        let mut run = [Datagram::new(bytes)];
        self.tunnel.open_run(index, &mut run, world.now());
        match run[0].outcome {
            Outcome::Keepalive => Reaction::Keepalive,
            Outcome::Packet { start, len } => Reaction::Packet(start..start + len),
            Outcome::Pending | Outcome::Dropped(_) => Reaction::Refused,
        }
    }

    /// Sends what the tunnel itself wants to send.
    pub(super) fn transmit(&mut self, world: &mut World, wire: &mut Wire) {
        let mut out = [0; 256];
        while self.tunnel.has_output() {
            let Some(outgoing) =
                self.with_cx(world, |tunnel, cx| tunnel.poll_transmit(cx, &mut out))
            else {
                return;
            };
            wire.push(self.from, &out[..outgoing.len], outgoing.tos);
        }
    }

    fn with_cx<T>(
        &mut self,
        world: &mut World,
        work: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> T,
    ) -> T {
        let now = world.now();
        let Self { identity, tunnel, indices, .. } = self;
        work(tunnel, &mut Cx { identity, now, random: &mut world.random, indices })
    }
}

/// Which client a datagram is for, and what it is. Initiations name nobody: they are for the first
/// client, which is right for a fleet of one.
pub(super) fn addressee(datagram: &[u8], clients: usize) -> Option<(u32, Message)> {
    let message = classify(datagram).ok()?;
    let number = match message {
        Message::Initiation => 0,
        Message::Response { receiver }
        | Message::Cookie { receiver }
        | Message::Data { receiver, .. } => receiver.0 & ((1 << NUMBER_BITS) - 1),
    };
    ((number as usize) < clients).then_some((number, message))
}

/// Indices that carry the client's number; a client is never asked for 4096 at a time.
struct Numbered {
    number: u32,
    serial: u32,
}

impl Indices for Numbered {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        self.serial = self.serial.wrapping_add(1);
        Some(ReceiverIndex(self.serial << NUMBER_BITS | self.number))
    }

    fn release(&mut self, _index: ReceiverIndex) {}
}

/// SplitMix64: fast, and good enough for keys that protect nothing.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_index_names_its_client_whatever_the_serial() {
        let mut indices = Numbered { number: 99_999, serial: (1 << 12) - 2 };
        for _ in 0..4 {
            let index = indices.allocate().unwrap();
            let mut response = [0; 92];
            response[0] = 2;
            response[8..12].copy_from_slice(&index.0.to_le_bytes());
            assert_eq!(addressee(&response, 100_000).unwrap().0, 99_999);
            assert!(addressee(&response, 99_999).is_none());
        }
    }
}
