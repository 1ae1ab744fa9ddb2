//! What the gateway should be, and how the cores are told: a pure state machine.
//!
//! The plane is the authority on identity, peers, preshared keys, keepalives and who owns which
//! prefix. Every change of it becomes commands for the cores it concerns: a peer lives on the core
//! its public key hashes to, identity and policy go to all. Commands wait here until a channel has
//! room, in order, and are remembered until the core answers. Endpoints and traffic are the cores'
//! business; the plane only knows where a peer was configured to be.
//!
//! It must not know threads, channels, sockets or clocks.

mod accounts;
mod lines;
mod nets;
mod operation;
mod routes;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ringway_dataplane::command::{
    AllowedIpChange, Command, Envelope, PeerChange, PeerPage, Refusal, Report, RouteChange,
};
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey};
use ringway_proto::wireguard::Identity;
use ringway_proto::{AccountId, CoreId};

use accounts::Accounts;
pub use accounts::{Account, AccountVolume, VolumeLeft};
use lines::Lines;
pub use lines::Ticket;
pub use nets::Nets;
pub use operation::{Operation, Secret};
use routes::{Owner, Prefixes};

/// Prefixes in one command. Inserting one takes a core well below a microsecond, so a command holds
/// the packets back for at most about 0.1 ms, and a peer with 130,000 prefixes arrives in 512
/// commands.
pub const PREFIXES_PER_COMMAND_MAX: usize = 256;

/// A peer as it was configured.
#[derive(Debug)]
pub struct Peer {
    /// Zeros if none is set.
    pub preshared: PresharedKey,
    /// Seconds; 0 is off.
    pub keepalive_s: u16,
    /// Prefixes the peer owns.
    pub allowed_ips: Nets,
    /// What limits and meters it.
    pub account: Option<AccountId>,
    /// The core it lives on.
    pub owner: CoreId,
}

/// What a report meant.
#[derive(Debug)]
pub enum Answer {
    /// Nothing that anybody waits for by name; tickets may have become complete.
    Noted,
    /// The state of some peers, asked for with [`Plane::read`].
    Page {
        /// What [`Plane::read`] returned.
        sequence: u64,
        /// Filled by the core.
        page: Box<PeerPage>,
    },
    /// What a command about the state of a core brought, asked for with [`Plane::ask`].
    State {
        /// What [`Plane::ask`] returned.
        sequence: u64,
        /// Whether it was done.
        outcome: Result<(), Refusal>,
        /// The command, filled by the core.
        spent: Command,
    },
    /// The volume of an account is used up.
    Exhausted {
        /// Which account.
        account: AccountId,
        /// Number of the volume, as it was configured.
        number: u64,
    },
    /// The core has ended.
    Stopped {
        /// Why, if it was not asked to.
        error: Option<std::io::Error>,
    },
}

/// The control state machine.
#[derive(Debug)]
pub struct Plane {
    private: Option<PrivateKey>,
    public: Option<PublicKey>,
    peers: BTreeMap<PublicKey, Peer>,
    accounts: Accounts,
    /// Who owns a prefix. Same content as the peers' `allowed_ips`, turned around.
    prefixes: Prefixes,
    /// Whether the interface is up. While it is down no peer is told to keep itself alive.
    up: bool,
    lines: Lines,
}

impl Plane {
    /// A plane without key and peers, for so many cores, with its interface down.
    ///
    /// # Panics
    /// If there are no cores.
    #[must_use]
    pub fn new(cores: u16) -> Self {
        assert!(cores > 0, "A gateway has at least one core");
        Self {
            private: None,
            public: None,
            peers: BTreeMap::new(),
            accounts: Accounts::default(),
            prefixes: Prefixes::new(cores),
            up: false,
            lines: Lines::new(cores),
        }
    }

    /// Applies steps in order. Those about port and mark are not for the plane and are skipped.
    ///
    /// The ticket is complete when every core has answered every command this led to.
    pub fn apply(&mut self, operations: impl IntoIterator<Item = Operation>) -> Ticket {
        let mut request = self.begin_request();
        self.go_on(&mut request, operations);
        self.finish(request)
    }

    /// Begins a request that is applied piece by piece. Other requests have to wait for its end.
    #[must_use]
    pub fn begin_request(&self) -> Request {
        Request { first: self.lines.next_sequence(), edit: Edit::nobody() }
    }

    /// Applies some steps of a request, in order.
    pub fn go_on(
        &mut self,
        request: &mut Request,
        operations: impl IntoIterator<Item = Operation>,
    ) {
        for operation in operations {
            self.step(&mut request.edit, operation);
        }
    }

