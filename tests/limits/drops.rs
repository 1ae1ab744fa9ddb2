//! Every drop reason that a shard can produce is produced.

use std::time::Duration;

use ringway_dataplane::accounts::Way as Direction;
use ringway_dataplane::command::{AccountChange, Exhausted, Volume, VolumeChange};
use ringway_dataplane::{Command, PeerChange};
use ringway_flow::qos::{BURST_MIN, Rate};
use ringway_proto::limits::STAGED_PACKETS_MAX;
use ringway_proto::wireguard::{REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME};
use ringway_proto::{AccountId, DropReason};
use ringway_tests::client::{Client, Seeded};
use ringway_tests::gateway::{Gateway, Setup};
use ringway_tests::network::{initiation, sign};
use ringway_tests::packets::udp4;
use ringway_tests::pair::{Families, Pair, SEED};

use crate::floods::{Flood, flooded};

/// Reasons that only a driver produces: its own tests see to them.
const DRIVER: [DropReason; 3] =
    [DropReason::ReceiveExhausted, DropReason::SendRefused, DropReason::TunRefused];

/// Reasons that need a second core: `tests/crossing.rs` sees to them.
const CROSSING: [DropReason; 2] = [DropReason::CrossingFull, DropReason::CrossedTwice];

/// Makes a drop happen, and returns the pair in which it did.
type Way = fn() -> Pair;

/// A way to produce each of the others.
const WAYS: &[(DropReason, Way)] = &[
    (DropReason::DatagramTruncated, || outside(vec![1, 0, 0, 0, 9])),
    (DropReason::DatagramOversized, || outside(message(1, 149))),
    (DropReason::MessageTypeUnknown, || outside(message(5, 148))),
    (DropReason::ReservedBitsSet, || outside([&[1, 1][..], &[0; 146]].concat())),
    (DropReason::Mac1Wrong, || outside(message(1, 148))),
    (DropReason::Mac2Missing, || flooded(600).pair),
    (DropReason::HandshakeQueueFull, crate::floods::unseen),
    (DropReason::HandshakeRateLimited, rate_limited),
    (DropReason::HandshakeSourceFull, crate::admission::source_full),
    (DropReason::HandshakeSessionsFull, crate::admission::sessions_full),
    (DropReason::HandshakeHalfOpenFull, crate::admission::half_open_full),
    (DropReason::HandshakeDraining, crate::admission::draining),
    (DropReason::HandshakeUndecryptable, || outside(initiation(&mut Seeded(1), &public()))),
    (DropReason::HandshakeLowOrderPoint, low_order_point),
    (DropReason::HandshakePeerUnknown, peer_unknown),
    (DropReason::HandshakeReplayed, handshake_replayed),
    (DropReason::HandshakeTooSoon, handshake_too_soon),
    (DropReason::HandshakeUnexpected, handshake_unexpected),
    (DropReason::IndexUnknown, || outside(message(4, 64))),
    (DropReason::IndexExhausted, index_exhausted),
    (DropReason::KeypairExpired, keypair_expired),
    (DropReason::DataUndecryptable, data_undecryptable),
    (DropReason::DataReplayed, data_replayed),
    (DropReason::NoIdentity, no_identity),
    (DropReason::InnerMalformed, || from_client(&[0xff; 48])),
    (DropReason::SourceNotAllowed, source_not_allowed),
    (DropReason::InsideNotIp, || inside(&[0; 40])),
    (DropReason::InsideOffloadBad, offload_bad),
    (DropReason::InsideNoPeer, no_peer),
    (DropReason::InsideNoEndpoint, no_endpoint),
    (DropReason::InsideTooBig, too_big),
    (DropReason::OverShare, crate::fairness::over_share),
    (DropReason::StagedQueueFull, || staged(STAGED_PACKETS_MAX + 1, 10)),
    (DropReason::StagedExpired, staged_expired),
    (DropReason::RateExceededToExit, || accounted(Direction::ToExit, VolumeChange::Unlimited)),
    (DropReason::RateExceededToClient, || accounted(Direction::ToClient, VolumeChange::Unlimited)),
    (DropReason::QuotaExceeded, quota_exceeded),
    (DropReason::TransmitExhausted, || crate::pools::transmit_exhausted().0),
    (DropReason::TunExhausted, || crate::pools::tun_exhausted().0),
    (DropReason::SessionBudget, || staged(20, 60_000)),
    (DropReason::PeerGone, peer_gone),
];

