//! ChaCha20-Poly1305 (RFC 8439 section 2.8) for packets, several per call.
//!
//! Each packet of a call has a key, a nonce and additional data of its own, so what arrived
//! together goes through together, of one session or of many. The code needs AVX-512, found at run
//! time: [`Batch::detect`] says whether it may be used. Eight packets of similar length go through
//! at once ([`avx512`]), whoever's they are; what does not fit goes one by one.
//!
//! Secrets and time: no branch and no address in this crate depends on a key, a keystream, a text
//! or a tag; they depend on lengths, on where packets and keys lie, on the number of packets and,
//! after a comparison without branches, on whether a tag verified, which its sender learns anyway.
//! There are no table look-ups, and every instruction used on secrets (additions, rotations,
//! shuffles, IFMA multiplications, 64-bit `mul`) takes the same time for all operands. Frames that
//! held keys are overwritten when a call ends; registers are not.
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

use std::fmt;
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

/// What a [`Packet`] that was not filled in refers to.
static NO_KEY: [u8; KEY_BYTES] = [0; KEY_BYTES];

/// One packet of a call: 64 bytes.
pub struct Packet<'a> {
    /// The key. Packets of a call may have the same or any others.
    pub key: &'a [u8; KEY_BYTES],
    /// The first 32 bits of the nonce, little endian: zero in WireGuard, the salt in ESP.
    pub nonce_head: u32,
    /// The other 64 bits of the nonce, little endian. The nonce must never repeat under one key
    /// when sealing.
    pub counter: u64,
    /// What the tag covers beside the text, and is not encrypted: nothing in WireGuard's data.
    pub additional: &'a [u8],
    /// The text and, in the last 16 bytes, room for its tag.
    pub bytes: &'a mut [u8],
    /// Whatever the caller recognises the packet by: a call puts its packets in another order.
    pub at: u32,
    /// Set by [`Batch::open`]: the tag verified, and `bytes` begin with the plaintext.
    pub authentic: bool,
}

const _: () = assert!(size_of::<Packet<'_>>() <= 64, "a packet is a cache line");

/// A packet without bytes, to fill arrays with. It has a key that everybody knows.
impl Default for Packet<'_> {
    fn default() -> Self {
        Self {
            key: &NO_KEY,
            nonce_head: 0,
            counter: 0,
            additional: &[],
            bytes: &mut [],
            at: 0,
            authentic: false,
        }
    }
}

