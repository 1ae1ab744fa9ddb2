//! What one turn of a shard may do, and what must not be forgotten between turns.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::{Command, Envelope, PeerChange};
use ringway_proto::DropReason;
use ringway_proto::crypto::PrivateKey;
use ringway_proto::limits::TIMERS_PER_TURN_MAX;
use ringway_proto::wireguard::Identity;
use ringway_ring::{Ecn, Wait};
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
    change.allowed_ips = vec![ringway_dataplane::command::AllowedIpChange {
        net: "10.0.0.2/32".parse().expect("a prefix"),
        remove: false,
    }];
    put(&mut gateway, change);
    let sent = gateway.inside(&udp4(BEYOND, INSIDE, b"wait"));
    assert_eq!(sent.len(), 1, "an initiation under the old key");
    let identity = Identity::new(PrivateKey::from_bytes([0x42; 32]));
    gateway.apply(Command::SetIdentity(Some(Box::new(identity))));
    assert_eq!(initiations(&mut gateway), 1, "an initiation under the new key");
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
