//! Floods of handshakes: the queue is bounded, under load a cookie comes before any curve work, and
//! whoever has one gets in.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::Command;
use ringway_proto::DropReason;
use ringway_proto::crypto::{MAC_BYTES, Random, hash, mac, xopen};
use ringway_proto::limits::{
    COOKIES_PER_TURN_MAX, HANDSHAKES_CHECKED_PER_TURN_MAX, HANDSHAKES_PER_TURN_MAX,
};
use ringway_proto::wireguard::{CookieChecker, REKEY_TIMEOUT, UNDER_LOAD_FROM, WASTED_MIN};
use ringway_ring::Wait;
use ringway_tests::client::{Client, Seeded};
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup, identity_of};
use ringway_tests::network::{initiation, sign};
use ringway_tests::packets::udp4;
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

/// Has the gateway work on worthless initiations until the next ones may be load.
pub(crate) fn waste(gateway: &mut Gateway, random: &mut Seeded, from: SocketAddr) {
    let public = Gateway::public_of(SEED);
    let ip = gateway.ip();
    for _ in 0..WASTED_MIN {
        gateway.deliver(&[initiation(random, &public)], from, ip, Default::default());
        gateway.turn();
    }
}

/// Puts `count` worthless initiations into the queue, as many in a turn as one looks at, without
/// working on more than a few; so many that they may be load after those that [`waste`] brings.
pub(crate) fn pour(flood: &mut Flood, count: usize) {
    let public = Gateway::public_of(SEED);
    if count >= UNDER_LOAD_FROM {
        waste(&mut flood.pair.gateway, &mut flood.random, flood.from);
    }
    let messages: Vec<_> = (0..count).map(|_| initiation(&mut flood.random, &public)).collect();
    for looked_at in messages.chunks(HANDSHAKES_CHECKED_PER_TURN_MAX) {
        for merged in looked_at.chunks(64) {
            let ip = Families::V4.gateway().ip();
            flood.pair.gateway.deliver(merged, flood.from, ip, Default::default());
        }
        flood.pair.gateway.turn();
        // Nobody is there for the cookies.
        flood.pair.gateway.shard.driver_mut().sent.clear();
    }
}

/// A gateway that was just flooded with `count` initiations, and has worked on all of them.
pub(crate) fn flooded(count: usize) -> Flood {
    let from = "203.0.113.66:666".parse().unwrap();
    let mut flood = Flood { pair: roomy(), random: Seeded(5), from };
    pour(&mut flood, count);
    flood.pair.gateway.run();
    flood
}

/// A gateway to which so many came in one turn that it did not look at all.
pub(crate) fn unseen() -> Pair {
    let Flood { mut pair, mut random, from } = flooded(0);
    let public = Gateway::public_of(SEED);
    for _ in 0..5 {
        let merged: Vec<_> = (0..64).map(|_| initiation(&mut random, &public)).collect();
        pair.gateway.deliver(&merged, from, Families::V4.gateway().ip(), Default::default());
    }
    pair.gateway.run();
    pair
}

/// Asks for a cookie and opens the reply.
pub(crate) fn cookie(pair: &mut Pair, random: &mut Seeded, from: SocketAddr) -> [u8; MAC_BYTES] {
    let public = Gateway::public_of(SEED);
    let message = initiation(random, &public);
    let reply = pair.gateway.receive(std::slice::from_ref(&message), from).remove(0);
    assert_eq!((reply.bytes[0], reply.to), (3, from));
    open_cookie(&reply.bytes, &message)
}

/// The cookie in a reply to `message`.
pub(crate) fn open_cookie(reply: &[u8], message: &[u8]) -> [u8; MAC_BYTES] {
    let nonce = reply[8..32].try_into().unwrap();
    let mut value: [u8; MAC_BYTES] = reply[32..48].try_into().unwrap();
    let tag = reply[48..64].try_into().unwrap();
    let key = hash(&[b"cookie--", &Gateway::public_of(SEED).0]);
    assert!(xopen(&key, &nonce, &message[116..132], &mut value, &tag).is_ok());
    value
}

/// Writes the second MAC.
pub(crate) fn sign_again(message: &mut [u8], cookie: &[u8; MAC_BYTES]) {
    let second = mac(cookie, &[&message[..132]]);
    message[132..].copy_from_slice(&second);
}