/// Without the key and the text.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Packet")
            .field("counter", &self.counter)
            .field("len", &self.bytes.len())
            .field("at", &self.at)
            .field("authentic", &self.authentic)
            .finish_non_exhaustive()
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
    pub fn seal(&self, packets: &mut [Packet<'_>]) {
        let mut any_group = false;
        for packets in packets.chunks_mut(ORDERED_MAX) {
            order(packets);
            let shortest = packets.last().map_or(TAG_BYTES, |packet| packet.bytes.len());
            assert!(shortest >= TAG_BYTES, "a packet has room for its tag");
            each_group(packets, |group| match group {
                [one] => self.0.seal_one(one),
                several => {
                    any_group = true;
                    self.0.seal_group(several);
                }
            });
        }
        wipe_stack(any_group);
    }

    /// Decrypts every packet in place and says which are authentic. The packets may change their
    /// order.
    ///
    /// Eight together are decrypted in the pass that computes their tags, so the text of a packet
    /// that turns out not to be authentic is overwritten with zeros before this function returns:
    /// no caller ever sees unverified plaintext. The bytes of such a packet are unspecified
    /// otherwise. A packet without room for a tag is not authentic.
    pub fn open(&self, packets: &mut [Packet<'_>]) {
        let mut any_group = false;
        for packets in packets.chunks_mut(ORDERED_MAX) {
            order(packets);
            let whole = packets.partition_point(|packet| packet.bytes.len() >= TAG_BYTES);
            let (packets, too_short) = packets.split_at_mut(whole);
            for packet in too_short {
                packet.authentic = false;
            }
            each_group(packets, |group| match group {
                [one] => self.0.open_one(one),
                several => {
                    any_group = true;
                    self.0.open_group(several);
                }
            });
        }
        wipe_stack(any_group);
    }
}

// What the two ways cost, in nanoseconds at 2.97 GHz (Sapphire Rapids, 2026-11, `benches/aead`).
// Only their relation matters: it decides which packets go together.

/// A group, whatever is in it: set-up, keys of the authenticator, tags.
const GROUP_NS: usize = 240;
/// A group, for every 64 bytes of its longest text.
const GROUP_BLOCK_NS: usize = 150;
/// A packet alone.
const ONE_NS: usize = 200;
/// A packet alone, for every 64 bytes of text.
const ONE_BLOCK_NS: usize = 16;

/// Packets that are put in order together, and thereby may meet in a group.
const ORDERED_MAX: usize = 64;

/// The blocks of a text, and one; of a packet without room for a tag nothing.
fn rank(packet: &Packet<'_>) -> u32 {
    let text = packet.bytes.len().checked_sub(TAG_BYTES);
    // Where it does not fit, packets are only grouped badly.
    text.map_or(0, |text| (1 + text.div_ceil(64)).min(1 << 24) as u32)
}

/// Puts up to [`ORDERED_MAX`] packets in order, most blocks first, so that packets of one length
/// meet. A train of equal segments with a shorter last one is in this order already.
///
/// Each packet is moved to the number of those that go before it. Counting them compares all with
/// all, without branches: for 64 packets of random lengths half the time of `sort_unstable`.
fn order(packets: &mut [Packet<'_>]) {
    if packets.is_sorted_by(|a, b| a.bytes.len() >= b.bytes.len()) {
        return;
    }
    // Its place in the low bits makes each different; absent ones are before nobody.
    let mut ranks = [0; ORDERED_MAX];
    for ((packet, rank_of), at) in packets.iter().zip(&mut ranks).zip(0..) {
        *rank_of = rank(packet) << 6 | (63 - at);
    }
    let mut places = [0; ORDERED_MAX];
    for (place, rank) in places.iter_mut().zip(&ranks).take(packets.len()) {
        *place = ranks.iter().map(|other| u32::from(other > rank)).sum::<u32>() as usize;
    }
    for at in 0..packets.len() {
        while places[at] != at {
            let place = places[at];
            packets.swap(at, place);
            places.swap(at, place);
        }
    }
}

/// Cuts `packets`, most blocks first, into groups of up to [`LANES`] wherever that is cheaper than
/// one by one.
fn each_group(mut packets: &mut [Packet<'_>], mut work: impl FnMut(&mut [Packet<'_>])) {
    while !packets.is_empty() {
        let together = packets.len().min(LANES);
        let taken = if pays(&packets[..together]) { together } else { 1 };
        let (group, rest) = packets.split_at_mut(taken);
        work(group);
        packets = rest;
    }
}

/// Whether these packets, most blocks first, are cheaper together than one by one.
fn pays(packets: &[Packet<'_>]) -> bool {
    let blocks = |packet: &Packet<'_>| (packet.bytes.len() - TAG_BYTES).div_ceil(64);
    let longest = packets.first().map_or(0, blocks);
    let singly: usize = packets.iter().map(|packet| ONE_NS + ONE_BLOCK_NS * blocks(packet)).sum();
    packets.len() > 1 && GROUP_NS + GROUP_BLOCK_NS * longest < singly
}

// Bytes of stack that are overwritten after a call, below the frame that called: more than the
// frames of [`avx512`] take together. `objdump -d` of a release build shows them as `sub` from
// `rsp`: 6,912 bytes in `group::open`, nothing in what it calls; 2,368 in `one::open`, then 2,624
// in `Stream::next`, 376 in `authenticate`. Saved registers and alignment add 120 to each. Builds
// for tests take more; `tests/wiped.rs` looks for what is left.

/// After a group.
const GROUP_WIPED_BYTES: usize = 8192;
/// After packets alone: this takes a fifth of the time of a short one.
const ONE_WIPED_BYTES: usize = 6144;

/// Overwrites the part of the stack in which the functions that just returned kept their vectors.
fn wipe_stack(any_group: bool) {
    if any_group {
        overwrite_below::<GROUP_WIPED_BYTES>();
    } else {
        overwrite_below::<ONE_WIPED_BYTES>();
    }
}

/// Its frame is where theirs were.
#[inline(never)]
fn overwrite_below<const BYTES: usize>() {
    let mut area = [0_u8; BYTES];
    black_box(&mut area);
}
