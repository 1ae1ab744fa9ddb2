//! The packet path allocates nothing, in both directions, once a session is warm.
//!
//! The program's allocator counts; the guard panics at the place of the first allocation.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_alloc::guard::{Counting, Mimalloc, count_allocs, deny_alloc};
use ringway_dataplane::command::{AccountChange, Exhausted, Volume, VolumeChange};
use ringway_dataplane::{Command, PeerChange};
use ringway_flow::qos::Rate;
use ringway_proto::{AccountId, CoreId, DropReason};
use ringway_ring::Ecn;
use ringway_tests::client::Client;
use ringway_tests::cluster::{Cluster, Steering};
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::packets::{TcpPacket, udp};
use ringway_tests::pair::{Families, Pair, SEED};

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

/// The gateway turns without allocating anything, and what it wants to send is thrown away.
fn turn(pair: &mut Pair) {
    let now = pair.gateway.now;
    deny_alloc(|| {
        pair.gateway.shard.turn(now);
        pair.gateway.shard.driver_mut().swallow();
    });
}

/// Datagrams that arrived together.
fn arrive(pair: &mut Pair, datagrams: &[Vec<u8>]) {
    let (from, to) = (pair.client.address, pair.gateway.ip());
    pair.gateway.deliver(datagrams, from, to, Ecn(3));
}

#[test]
fn merged_datagrams_reach_the_tun_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        for round in 0..50_u8 {
            let datagrams: Vec<_> = (0..40_u8)
                .flat_map(|n| {
                    let packet = pair.to_exit(&[n ^ round; 700]);
                    pair.client.send(&packet, pair.gateway.now)
                })
                .collect();
            arrive(&mut pair, &datagrams);
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
        assert_eq!(pair.gateway.shard.counters_mut().to_exit_packets, 1 + 50 * 40);
    }
}

#[test]
fn single_datagrams_reach_the_tun_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        for round in 0..50_u8 {
            for n in 0..20_u8 {
                // Different lengths, so that some merge and some do not.
                let packet = pair.to_exit(&vec![round; 40 + usize::from(n % 3) * 500]);
                let datagrams = pair.client.send(&packet, pair.gateway.now);
                arrive(&mut pair, &datagrams);
            }
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
    }
}

#[test]
fn lone_packets_of_many_sessions_take_both_ways_without_allocating() {
    const CLIENTS: u8 = 100;
    let mut gateway =
        Gateway::new(SEED, Families::V4.gateway(), Pools { receive: 256, ..Pools::default() });
    let inside = |number: u8| IpAddr::from([10, 0, 0, 2 + number]);
    let beyond = Families::V4.beyond();
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let from = SocketAddr::from(([203, 0, 113, 5], 40_000 + u16::from(number)));
            let key = Gateway::public_of(SEED);
            let mut client = Client::new(1_000 + u64::from(number), key, from, [0; 32]);
            gateway.add_peer(client.public(), &[&format!("{}/32", inside(number))]);
            let mut waiting = client.send(&udp(inside(number), beyond, b"first"), gateway.now);
            while !waiting.is_empty() {
                let sent = gateway.receive(&waiting, from);
                let now = gateway.now;
                waiting = sent.iter().flat_map(|sent| client.receive(&sent.bytes, now)).collect();
            }
            client
        })
        .collect();
    for round in 0..50_u8 {
        for (number, client) in (0..).zip(&mut clients) {
            let len = 40 + usize::from(number % 3) * 500;
            let packet = udp(inside(number), beyond, &vec![round; len]);
            let datagrams = client.send(&packet, gateway.now);
            gateway.deliver(&datagrams, client.address, gateway.ip(), Ecn(0));
            let packet = udp(beyond, inside(number), &vec![round; len]);
            gateway.shard.driver_mut().inject_packet(&packet);
        }
        let now = gateway.now;
        deny_alloc(|| {
            // More than a turn takes.
            for _ in 0..4 {
                gateway.shard.turn(now);
                gateway.shard.driver_mut().swallow();
            }
        });
    }
    assert_eq!(gateway.all_drops(), 0);
    let counters = gateway.shard.counters_mut();
    let expected = u64::from(CLIENTS) * 50;
    assert_eq!((counters.to_exit_packets, counters.to_client_packets), (expected + 100, expected));
}

#[test]
fn segments_of_tcp_flows_are_merged_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let path = (families.inside(), families.beyond());
        let mut sequence = 1_u32;
        for _ in 0..50 {
            let mut datagrams = Vec::new();
            for _ in 0..40 {
                let segment =
                    TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &[7; 1_300] };
                datagrams.extend(pair.client.send(&segment.build(), pair.gateway.now));
                sequence += 1_300;
            }
            arrive(&mut pair, &datagrams);
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
        assert_eq!(pair.gateway.shard.counters_mut().tun_coalesced_packets, 50 * 40);
    }
}

