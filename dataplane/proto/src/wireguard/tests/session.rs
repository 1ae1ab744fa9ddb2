//! Sessions: what keys may do, and how they follow each other.

use super::pair::{Pair, Party, ipv4, ipv6};
use crate::DropReason;
use crate::wireguard::handshake::Handshake;
use crate::wireguard::keypair::Keypair;
use crate::wireguard::{Outcome, OutgoingKind, SendState, Tunnel};

#[test]
fn a_handshake_gives_both_sides_a_session_that_carries_both_families() {
    let mut pair = Pair::new();
    pair.handshake();
    for from_a in [true, false] {
        let outcome = pair.send(from_a, &ipv4(61));
        assert_eq!(outcome, Outcome::Packet { start: 16, len: 61 });
        let outcome = pair.send(from_a, &ipv6(1280));
        assert_eq!(outcome, Outcome::Packet { start: 16, len: 1280 });
    }
}

#[test]
fn a_responder_stays_mute_until_the_initiator_has_proved_its_key() {
    let mut pair = Pair::new();
    pair.handshake_unconfirmed();
    let now = pair.now;
    assert_eq!(pair.b.tunnel.send_state(now), SendState::HandshakeNeeded);
    assert_eq!(pair.b.seal(&ipv4(20), now), Err(DropReason::KeypairExpired));
    // The initiator proves it at once, although it has nothing to say.
    let keepalive = pair.a.expect(OutgoingKind::Keepalive, now);
    assert_eq!(keepalive.len(), 32);
    let (_, summary) = pair.b.open(&keepalive, now);
    assert!(summary.confirmed && summary.authenticated);
    assert_eq!(pair.b.tunnel.send_state(now), SendState::Ready);
    assert_eq!(pair.send(false, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    let again = pair.a.seal(&[], now).unwrap();
    assert!(!pair.b.open(&again, now).1.confirmed, "once");
}

#[test]
fn staged_packets_confirm_a_key_as_well_as_a_keepalive_does() {
    let mut pair = Pair::new();
    pair.handshake_unconfirmed();
    assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    let now = pair.now;
    assert!(pair.a.transmit(now).is_none(), "no keepalive is needed");
    assert_eq!(pair.b.tunnel.send_state(now), SendState::Ready);
}

#[test]
fn packets_of_the_previous_key_still_arrive_and_those_before_it_do_not() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let first: Vec<_> = (0..2).map(|_| pair.a.seal(&ipv4(20), now).unwrap()).collect();
    pair.pass_s(10);
    pair.handshake();
    let now = pair.now;
    assert_eq!(pair.b.open(&first[0], now).0, Outcome::Packet { start: 16, len: 20 });
    pair.pass_s(10);
    pair.handshake();
    let unknown = Outcome::Dropped(DropReason::IndexUnknown);
    assert_eq!(pair.b.open(&first[1], pair.now).0, unknown);
    // Two keypairs live on each side, and nothing leaked.
    assert_eq!((pair.a.table.live.len(), pair.b.table.live.len()), (2, 2));
}

#[test]
fn a_session_goes_on_while_the_next_one_is_made() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass_s(10);
    pair.handshake_unconfirmed();
    let now = pair.now;
    // The responder sends with the key it knows to be shared.
    let message = pair.b.seal(&ipv4(20), now).unwrap();
    assert_eq!(pair.a.open(&message, now).0, Outcome::Packet { start: 16, len: 20 });
    assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    assert_eq!(pair.send(false, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
}

#[test]
fn a_lost_response_costs_nothing_but_time() {
    let mut pair = Pair::new();
    pair.handshake();
    for _ in 0..3 {
        pair.pass_s(10);
        let now = pair.now;
        pair.a.tunnel.want_handshake(now);
        let initiation = pair.a.expect(OutgoingKind::Initiation, now);
        pair.b.initiation(&initiation, now).unwrap();
        drop(pair.b.expect(OutgoingKind::Response, now));
        assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
        assert_eq!(pair.send(false, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    }
    pair.pass_s(10);
    pair.handshake();
}

#[test]
fn two_initiations_that_cross_make_one_session_with_one_initiator() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    pair.b.tunnel.want_handshake(now);
    let from_a = pair.a.expect(OutgoingKind::Initiation, now);
    let from_b = pair.b.expect(OutgoingKind::Initiation, now);
    pair.a.initiation(&from_b, now).unwrap();
    pair.b.initiation(&from_a, now).unwrap();
    let from_a = pair.a.expect(OutgoingKind::Response, now);
    let from_b = pair.b.expect(OutgoingKind::Response, now);
    let unexpected = Err(DropReason::HandshakeUnexpected);
    let (greater, keepalive) = if pair.a.identity.public() > pair.b.identity.public() {
        assert_eq!(
            (pair.a.response(&from_b, now), pair.b.response(&from_a, now)),
            (Ok(()), unexpected)
        );
        (true, pair.a.expect(OutgoingKind::Keepalive, now))
    } else {
        assert_eq!(
            (pair.a.response(&from_b, now), pair.b.response(&from_a, now)),
            (unexpected, Ok(()))
        );
        (false, pair.b.expect(OutgoingKind::Keepalive, now))
    };
    let smaller = if greater { &mut pair.b } else { &mut pair.a };
    assert!(smaller.open(&keepalive, now).1.confirmed);
    for from_a in [true, false] {
        assert_eq!(pair.send(from_a, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    }
    pair.pass_s(120);
    for from_a in [true, false] {
        pair.send(from_a, &ipv4(20));
    }
    assert_eq!(pair.a.tunnel.has_output(), greater);
    assert_eq!(pair.b.tunnel.has_output(), !greater);
}

#[test]
fn a_confirmed_answer_ends_our_own_unanswered_initiation() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.b.tunnel.want_handshake(now);
    let lost = pair.b.expect(OutgoingKind::Initiation, now);
    pair.handshake();
    assert_eq!(pair.b.tunnel.poll_timeout().map(|(_, reason)| reason), Some("zero keys"));
    let later = pair.pass_s(6);
    pair.a.initiation(&lost, later).unwrap();
    let response = pair.a.expect(OutgoingKind::Response, later);
    let refused = pair.b.response(&response, later);
    assert_eq!(refused, Err(DropReason::HandshakeUnexpected));
    assert_eq!(pair.b.table.live.len(), 1);
}

#[test]
fn counters_count_from_zero_under_each_key() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.handshake();
        let now = pair.now;
        for expected in 1..4_u64 {
            let message = pair.a.seal(&ipv4(20), now).unwrap();
            assert_eq!(message[8..16], expected.to_le_bytes());
        }
        pair.pass_s(10);
    }
}

#[test]
fn a_key_is_renewed_after_its_message_limit_whoever_made_it() {
    for from_a in [true, false] {
        let mut pair = Pair::new();
        pair.handshake();
        let now = pair.pass_s(10);
        let party = if from_a { &mut pair.a } else { &mut pair.b };
        party.tunnel.keypairs.current_mut().unwrap().sent = (1 << 60) - 1;
        party.seal(&ipv4(20), now).unwrap();
        assert!(party.transmit(now).is_none(), "message 2^60 is still silent");
        party.seal(&ipv4(20), now).unwrap();
        party.expect(OutgoingKind::Initiation, now);
    }
}

#[test]
fn no_message_is_sent_or_accepted_at_the_reject_limit() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let limit = u64::MAX - (1 << 13);
    pair.a.tunnel.keypairs.current_mut().unwrap().sent = limit - 1;
    assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    assert_eq!(pair.a.seal(&ipv4(20), now), Err(DropReason::KeypairExpired));
    assert_eq!(pair.a.tunnel.send_state(now), SendState::HandshakeNeeded);

    // A message beyond it, sealed rightly, is refused before it is opened.
    let keypair = pair.a.tunnel.keypairs.current().unwrap();
    let mut message = vec![0; 32];
    super::super::messages::write_data_header(&mut message, keypair.theirs, limit);
    let tag = crate::crypto::AeadKey::new(keypair.send.bytes()).seal(limit, &[], &mut []);
    message[16..].copy_from_slice(&tag);
    let expired = Outcome::Dropped(DropReason::KeypairExpired);
    assert_eq!(pair.b.open(&message, now).0, expired);
}

#[test]
fn different_preshared_keys_make_no_session() {
    use crate::crypto::PresharedKey;
    let mut pair = Pair::with_keys(PresharedKey([1; 32]), PresharedKey::default());
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    pair.b.initiation(&initiation, now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, now);
    assert_eq!(pair.a.response(&response, now), Err(DropReason::HandshakeUndecryptable));
}

#[test]
fn a_new_preshared_key_counts_from_the_next_handshake() {
    use crate::crypto::PresharedKey;
    let mut pair = Pair::new();
    pair.handshake();
    for party in [&mut pair.a, &mut pair.b] {
        party.tunnel.set_preshared(PresharedKey([9; 32]));
    }
    assert_eq!(pair.send(true, &ipv4(20)), Outcome::Packet { start: 16, len: 20 });
    pair.pass_s(10);
    pair.handshake();
}

#[test]
fn a_new_identity_erases_all_keys_and_starts_afresh() {
    use crate::crypto::PrivateKey;
    use crate::wireguard::Identity;
    let mut pair = Pair::new();
    pair.handshake();
    let stale = pair.b.seal(&ipv4(20), pair.now).unwrap();
    pair.a.identity = Identity::new(PrivateKey::from_bytes([0x77; 32]));
    pair.a.tunnel.identity_changed(&pair.a.identity, &mut pair.a.table);
    assert!(pair.a.table.live.is_empty());
    let now = pair.now;
    assert_eq!(pair.a.open(&stale, now).0, Outcome::Dropped(DropReason::IndexUnknown));
    assert_eq!(pair.a.tunnel.poll_timeout(), None);

    // The peer does not know the new key: its core finds nobody, and its tunnel refuses.
    pair.a.tunnel.want_handshake(now);
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    let refused = pair.b.initiation(&initiation, now);
    assert_eq!(refused, Err(DropReason::HandshakePeerUnknown));
}

#[test]
fn a_removed_peer_leaves_no_index_and_no_timer_behind() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass_s(10);
    pair.handshake_unconfirmed();
    let now = pair.pass_s(10);
    pair.a.tunnel.want_handshake(now);
    pair.a.expect(OutgoingKind::Keepalive, now);
    pair.a.expect(OutgoingKind::Initiation, now);
    for party in [&mut pair.a, &mut pair.b] {
        assert!(!party.table.live.is_empty());
        party.clear();
        assert!(party.table.live.is_empty());
        assert_eq!(party.tunnel.poll_timeout(), None);
        assert!(!party.tunnel.has_output());
    }
}

