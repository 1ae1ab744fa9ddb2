//! A packet alone: 16, 8 or 4 blocks of its keystream at once, and eight blocks of its ciphertext
//! at once in the authenticator. Two passes, so a packet is verified before it is decrypted.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_maskz_set1_epi64, _mm512_reduce_add_epi64, _mm512_set_epi32,
    _mm512_setzero_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::chacha::{everywhere, few_blocks, head, sixteen_blocks};
use super::poly::{CLAMP, END_BIT, Limbs, MASK_42, MASK_44, Multiplier, Product, number};
use super::vector::{BLOCK, load, load_part, of_numbers, store, store_part, to_numbers};
use crate::{Packet, TAG_BYTES};

/// Bytes of eight blocks of the authenticator.
const EIGHT: usize = 128;
/// Texts from this length on are authenticated in eight lanes: below, the powers of `r` cost more
/// than they bring.
const LANES_FROM_BYTES: usize = 256;

/// Seals a packet.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn seal(packet: &mut Packet<'_>) {
    let mut stream = Stream::of(packet);
    let Some((text, tag)) = packet.bytes.split_last_chunk_mut::<TAG_BYTES>() else { return };
    let (first, mac_key) = stream.first(text.len());
    stream.apply(&first.blocks()[1..], text);
    *tag = authenticate(&mac_key, packet.additional, text).to_le_bytes();
}

/// Opens a packet; one that is not authentic is left as it is.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn open(packet: &mut Packet<'_>) {
    packet.authentic = false;
    let mut stream = Stream::of(packet);
    let Some((text, tag)) = packet.bytes.split_last_chunk_mut::<TAG_BYTES>() else { return };
    let (first, mac_key) = stream.first(text.len());
    packet.authentic =
        authenticate(&mac_key, packet.additional, text) ^ u128::from_le_bytes(*tag) == 0;
    if packet.authentic {
        stream.apply(&first.blocks()[1..], text);
    }
}

/// Blocks of keystream, of which some are made.
struct Keystream {
    blocks: [__m512i; 16],
    made: usize,
}

impl Keystream {
    fn blocks(&self) -> &[__m512i] {
        &self.blocks[..self.made]
    }
}

/// The keystream of a packet.
struct Stream {
    head: [u32; 12],
    /// The nonce in words.
    nonce: [u32; 3],
    block: u32,
}

impl Stream {
    fn of(packet: &Packet<'_>) -> Self {
        let nonce = [packet.nonce_head, packet.counter as u32, (packet.counter >> 32) as u32];
        Self { head: head(packet.key), nonce, block: 0 }
    }

    /// The first blocks: the key of the authenticator, and what belongs to the text.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn first(&mut self, text_bytes: usize) -> (Keystream, [u64; 4]) {
        let keystream = self.next(text_bytes.div_ceil(BLOCK) + 1);
        let [r0, r1, s0, s1, ..] = to_numbers(keystream.blocks[0]);
        (keystream, [r0, r1, s0, s1])
    }

    /// The next blocks: as many as are wanted, or 16; a few more if that is faster.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn next(&mut self, wanted: usize) -> Keystream {
        let mut blocks = [_mm512_setzero_si512(); 16];
        let made = if wanted > 8 {
            blocks = sixteen_blocks(&self.side_by_side());
            16
        } else if wanted > 4 {
            let few = few_blocks::<2>(&self.head, self.nonce, self.block);
            blocks[..8].copy_from_slice(few.as_flattened());
            8
        } else {
            let few = few_blocks::<1>(&self.head, self.nonce, self.block);
            blocks[..4].copy_from_slice(few.as_flattened());
            4
        };
        self.block += made as u32;
        Keystream { blocks, made }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn side_by_side(&self) -> [__m512i; 16] {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (row, word) in rows.iter_mut().zip(self.head) {
            *row = everywhere(word);
        }
        let numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        rows[12] = _mm512_add_epi32(everywhere(self.block), numbers);
        for (row, word) in rows[13..].iter_mut().zip(self.nonce) {
            *row = everywhere(word);
        }
        rows
    }

    /// Applies the keystream to `text`, beginning with `first`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn apply(&mut self, first: &[__m512i], text: &mut [u8]) {
        let mut rest = apply(first, text);
        while !rest.is_empty() {
            let more = self.next(rest.len().div_ceil(BLOCK));
            rest = apply(more.blocks(), rest);
        }
    }
}

