//! Handshakes that are late, repeated, forged or answered with a cookie.

use std::net::SocketAddr;
use std::time::Duration;

use super::pair::{Pair, Party, Seeded, ipv4};
use crate::DropReason;
use crate::crypto::{PresharedKey, PrivateKey, PublicKey};
use crate::wireguard::{
    CookieChecker, Identity, OpenedInitiation, Outcome, OutgoingKind, PeerConfig, Tai64n,
};

/// An initiation of `a`, now.
fn initiation(pair: &mut Pair) -> Vec<u8> {
    pair.a.tunnel.want_handshake(pair.now);
    pair.a.expect(OutgoingKind::Initiation, pair.now)
}

#[test]
fn a_replayed_initiation_is_refused() {
    let mut pair = Pair::new();
    let first = initiation(&mut pair);
    assert_eq!(pair.b.initiation(&first, pair.now), Ok(()));
    let later = pair.pass_s(6);
    assert_eq!(pair.b.initiation(&first, later), Err(DropReason::HandshakeReplayed));
    let second = initiation(&mut pair);
    assert_eq!(pair.b.initiation(&second, later), Ok(()));
    assert_eq!(pair.b.initiation(&first, later), Err(DropReason::HandshakeReplayed));
    assert_eq!(pair.b.tunnel.stats().refused, 2);
}

#[test]
fn a_second_initiation_within_20_ms_is_refused_and_a_later_one_is_not() {
    let mut pair = Pair::new();
    let first = initiation(&mut pair);
    pair.pass_s(6);
    let second = initiation(&mut pair);
    pair.pass_s(6);
    let third = initiation(&mut pair);
    assert_eq!(pair.b.initiation(&first, pair.now), Ok(()));
    let early = pair.pass(Duration::from_nanos(19_999_999));
    assert_eq!(pair.b.initiation(&second, early), Err(DropReason::HandshakeTooSoon));
    // What was refused leaves no trace: neither its stamp nor its time.
    let late = pair.pass(Duration::from_nanos(1));
    assert_eq!(pair.b.initiation(&second, late), Ok(()));
    let late = pair.pass(Duration::from_millis(20));
    assert_eq!(pair.b.initiation(&third, late), Ok(()));
}

#[test]
fn a_wall_clock_that_is_stepped_back_does_not_lock_us_out() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass_s(10);
    pair.now.wall = Duration::from_secs(5);
    pair.handshake();
    pair.pass_s(10);
    pair.handshake();
}

#[test]
fn stamps_outlive_a_restart_on_both_sides() {
    let mut before = Pair::new();
    before.handshake();
    let (sent, _) = before.a.tunnel.stamps();
    let (_, accepted) = before.b.tunnel.stamps();
    assert_eq!(sent, accepted);

    let mut pair = Pair::new();
    pair.now.wall = Duration::from_secs(1);
    pair.b.tunnel.resume_stamps(Tai64n::default(), accepted);
    let forgetful = initiation(&mut pair);
    assert_eq!(pair.b.initiation(&forgetful, pair.now), Err(DropReason::HandshakeReplayed));

    pair.pass_s(6);
    pair.a.tunnel.resume_stamps(sent, Tai64n::default());
    pair.a.tunnel.resume_stamps(Tai64n::default(), Tai64n::default());
    assert_eq!(pair.a.tunnel.stamps().0, sent, "it never goes back");
    let mindful = initiation(&mut pair);
    assert_eq!(pair.b.initiation(&mindful, pair.now), Ok(()));
}

#[test]
fn a_peer_whose_key_is_of_low_order_is_silently_dead() {
    let mut pair = Pair::new();
    for bytes in [[0; 32], std::array::from_fn(|at| u8::from(at == 0))] {
        let config = PeerConfig {
            public: PublicKey(bytes),
            preshared: PresharedKey::default(),
            keepalive_s: 25,
        };
        let mut dead = Party::new(PrivateKey::from_bytes([5; 32]), config, 4);
        dead.tunnel.want_handshake(pair.now);
        assert!(dead.transmit(pair.now).is_none());
        assert_eq!(dead.tunnel.poll_timeout(), None);

        let message = initiation(&mut pair);
        pair.pass_s(6);
        let mut opened = OpenedInitiation::open(&pair.b.identity, &message).unwrap();
        opened.peer = PublicKey(bytes);
        let refused = dead.accept(opened, pair.now);
        assert_eq!(refused, Err(DropReason::HandshakeLowOrderPoint));
    }
}