/// The client sends or gets 100 bytes, after its account of no rate has let its burst pass.
fn accounted(way: Direction, volume: VolumeChange) -> Pair {
    let mut pair = Pair::connected();
    let rate = match volume {
        VolumeChange::Begin(_) => None,
        VolumeChange::Keep | VolumeChange::Unlimited => {
            Some(Rate { bytes_per_second: 0, burst: BURST_MIN })
        }
    };
    let (id, owner, parent) = (AccountId(0), 1, None);
    let change = AccountChange { id, owner, parent, rates: [rate; 2], volume };
    pair.gateway.command(Command::PutAccount(Box::new(change)));
    let account = Some(Some(AccountId(0)));
    pair.gateway.put_peer(PeerChange { account, ..PeerChange::of(pair.client.public()) });
    let lens = if rate.is_some() { &[1_400; 12][..] } else { &[100; 1] };
    for len in lens {
        match way {
            Direction::ToExit => {
                let packet = pair.to_exit(&vec![1; len - 28]);
                let sealed = pair.client.send(&packet, pair.now());
                pair.talk(sealed);
            }
            Direction::ToClient => {
                let packet = pair.to_client(&vec![1; len - 28]);
                pair.inside(&packet);
            }
        }
    }
    pair
}

fn quota_exceeded() -> Pair {
    let volume = Volume { number: 1, bytes: 99, then: Exhausted::Drop };
    accounted(Direction::ToExit, VolumeChange::Begin(volume))
}

#[test]
fn every_reason_has_its_way() {
    for reason in DropReason::ALL {
        let ways = WAYS.iter().filter(|(other, _)| other == reason).count();
        let elsewhere = DRIVER.contains(reason) || CROSSING.contains(reason);
        assert_eq!(ways, usize::from(!elsewhere), "{reason:?}");
    }
}

#[test]
fn every_reason_is_counted_when_it_is_met() {
    for (reason, way) in WAYS {
        let mut pair = way();
        assert!(pair.drops(*reason) > 0, "{reason:?}");
        pair.gateway.run();
        assert!(pair.gateway.shard.driver_mut().at_rest(), "{reason:?} leaves a buffer behind");
    }
}

#[test]
fn what_says_nothing_true_is_dropped_once_and_changes_nothing() {
    // Those in which one message or packet meets a session and nothing else happens.
    for (reason, way) in WAYS {
        let single = !matches!(
            reason,
            DropReason::Mac2Missing
                | DropReason::HandshakeQueueFull
                | DropReason::HandshakeRateLimited
                | DropReason::HandshakeSourceFull
                | DropReason::HandshakeSessionsFull
                | DropReason::HandshakeHalfOpenFull
                | DropReason::OverShare
                | DropReason::SessionBudget
                | DropReason::TransmitExhausted
                | DropReason::TunExhausted
        );
        if single {
            let mut pair = way();
            assert_eq!(pair.drops(*reason), 1, "{reason:?}");
            assert_eq!(pair.gateway.all_drops(), 1, "{reason:?} is the only one");
        }
    }
}

fn public() -> ringway_proto::crypto::PublicKey {
    Gateway::public_of(SEED)
}

/// A message that is nothing but type and length.
fn message(kind: u8, bytes: usize) -> Vec<u8> {
    let mut message = vec![0; bytes];
    message[0] = kind;
    message
}

/// A session, and this datagram from where the client is.
fn outside(datagram: Vec<u8>) -> Pair {
    let mut pair = Pair::connected();
    pair.gateway.receive(&[datagram], pair.client.address);
    pair
}

/// A session, and this inner packet of the client.
fn from_client(packet: &[u8]) -> Pair {
    let mut pair = Pair::connected();
    pair.send(packet);
    assert!(pair.gateway.written.is_empty());
    pair
}

/// A session, and this packet from the TUN.
fn inside(packet: &[u8]) -> Pair {
    let mut pair = Pair::connected();
    pair.inside(packet);
    assert!(pair.client.received.is_empty());
    pair
}

fn rate_limited() -> Pair {
    let Flood { mut pair, mut random, from } = flooded(600);
    let cookie = crate::floods::cookie(&mut pair, &mut random, from);
    let mut messages = Vec::new();
    for _ in 0..8 {
        let mut message = initiation(&mut random, &public());
        crate::floods::sign_again(&mut message, &cookie);
        messages.push(message);
    }
    // Still under load: the queue was long less than a second ago.
    pair.gateway.receive(&messages, from);
    assert_eq!(pair.drops(DropReason::HandshakeRateLimited), 3, "a burst of five is allowed");
    pair
}

fn low_order_point() -> Pair {
    let mut message = initiation(&mut Seeded(1), &public());
    message[8..40].fill(0);
    sign(&mut message, &public());
    outside(message)
}

fn peer_unknown() -> Pair {
    let mut pair = Pair::connected();
    let from = "203.0.113.200:9".parse().unwrap();
    let mut stranger = Client::new(99, public(), from, [0; 32]);
    let hello = stranger.send(&pair.to_exit(b"let me in"), pair.now());
    assert!(pair.gateway.receive(&hello, from).is_empty(), "a stranger gets no answer");
    pair
}

/// A pair without a session, and the first initiation of its client.
fn introduced() -> (Pair, Vec<u8>) {
    let mut pair = Pair::new(Setup::new(SEED, Families::V4.gateway()), Families::V4);
    let hello = pair.client.send(&pair.to_exit(b"hello"), pair.now()).remove(0);
    let answer = pair.gateway.receive(std::slice::from_ref(&hello), pair.client.address);
    assert_eq!(answer.len(), 1);
    (pair, hello)
}

