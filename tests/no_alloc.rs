//! The packet path allocates nothing, in both directions, once a session is warm.
//!
//! The program's allocator counts; the guard panics at the place of the first allocation.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};

use ringway_alloc::guard::{Counting, Mimalloc, count_allocs, deny_alloc};
use ringway_ring::{Ecn, Local};
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::Gateway;
use ringway_tests::packets::udp4;

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

const SEED: u64 = 3;
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn warm() -> (Gateway, Client, SocketAddr) {
    let address: SocketAddr = "203.0.113.5:40000".parse().unwrap();
    let mut gateway = Gateway::new(SEED, "198.51.100.1:51820".parse().unwrap(), Pools::default());
    let mut client = Client::new(4, Gateway::public_of(SEED), address, [0; 32]);
    gateway.add_peer(client.public(), &["10.0.0.2/32"]);
    let mut outgoing = client.send(&udp4(INSIDE, BEYOND, b"hello"), gateway.now);
    while let Some(datagram) = outgoing.pop() {
        for sent in gateway.receive(&[datagram], address) {
            outgoing.extend(client.receive(&sent.bytes, gateway.now));
        }
    }
    assert!(client.ready(gateway.now));
    (gateway, client, address)
}

fn local() -> Option<Local> {
    Some(Local { address: "198.51.100.1".parse().unwrap(), interface: 1 })
}

#[test]
fn merged_datagrams_reach_the_tun_without_allocating() {
    let (mut gateway, mut client, address) = warm();
    for round in 0..50_u8 {
        let datagrams: Vec<_> = (0..40_u8)
            .flat_map(|n| client.send(&udp4(INSIDE, BEYOND, &[n ^ round; 700]), gateway.now))
            .collect();
        let now = gateway.now;
        let driver = gateway.shard.driver_mut();
        driver.inject_outside(&datagrams, address, local(), Ecn::default());
        deny_alloc(|| {
            gateway.shard.turn(now);
            gateway.shard.driver_mut().swallow();
        });
    }
    assert_eq!(gateway.all_drops(), 0);
    assert_eq!(gateway.shard.counters_mut().to_exit_packets, 1 + 50 * 40);
}

#[test]
fn single_datagrams_reach_the_tun_without_allocating() {
    let (mut gateway, mut client, address) = warm();
    for round in 0..50_u8 {
        let now = gateway.now;
        for n in 0..20_u8 {
            // Different lengths, so that some merge and some do not.
            let payload = vec![round; 40 + usize::from(n % 3) * 500];
            let datagrams = client.send(&udp4(INSIDE, BEYOND, &payload), now);
            let driver = gateway.shard.driver_mut();
            driver.inject_outside(&datagrams, address, local(), Ecn::default());
        }
        deny_alloc(|| {
            gateway.shard.turn(now);
            gateway.shard.driver_mut().swallow();
        });
    }
    assert_eq!(gateway.all_drops(), 0);
}

#[test]
fn packets_from_the_tun_reach_their_client_without_allocating() {
    let (mut gateway, _client, _) = warm();
    for round in 0..50_u8 {
        for n in 0..20_u8 {
            let packet = udp4(BEYOND, INSIDE, &vec![round; 40 + usize::from(n % 5) * 300]);
            gateway.shard.driver_mut().inject_packet(&packet);
        }
        let now = gateway.now;
        deny_alloc(|| {
            gateway.shard.turn(now);
            gateway.shard.driver_mut().swallow();
        });
    }
    assert_eq!(gateway.all_drops(), 0);
    assert_eq!(gateway.shard.counters_mut().to_client_packets, 50 * 20);
}

#[test]
fn refused_datagrams_allocate_nothing_either() {
    let (mut gateway, _client, address) = warm();
    let noise: Vec<Vec<u8>> = (0..30_u8).map(|n| vec![n; 60 + usize::from(n) * 4]).collect();
    for datagram in noise {
        let driver = gateway.shard.driver_mut();
        driver.inject_outside(&[datagram], address, local(), Ecn::default());
        let now = gateway.now;
        deny_alloc(|| {
            gateway.shard.turn(now);
            gateway.shard.driver_mut().swallow();
        });
    }
    assert_eq!(gateway.all_drops(), 30);
}

#[test]
fn the_guard_sees_an_allocation() {
    let (_, counts) = count_allocs(|| std::hint::black_box(Vec::<u8>::with_capacity(64)));
    assert_eq!(counts.allocations, 1);
}
