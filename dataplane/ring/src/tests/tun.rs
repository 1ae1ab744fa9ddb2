//! Packets through a real TUN, in a namespace of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::net::{enter_own_network, in_own_network, set_address, set_up};
use super::{SMALL, driver, listening, receive, turn_until};
use crate::backend::Backend;
use crate::driver::{Inside, Received, TunWrite, VNET_HEADER_BYTES, Wait};
use crate::pools::PoolSizes;
use crate::tun::{TunOffloads, TunOptions, TunQueue};

on_each_driver! {
    privileged_packets_go_in_and_out_byte_exact,
    privileged_head_and_pieces_of_received_buffers_become_one_packet,
    privileged_writes_leave_in_the_order_of_their_commits,
    privileged_a_udp_super_packet_comes_out_whole,
    privileged_tcp_super_packets_pass_from_tun_to_tun_byte_exact,
    privileged_a_deleted_interface_is_noticed_and_can_be_replaced,
    privileged_the_same_name_can_be_opened_right_after_shutdown,
}

pub(super) const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// A driver with a TUN `rwt0` (10.77.0.1/24) that is up.
fn with_tun<B: Backend>(sizes: PoolSizes) -> B {
    with_tun_at::<B>(sizes, OURS)
}

fn with_tun_at<B: Backend>(sizes: PoolSizes, address: Ipv4Addr) -> B {
    let mut driver = driver::<B>(sizes);
    let tun = TunQueue::open(&TunOptions::named("rwt0")).unwrap();
    set_address(tun.name(), address);
    set_up(tun.name());
    driver.set_tun(Some(tun)).unwrap();
    driver.turn(Wait::No).unwrap();
    driver
}

pub(super) fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

