//! One shard in the world: configured through its real command channel, fed through its driver.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_alloc::heap::{HeapPolicy, ShardHeap};
use ringway_dataplane::accounts::ACCOUNTS_MAX;
use ringway_dataplane::command::AllowedIpChange;
use ringway_dataplane::counters::Counters;
use ringway_dataplane::crossing::{Crossing, LINE_SLOTS, PARCELS, STRAY_BUFFERS};
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::shard::{ShardConfig, Turn};
use ringway_dataplane::{Command, Envelope, PeerChange, PeerPage, PeerStatus, Report, Shard};
use ringway_flow::Policy;
use ringway_link::usage::{UsageReader, UsageWriter};
use ringway_link::{mesh, spsc};
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PrivateKey, PublicKey, Random};
use ringway_proto::wireguard::Identity;
use ringway_proto::{CoreId, DropReason, Instant, Now};
use ringway_ring::{Driver, Ecn, Local, Wait};

use crate::client::Seeded;
use crate::driver::{Pools, Sent, WorldDriver};

/// Turns after which a shard that still wants another one at once is said to spin: a full queue of
/// handshakes takes a quarter of it.
const TURNS_MAX: usize = 4_096;

/// What a gateway is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its static key is drawn from this.
    pub key_seed: u64,
    /// All its other randomness is drawn from this.
    pub seed: u64,
    /// Its address and port.
    pub address: SocketAddr,
    /// How many buffers it has.
    pub pools: Pools,
    /// Parcels of each core, if it has several.
    pub parcels: usize,
    /// Stray buffers of each core, if it has several.
    pub strays: u32,
    /// Rules for inner packets.
    pub policy: Policy,
    /// Both clocks at its start.
    pub now: Now,
    /// Answers that wait for control at the most.
    pub reports: usize,
    /// Draw the same receiver index for ever, as if all others were in use.
    pub stuck_indices: bool,
}

impl Setup {
    /// The usual gateway of this seed.
    #[must_use]
    pub fn new(seed: u64, address: SocketAddr) -> Self {
        Self {
            key_seed: seed,
            seed,
            address,
            pools: Pools::default(),
            parcels: PARCELS,
            strays: STRAY_BUFFERS,
            policy: Policy::default(),
            now: Now {
                mono: Instant::from_nanos(1_000_000_000),
                wall: Duration::from_secs(1_700_000_000),
            },
            reports: 64,
            stuck_indices: false,
        }
    }
}

/// Where a shard stands among the cores of its gateway.
pub struct Place {
    /// Which core it is.
    pub core: CoreId,
    /// How indices carry their owner.
    pub layout: IndexLayout,
    /// Its way to and from the other cores.
    pub crossing: Crossing,
}

/// Always the same number.
struct Stuck;

impl Random for Stuck {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0x55);
    }
}

/// A gateway of one core.
pub struct Gateway {
    /// The shard itself.
    pub shard: Shard<WorldDriver>,
    /// The way to the shard; pushed by [`Gateway::apply`], or by hand.
    pub commands: spsc::Sender<Envelope>,
    /// The way back.
    pub reports: spsc::Receiver<Report>,
    sequence: u64,
    /// Both clocks of the world.
    pub now: Now,
    /// Its address and port.
    pub address: SocketAddr,
    /// What it wrote to its TUN since the test last looked.
    pub written: Vec<Vec<u8>>,
    /// When it wants to turn again without being asked.
    pub wake_at: Option<Instant>,
    /// What accounts used on it.
    pub used: UsageReader,
}

