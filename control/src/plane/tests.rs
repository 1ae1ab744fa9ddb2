#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Takes everything that waits for a core.
fn take(plane: &mut Plane, core: u16) -> Vec<Envelope> {
    plane.outgoing(CoreId(core)).collect()
}

/// A core that applies everything it is told.
#[derive(Default)]
struct Core {
    identity: bool,
    /// Keepalive and prefixes of each peer.
    peers: BTreeMap<PublicKey, (u16, BTreeSet<IpNet>)>,
}

impl Core {
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::SetIdentity(identity) => self.identity = identity.is_some(),
            Command::RemoveAllPeers => self.peers.clear(),
            Command::RemovePeer(public) => {
                self.peers.remove(public).ok_or(Refusal::UnknownPeer)?;
            }
            Command::PutPeer(change) => return self.put(change),
            Command::ReadPeers(_)
            | Command::ReplaceSockets(_)
            | Command::PutRoutes(_)
            | Command::SetPolicy(_)
            | Command::Stop => {}
        }
        Ok(())
    }

    fn put(&mut self, change: &PeerChange) -> Result<(), Refusal> {
        if change.update_only && !self.peers.contains_key(&change.public) {
            return Err(Refusal::UnknownPeer);
        }
        assert!(change.allowed_ips.len() <= PREFIXES_PER_COMMAND_MAX);
        let peer = self.peers.entry(change.public).or_default();
        if let Some(seconds) = change.keepalive_s {
            peer.0 = seconds;
        }
        if change.replace_allowed_ips {
            peer.1.clear();
        }
        for allowed in &change.allowed_ips {
            if allowed.remove {
                self.peers.get_mut(&change.public).unwrap().1.remove(&allowed.net);
            } else {
                for (_, prefixes) in self.peers.values_mut() {
                    prefixes.remove(&allowed.net);
                }
                self.peers.get_mut(&change.public).unwrap().1.insert(allowed.net);
            }
        }
        Ok(())
    }
}

/// Lets all cores work off what waits for them, a few commands at a time, and answer.
fn settle(plane: &mut Plane, cores: &mut [Core]) {
    while plane.pending() > 0 {
        for (id, core) in cores.iter_mut().enumerate() {
            let id = CoreId(id as u16);
            let sent: Vec<_> = plane.outgoing(id).take(3).collect();
            for envelope in sent {
                let outcome = core.apply(&envelope.command);
                let Envelope { sequence, command: spent } = envelope;
                plane.report(id, Report::Done { sequence, outcome, spent });
            }
        }
    }
}

fn assert_same(plane: &Plane, cores: &[Core]) {
    let mut count = 0;
    for (public, peer) in plane.peers() {
        let core = &cores[usize::from(peer.owner.0)];
        let (keepalive_s, prefixes) = &core.peers[public];
        assert_eq!(*keepalive_s, if plane.is_up() { peer.keepalive_s } else { 0 });
        assert_eq!(prefixes, &peer.allowed_ips);
        assert!(peer.allowed_ips.iter().all(|net| plane.prefixes[net] == *public));
        count += peer.allowed_ips.len();
    }
    assert_eq!(count, plane.prefixes.len());
    assert_eq!(cores.iter().map(|core| core.peers.len()).sum::<usize>(), plane.peers().len());
}

#[test]
fn a_new_peer_becomes_one_command_with_everything_in_it() {
    let mut plane = Plane::new(1);
    plane.set_link(true);
    let endpoint = "192.0.2.1:51820".parse().unwrap();
    plane.apply([
        Operation::Peer(key(1)),
        Operation::Preshared(PresharedKey([7; 32])),
        Operation::Endpoint(endpoint),
        Operation::Keepalive(25),
        Operation::ReplaceAllowedIps,
        Operation::AllowedIp(net("10.0.0.1/32")),
        Operation::AllowedIp(net("fd00::1/128")),
    ]);
    let sent = take(&mut plane, 0);
    assert_eq!(sent.len(), 1);
    let Command::PutPeer(change) = &sent[0].command else { panic!("{sent:?}") };
    assert_eq!(change.public, key(1));
    assert!(!change.update_only);
    assert!(change.replace_allowed_ips);
    assert_eq!(change.endpoint, Some(endpoint));
    assert_eq!(change.keepalive_s, Some(25));
    assert_eq!(change.preshared, Some(PresharedKey([7; 32])));
    assert_eq!(change.allowed_ips.len(), 2);
}

