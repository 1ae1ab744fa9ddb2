//! Which peer may speak for an inner address, and is therefore sent what is meant for it.
//!
//! Longest-prefix match over both families with exclusive ownership: a prefix given to one peer is
//! taken from the one that had it. Whole addresses (/32, /128), of which a gateway has one or two
//! per peer, are looked up in a hash table first, since nothing is longer than they are; shorter
//! prefixes are in a path-compressed trie. Lookups allocate nothing. What only commands need (who
//! owns what, in which order) lies in arrays of its own, away from what lookups touch.
//!
//! Nothing here knows peers: a value is whatever the caller uses for one.

mod hosts;
mod net;
#[cfg(test)]
mod tests;
mod trie;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use hosts::Hosts;
pub use net::{IpNet, NetError};
use trie::Trie;

/// Prefixes and who owns them.
#[derive(Debug)]
pub struct AllowedIps<V> {
    hosts_v4: Hosts<u32, V>,
    hosts_v6: Hosts<[u8; 16], V>,
    nets_v4: Trie<V>,
    nets_v6: Trie<V>,
    records: Vec<Record>,
    free: Vec<u32>,
    owners: HashMap<V, u32>,
    /// The newest of the records that [`AllowedIps::drop_older`] is to drop.
    older_from: u32,
}

/// What commands need to know about a prefix, and its place in the list of its owner.
#[derive(Clone, Copy, Debug)]
struct Record {
    address: [u8; 16],
    newer: u32,
    older: u32,
    prefix: u8,
    v4: bool,
}

/// No record.
const NONE: u32 = u32::MAX;

