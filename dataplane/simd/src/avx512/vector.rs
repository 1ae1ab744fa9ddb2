//! 512-bit vectors: loads and stores that stay within a slice, and transpositions.
//!
//! The only file that hands addresses to instructions. A masked load or store does not touch, and
//! does not fault on, a byte whose mask bit is clear. But it takes a hundred times as long when it
//! has to suppress a fault, so nobody asks for an empty part: its address may be anything.

#![allow(unsafe_code, reason = "loads and stores take raw pointers")]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_broadcast_i64x4,
    _mm512_castsi256_si512, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

/// Bytes of a vector, and of a block of ChaCha20.
pub(super) const BLOCK: usize = 64;

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn load(bytes: &[u8; BLOCK]) -> __m512i {
    // SAFETY: the reference covers all 64 bytes; the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn store(bytes: &mut [u8; BLOCK], vector: __m512i) {
    // SAFETY: the exclusive reference covers all 64 bytes; the instruction needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// Asks for the line that 64 bytes begin in, before they are needed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn expect(bytes: &[u8; BLOCK]) {
    _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast());
}

/// A mask of the first `len` bytes of a vector.
#[inline]
pub(super) fn first(len: usize) -> u64 {
    if len >= BLOCK { u64::MAX } else { (1 << len) - 1 }
}

/// Up to 64 bytes, and zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn load_part(bytes: &[u8]) -> __m512i {
    let mask = first(bytes.len());
    // SAFETY: the mask selects no byte behind the slice, and others are not read.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// As many bytes of `vector` as fit, at most 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn store_part(bytes: &mut [u8], vector: __m512i) {
    let mask = first(bytes.len());
    // SAFETY: the mask selects no byte behind the slice, and others are not written.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn load_half(bytes: &[u8; BLOCK / 2]) -> __m256i {
    // SAFETY: the reference covers all 32 bytes; the instruction needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 bytes in the lower half and 32 in the upper one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn load_halves(low: &[u8; BLOCK / 2], high: &[u8; BLOCK / 2]) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_half(low)), load_half(high))
}

/// Eight words, the first in the lowest lane, in both halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn of_words(words: &[u32; 8]) -> __m512i {
    // SAFETY: the reference covers all 32 bytes; the instruction needs no alignment.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
}

/// Eight numbers, the first in the lowest lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn of_numbers(numbers: &[u64; 8]) -> __m512i {
    // SAFETY: the reference covers all 64 bytes; the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// Eight numbers, the first from the lowest lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn to_numbers(vector: __m512i) -> [u64; 8] {
    let mut numbers = [0; 8];
    // SAFETY: the array has 64 bytes; the instruction needs no alignment.
    unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), vector) };
    numbers
}

/// Transposes a 4 x 4 matrix of 128-bit quarters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn transpose_quarters(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let ab_low = _mm512_shuffle_i32x4::<0x44>(a, b);
    let ab_high = _mm512_shuffle_i32x4::<0xee>(a, b);
    let cd_low = _mm512_shuffle_i32x4::<0x44>(c, d);
    let cd_high = _mm512_shuffle_i32x4::<0xee>(c, d);
    [
        _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
    ]
}

/// Transposes an 8 x 8 matrix of 64-bit numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn transpose_numbers(rows: &[__m512i; 8]) -> [__m512i; 8] {
    let [e0, e2, e4, e6] = transpose_quarters(
        _mm512_unpacklo_epi64(rows[0], rows[1]),
        _mm512_unpacklo_epi64(rows[2], rows[3]),
        _mm512_unpacklo_epi64(rows[4], rows[5]),
        _mm512_unpacklo_epi64(rows[6], rows[7]),
    );
    let [e1, e3, e5, e7] = transpose_quarters(
        _mm512_unpackhi_epi64(rows[0], rows[1]),
        _mm512_unpackhi_epi64(rows[2], rows[3]),
        _mm512_unpackhi_epi64(rows[4], rows[5]),
        _mm512_unpackhi_epi64(rows[6], rows[7]),
    );
    [e0, e1, e2, e3, e4, e5, e6, e7]
}
