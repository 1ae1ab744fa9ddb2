//! Datagrams and trains between two drivers over loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::net::{in_own_network, set_mtu};
use super::{SMALL, driver, listening, pattern, receive, train, turn_until};
use crate::backend::Backend;
use crate::driver::{Ecn, Local, Outside, Received, Wait};
use crate::listen::{UdpOptions, UdpSockets};
use crate::pools::PoolSizes;

on_each_driver! {
    a_train_arrives_cut_in_order_and_byte_exact,
    datagrams_that_arrive_together_are_received_together,
    addresses_and_congestion_bits_are_kept_both_ways,
    single_datagrams_come_one_by_one_with_the_payload_aligned,
    an_empty_datagram_is_counted_and_skipped,
    when_all_buffers_are_held_nothing_is_lost_but_time,
    transmit_buffers_run_out_only_while_they_are_held,
    trains_beyond_the_pool_leave_early_instead_of_failing,
    more_trains_than_the_queue_holds_leave_in_order,
    a_family_without_a_socket_is_counted,
    refusals_are_counted_by_class,
    a_source_that_is_no_longer_ours_is_left_out,
    privileged_segments_too_long_for_the_path_go_singly_and_whole,
    privileged_trains_lost_on_the_way_arrive_as_single_datagrams_once_that_is_said,
    a_train_of_more_datagrams_than_the_kernel_cuts_goes_in_parts,
    what_comes_while_nothing_is_received_waits_in_order_and_sends_go_on,
    what_came_before_the_pause_is_still_handed_out,
}

fn outside<B: Backend>(driver: &mut B) -> Outside {
    match receive(driver) {
        Received::Outside(outside) => outside,
        Received::Inside(inside) => panic!("{inside:?}"),
    }
}

fn bytes(outside: &Outside) -> &[u8] {
    &outside.buf[outside.start..][..outside.len]
}

/// All datagrams until `len` bytes have come, in order.
pub(super) fn datagrams<B: Backend>(driver: &mut B, len: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    turn_until(driver, |received| {
        if let Some(Received::Outside(outside)) = received {
            all.extend(bytes(&outside).chunks(outside.stride).map(<[u8]>::to_vec));
        }
        all.iter().map(Vec::len).sum::<usize>() >= len
    });
    all
}

pub(super) fn loopback(ipv6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if ipv6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
    (ip, port).into()
}

fn a_train_arrives_cut_in_order_and_byte_exact<B: Backend>() {
    for (ipv6, len, segment) in
        [(false, 10_500, 1200), (true, 10_500, 1200), (false, 65_507, 1452), (true, 64, 1)]
    {
        let (mut sender, from_port) = listening::<B>(SMALL);
        let (mut receiver, port) = listening::<B>(SMALL);
        let train = train(&mut sender, len, segment, loopback(ipv6, port));
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        let all = datagrams(&mut receiver, len);
        assert_eq!(all.len(), len.div_ceil(segment));
        assert!(all[..all.len() - 1].iter().all(|datagram| datagram.len() == segment));
        let flat: Vec<u8> = all.concat();
        assert!(flat.iter().enumerate().all(|(at, byte)| *byte == pattern(at)), "{ipv6} {len}");
        assert_eq!(sender.stats().train_refused.total(), 0);
        let _ = from_port;
    }
}

fn datagrams_that_arrive_together_are_received_together<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let (mut receiver, port) = listening::<B>(SMALL);
    let train = train(&mut sender, 20 * 1000, 1000, loopback(false, port));
    sender.send(train);
    sender.turn(Wait::No).unwrap();
    let outside = outside(&mut receiver);
    assert_eq!((outside.len, outside.stride), (20_000, 1000));
    assert_eq!(receiver.stats().outside_batch.buckets[5], 1);
    assert_eq!(sender.stats().train_batch.buckets[5], 1);
}

fn addresses_and_congestion_bits_are_kept_both_ways<B: Backend>() {
    for ipv6 in [false, true] {
        let (mut sender, from_port) = listening::<B>(SMALL);
        let (mut receiver, port) = listening::<B>(SMALL);
        let source: IpAddr = if ipv6 { "::1" } else { "127.0.0.5" }.parse().unwrap();
        let mut train = train(&mut sender, 3000, 1000, loopback(ipv6, port));
        train.from = Some(Local { address: source, interface: 1 });
        train.ecn = Ecn(1);
        train.dscp = 46;
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        let outside = outside(&mut receiver);
        assert_eq!(outside.from, (source, from_port).into());
        assert_eq!(outside.to.unwrap().address, loopback(ipv6, 0).ip());
        assert!(outside.to.unwrap().interface > 0);
        assert_eq!(outside.ecn, Ecn(1));
    }
}

