//! The table of inner addresses against a list that is searched from end to end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::allowed_ips::{AllowedIps, IpNet};

use super::input::Input;

/// Insertions, removals and look-ups give what a plain list gives.
pub(crate) fn the_table_agrees_with_a_list(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut table = AllowedIps::new();
    let mut list: Vec<(IpNet, u8)> = Vec::new();
    while !input.is_empty() {
        let owner = input.byte() % 5;
        match input.byte() % 8 {
            0..=3 => {
                let net = net(&mut input);
                let previous = table.insert(net, owner);
                let listed = list.iter().position(|(other, _)| *other == net);
                assert_eq!(previous, listed.map(|at| list.remove(at).1));
                list.push((net, owner));
            }
            4 => {
                let net = net(&mut input);
                let listed = list.iter().position(|entry| *entry == (net, owner));
                assert_eq!(table.remove(net, owner), listed.is_some());
                listed.map(|at| list.remove(at));
            }
            5 => {
                table.remove_all(owner);
                list.retain(|(_, other)| *other != owner);
            }
            6 => {
                let address = address(&mut input);
                let holding = list.iter().filter(|(net, _)| net.contains(address));
                let longest = holding.max_by_key(|(net, _)| net.prefix());
                assert_eq!(table.lookup(address), longest.map(|(_, owner)| *owner));
            }
            _ => {
                let mine = list.iter().filter(|(_, other)| *other == owner);
                assert_eq!(table.of(owner), mine.map(|(net, _)| *net).collect::<Vec<_>>());
            }
        }
        assert_eq!(table.len(), list.len());
        assert_eq!(table.is_empty(), list.is_empty());
    }
}

fn net(input: &mut Input<'_>) -> IpNet {
    let address = address(input);
    let width = if address.is_ipv4() { 32 } else { 128 };
    let net = IpNet::new(address, input.byte() % (width + 1)).expect("within the width");
    assert_eq!(net.to_string().parse(), Ok(net));
    net
}

/// Few addresses, so that prefixes nest and collide.
fn address(input: &mut Input<'_>) -> IpAddr {
    let (family, high, low) = (input.byte(), input.byte(), input.byte());
    if family.is_multiple_of(2) {
        IpAddr::V4(Ipv4Addr::new(high, 0, 0, low))
    } else {
        let mut octets = [0; 16];
        octets[usize::from(family / 2) % 16] = high;
        octets[15] = low;
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}
