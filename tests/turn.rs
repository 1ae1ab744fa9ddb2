//! What one turn of a shard may do, and what must not be forgotten between turns.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::command::AllowedIpChange;
use ringway_dataplane::{Command, Envelope, PeerChange};
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::crypto::PrivateKey;
use ringway_proto::limits::TIMERS_PER_TURN_MAX;
use ringway_proto::wireguard::Identity;
use ringway_ring::{Ecn, Wait};
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup};
use ringway_tests::packets::udp4;

const SEED: u64 = 7;
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn gateway() -> Gateway {
    let address = "198.51.100.1:51820".parse().expect("an address");
    Gateway::new(SEED, address, Pools::default())
}

fn put(gateway: &mut Gateway, change: PeerChange) {
    gateway.apply(Command::PutPeer(Box::new(change)));
}

/// A peer that was never heard from, but is expected somewhere.
fn silent(number: u8) -> PeerChange {
    let public = PrivateKey::from_bytes([number; 32]).public();
    let endpoint = SocketAddr::from(([203, 0, 113, number], 40_000));
    PeerChange { endpoint: Some(endpoint), ..PeerChange::of(public) }
}

fn initiations(gateway: &mut Gateway) -> usize {
    let sent = std::mem::take(&mut gateway.shard.driver_mut().sent);
    sent.iter().filter(|sent| sent.bytes[0] == 1).count()
}

#[test]
fn peers_that_are_due_together_are_asked_over_many_turns() {
    const PEERS: usize = 5 * TIMERS_PER_TURN_MAX;
    let mut gateway = gateway();
    for number in 0..PEERS {
        put(&mut gateway, PeerChange { keepalive_s: Some(25), ..silent(number as u8 + 1) });
    }
    assert_eq!(initiations(&mut gateway), PEERS);
    gateway.now.mono = gateway.now.mono + Duration::from_secs(6);
    let mut asked = 0;
    for _ in 0..PEERS / TIMERS_PER_TURN_MAX {
        gateway.turn();
        let now = initiations(&mut gateway);
        assert!((1..=TIMERS_PER_TURN_MAX).contains(&now), "{now} in one turn");
        asked += now;
    }
    asked += gateway.run().iter().filter(|sent| sent.bytes[0] == 1).count();
    assert_eq!(asked, PEERS);
}

#[test]
fn a_new_key_starts_the_handshake_that_staged_packets_wait_for() {
    let mut gateway = gateway();
    let mut change = silent(9);
    change.allowed_ips =
        vec![AllowedIpChange { net: "10.0.0.2/32".parse().expect("a prefix"), remove: false }];
    put(&mut gateway, change);
    let sent = gateway.inside(&udp4(BEYOND, INSIDE, b"wait"));
    assert_eq!(sent.len(), 1, "an initiation under the old key");
    let identity = Identity::new(PrivateKey::from_bytes([0x42; 32]));
    gateway.apply(Command::SetIdentity(Some(Box::new(identity))));
    assert_eq!(initiations(&mut gateway), 1, "an initiation under the new key");
}

#[test]
fn the_first_single_address_of_a_peer_is_where_its_path_is_asked() {
    let mut gateway = gateway();
    let public = silent(9).public;
    let mut inner_after = |nets: &[(&str, bool)]| {
        let change = |&(net, remove): &(&str, bool)| AllowedIpChange {
            net: net.parse().expect("a prefix"),
            remove,
        };
        let allowed_ips = nets.iter().map(change).collect();
        put(&mut gateway, PeerChange { allowed_ips, ..silent(9) });
        let peers = gateway.shard.peers();
        let id = peers.by_key(&public).expect("the peer");
        peers.get(id).expect("the peer").inner.map(|inner| inner.map(|inner| inner.to_string()))
    };
    let v4 = |text: &str| Some(text.to_owned());
    assert_eq!(inner_after(&[("10.1.0.0/16", false)]), [None, None]);
    assert_eq!(inner_after(&[("10.0.0.2/32", false)]), [v4("10.0.0.2"), None]);
    let both = [v4("10.0.0.2"), Some("fd00::2".to_owned())];
    assert_eq!(inner_after(&[("10.0.0.3/32", false), ("fd00::2/128", false)]), both);
    let other = [v4("10.0.0.3"), Some("fd00::2".to_owned())];
    assert_eq!(inner_after(&[("10.0.0.2/32", true)]), other);
}

