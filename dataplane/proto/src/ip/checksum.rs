//! The Internet checksum (RFC 1071), its pseudo-headers and its incremental update (RFC 1624).
//!
//! Sums are taken over words in memory order and turned around once at the end, which
//! one's-complement arithmetic permits (RFC 1071 section 2B). The loops add 32-bit lanes into
//! 64-bit accumulators: no carry is ever lost, lanes do not depend on each other, and LLVM turns
//! them into vector instructions without any unsafe code.

use std::ops::Add;

/// An unfinished sum. Parts may be added in any order if each but the last has an even length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partial(u64);

impl Partial {
    /// A sum of nothing.
    pub const ZERO: Self = Self(0);

    /// A 16-bit word given by its value.
    #[inline]
    #[must_use]
    pub const fn of_u16(word: u16) -> Self {
        Self(word.to_be() as u64)
    }

    /// A 32-bit word given by its value.
    #[inline]
    #[must_use]
    pub const fn of_u32(word: u32) -> Self {
        Self(word.to_be() as u64)
    }

    /// The sum as 16 bits, not inverted: what goes into a checksum field that someone else
    /// completes.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// The checksum: the sum as 16 bits, inverted.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum for a field where zero means "none" (UDP): zero is written as all ones, which
    /// is equal to it.
    #[inline]
    #[must_use]
    pub const fn finish_nonzero(self) -> u16 {
        match self.finish() {
            0 => u16::MAX,
            sum => sum,
        }
    }
}

impl Add for Partial {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        // End-around carry: 2^64 is 1 in this arithmetic.
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + u64::from(carry))
    }
}

/// Bytes summed per step of the wide loops: four vectors of the baseline instruction set.
const STEP: usize = 64;

/// Sums `bytes`; an odd last byte is padded with zero.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> Partial {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let mut lanes = Lanes::default();
    for step in steps {
        lanes.add(step);
    }
    lanes.total() + sum_short(rest)
}

/// Copies `from` to the start of `to` and sums it in the same pass.
///
/// # Panics
/// If `to` is shorter than `from`.
#[inline]
#[must_use]
pub fn copy_and_sum(from: &[u8], to: &mut [u8]) -> Partial {
    let to = &mut to[..from.len()];
    let (steps, rest) = from.as_chunks::<STEP>();
    let (to_steps, to_rest) = to.as_chunks_mut::<STEP>();
    let mut lanes = Lanes::default();
    for (step, to) in steps.iter().zip(to_steps) {
        *to = *step;
        lanes.add(step);
    }
    to_rest.copy_from_slice(rest);
    lanes.total() + sum_short(rest)
}

/// The sum of the pseudo-header of TCP and UDP over IPv4 (RFC 9293 section 3.1), addresses given by
/// value.
#[must_use]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> Partial {
    sum_short(&source)
        + sum_short(&destination)
        + Partial::of_u16(u16::from(protocol))
        + Partial::of_u16(len)
}

/// The sum of the pseudo-header over IPv6 (RFC 8200 section 8.1), addresses given by value.
#[must_use]
pub fn pseudo_v6(source: [u8; 16], destination: [u8; 16], protocol: u8, len: u32) -> Partial {
    sum_short(&source)
        + sum_short(&destination)
        + Partial::of_u16(u16::from(protocol))
        + Partial::of_u32(len)
}

/// The sum of the pseudo-header of the packet that begins with the IP header `ip`: `len` bytes of
/// `protocol`.
///
/// # Panics
/// If `ip` is shorter than its version's fixed header.
#[inline]
#[must_use]
pub fn pseudo_of(ip: &[u8], protocol: u8, len: u32) -> Partial {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    sum_short(addresses) + Partial::of_u16(u16::from(protocol)) + Partial::of_u32(len)
}

/// The checksum after one 16-bit word under it changed (RFC 1624 equation 3).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// Independent accumulators, one for each 32-bit lane of half a step.
#[derive(Default)]
struct Lanes([u64; 8]);

impl Lanes {
    #[inline]
    fn add(&mut self, step: &[u8; STEP]) {
        let (words, _) = step.as_chunks::<4>();
        for (index, word) in words.iter().enumerate() {
            self.0[index % 8] += u64::from(u32::from_ne_bytes(*word));
        }
    }

    #[inline]
    fn total(self) -> Partial {
        // Words of 32 bits: it takes 16 GiB to overflow 64.
        Partial(self.0.iter().sum())
    }
}

/// Less than a step, or a header: no set-up cost.
#[inline]
fn sum_short(bytes: &[u8]) -> Partial {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = 0;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let (halves, last) = rest.as_chunks::<2>();
    for half in halves {
        sum += u64::from(u16::from_ne_bytes(*half));
    }
    if let [byte] = last {
        sum += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    Partial(sum)
}
