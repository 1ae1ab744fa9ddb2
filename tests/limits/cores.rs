//! Floods of handshakes where there are several cores: the load of one is known to all, forged
//! claims hold nobody back, and a core that stands still sleeps.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::Command;
use ringway_dataplane::state::{Pending, StatePage};
use ringway_proto::limits::{HANDSHAKES_CHECKED_PER_TURN_MAX, HANDSHAKES_PER_TURN_MAX};
use ringway_proto::wireguard::{CROWDED_FROM, UNDER_LOAD_FOR, UNDER_LOAD_FROM, WASTED_MIN};
use ringway_proto::{CoreId, DropReason, ReceiverIndex};
use ringway_ring::{Ecn, Wait};
use ringway_tests::client::{Client, Seeded};
use ringway_tests::cluster::{Cluster, Steering};
use ringway_tests::driver::{Pools, Sent};
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::network::initiation;
use ringway_tests::pair::{Families, SEED};

use crate::floods::{open_cookie, sign_again, waste};

const FINDER: CoreId = CoreId(0);
const OWNER: CoreId = CoreId(1);

fn home() -> SocketAddr {
    "203.0.113.5:40000".parse().unwrap()
}

fn two_cores() -> Cluster {
    let pools = Pools { receive: 256, transmit: 256, ..Pools::default() };
    let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
    Cluster::new(&setup, 2, Steering::Right)
}

/// Clients whose keys belong to the second core, none of them configured.
fn strangers(cluster: &Cluster) -> impl Iterator<Item = Client> + use<> {
    let cores = cluster.cores();
    (1_000..)
        .map(|seed| Client::new(seed, Gateway::public_of(SEED), home(), [0; 32]))
        .filter(move |client| ringway_dataplane::owner::owner_of(&client.public(), cores) == OWNER)
}

fn deliver(cluster: &mut Cluster, core: CoreId, datagrams: &[Vec<u8>]) {
    let ip = Families::V4.gateway().ip();
    cluster.at(core).deliver(datagrams, home(), ip, Ecn::default());
}

/// One core gets more worthless initiations than it may have waiting.
fn press(cluster: &mut Cluster, core: CoreId) {
    let mut random = Seeded(5);
    waste(cluster.at(core), &mut random, home());
    for _ in 0..UNDER_LOAD_FROM / HANDSHAKES_CHECKED_PER_TURN_MAX + 1 {
        for _ in 0..HANDSHAKES_CHECKED_PER_TURN_MAX / 64 {
            let public = Gateway::public_of(SEED);
            let merged: Vec<_> = (0..64).map(|_| initiation(&mut random, &public)).collect();
            deliver(cluster, core, &merged);
        }
        cluster.at(core).turn();
    }
}

/// The finder opens an initiation and hands it over. What it said meanwhile.
fn find(cluster: &mut Cluster, message: Vec<u8>) -> Vec<Sent> {
    deliver(cluster, FINDER, &[message]);
    cluster.at(FINDER).run()
}

#[test]
fn where_one_core_is_under_load_all_ask_for_cookies() {
    let mut cluster = two_cores();
    press(&mut cluster, OWNER);
    let mut clients = strangers(&cluster);
    let first = clients.next().unwrap().send(&[0; 20], cluster.now).remove(0);
    let told = find(&mut cluster, first);
    assert_eq!((told.len(), told[0].bytes[0]), (1, 3), "a cookie reply");
    let finder = cluster.at(FINDER).shard.counters_mut();
    assert_eq!(finder.crossed_out_handshakes, 0, "and no curve work");
    assert_eq!(finder.drops[DropReason::Mac2Missing as usize], 1);
    cluster.run();
    cluster.now.mono = cluster.now.mono + UNDER_LOAD_FOR + Duration::from_millis(1);
    let second = clients.next().unwrap().send(&[0; 20], cluster.now).remove(0);
    find(&mut cluster, second);
    let finder = cluster.at(FINDER).shard.counters_mut();
    assert_eq!(finder.crossed_out_handshakes, 1, "the load is over");
}

#[test]
fn claims_of_unknown_keys_hold_nobody_back() {
    let mut cluster = two_cores();
    let mut clients = strangers(&cluster);
    let mut member = clients.next().unwrap();
    cluster.put_peer(change_of(member.public(), &["10.0.0.2/32"]));
    for mut stranger in clients.take(24) {
        let message = stranger.send(&[0; 20], cluster.now).remove(0);
        find(&mut cluster, message);
    }
    let message = member.send(&[0; 20], cluster.now).remove(0);
    find(&mut cluster, message);
    let owner = cluster.at(OWNER);
    owner.turn();
    assert_eq!(owner.drops(DropReason::HandshakePeerUnknown), 24);
    assert_eq!(owner.shard.counters_mut().handshakes_completed_responder, 1, "in one turn");
}