/// Applies blocks of keystream to the beginning of `text`; returns what they did not reach.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn apply<'a>(keystream: &[__m512i], text: &'a mut [u8]) -> &'a mut [u8] {
    let (text, rest) = text.split_at_mut(text.len().min(keystream.len() * BLOCK));
    let (whole, last) = text.as_chunks_mut::<BLOCK>();
    for (block, keystream) in whole.iter_mut().zip(keystream) {
        store(block, _mm512_xor_si512(load(block), *keystream));
    }
    if let (Some(keystream), false) = (keystream.get(whole.len()), last.is_empty()) {
        store_part(last, _mm512_xor_si512(load_part(last), *keystream));
    }
    rest
}

/// A number in limbs, as in `poly.rs`.
type Number = [u64; 3];

/// The tag of additional data and a ciphertext (RFC 8439 section 2.8).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn authenticate(key: &[u64; 4], additional: &[u8], text: &[u8]) -> u128 {
    let r = limbs(key[0] & CLAMP[0], key[1] & CLAMP[1], 0);
    let mut sum = [0; 3];
    if !additional.is_empty() {
        sum = sum_of_additional(r, additional);
    }
    let (eights, mut rest) = text.as_chunks::<EIGHT>();
    if text.len() >= LANES_FROM_BYTES {
        sum = sum_of_eights(sum, r, eights);
    } else {
        rest = text;
    }
    sum = sum_of_blocks(sum, r, rest);
    let lengths = limbs(additional.len() as u64, text.len() as u64, END_BIT);
    sum = times(plus(sum, lengths), r);
    remainder(sum).wrapping_add(u128::from(key[3]) << 64 | u128::from(key[2]))
}

/// Out of the way of packets that have none.
#[inline(never)]
fn sum_of_additional(r: Number, additional: &[u8]) -> Number {
    sum_of_blocks([0; 3], r, additional)
}

/// The polynomial continued from `sum` by the blocks of `bytes`, the last one padded with zeros.
#[inline(always)]
fn sum_of_blocks(mut sum: Number, r: Number, bytes: &[u8]) -> Number {
    let (blocks, last) = bytes.as_chunks::<16>();
    for block in blocks {
        sum = times(plus(sum, padded(block)), r);
    }
    if !last.is_empty() {
        sum = times(plus(sum, padded(last)), r);
    }
    sum
}

/// The polynomial continued from `before` by groups of eight blocks, of which there are at least
/// two.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn sum_of_eights(before: Number, r: Number, groups: &[[u8; EIGHT]]) -> Number {
    let mut powers = [r; 8];
    for at in 1..8 {
        // The product of two earlier powers, near the middle: a short chain of dependencies.
        powers[at] = times(powers[at / 2], powers[(at - 1) / 2]);
    }
    let eighth = Multiplier::new(in_all_lanes(powers[7]));
    let sixteenth = Multiplier::new(in_all_lanes(times(powers[7], powers[7])));

    // What was before belongs to the first block.
    let (first, pairs) = groups.split_at(2 - groups.len() % 2);
    let mut sum = eight_blocks(&first[0]).plus(in_first_lane(before));
    if let [_, second] = first {
        sum = sum.times(&eighth).plus(eight_blocks(second));
    }
    // Two groups at a time, so that half as many reductions wait for each other.
    for [even, odd] in pairs.as_chunks::<2>().0 {
        let mut product = Product::zero();
        product.add(eight_blocks(even), &eighth);
        product.add(sum, &sixteenth);
        sum = product.reduced().plus(eight_blocks(odd));
    }
    let [a, b, c] = sum.times(&descending(&powers)).0;
    let total = |lanes| _mm512_reduce_add_epi64(lanes).cast_unsigned();
    [total(a), total(b), total(c)]
}

