#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A list searched from end to end.
#[derive(Default)]
struct Plain(Vec<(IpNet, u8)>);

impl Plain {
    fn insert(&mut self, net: IpNet, owner: u8) -> Option<u8> {
        let previous = self.0.iter().position(|entry| entry.0 == net).map(|at| self.0.remove(at).1);
        self.0.push((net, owner));
        previous
    }

    fn remove(&mut self, net: IpNet, owner: u8) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| *entry != (net, owner));
        self.0.len() < before
    }

    fn lookup(&self, address: IpAddr) -> Option<u8> {
        let holding = self.0.iter().filter(|(net, _)| net.contains(address));
        holding.max_by_key(|(net, _)| net.prefix()).map(|entry| entry.1)
    }

    fn of(&self, owner: u8) -> Vec<IpNet> {
        self.0.iter().filter(|entry| entry.1 == owner).map(|entry| entry.0).collect()
    }
}

/// Addresses that share many leading bits with each other, so that prefixes nest.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u32..16, 0u32..32).prop_map(|(low, shift)| {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 ^ low.rotate_right(shift)))
    });
    let v6 = (0u128..16, 0u32..128).prop_map(|(low, shift)| {
        IpAddr::V6(Ipv6Addr::from_bits((0xfd << 120) ^ low.rotate_right(shift)))
    });
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), prop_oneof![Just(128u8), 0u8..=128]).prop_map(|(address, prefix)| {
        let width = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, prefix.min(width)).unwrap()
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(IpNet, u8),
    Remove(IpNet, u8),
    RemoveSome(usize),
    RemoveAll(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prefix(), 0u8..4).prop_map(|(net, owner)| Step::Insert(net, owner)),
        2 => (prefix(), 0u8..4).prop_map(|(net, owner)| Step::Remove(net, owner)),
        3 => any::<usize>().prop_map(Step::RemoveSome),
        1 => (0u8..4).prop_map(Step::RemoveAll),
    ]
}

proptest! {
    #[test]
    fn it_answers_like_a_list_searched_from_end_to_end(
        steps in proptest::collection::vec(step(), 0..120),
        addresses in proptest::collection::vec(address(), 40),
    ) {
        let (mut table, mut plain) = (AllowedIps::new(), Plain::default());
        for step in steps {
            match step {
                Step::Insert(net, owner) => {
                    prop_assert_eq!(table.insert(net, owner), plain.insert(net, owner));
                }
                Step::Remove(net, owner) => {
                    prop_assert_eq!(table.remove(net, owner), plain.remove(net, owner));
                }
                Step::RemoveSome(at) if !plain.0.is_empty() => {
                    let (net, owner) = plain.0[at % plain.0.len()];
                    prop_assert!(!table.remove(net, owner + 1));
                    prop_assert!(table.remove(net, owner));
                    plain.remove(net, owner);
                }
                Step::RemoveSome(_) => {}
                Step::RemoveAll(owner) => {
                    table.remove_all(owner);
                    plain.0.retain(|entry| entry.1 != owner);
                }
            }
            prop_assert_eq!(table.len(), plain.0.len());
        }
        for address in addresses {
            prop_assert_eq!(table.lookup(address), plain.lookup(address), "{}", address);
        }
        for owner in 0..4 {
            prop_assert_eq!(table.of(owner), plain.of(owner));
        }
    }

    #[test]
    fn a_list_replaced_by_and_by_ends_like_one_replaced_at_once(
        before in proptest::collection::vec((prefix(), 0u8..3), 0..40),
        list in proptest::collection::vec((prefix(), any::<bool>()), 0..40),
        portion in 1..9_usize,
    ) {
        let (mut table, mut at_once) = (AllowedIps::new(), AllowedIps::new());
        for (net, owner) in before {
            table.insert(net, owner);
            at_once.insert(net, owner);
        }
        let had = table.of(0);
        at_once.remove_all(0);
        table.begin_replace(0);
        for (net, keep) in &list {
            if *keep {
                at_once.insert(*net, 0);
                table.insert(*net, 0);
            } else {
                at_once.remove(*net, 0);
                table.remove(*net, 0);
            }
            // What is in both lists never loses its owner.
            let kept = |net: &&IpNet| !list.iter().any(|(other, keep)| other == *net && !keep);
            for net in had.iter().filter(|net| list.contains(&(**net, true))).filter(kept) {
                prop_assert_eq!(table.owner(*net), Some(0));
            }
        }
        while table.drop_older(0, portion) == portion {}
        prop_assert_eq!(table.len(), at_once.len());
        for owner in 0..3 {
            prop_assert_eq!(table.of(owner), at_once.of(owner));
        }
        let hosts: Vec<_> = table.newest_hosts(0, 5).collect();
        let newest = table.of(0).into_iter().rev().take(5);
        let expected: Vec<_> =
            newest.filter(|net| net.is_host()).map(|net| net.address()).collect();
        prop_assert_eq!(hosts, expected);
    }

    #[test]
    fn a_prefix_reads_back_what_it_prints(net in prefix()) {
        prop_assert_eq!(net.to_string().parse::<IpNet>().unwrap(), net);
    }

    #[test]
    fn a_full_host_table_finds_all_and_only_its_own(
        keys in proptest::collection::hash_set(0u32..5000, 0..600), gone in 1u32..7,
    ) {
        let mut hosts = Hosts::new();
        for &key in &keys {
            hosts.insert(key, (key, key));
        }
        for &key in keys.iter().filter(|key| *key % gone == 0) {
            hosts.remove(key);
        }
        for key in 0..5000u32 {
            let expected = keys.contains(&key) && !key.is_multiple_of(gone);
            prop_assert_eq!(hosts.get(key), expected.then_some((key, key)));
        }
    }
}

