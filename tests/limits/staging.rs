//! Packets that wait for a handshake: bounded, in order, and not for ever.

use std::time::Duration;

use ringway_proto::DropReason;
use ringway_proto::limits::STAGED_PACKETS_MAX;
use ringway_proto::wireguard::{REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, RETRIES_MAX};
use ringway_tests::pair::Pair;

fn numbered(pair: &Pair, count: u16) -> Vec<Vec<u8>> {
    (0..count).map(|n| pair.to_client(&n.to_be_bytes())).collect()
}

#[test]
fn staged_packets_go_in_order_once_there_is_a_session() {
    let mut pair = Pair::reachable();
    let packets = numbered(&pair, 100);
    let mut sent = Vec::new();
    for packet in &packets {
        sent.extend(pair.gateway.inside(packet));
    }
    assert_eq!(sent.len(), 1, "one initiation for all");
    assert_eq!(pair.gateway.shard.counters_mut().staged_packets, 100);
    assert!(pair.gateway.peers()[0].heap_bytes >= 100 * packets[0].len() as u64);
    pair.answer(sent);
    assert_eq!(pair.client.received, packets);
    assert_eq!(pair.gateway.shard.counters_mut().staged_packets, 0);
    let left = pair.gateway.peers()[0].heap_bytes;
    assert!((1_100..1_300).contains(&left), "{left} bytes: the keypair, and nothing else");
}

#[test]
fn a_full_queue_forgets_the_oldest() {
    let mut pair = Pair::reachable();
    let packets = numbered(&pair, STAGED_PACKETS_MAX as u16 + 10);
    let mut sent = Vec::new();
    for packet in &packets {
        sent.extend(pair.gateway.inside(packet));
    }
    assert_eq!(pair.drops(DropReason::StagedQueueFull), 10);
    assert!(pair.gateway.written.is_empty(), "nobody is told: newer ones will arrive");
    pair.answer(sent);
    assert_eq!(pair.client.received, packets[10..]);
}

#[test]
fn after_ninety_seconds_without_an_answer_the_senders_are_told() {
    let mut pair = Pair::reachable();
    let packets = numbered(&pair, 3);
    for packet in &packets {
        pair.gateway.inside(packet);
    }
    let sent = pair.pass_alone(REKEY_ATTEMPT_TIME + Duration::from_secs(12));
    assert_eq!(sent.len(), usize::from(RETRIES_MAX), "repetitions after the first");
    assert!(sent.iter().all(|(_, sent)| sent.bytes[0] == 1));
    let apart = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0));
    for gap in apart {
        assert!((REKEY_TIMEOUT..REKEY_TIMEOUT + Duration::from_millis(350)).contains(&gap));
    }
    assert_eq!(pair.drops(DropReason::StagedExpired), 3);
    let counters = pair.gateway.shard.counters_mut();
    assert_eq!((counters.handshakes_abandoned, counters.staged_packets), (1, 0));
    assert_eq!(counters.icmp_sent, 3, "host unreachable");
    for (error, packet) in pair.gateway.written.iter().zip(&packets) {
        let error = &error[10..];
        assert_eq!((error[9], error[20], error[21]), (1, 3, 1));
        assert_eq!(error[16..20], packet[12..16], "to who sent it");
        assert_eq!(error[28..28 + packet.len()], packet[..], "about what was sent");
    }
    assert_eq!(pair.gateway.peers()[0].heap_bytes, 0);
    // Another packet tries again.
    let sent = pair.gateway.inside(&packets[0]);
    pair.answer(sent);
    assert_eq!(pair.client.received.len(), 1);
}

#[test]
fn a_packet_that_turns_out_to_be_too_big_is_answered_when_its_time_comes() {
    let mut pair = Pair::reachable();
    let big = pair.to_client(&[9; 1_420 - 28 + 1]);
    let sent = pair.gateway.inside(&big);
    assert_eq!(sent.len(), 1);
    pair.answer(sent);
    assert!(pair.client.received.is_empty());
    assert_eq!(pair.drops(DropReason::InsideTooBig), 1);
    assert_eq!(pair.gateway.written.len(), 1, "packet too big");
}

#[test]
fn a_new_identity_does_not_forget_what_waits() {
    let mut pair = Pair::reachable();
    let packet = pair.to_client(b"patience");
    pair.gateway.inside(&packet);
    let identity = ringway_tests::gateway::identity_of(1_234);
    let public = identity.public();
    pair.client.restart(public);
    let command = ringway_dataplane::Command::SetIdentity(Some(Box::new(identity)));
    pair.gateway.command(command);
    let sent = std::mem::take(&mut pair.gateway.shard.driver_mut().sent);
    pair.answer(sent);
    pair.pass(Duration::from_secs(6));
    assert_eq!(pair.client.received, [packet]);
}
