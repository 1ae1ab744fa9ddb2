//! Pools that run out: a counted drop, nothing lost for good, and all is well when they fill again.

use std::time::Duration;

use ringway_proto::DropReason;
use ringway_ring::Wait;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup};
use ringway_tests::packets::udp4;
use ringway_tests::pair::{Families, Pair, SEED};

fn connected(pools: Pools) -> Pair {
    let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut pair = Pair::new(setup, Families::V4);
    pair.connect();
    pair
}

/// Packets for the client in one turn, more trains than there are buffers. Returns how many.
pub(crate) fn transmit_exhausted() -> (Pair, usize) {
    let mut pair = connected(Pools { transmit: 2, ..Pools::default() });
    // A larger packet never joins a train of smaller ones.
    let packets: Vec<_> = (1..=5).map(|n| pair.to_client(&vec![7; 100 * n])).collect();
    for packet in &packets {
        pair.gateway.shard.driver_mut().inject_packet(packet);
    }
    let sent = pair.gateway.run();
    pair.answer(sent);
    (pair, packets.len())
}

/// Packets of the client in one turn, of more flows than there are writes. Returns how many.
pub(crate) fn tun_exhausted() -> (Pair, usize) {
    let mut pair = connected(Pools { tun: 2, ..Pools::default() });
    let sealed: Vec<_> = (1..=5_u8)
        .flat_map(|n| {
            let packet = udp4([10, 0, 0, 2].into(), [192, 0, 2, n].into(), b"one of many");
            pair.client.send(&packet, pair.gateway.now)
        })
        .collect();
    let count = sealed.len();
    pair.gateway.receive(&sealed, pair.client.address);
    (pair, count)
}

#[test]
fn trains_that_find_no_buffer_are_counted_and_the_next_turn_is_well() {
    let (mut pair, count) = transmit_exhausted();
    let lost = pair.drops(DropReason::TransmitExhausted) as usize;
    assert_eq!((pair.client.received.len(), lost), (2, count - 2));
    let sealed = pair.gateway.shard.counters_mut().to_client_packets;
    assert_eq!(sealed, 2, "what was dropped was not sent");
    assert!(pair.gateway.shard.driver_mut().at_rest());
    pair.inside(&pair.to_client(b"again"));
    assert_eq!(pair.client.received.len(), 3);
}

#[test]
fn writes_that_are_all_in_use_are_counted_and_the_next_turn_is_well() {
    let (mut pair, count) = tun_exhausted();
    let lost = pair.drops(DropReason::TunExhausted) as usize;
    assert_eq!((pair.gateway.written.len(), lost), (2, count - 2));
    let delivered = pair.gateway.shard.counters_mut().to_exit_packets;
    assert_eq!(delivered, 1 + 2, "what was dropped was not delivered");
    assert!(pair.gateway.shard.driver_mut().at_rest());
    pair.send(&pair.to_exit(b"again"));
    assert_eq!(pair.gateway.written.len(), 3);
}

#[test]
fn a_handshake_that_finds_no_buffer_is_repeated_and_succeeds() {
    let mut pair = connected(Pools { transmit: 1, ..Pools::default() });
    pair.pass(Duration::from_secs(1));
    pair.client.restart(Gateway::public_of(SEED));
    let hello = pair.client.send(&pair.to_exit(b"hello again"), pair.now());
    // A packet in the same turn takes the only buffer: it is carried first.
    pair.leave_inside(b"in the way");
    pair.gateway.deliver(&hello, pair.client.address, pair.gateway.ip(), Default::default());
    let sent = pair.gateway.run();
    assert!(sent.iter().all(|sent| sent.bytes[0] == 4), "the answer found no buffer");
    assert_eq!(pair.drops(DropReason::TransmitExhausted), 1);
    assert!(!pair.client.ready(pair.now()));
    pair.pass(Duration::from_secs(6));
    assert!(pair.client.ready(pair.now()));
    assert_eq!(pair.gateway.written.len(), 1);
}

#[test]
fn receive_buffers_come_back_with_the_turn_that_carried_them() {
    let mut pair = connected(Pools { receive: 2, ..Pools::default() });
    for round in 0..20_u8 {
        let out = pair.client.send(&pair.to_exit(&[round; 200]), pair.now());
        pair.gateway.deliver(&out, pair.client.address, pair.gateway.ip(), Default::default());
        pair.leave_inside(&[round; 200]);
        // The pool is empty: what comes now is lost in the kernel.
        pair.leave_inside(b"too many");
        let sent = pair.gateway.run();
        pair.answer(sent);
    }
    assert_eq!(pair.gateway.shard.driver_mut().refused, 20);
    assert_eq!((pair.gateway.written.len(), pair.client.received.len()), (20, 20));
    assert_eq!(pair.gateway.all_drops(), 0);
}

#[test]
fn more_than_one_turn_takes_is_carried_in_the_next() {
    let mut pair = connected(Pools { receive: 300, ..Pools::default() });
    for n in 0..200_u8 {
        pair.leave_inside(&[n; 50]);
    }
    assert_ne!(pair.gateway.turn().wait, Wait::Forever);
    assert!(pair.gateway.shard.driver_mut().has_received(), "a turn is bounded");
    let sent = pair.gateway.run();
    pair.answer(sent);
    assert_eq!(pair.client.received.len(), 200);
    assert_eq!(pair.gateway.all_drops(), 0);
}