#[test]
fn packets_from_the_tun_reach_their_client_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        for round in 0..50_u8 {
            for n in 0..20_u8 {
                pair.leave_inside(&vec![round; 40 + usize::from(n % 5) * 300]);
            }
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
        assert_eq!(pair.gateway.shard.counters_mut().to_client_packets, 50 * 20);
    }
}

#[test]
fn super_packets_from_the_tun_are_cut_and_sealed_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let path = (families.beyond(), families.inside());
        let payload = vec![5; 40 * 1_300];
        for round in 0..50_u32 {
            let sequence = round * 52_000;
            let segment =
                TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &payload };
            pair.gateway.shard.driver_mut().inject_inside(&segment.build_super(1_300));
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
        assert_eq!(pair.gateway.shard.counters_mut().to_client_packets, 50 * 40);
    }
}

#[test]
fn refused_datagrams_allocate_nothing_either() {
    let mut pair = Pair::connected();
    let noise: Vec<Vec<u8>> = (0..30_u8).map(|n| vec![n; 60 + usize::from(n) * 4]).collect();
    for datagram in noise {
        arrive(&mut pair, &[datagram]);
        turn(&mut pair);
    }
    assert_eq!(pair.gateway.all_drops(), 30);
}

#[test]
fn senders_are_told_what_was_wrong_without_allocating() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let nobody = if families.inside_v6 {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 99])
        } else {
            IpAddr::from([10, 9, 9, 9])
        };
        for round in 0..40_u8 {
            // Too big, for nobody, and not even a packet.
            pair.leave_inside(&vec![round; 1_450]);
            let lost = udp(families.beyond(), nobody, b"anybody?");
            pair.gateway.shard.driver_mut().inject_packet(&lost);
            pair.gateway.shard.driver_mut().inject_packet(&[round & 0x0f; 30]);
            turn(&mut pair);
        }
        assert_eq!(pair.gateway.all_drops(), 3 * 40);
        // The rest found the allowance used up.
        assert_eq!(pair.gateway.shard.counters_mut().icmp_sent, 50);
    }
}

#[test]
fn timers_fire_and_peers_roam_without_allocating() {
    let mut pair = Pair::connected();
    let change = PeerChange { keepalive_s: Some(3), ..PeerChange::of(pair.client.public()) };
    pair.gateway.put_peer(change);
    let sent = pair.gateway.shard.counters_mut().trains_sent;
    let bytes = pair.gateway.peers()[0].tx_bytes;
    for round in 0..100_u16 {
        // Younger than two minutes: nobody shakes hands.
        pair.gateway.now.mono = pair.gateway.now.mono + Duration::from_secs(1);
        pair.client.address.set_port(40_001 + round / 10);
        if round % 7 == 0 {
            let packet = pair.to_exit(&[1; 100]);
            let datagrams = pair.client.send(&packet, pair.gateway.now);
            arrive(&mut pair, &datagrams);
            pair.leave_inside(&[2; 100]);
        }
        turn(&mut pair);
    }
    let counters = pair.gateway.shard.counters_mut();
    assert_eq!((counters.roamed, counters.handshakes_sent), (10, 0));
    assert_eq!(counters.trains_sent - sent, 15);
    assert_eq!(pair.gateway.all_drops(), 0);
    let keepalives = (pair.gateway.peers()[0].tx_bytes - bytes - 15 * (32 + 128)) / 32;
    assert!((10..30).contains(&keepalives), "{keepalives} keepalives");
}

/// A chain of four accounts that limit by rate and volume, the first above all.
fn put_chain(mut command: impl FnMut(Command), bytes_per_second: u64) {
    for id in 0..4 {
        let volume = Volume { number: 1 + id, bytes: u64::MAX / 2, then: Exhausted::Drop };
        let change = AccountChange {
            id: AccountId(id),
            owner: 7,
            parent: id.checked_sub(1).map(AccountId),
            rates: [Some(Rate::of(bytes_per_second)); 2],
            volume: VolumeChange::Begin(volume),
        };
        command(Command::PutAccount(Box::new(change)));
    }
}

#[test]
fn a_chain_of_accounts_lets_pass_and_drops_without_allocating() {
    for (bytes_per_second, drops) in [(100_000_000, false), (10_000, true)] {
        let mut pair = Pair::connected();
        put_chain(|command| pair.gateway.command(command), bytes_per_second);
        let account = Some(Some(AccountId(3)));
        pair.gateway.put_peer(PeerChange { account, ..PeerChange::of(pair.client.public()) });
        for round in 0..200_u8 {
            let datagrams: Vec<_> = (0..20_u8)
                .flat_map(|n| {
                    let packet = pair.to_exit(&[n ^ round; 700]);
                    pair.client.send(&packet, pair.gateway.now)
                })
                .collect();
            arrive(&mut pair, &datagrams);
            (0..20).for_each(|_| pair.leave_inside(&[round; 700]));
            pair.gateway.now.mono = pair.gateway.now.mono + Duration::from_millis(1);
            turn(&mut pair);
        }
        let limits = [DropReason::RateExceededToExit, DropReason::RateExceededToClient];
        let dropped: u64 = limits.into_iter().map(|reason| pair.gateway.drops(reason)).sum();
        assert_eq!(pair.gateway.all_drops(), dropped);
        assert_eq!(dropped > 0, drops);
    }
}