#[test]
fn a_turn_looks_at_some_handshakes_works_on_few_and_answers_some() {
    let Flood { mut pair, mut random, from } = flooded(0);
    let public = Gateway::public_of(SEED);
    let mut turn = |pair: &mut Pair, count: usize| {
        let messages: Vec<_> = (0..count).map(|_| initiation(&mut random, &public)).collect();
        let all = pair.gateway.all_drops();
        let full = pair.drops(DropReason::HandshakeQueueFull);
        for merged in messages.chunks(64) {
            pair.gateway.deliver(merged, from, Families::V4.gateway().ip(), Default::default());
        }
        pair.gateway.turn();
        let sent = std::mem::take(&mut pair.gateway.shard.driver_mut().sent).len();
        let full = pair.drops(DropReason::HandshakeQueueFull) - full;
        (pair.gateway.all_drops() - all - full, full, sent)
    };
    let (checked, worked) = (HANDSHAKES_CHECKED_PER_TURN_MAX, HANDSHAKES_PER_TURN_MAX as u64);
    assert_eq!(turn(&mut pair, checked + 100), (worked, 100, 0));
    for _ in 1..WASTED_MIN / HANDSHAKES_PER_TURN_MAX as u32 - 1 {
        assert_eq!(turn(&mut pair, HANDSHAKES_PER_TURN_MAX), (worked, 0, 0));
    }
    assert_eq!(turn(&mut pair, checked), (worked, 0, 0));
    // The load begins: those who come now, and those who wait, are told to bring a cookie.
    let (dropped, unseen, told) = turn(&mut pair, checked + 100);
    assert!(dropped > checked as u64 - 16 && unseen == 100, "{dropped} {unseen}");
    assert!((1..=2 * COOKIES_PER_TURN_MAX).contains(&told), "{told}");
    pair.gateway.run();
    assert_eq!(pair.gateway.all_drops(), 3 * checked as u64 + 200 + 8 * worked);
    assert!(pair.gateway.shard.driver_mut().at_rest());
}

