#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use ringway_dataplane::command::ROUTES_PER_COMMAND_MAX;
use std::collections::BTreeMap;
use std::net::IpAddr;

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

/// Where a core sends what is for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Peer(PublicKey),
    Core(CoreId),
}

/// A core that applies everything it is told.
#[derive(Default)]
struct Core {
    identity: bool,
    /// Keepalive of each peer.
    peers: BTreeMap<PublicKey, u16>,
    routes: BTreeMap<IpNet, Route>,
}

impl Core {
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::SetIdentity(identity) => self.identity = identity.is_some(),
            Command::RemoveAllPeers => {
                self.peers.clear();
                self.routes.retain(|_, route| matches!(route, Route::Core(_)));
            }
            Command::RemovePeer(public) => {
                self.routes.retain(|_, route| *route != Route::Peer(*public));
                self.peers.remove(public).ok_or(Refusal::UnknownPeer)?;
            }
            Command::PutPeer(change) => return self.put(change),
            Command::PutRoutes(changes) => self.put_routes(changes),
            Command::PutAccount(_)
            | Command::RemoveAccount(_)
            | Command::ReadAccounts(_)
            | Command::ReadPeers(_)
            | Command::ReplaceSockets(_)
            | Command::SetPolicy(_)
            | Command::Pause(_)
            | Command::ExportPeers(_)
            | Command::ImportPeers(_)
            | Command::Resume { .. }
            | Command::Stop => {}
        }
        Ok(())
    }

    fn put(&mut self, change: &PeerChange) -> Result<(), Refusal> {
        if change.update_only && !self.peers.contains_key(&change.public) {
            return Err(Refusal::UnknownPeer);
        }
        assert!(change.allowed_ips.len() <= PREFIXES_PER_COMMAND_MAX);
        let keepalive_s = self.peers.entry(change.public).or_default();
        *keepalive_s = change.keepalive_s.unwrap_or(*keepalive_s);
        let own = Route::Peer(change.public);
        if change.replace_allowed_ips {
            self.routes.retain(|_, route| *route != own);
        }
        for allowed in &change.allowed_ips {
            if !allowed.remove {
                self.routes.insert(allowed.net, own);
            } else if self.routes.get(&allowed.net) == Some(&own) {
                self.routes.remove(&allowed.net);
            }
        }
        Ok(())
    }

    fn put_routes(&mut self, changes: &[RouteChange]) {
        assert!(changes.len() <= ROUTES_PER_COMMAND_MAX);
        for change in changes {
            if let Some(core) = change.core {
                self.routes.insert(change.net, Route::Core(core));
            } else if matches!(self.routes.get(&change.net), Some(Route::Core(_))) {
                self.routes.remove(&change.net);
            }
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<Route> {
        let holding = self.routes.iter().filter(|(net, _)| net.contains(address));
        holding.max_by_key(|(net, _)| net.prefix()).map(|(_, route)| *route)
    }
}

/// Lets a core work off one command and answer; `false` if none waits that may be sent.
fn one(plane: &mut Plane, cores: &mut [Core], id: usize) -> bool {
    let core = CoreId(id as u16);
    let Some(envelope) = plane.outgoing(core).next() else { return false };
    let outcome = cores[id].apply(&envelope.command);
    let Envelope { sequence, command: spent } = envelope;
    plane.report(core, Report::Done { sequence, outcome, spent });
    true
}

/// Lets all cores work off what waits for them, a few commands at a time, and answer.
fn settle(plane: &mut Plane, cores: &mut [Core]) {
    while plane.pending() > 0 {
        for id in 0..cores.len() {
            for _ in 0..3 {
                one(plane, cores, id);
            }
        }
    }
}

fn assert_same(plane: &Plane, cores: &[Core]) {
    let mut count = 0;
    for (public, peer) in plane.peers() {
        let keepalive_s = cores[usize::from(peer.owner.0)].peers[public];
        assert_eq!(keepalive_s, if plane.is_up() { peer.keepalive_s } else { 0 });
        for net in peer.allowed_ips.iter() {
            assert_eq!(plane.prefixes.owner(*net).unwrap().public, *public);
            for (id, core) in cores.iter().enumerate() {
                let here = id == usize::from(peer.owner.0);
                let route = if here { Route::Peer(*public) } else { Route::Core(peer.owner) };
                assert_eq!(core.routes.get(net), Some(&route), "{net} on core {id}");
            }
        }
        count += peer.allowed_ips.len();
    }
    assert_eq!(count, plane.prefixes.len());
    assert!(cores.iter().all(|core| core.routes.len() == count), "no core keeps what is gone");
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
    assert_eq!(plane.prefixes.len(), 0);
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

/// Keys of two peers on different cores.
fn two_apart(cores: u16) -> [PublicKey; 2] {
    let lines = Lines::new(cores);
    let numbered = |n: u8| PublicKey(std::array::from_fn(|at| if at == 0 { n } else { 9 }));
    let first = numbered(0);
    let other = (1..255).map(numbered).find(|other| lines.owner(other) != lines.owner(&first));
    [first, other.unwrap()]
}

/// Works everything off in an order drawn from `draw`; at every moment a packet for `address` must
/// reach a peer, wherever it comes in, with at most one crossing.
fn settle_watching(plane: &mut Plane, cores: &mut [Core], address: &str, mut draw: u64) {
    let address = address.parse().unwrap();
    while plane.pending() > 0 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        one(plane, cores, (draw >> 33) as usize % cores.len());
        for core in &*cores {
            let after_one = match core.lookup(address) {
                Some(Route::Core(owner)) => cores[usize::from(owner.0)].lookup(address),
                other => other,
            };
            assert!(matches!(after_one, Some(Route::Peer(_))), "{after_one:?}");
        }
    }
}

#[test]
fn traffic_that_moves_between_cores_crosses_once_at_every_moment() {
    let (wide, narrow) = (net("10.0.0.0/8"), net("10.1.0.0/16"));
    for draw in 0..300 {
        let mut cores: Vec<_> = (0..4).map(|_| Core::default()).collect();
        let mut plane = Plane::new(4);
        let [a, b] = two_apart(4);
        plane.apply([Operation::Peer(a), Operation::AllowedIp(wide), Operation::Peer(b)]);
        settle(&mut plane, &mut cores);
        for steps in [
            vec![Operation::Peer(b), Operation::AllowedIp(wide)],
            vec![Operation::Peer(a), Operation::AllowedIp(narrow)],
            vec![Operation::Peer(a), Operation::RemoveAllowedIp(narrow)],
            vec![Operation::Peer(a), Operation::AllowedIp(narrow)],
            vec![Operation::Peer(a), Operation::Remove],
        ] {
            plane.apply(steps);
            settle_watching(&mut plane, &mut cores, "10.1.0.1", draw);
            assert_same(&plane, &cores);
        }
    }
}

#[test]
fn with_one_core_no_route_is_told() {
    let mut plane = Plane::new(1);
    plane.apply([Operation::Peer(key(1)), Operation::AllowedIp(net("10.0.0.0/8"))]);
    plane.apply([Operation::Peer(key(2)), Operation::AllowedIp(net("10.0.0.0/8"))]);
    plane.apply([Operation::ReplacePeers]);
    let sent = take(&mut plane, 0);
    assert!(sent.iter().all(|sent| !matches!(sent.command, Command::PutRoutes(_))), "{sent:?}");
    assert!(plane.take_steered().is_empty());
}

#[test]
fn what_a_request_gives_and_gives_again_is_told_once_and_in_batches() {
    let mut plane = Plane::new(2);
    let [a, _] = two_apart(2);
    let mut steps = vec![Operation::Peer(a)];
    steps.extend(
        (0..600_u32)
            .map(|n| Operation::AllowedIp(net(&format!("10.{}.{}.0/24", n / 256, n % 256)))),
    );
    plane.apply(steps.clone());
    let owner = plane.peer(&a).unwrap().owner;
    let other = 1 - owner.0;
    let told = |plane: &mut Plane| -> Vec<usize> {
        let routes = take(plane, other).into_iter().filter_map(|sent| {
            if let Command::PutRoutes(routes) = sent.command { Some(routes.len()) } else { None }
        });
        routes.collect()
    };
    assert_eq!(told(&mut plane), [256, 256, 88]);
    assert_eq!(plane.take_steered().len(), 600);
    steps.insert(1, Operation::ReplaceAllowedIps);
    plane.apply(steps);
    assert_eq!(told(&mut plane).iter().sum::<usize>(), 0, "nothing changed hands");
}

#[test]
fn a_gateway_that_stops_waits_for_no_core_that_is_gone() {
    let mut plane = Plane::new(2);
    let [a, b] = two_apart(2);
    let wide = Operation::AllowedIp(net("10.0.0.0/8"));
    plane.apply([Operation::Peer(a), wide.clone(), Operation::Peer(b), wide]);
    let gone = plane.peer(&b).unwrap().owner;
    let left = 1 - gone.0;
    let _never_answered = take(&mut plane, gone.0);
    let _ = take(&mut plane, left);
    plane.stop();
    assert!(take(&mut plane, left).iter().any(|sent| matches!(sent.command, Command::Stop)));
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
    assert_eq!(cores[0].peers[&key(1)], 0);
    plane.set_link(true);
    assert_eq!(plane.pending(), 1);
    settle(&mut plane, &mut cores);
    assert_eq!(cores[0].peers[&key(1)], 25);
    plane.set_link(true);
    assert_eq!(plane.pending(), 0);
    plane.set_link(false);
    settle(&mut plane, &mut cores);
    assert_eq!(cores[0].peers[&key(1)], 0);
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
    assert_eq!(plane.prefixes.len(), 0);
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
