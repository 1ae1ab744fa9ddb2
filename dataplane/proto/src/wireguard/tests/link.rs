//! Two tunnels over a link that loses, repeats, delays and reorders, under a clock that leaps: what
//! holds whatever happens.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::pair::{Pair, Party, ipv4};
use crate::DropReason;
use crate::wireguard::{Message, Outcome, classify};

#[derive(Clone, Debug)]
enum Step {
    /// Somebody has a packet to send.
    Send { from_a: bool },
    /// The link delivers one of the messages under way, and may keep a copy.
    Deliver { pick: usize, keep: bool },
    /// The link loses one.
    Lose { pick: usize },
    /// Time passes.
    Pass { ms: u64 },
    /// The wall clock of both is set.
    Set { wall_s: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|from_a| Step::Send { from_a }),
        8 => (any::<usize>(), prop::bool::weighted(0.2))
            .prop_map(|(pick, keep)| Step::Deliver { pick, keep }),
        1 => any::<usize>().prop_map(|pick| Step::Lose { pick }),
        3 => prop_oneof![0..50_u64, 0..6_000_u64, 0..200_000_u64].prop_map(|ms| Step::Pass { ms }),
        1 => (0..2_000_000_000_u64).prop_map(|wall_s| Step::Set { wall_s }),
    ]
}

/// What is under way, and what an observer of the link remembers.
struct Link {
    pair: Pair,
    under_way: Vec<(bool, Vec<u8>)>,
    sent: u64,
    received: BTreeSet<u64>,
    nonces: BTreeSet<(bool, u32, u64)>,
}

impl Link {
    fn new() -> Self {
        Self {
            pair: Pair::new(),
            under_way: Vec::new(),
            sent: 0,
            received: BTreeSet::new(),
            nonces: BTreeSet::new(),
        }
    }

    fn party(&mut self, a: bool) -> &mut Party {
        if a { &mut self.pair.a } else { &mut self.pair.b }
    }

    fn emit(&mut self, from_a: bool, message: Vec<u8>) {
        if let Ok(Message::Data { receiver, counter }) = classify(&message) {
            assert!(self.nonces.insert((from_a, receiver.0, counter)), "a nonce was used twice");
        }
        self.under_way.push((from_a, message));
    }

    /// A packet with a number of its own, if there is a session; else a handshake is wanted.
    fn send(&mut self, from_a: bool) {
        let now = self.pair.now;
        let mut packet = ipv4(32);
        packet[20..28].copy_from_slice(&self.sent.to_be_bytes());
        match self.party(from_a).seal(&packet, now) {
            Ok(message) => {
                self.sent += 1;
                self.emit(from_a, message);
            }
            Err(reason) => assert_eq!(reason, DropReason::KeypairExpired),
        }
        self.settle();
    }

    fn deliver(&mut self, from_a: bool, mut message: Vec<u8>) {
        let now = self.pair.now;
        let to = self.party(!from_a);
        match classify(&message).unwrap() {
            Message::Initiation => drop(to.initiation(&message, now)),
            Message::Response { .. } => drop(to.response(&message, now)),
            Message::Cookie { .. } => unreachable!("nobody is under load"),
            Message::Data { .. } => {
                let (outcome, _) = to.open_in_place(&mut message, now);
                if let Outcome::Packet { start, .. } = outcome {
                    let number: [u8; 8] = message[start + 20..start + 28].try_into().unwrap();
                    let number = u64::from_be_bytes(number);
                    assert!(number < self.sent, "it was sent");
                    assert!(self.received.insert(number), "it arrives once");
                }
            }
        }
        self.settle();
    }

    /// Due timers, and all that both want to send.
    fn settle(&mut self) {
        let now = self.pair.now;
        for a in [true, false] {
            self.party(a).timeout(now);
            while let Some((_, message)) = self.party(a).transmit(now) {
                self.emit(a, message);
            }
            let party = self.party(a);
            assert!(party.tunnel.poll_timeout().is_none_or(|(at, _)| at > now.mono));
            // Three keypairs, and an initiation.
            let live: BTreeSet<_> = party.table.live.iter().collect();
            assert!(live.len() <= 4 && live.len() == party.table.live.len());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { from_a } => self.send(from_a),
            Step::Deliver { pick, keep } if !self.under_way.is_empty() => {
                let pick = pick % self.under_way.len();
                let (from_a, message) = match keep {
                    true => self.under_way[pick].clone(),
                    false => self.under_way.swap_remove(pick),
                };
                self.deliver(from_a, message);
            }
            Step::Lose { pick } if !self.under_way.is_empty() => {
                self.under_way.swap_remove(pick % self.under_way.len());
            }
            Step::Deliver { .. } | Step::Lose { .. } => {}
            Step::Pass { ms } => {
                self.pair.pass(Duration::from_millis(ms));
                self.settle();
            }
            Step::Set { wall_s } => self.pair.now.wall = Duration::from_secs(wall_s),
        }
    }

    /// The link is good now, and both sides have something to say every second: a session that only
    /// one side still has is found out by its silence after 15 s.
    fn heal(&mut self) {
        self.under_way.clear();
        for _ in 0..30 {
            self.pair.pass_s(1);
            for from_a in [true, false] {
                self.send(from_a);
                while let Some((from_a, message)) = self.under_way.pop() {
                    self.deliver(from_a, message);
                }
            }
        }
        for from_a in [true, false] {
            let before = self.received.len();
            self.send(from_a);
            while let Some((from_a, message)) = self.under_way.pop() {
                self.deliver(from_a, message);
            }
            assert_eq!(self.received.len(), before + 1);
        }
        // One keypair as a rule. Where both asked at once and both were answered, each may go on
        // with the one it asked for, as the kernel's implementation does: the other has it too.
        for (one, other) in [(&self.pair.a, &self.pair.b), (&self.pair.b, &self.pair.a)] {
            let current = one.tunnel.keypairs.current().unwrap();
            let mut known = other.tunnel.keypairs.by_role().into_iter().flatten();
            assert!(known.any(|keypair| keypair.ours == current.theirs));
        }
    }
}

proptest! {
    #[test]
    fn packets_arrive_at_most_once_and_a_healed_link_carries_both_ways(
        steps in vec(step(), 1..120),
    ) {
        let mut link = Link::new();
        steps.into_iter().for_each(|step| link.step(step));
        link.heal();
    }
}
