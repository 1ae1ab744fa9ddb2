//! The language of configuration: one small step each, applied in order.
//!
//! It is as fine as the lines of the WireGuard configuration protocol, because their order matters
//! (a prefix given before `replace_allowed_ips` is taken away again). The configuration file is
//! translated into the same steps, so there is one way to change a peer.

use std::fmt;
use std::net::SocketAddr;

use ringway_proto::AccountId;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use zeroize::Zeroizing;

use super::Account;

/// One step. Steps from [`Operation::Peer`] on are about the peer named last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the gateway's private key; all zeros remove it.
    PrivateKey(Secret),
    /// UDP port to listen on; 0 lets the kernel choose.
    ListenPort(u16),
    /// Firewall mark on everything the gateway sends outside; 0 is none.
    Fwmark(u32),
    /// Removes all peers.
    ReplacePeers,
    /// Makes an account, or changes one. The peer named last stays that.
    PutAccount(AccountId, Box<Account>),
    /// Removes an account. One that peers or other accounts use is refused, and stays.
    RemoveAccount(AccountId),
    /// Names the peer that the steps after it are about, and creates it if it is not there.
    Peer(PublicKey),
    /// Takes a creation by the [`Operation::Peer`] before it back.
    UpdateOnly,
    /// Removes the peer.
    Remove,
    /// Sets the preshared key; all zeros remove it.
    Preshared(PresharedKey),
    /// Where the peer is expected.
    Endpoint(SocketAddr),
    /// Seconds between persistent keepalives; 0 turns them off.
    Keepalive(u16),
    /// The account that limits and meters the peer, or that none does.
    Account(Option<AccountId>),
    /// Takes all allowed IPs from the peer.
    ReplaceAllowedIps,
    /// Gives the prefix to the peer, whoever had it.
    AllowedIp(IpNet),
    /// Takes the prefix from the peer, if it has it.
    RemoveAllowedIp(IpNet),
}

/// The bytes of a private key: erased when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<Zeroizing<[u8; 32]>>); // in a box: moving a step leaves no copy behind

impl Secret {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Box::new(Zeroizing::new(bytes)))
    }

    /// The bytes; the copy is the caller's to erase.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        **self.0
    }

    /// Whether this stands for "no key".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
