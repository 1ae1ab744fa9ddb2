//! Taking control's commands: bounded per turn, each applied whole or refused whole. What concerns
//! many peers or prefixes goes on in `walk.rs`.
//!
//! What a command replaced goes back inside the answer, so that control frees what control
//! allocated.

use ringway_alloc::heap::SessionHeap;
use ringway_flow::{PathMtu, Policy};
use ringway_proto::ip::Version;
use ringway_proto::limits::{
    COMMANDS_PER_TURN_MAX, PEERS_MADE_PER_TURN_MAX, PEERS_PER_PAGE_MAX, WALK_UNITS_KEY,
    WALK_UNITS_PREFIX, WALK_UNITS_VISIT,
};
use ringway_proto::wireguard::{Identity, PeerConfig, SendState, Tunnel};
use ringway_proto::{DropReason, Instant, Now, PeerId, Stamp};
use ringway_ring::{Driver, UdpSockets};

use crate::accounts::Accounts;
use crate::command::{
    Command, Envelope, PeerChange, PeerPage, PeerStatus, Refusal, Report, SessionState,
};
use crate::fairness::Portion;
use crate::handshake::PeerIndices;
use crate::peers::{Account, Endpoint, Peer};
use crate::presence::Presence;
use crate::routes::Route;
use crate::shard::Shard;
use crate::staging::Staged;
use crate::state::Pending;
use crate::walk::{Units, Walk, Work};

/// What became of a command at once.
enum Begun {
    /// It took effect, or was refused.
    Done { sequence: u64, outcome: Result<(), Refusal>, spent: Command },
    /// It goes on.
    Walks(Walk),
}

impl<D: Driver> Shard<D> {
    /// Takes commands while there is room for the answers and for the work. Returns whether there
    /// are answers.
    pub(crate) fn take_commands(&mut self, now: Now) -> bool {
        let mut reported = self.unsent.is_some();
        let peers_max = self.peers.len() + PEERS_MADE_PER_TURN_MAX;
        let mut units = Units::new(self.walk_units);
        self.forget_sources(&mut units);
        for _ in 0..COMMANDS_PER_TURN_MAX {
            if !self.flush_report() || self.peers.len() >= peers_max || units.are_spent() {
                return reported;
            }
            let begun = match self.walk.take() {
                Some(walk) => Begun::Walks(walk),
                None => match self.commands.pop() {
                    Some(envelope) => self.begin(envelope, &mut units, now),
                    None => return reported,
                },
            };
            let (sequence, outcome, spent) = match begun {
                Begun::Done { sequence, outcome, spent } => (sequence, outcome, spent),
                Begun::Walks(mut walk) => {
                    if !self.step(&mut walk, &mut units, now) {
                        self.walk = Some(walk);
                        return reported;
                    }
                    (walk.sequence, Ok(()), walk.spent())
                }
            };
            reported = true;
            match outcome {
                Ok(()) => self.counters.commands_applied += 1,
                Err(_) => self.counters.commands_refused += 1,
            }
            self.report(Report::Done { sequence, outcome, spent });
        }
        reported
    }