#[test]
fn naming_a_known_peer_without_changing_it_sends_nothing() {
    let mut plane = Plane::new(1);
    plane.apply([Operation::Peer(key(1))]);
    assert_eq!(take(&mut plane, 0).len(), 1);
    let ticket = plane.apply([Operation::Peer(key(1)), Operation::UpdateOnly]);
    assert!(take(&mut plane, 0).is_empty());
    // The earlier command is still open, but this ticket waits for the order of all before it.
    assert_eq!(plane.outcome(ticket), None);
}

#[test]
fn update_only_creates_nobody() {
    let mut plane = Plane::new(1);
    plane.apply([
        Operation::Peer(key(1)),
        Operation::UpdateOnly,
        Operation::AllowedIp(net("10.0.0.0/8")),
    ]);
    assert!(take(&mut plane, 0).is_empty());
    assert_eq!(plane.peers().len(), 0);
    assert!(plane.prefixes.is_empty());
}

#[test]
fn the_gateways_own_key_names_nobody() {
    let mut plane = Plane::new(1);
    let own = PrivateKey::from_bytes([5; 32]).public();
    plane.apply([
        Operation::PrivateKey(Secret::new([5; 32])),
        Operation::Peer(own),
        Operation::AllowedIp(net("10.0.0.0/8")),
    ]);
    assert_eq!(plane.peers().len(), 0);
    assert_eq!(take(&mut plane, 0).len(), 1);
}

#[test]
fn a_private_key_removes_the_peer_with_its_public_key_and_zeros_remove_the_key() {
    let mut plane = Plane::new(2);
    let own = PrivateKey::from_bytes([5; 32]).public();
    let mut cores = [Core::default(), Core::default()];
    plane.apply([Operation::Peer(own), Operation::AllowedIp(net("10.0.0.0/8"))]);
    plane.apply([Operation::PrivateKey(Secret::new([5; 32]))]);
    settle(&mut plane, &mut cores);
    assert_eq!(plane.peers().len(), 0);
    assert!(cores.iter().all(|core| core.identity && core.peers.is_empty()));
    plane.apply([Operation::PrivateKey(Secret::new([0; 32]))]);
    settle(&mut plane, &mut cores);
    assert!(plane.private().is_none() && plane.public().is_none());
    assert!(cores.iter().all(|core| !core.identity));
}

#[test]
fn the_same_private_key_again_ends_no_session() {
    let mut plane = Plane::new(1);
    plane.apply([Operation::PrivateKey(Secret::new([5; 32]))]);
    assert_eq!(take(&mut plane, 0).len(), 1);
    plane.apply([Operation::PrivateKey(Secret::new([5; 32]))]);
    assert!(take(&mut plane, 0).is_empty());
}

#[test]
fn a_prefix_moves_between_cores_by_taking_it_away_first() {
    let mut plane = Plane::new(64);
    let (a, b) = (key(1), key(2));
    plane.apply([Operation::Peer(a), Operation::AllowedIp(net("10.0.0.0/8"))]);
    let (core_a, core_b) = {
        plane.apply([Operation::Peer(b)]);
        (plane.peer(&a).unwrap().owner, plane.peer(&b).unwrap().owner)
    };
    assert_ne!(core_a, core_b);
    let _ = (take(&mut plane, core_a.0), take(&mut plane, core_b.0));
    plane.apply([Operation::Peer(b), Operation::AllowedIp(net("10.0.0.0/8"))]);
    let taken = take(&mut plane, core_a.0);
    let Command::PutPeer(change) = &taken[0].command else { panic!("{taken:?}") };
    assert_eq!(change.allowed_ips, [AllowedIpChange { net: net("10.0.0.0/8"), remove: true }]);
    let given = take(&mut plane, core_b.0);
    assert!(taken[0].sequence < given[0].sequence);
    assert!(plane.peer(&a).unwrap().allowed_ips.is_empty());
}

#[test]
fn only_the_owner_can_lose_a_prefix() {
    let mut plane = Plane::new(1);
    plane.apply([Operation::Peer(key(1)), Operation::AllowedIp(net("10.0.0.0/8"))]);
    plane.apply([Operation::Peer(key(2)), Operation::RemoveAllowedIp(net("10.0.0.0/8"))]);
    assert!(plane.peer(&key(1)).unwrap().allowed_ips.contains(&net("10.0.0.0/8")));
    plane.apply([Operation::Peer(key(1)), Operation::RemoveAllowedIp(net("10.0.0.0/8"))]);
    assert!(plane.peer(&key(1)).unwrap().allowed_ips.is_empty());
}

