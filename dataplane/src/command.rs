//! What control may ask of a shard, and what the shard answers.
//!
//! Commands are small deltas, taken a bounded number per turn. Everything a command carries was
//! allocated by control and goes back with the answer, so that a core never frees what it did not
//! allocate. A refused command changed nothing.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_flow::Policy;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use ringway_proto::wireguard::Identity;
use ringway_proto::{AccountId, CoreId};
use ringway_ring::UdpSockets;

pub use crate::accounts::change::{
    AccountChange, AccountPage, AccountStatus, Exhausted, HomeStatus, Volume, VolumeChange,
};
pub use crate::accounts::commands::ACCOUNTS_PER_PAGE_MAX;
use crate::state::{Pending, StatePage};

/// A command with the number under which it is answered.
#[derive(Debug)]
pub struct Envelope {
    /// Chosen by control, given back in [`Report::Done`].
    pub sequence: u64,
    /// What to do.
    pub command: Command,
}

/// What control may ask.
#[derive(Debug)]
pub enum Command {
    /// Sets or removes the gateway's static key. All sessions end; peers stay.
    SetIdentity(Option<Box<Identity>>),
    /// Creates a peer, or changes one that exists.
    PutPeer(Box<PeerChange>),
    /// Removes a peer and ends its session.
    RemovePeer(PublicKey),
    /// Removes all peers.
    RemoveAllPeers,
    /// Makes an account, or changes one. Every core is told of every account, before peers use it.
    PutAccount(Box<AccountChange>),
    /// Removes an account that no peer and no other account uses.
    RemoveAccount(AccountId),
    /// Fills the page with the state of the next accounts after its cursor.
    ReadAccounts(Box<AccountPage>),
    /// Fills the page with the state of the next peers after its cursor.
    ReadPeers(Box<PeerPage>),
    /// Receives and sends through these sockets from now on (`None`: through none). The old ones
    /// are closed.
    ReplaceSockets(Option<Box<UdpSockets>>),
    /// Says of prefixes which other core serves them: at most [`ROUTES_PER_COMMAND_MAX`].
    PutRoutes(Box<Vec<RouteChange>>),
    /// Stops carrying packets until it is resumed. Comes back with what waits meanwhile.
    Pause(Pending),
    /// Writes the state of the next peers after the page's cursor. Only paused; the first one
    /// freezes the core.
    ExportPeers(Box<StatePage>),
    /// Gives the peers in the page the state that another process wrote. Only frozen.
    ImportPeers(Box<StatePage>),
    /// Carries packets again.
    Resume {
        /// Counters of every key to jump over, because somebody else may have used them.
        counters_ahead: u64,
    },
    /// Replaces the policy on inner packets.
    SetPolicy(Box<Policy>),
    /// Ends the shard after what is in flight has left.
    Stop,
}

