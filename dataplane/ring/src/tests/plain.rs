//! Drivers without their fast paths: as on a kernel that lacks one, whether it does or not.

use std::net::SocketAddr;

use super::loopback::{datagrams, loopback};
use super::net::{in_own_network, set_address, set_up};
use super::tun::{OURS, PEER, fold, sum, udp_from_kernel};
use super::{SMALL, config, driver, listening, pattern, train};
use crate::backend::Backend;
use crate::driver::{Inside, VNET_HEADER_BYTES, Wait};
use crate::listen::{UdpOptions, UdpSockets};
use crate::tun::{TunOffloads, TunOptions, TunQueue};

on_each_driver! {
    without_segmentation_each_datagram_is_a_message_of_its_own,
    without_merging_each_datagram_is_received_by_itself,
    sockets_of_another_process_merge_only_if_they_are_told_to,
    privileged_without_offloads_the_tun_gives_whole_packets_with_their_checksums,
}

const TRAINS: usize = 5;
const DATAGRAMS: usize = 20;

fn send_trains<B: Backend>(sender: &mut B, to: SocketAddr) {
    for _ in 0..TRAINS {
        let train = train(sender, DATAGRAMS * 1000, 1000, to);
        sender.send(train);
    }
    sender.turn(Wait::No).unwrap();
}

fn without_segmentation_each_datagram_is_a_message_of_its_own<B: Backend>() {
    for ipv6 in [false, true] {
        let (mut config, _pools) = config(SMALL);
        config.features.udp_segments_max = 1;
        let mut sender = B::make(config).unwrap();
        sender.set_sockets(Some(UdpSockets::bind(&UdpOptions::default()).unwrap())).unwrap();
        // The loopback device would keep a train whole, and the receiver would see one.
        let (mut receiver, port) = listening::<B>(SMALL);
        send_trains(&mut sender, loopback(ipv6, port));
        let all = datagrams(&mut receiver, TRAINS * DATAGRAMS * 1000);
        for train in all.chunks(DATAGRAMS) {
            let flat = train.concat();
            assert!(flat.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
        }
        let (sent, received) = (*sender.stats(), *receiver.stats());
        assert_eq!(sent.trains_unsegmented, TRAINS as u64);
        assert_eq!(sent.segmentation_demoted, 0, "nothing was tried and refused");
        assert_eq!(sent.train_refused.total(), 0);
        assert_eq!(received.outside_buffers, (TRAINS * DATAGRAMS) as u64);
        assert_eq!(received.outside_batch.buckets[0], received.outside_buffers);
    }
}

fn without_merging_each_datagram_is_received_by_itself<B: Backend>() {
    let (mut sender, _) = listening::<B>(SMALL);
    let mut receiver = driver::<B>(SMALL);
    let options = UdpOptions { gro: false, ..UdpOptions::default() };
    let sockets = UdpSockets::bind(&options).unwrap();
    assert!(!sockets.has_gro());
    let port = sockets.port();
    receiver.set_sockets(Some(sockets)).unwrap();
    receiver.turn(Wait::No).unwrap();
    send_trains(&mut sender, loopback(false, port));
    let all = datagrams(&mut receiver, TRAINS * DATAGRAMS * 1000);
    assert_eq!(all.len(), TRAINS * DATAGRAMS);
    assert!(all.iter().all(|datagram| datagram.len() == 1000));
    let received = *receiver.stats();
    assert_eq!(received.outside_batch.buckets[0], (TRAINS * DATAGRAMS) as u64);
    assert_eq!(received.outside_buffers, received.outside_datagrams);
    assert_eq!(sender.stats().trains_unsegmented, 0, "the sender did merge");
}

fn sockets_of_another_process_merge_only_if_they_are_told_to<B: Backend>() {
    let mut merging = UdpSockets::bind(&UdpOptions::default()).unwrap();
    for gro in [false, true, false] {
        let own = |fd: Option<std::os::fd::BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned());
        let data = merging.descriptors().map(|fd| own(fd).transpose().unwrap());
        let options = UdpOptions { gro, ..UdpOptions::default() };
        let adopted = UdpSockets::adopt(data, [None, None], &options).unwrap();
        assert_eq!(adopted.has_gro(), gro);
        let mut receiver = driver::<B>(SMALL);
        let port = adopted.port();
        receiver.set_sockets(Some(adopted)).unwrap();
        receiver.turn(Wait::No).unwrap();
        let (mut sender, _) = listening::<B>(SMALL);
        send_trains(&mut sender, loopback(false, port));
        datagrams(&mut receiver, TRAINS * DATAGRAMS * 1000);
        let buffers = if gro { TRAINS } else { TRAINS * DATAGRAMS };
        assert_eq!(receiver.stats().outside_buffers, buffers as u64);
        merging = receiver.set_sockets(None).unwrap().unwrap();
    }
}

fn privileged_without_offloads_the_tun_gives_whole_packets_with_their_checksums<
    B: Backend + 'static,
>() {
    in_own_network(|| {
        let mut driver = driver::<B>(SMALL);
        let options = TunOptions { offloads: TunOffloads::NONE, ..TunOptions::named("rwt0") };
        let tun = TunQueue::open(&options).unwrap();
        assert_eq!(tun.offloads(), TunOffloads::NONE);
        set_address(tun.name(), OURS);
        set_up(tun.name());
        driver.set_tun(Some(tun)).unwrap();
        driver.turn(Wait::No).unwrap();
        let (mut sender, _) = listening::<B>(SMALL);
        let train = train(&mut sender, 10 * 1000 + 7, 1000, (PEER, 4444).into());
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        let mut payload = Vec::new();
        for _ in 0..11 {
            let inside = udp_from_kernel(&mut driver, 4444);
            payload.extend(whole(&inside));
        }
        assert_eq!(payload.len(), 10_007);
        assert!(payload.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
    });
}

/// The payload of a UDP packet that leaves nothing to be done: no segments, no checksum.
fn whole(inside: &Inside) -> Vec<u8> {
    const NEEDS_CHECKSUM: u8 = 1;
    let (header, packet) =
        inside.buf[inside.start..inside.start + inside.len].split_at(VNET_HEADER_BYTES);
    assert_eq!(header[0] & NEEDS_CHECKSUM, 0, "{header:?}");
    assert_eq!(header[1], 0, "a super-packet: {header:?}");
    let udp = &packet[20..];
    let pseudo = sum(&packet[12..20]) + 17 + udp.len() as u32;
    assert_eq!(fold(sum(&packet[..20])), 0, "the checksum of the header");
    assert_eq!(fold(pseudo + sum(udp)), 0, "the checksum of all");
    udp[8..].to_vec()
}