/// Which block of eight stands in which lane after [`eight_blocks`].
const LANE_ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Eight blocks of a message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn eight_blocks(bytes: &[u8; EIGHT]) -> Limbs {
    let (halves, _) = bytes.as_chunks::<BLOCK>();
    let (front, back) = (load(&halves[0]), load(&halves[1]));
    let low = _mm512_unpacklo_epi64(front, back);
    let high = _mm512_unpackhi_epi64(front, back);
    Limbs::of_halves(low, high, number(END_BIT))
}

/// The eighth power for the first block down to the first for the last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn descending(powers: &[Number; 8]) -> Multiplier {
    let mut lanes = [[0; 8]; 3];
    for (limb, lanes) in lanes.iter_mut().enumerate() {
        for (lane, block) in lanes.iter_mut().zip(LANE_ORDER) {
            *lane = powers[7 - block][limb];
        }
    }
    Multiplier::new(Limbs([of_numbers(&lanes[0]), of_numbers(&lanes[1]), of_numbers(&lanes[2])]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn in_all_lanes(value: Number) -> Limbs {
    Limbs([number(value[0]), number(value[1]), number(value[2])])
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn in_first_lane(value: Number) -> Limbs {
    let lane = |limb: u64| _mm512_maskz_set1_epi64(1, limb.cast_signed());
    Limbs([lane(value[0]), lane(value[1]), lane(value[2])])
}

/// Up to 16 bytes of a message, padded with zeros.
fn padded(bytes: &[u8]) -> Number {
    let mut block = [0; 16];
    block[..bytes.len()].copy_from_slice(bytes);
    let block = u128::from_le_bytes(block);
    limbs(block as u64, (block >> 64) as u64, END_BIT)
}

/// 16 bytes as two little-endian halves; `end` is ORed to the third limb.
fn limbs(low: u64, high: u64, end: u64) -> Number {
    [low & MASK_44, (low >> 44 | high << 20) & MASK_44, high >> 24 | end]
}

fn plus(x: Number, y: Number) -> Number {
    [x[0] + y[0], x[1] + y[1], x[2] + y[2]]
}

/// The product; limbs of `x` below 2^48 (a sum of eight lanes) and of `y` below 2^45 do not
/// overflow. The result has limbs as [`Product::reduced`] has.
fn times(x: Number, y: Number) -> Number {
    let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
    let (s1, s2) = (20 * y[1], 20 * y[2]);
    let d0 = product(x[0], y[0]) + product(x[1], s2) + product(x[2], s1);
    let d1 = product(x[0], y[1]) + product(x[1], y[0]) + product(x[2], s2) + (d0 >> 44);
    let d2 = product(x[0], y[2]) + product(x[1], y[1]) + product(x[2], y[0]) + (d1 >> 44);
    let a = (d0 as u64 & MASK_44) + 5 * (d2 >> 42) as u64;
    [a & MASK_44, (d1 as u64 & MASK_44) + (a >> 44), d2 as u64 & MASK_42]
}

/// The number modulo 2^130 - 5, and of that the low 128 bits.
fn remainder(x: Number) -> u128 {
    let [mut a, mut b, mut c] = x;
    c += b >> 44;
    b &= MASK_44;
    a += 5 * (c >> 42);
    c &= MASK_42;
    b += a >> 44;
    a &= MASK_44;
    c += b >> 44;
    b &= MASK_44;
    // Subtract the modulus where the number is not below it: add 5, drop 2^130.
    let a5 = a + 5;
    let b5 = b + (a5 >> 44);
    let c5 = (c + (b5 >> 44)).wrapping_sub(MASK_42 + 1);
    let below = (c5.cast_signed() >> 63).cast_unsigned();
    let choose = |x: u64, reduced: u64| x & below | reduced & !below;
    a = choose(a, a5 & MASK_44);
    b = choose(b, b5 & MASK_44);
    c = choose(c, c5);
    u128::from(a) | u128::from(b) << 44 | u128::from(c) << 88
}
