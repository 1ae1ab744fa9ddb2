//! A tunnel that goes on elsewhere: what its peer notices (nothing), and that no nonce is used
//! twice, whoever goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::pair::{Pair, Party, ipv4};
use crate::DropReason;
use crate::crypto::PrivateKey;
use crate::record::RecordError;
use crate::wireguard::export::{LEASE, RESUME_LEAP, STATE_BYTES_MAX, STATE_VERSION};
use crate::wireguard::{
    Outcome, OutgoingKind, PeerConfig, REJECT_AFTER_TIME, REKEY_AFTER_TIME, SendState, TunnelState,
    ZERO_KEYS_AFTER,
};
use crate::{Instant, Now};

const PACKET: Outcome = Outcome::Packet { start: 16, len: 20 };

fn record(party: &Party, now: Now) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STATE_BYTES_MAX);
    party.tunnel.export(now).write(&mut bytes);
    bytes
}

/// Another process of the same gateway, which has read the record.
fn heir(party: &Party, bytes: &[u8], at: Instant, ahead: u64) -> Party {
    let state = TunnelState::parse(bytes).unwrap();
    let private = PrivateKey::from_bytes(party.identity.private().to_bytes());
    let config =
        PeerConfig { public: party.tunnel.peer(), preshared: Default::default(), keepalive_s: 0 };
    let mut heir = Party::new(private, config, 77);
    heir.tunnel.import(&state, at, ahead).unwrap();
    heir.table.live = heir.tunnel.indices().collect();
    heir
}

/// Exports and imports `b` at the same moment.
fn hand_over(pair: &mut Pair) {
    let bytes = record(&pair.b, pair.now);
    pair.b = heir(&pair.b, &bytes, pair.now.mono, LEASE);
}

#[test]
fn a_session_goes_on_in_both_directions_without_a_handshake() {
    let mut pair = Pair::new();
    pair.handshake();
    for round in 0..5 {
        assert_eq!(pair.send(true, &ipv4(20)), PACKET, "round {round}");
        assert_eq!(pair.send(false, &ipv4(20)), PACKET, "round {round}");
        let before = pair.b.tunnel.stats();
        hand_over(&mut pair);
        assert_eq!(pair.b.tunnel.stats(), before);
        assert!(!pair.b.tunnel.has_output());
        assert!(!pair.a.tunnel.has_output());
    }
    let stats = pair.a.tunnel.stats();
    assert_eq!((stats.initiations_sent, stats.completed), (1, 1));
}

#[test]
fn what_one_process_accepted_the_next_refuses_and_the_gaps_stay_open() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let messages: Vec<Vec<u8>> = (0..300).map(|_| pair.a.seal(&ipv4(20), now).unwrap()).collect();
    let arrives_early = |at: usize| at.is_multiple_of(3) || (64..192).contains(&at);
    for (at, message) in messages.iter().enumerate().filter(|(at, _)| arrives_early(*at)) {
        assert_eq!(pair.b.open(message, now).0, PACKET, "{at}");
    }
    hand_over(&mut pair);
    for (at, message) in messages.iter().enumerate() {
        let replayed = Outcome::Dropped(DropReason::DataReplayed);
        let expected = if arrives_early(at) { replayed } else { PACKET };
        assert_eq!(pair.b.open(message, now).0, expected, "{at}");
    }
}

#[test]
fn an_initiation_is_not_accepted_again_elsewhere() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    pair.b.initiation(&initiation, now).unwrap();
    pair.b.expect(OutgoingKind::Response, now);
    hand_over(&mut pair);
    let now = pair.pass_s(1);
    assert_eq!(pair.b.initiation(&initiation, now), Err(DropReason::HandshakeReplayed));
}

#[test]
fn a_keypair_that_waits_to_be_confirmed_is_confirmed_elsewhere() {
    let mut pair = Pair::new();
    pair.handshake_unconfirmed();
    hand_over(&mut pair);
    assert_eq!(pair.b.tunnel.send_state(pair.now), SendState::HandshakeNeeded);
    let keepalive = pair.a.expect(OutgoingKind::Keepalive, pair.now);
    assert!(pair.b.open(&keepalive, pair.now).1.confirmed);
    assert_eq!(pair.send(false, &ipv4(20)), PACKET);
}

#[test]
fn a_previous_keypair_still_receives_elsewhere() {
    let mut pair = Pair::new();
    pair.handshake();
    let late = pair.a.seal(&ipv4(20), pair.now).unwrap();
    pair.pass_s(30);
    pair.handshake();
    hand_over(&mut pair);
    assert_eq!(pair.b.table.live.len(), 2);
    assert_eq!(pair.b.open(&late, pair.now).0, PACKET);
    assert_eq!(pair.send(true, &ipv4(20)), PACKET);
}

