//! WireGuard messages: what is accepted is what the peer sent, byte for byte.

use std::time::Duration;

use ringway_proto::crypto::{PresharedKey, PrivateKey, Random};
use ringway_proto::wireguard::export::{LEASE, STATE_BYTES_MAX};
use ringway_proto::wireguard::{
    CookieChecker, Cx, Datagram, Identity, Indices, Message, OpenedInitiation, Outcome, PeerConfig,
    Plain, Tunnel, TunnelState, classify,
};
use ringway_proto::{DropReason, Instant, Now, ReceiverIndex};

use super::input::Input;

/// Where the fields begin that only MACs protect (section 5.4 of the WireGuard paper).
const INITIATION_MACS: usize = 116;
const RESPONSE_MACS: usize = 60;
const MAC_BYTES: usize = 16;

/// A datagram is classified only if its length fits its type.
pub(crate) fn messages_have_their_lengths(bytes: &[u8]) {
    match classify(bytes) {
        Ok(Message::Initiation) => assert_eq!(bytes.len(), 148),
        Ok(Message::Response { receiver }) => {
            assert_eq!(bytes.len(), 92);
            assert_eq!(receiver.0.to_le_bytes(), bytes[8..12]);
        }
        Ok(Message::Cookie { receiver }) => {
            assert_eq!(bytes.len(), 64);
            assert_eq!(receiver.0.to_le_bytes(), bytes[4..8]);
        }
        Ok(Message::Data { receiver, counter }) => {
            assert!(bytes.len() >= 32);
            assert_eq!(receiver.0.to_le_bytes(), bytes[4..8]);
            assert_eq!(counter.to_le_bytes(), bytes[8..16]);
        }
        Err(reason) => assert!(
            matches!(
                reason,
                DropReason::DatagramTruncated
                    | DropReason::DatagramOversized
                    | DropReason::MessageTypeUnknown
                    | DropReason::ReservedBitsSet
            ),
            "{reason:?}"
        ),
    }
}

/// The responder takes an initiation that arrives as it was sent, and no other; arbitrary bytes do
/// no harm before it.
pub(crate) fn only_an_unchanged_initiation_passes(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new();
    let mut message = pair.initiator.transmit(pair.now);
    let changed = input.damage(&mut message);
    let checker = CookieChecker::new(&pair.responder.identity);
    let authentic = changed.iter().all(|at| *at >= INITIATION_MACS);
    let mac1 = changed.iter().all(|at| *at >= INITIATION_MACS + MAC_BYTES);
    assert_eq!(checker.check_mac1(&message), mac1);

    let junk = input.take(usize::from(u16::MAX));
    let _ = (checker.check_mac1(junk), pair.responder.initiation(junk, pair.now));
    // The sender's index is bound by the first MAC only.
    let index_only = changed.iter().all(|at| (4..8).contains(at) || *at >= INITIATION_MACS);
    let accepted = pair.responder.initiation(&message, pair.now).is_ok();
    assert_eq!(accepted, authentic || index_only);
}

/// The initiator takes a response that arrives as it was sent, and no other.
pub(crate) fn only_an_unchanged_response_passes(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new();
    let initiation = pair.initiator.transmit(pair.now);
    pair.responder.initiation(&initiation, pair.now).expect("unchanged");
    let mut message = pair.responder.transmit(pair.now);
    let changed = input.damage(&mut message);

    let junk = input.take(usize::from(u16::MAX));
    let taken = pair.initiator.with(pair.now, |tunnel, cx| tunnel.accept_response(junk, cx));
    assert!(taken.is_err() || junk == message);
    // As with an initiation, the sender's index is bound by the first MAC only.
    let authentic = changed.iter().all(|at| (4..8).contains(at) || *at >= RESPONSE_MACS);
    let accepted = pair.initiator.with(pair.now, |tunnel, cx| tunnel.accept_response(&message, cx));
    assert_eq!(accepted.is_ok(), authentic);
}

