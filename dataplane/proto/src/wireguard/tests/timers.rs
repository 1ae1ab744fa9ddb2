//! Each timer, as a sentence about what a tunnel does and does not do when.

use std::time::Duration;

use super::pair::{Pair, Party, ipv4};
use crate::wireguard::{
    KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_AFTER, Outcome, OutgoingKind, REKEY_JITTER, REKEY_TIMEOUT,
    RETRIES_MAX, SendState, TimeoutEvents,
};
use crate::{DropReason, Now};

const MS: Duration = Duration::from_millis(1);

/// Lets time pass up to the earliest deadline of `a`, and does what is due.
fn wake_a(pair: &mut Pair) -> (&'static str, Duration, TimeoutEvents) {
    let (at, reason) = pair.a.tunnel.poll_timeout().unwrap();
    let wait = at.since(pair.now.mono);
    let now = pair.pass(wait);
    (reason, wait, pair.a.timeout(now))
}

/// The kinds of all messages that a party wants to send.
fn output(party: &mut Party, now: Now) -> Vec<OutgoingKind> {
    std::iter::from_fn(|| party.transmit(now)).map(|(outgoing, _)| outgoing.kind).collect()
}

fn is_packet(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Packet { .. })
}

#[test]
fn the_initiator_renews_a_key_that_it_sends_with_after_120_s() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass(Duration::from_secs(120) - MS);
    assert!(is_packet(pair.send(true, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), []);
    pair.pass(MS);
    assert!(is_packet(pair.send(true, &ipv4(20))), "the old key serves meanwhile");
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Initiation]);
    assert!(is_packet(pair.send(true, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), [], "one is enough");
}

#[test]
fn a_responder_never_renews_a_key_because_of_its_age() {
    let mut pair = Pair::new();
    pair.handshake();
    for _ in 0..18 {
        assert!(is_packet(pair.send(false, &ipv4(20))));
        assert!(!output(&mut pair.b, pair.now).contains(&OutgoingKind::Initiation));
        assert!(is_packet(pair.send(true, &ipv4(20))));
        assert!(!output(&mut pair.b, pair.now).contains(&OutgoingKind::Initiation));
        pair.pass(Duration::from_millis(9_999));
    }
}

#[test]
fn the_initiator_renews_once_a_key_that_it_receives_with_after_165_s() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass(Duration::from_secs(165) - MS);
    assert!(is_packet(pair.send(false, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), []);
    pair.pass(MS);
    assert!(is_packet(pair.send(false, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Initiation]);
    pair.pass_s(6);
    assert!(is_packet(pair.send(false, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), [], "repetitions are the timer's business");
    // The next session may do so again.
    pair.handshake();
    pair.pass_s(165);
    assert!(is_packet(pair.send(false, &ipv4(20))));
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Initiation]);
}

#[test]
fn a_key_neither_sends_nor_receives_after_180_s() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.pass(Duration::from_secs(180) - MS);
    let in_time = pair.a.seal(&ipv4(20), now).unwrap();
    let too_late = pair.a.seal(&ipv4(20), now).unwrap();
    assert!(is_packet(pair.b.open(&in_time, now).0));
    let now = pair.pass(MS);
    let expired = Outcome::Dropped(DropReason::KeypairExpired);
    assert_eq!(pair.b.open(&too_late, now).0, expired);
    for party in [&mut pair.a, &mut pair.b] {
        assert_eq!(party.tunnel.send_state(now), SendState::HandshakeNeeded);
        assert_eq!(party.seal(&ipv4(20), now), Err(DropReason::KeypairExpired));
    }
    // Whoever has something to send starts the new handshake now, also who answered the last one.
    assert!(output(&mut pair.b, now).contains(&OutgoingKind::Initiation));
}

#[test]
fn received_data_is_answered_with_one_keepalive_after_10_s() {
    let mut pair = Pair::new();
    pair.handshake();
    assert!(is_packet(pair.send(false, &ipv4(20))));
    pair.pass_s(4);
    assert!(is_packet(pair.send(false, &ipv4(20))));
    let (reason, wait, events) = wake_a(&mut pair);
    assert_eq!((reason, wait), ("send keepalive", KEEPALIVE_TIMEOUT - Duration::from_secs(4)));
    assert_eq!(events, TimeoutEvents::default());
    let keepalive = pair.a.expect(OutgoingKind::Keepalive, pair.now);
    assert_eq!(pair.a.tunnel.poll_timeout().map(|(_, reason)| reason), Some("zero keys"));
    // The other side does not answer a keepalive.
    pair.b.open(&keepalive, pair.now);
    assert_eq!(pair.b.tunnel.poll_timeout().map(|(_, reason)| reason), Some("zero keys"));
}

