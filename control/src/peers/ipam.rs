//! Which inner addresses are free.
//!
//! A pool is a prefix; its first address is the gateway's. Clients get the lowest free number, and
//! the same number in both families where it is free in both, so that `10.77.0.5` and `fd…::5` are
//! one client. There is no state beside the configuration itself.

use std::collections::HashSet;
use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;

use crate::config::Interface;

/// Clients that a configuration may have without pools, and the most that is counted with them.
const CLIENTS_MAX: u32 = 1_000_000;

/// The first address of a pool, which is the gateway's.
#[must_use]
pub fn gateway_address(pool: IpNet) -> IpAddr {
    // A pool of a single address has no second one; its only address will do.
    address(pool, 1).unwrap_or_else(|| pool.address())
}

/// How many clients the smaller pool holds.
#[must_use]
pub fn capacity(interface: &Interface) -> u32 {
    interface.pools().map(clients).min().unwrap_or(CLIENTS_MAX)
}

/// The pools are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The pool {0} has no free address: remove a peer, or write a larger pool in [interface]")]
pub struct PoolFull(pub IpNet);

/// Finds inner addresses for one more client: one of each pool, as host prefixes, IPv4 first.
///
/// `taken` is what peers have already; an address inside a wider prefix of a peer is taken too.
///
/// # Errors
/// [`PoolFull`] if a pool has no free address left.
pub fn allocate(interface: &Interface, taken: &[IpNet]) -> Result<Vec<IpNet>, PoolFull> {
    let pools: Vec<IpNet> = interface.pools().collect();
    let taken = Taken::new(interface, taken);
    let free = |pool: IpNet, number: u32| -> Option<IpAddr> {
        address(pool, number).filter(|candidate| !taken.holds(*candidate))
    };
    let common = 2..=capacity(interface) + 1;
    let same_number = common.into_iter().find_map(|number| {
        pools.iter().map(|pool| free(*pool, number)).collect::<Option<Vec<IpAddr>>>()
    });
    if let Some(addresses) = same_number {
        return Ok(addresses.into_iter().map(IpNet::host).collect());
    }
    let lowest = |pool: &IpNet| {
        let found = (2..=clients(*pool) + 1).find_map(|number| free(*pool, number));
        found.map(IpNet::host).ok_or(PoolFull(*pool))
    };
    pools.iter().map(lowest).collect()
}

/// Addresses that somebody has. Peers mostly have whole addresses, so those are looked up.
struct Taken {
    hosts: HashSet<IpAddr>,
    nets: Vec<IpNet>,
}

impl Taken {
    fn new(interface: &Interface, peers: &[IpNet]) -> Self {
        let own = interface.addresses.iter().map(|own| IpNet::host(own.address));
        let (hosts, nets): (Vec<IpNet>, Vec<IpNet>) =
            peers.iter().copied().chain(own).partition(|net| net.is_host());
        Self { hosts: hosts.into_iter().map(IpNet::address).collect(), nets }
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.hosts.contains(&address) || self.nets.iter().any(|net| net.contains(address))
    }
}

/// Clients that a pool holds: all but the network itself, the gateway and, in IPv4, the broadcast
/// address; at most [`CLIENTS_MAX`].
fn clients(pool: IpNet) -> u32 {
    let (bits, reserved) = if pool.address().is_ipv4() { (32, 3) } else { (128, 2) };
    let size = 1_u64 << u32::from(bits - pool.prefix()).min(40);
    u32::try_from(size.saturating_sub(reserved)).unwrap_or(CLIENTS_MAX).min(CLIENTS_MAX)
}

/// The address with this number in the pool; 0 is the network itself.
fn address(pool: IpNet, number: u32) -> Option<IpAddr> {
    let address = match pool.address() {
        IpAddr::V4(base) => IpAddr::V4(base.to_bits().checked_add(number)?.into()),
        IpAddr::V6(base) => IpAddr::V6(base.to_bits().checked_add(u128::from(number))?.into()),
    };
    pool.contains(address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use proptest::prelude::*;

    fn interface(pools: &str) -> Interface {
        let text = format!("[interface]\npools = {pools}\n");
        Config::parse(&text, "t", "/".as_ref(), &Overrides::default()).unwrap().interface
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_client_has_number_two_in_both_families() {
        let interface = interface("[\"10.77.0.0/24\", \"fd00::/64\"]");
        assert_eq!(allocate(&interface, &[]), Ok(nets(&["10.77.0.2/32", "fd00::2/128"])));
    }

    #[test]
    fn a_gap_is_filled_with_the_same_number_in_both_families() {
        let interface = interface("[\"10.77.0.0/24\", \"fd00::/64\"]");
        let taken = nets(&["10.77.0.2/32", "fd00::3/128", "10.77.0.5/32", "10.77.0.4/32"]);
        assert_eq!(allocate(&interface, &taken), Ok(nets(&["10.77.0.6/32", "fd00::6/128"])));
    }

    #[test]
    fn addresses_inside_a_peers_wider_prefix_are_taken() {
        let interface = interface("[\"10.77.0.0/24\"]");
        let taken = nets(&["10.77.0.0/29"]);
        assert_eq!(allocate(&interface, &taken), Ok(nets(&["10.77.0.8/32"])));
    }

    #[test]
    fn a_default_route_of_a_peer_does_not_fit_with_an_automatic_address() {
        let interface = interface("[\"10.77.0.0/24\"]");
        assert!(allocate(&interface, &nets(&["0.0.0.0/0"])).is_err());
    }

    #[test]
    fn a_full_pool_says_so_and_never_gives_the_broadcast_address() {
        let interface = interface("[\"10.77.0.0/29\"]");
        let mut taken = Vec::new();
        while let Ok(free) = allocate(&interface, &taken) {
            taken.extend(free);
        }
        assert_eq!(taken.len(), capacity(&interface) as usize);
        assert_eq!(taken.last(), Some(&"10.77.0.6/32".parse().unwrap()));
        let error = allocate(&interface, &taken).unwrap_err();
        assert!(error.to_string().contains("10.77.0.0/29"), "{error}");
    }

    proptest! {
        #[test]
        fn no_two_clients_ever_share_an_address(prefix in 24_u8..=28, prefix6 in 112_u8..=124) {
            let interface =
                interface(&format!("[\"10.0.0.0/{prefix}\", \"fd00::/{prefix6}\"]"));
            let mut taken: Vec<IpNet> = Vec::new();
            while let Ok(free) = allocate(&interface, &taken) {
                prop_assert_eq!(free.len(), 2);
                taken.extend(free);
            }
            let unique: HashSet<&IpNet> = taken.iter().collect();
            prop_assert_eq!(unique.len(), taken.len());
            prop_assert_eq!(taken.len() as u32 / 2, capacity(&interface));
        }
    }
}