/// The initiator takes a cookie that arrives as it was sent, and no other.
pub(crate) fn only_an_unchanged_cookie_passes(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new();
    let initiation = pair.initiator.transmit(pair.now);
    let mut checker = CookieChecker::new(&pair.responder.identity);
    let from = "192.0.2.1:51820".parse().expect("an address");
    let mut message = [0; 64];
    let random = &mut pair.responder.random;
    let reply = checker.reply(&initiation, from, pair.now.mono, random, &mut message);
    reply.expect("an initiation is answered");
    let changed = input.damage(&mut message);

    let junk = input.take(usize::from(u16::MAX));
    let taken = pair.initiator.tunnel.accept_cookie(junk, pair.now);
    assert!(taken.is_err() || junk == message);
    // The receiver's index is for finding the tunnel; the AEAD does not cover it.
    let authentic = changed.iter().all(|at| (4..8).contains(at));
    assert_eq!(pair.initiator.tunnel.accept_cookie(&message, pair.now).is_ok(), authentic);
}

/// A run of transport messages, damaged, cut, repeated and out of order: each authentic message is
/// delivered once, with the packet that was sealed, and nothing else is.
pub(crate) fn only_unchanged_data_passes_and_once(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut pair = Pair::established();
    let sent: Vec<Vec<u8>> = (0..8).map(|number| pair.initiator.seal(&packet(number))).collect();
    let mut delivered = [false; 8];
    while !input.is_empty() {
        let mut run: Vec<(usize, bool, Vec<u8>)> = Vec::new();
        for _ in 0..=input.byte() % 4 {
            let number = usize::from(input.byte() % 8);
            let mut message = sent[number].clone();
            let cut = usize::from(input.byte().saturating_sub(200));
            message.truncate(message.len() - cut);
            let intact = input.damage(&mut message).is_empty() && cut == 0;
            run.push((number, intact, message));
        }
        let index = ReceiverIndex(u32::from_le_bytes(sent[0][4..8].try_into().expect("four")));
        let mut datagrams: Vec<Datagram<'_>> =
            run.iter_mut().map(|(_, _, message)| Datagram::new(message)).collect();
        pair.responder.tunnel.open_run(index, &mut datagrams, pair.now);
        let outcomes: Vec<Outcome> = datagrams.iter().map(|datagram| datagram.outcome).collect();
        for ((number, intact, message), outcome) in run.iter().zip(outcomes) {
            let fresh = *intact && !delivered[*number];
            delivered[*number] |= fresh;
            match outcome {
                Outcome::Packet { start, len } => {
                    assert!(fresh, "delivered twice or damaged");
                    assert_eq!(message[start..start + len], packet(*number));
                }
                Outcome::Dropped(_) => assert!(!fresh, "an authentic message was refused"),
                Outcome::Pending | Outcome::Keepalive => panic!("{outcome:?}"),
            }
        }
    }
}

/// The record of a tunnel with a session and some traffic.
pub(super) fn exported() -> Vec<u8> {
    let mut pair = Pair::established();
    for number in [0, 1, 5, 70, 3] {
        let mut message = pair.initiator.seal(&packet(number));
        let index = ReceiverIndex(u32::from_le_bytes(message[4..8].try_into().expect("four")));
        pair.responder.tunnel.open_run(index, &mut [Datagram::new(&mut message)], pair.now);
    }
    let mut record = Vec::with_capacity(STATE_BYTES_MAX);
    pair.responder.tunnel.export(pair.now).write(&mut record);
    record
}