    /// Does what is done at once, and says what remains to be done.
    fn begin(&mut self, envelope: Envelope, units: &mut Units, now: Now) -> Begun {
        let Envelope { sequence, command } = envelope;
        units.spend(WALK_UNITS_VISIT);
        let walks = |work| Begun::Walks(Walk::new(sequence, work));
        let (outcome, spent) = match command {
            Command::SetIdentity(identity) => match self.set_identity(identity, now) {
                Ok(work) => return walks(work),
                Err(same) => (Ok(()), Command::SetIdentity(same)),
            },
            Command::PutPeer(change) => match self.put_peer(&change, units, now) {
                Ok(id) => return walks(Work::Put { change, id, at: 0 }),
                Err(refusal) => (Err(refusal), Command::PutPeer(change)),
            },
            Command::RemovePeer(public) => match self.peers.by_key(&public) {
                Some(id) => {
                    self.remove_peer(id, now);
                    return walks(Work::Remove { public, id });
                }
                None => (Err(Refusal::UnknownPeer), Command::RemovePeer(public)),
            },
            Command::RemoveAllPeers => return walks(Work::RemoveAll),
            Command::ReadPeers(mut page) => {
                self.read_peers(&mut page, now);
                units.spend(page.peers.len() as u32 * WALK_UNITS_VISIT);
                (Ok(()), Command::ReadPeers(page))
            }
            command @ (Command::PutAccount(_)
            | Command::RemoveAccount(_)
            | Command::ReadAccounts(_)) => {
                units.spend(Accounts::units_of(&command));
                self.accounts.obey(command, now.mono)
            }
            Command::ReplaceSockets(sockets) => match self.replace_sockets(sockets) {
                Ok(work) => return walks(work),
                Err(done) => done,
            },
            Command::PutRoutes(changes) => {
                self.put_routes(&changes);
                units.spend(changes.len() as u32 * WALK_UNITS_PREFIX);
                (Ok(()), Command::PutRoutes(changes))
            }
            Command::Pause(_) => match self.pause(now) {
                Ok(pending) => (Ok(()), Command::Pause(pending)),
                Err(refusal) => (Err(refusal), Command::Pause(Pending::default())),
            },
            Command::ExportPeers(mut page) => {
                units.spend(PEERS_PER_PAGE_MAX as u32 * WALK_UNITS_VISIT);
                (self.export_peers(&mut page, now), Command::ExportPeers(page))
            }
            Command::ImportPeers(mut page) => {
                units.spend(PEERS_PER_PAGE_MAX as u32 * WALK_UNITS_VISIT);
                (self.import_peers(&mut page, now), Command::ImportPeers(page))
            }
            Command::Resume { counters_ahead } => {
                (self.resume(counters_ahead), Command::Resume { counters_ahead })
            }
            Command::SetPolicy(policy) => match self.set_policy(policy) {
                Ok(work) => return walks(work),
                Err(old) => (Ok(()), Command::SetPolicy(old)),
            },
            Command::Stop => {
                self.stopping = true;
                (Ok(()), Command::Stop)
            }
        };
        Begun::Done { sequence, outcome, spent }
    }

    /// Uses other sockets from now on. If there were none before, handshakes may be waiting for
    /// them: that is the work.
    fn replace_sockets(
        &mut self,
        sockets: Option<Box<UdpSockets>>,
    ) -> Result<Work, (Result<(), Refusal>, Command)> {
        let opened = sockets.is_some();
        match self.driver.set_sockets(sockets.map(|boxed| *boxed)) {
            Ok(old) => {
                let old = old.map(Box::new);
                let before = std::mem::replace(&mut self.listening, opened);
                if opened && !before {
                    Ok(Work::Listen(old))
                } else {
                    Err((Ok(()), Command::ReplaceSockets(old)))
                }
            }
            Err(_) => {
                // The old ones are gone, whatever became of the new ones.
                self.listening = false;
                Err((Err(Refusal::Sockets), Command::ReplaceSockets(None)))
            }
        }
    }

    /// Takes another policy. Gives the old one back, unless there is work with it.
    fn set_policy(&mut self, policy: Box<Policy>) -> Result<Work, Box<Policy>> {
        let old = std::mem::replace(&mut self.policy, policy);
        self.handshakes.set_limits(&self.policy, self.crossing.cores());
        if old.inner_mtu == self.policy.inner_mtu { Err(old) } else { Ok(Work::ResetPaths(old)) }
    }

    /// Takes another identity. The same one again changes nothing, and is given back.
    fn set_identity(
        &mut self,
        identity: Option<Box<Identity>>,
        now: Now,
    ) -> Result<Work, Option<Box<Identity>>> {
        let public = identity.as_deref().map(Identity::public);
        if public == self.identity.as_deref().map(Identity::public) {
            return Err(identity);
        }
        let stale = self.handshakes.set_identity(identity.as_deref());
        self.counters.drops[DropReason::Mac1Wrong as usize] += stale as u64;
        let old = std::mem::replace(&mut self.identity, identity);
        self.identity_number = self.identity_number.wrapping_add(1);
        self.rekeying = true;
        // Nobody can be its own peer.
        let own = public.and_then(|public| self.peers.by_key(&public));
        if let Some(own) = own {
            self.remove_peer(own, now);
        }
        Ok(Work::Rekey { old, own })
    }

