//! Both authenticators against schoolbook arithmetic, at keys and texts that no cipher will make.

use std::array::from_fn;

use proptest::prelude::*;

use super::group::Mac;
use super::vector::{BLOCK, load_part, of_numbers, to_numbers};
use super::{Token, one};
use crate::LANES;

/// 2^130 - 5 does not fit into 128 bits: numbers are a high and a low part.
type Wide = (u128, u128);

const MODULUS: Wide = (3, u128::MAX - 4);

fn sum(x: Wide, y: Wide) -> Wide {
    let (low, carry) = x.1.overflowing_add(y.1);
    let sum = (x.0 + y.0 + u128::from(carry), low);
    if sum < MODULUS {
        return sum;
    }
    let (low, borrow) = sum.1.overflowing_sub(MODULUS.1);
    (sum.0 - MODULUS.0 - u128::from(borrow), low)
}

/// By doubling and adding, one bit of `y` at a time.
fn product(x: Wide, y: u128) -> Wide {
    (0..128).rev().fold((0, 0), |total, bit| {
        let doubled = sum(total, total);
        if y >> bit & 1 == 1 { sum(doubled, x) } else { doubled }
    })
}

/// RFC 8439 sections 2.5.1 and 2.8, word for word.
fn schoolbook(key: &[u64; 4], additional: &[u8], text: &[u8]) -> u128 {
    let r =
        (u128::from(key[1]) << 64 | u128::from(key[0])) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    let padded = (additional.chunks(16).chain(text.chunks(16)))
        .map(|chunk| u128::from_le_bytes(from_fn(|at| chunk.get(at).copied().unwrap_or(0))));
    let blocks = padded.chain([(text.len() as u128) << 64 | additional.len() as u128]);
    let total = blocks.fold((0, 0), |total, block| product(sum(total, (1, block)), r));
    total.1.wrapping_add(u128::from(key[3]) << 64 | u128::from(key[2]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn alone(key: &[u64; 4], additional: &[u8], text: &[u8]) -> u128 {
    one::authenticate(key, additional, text)
}

/// A tag per key, all of the same text.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn together(keys: &[[u64; 4]; LANES], additional: &[u8], text: &[u8]) -> [u128; LANES] {
    let mut blocks = [of_numbers(&[0; 8]); LANES];
    for (block, key) in blocks.iter_mut().zip(keys) {
        *block = of_numbers(&[key[0], key[1], key[2], key[3], 1, 2, 3, 4]);
    }
    let bytes = [[additional.len() as u64; LANES], [text.len() as u64; LANES]];
    let mut mac = Mac::new(&blocks, &bytes);
    mac.take_additional(&[additional; LANES], additional.len());
    for block in text.chunks(BLOCK) {
        mac.absorb([load_part(block); LANES]);
    }
    let [low, high] = mac.tags();
    let (low, high) = (to_numbers(low), to_numbers(high));
    from_fn(|at| u128::from(high[at]) << 64 | u128::from(low[at]))
}

fn agree(keys: &[[u64; 4]; LANES], additional: &[u8], text: &[u8]) {
    if Token::detect().is_none() {
        return;
    }
    // SAFETY: `detect` found what these functions need.
    let tags = unsafe { together(keys, additional, text) };
    for (key, tag) in keys.iter().zip(tags) {
        let expected = schoolbook(key, additional, text);
        assert_eq!(tag, expected, "together, {key:x?}, {text:x?}");
        // SAFETY: `detect` found what this function needs.
        assert_eq!(unsafe { alone(key, additional, text) }, expected, "alone, {key:x?}, {text:x?}");
    }
}

/// With `r` 1 the total is the plain sum of the blocks: it is led past the modulus one by one.
#[test]
fn totals_around_the_modulus_are_reduced() {
    let keys = from_fn(|at| [1, 0, 0, at as u64]);
    for step in 0..64_u128 {
        // Five blocks count 5 * 2^128 by their ends, and the last of them 2^64 * 64 by its length.
        let rest = 0_u128.wrapping_sub(32 + (64 << 64)).wrapping_add(step);
        let blocks = [u128::MAX, u128::MAX, rest, 0];
        let bytes = blocks.map(u128::to_le_bytes).concat();
        agree(&keys, &[], &bytes);
    }
}

fn words() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 4), any::<u64>()]
}

proptest! {
    #[test]
    fn extreme_keys_and_texts_carry_as_they_should(
        keys: [[u64; 4]; LANES],
        extreme in proptest::array::uniform4(words()),
        text in proptest::collection::vec(words(), 0..200),
        additional in proptest::collection::vec(words(), 0..20),
        cut in 0..8_usize,
    ) {
        let mut keys = keys;
        keys[0] = extreme;
        keys[7] = [u64::MAX; 4];
        let bytes = text.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let additional = additional.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let additional = &additional[..additional.len().saturating_sub(cut)];
        agree(&keys, additional, &bytes[..bytes.len().saturating_sub(cut)]);
    }
}