#[test]
fn the_guard_sees_an_allocation() {
    let (_, counts) = count_allocs(|| std::hint::black_box(Vec::<u8>::with_capacity(64)));
    assert_eq!(counts.allocations, 1);
}

/// Two cores and a session on the second of them; everything arrives at the first.
fn crossed() -> (Cluster, Client) {
    let families = Families::V4;
    let mut cluster = Cluster::new(&Setup::new(SEED, families.gateway()), 2, Steering::Right);
    let client = |seed| Client::new(seed, Gateway::public_of(SEED), families.client(), [0; 32]);
    let owned = |client: &Client| cluster.owner(&client.public()) == CoreId(1);
    let mut client = (1..).map(client).find(owned).expect("one of many");
    cluster.put_peer(change_of(client.public(), &["10.0.0.2/32"]));
    let hello = udp(families.inside(), families.beyond(), b"hello");
    let mut out = client.send(&hello, cluster.now);
    while !out.is_empty() {
        for datagram in out {
            arrive_at_first(&mut cluster, &client, &[datagram]);
        }
        let sent = cluster.run();
        let now = cluster.now;
        out = sent.iter().flat_map(|sent| client.receive(&sent.bytes, now)).collect();
    }
    (cluster, client)
}

fn arrive_at_first(cluster: &mut Cluster, client: &Client, datagrams: &[Vec<u8>]) {
    let to = Families::V4.gateway().ip();
    cluster.at(CoreId(0)).deliver(datagrams, client.address, to, Ecn(3));
}

/// Both cores turn without allocating anything, the finder first.
fn turn_both(cluster: &mut Cluster) {
    let now = cluster.now;
    deny_alloc(|| {
        for core in [0, 1, 0] {
            let shard = &mut cluster.at(CoreId(core)).shard;
            shard.turn(now);
            shard.driver_mut().swallow();
        }
    });
}

#[test]
fn datagrams_cross_to_their_core_without_allocating() {
    let (mut cluster, mut client) = crossed();
    for round in 0..300_u32 {
        let datagrams: Vec<_> = (0..40_u8)
            .flat_map(|n| {
                let payload = vec![n; 300 + (round % 3) as usize * 200];
                let packet = udp(Families::V4.inside(), Families::V4.beyond(), &payload);
                client.send(&packet, cluster.now)
            })
            .collect();
        datagrams.chunks(1 + round as usize % 40).for_each(|together| {
            arrive_at_first(&mut cluster, &client, together);
        });
        turn_both(&mut cluster);
    }
    assert_eq!(cluster.sum(|counters| counters.to_exit_packets), 1 + 300 * 40);
    assert_eq!(cluster.sum(|counters| counters.crossed_in_datagrams), 1 + 300 * 40);
    assert_eq!(cluster.sum(|counters| counters.drops.iter().sum()), 0);
}

#[test]
fn packets_of_the_tun_cross_to_their_core_without_allocating() {
    let (mut cluster, _client) = crossed();
    let path = (Families::V4.beyond(), Families::V4.inside());
    for round in 0..300_u32 {
        let payload = vec![5; 40 * 1_300];
        let sequence = round * 52_000;
        let segment = TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &payload };
        let driver = cluster.at(CoreId(0)).shard.driver_mut();
        driver.inject_inside(&segment.build_super(1_300));
        for n in 0..20 {
            driver.inject_packet(&udp(path.0, path.1, &[n; 200]));
        }
        turn_both(&mut cluster);
    }
    assert_eq!(cluster.sum(|counters| counters.to_client_packets), 300 * 60);
    assert_eq!(cluster.sum(|counters| counters.crossed_in_packets), 300 * 21);
    assert_eq!(cluster.sum(|counters| counters.drops.iter().sum()), 0);
}

#[test]
fn credit_crosses_between_cores_without_allocating() {
    let (mut cluster, mut client) = crossed();
    put_chain(
        |command| {
            let Command::PutAccount(change) = command else { return };
            cluster.everywhere(|_| Command::PutAccount(change.clone()));
        },
        20_000_000,
    );
    let account = Some(Some(AccountId(3)));
    cluster.put_peer(PeerChange { account, ..PeerChange::of(client.public()) });
    for round in 0..250_u8 {
        let datagrams: Vec<_> = (0..20_u8)
            .flat_map(|n| {
                let packet = udp(Families::V4.inside(), Families::V4.beyond(), &[n ^ round; 900]);
                client.send(&packet, cluster.now)
            })
            .collect();
        arrive_at_first(&mut cluster, &client, &datagrams);
        let step = Duration::from_millis(if round % 100 == 99 { 300 } else { 1 });
        cluster.now.mono = cluster.now.mono + step;
        turn_both(&mut cluster);
    }
    assert!(cluster.sum(|counters| counters.crossed_in_credits) > 100);
}