    /// Creates the peer or changes all but its prefixes.
    fn put_peer(
        &mut self,
        change: &PeerChange,
        units: &mut Units,
        now: Now,
    ) -> Result<PeerId, Refusal> {
        if self.identity.as_deref().map(Identity::public) == Some(change.public) {
            return Err(Refusal::OwnKey);
        }
        if change.account.flatten().is_some_and(|account| !self.accounts.knows(account)) {
            return Err(Refusal::UnknownAccount);
        }
        let id = match self.peers.by_key(&change.public) {
            Some(id) => id,
            None if change.update_only => return Err(Refusal::UnknownPeer),
            None => {
                units.spend(WALK_UNITS_KEY);
                self.add_peer(change)
            }
        };
        let peer = self.peers.get_mut(id).ok_or(Refusal::UnknownPeer)?;
        if let Some(preshared) = &change.preshared {
            peer.tunnel.set_preshared(preshared.clone());
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
        if let Some(account) = change.account {
            let before = std::mem::replace(&mut peer.account, account.into()).id();
            if before != account {
                before.into_iter().for_each(|before| self.accounts.unbind(before));
                account.into_iter().for_each(|after| self.accounts.bind(after, now.mono));
            }
        }
        if change.replace_allowed_ips {
            self.allowed_ips.begin_replace(Route::Peer(id));
        }
        Ok(id)
    }

    fn add_peer(&mut self, change: &PeerChange) -> PeerId {
        let config = PeerConfig {
            public: change.public,
            preshared: change.preshared.clone().unwrap_or_default(),
            keepalive_s: 0,
        };
        let id = self.peers.insert(Peer {
            tunnel: Tunnel::new(self.identity.as_deref().unwrap_or(&self.nobody), config),
            endpoint: None,
            path: PathMtu::new(self.policy.inner_mtu),
            inner: [None; 2],
            staged: Staged::default(),
            heap: SessionHeap::new(&self.heap),
            live: false,
            identity_number: self.identity_number,
            presence: Presence::default(),
            portion: Portion::default(),
            account: Account::NONE,
            live_since: Stamp::NONE,
        });
        self.timers.admit(id);
        id
    }

    /// Takes the peer out. Its prefixes lead nowhere then; forgetting them is a walk.
    pub(crate) fn remove_peer(&mut self, id: PeerId, now: Now) {
        self.timers.retire(id);
        self.allowed_ips.begin_replace(Route::Peer(id));
        let Some(mut peer) = self.peers.remove(id) else { return };
        let mut indices =
            PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
        peer.tunnel.clear(&mut indices);
        if self.peers.is_empty() {
            self.timers.retire_all();
        }
        let lost = peer.staged.clear() as u64;
        self.counters.staged_packets = self.counters.staged_packets.saturating_sub(lost);
        self.counters.drops[DropReason::PeerGone as usize] += lost;
        self.forget_removed(&mut peer, now);
        self.forget_place(peer.endpoint);
        if let Some(account) = peer.account.id() {
            self.accounts.unbind(account);
        }
    }

    fn read_peers(&self, page: &mut PeerPage, now: Now) {
        page.peers.clear();
        let mut cursor = page.cursor.take().unwrap_or(0);
        while let Some((id, peer)) = self.peers.next_from(cursor) {
            if page.peers.len() == page.peers.capacity().min(PEERS_PER_PAGE_MAX) {
                page.cursor = Some(cursor);
                return;
            }
            cursor = id.slot + 1;
            let stats = peer.tunnel.stats();
            let (state, since) = state_of(peer, now);
            let wall = |at: Option<Instant>| Some(now.wall.saturating_sub(now.mono.since(at?)));
            let [heard, sent] = peer.tunnel.last_seen();
            page.peers.push(PeerStatus {
                public: peer.tunnel.peer(),
                endpoint: peer.endpoint.map(|endpoint| endpoint.remote),
                last_handshake: stats.last_handshake_wall,
                rx_bytes: stats.rx_bytes,
                tx_bytes: stats.tx_bytes,
                state,
                since: wall(since),
                last_received: wall(heard),
                last_sent: wall(sent),
                live: state == SessionState::Online,
                path_mtu: peer.path.mtu(Version::V4),
                heap_bytes: peer.heap.used() as u64,
            });
        }
    }

    /// Says of which accounts the volume is used up, while control has room for it. Returns
    /// whether anything was said.
    pub(crate) fn report_exhausted(&mut self) -> bool {
        let mut said = false;
        while let Some((account, volume)) = self.accounts.exhausted.last().copied() {
            if self.unsent.is_some()
                || self.reports.push(Report::AccountExhausted { account, volume }).is_err()
            {
                break;
            }
            self.accounts.exhausted.pop();
            said = true;
        }
        said
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

/// How far a peer's session is, and since when.
fn state_of(peer: &Peer, now: Now) -> (SessionState, Option<Instant>) {
    if peer.tunnel.send_state(now) == SendState::Ready {
        (SessionState::Online, peer.live_since.instant())
    } else if peer.tunnel.is_half_open() {
        (SessionState::LinkUp, peer.tunnel.handshake_began())
    } else if peer.tunnel.is_shaking_hands() || peer.tunnel.awaits_response() {
        (SessionState::Connecting, peer.tunnel.handshake_began())
    } else {
        (SessionState::Disconnected, peer.live_since.instant())
    }
}