impl<V: Copy + Eq + Hash> AllowedIps<V> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hosts_v4: Hosts::new(),
            hosts_v6: Hosts::new(),
            nets_v4: Trie::new(),
            nets_v6: Trie::new(),
            records: Vec::new(),
            free: Vec::new(),
            owners: HashMap::new(),
            older_from: NONE,
        }
    }

    /// Gives `net` to `owner`; says who had it before, which may be `owner` itself.
    pub fn insert(&mut self, net: IpNet, owner: V) -> Option<V> {
        match self.entry(net) {
            Some((record, previous)) => {
                self.unlink(record, previous);
                self.link(record, owner);
                self.store(net, record, owner);
                Some(previous)
            }
            None => {
                let record = self.new_record(net);
                self.link(record, owner);
                self.store(net, record, owner);
                None
            }
        }
    }

    /// Takes `net` from `owner`; `false` if `owner` did not have exactly this prefix.
    pub fn remove(&mut self, net: IpNet, owner: V) -> bool {
        match self.entry(net) {
            Some((record, value)) if value == owner => {
                self.unlink(record, owner);
                self.erase(net);
                self.free_record(record);
                true
            }
            _ => false,
        }
    }

    /// Takes everything from `owner`. The work is proportional to what it owned.
    pub fn remove_all(&mut self, owner: V) {
        self.begin_replace(owner);
        self.drop_older(owner, usize::MAX);
    }

    /// Marks all that `owner` has now, to be dropped by [`AllowedIps::drop_older`] unless it is
    /// given again before: so a long list is replaced by and by, and what both lists name is never
    /// without its owner. One owner at a time.
    pub fn begin_replace(&mut self, owner: V) {
        self.older_from = self.owners.get(&owner).copied().unwrap_or(NONE);
    }

    /// Drops up to `count_max` of the marked prefixes of `owner`; returns how many. Fewer than
    /// `count_max` are the last.
    pub fn drop_older(&mut self, owner: V, count_max: usize) -> usize {
        let mut dropped = 0;
        while self.older_from != NONE && dropped < count_max {
            let index = self.older_from;
            let net = self.records[index as usize].net();
            // Moves the mark to the next older one.
            self.unlink(index, owner);
            self.erase(net);
            self.free_record(index);
            dropped += 1;
        }
        dropped
    }

    /// The owner of the longest prefix that holds `address`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<V> {
        match address {
            IpAddr::V4(address) => {
                let bits = address.to_bits();
                match self.hosts_v4.get(bits) {
                    Some((_, owner)) => Some(owner),
                    None => self.nets_v4.lookup(u128::from(bits) << 96),
                }
            }
            IpAddr::V6(address) => match self.hosts_v6.get(address.octets()) {
                Some((_, owner)) => Some(owner),
                None => self.nets_v6.lookup(address.to_bits()),
            },
        }
    }

    /// The owner of exactly this prefix.
    #[must_use]
    pub fn owner(&self, net: IpNet) -> Option<V> {
        self.entry(net).map(|(_, owner)| owner)
    }

    /// What `owner` has, in the order in which it was given.
    #[must_use]
    pub fn of(&self, owner: V) -> Vec<IpNet> {
        let mut nets = Vec::new();
        let mut next = self.owners.get(&owner).copied().unwrap_or(NONE);
        while next != NONE {
            let record = self.records[next as usize];
            nets.push(record.net());
            next = record.older;
        }
        nets.reverse();
        nets
    }

    /// The single addresses among the `count_max` newest prefixes of `owner`, the newest first.
    pub fn newest_hosts(&self, owner: V, count_max: usize) -> impl Iterator<Item = IpAddr> {
        let newest = self.owners.get(&owner).copied();
        let records = std::iter::successors(newest, |&index| {
            Some(self.records[index as usize].older).filter(|older| *older != NONE)
        });
        let nets = records.take(count_max).map(|index| self.records[index as usize].net());
        nets.filter(|net| net.is_host()).map(|net| net.address())
    }

    /// Number of prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }

    /// Whether there is no prefix at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held, for the ledger. The map of owners is estimated from its capacity.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.hosts_v4.memory_bytes()
            + self.hosts_v6.memory_bytes()
            + self.nets_v4.memory_bytes()
            + self.nets_v6.memory_bytes()
            + self.records.capacity() * size_of::<Record>()
            + self.free.capacity() * size_of::<u32>()
            // One control byte for each bucket, seven of eight buckets usable.
            + self.owners.capacity() * 8 / 7 * (size_of::<(V, u32)>() + 1)
    }

    /// The record and the owner of exactly `net`.
    fn entry(&self, net: IpNet) -> Option<(u32, V)> {
        match (net.address(), net.is_host()) {
            (IpAddr::V4(address), true) => self.hosts_v4.get(address.to_bits()),
            (IpAddr::V6(address), true) => self.hosts_v6.get(address.octets()),
            (IpAddr::V4(_), false) => self.nets_v4.get(net.bits(), net.prefix()),
            (IpAddr::V6(_), false) => self.nets_v6.get(net.bits(), net.prefix()),
        }
    }

    fn store(&mut self, net: IpNet, record: u32, owner: V) {
        let value = (record, owner);
        match (net.address(), net.is_host()) {
            (IpAddr::V4(address), true) => self.hosts_v4.insert(address.to_bits(), value),
            (IpAddr::V6(address), true) => self.hosts_v6.insert(address.octets(), value),
            (IpAddr::V4(_), false) => self.nets_v4.insert(net.bits(), net.prefix(), value),
            (IpAddr::V6(_), false) => self.nets_v6.insert(net.bits(), net.prefix(), value),
        }
    }

    fn erase(&mut self, net: IpNet) {
        match (net.address(), net.is_host()) {
            (IpAddr::V4(address), true) => self.hosts_v4.remove(address.to_bits()),
            (IpAddr::V6(address), true) => self.hosts_v6.remove(address.octets()),
            (IpAddr::V4(_), false) => self.nets_v4.remove(net.bits(), net.prefix()),
            (IpAddr::V6(_), false) => self.nets_v6.remove(net.bits(), net.prefix()),
        }
    }

    fn new_record(&mut self, net: IpNet) -> u32 {
        let record = Record {
            address: net.bits().to_be_bytes(),
            newer: NONE,
            older: NONE,
            prefix: net.prefix(),
            v4: net.address().is_ipv4(),
        };
        if let Some(index) = self.free.pop() {
            self.records[index as usize] = record;
            return index;
        }
        if self.records.len() == self.records.capacity() {
            // By an eighth instead of double: at 100,000 peers the slack is what counts.
            self.records.reserve_exact(self.records.len() / 8 + 8);
        }
        self.records.push(record);
        u32::try_from(self.records.len() - 1).expect("fewer than 2^32 prefixes fit in memory")
    }

    fn free_record(&mut self, index: u32) {
        self.free.push(index);
        if self.is_empty() {
            // Memory returns to the base line with the last prefix.
            *self = Self::new();
        }
    }

    /// Puts a record at the new end of its owner's list.
    fn link(&mut self, index: u32, owner: V) {
        let older = self.owners.insert(owner, index).unwrap_or(NONE);
        if let Some(record) = self.records.get_mut(older as usize) {
            record.newer = index;
        }
        let record = &mut self.records[index as usize];
        record.newer = NONE;
        record.older = older;
    }

    fn unlink(&mut self, index: u32, owner: V) {
        let Record { newer, older, .. } = self.records[index as usize];
        if self.older_from == index {
            self.older_from = older;
        }
        if let Some(record) = self.records.get_mut(older as usize) {
            record.newer = newer;
        }
        if let Some(record) = self.records.get_mut(newer as usize) {
            record.older = older;
        } else if older == NONE {
            self.owners.remove(&owner);
        } else {
            self.owners.insert(owner, older);
        }
    }
}

impl<V: Copy + Eq + Hash> Default for AllowedIps<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    fn net(&self) -> IpNet {
        IpNet::of_bits(u128::from_be_bytes(self.address), self.prefix, self.v4)
    }
}