#[test]
fn who_has_a_cookie_finds_room_in_a_flood_without_end() {
    let mut flood = flooded(600);
    let mut cookie_of = None;
    for round in 0..40 {
        pour(&mut flood, 2 * HANDSHAKES_CHECKED_PER_TURN_MAX);
        let Flood { pair, random, .. } = &mut flood;
        let other = "203.0.113.99:99".parse().unwrap();
        match cookie_of {
            None => {
                pair.gateway.run();
                cookie_of = Some(cookie(pair, random, other));
            }
            Some(cookie) if round % 4 == 0 => {
                let opened = pair.drops(DropReason::HandshakeUndecryptable);
                let mut message = initiation(random, &Gateway::public_of(SEED));
                sign_again(&mut message, &cookie);
                pair.gateway.receive(&[message], other);
                let opened = pair.drops(DropReason::HandshakeUndecryptable) - opened;
                assert_eq!(opened, 1, "in round {round}");
            }
            Some(_) => {}
        }
        flood.pair.gateway.advance(Duration::from_millis(50));
    }
    assert!(flood.pair.gateway.shard.driver_mut().at_rest());
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
    assert!(sent >= 500 && sent <= mac2_missing, "most are told how to come in: {sent}");

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

/// What somebody who reads along knows.
struct Heard {
    /// Messages of clients.
    messages: Vec<Vec<u8>>,
    /// The index of a session of the gateway, as it stands in the response that it sent.
    live: [u8; 4],
}

/// A message of a flood.
type Forge = fn(&mut Seeded, &Heard) -> Vec<u8>;

/// A message of this type for this index, otherwise out of the air.
fn answer(random: &mut Seeded, kind: u8, index: [u8; 4]) -> Vec<u8> {
    let (len, index_at) = if kind == 2 { (92, 8) } else { (64, 4) };
    let mut message = vec![0; len];
    random.fill(&mut message);
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[index_at..index_at + 4].copy_from_slice(&index);
    if kind == 2 {
        sign(&mut message, &Gateway::public_of(SEED));
    }
    message
}

fn any_index(random: &mut Seeded) -> [u8; 4] {
    (random.draw() as u32).to_le_bytes()
}

/// Floods of all kinds that anybody can make, and why most of each is dropped: of what knows our
/// key, of what does not, of what was heard before, of what is nothing.
const KINDS: [(&str, DropReason, Forge); 9] = [
    ("right first MACs", DropReason::Mac2Missing, |random, _| {
        initiation(random, &Gateway::public_of(SEED))
    }),
    ("wrong first MACs", DropReason::Mac1Wrong, |random, _| {
        initiation(random, &Gateway::public_of(SEED + 1))
    }),
    ("second MACs out of the air", DropReason::Mac2Missing, |random, _| {
        let mut message = initiation(random, &Gateway::public_of(SEED));
        sign_again(&mut message, &[random.draw() as u8; MAC_BYTES]);
        message
    }),
    ("replays", DropReason::Mac2Missing, |random, heard| {
        heard.messages[random.below(heard.messages.len() as u64) as usize].clone()
    }),
    ("responses", DropReason::IndexUnknown, |random, _| {
        let index = any_index(random);
        answer(random, 2, index)
    }),
    ("cookie replies", DropReason::IndexUnknown, |random, _| {
        let index = any_index(random);
        answer(random, 3, index)
    }),
    ("responses for a live index", DropReason::HandshakeUnexpected, |random, heard| {
        answer(random, 2, heard.live)
    }),
    ("cookie replies for a live index", DropReason::HandshakeUnexpected, |random, heard| {
        answer(random, 3, heard.live)
    }),
    ("types out of the air", DropReason::MessageTypeUnknown, |random, _| {
        let mut message = vec![0; 148];
        random.fill(&mut message);
        message[0] = random.below(6) as u8;
        message[1..4].fill(0);
        message
    }),
];

/// A session, and what somebody heard while it began.
fn overheard() -> (Pair, Heard) {
    let mut pair = roomy();
    let messages = pair.client.send(&pair.to_exit(b"hello"), pair.now());
    let sent = pair.gateway.receive(&messages, pair.client.address);
    let live = sent[0].bytes[4..8].try_into().unwrap();
    let heard = Heard { messages, live };
    let out = pair.client.receive(&sent[0].bytes, pair.now());
    pair.talk(out);
    pair.gateway.written.clear();
    pair.gateway.advance(Duration::from_millis(200));
    (pair, heard)
}

/// Fills all buffers of the second bank, merged, at once.
fn inundate(pair: &mut Pair, forge: Forge, random: &mut Seeded, heard: &Heard) {
    let from = "203.0.113.66:666".parse().unwrap();
    for _ in 0..16 {
        let merged: Vec<_> = (0..64).map(|_| forge(random, heard)).collect();
        pair.gateway.deliver(&merged, from, pair.gateway.ip(), Default::default());
    }
}

#[test]
fn a_live_session_notices_no_flood_of_any_kind() {
    for (name, reason, forge) in KINDS {
        let (mut pair, heard) = overheard();
        let bytes = pair.gateway.shard.counters_mut().session_bytes;
        let completed = pair.gateway.shard.counters_mut().handshakes_completed_responder;
        let mut random = Seeded(9);
        for round in 0..50 {
            inundate(&mut pair, forge, &mut random, &heard);
            let up = pair.client.send(&pair.to_exit(b"up"), pair.now());
            pair.gateway.deliver(&up, pair.client.address, pair.gateway.ip(), Default::default());
            pair.leave_inside(b"down");
            // What a busy turn has left is done in the next one.
            pair.gateway.turn();
            pair.gateway.turn();
            let sent = std::mem::take(&mut pair.gateway.shard.driver_mut().sent);
            assert!(sent.len() <= 1 + 4 * COOKIES_PER_TURN_MAX, "{name}: {} sent", sent.len());
            let home = pair.client.address;
            for sent in sent.iter().filter(|sent| sent.to == home) {
                pair.client.receive(&sent.bytes, pair.gateway.now);
            }
            assert_eq!(pair.gateway.written.len(), round + 1, "{name}: up in round {round}");
            assert_eq!(pair.client.received.len(), round + 1, "{name}: down in round {round}");
            pair.gateway.now.mono = pair.gateway.now.mono + Duration::from_millis(1);
        }
        assert_eq!(pair.client.refused, 0, "{name}");
        pair.gateway.advance(Duration::from_millis(200));
        let met = pair.drops(reason);
        assert!(met > 50 * 64, "{name}: {met} came as far as they should");
        let counters = pair.gateway.shard.counters_mut();
        assert_eq!(counters.session_bytes, bytes, "{name}: memory");
        assert_eq!(counters.handshakes_completed_responder, completed, "{name}");
        assert_eq!(pair.gateway.peers()[0].endpoint, Some(pair.client.address), "{name}");
    }
}

#[test]
fn a_newcomer_gets_in_through_a_flood_of_any_kind() {
    for (name, _, forge) in KINDS {
        let (mut pair, heard) = overheard();
        let address = "203.0.113.7:7".parse().unwrap();
        let mut newcomer = Client::new(77, Gateway::public_of(SEED), address, [0; 32]);
        pair.gateway.add_peer(newcomer.public(), &["10.99.0.1/32"]);
        let packet = udp4("10.99.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap(), b"hello");
        let mut random = Seeded(9);
        let mut tries = 0;
        while !newcomer.ready(pair.now()) {
            tries += 1;
            assert!(tries <= 3, "{name}: once, and again with a cookie");
            let flood = |pair: &mut Pair, random: &mut Seeded| {
                for _ in 0..4 {
                    inundate(pair, forge, random, &heard);
                    pair.gateway.turn();
                }
            };
            flood(&mut pair, &mut random);
            pair.gateway.run();
            // Between two waves of the flood, as the bank of initiations would have it.
            let ask = newcomer.send(&packet, pair.now());
            pair.gateway.deliver(&ask, address, pair.gateway.ip(), Default::default());
            inundate(&mut pair, forge, &mut random, &heard);
            for sent in pair.gateway.run().iter().filter(|sent| sent.to == address) {
                newcomer.receive(&sent.bytes, pair.gateway.now);
            }
            pair.gateway.advance(REKEY_TIMEOUT + Duration::from_millis(400));
        }
    }
}

#[test]
fn cookie_replies_take_no_place_in_the_queue_and_are_no_load() {
    // The gateway waits for an answer, so a cookie reply for that index might be right.
    let mut pair = Pair::reachable();
    let ask = pair.gateway.inside(&pair.to_client(b"are you there?")).remove(0);
    let index = ask.bytes[4..8].try_into().unwrap();
    let mut random = Seeded(4);
    let from: SocketAddr = "203.0.113.66:666".parse().unwrap();
    for _ in 0..20 {
        let merged: Vec<_> = (0..64).map(|_| answer(&mut random, 3, index)).collect();
        pair.gateway.deliver(&merged, from, pair.gateway.ip(), Default::default());
        pair.gateway.deliver(&merged, from, pair.gateway.ip(), Default::default());
        pair.gateway.turn();
        assert!(pair.gateway.shard.driver_mut().sent.is_empty());
    }
    assert_eq!(pair.drops(DropReason::HandshakeUndecryptable), 20 * 128, "read at once");
    assert_ne!(pair.gateway.turn().wait, Wait::No, "nothing waits");
    // The one that answers is still taken after all of them.
    let response = pair.client.receive(&ask.bytes, pair.now());
    pair.talk(response);
    assert_eq!(pair.client.received.len(), 1);
    assert_eq!(pair.drops(DropReason::Mac2Missing), 0);
    // And with it nothing is awaited any more.
    pair.gateway.receive(&[answer(&mut random, 3, index)], from);
    assert_eq!(pair.drops(DropReason::HandshakeUnexpected), 1);
}

#[test]
fn answers_to_nothing_use_up_no_checks_of_initiations() {
    for kind in [2, 3] {
        let mut pair = roomy();
        let from = "203.0.113.66:666".parse().unwrap();
        let mut random = Seeded(4);
        for _ in 0..2 * HANDSHAKES_CHECKED_PER_TURN_MAX / 64 {
            let index = any_index(&mut random);
            let merged: Vec<_> = (0..64).map(|_| answer(&mut random, kind, index)).collect();
            pair.gateway.deliver(&merged, from, pair.gateway.ip(), Default::default());
        }
        pair.connect();
        assert_eq!(pair.drops(DropReason::HandshakeQueueFull), 0);
        let all = 2 * HANDSHAKES_CHECKED_PER_TURN_MAX as u64;
        assert_eq!(pair.drops(DropReason::IndexUnknown), all, "kind {kind}");
    }
}
