//! A gateway of several cores in the world: shards joined by their mesh, turned one after the other
//! in an order drawn from the seed, fed as well or as badly as a kernel might steer.
//!
//! It takes commands as control does: the owner gets the peer, the others the routes. Whatever the
//! steering, the model must see no difference; what crossed has to add up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ringway_alloc::Arena;
use ringway_dataplane::command::{ROUTES_PER_COMMAND_MAX, RouteChange};
use ringway_dataplane::counters::Counters;
use ringway_dataplane::crossing::{Crossing, LINE_SLOTS};
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::owner::owner_of;
use ringway_dataplane::{Command, PeerChange, PeerStatus};
use ringway_link::mesh;
use ringway_proto::allowed_ips::{AllowedIps, IpNet};
use ringway_proto::crypto::PublicKey;
use ringway_proto::ip::Packet;
use ringway_proto::{CoreId, DropReason, Instant, Now, ReceiverIndex};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{BUFFER_BYTES, Ecn, Wait};

use crate::client::Seeded;
use crate::driver::Sent;
use crate::gateway::{Gateway, Place, Setup, identity_of};

/// Rounds after which shards that still want to turn are said to spin.
const ROUNDS_MAX: usize = 8_192;

/// Which core gets what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The owner, as the programs in the kernel see to it; others by a hash.
    Right,
    /// The same core for the same addresses, as a kernel without our programs does it.
    Hash,
    /// Any core, anew each time.
    Random,
}

/// A gateway of several cores.
pub struct Cluster {
    /// The cores, in their order.
    pub shards: Vec<Gateway>,
    steering: Steering,
    layout: IndexLayout,
    random: Seeded,
    /// Prefixes of all peers, as control knows them.
    nets: AllowedIps<CoreId>,
    owned: BTreeMap<[u8; 32], BTreeSet<(IpAddr, u8)>>,
    /// Both clocks of the world.
    pub now: Now,
    /// What was written to the TUN since the test last looked.
    pub written: Vec<Vec<u8>>,
    /// When the first of the cores wants to turn without being asked.
    pub wake_at: Option<Instant>,
}

impl Cluster {
    /// A gateway of `cores` cores, with its identity set.
    ///
    /// # Panics
    /// When there is no memory for its buffers.
    #[must_use]
    pub fn new(setup: &Setup, cores: u16, steering: Steering) -> Self {
        let mut random = Seeded(setup.seed ^ 0xc105_7e12);
        let secret = random.draw() as u32;
        let layout = IndexLayout::new(cores, secret);
        let strays = || {
            let arena = Arena::with_capacity(setup.strays, BUFFER_BYTES);
            (cores > 1).then(|| arena.expect("memory for stray buffers"))
        };
        let shards = mesh::ports(cores, LINE_SLOTS)
            .into_iter()
            .map(|port| {
                let core = CoreId(port.core());
                // One core alone draws what a gateway of one core has always drawn.
                let seed = setup.seed ^ (u64::from(core.0) << 32);
                let crossing = Crossing::with_parcels(port, strays(), setup.parcels);
                Gateway::placed(Setup { seed, ..setup.clone() }, Place { core, layout, crossing })
            })
            .collect();
        Self {
            shards,
            steering,
            layout,
            random,
            nets: AllowedIps::new(),
            owned: BTreeMap::new(),
            now: setup.now,
            written: Vec::new(),
            wake_at: None,
        }
    }

    /// How many cores there are.
    #[must_use]
    pub const fn cores(&self) -> u16 {
        self.shards.len() as u16
    }

    /// Whether datagrams of one client come to several cores, each to where it belongs.
    #[must_use]
    pub fn is_steered(&self) -> bool {
        self.steering == Steering::Right && self.cores() > 1
    }

    /// The core that owns a peer.
    #[must_use]
    pub fn owner(&self, public: &PublicKey) -> CoreId {
        owner_of(public, self.cores())
    }

    /// Does what control does with a change of a peer.
    pub fn put_peer(&mut self, change: PeerChange) {
        let owner = self.owner(&change.public);
        let had = self.owned.entry(change.public.0).or_default();
        let mut routes = Vec::new();
        if change.replace_allowed_ips {
            let lost = std::mem::take(had).into_iter();
            routes.extend(lost.map(|(address, prefix)| (net(address, prefix), None)));
        }
        for allowed in &change.allowed_ips {
            let key = (allowed.net.address(), allowed.net.prefix());
            if allowed.remove {
                had.remove(&key);
                routes.push((allowed.net, None));
            } else {
                had.insert(key);
                routes.push((allowed.net, Some(owner)));
            }
        }
        self.at(owner).command(Command::PutPeer(Box::new(change)));
        self.tell(owner, &routes);
    }

