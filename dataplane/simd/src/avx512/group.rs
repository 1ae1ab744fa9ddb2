//! Up to eight packets together, one in each lane of the authenticator and, with two blocks each,
//! in the 16 lanes of the cipher. Their lengths may differ: a lane that has come to its end rests.
//!
//! The ciphertext of a step (64 bytes of each packet) goes from the registers of the cipher into
//! those of the authenticator: one pass over the packets, each byte read and written once.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_cmpgt_epi64_mask,
    _mm512_maskz_mov_epi8, _mm512_or_si512, _mm512_set_epi32, _mm512_setzero_si512,
    _mm512_sub_epi64, _mm512_xor_si512,
};

use super::chacha::{CONSTANTS, everywhere, keys_in_rows, sixteen_blocks};
use super::poly::{CLAMP, END_BIT, Limbs, Multiplier, Product, number};
use super::vector::{
    BLOCK, expect, first, load, load_part, of_numbers, of_words, store, store_part, to_numbers,
    transpose_numbers,
};
use crate::{KEY_BYTES, LANES, NO_KEY, Packet, TAG_BYTES};

/// Seals up to [`LANES`] packets.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn seal(packets: &mut [Packet<'_>]) {
    let [low, high] = crypt::<true>(packets);
    let halves = to_numbers(low).into_iter().zip(to_numbers(high));
    for (packet, (low, high)) in packets.iter_mut().zip(halves) {
        if let Some((_, tag)) = packet.bytes.split_last_chunk_mut::<TAG_BYTES>() {
            *tag = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        }
    }
}

/// Opens up to [`LANES`] packets; the text of those that are not authentic becomes zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn open(packets: &mut [Packet<'_>]) {
    let (mut lows, mut highs) = ([0; LANES], [0; LANES]);
    for ((packet, low), high) in packets.iter().zip(&mut lows).zip(&mut highs) {
        let tag = packet.bytes.last_chunk().map_or(0, |tag| u128::from_le_bytes(*tag));
        (*low, *high) = (tag as u64, (tag >> 64) as u64);
    }
    let [low, high] = crypt::<false>(packets);
    let low = _mm512_xor_si512(low, of_numbers(&lows));
    let high = _mm512_xor_si512(high, of_numbers(&highs));
    let different = _mm512_or_si512(low, high);
    let verified = _mm512_cmpeq_epi64_mask(different, _mm512_setzero_si512());
    for (lane, packet) in packets.iter_mut().enumerate() {
        packet.authentic = verified >> lane & 1 == 1;
        if !packet.authentic {
            let text = packet.bytes.len() - TAG_BYTES;
            packet.bytes[..text].fill(0);
        }
    }
}

/// The text of a packet in blocks.
#[derive(Default)]
struct Lane<'a> {
    whole: &'a mut [[u8; BLOCK]],
    /// What is left behind them, less than a block.
    rest: &'a mut [u8],
}

/// Blocks of each text that are asked for before it is their turn. Packets were just written by
/// somebody else and lie in an outer cache; eight short streams at a time are not guessed by the
/// processor, and between two of their loads there is too much to do for it to look ahead.
const AHEAD: usize = 4;

