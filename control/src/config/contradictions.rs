//! What single values cannot show: options and peers that contradict each other.
//!
//! An error is what cannot work or would silently do something else; a warning is what can work
//! and is probably not meant. A peer's prefix outside the pools is a warning: whole networks
//! behind a peer are legitimate, but nothing routes them to the tunnel by itself.

use std::collections::HashMap;
use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;

use super::read::{Places, Reader};
use super::types::{Config, InterfaceAddress, SpinChoice, SteeringChoice, WorkerCount};
use crate::keys;
use crate::peers::ipam;

/// Notes every contradiction in `reader`.
pub(super) fn find(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    pools(reader, places);
    addresses(reader, config, places);
    sockets(reader, config, places);
    limits(reader, config, places);
    workers(reader, config, places);
    peers(reader, config, places);
    prefixes(reader, config, places);
    if config.exit.masquerade && places.pools.is_empty() {
        let message = "masquerade = true without pools hides nothing: add pools, or write \
                       masquerade = false in [exit]";
        reader.warn(&(0..0), message.to_owned());
    }
}

fn pools(reader: &mut Reader<'_>, places: &Places) {
    for (i, (pool, at)) in places.pools.iter().enumerate() {
        let v4 = pool.address().is_ipv4();
        for (earlier, _) in &places.pools[..i] {
            if earlier.contains(pool.address()) || pool.contains(earlier.address()) {
                let message = format!("pools {earlier} and {pool} overlap: keep the larger one");
                reader.refuse(at, message);
            } else if earlier.address().is_ipv4() == v4 {
                let message = format!(
                    "pools {earlier} and {pool} are of one family: write one IPv4 and one IPv6 \
                     pool, the larger the better"
                );
                reader.refuse(at, message);
            }
        }
        let longest = if v4 { 30 } else { 126 };
        if pool.prefix() > longest {
            let message = format!("pool {pool} has no room for a client: write /{longest} or less");
            reader.refuse(at, message);
        }
        let shortest = if v4 { 8 } else { 16 };
        if pool.prefix() < shortest || !is_usable(pool.address()) {
            let message = format!(
                "pool {pool} is not a range for clients: write a private one, such as \
                 10.77.0.0/24 or fd12:3456:789a::/64"
            );
            reader.refuse(at, message);
        }
    }
}

fn is_usable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// What an IPv4 address is that no host of its network may have. The last two prefixes have no
/// such address (RFC 3021).
fn names_no_host(address: &InterfaceAddress) -> Option<&'static str> {
    let IpAddr::V4(v4) = address.address else { return None };
    let host = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
    match v4.to_bits() & host {
        _ if address.prefix > 30 => None,
        0 => Some("address"),
        all if all == host => Some("broadcast address"),
        _ => None,
    }
}

fn net_of(address: &InterfaceAddress) -> IpNet {
    IpNet::new(address.address, address.prefix).unwrap_or_else(|| IpNet::host(address.address))
}

fn sockets(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let (Some(api), stats) = (&config.api.socket, &config.stats.socket) else { return };
    if api == stats {
        let message = format!(
            "the socket {} cannot be that of [stats] and that of [api]: write another one",
            stats.display()
        );
        reader.refuse(&places.sockets, message);
    }
}

fn addresses(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let interface = &config.interface;
    for address in &interface.addresses {
        if !is_usable(address.address) {
            let message = format!("{address} cannot be an address of the gateway: write another");
            reader.refuse(&places.addresses, message);
        }
        if let Some(what) = names_no_host(address) {
            let message = format!(
                "{address} is the {what} of its network, not a host in it: write for example \
                 \"{}/{}\"",
                ipam::gateway_address(net_of(address)),
                address.prefix
            );
            reader.refuse(&places.addresses, message);
        }
    }
    for pool in interface.pools() {
        let routed = interface.addresses.iter().any(|address| {
            address.prefix <= pool.prefix()
                && IpNet::new(address.address, address.prefix)
                    .is_some_and(|net| net.contains(pool.address()))
        });
        if !routed {
            let example = ipam::gateway_address(pool);
            let message = format!(
                "no address in addresses covers the pool {pool}, so its clients could not be \
                 reached: add \"{example}/{}\"",
                pool.prefix()
            );
            reader.refuse(&places.addresses, message);
        }
    }
    if interface.mtu < 1280 && interface.addresses.iter().any(|address| address.address.is_ipv6()) {
        let message = format!(
            "mtu = {} is below the 1280 bytes that IPv6 needs: write 1280 or more, or leave IPv6 \
             out of pools and addresses",
            interface.mtu
        );
        reader.refuse(&places.mtu, message);
    }
}