fn single_datagrams_come_one_by_one_with_the_payload_aligned<B: Backend>() {
    let (mut receiver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200u8 {
        client.send_to(&[n; 33], loopback(false, port)).unwrap();
        let outside = outside(&mut receiver);
        assert_eq!(bytes(&outside), [n; 33]);
        assert_eq!(outside.stride, 33);
        assert_eq!(bytes(&outside).as_ptr() as usize % 16, 0);
    }
    assert_eq!(receiver.stats().outside_datagrams, 200);
}

fn an_empty_datagram_is_counted_and_skipped<B: Backend>() {
    let (mut receiver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&[], loopback(false, port)).unwrap();
    client.send_to(b"after", loopback(false, port)).unwrap();
    assert_eq!(bytes(&outside(&mut receiver)), b"after");
    assert_eq!(receiver.stats().outside_malformed, 1);
}

fn when_all_buffers_are_held_nothing_is_lost_but_time<B: Backend>() {
    let (mut receiver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let count = 5 * SMALL.outside;
    for n in 0..count {
        client.send_to(&n.to_be_bytes(), loopback(false, port)).unwrap();
    }
    let mut held = Vec::new();
    let mut seen = 0u32;
    let mut idle_turns = 0;
    turn_until(&mut receiver, |received| {
        match received {
            Some(Received::Outside(outside)) => {
                assert_eq!(bytes(&outside), seen.to_be_bytes());
                seen += 1;
                held.push(outside);
            }
            // Held until every buffer is and a turn has found none.
            None if held.len() == SMALL.outside as usize => {
                idle_turns += 1;
                if idle_turns % 2 == 0 {
                    held.clear();
                }
            }
            Some(Received::Inside(_)) | None => {}
        }
        seen == count
    });
    drop(held);
    let stats = *receiver.stats();
    assert!(stats.outside_no_buffer > 0, "{stats:?}");
    assert!(stats.rearmed > 0, "{stats:?}");
    assert_eq!(stats.outside_buffers_high_water, u64::from(SMALL.outside));
}

fn transmit_buffers_run_out_only_while_they_are_held<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let held: Vec<_> = (0..SMALL.trains).map(|_| sender.reserve_train().unwrap()).collect();
    assert!(sender.reserve_train().is_none());
    assert_eq!(sender.stats().train_buffers_exhausted, 1);
    drop(held);
    assert!(sender.reserve_train().is_some());
}

fn trains_beyond_the_pool_leave_early_instead_of_failing<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let (mut receiver, port) = listening::<B>(PoolSizes { outside: 128, ..SMALL });
    for n in 0..4 * SMALL.trains {
        let mut train = train(&mut sender, 4, 4, loopback(false, port));
        train.buf[..4].copy_from_slice(&n.to_be_bytes());
        sender.send(train);
    }
    sender.turn(Wait::No).unwrap();
    let all = datagrams(&mut receiver, 4 * 4 * SMALL.trains as usize);
    assert!(all.iter().zip(0u32..).all(|(datagram, n)| *datagram == n.to_be_bytes()));
    let stats = *sender.stats();
    assert_eq!((stats.submitted_early, stats.train_buffers_exhausted), (3, 0));
    assert_eq!(stats.train_buffers_free, u64::from(SMALL.trains));
}

fn more_trains_than_the_queue_holds_leave_in_order<B: Backend>() {
    let sizes = PoolSizes { trains: 700, ..SMALL };
    let (mut sender, _) = listening::<B>(sizes);
    let (mut receiver, port) = listening::<B>(PoolSizes { outside: 128, ..SMALL });
    for n in 0..700u32 {
        let mut train = train(&mut sender, 4, 4, loopback(false, port));
        train.buf[..4].copy_from_slice(&n.to_be_bytes());
        sender.send(train);
    }
    sender.turn(Wait::No).unwrap();
    let all = datagrams(&mut receiver, 4 * 700);
    let order: Vec<u32> =
        all.iter().map(|d| u32::from_be_bytes(*d.first_chunk().unwrap())).collect();
    assert_eq!(order, (0..700).collect::<Vec<_>>());
}

fn a_family_without_a_socket_is_counted<B: Backend>() {
    let mut driver = driver::<B>(SMALL);
    let options = UdpOptions { ipv6: None, ..Default::default() };
    driver.set_sockets(Some(UdpSockets::bind(&options).unwrap())).unwrap();
    let train = train(&mut driver, 10, 10, loopback(true, 9));
    driver.send(train);
    driver.turn(Wait::No).unwrap();
    assert_eq!(driver.stats().trains_without_socket, 1);
    assert_eq!(driver.stats().train_buffers_free, u64::from(SMALL.trains));
}

fn refusals_are_counted_by_class<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    // The broadcast address needs a permission that we do not ask for.
    let train = train(&mut sender, 10, 10, "255.255.255.255:9".parse().unwrap());
    sender.send(train);
    sender.turn(Wait::No).unwrap();
    let refused = sender.stats().train_refused;
    assert_eq!(refused.total(), 1, "{refused:?}");
    assert_eq!(refused.forbidden + refused.unreachable, 1, "{refused:?}");
}

