//! Runs a scenario: virtual time jumps from one thing to the next, and after each the model says
//! whether it may have happened.
//!
//! Nothing here decides what happens (`scenario`) or what is right (`model`, `ledger`); the same
//! scenario gives the same run, to the last datagram.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::{Command, PeerChange};
use ringway_flow::Policy;
use ringway_proto::Instant;
use ringway_proto::crypto::{PublicKey, hash};
use ringway_ring::Ecn;

use crate::client::Seeded;
use crate::cluster::Cluster;
use crate::driver::{Pools, Sent};
use crate::gateway::{Setup, identity_of};
use crate::guest::{Clock, Guest, gateway_address, inner};
use crate::ledger::Ledger;
use crate::model::{Model, Way, merged};
use crate::network::{Attacker, Datagram, initiation};
use crate::scenario::{Event, Host, Scenario, calm_link, dead_link};

#[path = "traffic.rs"]
mod traffic;
#[path = "verdict.rs"]
mod verdict;

/// From the end of all trouble until everything has to work: 15 s until a side notices that nobody
/// answers, 5 s if a handshake message is too fresh for another, jitter on both, two round trips,
/// and the second between two packets.
const RECOVERY: Duration = Duration::from_millis(15_334 + 5_334 + 200 + 1_000);

/// How long it is watched working.
const WATCHED: Duration = Duration::from_secs(8);

/// Datagrams in one merged buffer.
const MERGED_MAX: usize = 64;

/// Buffers handed over before the shard is run: fewer than it has.
const HANDED_MAX: usize = 32;

/// Steps without time going on, after which the world is said to stand still.
const STEPS_MAX: usize = 2_000;

/// What a run was like, to be compared with another of the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A hash over every datagram that was sent, with its time.
    pub trace: u64,
    /// Inner packets that were sent.
    pub sent: usize,
    /// Inner packets that arrived.
    pub delivered: usize,
    /// Datagrams that the network lost.
    pub lost: u64,
    /// Datagrams, packets and handshake messages that went from one core to another.
    pub crossed: u64,
    /// How long after the end of all trouble the last packet was lost.
    pub recovery: Duration,
}

/// A running scenario.
pub struct World {
    scenario: Scenario,
    random: Seeded,
    time: Instant,
    gateway: Cluster,
    clock: Clock,
    key_seed: u64,
    inner_mtu: u16,
    guests: Vec<Guest>,
    attacker: Attacker,
    /// Digests of the transport messages that this gateway has seen.
    arrived: BTreeSet<u64>,
    model: Model,
    ledger: Ledger,
    events: Vec<(Instant, Event)>,
    next_burst: Instant,
    next_attack: Option<Instant>,
    calm: bool,
    trace: u64,
}

