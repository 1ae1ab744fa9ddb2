//! The AVX-512 code, and the door to it: a [`Token`] exists only on a machine that can run it.
//!
//! `vector.rs` touches memory, `chacha.rs` makes keystream (16 blocks side by side, or 4 and 8 for
//! what is short), `poly.rs` multiplies modulo 2^130 - 5 in eight lanes, `group.rs` is eight
//! packets together, `one.rs` a packet alone. Every function below this one says which instructions
//! it may use; among themselves such calls are safe, and only this file promises that they are
//! present.

#![allow(unsafe_code, reason = "enters code that needs instructions found at run time")]

mod chacha;
#[cfg(test)]
mod edges;
mod group;
mod one;
mod poly;
mod vector;

use crate::Packet;

/// The proof that the instructions are present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token(());

impl Token {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2");
        found.then_some(Self(()))
    }

    pub(crate) fn seal_one(self, packet: &mut Packet<'_>) {
        // SAFETY: `detect` is the only maker of `self`, and found what `seal` needs.
        unsafe { one::seal(packet) }
    }

    pub(crate) fn open_one(self, packet: &mut Packet<'_>) {
        // SAFETY: `detect` is the only maker of `self`, and found what `open` needs.
        unsafe { one::open(packet) }
    }

    /// Two to [`crate::LANES`] packets, each with room for its tag.
    pub(crate) fn seal_group(self, packets: &mut [Packet<'_>]) {
        // SAFETY: `detect` is the only maker of `self`, and found what `seal` needs.
        unsafe { group::seal(packets) }
    }

    /// Two to [`crate::LANES`] packets, each with room for its tag.
    pub(crate) fn open_group(self, packets: &mut [Packet<'_>]) {
        // SAFETY: `detect` is the only maker of `self`, and found what `open` needs.
        unsafe { group::open(packets) }
    }
}