#[test]
fn the_initiator_renews_its_session_on_time_elsewhere() {
    let mut pair = Pair::new();
    pair.handshake();
    std::mem::swap(&mut pair.a, &mut pair.b);
    pair.pass(REKEY_AFTER_TIME - Duration::from_secs(10));
    hand_over(&mut pair);
    assert_eq!(pair.send(false, &ipv4(20)), PACKET);
    assert!(!pair.b.tunnel.has_output());
    pair.pass_s(10);
    assert_eq!(pair.send(false, &ipv4(20)), PACKET);
    pair.b.expect(OutgoingKind::Initiation, pair.now);
}

#[test]
fn deadlines_are_kept_to_the_nanosecond_and_keys_are_erased_on_time() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.b.tunnel.set_keepalive(25, pair.now);
    while pair.b.transmit(pair.now).is_some() {}
    pair.pass_s(3);
    let before = pair.b.tunnel.poll_timeout();
    hand_over(&mut pair);
    assert_eq!(pair.b.tunnel.poll_timeout(), before);
    pair.b.tunnel.set_keepalive(0, pair.now);
    let now = pair.pass(ZERO_KEYS_AFTER);
    while pair.b.tunnel.poll_timeout().is_some_and(|(at, _)| at <= now.mono) {
        pair.b.timeout(now);
        while pair.b.transmit(now).is_some() {}
    }
    assert!(pair.b.tunnel.indices().next().is_none());
}

#[test]
fn ages_hold_on_a_machine_with_another_clock() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.pass_s(100);
    let bytes = record(&pair.b, now);
    let there = Instant::from_nanos(5_000_000_000_000);
    let heir = |at| heir(&pair.b, &bytes, at, LEASE);
    let state = |party: &Party, mono| party.tunnel.send_state(Now { mono, ..now });
    let left = REJECT_AFTER_TIME - Duration::from_secs(100);
    assert_eq!(state(&heir(there), there + left - Duration::from_nanos(1)), SendState::Ready);
    assert_eq!(state(&heir(there), there + left), SendState::HandshakeNeeded);
    // It runs for less than the keypair is old: when that expires cannot be said there.
    let young = Instant::from_nanos(1);
    assert_eq!(state(&heir(young), young), SendState::HandshakeNeeded);
    assert_eq!(heir(young).tunnel.indices().count(), 0);
}

#[test]
fn what_is_on_its_way_at_the_export_still_arrives() {
    let mut pair = Pair::new();
    pair.handshake();
    let late = pair.b.seal(&ipv4(20), pair.now).unwrap();
    hand_over(&mut pair);
    assert_eq!(pair.send(false, &ipv4(20)), PACKET);
    assert_eq!(pair.a.open(&late, pair.now).0, PACKET);
}

#[test]
fn a_record_says_the_same_when_it_is_written_again() {
    let mut pair = Pair::new();
    pair.handshake();
    pair.pass_s(30);
    pair.handshake();
    let bytes = record(&pair.b, pair.now);
    assert!(bytes.len() < 600, "{} bytes of a session that hardly spoke", bytes.len());
    let mut again = Vec::with_capacity(STATE_BYTES_MAX);
    TunnelState::parse(&bytes).unwrap().write(&mut again);
    assert_eq!(bytes, again);
}

#[test]
fn a_record_of_full_windows_fits() {
    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.handshake();
        let now = pair.now;
        for at in 0..8192 {
            let message = pair.a.seal(&[], now).unwrap();
            if at % 2 == 0 {
                pair.b.open(&message, now);
            }
        }
        pair.pass_s(30);
    }
    let bytes = record(&pair.b, pair.now);
    assert!(bytes.len() > 2 * 1024 && bytes.len() <= STATE_BYTES_MAX, "{}", bytes.len());
    hand_over(&mut pair);
}

