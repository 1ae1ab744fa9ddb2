//! Many peers, flows and timers in one turn: more than the shard keeps open, never more than it may
//! work on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::PeerChange;
use ringway_proto::crypto::PublicKey;
use ringway_proto::limits::TIMERS_PER_TURN_MAX;
use ringway_ring::{Ecn, Wait};
use ringway_tests::client::Client;
use ringway_tests::driver::{Pools, Sent};
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::packets::{udp, udp4};
use ringway_tests::pair::{Families, Pair, SEED};

pub(crate) const BEYOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const POOLS: Pools = Pools { receive: 320, transmit: 320, tun: 256 };

pub(crate) struct Crowd {
    pub(crate) gateway: Gateway,
    pub(crate) clients: Vec<Client>,
}

pub(crate) fn inner(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, number as u8))
}

impl Crowd {
    /// So many clients, all connected.
    pub(crate) fn connected(count: usize) -> Self {
        let setup = Setup { pools: POOLS, ..Setup::new(SEED, Families::V4.gateway()) };
        Self::connected_to(Gateway::with(setup), count)
    }

    /// So many clients, connected to this gateway.
    pub(crate) fn connected_to(mut gateway: Gateway, count: usize) -> Self {
        let public = Gateway::public_of(SEED);
        let clients = (0..count)
            .map(|number| {
                let home = SocketAddr::new(Ipv4Addr::new(203, 0, 113, number as u8).into(), 4_000);
                let mut client = Client::new(100 + number as u64, public, home, [0; 32]);
                gateway.put_peer(change_of(client.public(), &[&format!("{}/32", inner(number))]));
                let hello = client.send(&udp(inner(number), BEYOND, b"hello"), gateway.now);
                for sent in gateway.receive(&hello, home) {
                    let out = client.receive(&sent.bytes, gateway.now);
                    gateway.deliver(&out, home, Families::V4.gateway().ip(), Ecn::default());
                }
                gateway.run();
                client
            })
            .collect();
        gateway.written.clear();
        Self { gateway, clients }
    }

    fn answer(&mut self, sent: &[Sent]) {
        for datagram in sent {
            let client = self.clients.iter_mut().find(|client| client.address == datagram.to);
            client.unwrap().receive(&datagram.bytes, self.gateway.now);
        }
    }
}

#[test]
fn more_peers_than_trains_are_open_are_served_in_one_turn() {
    let mut crowd = Crowd::connected(100);
    for round in 0..3_u8 {
        for number in 0..100 {
            let packet = udp(BEYOND, inner(number), &[round; 40]);
            crowd.gateway.shard.driver_mut().inject_packet(&packet);
        }
    }
    let sent = crowd.gateway.run();
    crowd.answer(&sent);
    for (number, client) in crowd.clients.iter().enumerate() {
        let expected: Vec<_> =
            (0..3).map(|round| udp(BEYOND, inner(number), &[round; 40])).collect();
        assert_eq!(client.received, expected, "client {number}");
    }
    assert_eq!(crowd.gateway.all_drops(), 0);
    assert_eq!(crowd.gateway.shard.counters_mut().sessions, 100);
}

#[test]
fn each_of_many_peers_that_fall_silent_at_once_is_asked_again() {
    let mut crowd = Crowd::connected(100);
    for number in 0..100 {
        let packet = udp(BEYOND, inner(number), b"anybody?");
        crowd.gateway.shard.driver_mut().inject_packet(&packet);
    }
    crowd.gateway.run();
    let mut asked = vec![0; 100];
    for _ in 0..170 {
        for sent in crowd.gateway.advance(Duration::from_millis(100)) {
            let number = crowd.clients.iter().position(|client| client.address == sent.to);
            asked[number.unwrap()] += u32::from(sent.bytes[0] == 1);
        }
    }
    assert_eq!(asked, vec![1; 100]);
}

#[test]
fn more_flows_than_super_packets_are_open_keep_their_order() {
    let setup = Setup { pools: POOLS, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut pair = Pair::new(setup, Families::V4);
    pair.connect();
    let flow = |n| Ipv4Addr::new(192, 0, 2, n);
    for round in 0..4_u8 {
        let sealed: Vec<_> = (0..40_u8)
            .flat_map(|n| {
                let packet = udp4([10, 0, 0, 2].into(), flow(n), &[round; 300]);
                pair.client.send(&packet, pair.gateway.now)
            })
            .collect();
        pair.gateway.deliver(&sealed, pair.client.address, pair.gateway.ip(), Ecn::default());
    }
    pair.gateway.run();
    assert_eq!(pair.gateway.all_drops(), 0);
    for n in 0..40 {
        let of_flow = |written: &&Vec<u8>| written[26..30] == flow(n).octets();
        let rounds: Vec<u8> = pair
            .gateway
            .written
            .iter()
            .filter(of_flow)
            .flat_map(|written| written[38..].iter().step_by(300).copied())
            .collect();
        assert_eq!(rounds, [0, 1, 2, 3], "flow {n}");
    }
}

#[test]
fn a_crowd_of_timers_is_spread_over_turns() {
    let count = 3 * TIMERS_PER_TURN_MAX;
    let setup = Setup { pools: POOLS, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut gateway = Gateway::with(setup);
    for number in 1..=count {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut change = PeerChange::of(PublicKey(key));
        change.endpoint = Some("203.0.113.5:5".parse().unwrap());
        change.keepalive_s = Some(60);
        gateway.put_peer(change);
    }
    gateway.run();
    // Their repetitions are due within the same third of a second, after which the shard wakes.
    gateway.now.mono = gateway.now.mono + Duration::from_secs(6);
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < count {
        let wait = gateway.turn().wait;
        let sent = std::mem::take(&mut gateway.shard.driver_mut().sent);
        assert!(sent.iter().all(|sent| sent.bytes[0] == 1));
        turns.push(sent.len());
        let done = turns.iter().sum::<usize>() == count;
        assert_eq!(wait == Wait::No, !done, "{turns:?}");
    }
    assert!(turns.iter().all(|sent| *sent <= TIMERS_PER_TURN_MAX), "{turns:?}");
}

/// Bytes of the shard for each peer beyond the base line.
fn bytes_each(gateway: &mut Gateway, before: u64, peers: u64) -> u64 {
    gateway.advance(Duration::from_millis(300));
    (gateway.shard.counters_mut().session_bytes - before) / peers
}

#[test]
fn a_configured_peer_takes_little_and_a_session_a_keypair_more_that_goes_with_it() {
    let count = 10_000_u32;
    let setup = Setup { pools: POOLS, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut gateway = Gateway::with(setup);
    gateway.advance(Duration::from_millis(300));
    let before = gateway.shard.counters_mut().session_bytes;
    for number in 0..count {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let host = Ipv4Addr::from(0x0a01_0000 + number);
        gateway.put_peer(change_of(PublicKey(key), &[&format!("{host}/32")]));
    }
    let each = bytes_each(&mut gateway, before, count.into());
    assert!(each <= 900, "{each} bytes for a configured peer");
    assert_eq!(gateway.shard.heap_bytes(), 0, "a configured peer holds no variable memory");

    let mut crowd = Crowd::connected_to(gateway, 100);
    let session = crowd.gateway.shard.heap_bytes() / 100;
    assert!((1_100..=1_300).contains(&session), "{session} bytes for a session");
    // Keys are erased 540 s after they were made.
    for _ in 0..60 {
        crowd.gateway.advance(Duration::from_secs(10));
    }
    assert_eq!(crowd.gateway.shard.heap_bytes(), 0, "nothing is left of the sessions");
}
