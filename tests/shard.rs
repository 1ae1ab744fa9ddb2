//! One shard, from datagram to TUN and back, with clients that speak the real protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_proto::DropReason;
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::Gateway;
use ringway_tests::packets::udp4;

const SEED: u64 = 7;
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A gateway with one client that has completed its handshake.
fn connected() -> (Gateway, Client) {
    let mut gateway = Gateway::new(SEED, at("198.51.100.1:51820"), Pools::default());
    let public = Gateway::public_of(SEED);
    let mut client = Client::new(11, public, at("203.0.113.5:40000"), [0; 32]);
    gateway.add_peer(client.public(), &["10.0.0.2/32"]);
    exchange(&mut gateway, &mut client, &udp4(INSIDE, BEYOND, b"hello"));
    (gateway, client)
}

/// The client sends a packet; both sides talk until they have nothing more to say.
fn exchange(gateway: &mut Gateway, client: &mut Client, packet: &[u8]) {
    let mut outgoing = client.send(packet, gateway.now);
    while !outgoing.is_empty() {
        let mut replies = Vec::new();
        for datagram in outgoing {
            for sent in gateway.receive(&[datagram], client.address) {
                assert_eq!(sent.to, client.address);
                replies.extend(client.receive(&sent.bytes, gateway.now));
            }
        }
        outgoing = replies;
    }
}

#[test]
fn a_client_connects_and_its_packet_reaches_the_tun() {
    let (mut gateway, client) = connected();
    assert!(client.ready(gateway.now));
    assert_eq!(gateway.written.len(), 1);
    assert_eq!(gateway.written[0][10..], udp4(INSIDE, BEYOND, b"hello"));
    assert_eq!(gateway.all_drops(), 0);
    assert!(gateway.shard.driver_mut().at_rest());
}

#[test]
fn an_answer_reaches_the_client() {
    let (mut gateway, mut client) = connected();
    let answer = udp4(BEYOND, INSIDE, b"hello yourself");
    for sent in gateway.inside(&answer) {
        client.receive(&sent.bytes, gateway.now);
    }
    assert_eq!(client.received, [answer]);
    assert!(gateway.shard.driver_mut().at_rest());
}

#[test]
fn datagrams_that_arrived_together_leave_as_one_super_packet() {
    let (mut gateway, mut client) = connected();
    gateway.written.clear();
    let packets: Vec<_> = (0..20_u8).map(|n| udp4(INSIDE, BEYOND, &[n; 512])).collect();
    let sealed: Vec<_> =
        packets.iter().flat_map(|packet| client.send(packet, gateway.now)).collect();
    gateway.receive(&sealed, client.address);
    assert_eq!(gateway.written.len(), 1);
    assert_eq!(gateway.written[0].len(), 10 + 28 + 20 * 512);
    assert!(gateway.shard.driver_mut().at_rest());
}

#[test]
fn a_packet_with_a_foreign_source_is_dropped_and_counted() {
    let (mut gateway, mut client) = connected();
    gateway.written.clear();
    let foreign = udp4(Ipv4Addr::new(10, 0, 0, 3), BEYOND, b"not me");
    for datagram in client.send(&foreign, gateway.now) {
        gateway.receive(&[datagram], client.address);
    }
    assert!(gateway.written.is_empty());
    assert_eq!(gateway.drops(DropReason::SourceNotAllowed), 1);
}

#[test]
fn a_replayed_datagram_is_dropped_and_counted() {
    let (mut gateway, mut client) = connected();
    gateway.written.clear();
    let datagram = client.send(&udp4(INSIDE, BEYOND, b"once"), gateway.now).remove(0);
    gateway.receive(std::slice::from_ref(&datagram), client.address);
    gateway.receive(&[datagram], client.address);
    assert_eq!(gateway.written.len(), 1);
    assert_eq!(gateway.drops(DropReason::DataReplayed), 1);
}

#[test]
fn roaming_moves_the_endpoint_with_the_next_authenticated_packet() {
    let (mut gateway, mut client) = connected();
    client.address = at("203.0.113.99:12345");
    let datagram = client.send(&udp4(INSIDE, BEYOND, b"moved"), gateway.now).remove(0);
    gateway.receive(&[datagram], client.address);
    let sent = gateway.inside(&udp4(BEYOND, INSIDE, b"found you"));
    assert_eq!(sent[0].to, client.address);
    assert_eq!(gateway.peers()[0].endpoint, Some(client.address));
}

#[test]
fn packets_for_nobody_are_answered_as_unreachable() {
    let (mut gateway, _client) = connected();
    gateway.written.clear();
    gateway.inside(&udp4(BEYOND, Ipv4Addr::new(10, 9, 9, 9), b"who?"));
    assert_eq!(gateway.drops(DropReason::InsideNoPeer), 1);
    assert_eq!(gateway.written.len(), 1, "an ICMP error");
}

#[test]
fn a_session_is_renewed_by_its_initiator_under_traffic() {
    let (mut gateway, mut client) = connected();
    let mut delivered = 0;
    gateway.written.clear();
    for second in 0..300_u32 {
        gateway.advance(Duration::from_secs(1));
        let woken = client.wake(gateway.now);
        let packet = udp4(INSIDE, BEYOND, &second.to_be_bytes());
        for datagram in woken {
            for sent in gateway.receive(&[datagram], client.address) {
                client.receive(&sent.bytes, gateway.now);
            }
        }
        exchange(&mut gateway, &mut client, &packet);
        delivered += gateway.written.drain(..).count();
    }
    assert_eq!(delivered, 300);
    assert!(gateway.shard.counters_mut().handshakes_completed_responder >= 3);
    assert_eq!(gateway.all_drops(), 0);
}

#[test]
fn a_peer_that_falls_silent_under_one_way_traffic_is_asked_again_after_fifteen_seconds() {
    let (mut gateway, _silent) = connected();
    let mut initiations = 0;
    for _ in 0..20 {
        let sent = gateway.inside(&udp4(BEYOND, INSIDE, b"anybody there?"));
        initiations += sent.iter().filter(|sent| sent.bytes[0] == 1).count();
        let sent = gateway.advance(Duration::from_secs(1));
        initiations += sent.iter().filter(|sent| sent.bytes[0] == 1).count();
    }
    assert!(initiations >= 1, "no handshake was begun");
}
