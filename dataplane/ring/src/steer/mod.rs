//! Who gets what, decided by the kernel before any core wakes.
//!
//! Every core has its own sockets on the one port and its own queue of the one TUN. Two programs
//! choose among them: [`Steering`] (classic BPF on the group of sockets; no privilege needed) reads
//! the owner out of the index that a datagram carries, and [`TunSteering`] (extended BPF, written
//! by hand) looks up whose prefix an inner destination is. Where the kernel refuses either, it
//! spreads by a hash of its own and cores hand over what is not theirs: steering saves crossings,
//! it does not decide what is right.
//!
//! Reading order: here (what a rule is, and in plain Rust what the program does), `classic` (the
//! program of sockets), [`tun`] (that of the TUN), `assembler` and `bpf` (what it is made with).
//! This module must not know what datagrams mean: rules come as numbers.

mod assembler;
mod bpf;
mod classic;
pub mod tun;

pub(crate) use classic::{NOTHING, program};
pub use tun::{TunSteering, TunSteeringError};

use std::net::IpAddr;

/// Cores a group can have: their number is read from the upper half of the index.
pub const CORES_MAX: u16 = 1 << 13;

/// Rules a steering can have, so that the program stays far below the kernel's 4,096 instructions.
pub const RULES_MAX: usize = 16;

/// One kind of datagram that carries an index of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its first four bytes as a big-endian number, reserved bytes included.
    pub first_word: u32,
    /// Its fewest bytes; at least four more than `index_at`, and at least four.
    pub bytes_min: u32,
    /// Its most bytes.
    pub bytes_max: u32,
    /// Where the index is: four bytes, little-endian.
    pub index_at: u32,
}

/// How an index tells its owner: `(index ^ secret) >> (32 - core_bits)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// How many cores there are, at least one, at most [`CORES_MAX`].
    pub cores: u16,
    /// Bits of the index that hold the core, at most 16.
    pub core_bits: u32,
    /// What masks the index.
    pub secret: u32,
}

/// Which socket of a group gets a datagram.
///
/// Sockets 0..cores are the data bank, cores..2·cores the bank of initiations, both in order of
/// cores. A datagram that matches a rule goes to the data socket of the core in its index; all
/// others, and those whose core does not exist, to the initiations of the core that their source
/// address falls to, so that one source is always judged by the same core. A super-packet goes
/// where its first datagram belongs, as its length is that of all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// What carries an index; the first rule that matches and names a core counts.
    pub rules: Vec<Rule>,
    /// What an index says.
    pub owner: Owner,
}

impl Steering {
    /// The number of the socket that gets `datagram` (as received: several merged ones are one)
    /// from `source`. The kernel's program does the same; this form is for tests and for cores that
    /// are asked whose a datagram is.
    #[must_use]
    pub fn socket_of(&self, datagram: &[u8], source: IpAddr) -> u16 {
        let mut matching = self.rules.iter().filter(|rule| rule.matches(datagram));
        let owner = matching.find_map(|rule| self.owner.of(rule.index(datagram)?));
        owner.unwrap_or_else(|| self.owner.cores + self.core_of_source(source))
    }

    /// The core that judges what comes from `source`: by its IPv4 address, or the first 64 bits of
    /// its IPv6 address, which is the least that one customer has.
    #[must_use]
    pub fn core_of_source(&self, source: IpAddr) -> u16 {
        let secret = self.owner.secret;
        let hash = match source {
            IpAddr::V4(v4) => mixed(v4.to_bits() ^ secret),
            IpAddr::V6(v6) => {
                let [first, second] = [v6.to_bits() >> 96, v6.to_bits() >> 64].map(|w| w as u32);
                mixed(mixed(first ^ secret) ^ second)
            }
        };
        ((hash >> 16) % u32::from(self.owner.cores)) as u16
    }

    /// Panics unless the program can be made: rules are constants of a protocol, not input.
    fn assert_sound(&self) {
        assert!(self.owner.cores > 0);
        assert!(self.owner.cores <= CORES_MAX);
        assert!(self.owner.core_bits <= 16);
        assert!(self.rules.len() <= RULES_MAX);
        for rule in &self.rules {
            assert!(rule.bytes_min >= 4, "{rule:?}");
            assert!(rule.index_at <= u32::from(u16::MAX), "{rule:?}");
            assert!(rule.bytes_min >= rule.index_at + 4, "{rule:?}");
        }
    }
}

impl Rule {
    fn matches(&self, datagram: &[u8]) -> bool {
        let first = datagram.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let len = datagram.len() as u64;
        first == Some(self.first_word)
            && len >= u64::from(self.bytes_min)
            && len <= u64::from(self.bytes_max)
    }

    fn index(&self, datagram: &[u8]) -> Option<u32> {
        let bytes = datagram.get(self.index_at as usize..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }
}

impl Owner {
    /// The core in `index`, if there is such a core.
    fn of(&self, index: u32) -> Option<u16> {
        // In 64 bits: without core bits the shift is 32.
        let core = u64::from(index ^ self.secret) >> (u32::BITS - self.core_bits);
        u16::try_from(core).ok().filter(|core| *core < self.cores)
    }
}

/// An odd number near 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;

/// Spreads what differs anywhere in a word over its upper half. The programs do the same.
const fn mixed(word: u32) -> u32 {
    let word = word.wrapping_mul(SPREAD);
    (word ^ word >> 16).wrapping_mul(SPREAD)
}

#[cfg(test)]
mod tests;