fn held(party: &Party) -> Vec<usize> {
    party.tunnel.blocks().collect()
}

#[test]
fn a_tunnel_holds_a_keypair_for_each_session_and_nothing_without_one() {
    // What is configured and precomputed, stamps, timers, counts. Keypairs of 1.2 KB, most of it
    // the replay window, would be more than all the rest.
    assert!(size_of::<Tunnel>() <= 320, "{} bytes", size_of::<Tunnel>());
    let keypair = size_of::<Keypair>();
    assert!(keypair <= 1_280, "{keypair} bytes: the size class of the allocator");
    let mut pair = Pair::new();
    assert!(held(&pair.a).is_empty() && held(&pair.b).is_empty());
    pair.handshake();
    assert_eq!([held(&pair.a), held(&pair.b)], [[keypair], [keypair]]);
    pair.pass_s(120);
    pair.handshake();
    assert_eq!([held(&pair.a), held(&pair.b)], [[keypair; 2], [keypair; 2]]);
    pair.pass_s(120);
    pair.handshake();
    assert_eq!([held(&pair.a), held(&pair.b)], [[keypair; 2], [keypair; 2]]);
    let now = pair.pass_s(540);
    for party in [&mut pair.a, &mut pair.b] {
        assert!(party.timeout(now).keys_erased);
        assert!(held(party).is_empty());
    }
}

