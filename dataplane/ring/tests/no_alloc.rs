//! No driver allocates while packets pass: receiving, sending, cut by the kernel or by us, over
//! real sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_alloc::guard::{Counting, Mimalloc, deny_alloc};
use ringway_ring::{
    Backend, DriverConfig, Ecn, EpollDriver, Received, Train, UdpOptions, UdpSockets, UringDriver,
    Wait,
};

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

fn listening<B: Backend>() -> (B, SocketAddr) {
    let mut driver = B::make(DriverConfig::new().unwrap()).unwrap();
    let options =
        UdpOptions { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, ..UdpOptions::default() };
    let sockets = UdpSockets::bind(&options).unwrap();
    let address = (Ipv4Addr::LOCALHOST, sockets.port()).into();
    driver.set_sockets(Some(sockets)).unwrap();
    (driver, address)
}

/// Trains of several lengths there, and back as they come; bytes that came back.
fn exchange<B: Backend>(near: &mut B, far: &mut B, to: SocketAddr) -> usize {
    let mut expected = 0;
    for (len, segment_bytes) in [(1_000, 1_000), (48_000, 1_200), (20_000, 100), (64, 32)] {
        let buf = near.reserve_train().unwrap();
        near.send(Train { buf, len, segment_bytes, to, from: None, ecn: Ecn(0), dscp: 0 });
        expected += len;
    }
    near.turn(Wait::No).unwrap();
    let mut back = 0;
    for _ in 0..1_000 {
        far.turn(Wait::AtMost(Duration::from_micros(100))).unwrap();
        while let Some(received) = far.next() {
            let Received::Outside(outside) = received else { continue };
            let mut buf = far.reserve_train().unwrap();
            let bytes = &outside.buf[outside.start..][..outside.len];
            buf[..bytes.len()].copy_from_slice(bytes);
            let (len, segment_bytes) = (outside.len, outside.stride);
            let (to, from) = (outside.from, outside.to);
            far.send(Train { buf, len, segment_bytes, to, from, ecn: outside.ecn, dscp: 0 });
        }
        far.turn(Wait::No).unwrap();
        near.turn(Wait::No).unwrap();
        while let Some(Received::Outside(outside)) = near.next() {
            back += outside.len;
        }
        if back == expected {
            break;
        }
    }
    assert_eq!(back, expected);
    back
}

fn allocates_nothing<B: Backend>() {
    let (mut near, _) = listening::<B>();
    let (mut far, to) = listening::<B>();
    exchange(&mut near, &mut far, to);
    deny_alloc(|| {
        for _ in 0..100 {
            exchange(&mut near, &mut far, to);
        }
        // What a demoted path needs, too.
        near.suspect(to.ip());
        exchange(&mut near, &mut far, to);
        let _ = near.stats();
    });
    assert!(near.stats().trains_unsegmented > 0);
}

#[test]
fn the_io_uring_driver_allocates_nothing_while_packets_pass() {
    allocates_nothing::<UringDriver>();
}

#[test]
fn the_epoll_driver_allocates_nothing_while_packets_pass() {
    allocates_nothing::<EpollDriver>();
}
