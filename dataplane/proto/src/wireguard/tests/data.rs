//! Runs of transport messages: outcomes, drops, statistics.

use super::pair::{Pair, ipv4, ipv6};
use crate::limits::RUN_MAX;
use crate::wireguard::{Datagram, Outcome, Plain};
use crate::{DropReason, ReceiverIndex};

fn index_of(message: &[u8]) -> ReceiverIndex {
    ReceiverIndex(u32::from_le_bytes(message[4..8].try_into().unwrap()))
}

#[test]
fn a_run_longer_than_the_batch_is_sealed_and_opened_whole() {
    let mut pair = Pair::new();
    pair.handshake();
    let count = 2 * RUN_MAX + 3;
    let mut messages: Vec<Vec<u8>> =
        (0..count).map(|at| [vec![0; 16], ipv4(20 + at), vec![0; 16]].concat()).collect();
    let mut run: Vec<_> = messages.iter_mut().map(|bytes| Plain { bytes }).collect();
    pair.a.tunnel.seal_run(&mut run, pair.now).unwrap();
    let index = index_of(&messages[0]);
    let mut run: Vec<_> = messages.iter_mut().map(|bytes| Datagram::new(bytes)).collect();
    let summary = pair.b.tunnel.open_run(index, &mut run, pair.now);
    for (at, datagram) in run.iter().enumerate() {
        assert_eq!(datagram.outcome, Outcome::Packet { start: 16, len: 20 + at });
        assert_eq!(datagram.bytes[16], 0x45);
    }
    assert_eq!(summary.packets as usize, count);
    assert_eq!(summary.bytes as usize, (0..count).map(|at| 20 + at).sum::<usize>());
    assert_eq!(summary.last_authenticated, Some(count - 1));
}

#[test]
fn each_datagram_of_a_mixed_run_gets_its_own_outcome() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let packet = pair.a.seal(&ipv6(48), now).unwrap();
    let keepalive = pair.a.seal(&[], now).unwrap();
    let mut forged = pair.a.seal(&ipv4(20), now).unwrap();
    forged[20] ^= 1;
    let mut other = packet.clone();
    other[4] ^= 1;
    let mut reserved = packet.clone();
    reserved[2] = 1;
    let malformed = pair.a.seal(&[0x50; 32], now).unwrap();
    let handshake = [vec![1, 0, 0, 0], vec![0; 144]].concat();
    let mut messages = [
        packet.clone(),
        packet.clone(),
        keepalive,
        forged,
        other,
        reserved,
        packet[..31].to_vec(),
        handshake,
        vec![4, 0],
        malformed,
        packet[..].to_vec(),
        vec![0; crate::limits::BUFFER_BYTES + 1],
    ];
    messages[11][0] = 4;
    let mut run: Vec<_> = messages.iter_mut().map(|bytes| Datagram::new(bytes)).collect();
    run[10].outcome = Outcome::Keepalive;
    let summary = pair.b.tunnel.open_run(index_of(&packet), &mut run, now);
    let outcomes: Vec<_> = run.iter().map(|datagram| datagram.outcome).collect();
    let expected = [
        Outcome::Packet { start: 16, len: 48 },
        Outcome::Dropped(DropReason::DataReplayed),
        Outcome::Keepalive,
        Outcome::Dropped(DropReason::DataUndecryptable),
        Outcome::Dropped(DropReason::IndexUnknown),
        Outcome::Dropped(DropReason::ReservedBitsSet),
        Outcome::Dropped(DropReason::DatagramTruncated),
        Outcome::Dropped(DropReason::MessageTypeUnknown),
        Outcome::Dropped(DropReason::DatagramTruncated),
        Outcome::Dropped(DropReason::InnerMalformed),
        Outcome::Keepalive,
        Outcome::Dropped(DropReason::DatagramOversized),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!((summary.packets, summary.bytes), (1, 48));
    assert_eq!(summary.last_authenticated, Some(9));
}

#[test]
fn a_run_of_nothing_authentic_moves_nothing() {
    let mut pair = Pair::new();
    pair.handshake_unconfirmed();
    let now = pair.now;
    let mut forged = pair.a.seal(&ipv4(20), now).unwrap();
    forged[40] ^= 1;
    let before = (pair.b.tunnel.stats(), pair.b.tunnel.poll_timeout());
    let (outcome, summary) = pair.b.open(&forged, now);
    assert_eq!(outcome, Outcome::Dropped(DropReason::DataUndecryptable));
    assert_eq!(summary, Default::default());
    assert_eq!((pair.b.tunnel.stats(), pair.b.tunnel.poll_timeout()), before);
    // The window did not advance either: the real message with this counter is still welcome.
    forged[40] ^= 1;
    assert_eq!(pair.b.open(&forged, now).0, Outcome::Packet { start: 16, len: 20 });
}

