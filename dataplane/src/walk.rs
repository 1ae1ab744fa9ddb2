//! Commands about all peers, or about many prefixes: a bounded piece of them per turn.
//!
//! A walk begins when its command is taken and goes on, turn by turn, until it has been everywhere;
//! then the command is answered. Commands behind it wait, so nothing is added or taken away under
//! it. What is true meanwhile:
//!
//! - *A new identity* holds at once. A peer that was not reached yet is mute: its sessions of the
//!   old identity carry nothing more, what is sent to it is staged, its timers do nothing. If it
//!   begins a handshake itself, it is rekeyed then and there.
//! - *Removal* of all: a peer goes on until it is reached. The prefixes of a removed peer lead
//!   nowhere from the start, however long it takes to forget them.
//! - *Another list of allowed IPs*: what the old and the new one both name is never without its
//!   owner.
//! - *New sockets* and *another policy* are used at once; handshakes that waited for sockets begin,
//!   and paths are measured anew, as their peers are reached.

use std::net::IpAddr;

use ringway_flow::Policy;
use ringway_proto::Now;
use ringway_proto::PeerId;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;
use ringway_proto::limits::{
    WALK_UNITS_HANDSHAKE, WALK_UNITS_KEY, WALK_UNITS_PREFIX, WALK_UNITS_REMOVAL, WALK_UNITS_VISIT,
};
use ringway_proto::wireguard::Identity;
use ringway_ring::{Driver, UdpSockets};

use crate::command::{AllowedIpChange, Command, PeerChange};
use crate::handshake::PeerIndices;
use crate::routes::Route;
use crate::shard::Shard;

/// Prefixes of a peer that are looked through for a single address, when the one that was known is
/// no longer its own.
const HOSTS_SEARCHED_MAX: usize = 16;

/// A command under way.
pub(crate) struct Walk {
    /// Under which it will be answered.
    pub(crate) sequence: u64,
    work: Work,
    /// A removed peer whose prefixes are being forgotten.
    erased: Option<PeerId>,
    /// The next slot to look at.
    cursor: u32,
}

/// What is done on the way, and what goes back with the answer.
pub(crate) enum Work {
    /// Every session of the old identity ends.
    Rekey { old: Option<Box<Identity>>, own: Option<PeerId> },
    /// Every peer goes.
    RemoveAll,
    /// One peer goes.
    Remove { public: PublicKey, id: PeerId },
    /// A peer gets prefixes, from this one of the change on.
    Put { change: Box<PeerChange>, id: PeerId, at: usize },
    /// What waited for sockets starts.
    Listen(Option<Box<UdpSockets>>),
    /// What was learnt of paths is forgotten.
    ResetPaths(Box<Policy>),
}

/// What walks may still do in a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units(u32);

impl Units {
    pub(crate) const fn new(units: u32) -> Self {
        Self(units)
    }

    pub(crate) const fn spend(&mut self, units: u32) {
        self.0 = self.0.saturating_sub(units);
    }

    pub(crate) const fn are_spent(self) -> bool {
        self.0 == 0
    }

    /// How many pieces of work of this size there is room for: one at least.
    const fn room_for(self, size: u32) -> usize {
        (self.0 / size) as usize + 1
    }
}

impl Walk {
    pub(crate) fn new(sequence: u64, work: Work) -> Self {
        let erased = match work {
            Work::Rekey { own, .. } => own,
            Work::Remove { id, .. } => Some(id),
            Work::RemoveAll | Work::Put { .. } | Work::Listen(_) | Work::ResetPaths(_) => None,
        };
        Self { sequence, work, erased, cursor: 0 }
    }

    /// The command, to be given back.
    pub(crate) fn spent(self) -> Command {
        match self.work {
            Work::Rekey { old, .. } => Command::SetIdentity(old),
            Work::RemoveAll => Command::RemoveAllPeers,
            Work::Remove { public, .. } => Command::RemovePeer(public),
            Work::Put { change, .. } => Command::PutPeer(change),
            Work::Listen(old) => Command::ReplaceSockets(old),
            Work::ResetPaths(old) => Command::SetPolicy(old),
        }
    }
}

/// An address of ours that the kernel no longer sends from.
pub(crate) struct LostSource {
    address: IpAddr,
    /// The next slot to look at.
    cursor: u32,
}

impl<D: Driver> Shard<D> {
    /// An address of ours is no longer ours: the kernel chooses another one for the peers that
    /// came to it, until they come to one again. They are told by and by; meanwhile the driver
    /// repeats what it could not send.
    pub fn forget_source(&mut self, address: IpAddr) {
        self.lost = Some(LostSource { address, cursor: 0 });
    }

    /// Goes on with that.
    pub(crate) fn forget_sources(&mut self, units: &mut Units) {
        let Some(mut lost) = self.lost.take() else { return };
        while !units.are_spent() {
            let Some((id, _)) = self.peers.next_from(lost.cursor) else { return };
            lost.cursor = id.slot + 1;
            units.spend(WALK_UNITS_VISIT);
            if let Some(endpoint) = self.peers.get_mut(id).and_then(|peer| peer.endpoint.as_mut())
                && endpoint.local.is_some_and(|local| local.address == lost.address)
            {
                endpoint.local = None;
            }
        }
        self.lost = Some(lost);
    }

    /// Goes on until the walk is done or the units are spent; `true` when it is done.
    pub(crate) fn step(&mut self, walk: &mut Walk, units: &mut Units, now: Now) -> bool {
        self.unpublished = true;
        while !units.are_spent() {
            let sent = self.counters.handshakes_sent;
            if self.step_once(walk, units, now) {
                return true;
            }
            let begun = self.counters.handshakes_sent - sent;
            units.spend(WALK_UNITS_VISIT + begun as u32 * WALK_UNITS_HANDSHAKE);
        }
        false
    }

