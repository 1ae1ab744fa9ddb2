//! Taking control's commands: bounded per turn, each applied whole or refused whole.
//!
//! What a command replaced goes back inside the answer, so that control frees what control
//! allocated.

use std::net::IpAddr;

use ringway_alloc::heap::SessionHeap;
use ringway_flow::PathMtu;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::ip::Version;
use ringway_proto::limits::{COMMANDS_PER_TURN_MAX, PEERS_MADE_PER_TURN_MAX};
use ringway_proto::wireguard::{Identity, PeerConfig, SendState, Tunnel};
use ringway_proto::{DropReason, Now, PeerId};
use ringway_ring::Driver;

use crate::command::{Command, PeerChange, PeerPage, PeerStatus, Refusal, Report};
use crate::handshake::PeerIndices;
use crate::peers::{Endpoint, Peer};
use crate::routes::Route;
use crate::shard::Shard;
use crate::staging::Staged;

impl<D: Driver> Shard<D> {
    /// Takes commands while there is room for the answers. Returns whether there were any.
    pub(crate) fn take_commands(&mut self, now: Now) -> bool {
        let mut reported = self.unsent.is_some();
        let peers_max = self.peers.len() + PEERS_MADE_PER_TURN_MAX;
        for _ in 0..COMMANDS_PER_TURN_MAX {
            if !self.flush_report() || self.peers.len() >= peers_max {
                return reported;
            }
            let Some(envelope) = self.commands.pop() else { return reported };
            reported = true;
            let (outcome, spent) = self.apply(envelope.command, now);
            match outcome {
                Ok(()) => self.counters.commands_applied += 1,
                Err(_) => self.counters.commands_refused += 1,
            }
            self.report(Report::Done { sequence: envelope.sequence, outcome, spent });
        }
        reported
    }

    fn apply(&mut self, command: Command, now: Now) -> (Result<(), Refusal>, Command) {
        match command {
            Command::SetIdentity(identity) => {
                let old = self.set_identity(identity, now);
                (Ok(()), Command::SetIdentity(old))
            }
            Command::PutPeer(mut change) => {
                (self.put_peer(&mut change, now), Command::PutPeer(change))
            }
            Command::RemovePeer(public) => {
                let found = self.peers.by_key(&public).ok_or(Refusal::UnknownPeer);
                (found.map(|id| self.remove_peer(id)), Command::RemovePeer(public))
            }
            Command::RemoveAllPeers => {
                while let Some((id, _)) = self.peers.next_from(0) {
                    self.remove_peer(id);
                }
                (Ok(()), Command::RemoveAllPeers)
            }
            Command::ReadPeers(mut page) => {
                self.read_peers(&mut page, now);
                (Ok(()), Command::ReadPeers(page))
            }
            Command::ReplaceSockets(sockets) => {
                let opened = sockets.is_some();
                match self.driver.set_sockets(sockets.map(|boxed| *boxed)) {
                    Ok(old) => {
                        self.set_listening(opened, now);
                        (Ok(()), Command::ReplaceSockets(old.map(Box::new)))
                    }
                    Err(_) => {
                        // The old ones are gone, whatever became of the new ones.
                        self.listening = false;
                        (Err(Refusal::Sockets), Command::ReplaceSockets(None))
                    }
                }
            }
            Command::PutRoutes(changes) => {
                self.put_routes(&changes);
                (Ok(()), Command::PutRoutes(changes))
            }
            Command::SetPolicy(policy) => {
                let old = std::mem::replace(&mut self.policy, policy);
                if old.inner_mtu != self.policy.inner_mtu {
                    self.reset_paths();
                }
                (Ok(()), Command::SetPolicy(old))
            }
            Command::Stop => {
                self.stopping = true;
                (Ok(()), Command::Stop)
            }
        }
    }

    /// Packets that came in while there were no sockets start their handshakes now.
    fn set_listening(&mut self, listening: bool, now: Now) {
        let before = std::mem::replace(&mut self.listening, listening);
        if before || !listening {
            return;
        }
        let mut cursor = 0;
        while let Some((id, peer)) = self.peers.next_from(cursor) {
            cursor = id.slot + 1;
            if !peer.staged.is_empty()
                && let Some(peer) = self.peers.get_mut(id)
            {
                peer.tunnel.want_handshake(now);
                self.settle(id, now);
            }
        }
    }

    fn set_identity(&mut self, identity: Option<Box<Identity>>, now: Now) -> Option<Box<Identity>> {
        let stale = self.handshakes.set_identity(identity.as_deref());
        self.counters.drops[DropReason::Mac1Wrong as usize] += stale as u64;
        let old = std::mem::replace(&mut self.identity, identity);
        if let Some(own) = self.identity.as_deref().map(Identity::public)
            && let Some(id) = self.peers.by_key(&own)
        {
            // Nobody can be its own peer.
            self.remove_peer(id);
        }
        let mut cursor = 0;
        while let Some((id, _)) = self.peers.next_from(cursor) {
            cursor = id.slot + 1;
            self.rekey_peer(id, now);
        }
        old
    }