#[test]
fn an_initiation_that_has_nowhere_to_go_is_not_counted_as_sent() {
    let mut gateway = gateway();
    put(&mut gateway, PeerChange { keepalive_s: Some(25), endpoint: None, ..silent(9) });
    assert_eq!(gateway.drops(DropReason::InsideNoEndpoint), 1);
    assert_eq!(gateway.shard.counters_mut().handshakes_sent, 0);
    put(&mut gateway, silent(9));
    gateway.advance(Duration::from_secs(6));
    assert_eq!(gateway.shard.counters_mut().handshakes_sent, 1);
}

#[test]
fn what_answers_no_handshake_takes_no_place_in_the_queue() {
    let mut gateway = gateway();
    let mut cookie = vec![0xaa; 64];
    cookie[..4].copy_from_slice(&[3, 0, 0, 0]);
    let from = "203.0.113.5:40000".parse().expect("an address");
    let driver = gateway.shard.driver_mut();
    driver.inject_outside(&vec![cookie; 60], from, None, Ecn::default());
    gateway.turn();
    assert_eq!(gateway.drops(DropReason::IndexUnknown), 60, "a queue would take 15 turns");
}

#[test]
fn an_answer_without_room_is_tried_again_soon_and_does_not_keep_the_core_busy() {
    let address = "198.51.100.1:51820".parse().expect("an address");
    let mut gateway = Gateway::with(Setup { reports: 2, ..Setup::new(SEED, address) });
    let total = 5;
    for sequence in 0..total {
        let envelope = Envelope { sequence, command: Command::RemoveAllPeers };
        assert!(gateway.commands.push(envelope).is_ok());
    }
    let mut answered = 0;
    while answered < total {
        let turn = gateway.turn();
        if answered + 2 < total {
            let Wait::AtMost(wait) = turn.wait else { panic!("{:?}", turn.wait) };
            assert!(!wait.is_zero() && wait <= Duration::from_millis(1), "{wait:?}");
        }
        let before = answered;
        answered += std::iter::from_fn(|| gateway.reports.pop()).count() as u64;
        assert!(answered > before, "no answer came");
    }
}

/// A segment of 1,200 bytes that begins at `sequence`. Nobody looks at its checksum.
fn segment(sequence: u32) -> Vec<u8> {
    let mut packet = vec![0; 1240];
    packet[..4].copy_from_slice(&[0x45, 0, 0x04, 0xd8]);
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[12..16].copy_from_slice(&BEYOND.octets());
    packet[16..20].copy_from_slice(&INSIDE.octets());
    packet[20..24].copy_from_slice(&[0x01, 0xbb, 0xc0, 0x01]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, 0x10]);
    packet
}

#[test]
fn asking_a_path_again_does_not_wake_a_tunnel_that_is_asleep() {
    let policy = Policy { address_v4: Some(Ipv4Addr::new(10, 0, 0, 1)), ..Policy::default() };
    let address = "198.51.100.1:51820".parse().expect("an address");
    let mut gateway = Gateway::with(Setup { policy, ..Setup::new(SEED, address) });
    let home = "203.0.113.5:40000".parse().expect("an address");
    let mut client = Client::new(11, Gateway::public_of(SEED), home, [0; 32]);
    gateway.add_peer(client.public(), &["10.0.0.2/32"]);
    let mut outgoing = client.send(&udp4(INSIDE, BEYOND, b"hello"), gateway.now);
    while let Some(datagram) = outgoing.pop() {
        for sent in gateway.receive(&[datagram], home) {
            outgoing.extend(client.receive(&sent.bytes, gateway.now));
        }
    }
    gateway.advance(Duration::from_secs(10));
    // The same segment again and again, while other things arrive: the path becomes narrower.
    for _ in 0..5 {
        gateway.inside(&segment(1));
    }
    for _ in 0..8 {
        gateway.advance(Duration::from_secs(1));
        for datagram in client.send(&udp4(INSIDE, BEYOND, b"I live"), gateway.now) {
            gateway.receive(&[datagram], home);
        }
    }
    let narrow = gateway.peers()[0].path_mtu;
    assert!(narrow < Policy::INNER_MTU, "{narrow}");
    // Everything dies down: what was unanswered was asked for, and was given up.
    for _ in 0..200 {
        gateway.advance(Duration::from_secs(1));
    }
    let mut sent = 0;
    for _ in 0..1_000 {
        sent += gateway.advance(Duration::from_secs(1)).len();
    }
    assert_eq!(sent, 0, "the path was asked without a session");
}