/// What belongs to the texts.
struct Heads<'a> {
    keys: [&'a [u8; KEY_BYTES]; LANES],
    /// The nonces, in words.
    nonces: [[u32; LANES]; 3],
    additional: [&'a [u8]; LANES],
    /// Of the additional data, and of the texts.
    bytes: [[u64; LANES]; 2],
}

/// Encrypts (`SEAL`) or decrypts every text in place and returns the tags of the ciphertexts, as
/// two little-endian halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn crypt<const SEAL: bool>(packets: &mut [Packet<'_>]) -> [__m512i; 2] {
    // Lanes without a packet have no text, no tag is asked of them, and no memory is touched.
    let mut lanes: [Lane<'_>; LANES] = Default::default();
    let mut heads = Heads {
        keys: [&NO_KEY; LANES],
        nonces: [[0; LANES]; 3],
        additional: [&[]; LANES],
        bytes: [[0; LANES]; 2],
    };
    let (mut steps, mut additional_bytes) = (0, 0);
    for (at, packet) in packets.iter_mut().take(LANES).enumerate() {
        let len = packet.bytes.len() - TAG_BYTES;
        heads.keys[at] = packet.key;
        heads.nonces[0][at] = packet.nonce_head;
        heads.nonces[1][at] = packet.counter as u32;
        heads.nonces[2][at] = (packet.counter >> 32) as u32;
        heads.additional[at] = packet.additional;
        heads.bytes[0][at] = packet.additional.len() as u64;
        heads.bytes[1][at] = len as u64;
        additional_bytes = additional_bytes.max(packet.additional.len());
        steps = steps.max(len.div_ceil(BLOCK));
        let (whole, rest) = packet.bytes[..len].as_chunks_mut();
        for block in whole.iter().take(AHEAD) {
            expect(block);
        }
        lanes[at] = Lane { whole, rest };
    }

    let mut start = start_of(&heads);
    let [keys, mut keystream] = halves(sixteen_blocks(&start));
    let mut mac = Mac::new(&keys, &heads.bytes);
    if additional_bytes != 0 {
        mac.take_additional(&heads.additional, additional_bytes);
    }
    let mut step = 0;
    loop {
        if step == steps {
            break;
        }
        mac.absorb(crypt_step::<SEAL>(&mut lanes, step, &keystream));
        step += 1;
        if step == steps {
            break;
        }
        start[12] = _mm512_add_epi32(start[12], everywhere(2));
        let [even, odd] = halves(sixteen_blocks(&start));
        mac.absorb(crypt_step::<SEAL>(&mut lanes, step, &even));
        step += 1;
        keystream = odd;
    }
    mac.tags()
}

/// The words of block 0 of eight packets, and of block 1 of the same packets.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn start_of(heads: &Heads<'_>) -> [__m512i; 16] {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, word) in rows.iter_mut().zip(CONSTANTS) {
        *row = everywhere(word);
    }
    // Also if all are the same: telling that takes as long.
    if let Some(rows) = rows[4..].first_chunk_mut() {
        keys_in_rows(&heads.keys, rows);
    }
    rows[12] = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    for (row, words) in rows[13..].iter_mut().zip(&heads.nonces) {
        *row = of_words(words);
    }
    rows
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn halves(blocks: [__m512i; 16]) -> [[__m512i; LANES]; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = blocks;
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]]
}

/// Applies a block of keystream to block `step` of each text; returns the blocks of ciphertext,
/// with zeros behind the end of a text.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn crypt_step<const SEAL: bool>(
    lanes: &mut [Lane<'_>; LANES],
    step: usize,
    keystream: &[__m512i; LANES],
) -> [__m512i; LANES] {
    let mut cipher = [_mm512_setzero_si512(); LANES];
    for ((lane, keystream), cipher) in lanes.iter_mut().zip(keystream).zip(&mut cipher) {
        if let Some(ahead) = lane.whole.get(step + AHEAD) {
            expect(ahead);
        }
        if let Some(block) = lane.whole.get_mut(step) {
            let before = load(block);
            let after = _mm512_xor_si512(before, *keystream);
            store(block, after);
            *cipher = if SEAL { after } else { before };
        } else if lane.whole.len() == step && !lane.rest.is_empty() {
            let before = load_part(lane.rest);
            let after = _mm512_xor_si512(before, *keystream);
            store_part(lane.rest, after);
            let after = _mm512_maskz_mov_epi8(first(lane.rest.len()), after);
            *cipher = if SEAL { after } else { before };
        }
    }
    cipher
}

/// Four blocks of each message, from 64 bytes of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn message_of(bytes: &[__m512i; LANES]) -> [Limbs; 4] {
    let words = transpose_numbers(bytes);
    let end = number(END_BIT);
    [
        Limbs::of_halves(words[0], words[1], end),
        Limbs::of_halves(words[2], words[3], end),
        Limbs::of_halves(words[4], words[5], end),
        Limbs::of_halves(words[6], words[7], end),
    ]
}

/// Eight authenticators, each at its own place in a message of its own length.
pub(super) struct Mac {
    sum: Limbs,
    /// The first to the fourth power of each packet's `r`.
    powers: [Multiplier; 4],
    /// What is added at the end.
    pad: [__m512i; 2],
    /// Blocks of 16 bytes still to come, the block of lengths included; below zero at rest.
    left: __m512i,
    /// The block of lengths: bytes of the additional data, then of the text.
    lengths: Limbs,
}