#[test]
fn a_record_that_is_cut_or_changed_or_of_another_version_is_refused_or_means_what_it_says() {
    let mut pair = Pair::new();
    pair.handshake();
    assert_eq!(pair.send(true, &ipv4(20)), PACKET);
    let bytes = record(&pair.b, pair.now);
    for len in 0..bytes.len() {
        assert_eq!(TunnelState::parse(&bytes[..len]).unwrap_err(), RecordError::Truncated);
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(TunnelState::parse(&longer).unwrap_err(), RecordError::Trailing);
    for found in [0, STATE_VERSION + 1, u16::MAX] {
        let mut other = bytes.clone();
        other[..2].copy_from_slice(&found.to_le_bytes());
        let expected = RecordError::Version { found, known: STATE_VERSION };
        assert_eq!(TunnelState::parse(&other).unwrap_err(), expected);
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(state) = TunnelState::parse(&changed) {
                let mut again = Vec::with_capacity(STATE_BYTES_MAX);
                state.write(&mut again);
                assert_eq!(again, changed, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn the_state_of_another_peer_is_refused() {
    let pair = Pair::new();
    let state = pair.b.tunnel.export(pair.now);
    let mut other = Pair::new().a;
    let refused = other.tunnel.import(&state, pair.now.mono, LEASE);
    assert_eq!(refused, Err(RecordError::Impossible { field: "peer" }));
}

/// A step of an upgrade, successful or not.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The process that serves sends so many messages.
    Send(u8),
    /// It stops and writes its state down.
    Export,
    /// So many messages leave it all the same.
    Straggle(u8),
    /// The next process has read the state.
    Import,
    /// It is told that it may begin.
    Commit,
    /// It sends.
    HeirSends(u8),
    /// It has failed: the first process goes on.
    RollBack,
    /// It serves: the first process ends.
    TakeOver,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..40_u8).prop_map(Step::Send),
        Just(Step::Export),
        (1..40_u8).prop_map(Step::Straggle),
        Just(Step::Import),
        Just(Step::Commit),
        (1..40_u8).prop_map(Step::HeirSends),
        Just(Step::RollBack),
        Just(Step::TakeOver),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The gateway as its two processes make it: steps that the conversation does not allow are passed
/// over.
struct Upgrade {
    peer: Party,
    serving: Party,
    now: Now,
    exported: Option<Vec<u8>>,
    straggled: u64,
    heir: Option<Party>,
    committed: bool,
    used: BTreeSet<(u32, u64)>,
}

impl Upgrade {
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.handshake();
        Self {
            peer: pair.a,
            serving: pair.b,
            now: pair.now,
            exported: None,
            straggled: 0,
            heir: None,
            committed: false,
            used: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(count) if self.exported.is_none() => self.send(count.into(), false),
            Step::Export if self.exported.is_none() => {
                self.exported = Some(record(&self.serving, self.now));
                self.straggled = 0;
            }
            Step::Straggle(count) if self.exported.is_some() && !self.committed => {
                let count = u64::from(count).min(LEASE - self.straggled);
                self.straggled += count;
                self.send(count, false);
            }
            Step::Import if self.heir.is_none() => {
                let heir = |bytes: &Vec<u8>| heir(&self.serving, bytes, self.now.mono, LEASE);
                self.heir = self.exported.as_ref().map(heir);
            }
            Step::Commit => self.committed = self.heir.is_some(),
            Step::HeirSends(count) if self.committed => self.send(count.into(), true),
            Step::RollBack => {
                if self.committed {
                    self.serving.tunnel.leap(RESUME_LEAP);
                }
                self.forget();
            }
            Step::TakeOver if self.committed => {
                self.serving = self.heir.take().unwrap();
                self.forget();
            }
            Step::Send(_)
            | Step::Export
            | Step::Straggle(_)
            | Step::Import
            | Step::HeirSends(_)
            | Step::TakeOver => {}
        }
    }

    fn forget(&mut self) {
        (self.exported, self.heir, self.committed) = (None, None, false);
    }

    fn send(&mut self, count: u64, by_heir: bool) {
        let sender = if by_heir { self.heir.as_mut().unwrap() } else { &mut self.serving };
        for _ in 0..count {
            let message = sender.seal(&[], self.now).unwrap();
            let index = u32::from_le_bytes(message[4..8].try_into().unwrap());
            let counter = u64::from_le_bytes(message[8..16].try_into().unwrap());
            assert!(self.used.insert((index, counter)), "counter {counter} was used twice");
            assert_eq!(self.peer.open(&message, self.now).0, Outcome::Keepalive);
        }
    }
}

proptest! {
    #[test]
    fn no_interleaving_of_exports_and_roll_backs_uses_a_nonce_twice(steps in steps()) {
        let mut upgrade = Upgrade::new();
        for step in steps {
            upgrade.step(step);
        }
    }

    #[test]
    fn no_bytes_make_a_record_that_is_written_differently(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        if let Ok(state) = TunnelState::parse(&bytes) {
            let mut again = Vec::with_capacity(STATE_BYTES_MAX);
            state.write(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
