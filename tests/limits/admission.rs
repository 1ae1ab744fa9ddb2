//! How many sessions a core under load begins, and that those it has are never in question.

use std::time::Duration;

use ringway_dataplane::Command;
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::wireguard::{AdmissionLimits, REKEY_TIMEOUT};
use ringway_tests::client::Client;
use ringway_tests::gateway::Gateway;
use ringway_tests::packets::udp;
use ringway_tests::pair::{Families, Pair, SEED};

use crate::floods::{Flood, flooded, pour};

const NONE: AdmissionLimits = AdmissionLimits { per_source: 0, sessions: 0, half_open: 0 };
const ALL: AdmissionLimits = AdmissionLimits { per_source: 50, sessions: 50, half_open: 50 };

/// A peer that has never been heard of, from the address of the other one.
fn newcomer(pair: &mut Pair) -> Client {
    let mut home = pair.client.address;
    home.set_port(40_001);
    let client = Client::new(12, Gateway::public_of(SEED), home, [0; 32]);
    pair.gateway.add_peer(client.public(), &["10.0.0.3/32"]);
    client
}

/// The client knocks, is sent a cookie, and comes back with it while the flood goes on.
fn come_in(flood: &mut Flood, client: &mut Client) {
    let packet = udp([10, 0, 0, 3].into(), Families::V4.beyond(), b"hello");
    let knock = client.send(&packet, flood.pair.now());
    exchange(flood, client, knock);
    flood.pair.gateway.advance(REKEY_TIMEOUT - Duration::from_millis(500));
    pour(flood, 600);
    flood.pair.gateway.run();
    flood.pair.gateway.advance(Duration::from_millis(900));
    let again = client.wake(flood.pair.now());
    exchange(flood, client, again);
}

fn exchange(flood: &mut Flood, client: &mut Client, mut out: Vec<Vec<u8>>) {
    let home = client.address;
    while !out.is_empty() {
        let gateway = &mut flood.pair.gateway;
        let sent: Vec<_> =
            out.iter().flat_map(|one| gateway.receive(std::slice::from_ref(one), home)).collect();
        out = sent
            .iter()
            .filter(|sent| sent.to == home)
            .flat_map(|sent| client.receive(&sent.bytes, flood.pair.gateway.now))
            .collect();
    }
}

/// A pair whose client is connected, and a newcomer that asks under load.
fn asked(limits: AdmissionLimits) -> (Pair, Client) {
    let mut flood = flooded(0);
    flood.pair.connect();
    flood.pair.gateway.shard.set_admission(limits);
    let mut client = newcomer(&mut flood.pair);
    pour(&mut flood, 600);
    flood.pair.gateway.run();
    come_in(&mut flood, &mut client);
    (flood.pair, client)
}

pub(crate) fn source_full() -> Pair {
    asked(AdmissionLimits { per_source: 1, ..ALL }).0
}

pub(crate) fn sessions_full() -> Pair {
    asked(AdmissionLimits { sessions: 1, ..ALL }).0
}

pub(crate) fn half_open_full() -> Pair {
    asked(AdmissionLimits { half_open: 0, ..ALL }).0
}

/// A gateway that is drained, and a newcomer that asks.
pub(crate) fn draining() -> Pair {
    let mut pair = Pair::connected();
    drain(&mut pair, true);
    let mut client = newcomer(&mut pair);
    knock(&mut pair, &mut client);
    pair
}

fn drain(pair: &mut Pair, draining: bool) {
    let policy = Policy { draining, ..Policy::default() };
    pair.gateway.command(Command::SetPolicy(Box::new(policy)));
}

/// Sends a packet, and so an initiation. Returns how many answers came.
fn knock(pair: &mut Pair, client: &mut Client) -> usize {
    let packet = udp([10, 0, 0, 3].into(), Families::V4.beyond(), b"hello");
    let knock = client.send(&packet, pair.now());
    pair.gateway.receive(&knock, client.address).len()
}

#[test]
fn while_drained_nobody_new_gets_in_and_who_is_there_is_renewed() {
    let mut pair = draining();
    assert_eq!(pair.drops(DropReason::HandshakeDraining), 1);
    pair.pass(Duration::from_secs(125));
    assert_eq!(pair.drops(DropReason::HandshakeDraining), 1);
    let counters = pair.gateway.shard.counters_mut();
    assert_eq!((counters.handshakes_completed_responder, counters.sessions), (1, 1));
    drain(&mut pair, false);
    pair.pass(Duration::from_secs(6));
    let mut client = newcomer(&mut pair);
    assert_eq!(knock(&mut pair, &mut client), 1);
}

