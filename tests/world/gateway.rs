//! One shard in the world: configured through its real command channel, fed through its driver.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_alloc::heap::{HeapPolicy, ShardHeap};
use ringway_dataplane::command::AllowedIpChange;
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::shard::{ShardConfig, Turn};
use ringway_dataplane::{Command, Envelope, PeerChange, PeerPage, PeerStatus, Report, Shard};
use ringway_flow::Policy;
use ringway_link::spsc;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PrivateKey, PublicKey};
use ringway_proto::wireguard::Identity;
use ringway_proto::{CoreId, DropReason, Instant, Now};
use ringway_ring::{Driver, Ecn, Local, Wait};

use crate::client::Seeded;
use crate::driver::{Pools, Sent, WorldDriver};

/// A gateway of one core.
pub struct Gateway {
    /// The shard itself.
    pub shard: Shard<WorldDriver>,
    commands: spsc::Sender<Envelope>,
    reports: spsc::Receiver<Report>,
    sequence: u64,
    /// Both clocks of the world.
    pub now: Now,
    /// Its address and port.
    pub address: SocketAddr,
    /// What it wrote to its TUN since the test last looked.
    pub written: Vec<Vec<u8>>,
}

impl Gateway {
    /// A gateway whose key and secrets are drawn from `seed`.
    ///
    /// # Panics
    /// When there is no memory for its buffers.
    #[must_use]
    pub fn new(seed: u64, address: SocketAddr, pools: Pools) -> Self {
        let mut random = Seeded(seed);
        let now = Now {
            mono: Instant::from_nanos(1_000_000_000),
            wall: Duration::from_secs(1_700_000_000),
        };
        let (commands, command_receiver) = spsc::channel(64);
        let (report_sender, reports) = spsc::channel(64);
        let config = ShardConfig {
            core: CoreId(0),
            layout: IndexLayout::new(1, random.draw() as u32),
            policy: Box::new(Policy::default()),
            heap: ShardHeap::new(HeapPolicy::Auto),
            random: Box::new(Seeded(random.draw())),
            index_random: Box::new(Seeded(random.draw())),
            commands: command_receiver,
            reports: report_sender,
        };
        let driver = WorldDriver::new(pools).expect("memory for the pools");
        let mut gateway = Self {
            shard: Shard::new(config, driver, now),
            commands,
            reports,
            sequence: 0,
            now,
            address,
            written: Vec::new(),
        };
        let mut key = [0; 32];
        ringway_proto::crypto::Random::fill(&mut random, &mut key);
        gateway.apply(Command::SetIdentity(Some(Box::new(Identity::new(PrivateKey::from_bytes(
            key,
        ))))));
        gateway
    }

    /// The public key that a gateway of this seed has.
    #[must_use]
    pub fn public_of(seed: u64) -> PublicKey {
        let mut random = Seeded(seed);
        for _ in 0..3 {
            random.draw();
        }
        let mut key = [0; 32];
        ringway_proto::crypto::Random::fill(&mut random, &mut key);
        Identity::new(PrivateKey::from_bytes(key)).public()
    }

    /// Sends a command through the channel, turns until it is answered, and returns the answer.
    ///
    /// # Panics
    /// If it is not answered.
    pub fn apply(&mut self, command: Command) -> Report {
        self.sequence += 1;
        let envelope = Envelope { sequence: self.sequence, command };
        assert!(self.commands.push(envelope).is_ok(), "the command channel has room");
        for _ in 0..10 {
            self.turn();
            if let Some(report) = self.reports.pop() {
                return report;
            }
        }
        panic!("the command was not answered");
    }

    /// Adds a peer with its inner addresses.
    pub fn add_peer(&mut self, public: PublicKey, allowed: &[&str]) {
        let mut change = PeerChange::of(public);
        change.allowed_ips = allowed
            .iter()
            .map(|net| AllowedIpChange {
                net: net.parse::<IpNet>().expect("a prefix"),
                remove: false,
            })
            .collect();
        self.apply(Command::PutPeer(Box::new(change)));
    }

    /// What the shard says of its peers.
    ///
    /// # Panics
    /// If the shard answers something else.
    pub fn peers(&mut self) -> Vec<PeerStatus> {
        let page = PeerPage { cursor: None, peers: Vec::with_capacity(64) };
        match self.apply(Command::ReadPeers(Box::new(page))) {
            Report::Done { spent: Command::ReadPeers(page), .. } => page.peers,
            other => panic!("an answer to another question: {other:?}"),
        }
    }

    /// One turn, as the worker does it: the shard, then the driver. Returns what the shard wants.
    ///
    /// # Panics
    /// Never: the world's driver cannot break.
    pub fn turn(&mut self) -> Turn {
        let turn = self.shard.turn(self.now);
        let driver = self.shard.driver_mut();
        driver.turn(Wait::No).expect("the world does not break");
        self.written.append(&mut driver.written);
        turn
    }

    /// Delivers datagrams that arrived together, and turns until there is nothing to do at once.
    /// Returns what left.
    pub fn receive(&mut self, datagrams: &[Vec<u8>], from: SocketAddr) -> Vec<Sent> {
        let local = Local { address: self.address.ip(), interface: 1 };
        self.shard.driver_mut().inject_outside(datagrams, from, Some(local), Ecn::default());
        self.run()
    }

    /// Delivers a packet from the TUN, and turns until there is nothing to do at once. Returns
    /// what left.
    pub fn inside(&mut self, packet: &[u8]) -> Vec<Sent> {
        self.shard.driver_mut().inject_packet(packet);
        self.run()
    }

    /// Turns until the shard would wait; returns the datagrams that left.
    pub fn run(&mut self) -> Vec<Sent> {
        while self.turn().wait == Wait::No {}
        std::mem::take(&mut self.shard.driver_mut().sent)
    }

    /// Moves both clocks and turns; returns the datagrams that left.
    pub fn advance(&mut self, by: Duration) -> Vec<Sent> {
        self.now.mono = self.now.mono + by;
        self.now.wall += by;
        self.run()
    }

    /// How often a packet was dropped for this reason.
    pub fn drops(&mut self, reason: DropReason) -> u64 {
        self.shard.counters_mut().drops[reason as usize]
    }

    /// How often packets were dropped, for any reason.
    pub fn all_drops(&mut self) -> u64 {
        self.shard.counters_mut().drops.iter().sum()
    }

    /// The address part of where the gateway is.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.address.ip()
    }
}
