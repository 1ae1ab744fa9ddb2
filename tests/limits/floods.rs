//! Floods of handshakes: the queue is bounded, under load a cookie comes before any curve work, and
//! whoever has one gets in.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::Command;
use ringway_proto::DropReason;
use ringway_proto::crypto::{MAC_BYTES, hash, mac, xopen};
use ringway_proto::limits::{HANDSHAKES_PER_TURN_MAX, HANDSHAKES_QUEUED_MAX};
use ringway_proto::wireguard::{CookieChecker, REKEY_TIMEOUT};
use ringway_tests::client::Seeded;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup, identity_of};
use ringway_tests::network::initiation;
use ringway_tests::pair::{Families, Pair, SEED};

/// A gateway after a flood of worthless initiations with a right first MAC.
pub(crate) struct Flood {
    pub(crate) pair: Pair,
    pub(crate) random: Seeded,
    pub(crate) from: SocketAddr,
}

fn roomy() -> Pair {
    let pools = Pools { receive: 96, ..Pools::default() };
    Pair::new(Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) }, Families::V4)
}

/// Puts `count` worthless initiations into the queue, without working on more than a few.
pub(crate) fn pour(flood: &mut Flood, count: usize) {
    let public = Gateway::public_of(SEED);
    let messages: Vec<_> = (0..count).map(|_| initiation(&mut flood.random, &public)).collect();
    for merged in messages.chunks(64) {
        flood.pair.gateway.deliver(
            merged,
            flood.from,
            Families::V4.gateway().ip(),
            Default::default(),
        );
    }
    flood.pair.gateway.turn();
}

/// A gateway that was just flooded with `count` initiations, and has worked on all of them.
pub(crate) fn flooded(count: usize) -> Flood {
    let from = "203.0.113.66:666".parse().unwrap();
    let mut flood = Flood { pair: roomy(), random: Seeded(5), from };
    pour(&mut flood, count);
    flood.pair.gateway.run();
    flood
}

/// Asks for a cookie and opens the reply.
pub(crate) fn cookie(pair: &mut Pair, random: &mut Seeded, from: SocketAddr) -> [u8; MAC_BYTES] {
    let public = Gateway::public_of(SEED);
    let message = initiation(random, &public);
    let reply = pair.gateway.receive(std::slice::from_ref(&message), from).remove(0);
    assert_eq!((reply.bytes[0], reply.to), (3, from));
    let nonce = reply.bytes[8..32].try_into().unwrap();
    let mut value: [u8; MAC_BYTES] = reply.bytes[32..48].try_into().unwrap();
    let tag = reply.bytes[48..64].try_into().unwrap();
    let key = hash(&[b"cookie--", &public.0]);
    assert!(xopen(&key, &nonce, &message[116..132], &mut value, &tag).is_ok());
    value
}

/// Writes the second MAC.
pub(crate) fn sign_again(message: &mut [u8], cookie: &[u8; MAC_BYTES]) {
    let second = mac(cookie, &[&message[..132]]);
    message[132..].copy_from_slice(&second);
}

#[test]
fn a_turn_works_on_few_handshakes_and_the_queue_holds_no_more_than_its_limit() {
    let from = "203.0.113.66:666".parse().unwrap();
    let mut flood = Flood { pair: roomy(), random: Seeded(5), from };
    pour(&mut flood, HANDSHAKES_QUEUED_MAX + 100);
    let gateway = &mut flood.pair.gateway;
    assert_eq!(gateway.drops(DropReason::HandshakeQueueFull), 100);
    let worked = gateway.all_drops() - 100;
    assert_eq!(worked, HANDSHAKES_PER_TURN_MAX as u64);
    gateway.run();
    assert_eq!(gateway.all_drops(), HANDSHAKES_QUEUED_MAX as u64 + 100);
    assert!(gateway.shard.driver_mut().at_rest());
}

#[test]
fn data_passes_a_flood_of_handshakes() {
    let from = "203.0.113.66:666".parse().unwrap();
    let mut pair = roomy();
    pair.connect();
    let mut flood = Flood { pair, random: Seeded(5), from };
    pour(&mut flood, 1_000);
    let Flood { mut pair, .. } = flood;
    let datagrams = pair.client.send(&pair.to_exit(b"in between"), pair.now());
    pair.gateway.deliver(&datagrams, pair.client.address, pair.gateway.ip(), Default::default());
    pair.gateway.turn();
    assert_eq!(pair.gateway.written.len(), 1, "in the turn in which it arrived");
}