pub(super) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 UDP packet from the peer to us with valid checksums, without virtio header.
fn udp_packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len();
    let mut packet = vec![0x45, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(PEER.octets());
    packet.extend(OURS.octets());
    let header = fold(sum(&packet));
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet.extend(4444u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(((8 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let pseudo = sum(&packet[12..20]) + 17 + (8 + payload.len()) as u32;
    let check = fold(pseudo + sum(&packet[20..]));
    packet[26..28].copy_from_slice(&check.to_be_bytes());
    packet
}

fn write<B: Backend>(driver: &mut B, fill: impl FnOnce(&mut TunWrite)) {
    let mut write = driver.reserve_tun().unwrap();
    fill(&mut write);
    driver.write_tun(write);
}

/// The next UDP packet for the peer's port; the kernel also sends router solicitations and such.
pub(super) fn udp_from_kernel<B: Backend>(driver: &mut B, port: u16) -> Inside {
    let mut found = None;
    turn_until(driver, |received| {
        if let Some(Received::Inside(inside)) = received {
            let ip = &inside.buf[inside.start + VNET_HEADER_BYTES..inside.start + inside.len];
            if ip[0] >> 4 == 4 && ip[9] == 17 && ip[22..24] == port.to_be_bytes() {
                found = Some(inside);
            }
        }
        found.is_some()
    });
    found.unwrap()
}

pub(super) fn bound() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind((OURS, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn privileged_packets_go_in_and_out_byte_exact<B: Backend + 'static>() {
    in_own_network(|| {
        let mut driver = with_tun::<B>(SMALL);
        assert_eq!(driver.tun().unwrap().offloads(), TunOffloads::ALL);
        let (socket, port) = bound();
        write(&mut driver, |write| {
            write.push_head(&[0; VNET_HEADER_BYTES]).unwrap();
            write.push_head(&udp_packet(port, b"from the peer")).unwrap();
        });
        driver.turn(Wait::No).unwrap();
        let mut bytes = [0; 100];
        let (len, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"from the peer");
        assert_eq!(from, (PEER, 4444).into());

        socket.send_to(b"to the peer", (PEER, 4444)).unwrap();
        let inside = udp_from_kernel(&mut driver, 4444);
        let ip = &inside.buf[inside.start + VNET_HEADER_BYTES..inside.start + inside.len];
        assert_eq!(&ip[28..], b"to the peer");
        assert_eq!(ip.as_ptr() as usize % 64, 0, "the IP header is aligned");
        assert_eq!(driver.stats().tun_refused.total(), 0);
    });
}

fn privileged_head_and_pieces_of_received_buffers_become_one_packet<B: Backend + 'static>() {
    in_own_network(|| {
        let mut driver = with_tun::<B>(SMALL);
        let sockets = crate::listen::UdpSockets::bind(&Default::default()).unwrap();
        let outer = sockets.port();
        driver.set_sockets(Some(sockets)).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (socket, port) = bound();
        // Two datagrams in two buffers, a third piece from the second: one packet of all.
        for payload in [b"one-".as_slice(), b"two-three".as_slice()] {
            client.send_to(payload, ("127.0.0.1", outer)).unwrap();
        }
        let mut parts = Vec::new();
        while parts.len() < 2 {
            if let Received::Outside(outside) = receive(&mut driver) {
                parts.push(outside);
            }
        }
        let packet = udp_packet(port, b"one-two-three");
        write(&mut driver, |write| {
            write.push_head(&[0; VNET_HEADER_BYTES]).unwrap();
            write.push_head(&packet[..28]).unwrap();
            write.attach(&parts[0].buf, parts[0].start, 4).unwrap();
            write.attach(&parts[1].buf, parts[1].start, 4).unwrap();
            write.attach(&parts[1].buf, parts[1].start + 4, 5).unwrap();
        });
        // Let go before the write has left: the write keeps the bytes.
        drop(parts);
        driver.turn(Wait::No).unwrap();
        let mut bytes = [0; 100];
        let len = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"one-two-three");
        turn_until(&mut driver, |_| true);
        assert_eq!(driver.stats().outside_buffers_free, u64::from(SMALL.outside));
        assert_eq!(driver.stats().tun_batch.buckets[2], 1, "three pieces");
    });
}

fn privileged_writes_leave_in_the_order_of_their_commits<B: Backend + 'static>() {
    // More than the queue holds at once, and more than there are writes.
    for tun_writes in [600, 8] {
        writes_leave_in_order::<B>(tun_writes);
    }
}

fn writes_leave_in_order<B: Backend + 'static>(tun_writes: u32) {
    in_own_network(move || {
        let mut driver = with_tun::<B>(PoolSizes { tun_writes, ..SMALL });
        let (socket, port) = bound();
        for n in 0..600u32 {
            write(&mut driver, |write| {
                write.push_head(&[0; VNET_HEADER_BYTES]).unwrap();
                write.push_head(&udp_packet(port, &n.to_be_bytes())).unwrap();
            });
        }
        driver.turn(Wait::No).unwrap();
        let mut bytes = [0; 4];
        // As many as the socket's default buffer surely holds.
        for n in 0..200u32 {
            socket.recv(&mut bytes).unwrap();
            assert_eq!(u32::from_be_bytes(bytes), n);
        }
        assert_eq!(driver.stats().tun_refused.total(), 0);
        assert_eq!(driver.stats().tun_writes_exhausted, 0);
    });
}

fn privileged_a_udp_super_packet_comes_out_whole<B: Backend + 'static>() {
    in_own_network(|| {
        let mut driver = with_tun::<B>(SMALL);
        if !driver.tun().unwrap().offloads().udp() {
            return;
        }
        // A driver is as good a sender of trains as any.
        let (mut sender, _) = listening::<B>(SMALL);
        let train = super::train(&mut sender, 10 * 1000 + 7, 1000, (PEER, 4444).into());
        sender.send(train);
        sender.turn(Wait::No).unwrap();
        let inside = udp_from_kernel(&mut driver, 4444);
        let header = &inside.buf[inside.start..][..VNET_HEADER_BYTES];
        assert_eq!(header[1], 5, "UDP segmentation");
        assert_eq!(u16::from_ne_bytes([header[4], header[5]]), 1000);
        assert_eq!(inside.len, VNET_HEADER_BYTES + 28 + 10_007);
        let payload = &inside.buf[inside.start + VNET_HEADER_BYTES + 28..][..10_007];
        assert!(payload.iter().enumerate().all(|(at, byte)| *byte == super::pattern(at)));
    });
}