#[test]
fn ephemeral_keys_of_low_order_are_refused() {
    let mut pair = Pair::new();
    let mut message = initiation(&mut pair);
    pair.b.initiation(&message, pair.now).unwrap();
    let mut response = pair.b.expect(OutgoingKind::Response, pair.now);
    message[8..40].fill(0);
    let refused = OpenedInitiation::open(&pair.b.identity, &message).err();
    assert_eq!(refused, Some(DropReason::HandshakeLowOrderPoint));
    response[12..44].fill(0);
    let refused = pair.a.response(&response, pair.now);
    assert_eq!(refused, Err(DropReason::HandshakeLowOrderPoint));
}

#[test]
fn a_forged_response_does_not_disturb_the_handshake() {
    let mut pair = Pair::new();
    let message = initiation(&mut pair);
    pair.b.initiation(&message, pair.now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, pair.now);
    for at in [12, 43, 44, 59] {
        let mut forged = response.clone();
        forged[at] ^= 4;
        let refused = pair.a.response(&forged, pair.now);
        assert_eq!(refused, Err(DropReason::HandshakeUndecryptable), "byte {at}");
    }
    let mut other = response.clone();
    other[8] ^= 1;
    assert_eq!(pair.a.response(&other, pair.now), Err(DropReason::HandshakeUnexpected));
    assert_eq!(pair.a.response(&response, pair.now), Ok(()));
    let again = pair.a.response(&response, pair.now);
    assert_eq!(again, Err(DropReason::HandshakeUnexpected));
}

#[test]
fn a_response_to_an_initiation_that_was_repeated_is_too_late() {
    let mut pair = Pair::new();
    let first = initiation(&mut pair);
    pair.b.initiation(&first, pair.now).unwrap();
    let late = pair.b.expect(OutgoingKind::Response, pair.now);
    pair.pass_s(6);
    let second = initiation(&mut pair);
    assert_eq!(pair.a.response(&late, pair.now), Err(DropReason::HandshakeUnexpected));
    pair.b.initiation(&second, pair.now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, pair.now);
    assert_eq!(pair.a.response(&response, pair.now), Ok(()));
    assert_eq!((pair.a.table.live.len(), pair.b.table.live.len()), (1, 1));
}

#[test]
fn messages_for_another_entry_point_are_refused() {
    let mut pair = Pair::new();
    let message = initiation(&mut pair);
    pair.b.initiation(&message, pair.now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, pair.now);
    let unknown = Err(DropReason::MessageTypeUnknown);
    assert_eq!(pair.a.response(&message, pair.now), unknown);
    assert_eq!(pair.a.tunnel.accept_cookie(&message, pair.now), unknown);
    assert_eq!(pair.b.initiation(&response, pair.now), unknown);
    let truncated = Err(DropReason::DatagramTruncated);
    assert_eq!(pair.a.response(&response[..91], pair.now), truncated);
    assert_eq!(pair.b.initiation(&message[..147], pair.now), truncated);
}

#[test]
fn without_an_index_a_handshake_waits_or_is_refused() {
    let mut pair = Pair::new();
    let message = initiation(&mut pair);
    pair.b.table.exhausted = true;
    assert_eq!(pair.b.initiation(&message, pair.now), Err(DropReason::IndexExhausted));
    pair.pass_s(6);
    pair.a.table.exhausted = true;
    pair.a.tunnel.want_handshake(pair.now);
    assert!(pair.a.transmit(pair.now).is_none());
    // It is tried again as if the initiation had been lost.
    pair.a.table.exhausted = false;
    pair.b.table.exhausted = false;
    let (at, reason) = pair.a.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "retransmit handshake");
    let wait = at.since(pair.now.mono);
    let now = pair.pass(wait);
    pair.a.timeout(now);
    let message = pair.a.expect(OutgoingKind::Initiation, now);
    assert_eq!(pair.b.initiation(&message, now), Ok(()));
}

#[test]
fn under_load_a_cookie_proves_the_address_and_only_there() {
    let mut pair = Pair::new();
    let (home, away): (SocketAddr, SocketAddr) =
        ("192.0.2.1:4000".parse().unwrap(), "192.0.2.1:4001".parse().unwrap());
    let mut checker = CookieChecker::new(&pair.b.identity);
    let first = initiation(&mut pair);
    let mono = pair.now.mono;
    assert!(checker.check_mac1(&first));
    assert!(!checker.check_mac2(&first, home, mono));
    let mut reply = [0; 64];
    checker.reply(&first, home, mono, &mut Seeded(9), &mut reply).unwrap();
    assert_eq!(reply[4..8], first[4..8]);
    assert_eq!(pair.a.tunnel.accept_cookie(&reply, pair.now), Ok(()));
    assert!(!pair.a.tunnel.has_output(), "the cookie waits for the repetition");

    let now = pair.pass_s(6);
    let second = initiation(&mut pair);
    assert!(checker.check_mac1(&second));
    assert!(checker.check_mac2(&second, home, now.mono));
    assert!(!checker.check_mac2(&second, away, now.mono));
    assert_eq!(pair.b.initiation(&second, now), Ok(()));
}