/// Another process goes on with the state, for as long as it has something to do.
pub(super) fn go_on(state: &TunnelState) {
    let mut heir = Party::new(PrivateKey::from_bytes([2; 32]), state.peer());
    let at = Instant::ZERO + Duration::from_secs(1000);
    heir.tunnel.import(state, at, LEASE).expect("its own peer");
    assert!(heir.tunnel.indices().count() <= 3);
    let mut now = Now { mono: at, wall: Duration::from_secs(1_700_000_000) };
    for _ in 0..8 {
        let mut out = [0; 256];
        while heir.with(now, |tunnel, cx| tunnel.poll_transmit(cx, &mut out)).is_some() {}
        let Some((deadline, _why)) = heir.tunnel.poll_timeout() else { return };
        now.mono = now.mono.max(deadline);
        heir.with(now, |tunnel, cx| tunnel.handle_timeout(cx));
    }
}

/// An inner IPv4 packet whose length and contents depend on its number.
fn packet(number: usize) -> Vec<u8> {
    let len = 20 + 3 * number;
    let mut packet = vec![number as u8; len];
    packet[..4].copy_from_slice(&[0x45, 0, 0, len as u8]);
    packet
}

/// Two ends and the clock.
struct Pair {
    initiator: Party,
    responder: Party,
    now: Now,
}

struct Party {
    identity: Identity,
    tunnel: Tunnel,
    random: Repeating,
    indices: Ascending,
}

impl Pair {
    /// The initiator is about to send its initiation.
    fn new() -> Self {
        let keys = || [PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32])];
        let [one, two] = keys();
        let [initiator, responder] = [one.public(), two.public()];
        let now = Now {
            mono: Instant::ZERO + Duration::from_secs(1000),
            wall: Duration::from_secs(1_700_000_000),
        };
        let [one, two] = keys();
        let mut pair = Self {
            initiator: Party::new(one, responder),
            responder: Party::new(two, initiator),
            now,
        };
        pair.initiator.tunnel.want_handshake(now);
        pair
    }

    /// Both ends can send.
    fn established() -> Self {
        let mut pair = Self::new();
        let initiation = pair.initiator.transmit(pair.now);
        pair.responder.initiation(&initiation, pair.now).expect("an unchanged initiation");
        let response = pair.responder.transmit(pair.now);
        let done =
            pair.initiator.with(pair.now, |tunnel, cx| tunnel.accept_response(&response, cx));
        done.expect("an unchanged response");
        pair
    }
}

impl Party {
    fn new(private: PrivateKey, peer: ringway_proto::crypto::PublicKey) -> Self {
        let config = PeerConfig { public: peer, preshared: PresharedKey([7; 32]), keepalive_s: 0 };
        let identity = Identity::new(private);
        let tunnel = Tunnel::new(&identity, config);
        Self { identity, tunnel, random: Repeating(1), indices: Ascending(0) }
    }

    fn with<T>(&mut self, now: Now, call: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> T) -> T {
        let Self { identity, tunnel, random, indices } = self;
        call(tunnel, &mut Cx { identity, now, random, indices })
    }

    fn transmit(&mut self, now: Now) -> Vec<u8> {
        let mut out = [0; 256];
        let sent = self.with(now, |tunnel, cx| tunnel.poll_transmit(cx, &mut out));
        out[..sent.expect("a message is due").len].to_vec()
    }

    fn initiation(&mut self, message: &[u8], now: Now) -> Result<(), DropReason> {
        let opened = OpenedInitiation::open(&self.identity, message)?;
        self.with(now, |tunnel, cx| tunnel.accept_initiation(opened, cx))
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let padded = packet.len().next_multiple_of(16);
        let mut bytes = vec![0; 16 + padded + 16];
        bytes[16..16 + packet.len()].copy_from_slice(packet);
        let now = Now { mono: Instant::ZERO + Duration::from_secs(1000), wall: Duration::ZERO };
        let run = &mut [Plain { bytes: &mut bytes }];
        self.tunnel.seal_run(run, now).expect("the keypair is new");
        bytes
    }
}

/// Randomness that is the same in every run.
struct Repeating(u64);

impl Random for Repeating {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

struct Ascending(u32);

impl Indices for Ascending {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        self.0 += 1;
        Some(ReceiverIndex(self.0))
    }

    fn release(&mut self, _: ReceiverIndex) {}
}