/// One change of one peer. Absent fields stay as they are.
#[derive(Debug)]
pub struct PeerChange {
    /// Who it is about.
    pub public: PublicKey,
    /// Refuse if the peer does not exist, instead of creating it.
    pub update_only: bool,
    /// New preshared key; zeros mean none. Affects the next session only.
    pub preshared: Option<PresharedKey>,
    /// Where the peer is expected; it moves with the next authenticated packet.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 turns them off.
    pub keepalive_s: Option<u16>,
    /// The account that limits and meters it, or that none does.
    pub account: Option<Option<AccountId>>,
    /// Forget all allowed IPs of the peer before `allowed_ips` is applied.
    pub replace_allowed_ips: bool,
    /// Prefixes to give to the peer (taking them from whoever had them), or to take away.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerChange {
    /// A change of `public` that changes nothing yet.
    #[must_use]
    pub const fn of(public: PublicKey) -> Self {
        Self {
            public,
            update_only: false,
            preshared: None,
            endpoint: None,
            keepalive_s: None,
            account: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// One prefix given or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIpChange {
    /// The prefix.
    pub net: IpNet,
    /// Take it away instead of giving it.
    pub remove: bool,
}

/// Changes in one [`Command::PutRoutes`]: at about 0.2 us each, one command holds data back for
/// 50 us.
pub const ROUTES_PER_COMMAND_MAX: usize = 256;

/// Which core serves an allowed prefix. Every core but the owner of its peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix, as some peer has it among its allowed IPs.
    pub net: IpNet,
    /// The core of that peer; `None` when no other core serves the prefix any more. A prefix that
    /// a peer of this core has stays with it then.
    pub core: Option<CoreId>,
}

/// State of some peers, filled by the shard without allocating: at most the capacity of `peers`.
#[derive(Debug, Default)]
pub struct PeerPage {
    /// Where to go on; 0 at first. Set by the shard; `None` when there is no more.
    pub cursor: Option<u32>,
    /// Filled by the shard; cleared first.
    pub peers: Vec<PeerStatus>,
}

/// What the shard knows of a peer that control does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who it is.
    pub public: PublicKey,
    /// Where it was last heard from, or is expected.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake finished, since the Unix epoch.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it, as `wg` counts them.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// How far its session is.
    pub state: SessionState,
    /// Since when, since the Unix epoch; `None` if it never had a session. Of a handshake under way
    /// it is the last message.
    pub since: Option<Duration>,
    /// When something authentic last came from it, to an eighth of a second.
    pub last_received: Option<Duration>,
    /// When something was last sent to it, to an eighth of a second.
    pub last_sent: Option<Duration>,
    /// Whether it has a keypair that may be used now.
    pub live: bool,
    /// Largest inner packet its path carries, in bytes.
    pub path_mtu: u16,
    /// Variable memory it holds, in bytes: keypairs, a handshake under way, staged packets.
    pub heap_bytes: u64,
}

impl PeerStatus {
    /// A peer of which nothing is known.
    #[must_use]
    pub const fn unknown(public: PublicKey) -> Self {
        Self {
            public,
            endpoint: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            state: SessionState::Disconnected,
            since: None,
            last_received: None,
            last_sent: None,
            live: false,
            path_mtu: 0,
            heap_bytes: 0,
        }
    }
}

/// How far the session of a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No keys, and nobody tries.
    Disconnected,
    /// A handshake of ours waits for its answer, or to be repeated.
    Connecting,
    /// We answered a handshake; nothing has come under its keys yet.
    LinkUp,
    /// Keys that both ends have shown to have.
    Online,
}

impl SessionState {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::LinkUp => "link_up",
            Self::Online => "online",
        }
    }
}

/// What a shard says to control.
#[derive(Debug)]
pub enum Report {
    /// A command was applied or refused; it comes back to be freed.
    Done {
        /// Number of the envelope.
        sequence: u64,
        /// Whether it took effect.
        outcome: Result<(), Refusal>,
        /// The command itself, emptied of what the shard kept.
        spent: Command,
    },
    /// The volume of an account is used up, and what it says of that holds. Said once of each
    /// volume, by the home of the account.
    AccountExhausted {
        /// Which.
        account: AccountId,
        /// Number of the volume.
        volume: u32,
    },
    /// The shard has ended; nothing follows.
    Stopped {
        /// Why, if it was not asked to.
        error: Option<std::io::Error>,
    },
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `update_only` or a removal named a peer that does not exist.
    #[error("No such peer")]
    UnknownPeer,
    /// A peer may not have the gateway's own public key.
    #[error("The peer's key is the gateway's own")]
    OwnKey,
    /// The kernel did not take the new sockets, or did not let go of the old ones.
    #[error("The ring refused the sockets")]
    Sockets,
    /// Not while the core carries packets, or not while it does not; or the driver could not stop
    /// receiving.
    #[error("The core cannot be paused or resumed now")]
    Pause,
    /// The state of another process cannot be taken over.
    #[error("The state of a peer cannot be taken over")]
    State,
    /// The shard holds as many peers as it may.
    #[error("The shard holds as many peers as it may")]
    TooManyPeers,
    /// A change names an account that is not there.
    #[error("No such account")]
    UnknownAccount,
    /// Peers or other accounts use the account.
    #[error("The account is in use")]
    AccountInUse,
    /// More than four accounts one above the other, one above itself, or one that others are below
    /// is to move.
    #[error("The account cannot be below that one")]
    AccountChain,
    /// The number of an account is too large.
    #[error("There cannot be so many accounts")]
    TooManyAccounts,
}