    /// Does what control does with a removal.
    pub fn remove_peer(&mut self, public: &PublicKey) {
        let owner = self.owner(public);
        let lost = self.owned.remove(&public.0).unwrap_or_default().into_iter();
        let routes: Vec<_> = lost.map(|(address, prefix)| (net(address, prefix), None)).collect();
        self.at(owner).command(Command::RemovePeer(*public));
        self.tell(owner, &routes);
    }

    /// Removes all peers.
    pub fn remove_all_peers(&mut self) {
        for public in self.owned.keys().copied().collect::<Vec<_>>() {
            self.remove_peer(&PublicKey(public));
        }
        self.everywhere(|_| Command::RemoveAllPeers);
    }

    /// Gives all cores the static key that is drawn from `key_seed`.
    pub fn set_identity(&mut self, key_seed: u64) {
        self.everywhere(|_| Command::SetIdentity(Some(Box::new(identity_of(key_seed)))));
    }

    /// Sends every core a command that has to take effect.
    pub fn everywhere(&mut self, command: impl Fn(CoreId) -> Command) {
        for core in 0..self.cores() {
            self.at(CoreId(core)).command(command(CoreId(core)));
        }
    }

    /// What the cores say of their peers.
    pub fn peers(&mut self) -> Vec<PeerStatus> {
        self.shards.iter_mut().flat_map(Gateway::peers).collect()
    }

    /// Delivers datagrams that arrived together at `to`. They are looked at in the next turn.
    /// Returns how many found no buffer.
    pub fn deliver(
        &mut self,
        datagrams: &[Vec<u8>],
        from: SocketAddr,
        to: IpAddr,
        ecn: Ecn,
    ) -> u64 {
        let core = self.socket_of(&datagrams[0], from);
        let shard = self.at(core);
        let before = shard.shard.driver_mut().refused;
        shard.deliver(datagrams, from, to, ecn);
        shard.shard.driver_mut().refused - before
    }

    /// Delivers a packet or super-packet from the TUN, virtio header included. They are looked at
    /// in the next turn. Returns whether there was a buffer.
    pub fn inject_inside(&mut self, packet: &[u8]) -> bool {
        let core = self.queue_of(&packet[VNET_HEADER_BYTES..]);
        let driver = self.at(core).shard.driver_mut();
        let before = driver.refused;
        driver.inject_inside(packet);
        driver.refused == before
    }

    /// Delivers a plain packet from the TUN. Returns whether there was a buffer.
    pub fn inject_packet(&mut self, packet: &[u8]) -> bool {
        let mut bytes = vec![0; VNET_HEADER_BYTES];
        bytes.extend_from_slice(packet);
        self.inject_inside(&bytes)
    }

    /// Turns all cores until each would wait; returns the datagrams that left.
    ///
    /// # Panics
    /// If they never would, or if something is lost between them.
    pub fn run(&mut self) -> Vec<Sent> {
        let mut awake = vec![true; self.shards.len()];
        let mut waits = vec![Wait::No; self.shards.len()];
        for _ in 0..ROUNDS_MAX {
            let first = self.random.below(self.shards.len() as u64) as usize;
            for step in 0..self.shards.len() {
                let core = (first + step) % self.shards.len();
                if awake[core] {
                    waits[core] = self.at(CoreId(core as u16)).turn().wait;
                }
            }
            for (core, shard) in self.shards.iter_mut().enumerate() {
                let received = shard.shard.driver_mut().has_received();
                awake[core] = waits[core] == Wait::No || received || shard.shard.has_arrivals();
            }
            if !awake.contains(&true) {
                return self.settle(&waits);
            }
        }
        panic!("the shards spin");
    }

    /// The sum of something that every core counts.
    pub fn sum(&mut self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.shards.iter_mut().map(|shard| of(shard.shard.counters_mut())).sum()
    }

    /// How often a packet was dropped for this reason.
    pub fn drops(&mut self, reason: DropReason) -> u64 {
        self.sum(|counters| counters.drops[reason as usize])
    }

    /// Whether every buffer of every core is back in its pool.
    pub fn at_rest(&mut self) -> bool {
        self.shards.iter_mut().all(|shard| shard.shard.driver_mut().at_rest())
    }