fn limits(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let capacity = ipam::capacity(&config.interface);
    let peers_max = config.limits.peers_max;
    let Some(at) = &places.peers_max else { return };
    if peers_max > capacity {
        let message = format!(
            "peers_max = {peers_max} is more than the {capacity} clients that the pools hold: \
             write {capacity}, or larger pools in [interface]"
        );
        reader.refuse(at, message);
    }
    if config.peers.len() > peers_max as usize {
        let message = format!(
            "peers_max = {peers_max} is less than the {} peers in this file: write at least that",
            config.peers.len()
        );
        reader.refuse(at, message);
    }
}

fn workers(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let workers = &config.workers;
    if workers.count == WorkerCount::Exactly(1) && workers.steering == SteeringChoice::Off {
        let message = "steering = \"off\" changes nothing with one worker: write a larger count, \
                       or leave steering out";
        reader.warn(&places.steering, message.to_owned());
    }
    if let SpinChoice::Micros(us @ 1..) = workers.spin_us
        && workers.oversubscribe
    {
        let message = format!(
            "spin_us = {us} with oversubscribe = true takes the CPU from the other workers: write 0"
        );
        reader.warn(&places.spin_us, message);
    }
    let Some(cpus) = &workers.cpus else { return };
    if let WorkerCount::Exactly(count) = workers.count
        && usize::from(count) > cpus.len()
        && !workers.oversubscribe
    {
        let message = format!(
            "{count} workers do not fit on {} CPUs: write count = {}, name more in cpus, or \
             oversubscribe = true for a test",
            cpus.len(),
            cpus.len()
        );
        reader.refuse(&places.workers, message);
    }
    if let Some(control) = workers.control_cpu
        && cpus.contains(control)
    {
        let message =
            format!("control_cpu {control} is also in cpus: control will disturb a worker");
        reader.warn(&places.workers, message);
    }
}

fn peers(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let mut keys = HashMap::new();
    let mut names = HashMap::new();
    for (peer, at) in config.peers.iter().zip(&places.peers) {
        if let Some(line) = keys.insert(peer.public, peer.line) {
            let key = keys::show_public(&peer.public);
            let message = format!(
                "public_key {key} belongs to the peer of line {line} too: remove one of them"
            );
            reader.refuse(&at.public_key, message);
        }
        if peer.name.is_empty() {
            continue;
        }
        if let Some(line) = names.insert(&peer.name, peer.line) {
            let message = format!(
                "name \"{}\" belongs to the peer of line {line} too: rename one of them",
                peer.name
            );
            reader.refuse(&at.name, message);
        }
    }
}

fn prefixes(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let interface = &config.interface;
    let mut owners: HashMap<IpNet, usize> = HashMap::new();
    for (peer, at) in config.peers.iter().zip(&places.peers) {
        for (net, at) in peer.allowed_ips.iter().zip(&at.allowed_ips) {
            let own = interface.addresses.iter().any(|own| IpNet::host(own.address) == *net);
            if let Some(line) = owners.insert(*net, peer.line) {
                let message = format!(
                    "{net} belongs to the peer of line {line} too: one prefix has one peer"
                );
                reader.refuse(at, message);
            } else if own {
                let message = format!(
                    "{net} is the gateway's own address: give the peer another one of the pool"
                );
                reader.refuse(at, message);
            } else if !interface.pools().any(|pool| holds(pool, *net)) {
                let message = format!(
                    "{net} is in no pool: only what you route to {} reaches the peer, and it is \
                     not masqueraded",
                    interface.name
                );
                reader.warn(at, message);
            }
        }
    }
}

/// Whether all of `inner` is in `outer`.
fn holds(outer: IpNet, inner: IpNet) -> bool {
    inner.prefix() >= outer.prefix() && outer.contains(inner.address())
}