#[test]
fn received_data_needs_no_keepalive_when_something_is_sent_meanwhile() {
    let mut pair = Pair::new();
    pair.handshake();
    assert!(is_packet(pair.send(false, &ipv4(20))));
    pair.pass_s(9);
    assert!(is_packet(pair.send(true, &ipv4(20))));
    let (_, reason) = pair.a.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "new handshake", "no keepalive is due");
}

#[test]
fn unanswered_data_starts_a_new_handshake_after_15_s() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.a.seal(&ipv4(20), pair.now).unwrap();
    pair.pass_s(5);
    pair.a.seal(&ipv4(20), pair.now).unwrap();
    let (reason, wait, events) = wake_a(&mut pair);
    assert_eq!(reason, "new handshake");
    let since_first = wait + Duration::from_secs(5);
    assert!((NEW_HANDSHAKE_AFTER..NEW_HANDSHAKE_AFTER + REKEY_JITTER).contains(&since_first));
    assert!(events.clear_source && !events.gave_up);
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Initiation]);
}

#[test]
fn data_that_was_answered_by_anything_starts_none() {
    let mut pair = Pair::new();
    pair.handshake();
    assert!(is_packet(pair.send(true, &ipv4(20))));
    pair.pass_s(14);
    assert_eq!(pair.send(false, &[]), Outcome::Keepalive);
    let (_, reason) = pair.a.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "zero keys");
    // A keepalive expects no answer.
    pair.a.seal(&[], pair.now).unwrap();
    let (_, reason) = pair.a.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "zero keys");
}

#[test]
fn an_initiation_is_repeated_18_times_with_jitter_and_then_given_up() {
    let mut pair = Pair::new();
    pair.a.tunnel.want_handshake(pair.now);
    pair.a.expect(OutgoingKind::Initiation, pair.now);
    let started = pair.now.mono;
    let mut waits = Vec::new();
    for _ in 0..RETRIES_MAX {
        let (reason, wait, events) = wake_a(&mut pair);
        assert_eq!(reason, "retransmit handshake");
        assert!((REKEY_TIMEOUT..REKEY_TIMEOUT + REKEY_JITTER).contains(&wait), "{wait:?}");
        assert!(events.clear_source && !events.gave_up);
        waits.push(wait);
        pair.a.expect(OutgoingKind::Initiation, pair.now);
        assert_eq!(pair.a.table.live.len(), 1, "the index of the last one is given back");
    }
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 10, "a jitter that varies: {waits:?}");
    assert!(pair.now.mono.since(started) >= Duration::from_secs(90));

    let (_, _, events) = wake_a(&mut pair);
    assert!(events.gave_up && !events.clear_source);
    assert_eq!(output(&mut pair.a, pair.now), []);
    assert!(pair.a.table.live.is_empty());
    assert_eq!(pair.a.tunnel.stats().gave_up, 1);
    assert_eq!(pair.a.tunnel.stats().initiations_sent, 19);
    let (reason, wait, events) = wake_a(&mut pair);
    assert_eq!((reason, wait), ("zero keys", Duration::from_secs(540)));
    assert!(events.keys_erased);
    assert_eq!(pair.a.tunnel.poll_timeout(), None);
}

#[test]
fn somebody_who_still_wants_to_send_gets_another_90_s() {
    let mut pair = Pair::new();
    pair.a.tunnel.want_handshake(pair.now);
    pair.a.expect(OutgoingKind::Initiation, pair.now);
    for _ in 0..3 * RETRIES_MAX {
        assert!(!wake_a(&mut pair).2.gave_up);
        pair.a.expect(OutgoingKind::Initiation, pair.now);
        pair.a.tunnel.want_handshake(pair.now);
        assert_eq!(output(&mut pair.a, pair.now), [], "never two within 5 s");
    }
}

#[test]
fn a_completed_handshake_is_not_repeated() {
    let mut pair = Pair::new();
    pair.handshake();
    for party in [&pair.a, &pair.b] {
        let (_, reason) = party.tunnel.poll_timeout().unwrap();
        assert_eq!(reason, "zero keys");
    }
}

#[test]
fn a_handshake_wanted_right_after_a_response_waits_for_5_s() {
    let mut pair = Pair::new();
    pair.handshake_unconfirmed();
    let now = pair.now;
    pair.b.tunnel.want_handshake(now);
    assert_eq!(output(&mut pair.b, now), []);
    let (at, reason) = pair.b.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "retransmit handshake");
    assert!(at.since(now.mono) >= REKEY_TIMEOUT);
    let wait = at.since(now.mono);
    let now = pair.pass(wait);
    pair.b.timeout(now);
    assert_eq!(output(&mut pair.b, now), [OutgoingKind::Initiation]);
}