/// The scenario of the kernel's self-test (drivers/net/wireguard/selftest/allowedips.c), by facts.
#[test]
fn the_longest_prefix_wins_in_both_families() {
    let mut table = AllowedIps::new();
    for (owner, nets) in [
        ('a', &["192.168.4.0/24", "192.168.0.0/16", "2607:5300:6000:6b00::c05f:543/128"][..]),
        ('b', &["192.168.4.4/32", "::/0", "192.95.5.93/27", "2404:6800:4004:806::/64"]),
        ('c', &["192.95.5.67/27", "1.0.0.0/8", "2404:6800:4004:800::/64"]),
        ('d', &["64.15.112.0/20", "64.15.123.211/25", "2404:6800:4004:806::1006/128"]),
        ('e', &["64.15.123.128/25", "10.0.0.0/25", "2404:6800:4004:806::1007/120"]),
        ('f', &["10.0.0.128/25"]),
        ('g', &["0.0.0.0/0"]),
    ] {
        for text in nets {
            table.insert(net(text), owner);
        }
    }
    for (address, owner) in [
        ("192.168.4.20", 'a'),
        ("192.168.200.182", 'a'),
        ("192.168.4.4", 'b'),
        ("192.95.5.68", 'c'),
        ("192.95.5.96", 'g'),
        ("1.2.3.4", 'c'),
        ("64.15.123.129", 'e'),
        ("64.15.113.7", 'd'),
        ("10.0.0.52", 'e'),
        ("10.0.0.220", 'f'),
        ("2607:5300:6000:6b00::c05f:543", 'a'),
        ("2607:5300:6000:6b00::c02e:1ee", 'b'),
        ("2404:6800:4004:806::1006", 'd'),
        ("2404:6800:4004:806::1056", 'e'),
        ("2404:6800:4004:806:2000::", 'b'),
        ("2404:6800:4004:800::7", 'c'),
    ] {
        assert_eq!(table.lookup(ip(address)), Some(owner), "{address}");
    }
}

