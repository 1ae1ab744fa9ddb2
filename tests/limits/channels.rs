//! What control may do, at the wrong moment or too much of it.

use ringway_dataplane::{Command, Envelope, PeerChange, PeerPage, Refusal, Report};
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::crypto::PublicKey;
use ringway_ring::listen::{UdpOptions, UdpSockets};
use ringway_ring::{Ecn, Wait};
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::pair::{Families, Pair, SEED};

fn peer(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn push(gateway: &mut Gateway, sequence: u64, command: Command) {
    assert!(gateway.commands.push(Envelope { sequence, command }).is_ok());
}

fn outcome(report: Report) -> Result<(), Refusal> {
    match report {
        Report::Done { outcome, .. } => outcome,
        other @ (Report::Stopped { .. } | Report::AccountExhausted { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn answers_that_control_does_not_read_wait_and_none_is_lost() {
    let setup = Setup { reports: 2, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut gateway = Gateway::with(setup);
    for number in 1..=10 {
        let change = Box::new(PeerChange::of(peer(number)));
        push(&mut gateway, u64::from(number), Command::PutPeer(change));
    }
    for _ in 0..5 {
        // It does not spin, although commands wait, and it does not sleep for ever.
        let wait = gateway.turn().wait;
        assert!(matches!(wait, Wait::AtMost(sleep) if !sleep.is_zero()), "{wait:?}");
    }
    assert_eq!(gateway.shard.peers().len(), 3, "two answers in the channel and one in the hand");
    assert!(gateway.shard.counters_mut().reports_refused > 0);
    let mut answered = Vec::new();
    for _ in 0..20 {
        while let Some(report) = gateway.reports.pop() {
            if let Report::Done { sequence, outcome: Ok(()), .. } = report {
                answered.push(sequence);
            }
        }
        gateway.turn();
    }
    assert_eq!(answered, (1..=10).collect::<Vec<_>>());
    assert_eq!(gateway.shard.peers().len(), 10);
}

#[test]
fn many_commands_are_spread_over_turns() {
    let mut pair = Pair::connected();
    for sequence in 0..64 {
        push(&mut pair.gateway, sequence, Command::PutPeer(Box::new(PeerChange::of(peer(9)))));
    }
    pair.gateway.turn();
    assert_eq!(pair.gateway.shard.counters_mut().commands_applied, 2 + 64, "64 in one turn");
}

#[test]
fn peers_are_read_in_pages() {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    for number in 1..=7 {
        gateway.add_peer(peer(number), &[]);
    }
    let mut cursor = None;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = PeerPage { cursor, peers: Vec::with_capacity(3) };
        let report = gateway.apply(Command::ReadPeers(Box::new(page)));
        let Report::Done { spent: Command::ReadPeers(page), .. } = report else { panic!() };
        assert!(page.peers.len() <= 3);
        seen.extend(page.peers.iter().map(|peer| peer.public));
        pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=7).map(peer).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    let update = PeerChange { update_only: true, ..PeerChange::of(peer(1)) };
    let report = gateway.apply(Command::PutPeer(Box::new(update)));
    assert_eq!(outcome(report), Err(Refusal::UnknownPeer));
    let own = PeerChange::of(Gateway::public_of(SEED));
    let report = gateway.apply(Command::PutPeer(Box::new(own)));
    assert_eq!(outcome(report), Err(Refusal::OwnKey));
    let report = gateway.apply(Command::RemovePeer(peer(1)));
    assert_eq!(outcome(report), Err(Refusal::UnknownPeer));
    assert!(gateway.peers().is_empty());
    assert_eq!(gateway.shard.counters_mut().commands_refused, 3);
}

#[test]
fn a_new_policy_holds_at_once_and_the_old_one_comes_back() {
    let mut pair = Pair::connected();
    let narrow = Policy { inner_mtu: 1_300, ..Policy::default() };
    let report = pair.gateway.apply(Command::SetPolicy(Box::new(narrow)));
    let Report::Done { spent: Command::SetPolicy(old), .. } = report else { panic!() };
    assert_eq!(*old, Policy::default());
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_300);
    pair.inside(&pair.to_client(&[7; 1_300 - 28 + 1]));
    assert_eq!(pair.drops(DropReason::InsideTooBig), 1);
    pair.inside(&pair.to_client(&[7; 1_300 - 28]));
    assert_eq!(pair.client.received.len(), 1);
}

#[test]
fn a_peer_removed_while_its_packets_arrive_leaves_nothing_behind() {
    let mut pair = Pair::connected();
    let datagrams: Vec<_> =
        (0..5).flat_map(|n| pair.client.send(&pair.to_exit(&[n; 99]), pair.now())).collect();
    pair.gateway.deliver(&datagrams, pair.client.address, pair.gateway.ip(), Ecn::default());
    pair.leave_inside(b"too late");
    push(&mut pair.gateway, 77, Command::RemovePeer(pair.client.public()));
    assert!(pair.gateway.run().is_empty());
    assert_eq!(pair.drops(DropReason::IndexUnknown), 5);
    assert_eq!(pair.drops(DropReason::InsideNoPeer), 1);
    assert_eq!(pair.gateway.shard.indices().used(), 0);
    assert_eq!(pair.gateway.shard.counters_mut().sessions, 0);
    assert!(pair.gateway.shard.driver_mut().at_rest());
    assert!(matches!(pair.gateway.reports.pop(), Some(Report::Done { sequence: 77, .. })));
    // The same peer comes back and starts afresh; the client notices and shakes hands again.
    pair.gateway.put_peer(change_of(pair.client.public(), &["10.0.0.2/32"]));
    for _ in 0..25 {
        pair.send(&pair.to_exit(b"anybody?"));
        pair.pass(std::time::Duration::from_secs(1));
    }
    assert!(pair.gateway.written.len() > 2);
}

#[test]
fn without_sockets_no_handshake_is_started_and_with_new_ones_it_is() {
    let mut pair = Pair::reachable();
    pair.gateway.command(Command::ReplaceSockets(None));
    let packet = pair.to_client(b"wait for me");
    assert!(pair.gateway.inside(&packet).is_empty());
    assert!(pair.pass_alone(std::time::Duration::from_secs(30)).is_empty());
    let loopback = UdpOptions {
        ipv4: Some([127, 0, 0, 1].into()),
        ipv6: None,
        shared: false,
        ..UdpOptions::default()
    };
    let sockets = UdpSockets::bind(&loopback).unwrap();
    pair.gateway.command(Command::ReplaceSockets(Some(Box::new(sockets))));
    let sent = pair.gateway.run();
    pair.answer(sent);
    assert_eq!(pair.client.received, [packet]);
}

#[test]
fn a_shard_that_is_told_to_stop_answers_first() {
    let mut gateway = Gateway::with(Setup::new(SEED, Families::V4.gateway()));
    push(&mut gateway, 5, Command::Stop);
    let turn = gateway.turn();
    assert!(turn.stop && turn.reported);
    assert!(matches!(gateway.reports.pop(), Some(Report::Done { sequence: 5, .. })));
}