    /// The gateway's key changed: every session of the old one ends.
    fn rekey_peer(&mut self, id: PeerId, now: Now) {
        if let Some(peer) = self.peers.get_mut(id) {
            let mut indices =
                PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
            let identity = self.identity.as_deref().unwrap_or(&self.nobody);
            peer.tunnel.identity_changed(identity, &mut indices);
            // The handshake that staged packets waited for was forgotten with the key.
            if !peer.staged.is_empty() && self.listening && self.identity.is_some() {
                peer.tunnel.want_handshake(now);
            }
        }
        self.settle(id, now);
    }

    fn put_peer(&mut self, change: &mut PeerChange, now: Now) -> Result<(), Refusal> {
        if self.identity.as_deref().map(Identity::public) == Some(change.public) {
            return Err(Refusal::OwnKey);
        }
        let id = match self.peers.by_key(&change.public) {
            Some(id) => id,
            None if change.update_only => return Err(Refusal::UnknownPeer),
            None => self.add_peer(change),
        };
        let peer = self.peers.get_mut(id).ok_or(Refusal::UnknownPeer)?;
        if let Some(preshared) = change.preshared.take() {
            peer.tunnel.set_preshared(preshared);
        }
        if let Some(remote) = change.endpoint {
            if peer.endpoint.is_some_and(|endpoint| endpoint.remote != remote) {
                peer.path.reset(self.policy.inner_mtu);
            }
            peer.endpoint = Some(Endpoint { remote, local: None });
        }
        if let Some(seconds) = change.keepalive_s {
            peer.tunnel.set_keepalive(seconds, now);
        }
        if change.replace_allowed_ips {
            self.allowed_ips.remove_all(Route::Peer(id));
        }
        for allowed in &change.allowed_ips {
            if allowed.remove {
                self.allowed_ips.remove(allowed.net, Route::Peer(id));
            } else {
                self.allowed_ips.insert(allowed.net, Route::Peer(id));
            }
        }
        self.note_inner(id, change);
        self.settle(id, now);
        Ok(())
    }

    /// Remembers the first single host of each family among the peer's allowed IPs. All of them are
    /// looked through only where some were taken away: a peer may have a hundred thousand.
    fn note_inner(&mut self, id: PeerId, change: &PeerChange) {
        let taken = change.replace_allowed_ips || change.allowed_ips.iter().any(|net| net.remove);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if taken {
            peer.inner = [None; 2];
            let nets = self.allowed_ips.of(Route::Peer(id));
            nets.into_iter().for_each(|net| note_host(&mut peer.inner, net));
        } else {
            let given = change.allowed_ips.iter().map(|change| change.net);
            given.for_each(|net| note_host(&mut peer.inner, net));
        }
    }

    fn add_peer(&mut self, change: &PeerChange) -> PeerId {
        let config = PeerConfig {
            public: change.public,
            preshared: change.preshared.clone().unwrap_or_default(),
            keepalive_s: 0,
        };
        let id = self.peers.insert(Peer {
            public: change.public,
            tunnel: Tunnel::new(self.identity.as_deref().unwrap_or(&self.nobody), config),
            endpoint: None,
            path: PathMtu::new(self.policy.inner_mtu),
            inner: [None; 2],
            staged: Staged::default(),
            heap: SessionHeap::new(&self.heap),
            live: false,
        });
        self.timers.admit(id);
        id
    }

    fn remove_peer(&mut self, id: PeerId) {
        self.timers.retire(id);
        self.allowed_ips.remove_all(Route::Peer(id));
        let Some(mut peer) = self.peers.remove(id) else { return };
        let mut indices =
            PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
        peer.tunnel.clear(&mut indices);
        let lost = peer.staged.clear() as u64;
        self.counters.staged_packets = self.counters.staged_packets.saturating_sub(lost);
        self.counters.drops[DropReason::PeerGone as usize] += lost;
        self.counters.sessions = self.counters.sessions.saturating_sub(u64::from(peer.live));
    }

    fn read_peers(&self, page: &mut PeerPage, now: Now) {
        page.peers.clear();
        let mut cursor = page.cursor.take().unwrap_or(0);
        while let Some((id, peer)) = self.peers.next_from(cursor) {
            if page.peers.len() == page.peers.capacity() {
                page.cursor = Some(cursor);
                return;
            }
            cursor = id.slot + 1;
            let stats = peer.tunnel.stats();
            page.peers.push(PeerStatus {
                public: peer.public,
                endpoint: peer.endpoint.map(|endpoint| endpoint.remote),
                last_handshake: stats.last_handshake_wall,
                rx_bytes: stats.rx_bytes,
                tx_bytes: stats.tx_bytes,
                live: peer.tunnel.send_state(now) == SendState::Ready,
                path_mtu: peer.path.mtu(Version::V4),
                heap_bytes: peer.heap.used() as u64,
            });
        }
    }

    /// Sends an answer, or keeps it until control has read some.
    fn report(&mut self, report: Report) {
        self.unsent = Some(report);
        if !self.flush_report() {
            self.counters.reports_refused += 1;
        }
    }

    /// Whether no answer is waiting any more.
    fn flush_report(&mut self) -> bool {
        let Some(report) = self.unsent.take() else { return true };
        match self.reports.push(report) {
            Ok(()) => true,
            Err(report) => {
                self.unsent = Some(report);
                false
            }
        }
    }
}

fn note_host(inner: &mut [Option<IpAddr>; 2], net: IpNet) {
    if net.is_host() {
        inner[usize::from(net.address().is_ipv6())].get_or_insert_with(|| net.address());
    }
}