impl Gateway {
    /// A gateway whose key and secrets are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, address: SocketAddr, pools: Pools) -> Self {
        Self::with(Setup { pools, ..Setup::new(seed, address) })
    }

    /// A gateway, with its identity set.
    ///
    /// # Panics
    /// When there is no memory for its buffers.
    #[must_use]
    pub fn with(setup: Setup) -> Self {
        let secret = Seeded(setup.seed).draw() as u32;
        let crossing = Crossing::new(mesh::ports(1, LINE_SLOTS).remove(0), None);
        let layout = IndexLayout::new(1, secret);
        Self::placed(setup, Place { core: CoreId(0), layout, crossing })
    }

    /// One core of a gateway, with its identity set.
    ///
    /// # Panics
    /// When there is no memory for its buffers.
    #[must_use]
    pub fn placed(setup: Setup, place: Place) -> Self {
        let mut random = Seeded(setup.seed);
        random.draw();
        let (commands, command_receiver) = spsc::channel(64);
        let (report_sender, reports) = spsc::channel(setup.reports);
        let usage = UsageWriter::in_memory(ACCOUNTS_MAX).expect("room in the address space");
        let used = usage.reader();
        let config = ShardConfig {
            core: place.core,
            layout: place.layout,
            policy: Box::new(setup.policy),
            heap: ShardHeap::new(HeapPolicy::Auto),
            random: Box::new(Seeded(random.draw())),
            index_random: match setup.stuck_indices {
                true => Box::new(Stuck),
                false => Box::new(Seeded(random.draw())),
            },
            commands: command_receiver,
            reports: report_sender,
            crossing: place.crossing,
            usage,
        };
        let driver = WorldDriver::new(setup.pools).expect("memory for the pools");
        let mut gateway = Self {
            shard: Shard::new(config, driver, setup.now),
            commands,
            reports,
            sequence: 0,
            now: setup.now,
            address: setup.address,
            written: Vec::new(),
            wake_at: None,
            used,
        };
        gateway.apply(Command::SetIdentity(Some(Box::new(identity_of(setup.key_seed)))));
        gateway
    }

    /// The public key that a gateway of this seed has.
    #[must_use]
    pub fn public_of(key_seed: u64) -> PublicKey {
        identity_of(key_seed).public()
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

    /// Sends a command that has to take effect.
    ///
    /// # Panics
    /// If the shard refuses it.
    pub fn command(&mut self, command: Command) {
        let report = self.apply(command);
        assert!(matches!(report, Report::Done { outcome: Ok(()), .. }), "a refusal: {report:?}");
    }

    /// Adds a peer with its inner addresses.
    pub fn add_peer(&mut self, public: PublicKey, allowed: &[&str]) {
        self.put_peer(change_of(public, allowed));
    }

    /// Adds or changes a peer.
    pub fn put_peer(&mut self, change: PeerChange) {
        self.command(Command::PutPeer(Box::new(change)));
    }

    /// What the shard says of its peers.
    ///
    /// # Panics
    /// If the shard answers something else.
    pub fn peers(&mut self) -> Vec<PeerStatus> {
        let page = PeerPage { cursor: None, peers: Vec::with_capacity(64) };
        let report = self.apply(Command::ReadPeers(Box::new(page)));
        let Report::Done { spent: Command::ReadPeers(page), .. } = report else {
            panic!("an answer to another question: {report:?}");
        };
        page.peers
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

    /// Delivers datagrams that arrived together at `to`, with the congestion bits `ecn`. They are
    /// looked at in the next turn.
    pub fn deliver(&mut self, datagrams: &[Vec<u8>], from: SocketAddr, to: IpAddr, ecn: Ecn) {
        let local = Local { address: to, interface: 1 };
        self.shard.driver_mut().inject_outside(datagrams, from, Some(local), ecn);
    }

    /// Delivers a packet from the TUN, and turns until there is nothing to do at once. Returns
    /// what left.
    pub fn inside(&mut self, packet: &[u8]) -> Vec<Sent> {
        self.shard.driver_mut().inject_packet(packet);
        self.run()
    }

    /// Turns until the shard would wait; returns the datagrams that left.
    ///
    /// # Panics
    /// If it never would.
    pub fn run(&mut self) -> Vec<Sent> {
        for _ in 0..TURNS_MAX {
            let wait = self.turn().wait;
            if wait != Wait::No && !self.shard.driver_mut().has_received() {
                self.wake_at = match wait {
                    Wait::AtMost(sleep) => Some(self.now.mono + sleep),
                    Wait::No | Wait::Forever => None,
                };
                return std::mem::take(&mut self.shard.driver_mut().sent);
            }
        }
        panic!("the shard spins");
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

    /// What its core has counted.
    pub fn counters(&mut self) -> &Counters {
        self.shard.counters_mut()
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

/// A peer that may use these inner prefixes.
///
/// # Panics
/// If one is no prefix.
#[must_use]
pub fn change_of(public: PublicKey, allowed: &[&str]) -> PeerChange {
    let net = |net: &&str| net.parse::<IpNet>().expect("a prefix");
    let give = |net| AllowedIpChange { net, remove: false };
    let allowed_ips = allowed.iter().map(net).map(give).collect();
    PeerChange { allowed_ips, ..PeerChange::of(public) }
}

/// The static key that is drawn from a seed.
#[must_use]
pub fn identity_of(key_seed: u64) -> Identity {
    let mut key = [0; 32];
    Seeded(key_seed).fill(&mut key);
    Identity::new(PrivateKey::from_bytes(key))
}
