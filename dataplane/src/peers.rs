//! The peers of one core: one slab, and the maps that lead into it.
//!
//! Maps hold a [`PeerId`], never a second copy of a peer; a removed peer's id finds nobody.
//! Configuration names peers by public key, packets by receiver index or inner address.

// HashMap: the key map serves handshakes and commands, not packets.
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ringway_alloc::heap::SessionHeap;
use ringway_alloc::slab::{Key, Slab};
use ringway_flow::PathMtu;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::Tunnel;
use ringway_proto::{AccountId, PeerId, Stamp};
use ringway_ring::Local;

use crate::fairness::Portion;
use crate::presence::Presence;
use crate::staging::Staged;

/// Where a peer is reached, and which of our addresses it expects answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address and port.
    pub remote: SocketAddr,
    /// Ours, as its last authenticated packet saw it; unknown until one came.
    pub local: Option<Local>,
}

/// Everything a core keeps of one peer. Most peers are configured and not there, so what only a
/// session or a handshake needs is not in here but in blocks of its own, counted by
/// [`Peer::count_blocks`].
pub struct Peer {
    /// Its WireGuard state, and its static key.
    pub tunnel: Tunnel,
    /// Where it is.
    pub endpoint: Option<Endpoint>,
    /// What its path carries.
    pub path: PathMtu,
    /// Its first own IPv4 and IPv6 address inside, if allowed IPs name single hosts: where probes
    /// of the path go.
    pub inner: [Option<IpAddr>; 2],
    /// Packets that wait for a handshake.
    pub staged: Staged,
    /// Its variable memory.
    pub heap: SessionHeap,
    /// Whether it counted as a live session when last looked at.
    pub live: bool,
    /// Which of the gateway's identities its tunnel was made for.
    pub identity_number: u32,
    /// What it counts as, among sources and sessions.
    pub presence: Presence,
    /// What limits and meters it.
    pub account: Account,
    /// When `live` last changed.
    pub live_since: Stamp,
    /// What it has left of its share when the core is overloaded.
    pub(crate) portion: Portion,
}

impl Peer {
    /// Enters what the tunnel holds by now into the session's ledger: after everything that makes
    /// or erases keys, never after a packet.
    pub(crate) fn count_blocks(&mut self) {
        self.heap.hold(self.tunnel.blocks());
    }
}

/// The account that limits and meters a peer, or none, in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account(u32);

impl Account {
    /// None.
    pub const NONE: Self = Self(u32::MAX);

    /// The account, if there is one.
    #[inline]
    #[must_use]
    pub const fn id(self) -> Option<AccountId> {
        if self.0 == u32::MAX { None } else { Some(AccountId(self.0)) }
    }
}

impl From<Option<AccountId>> for Account {
    fn from(id: Option<AccountId>) -> Self {
        id.map_or(Self::NONE, |id| Self(id.0))
    }
}

/// The peers of one core.
#[derive(Default)]
pub struct Peers {
    slab: Slab<Peer>,
    // HashMap: as above.
    by_key: HashMap<PublicKey, PeerId>,
}

impl Peers {
    /// Adds a peer whose key is not there yet.
    pub fn insert(&mut self, peer: Peer) -> PeerId {
        let public = peer.tunnel.peer();
        let id = id_of(self.slab.insert(peer));
        self.by_key.insert(public, id);
        id
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.slab.remove(key_of(id))?;
        self.by_key.remove(&peer.tunnel.peer());
        if self.by_key.is_empty() {
            // Memory returns to the base line with the last peer.
            std::mem::take(&mut self.by_key);
        }
        Some(peer)
    }

    /// The peer, unless it has gone.
    #[inline]
    #[must_use]
    pub fn get(&self, id: PeerId) -> Option<&Peer> {
        self.slab.get(key_of(id))
    }

    /// The peer, to be changed.
    #[inline]
    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slab.get_mut(key_of(id))
    }

    /// The peer with this static key.
    #[must_use]
    pub fn by_key(&self, public: &PublicKey) -> Option<PeerId> {
        self.by_key.get(public).copied()
    }

    /// The first peer at or after slot `cursor`, for walks that span many turns.
    #[must_use]
    pub fn next_from(&self, cursor: u32) -> Option<(PeerId, &Peer)> {
        self.slab.next_from(cursor).map(|(key, peer)| (id_of(key), peer))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Bytes of the slab and the key map.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slab.bytes() + self.by_key.capacity() * (size_of::<(PublicKey, PeerId)>() + 1)
    }
}

const fn id_of(key: Key) -> PeerId {
    PeerId { slot: key.slot, generation: key.generation }
}

const fn key_of(id: PeerId) -> Key {
    Key { slot: id.slot, generation: id.generation }
}

/// Most peers of most gateways are configured and not there: what all of them pay for is bounded,
/// and what is worth more bytes belongs to sessions and handshakes.
const PEER_BYTES_MAX: usize = 640;

const _: () = assert!(size_of::<Peer>() <= PEER_BYTES_MAX);