    /// Receiver indices in use.
    #[must_use]
    pub fn indices_used(&self) -> usize {
        self.shards.iter().map(|shard| shard.shard.indices().used()).sum()
    }

    /// Bytes of variable memory that sessions hold.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.shard.heap_bytes()).sum()
    }

    /// The shard of a core, with the clocks of the world.
    pub fn at(&mut self, core: CoreId) -> &mut Gateway {
        let shard = &mut self.shards[usize::from(core.0)];
        shard.now = self.now;
        shard
    }

    fn settle(&mut self, waits: &[Wait]) -> Vec<Sent> {
        let sleep = |wait: &Wait| match wait {
            Wait::AtMost(sleep) => Some(self.now.mono + *sleep),
            Wait::No | Wait::Forever => None,
        };
        self.wake_at = waits.iter().filter_map(sleep).min();
        let mut sent = Vec::new();
        for shard in &mut self.shards {
            self.written.append(&mut shard.written);
            sent.append(&mut shard.shard.driver_mut().sent);
        }
        self.check_crossings();
        sent
    }

    /// What left one core came in at another, and nothing crossed twice.
    fn check_crossings(&mut self) {
        type Pair = (fn(&Counters) -> u64, fn(&Counters) -> u64);
        let pairs: [Pair; 4] = [
            (|c| c.crossed_out_datagrams, |c| c.crossed_in_datagrams),
            (|c| c.crossed_out_packets, |c| c.crossed_in_packets),
            (|c| c.crossed_out_handshakes, |c| c.crossed_in_handshakes),
            (|c| c.crossed_out_credits, |c| c.crossed_in_credits),
        ];
        for (out, into) in pairs {
            assert_eq!(self.sum(out), self.sum(into), "something was lost between cores");
        }
        assert_eq!(self.drops(DropReason::CrossedTwice), 0, "something crossed twice");
    }

    fn tell(&mut self, owner: CoreId, routes: &[(IpNet, Option<CoreId>)]) {
        for (net, core) in routes {
            match core {
                Some(core) => {
                    self.nets.insert(*net, *core);
                }
                None => {
                    self.nets.remove(*net, owner);
                }
            }
        }
        for core in (0..self.cores()).filter(|core| *core != owner.0) {
            for some in routes.chunks(ROUTES_PER_COMMAND_MAX) {
                let change = |(net, core): &(IpNet, _)| RouteChange { net: *net, core: *core };
                let changes = some.iter().map(change).collect();
                self.at(CoreId(core)).command(Command::PutRoutes(Box::new(changes)));
            }
        }
    }

    /// Whose socket gets a datagram.
    fn socket_of(&mut self, datagram: &[u8], from: SocketAddr) -> CoreId {
        let index_at = match datagram.first() {
            Some(2) if datagram.len() == 92 => Some(8),
            Some(3) if datagram.len() == 64 => Some(4),
            Some(4) if datagram.len() >= 32 => Some(4),
            _ => None,
        };
        let index = index_at
            .and_then(|at| datagram[at..].first_chunk())
            .map(|index| ReceiverIndex(u32::from_le_bytes(*index)));
        match (self.steering, index) {
            (Steering::Right, Some(index)) if self.layout.owner(index).0 < self.cores() => {
                self.layout.owner(index)
            }
            (Steering::Right | Steering::Hash, _) => self.hashed(from.ip(), from.port()),
            (Steering::Random, _) => self.any(),
        }
    }

    /// Whose queue of the TUN gets a packet.
    fn queue_of(&mut self, packet: &[u8]) -> CoreId {
        let Ok(view) = Packet::parse(packet) else { return self.any() };
        let owner = self.nets.lookup(view.destination());
        match (self.steering, owner) {
            (Steering::Right, Some(owner)) => owner,
            (Steering::Right | Steering::Hash, _) => self.hashed(view.destination(), 0),
            (Steering::Random, _) => self.any(),
        }
    }

    fn any(&mut self) -> CoreId {
        let cores = u64::from(self.cores());
        CoreId(self.random.below(cores) as u16)
    }

    fn hashed(&self, address: IpAddr, port: u16) -> CoreId {
        let mut key = [0; 32];
        match address {
            IpAddr::V4(address) => key[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => key[..16].copy_from_slice(&address.octets()),
        }
        key[16..18].copy_from_slice(&port.to_be_bytes());
        owner_of(&PublicKey(key), self.cores())
    }
}

fn net(address: IpAddr, prefix: u8) -> IpNet {
    format!("{address}/{prefix}").parse().expect("a prefix")
}
