//! What the directory has to know of the configuration: the gateway's own key and addresses, the
//! peers of the file, and what goes into client files.
//!
//! Plain data, made from a checked configuration at start and at every reload, so that the
//! directory can be tested without one.

use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;

use crate::config::{Config, InterfaceAddress};
use crate::peers;

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The gateway's public key.
    pub gateway: PublicKey,
    /// The gateway's inner addresses with their prefixes.
    pub addresses: Vec<InterfaceAddress>,
    /// `[interface] pools`, of which the pool `default` is made.
    pub pool4: Option<IpNet>,
    /// As `pool4`.
    pub pool6: Option<IpNet>,
    /// `[limits] peers_max`.
    pub peers_max: u32,
    /// Peers of the configuration file.
    pub peers: Vec<FilePeer>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// `HOST:PORT` of this gateway as clients reach it; none if nobody knows.
    pub endpoint: Option<String>,
    /// What clients send into the tunnel, unless their policy says otherwise.
    pub allowed_ips: Vec<IpNet>,
    /// DNS servers of clients, unless their policy says otherwise.
    pub dns: Vec<IpAddr>,
    /// Seconds between keepalives of clients, 0 for off.
    pub keepalive_s: u16,
    /// Where people reach the API: `https://vpn.example.org`, for one-time links.
    pub portal: Option<String>,
    /// Whether what people sign in with says in which group they are.
    pub groups_from_credentials: bool,
}

/// A peer of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePeer {
    /// What the operator calls it.
    pub name: String,
    /// Its key.
    pub public: PublicKey,
    /// What it may use.
    pub nets: Vec<IpNet>,
}

impl Surroundings {
    /// From a checked configuration, the gateway's key, and where people reach the API.
    #[must_use]
    pub fn of(config: &Config, gateway: PublicKey, portal: Option<String>) -> Self {
        let interface = &config.interface;
        let peer = |peer: &crate::config::Peer| FilePeer {
            name: peer.name.clone(),
            public: peer.public,
            nets: peer.allowed_ips.clone(),
        };
        let guess = || peers::guessed_endpoint(interface.listen_port);
        Self {
            gateway,
            addresses: interface.addresses.clone(),
            pool4: interface.pool4,
            pool6: interface.pool6,
            peers_max: config.limits.peers_max,
            peers: config.peers.iter().map(peer).collect(),
            mtu: interface.mtu,
            endpoint: config.clients.endpoint.clone().or_else(guess),
            allowed_ips: config.clients.allowed_ips.clone(),
            dns: config.clients.dns.clone(),
            keepalive_s: config.clients.keepalive_s,
            portal: portal.map(|url| url.trim_end_matches('/').to_owned()),
            groups_from_credentials: config.sign_in.groups_from_credentials,
        }
    }

    /// What of `net` somebody else has: the gateway's own addresses and what peers of the file use.
    pub(super) fn taken_in(&self, net: IpNet) -> impl Iterator<Item = IpNet> + '_ {
        let own = self.addresses.iter().map(|own| IpNet::host(own.address));
        let peers = self.peers.iter().flat_map(|peer| peer.nets.iter().copied());
        own.chain(peers).filter(move |taken| overlap(*taken, net))
    }

    /// Whether an address of the interface has a prefix that holds all of `net`.
    pub(super) fn reaches(&self, net: IpNet) -> bool {
        let prefixes = self.addresses.iter().filter_map(|own| IpNet::new(own.address, own.prefix));
        prefixes.into_iter().any(|prefix| holds(prefix, net))
    }
}

/// Whether `outer` holds all of `inner`.
#[must_use]
pub fn holds(outer: IpNet, inner: IpNet) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.address())
}

/// Whether two prefixes have an address in common.
#[must_use]
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    holds(one, other) || holds(other, one)
}