fn a_source_that_is_no_longer_ours_is_left_out<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let (mut receiver, port) = listening::<B>(SMALL);
    for segment in [3000, 1000] {
        let mut train = train(&mut sender, 3000, segment, loopback(false, port));
        train.from = Some(Local { address: "192.0.2.77".parse().unwrap(), interface: 0 });
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        assert_eq!(datagrams(&mut receiver, 3000).len(), 3000 / segment);
    }
    let stats = *sender.stats();
    assert_eq!((stats.source_lost, stats.segmentation_demoted), (2, 0));
    assert_eq!(stats.train_refused.total(), 0);
}

fn privileged_segments_too_long_for_the_path_go_singly_and_whole<B: Backend + 'static>() {
    in_own_network(|| {
        set_mtu("lo", 1500);
        let (mut sender, _) = listening::<B>(SMALL);
        let (mut receiver, port) = listening::<B>(PoolSizes { outside: 64, ..SMALL });
        let to = loopback(false, port);
        // 2,000 bytes do not fit: the kernel cuts no train of them, but fragments each datagram.
        for round in 1..=3 {
            let train = train(&mut sender, 9000, 2000, to);
            sender.send(train);
            sender.turn(Wait::No).unwrap();
            let all = datagrams(&mut receiver, 9000);
            assert_eq!(
                all.iter().map(Vec::len).collect::<Vec<_>>(),
                [2000, 2000, 2000, 2000, 1000]
            );
            assert!(all.concat().iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
            let stats = *sender.stats();
            assert_eq!(stats.segmentation_demoted, 1);
            assert_eq!(stats.trains_unsegmented, round);
        }
        // Segments that fit are still left to the kernel.
        let train = train(&mut sender, 9000, 1000, to);
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        assert_eq!(outside(&mut receiver).stride, 1000);
        assert_eq!(sender.stats().trains_unsegmented, 3);
        assert_eq!(sender.stats().train_refused.total(), 0);
    });
}

fn privileged_trains_lost_on_the_way_arrive_as_single_datagrams_once_that_is_said<
    B: Backend + 'static,
>() {
    in_own_network(|| {
        // Something on the way takes nothing longer than 1,500 bytes, and does not say so.
        let rules = "table inet lossy { chain in { type filter hook input priority 0; \
                     udp length > 1500 drop; }; }";
        let loaded = std::process::Command::new("nft").arg(rules).status();
        assert!(loaded.unwrap().success());
        let (mut sender, _) = listening::<B>(SMALL);
        let (mut receiver, port) = listening::<B>(SMALL);
        let to = loopback(false, port);
        let lost = train(&mut sender, 9000, 1000, to);
        sender.send(lost);
        let single = train(&mut sender, 1000, 1000, to);
        sender.send(single);
        sender.turn(Wait::No).unwrap();
        assert_eq!(outside(&mut receiver).len, 1000, "the train is lost, the datagram is not");
        assert_eq!(sender.stats().train_refused.total(), 0);
        for round in 1..=3 {
            sender.suspect(to.ip());
            let train = train(&mut sender, 9000, 1000, to);
            sender.send(train);
            sender.turn(Wait::No).unwrap();
            assert_eq!(datagrams(&mut receiver, 9000).len(), 9);
            let stats = *sender.stats();
            assert_eq!((stats.segmentation_demoted, stats.paths_demoted), (1, 1));
            assert_eq!(stats.trains_unsegmented, round);
        }
    });
}

fn a_train_of_more_datagrams_than_the_kernel_cuts_goes_in_parts<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let (mut receiver, port) = listening::<B>(SMALL);
    let len = 300 * 100;
    let train = train(&mut sender, len, 100, loopback(false, port));
    sender.send(train);
    sender.turn(Wait::No).unwrap();
    let all = datagrams(&mut receiver, len);
    assert_eq!(all.len(), 300);
    assert!(all.concat().iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
    assert_eq!(sender.stats().train_refused.total(), 0);
}

fn what_comes_while_nothing_is_received_waits_in_order_and_sends_go_on<B: Backend>() {
    let (mut receiver, port) = listening::<B>(SMALL);
    let (mut other, other_port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = loopback(false, port);
    client.send_to(b"before", to).unwrap();
    turn_until(&mut receiver, |received| {
        received.is_some_and(|received| matches!(received, Received::Outside(_)))
    });
    for round in 0..3u8 {
        receiver.set_receiving(false).unwrap();
        for number in 0..10 {
            client.send_to(&[round, number], to).unwrap();
        }
        let outgoing = train(&mut receiver, 100, 100, loopback(false, other_port));
        receiver.send(outgoing);
        for _ in 0..5 {
            receiver.turn(Wait::No).unwrap();
            assert!(receiver.next().is_none());
        }
        assert_eq!(outside(&mut other).len, 100);
        receiver.set_receiving(true).unwrap();
        for number in 0..10 {
            assert_eq!(bytes(&outside(&mut receiver)), [round, number]);
        }
    }
    assert_eq!(receiver.health(), Default::default());
}

fn what_came_before_the_pause_is_still_handed_out<B: Backend>() {
    let (mut receiver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"early", loopback(false, port)).unwrap();
    receiver.turn(Wait::AtMost(Duration::from_secs(1))).unwrap();
    receiver.set_receiving(false).unwrap();
    assert_eq!(bytes(&outside(&mut receiver)), b"early");
}
