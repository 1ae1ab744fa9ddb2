//! Commands that concern many peers or many prefixes: a bounded piece per turn, and meanwhile
//! nobody is wronged.

use std::time::Duration;

use ringway_dataplane::command::AllowedIpChange;
use ringway_dataplane::{Command, Envelope, PeerChange, Report};
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::REKEY_ATTEMPT_TIME;
use ringway_ring::listen::{UdpOptions, UdpSockets};
use ringway_ring::{Ecn, Wait};
use ringway_tests::client::Seeded;
use ringway_tests::gateway::{Gateway, Setup, change_of, identity_of};
use ringway_tests::packets::udp;
use ringway_tests::pair::{Families, Pair, SEED};

use crate::crowds::{BEYOND, Crowd, inner};

/// From one peer per turn to all at once.
const BUDGETS: [u32; 4] = [1, 7, 900, 5_000];

fn push(gateway: &mut Gateway, sequence: u64, command: Command) {
    assert!(gateway.commands.push(Envelope { sequence, command }).is_ok());
}

fn answers(gateway: &mut Gateway) -> Vec<u64> {
    std::iter::from_fn(|| gateway.reports.pop())
        .map(|report| match report {
            Report::Done { sequence, outcome: Ok(()), .. } => sequence,
            refused @ (Report::Done { .. }
            | Report::Stopped { .. }
            | Report::AccountExhausted { .. }) => panic!("{refused:?}"),
        })
        .collect()
}

/// A packet of every client, and a packet for every client, to be seen in the next turn.
fn talk(crowd: &mut Crowd) {
    for (number, client) in crowd.clients.iter_mut().enumerate() {
        let gateway = &mut crowd.gateway;
        let sealed = client.send(&udp(inner(number), BEYOND, b"up"), gateway.now);
        gateway.deliver(&sealed, client.address, gateway.ip(), Ecn::default());
        gateway.shard.driver_mut().inject_packet(&udp(BEYOND, inner(number), b"down"));
    }
}

#[test]
fn a_new_identity_reaches_peers_over_many_turns_and_until_then_they_are_mute() {
    const PEERS: usize = 20;
    for budget in BUDGETS {
        let mut crowd = Crowd::connected(PEERS);
        crowd.gateway.shard.set_walk_units(budget);
        let identity = identity_of(99);
        let public = identity.public();
        push(&mut crowd.gateway, 7_000, Command::SetIdentity(Some(Box::new(identity))));
        push(&mut crowd.gateway, 7_001, Command::RemovePeer(crowd.clients[0].public()));
        // What was sealed under the old identity arrives in the turn of the change.
        talk(&mut crowd);
        crowd.gateway.turn();
        assert!(crowd.gateway.written.is_empty(), "no session of the old identity is heard");
        assert_eq!(crowd.gateway.drops(DropReason::IndexUnknown), PEERS as u64);
        let mut turns = 1;
        let mut answered = answers(&mut crowd.gateway);
        while answered.len() < 2 {
            let wait = crowd.gateway.turn().wait;
            answered.extend(answers(&mut crowd.gateway));
            assert!(wait == Wait::No || answered.len() == 2, "it does not sleep over it");
            turns += 1;
        }
        assert_eq!(answered, [7_000, 7_001], "what came later waited");
        let at_once = budget / 400 + 1;
        assert!(turns >= PEERS as u32 / at_once, "{turns} turns with {budget} units");
        // All that was said is initiations of the new identity, for the packets that wait.
        let sent = std::mem::take(&mut crowd.gateway.shard.driver_mut().sent);
        assert!(sent.iter().all(|sent| sent.bytes[0] == 1), "with {budget} units");
        crowd.clients.iter_mut().for_each(|client| client.restart(public));
        for sent in sent {
            let client = crowd.clients.iter_mut().find(|client| client.address == sent.to).unwrap();
            for datagram in client.receive(&sent.bytes, crowd.gateway.now) {
                let home = client.address;
                for reply in crowd.gateway.receive(&[datagram], home) {
                    client.receive(&reply.bytes, crowd.gateway.now);
                }
            }
        }
        for client in &crowd.clients[1..] {
            assert_eq!(client.received.len(), 1, "what waited has arrived");
        }
        let counters = crowd.gateway.shard.counters_mut();
        assert_eq!((counters.sessions, counters.staged_packets), (PEERS as u64 - 1, 0));
    }
}