#[test]
fn under_load_a_client_gets_in_with_the_cookie_it_is_sent() {
    let mut flood = flooded(600);
    let mac2_missing = flood.pair.drops(DropReason::Mac2Missing);
    assert!(mac2_missing >= 600 - 8, "no curve work for those without a cookie: {mac2_missing}");
    let sent = flood.pair.gateway.shard.counters_mut().cookies_sent;
    assert_eq!(sent, mac2_missing, "each is told how to come in");

    let pair = &mut flood.pair;
    pair.send(&pair.to_exit(b"knock"));
    assert!(!pair.client.ready(pair.now()), "a cookie is no session");
    assert!(pair.gateway.peers()[0].endpoint.is_none(), "and moves no endpoint");
    // Nothing is repeated at once; after five seconds the second try carries the cookie.
    pair.gateway.advance(REKEY_TIMEOUT - Duration::from_millis(500));
    pour(&mut flood, 600);
    let pair = &mut flood.pair;
    pair.gateway.run();
    pair.pass(Duration::from_millis(900));
    assert!(pair.client.ready(pair.now()));
    assert_eq!(pair.gateway.written.len(), 1, "what waited has arrived");
}

#[test]
fn handshakes_for_an_identity_that_is_gone_are_counted_too() {
    let from = "203.0.113.66:666".parse().unwrap();
    let mut flood = Flood { pair: roomy(), random: Seeded(5), from };
    pour(&mut flood, 100);
    let gateway = &mut flood.pair.gateway;
    gateway.command(Command::SetIdentity(Some(Box::new(identity_of(99)))));
    gateway.run();
    assert_eq!(gateway.drops(DropReason::Mac1Wrong), 100 - HANDSHAKES_PER_TURN_MAX as u64);
    assert_eq!(gateway.all_drops(), 100);
}

#[test]
fn load_ends_a_second_after_the_flood() {
    let Flood { mut pair, .. } = flooded(600);
    pair.gateway.advance(Duration::from_millis(1_001));
    pair.send(&pair.to_exit(b"hello"));
    assert!(pair.client.ready(pair.now()), "without a cookie again");
}

#[test]
fn a_cookie_belongs_to_one_address_and_port() {
    let Flood { mut pair, mut random, from } = flooded(600);
    let value = cookie(&mut pair, &mut random, from);
    let before = pair.drops(DropReason::Mac2Missing);
    let mut message = initiation(&mut random, &Gateway::public_of(SEED));
    sign_again(&mut message, &value);
    for other in ["203.0.113.66:667", "203.0.113.67:666"] {
        pair.gateway.receive(std::slice::from_ref(&message), other.parse().unwrap());
    }
    assert_eq!(pair.drops(DropReason::Mac2Missing), before + 2);
    let undecryptable = pair.drops(DropReason::HandshakeUndecryptable);
    pair.gateway.receive(&[message], from);
    assert_eq!(pair.drops(DropReason::HandshakeUndecryptable), undecryptable + 1, "it was opened");
}

#[test]
fn a_source_with_cookies_has_its_share_and_no_more() {
    let Flood { mut pair, mut random, from } = flooded(600);
    let value = cookie(&mut pair, &mut random, from);
    let opened = pair.drops(DropReason::HandshakeUndecryptable);
    for _ in 0..9 {
        let messages: Vec<_> = (0..10)
            .map(|_| {
                let mut message = initiation(&mut random, &Gateway::public_of(SEED));
                sign_again(&mut message, &value);
                message
            })
            .collect();
        pair.gateway.receive(&messages, from);
        pair.gateway.advance(Duration::from_millis(100));
    }
    // A burst of five and ten a second, over eight tenths of a second.
    let opened = pair.drops(DropReason::HandshakeUndecryptable) - opened;
    assert_eq!(opened, 5 + 8);
    assert_eq!(pair.drops(DropReason::HandshakeRateLimited), 90 - opened);
}

#[test]
fn the_gateway_shows_a_cookie_that_it_was_sent_with_its_next_try() {
    let mut pair = Pair::reachable();
    let ask = pair.gateway.inside(&pair.to_client(b"are you there?")).remove(0);
    // The client is under load.
    let mut checker = CookieChecker::new(&identity_of(11));
    let (home, away) = (Families::V4.gateway(), "203.0.113.66:666".parse().unwrap());
    let mut reply = [0; 64];
    let now = pair.now().mono;
    checker.reply(&ask.bytes, home, now, &mut Seeded(3), &mut reply).unwrap();
    let mut forged = reply;
    forged[63] ^= 1;
    assert!(pair.gateway.receive(&[forged.to_vec()], away).is_empty());
    assert_eq!(pair.drops(DropReason::HandshakeUndecryptable), 1);
    assert!(pair.gateway.receive(&[reply.to_vec()], away).is_empty(), "nothing at once");
    assert_eq!(pair.gateway.shard.counters_mut().cookies_received, 1);
    assert!(pair.gateway.receive(&[reply.to_vec()], away).is_empty());
    assert_eq!(pair.drops(DropReason::HandshakeUnexpected), 1, "one for each message");
    assert_eq!(pair.gateway.peers()[0].endpoint, Some(pair.client.address));

    let again = pair.pass_alone(REKEY_TIMEOUT + Duration::from_millis(350)).remove(0).1;
    assert!(checker.check_mac2(&again.bytes, home, pair.now().mono));
    pair.answer(vec![again]);
    assert_eq!(pair.client.received.len(), 1);
}