#[test]
fn an_initiation_that_a_response_overtook_waits_for_5_s() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    pair.b.tunnel.want_handshake(now);
    pair.b.initiation(&initiation, now).unwrap();
    assert_eq!(output(&mut pair.b, now), [OutgoingKind::Response]);
    let (_, reason) = pair.b.tunnel.poll_timeout().unwrap();
    assert_eq!(reason, "retransmit handshake");
}

#[test]
fn all_keys_are_erased_540_s_after_the_last_session_was_made() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass_s(100);
    pair.handshake();
    let (reason, wait, events) = wake_a(&mut pair);
    assert_eq!((reason, wait), ("zero keys", Duration::from_secs(540)));
    assert!(events.keys_erased);
    assert!(pair.a.table.live.is_empty());
    assert_eq!(pair.a.tunnel.send_state(pair.now), SendState::HandshakeNeeded);
    let message = pair.b.seal(&ipv4(20), pair.now);
    assert_eq!(message, Err(DropReason::KeypairExpired));
    assert_eq!(pair.a.tunnel.poll_timeout(), None);
    pair.handshake();
}

#[test]
fn a_persistent_keepalive_needs_no_session() {
    let mut pair = Pair::new();
    pair.a.tunnel.set_keepalive(25, pair.now);
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Initiation]);
    // It also goes on when nobody ever answers.
    let mut gave_up = 0;
    for _ in 0..100 {
        let (_, _, events) = wake_a(&mut pair);
        gave_up += u32::from(events.gave_up);
        output(&mut pair.a, pair.now);
    }
    assert!(gave_up >= 2, "gave up {gave_up} times");
    assert!(pair.a.tunnel.stats().initiations_sent > 40);
}

#[test]
fn a_persistent_keepalive_follows_the_last_packet_in_either_direction() {
    let mut pair = Pair::new();
    pair.a.tunnel.set_keepalive(25, pair.now);
    pair.handshake();
    let (reason, wait, _) = wake_a(&mut pair);
    assert_eq!((reason, wait), ("persistent keepalive", Duration::from_secs(25)));
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Keepalive]);
    pair.pass_s(24);
    assert_eq!(pair.send(false, &[]), Outcome::Keepalive);
    pair.pass_s(24);
    assert_eq!(pair.send(true, &[]), Outcome::Keepalive);
    let (reason, wait, _) = wake_a(&mut pair);
    assert_eq!((reason, wait), ("persistent keepalive", Duration::from_secs(25)));
}

#[test]
fn a_persistent_keepalive_that_is_turned_on_speaks_at_once_and_off_never() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.a.tunnel.set_keepalive(0, pair.now);
    assert_eq!(output(&mut pair.a, pair.now), []);
    pair.a.tunnel.set_keepalive(25, pair.now);
    assert_eq!(output(&mut pair.a, pair.now), [OutgoingKind::Keepalive]);
    pair.a.tunnel.set_keepalive(50, pair.now);
    assert_eq!(output(&mut pair.a, pair.now), [], "another interval is no reason");
    assert_eq!(wake_a(&mut pair).1, Duration::from_secs(50));
    output(&mut pair.a, pair.now);
    pair.a.tunnel.set_keepalive(0, pair.now);
    assert_eq!(pair.a.tunnel.poll_timeout().map(|(_, reason)| reason), Some("zero keys"));
}

#[test]
fn an_idle_session_with_persistent_keepalive_is_renewed_by_its_initiator_only() {
    let mut pair = Pair::new();
    pair.a.tunnel.set_keepalive(25, pair.now);
    pair.handshake();
    let mut initiations = 0;
    for _ in 0..20 {
        wake_a(&mut pair);
        let now = pair.now;
        while let Some((outgoing, message)) = pair.a.transmit(now) {
            match outgoing.kind {
                OutgoingKind::Initiation => {
                    initiations += 1;
                    pair.b.initiation(&message, now).unwrap();
                    let response = pair.b.expect(OutgoingKind::Response, now);
                    pair.a.response(&response, now).unwrap();
                }
                OutgoingKind::Keepalive => {
                    assert_eq!(pair.b.open(&message, now).0, Outcome::Keepalive)
                }
                OutgoingKind::Response => panic!("nobody asked"),
            }
        }
        assert_eq!(output(&mut pair.b, now), []);
    }
    // 500 s at one renewal in 125 s.
    assert_eq!(initiations, 4);
}

#[test]
fn waking_early_does_nothing() {
    let mut pair = Pair::new();
    pair.handshake();
    let before = pair.a.tunnel.poll_timeout();
    assert_eq!(pair.a.timeout(pair.now), TimeoutEvents::default());
    assert_eq!(pair.a.tunnel.poll_timeout(), before);
}