fn privileged_tcp_super_packets_pass_from_tun_to_tun_byte_exact<B: Backend + 'static>() {
    //  namespace of the listener          this thread           namespace of the client
    //  10.77.0.1 rwt0 ═══ driver ── vnet header and packet ── driver ═══ rwt0 10.77.0.2
    const BYTES: usize = 4 << 20;
    in_own_network(|| {
        let mut near = with_tun::<B>(SMALL);
        let listener = TcpListener::bind((OURS, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        enter_own_network();
        let mut far = with_tun_at::<B>(SMALL, PEER);
        let sending = std::thread::spawn(move || {
            let mut stream = TcpStream::connect((OURS, port)).unwrap();
            let bytes: Vec<u8> = (0..BYTES).map(super::pattern).collect();
            stream.write_all(&bytes).unwrap();
        });
        let receiving = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut longest = 0;
        while !receiving.is_finished() {
            longest = longest.max(carry(&mut far, &mut near));
            carry(&mut near, &mut far);
        }
        sending.join().unwrap();
        let bytes = receiving.join().unwrap();
        assert_eq!(bytes.len(), BYTES);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == super::pattern(at)));
        assert!(longest > 3000, "no super-packets: at most {longest} bytes");
        for driver in [&mut near, &mut far] {
            assert_eq!(driver.stats().tun_refused.total(), 0);
        }
    });
}

/// Carries what one TUN gave to the other; the longest packet's length.
fn carry<B: Backend>(from: &mut B, to: &mut B) -> usize {
    let mut longest = 0;
    from.turn(Wait::AtMost(Duration::from_millis(1))).unwrap();
    while let Some(Received::Inside(inside)) = from.next() {
        longest = longest.max(inside.len);
        write(to, |write| write.attach(&inside.buf, inside.start, inside.len).unwrap());
    }
    to.turn(Wait::No).unwrap();
    longest
}

fn privileged_a_deleted_interface_is_noticed_and_can_be_replaced<B: Backend + 'static>() {
    in_own_network(|| {
        let mut driver = with_tun::<B>(SMALL);
        let status = std::process::Command::new("ip").args(["link", "delete", "rwt0"]).status();
        assert!(status.unwrap().success());
        for _ in 0..100 {
            driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
            while driver.next().is_some() {}
            if driver.health().inside.is_some() {
                break;
            }
        }
        assert!(driver.health().inside.is_some());
        write(&mut driver, |write| write.push_head(&[0; 50]).unwrap());
        driver.turn(Wait::No).unwrap();
        assert_eq!(driver.stats().tun_refused.down, 1);

        let tun = TunQueue::open(&TunOptions::named("rwt0")).unwrap();
        set_address(tun.name(), OURS);
        set_up(tun.name());
        driver.set_tun(Some(tun)).unwrap();
        driver.turn(Wait::No).unwrap();
        let (socket, _) = bound();
        socket.send_to(b"again", (PEER, 4444)).unwrap();
        udp_from_kernel(&mut driver, 4444);
        assert_eq!(driver.health().inside, None);
    });
}

fn privileged_the_same_name_can_be_opened_right_after_shutdown<B: Backend + 'static>() {
    in_own_network(|| {
        for _ in 0..5 {
            drop(with_tun::<B>(SMALL));
        }
    });
}

#[test]
fn privileged_a_name_in_use_or_impossible_is_explained() {
    in_own_network(|| {
        let first = TunQueue::open(&TunOptions::named("rwt1")).unwrap();
        let error = TunQueue::open(&TunOptions::named("rwt1")).unwrap_err().to_string();
        assert!(error.contains("rwt1 exists and is in use"), "{error}");
        assert!(error.contains("ip link delete rwt1"), "{error}");
        assert!(first.index() > 0);
        for name in ["", "a/b", "sixteen-bytes-ok", "a b", "."] {
            let error = TunQueue::open(&TunOptions::named(name)).unwrap_err().to_string();
            assert!(error.contains("cannot be the name"), "{name:?}: {error}");
        }
    });
}

#[test]
fn privileged_each_core_gets_its_own_queue() {
    in_own_network(|| {
        let options = TunOptions { multi_queue: true, ..TunOptions::named("rwt%d") };
        let first = TunQueue::open(&options).unwrap();
        assert_eq!(first.name(), "rwt0");
        let second = first.another().unwrap();
        assert_eq!(second.name(), "rwt0");
        assert_eq!(second.offloads(), first.offloads());
    });
}

#[test]
fn offloads_are_named() {
    assert_eq!(TunOffloads::ALL.to_string(), "csum+tso+uso");
    assert_eq!(TunOffloads::TCP.to_string(), "csum+tso");
    assert_eq!(TunOffloads::NONE.to_string(), "none");
}