#[test]
fn claims_without_a_cookie_leave_room_to_those_with_one() {
    let mut cluster = two_cores();
    let mut clients = strangers(&cluster);
    let mut member = clients.next().unwrap();
    cluster.put_peer(change_of(member.public(), &["10.0.0.2/32"]));
    // The owner takes claims, and answers none of them.
    cluster.at(OWNER).command(Command::Pause(Pending::default()));
    let message = clients.next().unwrap().send(&[0; 20], cluster.now).remove(0);
    for _ in 0..(CROWDED_FROM + 20) / HANDSHAKES_PER_TURN_MAX {
        deliver(&mut cluster, FINDER, &vec![message.clone(); HANDSHAKES_PER_TURN_MAX]);
        cluster.at(FINDER).turn();
        cluster.at(OWNER).turn();
    }
    cluster.at(FINDER).turn();
    let full = DropReason::HandshakeQueueFull;
    assert_eq!(cluster.at(OWNER).drops(full), 20);
    // What the finder did until now was not in vain, as far as it knows.
    cluster.now.mono = cluster.now.mono + UNDER_LOAD_FOR;
    press(&mut cluster, FINDER);
    cluster.at(FINDER).run();
    let mut message = member.send(&[0; 20], cluster.now).remove(0);
    let told = find(&mut cluster, message.clone()).remove(0);
    let cookie = open_cookie(&told.bytes, &message);
    sign_again(&mut message, &cookie);
    find(&mut cluster, message);
    cluster.at(OWNER).turn();
    assert_eq!(cluster.at(OWNER).drops(full), 20, "there was room");
    cluster.at(OWNER).command(Command::Resume { counters_ahead: 0 });
    cluster.run();
    let owner = cluster.at(OWNER).shard.counters_mut();
    assert_eq!(owner.handshakes_completed_responder, 1);
}

#[test]
fn a_flood_that_only_the_owner_can_judge_brings_cookies_out_on_the_finder() {
    let mut cluster = two_cores();
    // Whoever knows the gateway's key can seal any key, also one that lives on a core of his
    // choice, and say so as often as he likes.
    let message = strangers(&cluster).next().unwrap().send(&[0; 20], cluster.now).remove(0);
    let flood = 4 * UNDER_LOAD_FROM;
    for _ in 0..flood / HANDSHAKES_CHECKED_PER_TURN_MAX {
        for _ in 0..HANDSHAKES_CHECKED_PER_TURN_MAX / 64 {
            deliver(&mut cluster, FINDER, &vec![message.clone(); 64]);
        }
        cluster.at(FINDER).turn();
        cluster.at(OWNER).turn();
    }
    cluster.run();
    let opened = cluster.at(OWNER).drops(DropReason::HandshakePeerUnknown);
    assert!((u64::from(WASTED_MIN)..100).contains(&opened), "{opened} cost curve work");
    let without = cluster.at(FINDER).drops(DropReason::Mac2Missing);
    assert_eq!(without + opened, flood as u64);
}

#[test]
fn an_honest_crowd_at_one_core_is_let_in_by_a_slower_one_without_cookies() {
    let mut cluster = two_cores();
    let crowd = 2 * UNDER_LOAD_FROM;
    let mut members: Vec<Client> = strangers(&cluster).take(crowd).collect();
    for (number, member) in members.iter().enumerate() {
        let inner = format!("10.1.{}.{}/32", number >> 8, number & 0xff);
        cluster.put_peer(change_of(member.public(), &[&inner]));
    }
    let now = cluster.now;
    let hellos: Vec<_> = members.iter_mut().flat_map(|m| m.send(&[0; 20], now)).collect();
    let mut hellos = hellos.chunks(HANDSHAKES_CHECKED_PER_TURN_MAX);
    for turn in 0..10 * crowd {
        for merged in hellos.next().unwrap_or_default().chunks(64) {
            deliver(&mut cluster, FINDER, merged);
        }
        cluster.at(FINDER).turn();
        if turn % 3 == 0 {
            cluster.at(OWNER).turn();
        }
    }
    let owner = cluster.at(OWNER).shard.counters_mut();
    assert_eq!(owner.handshakes_completed_responder, crowd as u64);
    assert_eq!(cluster.sum(|counters| counters.cookies_sent), 0);
    assert_eq!(cluster.drops(DropReason::HandshakeQueueFull), 0);
}

#[test]
fn a_core_that_stands_still_sleeps_whatever_comes_home() {
    let mut cluster = two_cores();
    let indices = cluster.at(FINDER).shard.indices();
    let index = (0..64_u32).map(|number| ReceiverIndex(number << 26));
    let index = { index }.find(|index| indices.owner(*index) == OWNER);
    let mut datagram = vec![4, 0, 0, 0];
    datagram.extend(index.unwrap().0.to_le_bytes());
    datagram.resize(64, 0);
    deliver(&mut cluster, FINDER, &[datagram]);
    cluster.at(FINDER).turn();
    let stand_still = |gateway: &mut Gateway| {
        gateway.command(Command::Pause(Pending::default()));
        gateway.command(Command::ExportPeers(Box::new(StatePage::to_fill(0))));
    };
    stand_still(cluster.at(FINDER));
    // The parcel comes home only now.
    stand_still(cluster.at(OWNER));
    assert_eq!(cluster.at(OWNER).shard.counters_mut().crossed_in_datagrams, 1);
    let finder = cluster.at(FINDER);
    assert!(!finder.shard.has_arrivals());
    assert_ne!(finder.turn().wait, Wait::No);
    finder.command(Command::Resume { counters_ahead: 0 });
    finder.run();
    assert!(!finder.shard.has_arrivals(), "it was taken");
}