#[test]
fn keepalives_start_when_the_interface_comes_up_and_stop_with_it() {
    let mut plane = Plane::new(1);
    let mut cores = [Core::default()];
    plane.apply([Operation::Peer(key(1)), Operation::Keepalive(25)]);
    plane.apply([Operation::Peer(key(2))]);
    settle(&mut plane, &mut cores);
    assert_eq!(cores[0].peers[&key(1)].0, 0);
    plane.set_link(true);
    assert_eq!(plane.pending(), 1);
    settle(&mut plane, &mut cores);
    assert_eq!(cores[0].peers[&key(1)].0, 25);
    plane.set_link(true);
    assert_eq!(plane.pending(), 0);
    plane.set_link(false);
    settle(&mut plane, &mut cores);
    assert_eq!(cores[0].peers[&key(1)].0, 0);
}

#[test]
fn a_ticket_is_complete_when_every_core_has_answered() {
    let mut plane = Plane::new(2);
    let ticket = plane.apply([Operation::PrivateKey(Secret::new([5; 32]))]);
    assert_eq!(plane.outcome(ticket), None);
    for core in [0, 1] {
        for Envelope { sequence, command: spent } in take(&mut plane, core) {
            assert_eq!(plane.outcome(ticket), None);
            plane.report(CoreId(core), Report::Done { sequence, outcome: Ok(()), spent });
        }
    }
    assert_eq!(plane.outcome(ticket), Some(Ok(())));
    assert_eq!(plane.pending(), 0);
}

#[test]
fn a_peer_that_a_full_core_refuses_is_forgotten_and_its_ticket_says_so() {
    let mut plane = Plane::new(1);
    let ticket = plane.apply([Operation::Peer(key(1)), Operation::AllowedIp(net("10.0.0.0/8"))]);
    for Envelope { sequence, command: spent } in take(&mut plane, 0) {
        let outcome = Err(Refusal::TooManyPeers);
        plane.report(CoreId(0), Report::Done { sequence, outcome, spent });
    }
    assert_eq!(plane.outcome(ticket), Some(Err(Refusal::TooManyPeers)));
    assert!(plane.peer(&key(1)).is_none());
    assert!(plane.prefixes.is_empty());
}

#[test]
fn what_a_core_read_comes_back_under_its_number() {
    let mut plane = Plane::new(1);
    let sequence = plane.read(CoreId(0), Box::default());
    let envelope = take(&mut plane, 0).remove(0);
    let report = Report::Done { sequence, outcome: Ok(()), spent: envelope.command };
    let Answer::Page { sequence: answered, .. } = plane.report(CoreId(0), report) else {
        panic!("no page")
    };
    assert_eq!(answered, sequence);
}

#[test]
fn a_peer_with_very_many_prefixes_arrives_in_pieces() {
    let mut plane = Plane::new(1);
    let mut cores = [Core::default()];
    let mut steps = vec![Operation::Peer(key(1))];
    let nets = (0..1000_u32).map(|n| net(&format!("10.{}.{}.0/24", n / 256, n % 256)));
    steps.extend(nets.map(Operation::AllowedIp));
    plane.apply(steps);
    assert_eq!(plane.pending(), 4);
    settle(&mut plane, &mut cores);
    assert_same(&plane, &cores);
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let net =
        (0_u8..4, 8_u8..10).prop_map(|(a, length)| net(&format!("{}.0.0.0/{length}", a + 10)));
    prop_oneof![
        4 => (0_u8..6).prop_map(|n| Operation::Peer(key(n))),
        1 => (0_u8..3).prop_map(|n| Operation::PrivateKey(Secret::new([n; 32]))),
        1 => Just(Operation::Peer(PrivateKey::from_bytes([1; 32]).public())),
        1 => Just(Operation::ReplacePeers),
        1 => Just(Operation::UpdateOnly),
        1 => Just(Operation::Remove),
        1 => Just(Operation::ReplaceAllowedIps),
        1 => (0_u16..3).prop_map(Operation::Keepalive),
        6 => net.clone().prop_map(Operation::AllowedIp),
        2 => net.prop_map(Operation::RemoveAllowedIp),
    ]
}

fn any_round() -> impl Strategy<Value = (Vec<Operation>, bool)> {
    (prop::collection::vec(any_operation(), 0..20), any::<bool>())
}

proptest! {
    #[test]
    fn cores_end_up_with_what_the_plane_believes(
        rounds in prop::collection::vec(any_round(), 1..12),
        count in 1_u16..5,
    ) {
        let mut plane = Plane::new(count);
        let mut cores: Vec<_> = (0..count).map(|_| Core::default()).collect();
        for (operations, up) in rounds {
            plane.apply(operations);
            plane.set_link(up);
        }
        settle(&mut plane, &mut cores);
        assert_same(&plane, &cores);
    }
}