#[test]
fn a_client_that_knocks_while_the_identity_changes_is_not_kept_waiting() {
    let mut crowd = Crowd::connected(12);
    crowd.gateway.shard.set_walk_units(1);
    let identity = identity_of(99);
    crowd.clients[11].restart(identity.public());
    push(&mut crowd.gateway, 7_000, Command::SetIdentity(Some(Box::new(identity))));
    crowd.gateway.turn();
    let home = crowd.clients[11].address;
    crowd.gateway.now.mono = crowd.gateway.now.mono + Duration::from_secs(6);
    let hello = crowd.clients[11].send(&udp(inner(11), BEYOND, b"hello"), crowd.gateway.now);
    crowd.gateway.deliver(&hello, home, crowd.gateway.ip(), Ecn::default());
    crowd.gateway.turn();
    crowd.gateway.turn();
    assert!(answers(&mut crowd.gateway).is_empty(), "the walk is still under way");
    let sent = std::mem::take(&mut crowd.gateway.shard.driver_mut().sent);
    let response = sent.iter().find(|sent| sent.to == home).unwrap();
    let data = crowd.clients[11].receive(&response.bytes, crowd.gateway.now);
    crowd.gateway.deliver(&data, home, crowd.gateway.ip(), Ecn::default());
    crowd.gateway.run();
    assert_eq!(crowd.gateway.written.len(), 1, "and the walk did not end the new session");
    assert_eq!(answers(&mut crowd.gateway), [7_000]);
}

#[test]
fn the_same_identity_again_ends_no_session() {
    let mut pair = Pair::connected();
    pair.gateway.command(Command::SetIdentity(Some(Box::new(identity_of(SEED)))));
    pair.send(&pair.to_exit(b"still here"));
    assert_eq!(pair.gateway.written.len(), 1);
}

#[test]
fn all_peers_go_by_and_by_and_each_is_served_until_it_goes() {
    const PEERS: usize = 20;
    for budget in BUDGETS {
        let mut crowd = Crowd::connected(PEERS);
        crowd.gateway.shard.set_walk_units(budget);
        push(&mut crowd.gateway, 7_000, Command::RemoveAllPeers);
        push(&mut crowd.gateway, 7_001, Command::PutPeer(Box::new(PeerChange::of(stranger(1)))));
        let mut answered = Vec::new();
        while answered.len() < 2 {
            talk(&mut crowd);
            crowd.gateway.turn();
            answered.extend(answers(&mut crowd.gateway));
            let peers = crowd.gateway.shard.peers().len();
            if answered.is_empty() {
                // Numbers grow with slots: the last are there until the end.
                let up = crowd.gateway.written.len();
                assert!(up >= peers, "{up} of {peers} came through with {budget} units");
            }
            crowd.gateway.written.clear();
        }
        crowd.gateway.run();
        assert_eq!(answered, [7_000, 7_001]);
        assert_eq!(crowd.gateway.shard.peers().len(), 1);
        assert_eq!(crowd.gateway.shard.indices().used(), 0);
        assert_eq!(crowd.gateway.shard.counters_mut().sessions, 0);
    }
}