    /// Looks at one peer or one portion of prefixes.
    fn step_once(&mut self, walk: &mut Walk, units: &mut Units, now: Now) -> bool {
        if let Some(id) = walk.erased {
            if self.forget_prefixes(id, units) {
                walk.erased = None;
            }
            return false;
        }
        if let Work::Put { change, id, at } = &mut walk.work {
            return self.step_put(change, *id, at, units, now);
        }
        if matches!(walk.work, Work::Remove { .. }) {
            return true;
        }
        let Some((id, _)) = self.peers.next_from(walk.cursor) else {
            // Every peer is of the identity now.
            self.rekeying &= !matches!(walk.work, Work::Rekey { .. });
            return true;
        };
        walk.cursor = id.slot + 1;
        match walk.work {
            Work::Rekey { .. } => {
                if self.is_mute(id) {
                    units.spend(WALK_UNITS_KEY);
                    self.rekey_peer(id, now);
                }
            }
            Work::RemoveAll => {
                units.spend(WALK_UNITS_REMOVAL);
                self.remove_peer(id, now);
                walk.erased = Some(id);
            }
            Work::Listen(_) => self.begin_handshakes(id, now),
            Work::ResetPaths(_) => {
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.path.reset(self.policy.inner_mtu);
                }
            }
            Work::Remove { .. } | Work::Put { .. } => {}
        }
        false
    }

    /// Whether the peer still has the keys of an identity that was replaced: then it must not
    /// speak, nor be heard.
    #[inline]
    pub(crate) fn is_mute(&self, id: PeerId) -> bool {
        self.rekeying
            && self.peers.get(id).is_some_and(|peer| peer.identity_number != self.identity_number)
    }

    /// The gateway's key changed: every session of the old one ends.
    pub(crate) fn rekey_peer(&mut self, id: PeerId, now: Now) {
        if let Some(peer) = self.peers.get_mut(id) {
            let mut indices =
                PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
            let identity = self.identity.as_deref().unwrap_or(&self.nobody);
            peer.identity_number = self.identity_number;
            peer.tunnel.identity_changed(identity, &mut indices);
            // The handshake that staged packets waited for was forgotten with the key.
            if !peer.staged.is_empty() && self.listening && self.identity.is_some() {
                peer.tunnel.want_handshake(now);
            }
        }
        self.settle(id, now);
    }

    /// Packets that came in while there were no sockets start their handshakes, and what tunnels
    /// wanted to say is said.
    fn begin_handshakes(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let waiting = !peer.staged.is_empty();
        if waiting {
            peer.tunnel.want_handshake(now);
        }
        if waiting || peer.tunnel.has_output() {
            self.settle(id, now);
        }
    }

    /// Forgets some of the prefixes of a peer that was removed; `true` when there are no more.
    fn forget_prefixes(&mut self, id: PeerId, units: &mut Units) -> bool {
        let count_max = units.room_for(WALK_UNITS_PREFIX);
        let dropped = self.allowed_ips.drop_older(Route::Peer(id), count_max);
        units.spend(dropped as u32 * WALK_UNITS_PREFIX);
        dropped < count_max
    }

    /// Gives or takes one prefix; after the last one, what the new list does not name any more is
    /// dropped. `true` when all is done.
    fn step_put(
        &mut self,
        change: &PeerChange,
        id: PeerId,
        at: &mut usize,
        units: &mut Units,
        now: Now,
    ) -> bool {
        if let Some(allowed) = change.allowed_ips.get(*at) {
            *at += 1;
            units.spend(WALK_UNITS_PREFIX);
            self.change_prefix(id, *allowed, units);
            return false;
        }
        if change.replace_allowed_ips && !self.forget_prefixes(id, units) {
            return false;
        }
        self.check_inner(id);
        self.settle(id, now);
        true
    }

    fn change_prefix(&mut self, id: PeerId, allowed: AllowedIpChange, units: &mut Units) {
        let AllowedIpChange { net, remove } = allowed;
        if remove {
            self.allowed_ips.remove(net, Route::Peer(id));
            return;
        }
        let loser = self.allowed_ips.insert(net, Route::Peer(id));
        if !net.is_host() {
            return;
        }
        let family = usize::from(net.address().is_ipv6());
        if let Some(peer) = self.peers.get_mut(id) {
            peer.inner[family].get_or_insert_with(|| net.address());
        }
        if let Some(Route::Peer(loser)) = loser
            && self.peers.get(loser).is_some_and(|peer| peer.inner[family] == Some(net.address()))
        {
            units.spend(HOSTS_SEARCHED_MAX as u32 * WALK_UNITS_VISIT);
            self.check_inner(loser);
        }
    }

    /// Where a peer is asked about its path must be its own address: another one is looked for
    /// among its newest, not among all of perhaps a hundred thousand.
    fn check_inner(&mut self, id: PeerId) {
        let route = Route::Peer(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        for (family, inner) in peer.inner.iter_mut().enumerate() {
            let owned = inner
                .is_some_and(|address| self.allowed_ips.owner(IpNet::host(address)) == Some(route));
            if !owned {
                let mut hosts = self.allowed_ips.newest_hosts(route, HOSTS_SEARCHED_MAX);
                *inner = hosts.find(|address| usize::from(address.is_ipv6()) == family);
            }
        }
    }
}