#[test]
fn removing_a_peer_uncovers_what_it_covered() {
    let mut table = AllowedIps::new();
    table.insert(net("1.0.0.0/32"), 'a');
    table.insert(net("64.0.0.0/32"), 'a');
    table.insert(net("128.0.0.0/32"), 'a');
    table.insert(net("192.0.0.0/32"), 'a');
    table.insert(net("255.0.0.0/32"), 'a');
    table.remove_all('a');
    assert!(table.is_empty());
    assert_eq!(table.memory_bytes(), 0);
    table.insert(net("192.168.0.0/16"), 'a');
    table.insert(net("192.168.0.0/24"), 'a');
    table.insert(net("192.168.0.0/20"), 'b');
    table.remove_all('a');
    assert_eq!(table.lookup(ip("192.168.0.1")), Some('b'));
    assert_eq!(table.lookup(ip("192.168.16.1")), None);
}

#[test]
fn a_prefix_has_one_owner_at_a_time() {
    let mut table = AllowedIps::new();
    assert_eq!(table.insert(net("10.0.0.0/8"), 'a'), None);
    assert_eq!(table.insert(net("10.0.0.1"), 'a'), None);
    assert_eq!(table.insert(net("10.9.9.9/8"), 'b'), Some('a'));
    assert_eq!(table.insert(net("10.0.0.1/32"), 'b'), Some('a'));
    assert_eq!(table.of('a'), []);
    assert_eq!(table.of('b'), [net("10.0.0.0/8"), net("10.0.0.1")]);
    assert!(!table.remove(net("10.0.0.0/8"), 'a'));
    assert_eq!(table.len(), 2);
}

#[test]
fn an_empty_prefix_holds_its_family_and_not_the_other() {
    let mut table = AllowedIps::new();
    table.insert(net("0.0.0.0/0"), 4);
    assert_eq!(table.lookup(ip("255.255.255.255")), Some(4));
    assert_eq!(table.lookup(ip("::")), None);
    assert_eq!(table.lookup(ip("::ffff:1.2.3.4")), None);
    table.insert(net("::/0"), 6);
    assert_eq!(table.lookup(ip("::")), Some(6));
    assert_eq!(table.lookup(ip("0.0.0.0")), Some(4));
}

#[test]
fn what_is_no_prefix_is_refused_with_the_reason() {
    for text in ["", "/8", "10.0.0/8", "10.0.0.0.0", "fd00::g", " 10.0.0.1"] {
        assert!(matches!(text.parse::<IpNet>(), Err(NetError::Address(_))), "{text}");
    }
    for text in ["10.0.0.0/33", "10.0.0.0/", "fd00::/129", "fd00::/-1", "10.0.0.0/+8", "::/8/8"] {
        assert!(matches!(text.parse::<IpNet>(), Err(NetError::Prefix(..))), "{text}");
    }
    assert_eq!(
        "10.0.0.0/33".parse::<IpNet>().unwrap_err().to_string(),
        "\"33\" is not a prefix length from 0 to 32"
    );
    assert_eq!(net("10.1.2.3/8").to_string(), "10.0.0.0/8");
    assert_eq!(net("fd00::1").to_string(), "fd00::1/128");
}

#[test]
fn a_hundred_thousand_peers_of_one_family_take_at_most_a_hundred_bytes_each() {
    use crate::PeerId;
    const PEERS: u32 = 100_000;
    let owner = |slot| PeerId { slot, generation: 0 };
    let mut v4 = AllowedIps::new();
    let mut v6 = AllowedIps::new();
    for slot in 0..PEERS {
        let v4_address = Ipv4Addr::from_bits(0x0a40_0000 + slot);
        let v6_address = Ipv6Addr::from_bits((0xfd00_1234 << 96) + u128::from(slot));
        v4.insert(IpNet::host(IpAddr::V4(v4_address)), owner(slot));
        v6.insert(IpNet::host(IpAddr::V6(v6_address)), owner(slot));
    }
    assert!(v4.memory_bytes() <= 100 * PEERS as usize, "{}", v4.memory_bytes());
    assert!(v6.memory_bytes() <= 100 * PEERS as usize, "{}", v6.memory_bytes());
    assert_eq!(v4.lookup(ip("10.64.0.7")), Some(owner(7)));
    assert_eq!(v6.lookup(ip("fd00:1234::ffff")), Some(owner(0xffff)));
    assert_eq!(v6.lookup(ip("fd00:1234:1::ffff")), None);
}
