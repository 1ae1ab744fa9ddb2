//! ChaCha20-Poly1305 for the data messages of WireGuard, several per call.
//!
//! All packets of a call have one key, no additional data, and a nonce of 32 zero bits and a 64-bit
//! counter (whitepaper section 5.4.6). That is what arrives, or leaves, together for one tunnel.
//! The code needs AVX-512, found at run time: [`Batch::detect`] says whether it may be used. Eight
//! packets of similar length go through together ([`avx512`]); what does not fit goes one by one.
//!
//! Secrets and time: no branch and no address in this crate depends on a key, a keystream, a text
//! or a tag; they depend on lengths, on the number of packets and, after a comparison without
//! branches, on whether a tag verified, which its sender learns anyway. There are no table
//! look-ups, and every instruction used on secrets (additions, rotations, shuffles, IFMA
//! multiplications, 64-bit `mul`) takes the same time for all operands. Frames that held keys are
//! overwritten when a call ends.
//!
//! This crate must not know messages, sessions, counters' meaning or time.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere;
#[cfg(test)]
mod tests;

#[cfg(not(target_arch = "x86_64"))]
use elsewhere as avx512;

use std::cmp::Reverse;
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a Poly1305 tag.
pub const TAG_BYTES: usize = 16;
/// Packets that go through together.
pub const LANES: usize = 8;

/// The environment variable that turns this crate off when it is `off`, for tests and comparisons.
pub const SWITCH: &str = "RINGWAY_AVX512";

/// One packet of a call.
#[derive(Debug, Default)]
pub struct Packet<'a> {
    /// The nonce. Must never repeat under one key when sealing.
    pub counter: u64,
    /// The text and, in the last 16 bytes, room for its tag.
    pub bytes: &'a mut [u8],
    /// Whatever the caller recognises the packet by: a call puts its packets in another order.
    pub at: usize,
    /// Set by [`Batch::open`]: the tag verified, and `bytes` begin with the plaintext.
    pub authentic: bool,
}

/// A key, and what all nonces of a call have in common.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "nothing reads it there"))]
struct Key<'a> {
    bytes: &'a [u8; KEY_BYTES],
    /// The first 32 bits of every nonce: zero in WireGuard, other values in public test vectors.
    nonce_head: u32,
}

impl<'a> Key<'a> {
    fn of_wireguard(bytes: &'a [u8; KEY_BYTES]) -> Self {
        Self { bytes, nonce_head: 0 }
    }
}

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// The proof that this machine has what the crate needs.
#[derive(Clone, Copy, Debug)]
pub struct Batch(avx512::Token);

impl Batch {
    /// Whether this machine has AVX-512 F, BW, DQ, VL, IFMA and VBMI2, and neither [`SWITCH`] nor
    /// [`Batch::forbid`] says otherwise. The machine is asked once per process.
    #[must_use]
    pub fn detect() -> Option<Self> {
        static FOUND: OnceLock<Option<Batch>> = OnceLock::new();
        let found = *FOUND.get_or_init(|| {
            let is_off = std::env::var_os(SWITCH).is_some_and(|value| value == "off");
            if is_off { None } else { avx512::Token::detect().map(Self) }
        });
        found.filter(|_| !FORBIDDEN.load(Ordering::Relaxed))
    }

    /// From now on [`Batch::detect`] finds nothing in this process, whatever the machine has.
    pub fn forbid() {
        FORBIDDEN.store(true, Ordering::Relaxed);
    }

    /// Encrypts every packet in place and writes its tag. The packets may change their order.
    ///
    /// # Panics
    /// If a packet has no room for its tag: the caller's invariant.
    pub fn seal(&self, key: &[u8; KEY_BYTES], packets: &mut [Packet<'_>]) {
        let key = Key::of_wireguard(key);
        order(packets);
        let shortest = packets.last().map_or(TAG_BYTES, |packet| packet.bytes.len());
        assert!(shortest >= TAG_BYTES, "a packet has room for its tag");
        each_group(packets, |group| match group {
            [one] => self.0.seal_one(key, one),
            several => self.0.seal_group(key, several),
        });
        wipe_stack();
    }

    /// Decrypts every packet in place and says which are authentic. The packets may change their
    /// order.
    ///
    /// Eight together are decrypted in the pass that computes their tags, so the text of a packet
    /// that turns out not to be authentic is overwritten with zeros before this function returns:
    /// no caller ever sees unverified plaintext. The bytes of such a packet are unspecified
    /// otherwise. A packet without room for a tag is not authentic.
    pub fn open(&self, key: &[u8; KEY_BYTES], packets: &mut [Packet<'_>]) {
        let key = Key::of_wireguard(key);
        order(packets);
        let whole = packets.partition_point(|packet| packet.bytes.len() >= TAG_BYTES);
        let (packets, too_short) = packets.split_at_mut(whole);
        for packet in too_short {
            packet.authentic = false;
        }
        each_group(packets, |group| match group {
            [one] => self.0.open_one(key, one),
            several => self.0.open_group(key, several),
        });
        wipe_stack();
    }
}

// What the two ways cost, in nanoseconds at 2.97 GHz (Sapphire Rapids, 2026-11, `benches/aead.rs`).
// Only their relation matters: it decides which packets go together.

/// A group, whatever is in it: set-up, keys of the authenticator, tags.
const GROUP_NS: usize = 240;
/// A group, for every 64 bytes of its longest text.
const GROUP_BLOCK_NS: usize = 150;
/// A packet alone.
const ONE_NS: usize = 200;
/// A packet alone, for every 64 bytes of text.
const ONE_BLOCK_NS: usize = 16;

/// Longest first, so that packets of one length meet. A train of equal segments with a shorter last
/// one is in this order already.
fn order(packets: &mut [Packet<'_>]) {
    if !packets.is_sorted_by_key(|packet| Reverse(packet.bytes.len())) {
        packets.sort_unstable_by_key(|packet| Reverse(packet.bytes.len()));
    }
}

/// Cuts `packets`, longest first, into groups of up to [`LANES`] wherever that is cheaper than one
/// by one.
fn each_group(mut packets: &mut [Packet<'_>], mut work: impl FnMut(&mut [Packet<'_>])) {
    while !packets.is_empty() {
        let together = packets.len().min(LANES);
        let taken = if pays(&packets[..together]) { together } else { 1 };
        let (group, rest) = packets.split_at_mut(taken);
        work(group);
        packets = rest;
    }
}

/// Whether these packets, longest first, are cheaper together than one by one.
fn pays(packets: &[Packet<'_>]) -> bool {
    let blocks = |packet: &Packet<'_>| (packet.bytes.len() - TAG_BYTES).div_ceil(64);
    let longest = packets.first().map_or(0, blocks);
    let singly: usize = packets.iter().map(|packet| ONE_NS + ONE_BLOCK_NS * blocks(packet)).sum();
    packets.len() > 1 && GROUP_NS + GROUP_BLOCK_NS * longest < singly
}

/// Bytes below the caller's frame that [`wipe_stack`] overwrites: more than any frame of
/// [`avx512`] (`objdump -d` shows them as `sub rsp`), with the frames of its callees.
const WIPED_BYTES: usize = 8192;

/// Overwrites the part of the stack in which the functions that just returned kept their vectors.
#[inline(never)]
fn wipe_stack() {
    let mut area = [0_u64; WIPED_BYTES / 8];
    black_box(&mut area);
}