    /// Ends a request. The ticket is complete when every core has answered everything since its
    /// beginning.
    pub fn finish(&mut self, mut request: Request) -> Ticket {
        self.flush(&mut request.edit);
        self.tell_routes();
        self.lines.ticket_from(request.first)
    }

    /// Tells the plane that the interface went up or down. Persistent keepalives start and end with
    /// it.
    pub fn set_link(&mut self, up: bool) -> Ticket {
        let first = self.lines.next_sequence();
        if self.up != up {
            self.up = up;
            let Self { peers, lines, .. } = self;
            for (public, peer) in peers.iter().filter(|(_, peer)| peer.keepalive_s > 0) {
                let seconds = if up { peer.keepalive_s } else { 0 };
                let change = PeerChange { keepalive_s: Some(seconds), ..update(*public) };
                lines.push(peer.owner, Command::PutPeer(Box::new(change)));
            }
        }
        self.lines.ticket_from(first)
    }

    /// Sends one command to every core, made by `command` for each.
    pub fn broadcast(&mut self, mut command: impl FnMut(CoreId) -> Command) -> Ticket {
        let first = self.lines.next_sequence();
        for core in self.lines.cores() {
            self.lines.push(core, command(core));
        }
        self.lines.ticket_from(first)
    }

    /// Tells every core to stop. What waits for a core that may have ended waits no longer.
    pub fn stop(&mut self) -> Ticket {
        self.lines.wait_for_nobody();
        self.broadcast(|_| Command::Stop)
    }

    /// Asks a core for the state of its peers from the page's cursor on. The number comes back in
    /// [`Answer::Page`].
    pub fn read(&mut self, core: CoreId, page: Box<PeerPage>) -> u64 {
        self.lines.push(core, Command::ReadPeers(page))
    }

    /// Sends one command about the state of a core. The number comes back in [`Answer::State`].
    pub fn ask(&mut self, core: CoreId, command: Command) -> u64 {
        self.lines.push(core, command)
    }