#[test]
fn what_a_handshake_needs_is_held_until_it_is_complete_or_given_up() {
    let [keypair, handshake] = [size_of::<Keypair>(), size_of::<Handshake>()];
    assert!(handshake <= 320, "{handshake} bytes");
    let mut pair = Pair::new();
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    assert!(held(&pair.a).is_empty());
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    assert_eq!(held(&pair.a), [handshake]);
    pair.b.initiation(&initiation, now).unwrap();
    assert_eq!(held(&pair.b), [keypair, handshake]);
    let response = pair.b.expect(OutgoingKind::Response, now);
    pair.a.response(&response, now).unwrap();
    assert_eq!(held(&pair.a), [keypair]);
    let keepalive = pair.a.expect(OutgoingKind::Keepalive, now);
    pair.b.open(&keepalive, now);
    assert_eq!(held(&pair.b), [keypair]);

    // Nobody answers: after 90 s it is given up, and after another 540 s nothing is left.
    pair.a.clear();
    pair.b.clear();
    assert!(held(&pair.a).is_empty() && held(&pair.b).is_empty());
    let now = pair.pass_s(10);
    pair.a.tunnel.want_handshake(now);
    let mut gave_up = false;
    for _ in 0..700 {
        let now = pair.pass_s(1);
        gave_up |= pair.a.timeout(now).gave_up;
        pair.a.transmit(now);
    }
    assert!(gave_up && held(&pair.a).is_empty());
}
