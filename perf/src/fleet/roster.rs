//! Who the clients of a fleet are: keys and addresses from a seed and a number.

use std::net::Ipv4Addr;

use ringway_proto::crypto::{PrivateKey, hash};

/// Inside, client 0 is here; the others follow.
const INNER_FIRST: u32 = u32::from_be_bytes([10, 0, 1, 0]);

/// Outside, the first source address is here. All of [`super::OUTER_PREFIX`] belongs to fleets.
const OUTER_FIRST: u32 = u32::from_be_bytes([10, 128, 0, 1]);

/// Where they go when they roam, in the same prefix.
const ROAMED_FIRST: u32 = u32::from_be_bytes([10, 160, 0, 1]);

/// A range of clients. Fleets of one scenario share a seed and take different ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roster {
    /// The seed of all keys; they are for tests only.
    pub seed: u64,
    /// Number of the first client among all fleets.
    pub first: u32,
    /// How many clients; at most 2^20.
    pub count: u32,
    /// How many clients share a source address, with a port each.
    pub per_source: u32,
}

impl Roster {
    /// `count` clients with an address each.
    #[must_use]
    pub const fn new(seed: u64, count: u32) -> Self {
        Self { seed, first: 0, count, per_source: 1 }
    }

    /// As many others, behind the first ones.
    #[must_use]
    pub const fn after(&self, count: u32) -> Self {
        Self { first: self.first + self.count, count, ..*self }
    }

    /// The private key of a client, numbered from 0 within this roster.
    #[must_use]
    pub fn private(&self, number: u32) -> PrivateKey {
        let (seed, number) = (self.seed.to_be_bytes(), (self.first + number).to_be_bytes());
        PrivateKey::from_bytes(hash(&[b"ringway fleet", &seed, &number]))
    }

    /// Its address inside.
    #[must_use]
    pub const fn inner(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(INNER_FIRST + self.first + number)
    }

    /// The source address of what it sends.
    #[must_use]
    pub const fn outer(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(OUTER_FIRST + self.first + number / self.per_source)
    }

    /// The source address after the fleet has moved.
    #[must_use]
    pub const fn outer_after_roaming(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(ROAMED_FIRST + self.first + number / self.per_source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_different_ranges_share_nothing() {
        let one = Roster::new(7, 100);
        let two = one.after(100);
        assert_eq!(two.inner(0), Ipv4Addr::new(10, 0, 1, 100));
        assert_ne!(one.outer(99), two.outer(0));
        assert_eq!(Roster { count: 101, ..one }.private(100).public(), two.private(0).public());
    }

    #[test]
    fn neighbours_share_an_address_where_told() {
        let roster = Roster { per_source: 32, ..Roster::new(7, 100) };
        assert_eq!(roster.outer(0), roster.outer(31));
        assert_ne!(roster.outer(31), roster.outer(32));
    }
}