fn stranger(number: u16) -> PublicKey {
    let mut key = [9; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    PublicKey(key)
}

fn nets(from: u32, count: u32) -> Vec<AllowedIpChange> {
    let net = |n: u32| format!("10.{}.{}.0/24", n >> 8, n & 255).parse().unwrap();
    (from..from + count).map(|n| AllowedIpChange { net: net(n), remove: false }).collect()
}

#[test]
fn a_list_of_prefixes_is_replaced_by_and_by_and_what_stays_never_stops_working() {
    for budget in [3, 50, 5_000] {
        let mut pair = Pair::connected();
        pair.gateway.shard.set_walk_units(budget);
        let public = pair.client.public();
        let first = PeerChange { allowed_ips: nets(256, 300), ..PeerChange::of(public) };
        push(&mut pair.gateway, 1, Command::PutPeer(Box::new(first)));
        pair.gateway.run();
        // The peer's own address is in the middle of the new list.
        let mut list = nets(456, 150);
        list.extend(change_of(public, &["10.0.0.2/32"]).allowed_ips);
        list.extend(nets(700, 150));
        let second =
            PeerChange { allowed_ips: list, replace_allowed_ips: true, ..PeerChange::of(public) };
        push(&mut pair.gateway, 2, Command::PutPeer(Box::new(second)));
        assert_eq!(answers(&mut pair.gateway), [1]);
        let mut turns = 0;
        loop {
            let up = pair.client.send(&pair.to_exit(b"up"), pair.now());
            pair.gateway.deliver(&up, pair.client.address, pair.gateway.ip(), Ecn::default());
            pair.leave_inside(b"down");
            pair.gateway.turn();
            turns += 1;
            assert_eq!(pair.gateway.written.len(), turns, "with {budget} units");
            if answers(&mut pair.gateway) == [2] {
                break;
            }
        }
        pair.gateway.run();
        assert_eq!(pair.gateway.all_drops(), 0);
        assert!(turns > 1_000 / budget as usize, "{turns} turns with {budget} units");
        // What only the old list named leads nowhere.
        pair.gateway.inside(&udp(BEYOND, [10, 1, 0, 7].into(), b"old"));
        assert_eq!(pair.drops(DropReason::InsideNoPeer), 1);
        pair.gateway.inside(&udp(BEYOND, [10, 2, 200, 7].into(), b"new"));
        assert_eq!(pair.gateway.all_drops(), 1);
    }
}

#[test]
fn a_peer_with_many_prefixes_goes_at_once_and_its_prefixes_by_and_by() {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    gateway.put_peer(PeerChange { allowed_ips: nets(0, 500), ..PeerChange::of(stranger(1)) });
    gateway.shard.set_walk_units(50);
    push(&mut gateway, 7_000, Command::RemovePeer(stranger(1)));
    push(&mut gateway, 7_001, Command::RemoveAllPeers);
    gateway.turn();
    assert!(gateway.shard.peers().is_empty());
    let mut turns = 1;
    let mut answered = answers(&mut gateway);
    while answered.len() < 2 {
        gateway.turn();
        answered.extend(answers(&mut gateway));
        turns += 1;
    }
    assert_eq!(answered, [7_000, 7_001]);
    assert!(turns >= 500 / 26, "{turns} turns");
    assert_eq!(gateway.shard.prefixes(), 0);
}

#[test]
fn a_smaller_packet_size_reaches_all_paths() {
    for budget in BUDGETS {
        let mut crowd = Crowd::connected(30);
        crowd.gateway.shard.set_walk_units(budget);
        let narrow = Policy { inner_mtu: 1_300, ..Policy::default() };
        push(&mut crowd.gateway, 7_000, Command::SetPolicy(Box::new(narrow)));
        crowd.gateway.run();
        assert_eq!(answers(&mut crowd.gateway), [7_000]);
        assert!(crowd.gateway.peers().iter().all(|peer| peer.path_mtu == 1_300));
    }
}

/// Peers that are expected somewhere and have a packet waiting.
fn waiting(count: u16) -> Gateway {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    for number in 0..count {
        let mut change = change_of(stranger(number), &[&format!("10.0.1.{number}/32")]);
        change.endpoint = Some(([203, 0, 113, 5], 1_000 + number).into());
        gateway.put_peer(change);
    }
    gateway.command(Command::ReplaceSockets(None));
    for number in 0..count {
        assert!(gateway.inside(&udp(BEYOND, inner(number.into()), b"wait")).is_empty());
    }
    gateway
}

fn loopback() -> Box<UdpSockets> {
    let options = UdpOptions {
        ipv4: Some([127, 0, 0, 1].into()),
        ipv6: None,
        shared: false,
        ..UdpOptions::default()
    };
    Box::new(UdpSockets::bind(&options).unwrap())
}

#[test]
fn new_sockets_start_the_handshakes_that_waited_a_few_per_turn() {
    let mut gateway = waiting(40);
    push(&mut gateway, 7_000, Command::ReplaceSockets(Some(loopback())));
    let mut asked = 0;
    while asked < 40 {
        gateway.turn();
        let sent = std::mem::take(&mut gateway.shard.driver_mut().sent);
        assert!((1..=4).contains(&sent.len()), "{} in one turn", sent.len());
        asked += sent.len();
    }
    gateway.run();
    assert_eq!(answers(&mut gateway), [7_000]);
}

#[test]
fn without_sockets_timers_start_no_handshakes_and_what_waits_is_lost_in_the_end() {
    let mut gateway = waiting(3);
    let keep = |number| PeerChange { keepalive_s: Some(25), ..PeerChange::of(stranger(number)) };
    (0..3).for_each(|number| gateway.put_peer(keep(number)));
    for _ in 0..95 {
        assert!(gateway.advance(Duration::from_secs(1)).is_empty());
    }
    assert_eq!(gateway.drops(DropReason::StagedExpired), 3);
    assert_eq!(gateway.shard.counters_mut().handshakes_sent, 0);
    // Once there are sockets, the keepalives that were due begin.
    push(&mut gateway, 7_000, Command::ReplaceSockets(Some(loopback())));
    assert_eq!(gateway.run().len(), 3);
}

#[test]
fn what_waits_for_a_peer_with_a_worthless_key_or_for_an_identity_is_lost_in_the_end() {
    let mut pair = Pair::reachable();
    let mut change = change_of(PublicKey([0; 32]), &["10.0.0.9/32"]);
    change.endpoint = Some("203.0.113.9:9".parse().unwrap());
    pair.gateway.put_peer(change);
    assert!(pair.gateway.inside(&udp(BEYOND, [10, 0, 0, 9].into(), b"never")).is_empty());
    pair.pass_alone(REKEY_ATTEMPT_TIME - Duration::from_secs(1));
    assert_eq!(pair.drops(DropReason::StagedExpired), 0);
    pair.pass_alone(Duration::from_secs(2));
    assert_eq!(pair.drops(DropReason::StagedExpired), 1);
    pair.gateway.command(Command::SetIdentity(None));
    pair.gateway.inside(&pair.to_client(b"who am I?"));
    pair.pass_alone(REKEY_ATTEMPT_TIME + Duration::from_secs(1));
    assert_eq!(pair.drops(DropReason::StagedExpired), 2);
    assert_eq!(pair.gateway.shard.counters_mut().staged_packets, 0);
}

#[test]
fn packets_that_waited_say_what_a_keepalive_would() {
    let mut pair = Pair::reachable();
    let ask = pair.gateway.inside(&pair.to_client(b"one of these")).remove(0);
    let response = pair.client.receive(&ask.bytes, pair.now()).remove(0);
    let sent = pair.gateway.receive(&[response], pair.client.address);
    assert_eq!(sent.len(), 1, "no keepalive besides");
    pair.answer(sent);
    assert_eq!(pair.client.received.len(), 1);
}

#[test]
fn an_address_that_moves_to_another_peer_is_not_where_the_first_is_asked_any_more() {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    gateway.put_peer(change_of(stranger(1), &["10.0.0.2/32", "10.0.0.3/32", "fd00::2/128"]));
    let inner_of = |gateway: &Gateway, number| {
        let peers = gateway.shard.peers();
        let id = peers.by_key(&stranger(number)).unwrap();
        peers.get(id).unwrap().inner.map(|inner| inner.map(|inner| inner.to_string()))
    };
    gateway.put_peer(change_of(stranger(2), &["10.0.0.2/32", "fd00::2/128"]));
    assert_eq!(inner_of(&gateway, 1), [Some("10.0.0.3".to_owned()), None]);
    assert_eq!(inner_of(&gateway, 2), [Some("10.0.0.2".to_owned()), Some("fd00::2".to_owned())]);
}

#[test]
fn a_live_session_loses_nothing_while_others_are_loaded_and_removed() {
    let mut pair = Pair::connected();
    let mut random = Seeded(1);
    let mut sequence = 10_000;
    let mut present: Vec<u16> = Vec::new();
    for round in 0..400 {
        for _ in 0..random.below(5) {
            let number = 1 + random.below(60) as u16;
            sequence += 1;
            let command = if present.contains(&number) {
                present.retain(|other| *other != number);
                Command::RemovePeer(stranger(number))
            } else {
                present.push(number);
                let allowed_ips = nets(u32::from(number) * 300, random.below(300) as u32);
                let change = PeerChange { allowed_ips, ..PeerChange::of(stranger(number)) };
                Command::PutPeer(Box::new(change))
            };
            if pair.gateway.commands.push(Envelope { sequence, command }).is_err() {
                panic!("the channel has room");
            }
        }
        let up = pair.client.send(&pair.to_exit(b"up"), pair.now());
        pair.gateway.deliver(&up, pair.client.address, pair.gateway.ip(), Ecn::default());
        pair.leave_inside(b"down");
        let sent = pair.gateway.run();
        pair.answer(sent);
        answers(&mut pair.gateway);
        assert_eq!(pair.gateway.written.len(), round + 1);
        assert_eq!(pair.client.received.len(), round + 1);
    }
    assert_eq!(pair.gateway.all_drops(), 0);
}

#[test]
fn an_address_that_is_lost_is_used_no_more_until_a_client_comes_to_it_again() {
    const PEERS: usize = 20;
    for budget in BUDGETS {
        let mut crowd = Crowd::connected(PEERS);
        crowd.gateway.shard.set_walk_units(budget);
        let lost = crowd.gateway.ip();
        crowd.gateway.shard.forget_source(lost);
        while crowd.gateway.shard.has_commands() {
            crowd.gateway.turn();
        }
        let from = |crowd: &mut Crowd, number| {
            crowd.gateway.shard.driver_mut().inject_packet(&udp(BEYOND, inner(number), b"down"));
            crowd.gateway.run().remove(0).from
        };
        for number in 0..PEERS {
            assert_eq!(from(&mut crowd, number), None, "the kernel chooses");
        }
        talk(&mut crowd);
        crowd.gateway.run();
        assert_eq!(from(&mut crowd, 3).map(|local| local.address), Some(lost));
    }
}