impl World {
    /// The world of a scenario, before anything has happened.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let seed = scenario.seed;
        let time = Instant::from_nanos(10_000_000_000);
        let public = identity_of(seed).public();
        let guests: Vec<_> = (0..)
            .zip(&scenario.guests)
            .map(|(number, plan)| Guest::new(plan.clone(), number, seed, public))
            .collect();
        let model = Model::new(guests.len(), scenario.keeps_order());
        let events = scenario.events.iter().map(|(at, event)| (time + *at, *event)).collect();
        let now = Clock::default().now(time);
        let policy = policy(Policy::INNER_MTU, scenario.offloads);
        let setup = Setup { now, policy, ..setup(seed, seed, scenario.scarce) };
        let mut world = Self {
            random: Seeded(seed ^ 0x7a3d),
            time,
            gateway: Cluster::new(&setup, scenario.cores, scenario.steering),
            clock: Clock::default(),
            key_seed: seed,
            inner_mtu: Policy::INNER_MTU,
            guests,
            attacker: Attacker::new(seed ^ 0xbad),
            arrived: BTreeSet::new(),
            model,
            ledger: Ledger { started: time, ..Ledger::default() },
            events,
            next_burst: time,
            next_attack: scenario.attack_gap.map(|gap| time + gap),
            calm: false,
            trace: 0,
            scenario,
        };
        for number in 0..world.guests.len() {
            world.add(number);
            let guest = &mut world.guests[number];
            guest.client.keep_alive(guest.plan.keepalive_s, guest.clock.now(time));
        }
        world
    }

    /// Runs the storm and the calm, and checks all there is to check.
    ///
    /// # Panics
    /// If anything happened that may not, or did not happen that has to.
    pub fn run(mut self) -> Outcome {
        let storm_ends = self.time + self.scenario.storm;
        self.run_until(storm_ends);
        self.begin_calm();
        let works_from = storm_ends + RECOVERY;
        self.run_until(works_from + WATCHED);
        self.next_burst = Instant::from_nanos(u64::MAX);
        self.run_until(works_from + WATCHED + Duration::from_secs(1));
        self.check_delivery(works_from);
        self.check_gauges();
        self.ledger.audit(&mut self.gateway, self.time);
        self.fall_asleep();
        self.clear_out();
        let (sent, delivered) = self.model.count(|_| true);
        let lost = self.guests.iter().map(|guest| guest.cable.lost()).sum();
        let recovery = self.recovery(storm_ends);
        let crossed = self.gateway.sum(|counters| {
            counters.crossed_in_datagrams
                + counters.crossed_in_packets
                + counters.crossed_in_handshakes
        });
        Outcome { trace: self.trace, sent, delivered, lost, crossed, recovery }
    }

    /// Goes from one thing to the next.
    fn run_until(&mut self, end: Instant) {
        let mut steps = 0;
        while let Some(next) = self.next_time().filter(|next| *next <= end) {
            steps = if next > self.time { 0 } else { steps + 1 };
            assert!(steps < STEPS_MAX, "the world stands still at {:?}", self.time);
            self.time = self.time.max(next);
            self.step();
        }
        self.time = end;
    }

    fn next_time(&self) -> Option<Instant> {
        let guests = self.guests.iter().flat_map(|guest| {
            let deadline = guest.client.deadline().map(|at| guest.clock.world(at));
            guest.cable.next_due().into_iter().chain(deadline)
        });
        let event = self.events.first().map(|(at, _)| *at);
        let gateway = self.gateway.wake_at.map(|at| self.clock.world(at));
        [Some(self.next_burst), self.next_attack, event, gateway]
            .into_iter()
            .flatten()
            .chain(guests)
            .min()
    }

    fn step(&mut self) {
        while self.events.first().is_some_and(|(at, _)| *at <= self.time) {
            let (_, event) = self.events.remove(0);
            self.happen(event);
        }
        if self.next_burst <= self.time {
            self.burst();
        }
        if self.next_attack.is_some_and(|at| at <= self.time) {
            self.attack();
        }
        self.arrive_at_gateway();
        for number in 0..self.guests.len() {
            self.arrive_at_guest(number);
            let now = self.guests[number].clock.now(self.time);
            let out = self.guests[number].client.wake(now);
            self.send_up(number, out);
        }
        if self.gateway.wake_at.is_some_and(|at| self.clock.world(at) <= self.time) {
            self.run_gateway();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Roam(number) => self.guests[number].roam(),
            Event::WallJump(host, seconds) => self.clock_of(host).step(seconds),
            Event::Suspend(host, span) => self.clock_of(host).ahead += span,
            Event::Remove(number, back_after) => {
                self.remove(number);
                self.at(back_after, Event::Add(number));
            }
            Event::Add(number) => self.add(number),
            Event::Preshared(number, value) => {
                let guest = &mut self.guests[number];
                guest.preshared[..8].copy_from_slice(&value.to_le_bytes());
                let mut known = guest.preshared;
                known[31] ^= u8::from(guest.plan.wrong_preshared && !self.calm);
                guest.client.set_preshared(known);
                if guest.configured {
                    self.add(number);
                }
            }
            Event::Identity(key_seed) => self.change_identity(key_seed),
            Event::GatewayRestart => self.restart_gateway(),
            Event::GuestRestart(number) => {
                let public = self.public();
                self.guests[number].client.restart(public);
            }
            Event::Outage(number, span) => {
                self.guests[number].cable.set(dead_link(), dead_link());
                self.at(span, Event::Restored(number));
            }
            Event::Restored(number) => {
                let guest = &mut self.guests[number];
                guest.cable.set(guest.plan.up, guest.plan.down);
            }
            Event::Flood(count) => self.flood(count),
            Event::InnerMtu(inner_mtu) => {
                self.inner_mtu = inner_mtu;
                let merge = self.scenario.offloads;
                self.command(|gateway| {
                    gateway.everywhere(|_| Command::SetPolicy(Box::new(policy(inner_mtu, merge))));
                });
            }
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        let at = self.time + after;
        let place = self.events.partition_point(|(other, _)| *other <= at);
        self.events.insert(place, (at, event));
    }

    fn clock_of(&mut self, host: Host) -> &mut Clock {
        match host {
            Host::Gateway => &mut self.clock,
            Host::Guest(number) => &mut self.guests[number].clock,
        }
    }

    fn public(&self) -> PublicKey {
        identity_of(self.key_seed).public()
    }

    fn add(&mut self, number: usize) {
        if self.guests[number].plan.stranger {
            return;
        }
        self.guests[number].configured = true;
        let change = self.guests[number].as_peer();
        self.command(|gateway| gateway.put_peer(change));
    }

    fn remove(&mut self, number: usize) {
        let guest = &mut self.guests[number];
        if std::mem::replace(&mut guest.configured, false) {
            let public = guest.client.public();
            self.command(|gateway| gateway.remove_peer(&public));
        }
    }

    fn change_identity(&mut self, key_seed: u64) {
        self.key_seed = key_seed;
        self.command(|gateway| gateway.set_identity(key_seed));
        let public = self.public();
        for guest in &mut self.guests {
            guest.client.restart(public);
        }
    }

    pub(super) fn restart_gateway(&mut self) {
        self.ledger.audit(&mut self.gateway, self.time);
        assert!(self.gateway.at_rest());
        // With a clock that was set back it would show stamps that its peers have seen, and could
        // begin no handshake: only stamps that are kept help against that.
        self.clock.stepped_s = self.clock.stepped_max_s;
        let now = self.clock.now(self.time);
        let scarce = self.scenario.scarce && !self.calm;
        let setup = Setup { now, ..setup(self.key_seed, self.random.draw(), scarce) };
        let setup = Setup { policy: policy(self.inner_mtu, self.scenario.offloads), ..setup };
        self.gateway = Cluster::new(&setup, self.scenario.cores, self.scenario.steering);
        self.ledger = Ledger { started: self.time, ..Ledger::default() };
        self.arrived.clear();
        for number in 0..self.guests.len() {
            if self.guests[number].configured {
                self.add(number);
            }
        }
    }

    pub(super) fn command(&mut self, command: impl FnOnce(&mut Cluster)) {
        self.gateway.now = self.clock.now(self.time);
        self.ledger.occasions += 10;
        command(&mut self.gateway);
        self.run_gateway();
    }
}

/// A gateway with so many transmit buffers that a full staging queue, of which every packet may
/// need a train of its own, does not exhaust them, or one with too few of everything.
fn setup(key_seed: u64, seed: u64, scarce: bool) -> Setup {
    let usual = Setup { key_seed, ..Setup::new(seed, gateway_address(false)) };
    if scarce {
        let pools = Pools { receive: 3, transmit: 2, tun: 2 };
        return Setup { pools, parcels: 2, strays: 1, ..usual };
    }
    Setup { pools: Pools { transmit: 256, ..Pools::default() }, ..usual }
}

fn policy(inner_mtu: u16, merge: bool) -> Policy {
    Policy { inner_mtu, merge, ..Policy::default() }
}