#[test]
fn a_cookie_reply_must_answer_the_last_message_and_counts_once() {
    let mut pair = Pair::new();
    let from = "[2001:db8::1]:4000".parse().unwrap();
    let mut checker = CookieChecker::new(&pair.b.identity);
    let mut cookie = |message: &[u8], now: crate::Now| {
        let mut reply = [0; 64];
        checker
            .reply(message, from, now.mono, &mut Seeded(now.mono.as_nanos()), &mut reply)
            .unwrap();
        reply
    };
    let first = initiation(&mut pair);
    let to_first = cookie(&first, pair.now);
    assert_eq!(
        pair.b.tunnel.accept_cookie(&to_first, pair.now),
        Err(DropReason::HandshakeUnexpected),
        "it never sent anything"
    );
    pair.pass_s(6);
    let second = initiation(&mut pair);
    let refused = pair.a.tunnel.accept_cookie(&to_first, pair.now);
    assert_eq!(refused, Err(DropReason::HandshakeUndecryptable));
    let to_second = cookie(&second, pair.now);
    for at in [8, 31, 32, 47, 48, 63] {
        let mut forged = to_second;
        forged[at] ^= 1;
        let refused = pair.a.tunnel.accept_cookie(&forged, pair.now);
        assert_eq!(refused, Err(DropReason::HandshakeUndecryptable), "byte {at}");
    }
    assert_eq!(pair.a.tunnel.accept_cookie(&to_second, pair.now), Ok(()));
    let again = pair.a.tunnel.accept_cookie(&to_second, pair.now);
    assert_eq!(again, Err(DropReason::HandshakeUnexpected));
}

#[test]
fn a_cookie_is_used_for_115_s_and_its_secret_for_120() {
    let mut pair = Pair::new();
    let from = "192.0.2.1:4000".parse().unwrap();
    let mut checker = CookieChecker::new(&pair.b.identity);
    let mut reply = [0; 64];
    let first = initiation(&mut pair);
    let born = pair.now;
    checker.reply(&first, from, born.mono, &mut Seeded(9), &mut reply).unwrap();
    pair.a.tunnel.accept_cookie(&reply, born).unwrap();

    pair.pass_s(114);
    let fresh = initiation(&mut pair);
    assert!(checker.check_mac2(&fresh, from, pair.now.mono));
    assert!(checker.check_mac2(&fresh, from, born.mono + Duration::from_millis(119_999)));
    assert!(!checker.check_mac2(&fresh, from, born.mono + Duration::from_secs(120)));
    pair.pass_s(6);
    let stale = initiation(&mut pair);
    assert_eq!(stale[132..], [0; 16], "no second MAC from a cookie that old");

    // Another secret, another cookie.
    let now = pair.now.mono;
    checker.reply(&stale, from, now, &mut Seeded(10), &mut reply).unwrap();
    assert!(!checker.check_mac2(&fresh, from, now));
}

#[test]
fn responses_carry_both_macs_too() {
    let mut pair = Pair::new();
    let from = "192.0.2.1:4000".parse().unwrap();
    let mut checker = CookieChecker::new(&pair.a.identity);
    let first = initiation(&mut pair);
    pair.b.initiation(&first, pair.now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, pair.now);
    assert!(checker.check_mac1(&response));
    let mut reply = [0; 64];
    checker.reply(&response, from, pair.now.mono, &mut Seeded(9), &mut reply).unwrap();
    pair.b.tunnel.accept_cookie(&reply, pair.now).unwrap();
    pair.pass_s(6);
    let second = initiation(&mut pair);
    pair.b.initiation(&second, pair.now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, pair.now);
    assert!(checker.check_mac2(&response, from, pair.now.mono));
    pair.a.response(&response, pair.now).unwrap();
    assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
}

#[test]
fn macs_of_anything_but_handshake_messages_are_wrong() {
    let identity = Identity::new(PrivateKey::from_bytes([1; 32]));
    let mut checker = CookieChecker::new(&identity);
    let from = "192.0.2.1:4000".parse().unwrap();
    let now = Default::default();
    let mut reply = [0; 64];
    for bytes in [0, 31, 32, 64, 91, 93, 147, 149, 1500] {
        let message = vec![1; bytes];
        assert!(!checker.check_mac1(&message));
        assert!(!checker.check_mac2(&message, from, now));
        let refused = checker.reply(&message, from, now, &mut Seeded(1), &mut reply);
        assert_eq!(refused, Err(DropReason::DatagramTruncated));
    }
    assert_eq!(reply, [0; 64]);
}