#[test]
fn a_replayed_message_is_refused_before_and_within_a_run() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let messages: Vec<_> = (0..3).map(|_| pair.a.seal(&ipv4(20), now).unwrap()).collect();
    for message in [&messages[2], &messages[0], &messages[1]] {
        assert_eq!(pair.b.open(message, now).0, Outcome::Packet { start: 16, len: 20 });
    }
    for message in &messages {
        let replayed = Outcome::Dropped(DropReason::DataReplayed);
        assert_eq!(pair.b.open(message, now).0, replayed);
    }
}

#[test]
fn an_inner_packet_is_as_long_as_it_says_and_no_longer_than_it_came() {
    let lengths = |packet: &[u8], at: usize, length: u16| {
        let mut packet = packet.to_vec();
        packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let malformed = Outcome::Dropped(DropReason::InnerMalformed);
    let packet = |len| Outcome::Packet { start: 16, len };
    let cases = [
        (lengths(&ipv4(32), 2, 32), packet(32)),
        (lengths(&ipv4(32), 2, 33), malformed),
        (lengths(&ipv4(32), 2, 20), packet(20)),
        (lengths(&ipv4(32), 2, 19), malformed),
        (lengths(&ipv4(32), 2, 0), malformed),
        (lengths(&ipv6(48), 4, 8), packet(48)),
        (lengths(&ipv6(48), 4, 9), malformed),
        (lengths(&ipv6(48), 4, 0), packet(40)),
        (ipv4(32)[..16].to_vec(), malformed),
        (ipv4(32)[..19].to_vec(), malformed),
        (ipv6(48)[..39].to_vec(), malformed),
        (vec![0x45], malformed),
        (vec![0x60], malformed),
        (vec![0; 64], malformed),
        (vec![0xf5; 64], malformed),
        // A sender may leave the padding out.
        (lengths(&ipv4(32), 2, 21)[..21].to_vec(), packet(21)),
    ];
    let mut pair = Pair::new();
    pair.handshake();
    for (text, expected) in cases {
        assert_eq!(pair.send(true, &text), expected, "{text:02x?}");
    }
}

#[test]
fn an_index_of_nobody_is_refused() {
    let mut pair = Pair::new();
    let mut message = [0; 32];
    message[0] = 4;
    let (outcome, summary) = pair.b.open(&message, pair.now);
    assert_eq!(outcome, Outcome::Dropped(DropReason::IndexUnknown));
    assert!(!summary.authenticated);
}

#[test]
fn sealing_is_all_or_nothing() {
    let mut pair = Pair::new();
    pair.handshake();
    let left = 3;
    pair.a.tunnel.keypairs.current_mut().unwrap().sent = u64::MAX - (1 << 13) - left;
    let mut messages = [[0x55; 48]; 4];
    let mut run: Vec<_> = messages.iter_mut().map(|bytes| Plain { bytes }).collect();
    let refused = pair.a.tunnel.seal_run(&mut run, pair.now);
    assert_eq!(refused, Err(DropReason::KeypairExpired));
    assert_eq!(messages, [[0x55; 48]; 4]);
    let mut run: Vec<_> = messages[..3].iter_mut().map(|bytes| Plain { bytes }).collect();
    assert_eq!(pair.a.tunnel.seal_run(&mut run, pair.now), Ok(()));
}

#[test]
fn bytes_are_counted_as_wg_shows_them() {
    let mut pair = Pair::new();
    pair.handshake();
    let (a, b) = (pair.a.tunnel.stats(), pair.b.tunnel.stats());
    assert_eq!((a.tx_bytes, a.rx_bytes), (148 + 32, 92));
    assert_eq!((b.tx_bytes, b.rx_bytes), (92, 148 + 32));
    assert_eq!((a.initiations_sent, a.responses_sent, a.completed), (1, 0, 1));
    assert_eq!((b.initiations_sent, b.responses_sent, b.completed), (0, 1, 1));
    assert_eq!(a.last_handshake_wall, Some(pair.now.wall));
    assert_eq!(b.last_handshake_wall, Some(pair.now.wall));
    pair.send(true, &ipv4(100));
    assert_eq!(pair.a.tunnel.stats().tx_bytes - a.tx_bytes, 112 + 32);
    assert_eq!(pair.b.tunnel.stats().rx_bytes - b.rx_bytes, 112 + 32);
}
