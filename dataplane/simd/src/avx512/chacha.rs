//! The ChaCha20 block function (RFC 8439 section 2.3) on many blocks at once.
//!
//! Side by side: row `i` holds word `i` of 16 blocks, so a quarter round works on whole rows, and a
//! transposition at the end makes blocks of them. For short texts one after another: a row holds
//! four words of four blocks, and the rows are rotated between the two halves of a double round.

use std::arch::x86_64::{
    __m512i, _mm_set_epi32, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_rol_epi32,
    _mm512_set_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_shuffle_epi32,
    _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::vector::{load_halves, transpose_quarters};
use crate::{KEY_BYTES, LANES};

/// Each round function runs ten double rounds.
const DOUBLE_ROUNDS: usize = 10;

/// The first four words of a block.
pub(super) const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The first 12 words of a block: constants and key.
pub(super) fn head(key: &[u8; KEY_BYTES]) -> [u32; 12] {
    let mut words = [0; 12];
    words[..4].copy_from_slice(&CONSTANTS);
    for (word, bytes) in words[4..].iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// The words of eight keys in rows: word `i` of key `j` in lanes `j` and `8 + j` of row `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn keys_in_rows(keys: &[&[u8; KEY_BYTES]; LANES], rows: &mut [__m512i; 8]) {
    let [a, b, c, d] = transpose_words([
        load_halves(keys[0], keys[4]),
        load_halves(keys[1], keys[5]),
        load_halves(keys[2], keys[6]),
        load_halves(keys[3], keys[7]),
    ]);
    // Quarters now hold a word of keys 0 to 3, of word `i`, `4 + i`, and the same of keys 4 to 7.
    let low = |x| _mm512_shuffle_i32x4::<0b10_00_10_00>(x, x);
    let high = |x| _mm512_shuffle_i32x4::<0b11_01_11_01>(x, x);
    *rows = [low(a), low(b), low(c), low(d), high(a), high(b), high(c), high(d)];
}

/// 16 blocks side by side: `start` holds their words in rows, the result has block `i` in row `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn sixteen_blocks(start: &[__m512i; 16]) -> [__m512i; 16] {
    let mut rows = *start;
    for _ in 0..DOUBLE_ROUNDS {
        quarter::<0, 4, 8, 12>(&mut rows);
        quarter::<1, 5, 9, 13>(&mut rows);
        quarter::<2, 6, 10, 14>(&mut rows);
        quarter::<3, 7, 11, 15>(&mut rows);
        quarter::<0, 5, 10, 15>(&mut rows);
        quarter::<1, 6, 11, 12>(&mut rows);
        quarter::<2, 7, 8, 13>(&mut rows);
        quarter::<3, 4, 9, 14>(&mut rows);
    }
    for (row, start) in rows.iter_mut().zip(start) {
        *row = _mm512_add_epi32(*row, *start);
    }
    blocks_of_rows(&rows)
}

/// `4 * FOURS` blocks one after another, counted from `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn few_blocks<const FOURS: usize>(
    head: &[u32; 12],
    nonce: [u32; 3],
    block: u32,
) -> [[__m512i; 4]; FOURS] {
    let mut starts = [[_mm512_setzero_si512(); 4]; FOURS];
    for (four, start) in (0_u32..).zip(&mut starts) {
        for (row, words) in start.iter_mut().zip(head.as_chunks::<4>().0) {
            *row = quadruple(words);
        }
        let first = block + 4 * four;
        let numbers = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
        let tail = quadruple(&[first, nonce[0], nonce[1], nonce[2]]);
        start[3] = _mm512_add_epi32(tail, numbers);
    }
    let mut states = starts;
    for _ in 0..DOUBLE_ROUNDS {
        for rows in &mut states {
            quarter::<0, 1, 2, 3>(rows);
        }
        for rows in &mut states {
            rotate::<0b00_11_10_01, 0b10_01_00_11>(rows);
        }
        for rows in &mut states {
            quarter::<0, 1, 2, 3>(rows);
        }
        for rows in &mut states {
            rotate::<0b10_01_00_11, 0b00_11_10_01>(rows);
        }
    }
    for (rows, start) in states.iter_mut().zip(&starts) {
        for (row, start) in rows.iter_mut().zip(start) {
            *row = _mm512_add_epi32(*row, *start);
        }
        *rows = transpose_quarters(rows[0], rows[1], rows[2], rows[3]);
    }
    states
}

/// The quarter round on rows `A` to `D` (RFC 8439 section 2.1).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn quarter<const A: usize, const B: usize, const C: usize, const D: usize>(rows: &mut [__m512i]) {
    rows[A] = _mm512_add_epi32(rows[A], rows[B]);
    rows[D] = _mm512_rol_epi32::<16>(_mm512_xor_si512(rows[D], rows[A]));
    rows[C] = _mm512_add_epi32(rows[C], rows[D]);
    rows[B] = _mm512_rol_epi32::<12>(_mm512_xor_si512(rows[B], rows[C]));
    rows[A] = _mm512_add_epi32(rows[A], rows[B]);
    rows[D] = _mm512_rol_epi32::<8>(_mm512_xor_si512(rows[D], rows[A]));
    rows[C] = _mm512_add_epi32(rows[C], rows[D]);
    rows[B] = _mm512_rol_epi32::<7>(_mm512_xor_si512(rows[B], rows[C]));
}

/// Turns columns into diagonals, or back: rotates rows 1, 2 and 3 within each quarter, by `ONE`,
/// two words and `THREE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn rotate<const ONE: i32, const THREE: i32>(rows: &mut [__m512i; 4]) {
    rows[1] = _mm512_shuffle_epi32::<ONE>(rows[1]);
    rows[2] = _mm512_shuffle_epi32::<0b01_00_11_10>(rows[2]);
    rows[3] = _mm512_shuffle_epi32::<THREE>(rows[3]);
}

/// The same four words in each quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn quadruple(words: &[u32; 4]) -> __m512i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm512_broadcast_i32x4(_mm_set_epi32(d, c, b, a))
}

/// The same word in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn everywhere(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

/// Transposes a 16 x 16 matrix of words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn blocks_of_rows(rows: &[__m512i; 16]) -> [__m512i; 16] {
    // `fours[4 * i + j]`: words `4 * i` to `4 * i + 3` of blocks `j`, `4 + j`, `8 + j`, `12 + j`.
    let mut fours = *rows;
    for four in fours.as_chunks_mut::<4>().0 {
        *four = transpose_words(*four);
    }
    let mut blocks = fours;
    for j in 0..4 {
        let four = transpose_quarters(fours[j], fours[4 + j], fours[8 + j], fours[12 + j]);
        blocks[j] = four[0];
        blocks[4 + j] = four[1];
        blocks[8 + j] = four[2];
        blocks[12 + j] = four[3];
    }
    blocks
}

/// Transposes a 4 x 4 matrix of words in each quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn transpose_words([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low_ab = _mm512_unpacklo_epi32(a, b);
    let high_ab = _mm512_unpackhi_epi32(a, b);
    let low_cd = _mm512_unpacklo_epi32(c, d);
    let high_cd = _mm512_unpackhi_epi32(c, d);
    [
        _mm512_unpacklo_epi64(low_ab, low_cd),
        _mm512_unpackhi_epi64(low_ab, low_cd),
        _mm512_unpacklo_epi64(high_ab, high_cd),
        _mm512_unpackhi_epi64(high_ab, high_cd),
    ]
}