    /// The commands that wait for a core, oldest first. What is taken out counts as sent.
    pub fn outgoing(&mut self, core: CoreId) -> impl Iterator<Item = Envelope> + '_ {
        self.lines.outgoing(core)
    }

    /// Takes in what a core reported.
    pub fn report(&mut self, core: CoreId, report: Report) -> Answer {
        match report {
            Report::Stopped { error } => Answer::Stopped { error },
            Report::AccountExhausted { account, volume } => self.exhausted(account, volume),
            Report::Done { sequence, outcome, spent } => {
                let created = self.lines.answered(core, sequence, outcome);
                if let (Some(public), Err(Refusal::TooManyPeers)) = (created, outcome) {
                    self.forget(&public);
                    self.tell_routes();
                }
                match spent {
                    Command::ReadPeers(page) => Answer::Page { sequence, page },
                    spent @ (Command::Pause(_)
                    | Command::ExportPeers(_)
                    | Command::ImportPeers(_)
                    | Command::ReadAccounts(_)
                    | Command::Resume { .. }) => Answer::State { sequence, outcome, spent },
                    Command::SetIdentity(_)
                    | Command::PutPeer(_)
                    | Command::RemovePeer(_)
                    | Command::RemoveAllPeers
                    | Command::ReplaceSockets(_)
                    | Command::PutAccount(_)
                    | Command::RemoveAccount(_)
                    | Command::PutRoutes(_)
                    | Command::SetPolicy(_)
                    | Command::Stop => Answer::Noted,
                }
            }
        }
    }

    /// `None` while a core still has to answer; then whether any of the ticket's commands was
    /// refused, and why.
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        self.lines.outcome(ticket)
    }

    /// What the program that steers packets of the TUN should know since this was last called.
    pub fn take_steered(&mut self) -> Vec<RouteChange> {
        self.prefixes.take_steered()
    }

    /// Commands that were neither sent nor answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lines.pending()
    }

    /// The cores there are.
    pub fn cores(&self) -> impl Iterator<Item = CoreId> + use<> {
        self.lines.cores()
    }

    /// The gateway's private key.
    #[must_use]
    pub const fn private(&self) -> Option<&PrivateKey> {
        self.private.as_ref()
    }

    /// The gateway's public key.
    #[must_use]
    pub const fn public(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    /// Whether the interface is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// A peer, as configured.
    #[must_use]
    pub fn peer(&self, public: &PublicKey) -> Option<&Peer> {
        self.peers.get(public)
    }

    /// All peers, in the order of their keys.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = (&PublicKey, &Peer)> {
        self.peers.iter()
    }

    fn step(&mut self, edit: &mut Edit, operation: Operation) {
        match operation {
            Operation::PrivateKey(secret) => {
                self.flush(edit);
                *edit = Edit::nobody();
                self.set_private(&secret);
            }
            Operation::ListenPort(_) | Operation::Fwmark(_) => {}
            Operation::ReplacePeers => {
                self.flush(edit);
                *edit = Edit::nobody();
                self.remove_all();
            }
            Operation::PutAccount(id, account) => {
                // What follows may use it, what came before may not.
                self.flush(edit);
                self.put_account(id, *account);
            }
            Operation::RemoveAccount(id) => {
                self.flush(edit);
                self.remove_account(id);
            }
            Operation::Peer(public) => {
                self.flush(edit);
                *edit = self.begin(public);
            }
            Operation::UpdateOnly if !edit.created => edit.change.update_only = true,
            Operation::UpdateOnly | Operation::Remove => self.remove(edit),
            Operation::Preshared(_)
            | Operation::Endpoint(_)
            | Operation::Keepalive(_)
            | Operation::Account(_)
            | Operation::ReplaceAllowedIps
            | Operation::AllowedIp(_)
            | Operation::RemoveAllowedIp(_) => self.change(edit, operation),
        }
    }

    fn change(&mut self, edit: &mut Edit, operation: Operation) {
        let Some(public) = edit.public else { return };
        let Some(peer) = self.peers.get_mut(&public) else { return };
        edit.dirty = true;
        match operation {
            Operation::Preshared(key) => {
                peer.preshared = key.clone();
                edit.change.preshared = Some(key);
            }
            Operation::Endpoint(endpoint) => edit.change.endpoint = Some(endpoint),
            Operation::Keepalive(seconds) => {
                peer.keepalive_s = seconds;
                edit.change.keepalive_s = self.up.then_some(seconds);
            }
            Operation::Account(id) => self.bind(edit, public, id),
            Operation::ReplaceAllowedIps => self.clear_prefixes(edit, public),
            Operation::AllowedIp(net) => self.give_prefix(edit, public, net),
            Operation::RemoveAllowedIp(net) => self.take_prefix(edit, public, net),
            Operation::PrivateKey(_)
            | Operation::ListenPort(_)
            | Operation::Fwmark(_)
            | Operation::ReplacePeers
            | Operation::PutAccount(..)
            | Operation::RemoveAccount(_)
            | Operation::Peer(_)
            | Operation::UpdateOnly
            | Operation::Remove => {}
        }
    }

    fn set_private(&mut self, secret: &Secret) {
        let private = (!secret.is_zero()).then(|| PrivateKey::from_bytes(secret.bytes()));
        let public = private.as_ref().map(PrivateKey::public);
        if public == self.public {
            return;
        }
        // A gateway cannot be its own peer: the peer with that key is removed, as the kernel does.
        if let Some(public) = public
            && let Some(peer) = self.forget(&public)
        {
            let after = self.prefixes.tell_exposed(peer.owner, &mut self.lines);
            self.lines.push_after(peer.owner, Command::RemovePeer(public), after);
        }
        for core in self.lines.cores() {
            let identity = private
                .as_ref()
                .map(|key| Box::new(Identity::new(PrivateKey::from_bytes(key.to_bytes()))));
            self.lines.push(core, Command::SetIdentity(identity));
        }
        self.private = private;
        self.public = public;
    }

    fn remove_all(&mut self) {
        if self.peers.is_empty() {
            return;
        }
        for (public, peer) in std::mem::take(&mut self.peers) {
            for net in peer.allowed_ips.iter() {
                self.prefixes.take(*net, &public);
            }
        }
        for core in self.lines.cores() {
            self.lines.push(core, Command::RemoveAllPeers);
        }
        self.tell_routes();
    }

    /// Starts to edit a peer, creating it if need be. The gateway's own key names nobody.
    fn begin(&mut self, public: PublicKey) -> Edit {
        if self.public == Some(public) {
            return Edit::nobody();
        }
        let owner = self.lines.owner(&public);
        let created = match self.peers.entry(public) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Peer {
                    preshared: PresharedKey::default(),
                    keepalive_s: 0,
                    account: None,
                    allowed_ips: Nets::default(),
                    owner,
                });
                true
            }
        };
        Edit {
            public: Some(public),
            owner,
            created,
            dirty: created,
            told: !created,
            change: PeerChange { update_only: !created, ..update(public) },
        }
    }

    fn remove(&mut self, edit: &mut Edit) {
        let Some(public) = edit.public else { return };
        // Prefixes it took from others must be taken in the core too, before they go with it.
        if !edit.change.allowed_ips.is_empty() {
            self.flush(edit);
        }
        self.forget(&public);
        if edit.told {
            let after = self.prefixes.tell_exposed(edit.owner, &mut self.lines);
            self.lines.push_after(edit.owner, Command::RemovePeer(public), after);
        }
        *edit = Edit::nobody();
    }

    fn clear_prefixes(&mut self, edit: &mut Edit, public: PublicKey) {
        if !edit.change.allowed_ips.is_empty() {
            self.flush(edit);
            edit.dirty = true;
        }
        edit.change.replace_allowed_ips = true;
        if let Some(peer) = self.peers.get_mut(&public) {
            for net in std::mem::take(&mut peer.allowed_ips).iter() {
                self.prefixes.take(*net, &public);
            }
        }
    }

    fn give_prefix(&mut self, edit: &mut Edit, public: PublicKey, net: IpNet) {
        if let Some(robbed) = self.prefixes.give(net, Owner { public, core: edit.owner })
            && let Some(peer) = self.peers.get_mut(&robbed.public)
        {
            peer.allowed_ips.remove(&net);
        }
        if let Some(peer) = self.peers.get_mut(&public) {
            peer.allowed_ips.insert(net);
        }
        self.push_prefix(edit, AllowedIpChange { net, remove: false });
    }

    /// Tells the cores which prefixes changed hands.
    fn tell_routes(&mut self) {
        self.prefixes.tell_taken(&mut self.lines);
        self.tell_given();
    }

    /// Tells the cores who got which prefixes, then the peers that lost them to another core.
    fn tell_given(&mut self) {
        for (net, Owner { public, core }) in self.prefixes.tell_given(&mut self.lines) {
            if self.peers.contains_key(&public) {
                let allowed_ips = vec![AllowedIpChange { net, remove: true }];
                let change = PeerChange { allowed_ips, ..update(public) };
                self.lines.push(core, Command::PutPeer(Box::new(change)));
            }
        }
    }

    fn take_prefix(&mut self, edit: &mut Edit, public: PublicKey, net: IpNet) {
        if !self.prefixes.take(net, &public) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&public) {
            peer.allowed_ips.remove(&net);
        }
        self.push_prefix(edit, AllowedIpChange { net, remove: true });
    }

    fn push_prefix(&mut self, edit: &mut Edit, change: AllowedIpChange) {
        edit.change.allowed_ips.push(change);
        if edit.change.allowed_ips.len() == PREFIXES_PER_COMMAND_MAX {
            self.flush(edit);
        }
    }

    /// Sends what was collected for the peer, if anything.
    fn flush(&mut self, edit: &mut Edit) {
        let Some(public) = edit.public else { return };
        if !edit.dirty {
            return;
        }
        // Later parts of the same edit must not bring a peer back whose creation was refused.
        let change = std::mem::replace(&mut edit.change, update(public));
        let creates = (!edit.told).then_some(public);
        let after = self.prefixes.tell_exposed(edit.owner, &mut self.lines);
        self.lines.push_put(edit.owner, change, creates, after);
        edit.dirty = false;
        edit.told = true;
        if self.prefixes.batch_is_full() {
            self.tell_given();
        }
    }

    /// Drops a peer and its prefixes from the records.
    fn forget(&mut self, public: &PublicKey) -> Option<Peer> {
        let peer = self.peers.remove(public)?;
        self.accounts.count_peer(peer.account, -1);
        for net in peer.allowed_ips.iter() {
            self.prefixes.take(*net, public);
        }
        Some(peer)
    }
}

/// A change of an existing peer, with nothing in it yet.
fn update(public: PublicKey) -> PeerChange {
    PeerChange {
        public,
        update_only: true,
        preshared: None,
        endpoint: None,
        keepalive_s: None,
        account: None,
        replace_allowed_ips: false,
        allowed_ips: Vec::new(),
    }
}

/// A request of which more steps may come.
#[derive(Debug)]
pub struct Request {
    first: u64,
    edit: Edit,
}

/// The peer that steps are about, and what its core has not been told yet.
#[derive(Debug)]
struct Edit {
    /// `None`: steps are checked and have no effect.
    public: Option<PublicKey>,
    owner: CoreId,
    /// Whether this edit made the peer.
    created: bool,
    /// Whether there is something to tell.
    dirty: bool,
    /// Whether the core knows of the peer.
    told: bool,
    change: PeerChange,
}

impl Edit {
    fn nobody() -> Self {
        Self {
            public: None,
            owner: CoreId(0),
            created: false,
            dirty: false,
            told: false,
            change: update(PublicKey([0; 32])),
        }
    }
}

#[cfg(test)]
mod tests;