fn handshake_replayed() -> Pair {
    let (mut pair, hello) = introduced();
    pair.gateway.advance(Duration::from_secs(1));
    let from = "203.0.113.66:666".parse().unwrap();
    assert!(pair.gateway.receive(&[hello], from).is_empty());
    assert_eq!(pair.gateway.peers()[0].endpoint, Some(pair.client.address));
    pair
}

fn handshake_too_soon() -> Pair {
    let (mut pair, _) = introduced();
    // The same key from the same seed, with a clock that makes its stamp the newer one.
    let mut twin = Client::new(11, public(), pair.client.address, [0; 32]);
    let mut ahead = pair.now();
    ahead.wall += Duration::from_secs(10);
    let hello = twin.send(&pair.to_exit(b"me too"), ahead);
    pair.gateway.receive(&hello, twin.address);
    pair
}

fn handshake_unexpected() -> Pair {
    let mut pair = Pair::reachable();
    let ask = pair.gateway.inside(&pair.to_client(b"are you there?")).remove(0);
    let response = pair.client.receive(&ask.bytes, pair.now()).remove(0);
    pair.talk(vec![response.clone()]);
    // Its index is that of a session now.
    pair.talk(vec![response]);
    pair
}

fn index_exhausted() -> Pair {
    let setup = Setup { stuck_indices: true, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut pair = Pair::new(setup, Families::V4);
    pair.connect();
    let address = "203.0.113.9:9".parse().unwrap();
    let mut other = Client::new(12, public(), address, [0; 32]);
    pair.gateway.add_peer(other.public(), &["10.0.0.3/32"]);
    let hello = other.send(&pair.to_exit(b"hello"), pair.now());
    assert!(pair.gateway.receive(&hello, address).is_empty());
    pair
}

fn keypair_expired() -> Pair {
    let mut pair = Pair::connected();
    let late = pair.client.send(&pair.to_exit(b"late"), pair.now());
    pair.pass_alone(REJECT_AFTER_TIME);
    pair.talk(late);
    pair
}

fn data_undecryptable() -> Pair {
    let mut pair = Pair::connected();
    let mut datagram = pair.client.send(&pair.to_exit(b"flip"), pair.now()).remove(0);
    datagram[20] ^= 1;
    pair.talk(vec![datagram]);
    pair
}

fn data_replayed() -> Pair {
    let mut pair = Pair::connected();
    let datagram = pair.client.send(&pair.to_exit(b"once"), pair.now()).remove(0);
    pair.talk(vec![datagram.clone(), datagram]);
    assert_eq!(pair.gateway.written.len(), 1);
    pair
}

fn no_identity() -> Pair {
    let mut pair = Pair::new(Setup::new(SEED, Families::V4.gateway()), Families::V4);
    pair.gateway.command(Command::SetIdentity(None));
    pair.send(&pair.to_exit(b"hello"));
    pair
}

fn source_not_allowed() -> Pair {
    from_client(&udp4([10, 0, 0, 3].into(), [192, 0, 2, 1].into(), b"not me"))
}

fn offload_bad() -> Pair {
    let mut pair = Pair::connected();
    let mut bytes = vec![0; 10];
    bytes[1] = 3; // A kind of super-packet that was never offered.
    bytes.extend(pair.to_client(b"odd"));
    pair.gateway.shard.driver_mut().inject_inside(&bytes);
    pair.gateway.run();
    pair
}

fn no_peer() -> Pair {
    inside(&udp4([192, 0, 2, 1].into(), [10, 9, 9, 9].into(), b"who?"))
}

fn no_endpoint() -> Pair {
    let mut pair = Pair::new(Setup::new(SEED, Families::V4.gateway()), Families::V4);
    pair.inside(&pair.to_client(b"where are you?"));
    pair
}

fn too_big() -> Pair {
    let pair = Pair::connected();
    inside(&pair.to_client(&[7; 1_420 - 28 + 1]))
}

/// A peer that does not answer, and so many packets for it.
fn staged(count: usize, payload: usize) -> Pair {
    let mut pair = Pair::reachable();
    for _ in 0..count {
        pair.gateway.inside(&pair.to_client(&vec![7; payload]));
    }
    pair
}

fn staged_expired() -> Pair {
    let mut pair = staged(1, 10);
    pair.pass_alone(REKEY_ATTEMPT_TIME + Duration::from_secs(12));
    pair
}

fn peer_gone() -> Pair {
    let mut pair = staged(1, 10);
    let public = pair.client.public();
    pair.gateway.command(Command::RemovePeer(public));
    assert!(pair.gateway.peers().is_empty());
    // It may come back at once.
    pair.gateway.put_peer(PeerChange::of(public));
    pair
}