#[test]
fn under_load_a_newcomer_gets_in_while_there_is_room() {
    let (mut pair, client) = asked(ALL);
    assert!(client.ready(pair.now()));
    assert_eq!(pair.gateway.shard.counters_mut().sessions, 2);
    let full = [
        DropReason::HandshakeSourceFull,
        DropReason::HandshakeSessionsFull,
        DropReason::HandshakeHalfOpenFull,
    ];
    assert!(full.iter().all(|reason| pair.drops(*reason) == 0));
}

#[test]
fn under_load_a_newcomer_is_refused_once_and_before_it_costs_much() {
    for (full, reason) in [
        (source_full as fn() -> Pair, DropReason::HandshakeSourceFull),
        (sessions_full, DropReason::HandshakeSessionsFull),
        (half_open_full, DropReason::HandshakeHalfOpenFull),
    ] {
        let mut pair = full();
        assert_eq!(pair.drops(reason), 1, "{reason:?}");
        let counters = pair.gateway.shard.counters_mut();
        assert_eq!((counters.handshakes_completed_responder, counters.sessions), (1, 1));
    }
}

#[test]
fn without_load_nobody_is_counted_out() {
    let mut pair = Pair::connected();
    pair.gateway.shard.set_admission(NONE);
    let mut client = newcomer(&mut pair);
    let packet = udp([10, 0, 0, 3].into(), Families::V4.beyond(), b"hello");
    let knock = client.send(&packet, pair.now());
    assert_eq!(pair.gateway.receive(&knock, client.address).len(), 1);
}

#[test]
fn a_live_session_is_renewed_although_there_is_no_room_for_any() {
    let mut flood = flooded(0);
    flood.pair.connect();
    flood.pair.gateway.shard.set_admission(NONE);
    flood.pair.pass(Duration::from_secs(125));
    pour(&mut flood, 600);
    flood.pair.gateway.run();
    let mut client = std::mem::replace(
        &mut flood.pair.client,
        Client::new(1, Gateway::public_of(SEED), Families::V4.client(), [0; 32]),
    );
    let renewed =
        |flood: &mut Flood| flood.pair.gateway.shard.counters_mut().handshakes_completed_responder;
    assert_eq!(renewed(&mut flood), 1);
    come_in(&mut flood, &mut client);
    assert_eq!(renewed(&mut flood), 2);
}

#[test]
fn what_is_half_open_is_counted_until_the_client_speaks() {
    let mut pair =
        Pair::new(ringway_tests::gateway::Setup::new(SEED, Families::V4.gateway()), Families::V4);
    let half_open = |pair: &mut Pair| {
        // Published every tenth of a second.
        pair.gateway.advance(Duration::from_millis(101));
        pair.gateway.turn();
        pair.gateway.shard.counters_mut().half_open
    };
    let hello = pair.client.send(&pair.to_exit(b"hello"), pair.now());
    let response = pair.gateway.receive(&hello, pair.client.address);
    assert_eq!(half_open(&mut pair), 1);
    pair.answer(response);
    assert_eq!(half_open(&mut pair), 0);
}

#[test]
fn a_client_that_hops_is_heard_everywhere_and_followed_now_and_then() {
    let mut pair = Pair::connected();
    let home = pair.client.address;
    for hop in 1..=100 {
        pair.client.address.set_port(home.port() + hop);
        let datagrams = pair.client.send(&pair.to_exit(b"catch me"), pair.now());
        pair.talk(datagrams);
        assert_eq!(pair.gateway.written.len(), usize::from(hop));
        pair.gateway.advance(Duration::from_millis(10));
    }
    let counters = pair.gateway.shard.counters_mut();
    let (roamed, refused) = (counters.roamed, counters.roams_refused);
    // Four at once and five in the second.
    assert!((8..=10).contains(&roamed) && roamed + refused == 100, "{roamed} and {refused}");
    // It settles down, and is followed.
    pair.gateway.advance(Duration::from_millis(200));
    let datagrams = pair.client.send(&pair.to_exit(b"here I am"), pair.now());
    pair.talk(datagrams);
    assert_eq!(pair.gateway.peers()[0].endpoint, Some(pair.client.address));
}