impl Mac {
    /// `keys` is block 0 of each packet's keystream; `bytes` are those of its additional data and
    /// of its text.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn new(keys: &[__m512i; LANES], bytes: &[[u64; LANES]; 2]) -> Self {
        let [low, high, pad_low, pad_high, ..] = transpose_numbers(keys);
        let zero = _mm512_setzero_si512();
        let low = _mm512_and_si512(low, number(CLAMP[0]));
        let high = _mm512_and_si512(high, number(CLAMP[1]));
        let r = Limbs::of_halves(low, high, zero);
        let first = Multiplier::new(r);
        let r2 = r.times(&first);
        let second = Multiplier::new(r2);
        let third = Multiplier::new(r2.times(&first));
        let fourth = Multiplier::new(r2.times(&second));
        let blocks = bytes[1].map(|bytes| bytes.div_ceil(16) + 1);
        let lengths = [of_numbers(&bytes[0]), of_numbers(&bytes[1])];
        Self {
            sum: Limbs::zero(),
            powers: [first, second, third, fourth],
            pad: [pad_low, pad_high],
            left: of_numbers(&blocks),
            lengths: Limbs::of_halves(lengths[0], lengths[1], number(END_BIT)),
        }
    }

    /// The additional data, which comes before the texts and of which the longest has `longest`
    /// bytes: 64 bytes of each at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn take_additional(&mut self, additional: &[&[u8]; LANES], longest: usize) {
        let mut left = of_numbers(&additional.map(|bytes| bytes.len().div_ceil(16) as u64));
        for step in 0..longest.div_ceil(BLOCK) {
            let mut bytes = [_mm512_setzero_si512(); LANES];
            for (additional, bytes) in additional.iter().zip(&mut bytes) {
                if additional.len() > step * BLOCK {
                    *bytes = load_part(&additional[step * BLOCK..]);
                }
            }
            for (at, block) in message_of(&bytes).into_iter().enumerate() {
                let awake = _mm512_cmpgt_epi64_mask(left, number(at as u64));
                if awake == 0 {
                    break;
                }
                let sum = self.sum.plus(block).times(&self.powers[0]);
                self.sum = self.sum.replaced(awake, sum);
            }
            left = _mm512_sub_epi64(left, number(4));
        }
    }

    /// Takes 64 bytes of each ciphertext.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn absorb(&mut self, cipher: [__m512i; LANES]) {
        let message = message_of(&cipher);
        let awake = _mm512_cmpgt_epi64_mask(self.left, _mm512_setzero_si512());
        let beyond = _mm512_cmpgt_epi64_mask(self.left, number(4));
        if awake == beyond {
            self.take_four(awake, &message);
        } else {
            self.take_ends(message);
        }
        self.left = _mm512_sub_epi64(self.left, number(4));
    }

    /// Four blocks at once, in the lanes of `awake`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn take_four(&mut self, awake: u8, message: &[Limbs; 4]) {
        let mut product = Product::zero();
        product.add(message[3], &self.powers[0]);
        product.add(message[2], &self.powers[1]);
        product.add(message[1], &self.powers[2]);
        product.add(message[0].plus(self.sum), &self.powers[3]);
        self.sum = self.sum.replaced(awake, product.reduced());
    }

    /// Up to four blocks one by one, with the block of lengths where a text has ended.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn take_ends(&mut self, message: [Limbs; 4]) {
        for (at, block) in message.into_iter().enumerate() {
            let awake = _mm512_cmpgt_epi64_mask(self.left, number(at as u64));
            if awake == 0 {
                break;
            }
            let last = _mm512_cmpeq_epi64_mask(self.left, number(at as u64 + 1));
            let sum = self.sum.plus(block.replaced(last, self.lengths));
            self.sum = self.sum.replaced(awake, sum.times(&self.powers[0]));
        }
    }

    /// The tags, once every text has been taken.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn tags(mut self) -> [__m512i; 2] {
        // A text of whole steps has its block of lengths still to come: it is the only one left.
        let last = _mm512_cmpeq_epi64_mask(self.left, number(1));
        let sum = self.sum.plus(self.lengths).times(&self.powers[0]);
        self.sum = self.sum.replaced(last, sum);
        self.sum.tag(self.pad)
    }
}
