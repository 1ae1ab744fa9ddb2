//! Arithmetic of Poly1305 (RFC 8439 section 2.5) modulo 2^130 - 5, in eight lanes.
//!
//! A number is three limbs of 44, 44 and 42 bits, for the 52-bit multiply-add of IFMA. Bounds,
//! which every operation here keeps: what [`Product::reduced`] returns has limbs below 2^44, 2^44 +
//! 2^10 and 2^42; a number plus one message block stays below 2^46 per limb; a multiplier stays
//! below 2^49. A product of up to four pairs then sums at most twelve terms below 2^52 per half, so
//! no 64-bit lane overflows.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpge_epi64_mask,
    _mm512_cmplt_epu64_mask, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_add_epi64,
    _mm512_mask_and_epi64, _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_shrdi_epi64, _mm512_slli_epi64, _mm512_srli_epi64,
    _mm512_sub_epi64,
};

pub(super) const MASK_44: u64 = (1 << 44) - 1;
pub(super) const MASK_42: u64 = (1 << 42) - 1;
/// The bit that marks the end of a full block, 2^128, as it stands in the third limb.
pub(super) const END_BIT: u64 = 1 << 40;
/// The bits of `r` that are kept, low and high half (RFC 8439 section 2.5.1).
pub(super) const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// A number in each lane.
#[derive(Clone, Copy)]
pub(super) struct Limbs(pub(super) [__m512i; 3]);

impl Limbs {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 3])
    }

    /// 16 bytes as two little-endian halves; `end` is ORed to the third limb.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn of_halves(low: __m512i, high: __m512i, end: __m512i) -> Self {
        Self([
            _mm512_and_si512(low, number(MASK_44)),
            _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), number(MASK_44)),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), end),
        ])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn plus(self, other: Self) -> Self {
        Self([
            _mm512_add_epi64(self.0[0], other.0[0]),
            _mm512_add_epi64(self.0[1], other.0[1]),
            _mm512_add_epi64(self.0[2], other.0[2]),
        ])
    }

    /// `other` in the lanes of `mask`, `self` elsewhere.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn replaced(self, mask: __mmask8, other: Self) -> Self {
        Self([
            _mm512_mask_mov_epi64(self.0[0], mask, other.0[0]),
            _mm512_mask_mov_epi64(self.0[1], mask, other.0[1]),
            _mm512_mask_mov_epi64(self.0[2], mask, other.0[2]),
        ])
    }

    /// The product with one multiplier.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn times(self, factor: &Multiplier) -> Self {
        let mut product = Product::zero();
        product.add(self, factor);
        product.reduced()
    }

    /// Fully reduced and modulo 2^128, plus `pad`: the tag, as two little-endian halves.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn tag(self, pad: [__m512i; 2]) -> [__m512i; 2] {
        let (mask_44, mask_42) = (number(MASK_44), number(MASK_42));
        let [mut a, mut b, mut c] = self.0;
        // One round of carries from the second limb around is enough for the bounds above.
        c = _mm512_add_epi64(c, _mm512_srli_epi64::<44>(b));
        b = _mm512_and_si512(b, mask_44);
        a = _mm512_add_epi64(a, five_times(_mm512_srli_epi64::<42>(c)));
        c = _mm512_and_si512(c, mask_42);
        b = _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a));
        a = _mm512_and_si512(a, mask_44);
        c = _mm512_add_epi64(c, _mm512_srli_epi64::<44>(b));
        b = _mm512_and_si512(b, mask_44);
        // Subtract the modulus where the number is not below it: add 5, drop 2^130.
        let a5 = _mm512_add_epi64(a, number(5));
        let b5 = _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a5));
        let c5 = _mm512_add_epi64(c, _mm512_srli_epi64::<44>(b5));
        let c5 = _mm512_sub_epi64(c5, number(MASK_42 + 1));
        let above = _mm512_cmpge_epi64_mask(c5, _mm512_setzero_si512());
        a = _mm512_mask_and_epi64(a, above, a5, mask_44);
        b = _mm512_mask_and_epi64(b, above, b5, mask_44);
        c = _mm512_mask_mov_epi64(c, above, c5);

        let low = _mm512_or_si512(a, _mm512_slli_epi64::<44>(b));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(b), _mm512_slli_epi64::<24>(c));
        let low = _mm512_add_epi64(low, pad[0]);
        let carry = _mm512_cmplt_epu64_mask(low, pad[0]);
        let high = _mm512_add_epi64(high, pad[1]);
        [low, _mm512_mask_add_epi64(high, carry, high, number(1))]
    }
}

/// A number to multiply by: its limbs, and its two upper limbs times 20. (A product of limbs at
/// 2^132 counts 20 times at 1, because 2^130 counts 5.)
#[derive(Clone, Copy)]
pub(super) struct Multiplier {
    limbs: [__m512i; 3],
    twenty: [__m512i; 2],
}

impl Multiplier {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn new(number: Limbs) -> Self {
        let [a, b, c] = number.0;
        Self { limbs: [a, b, c], twenty: [twenty_times(b), twenty_times(c)] }
    }
}

/// A sum of products, not reduced: low and high halves of what falls on each limb.
pub(super) struct Product {
    low: [__m512i; 3],
    high: [__m512i; 3],
}

impl Product {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn zero() -> Self {
        let zeros = [_mm512_setzero_si512(); 3];
        Self { low: zeros, high: zeros }
    }

    /// Adds `number * factor`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn add(&mut self, number: Limbs, factor: &Multiplier) {
        let [a, b, c] = number.0;
        let [r0, r1, r2] = factor.limbs;
        let [s1, s2] = factor.twenty;
        self.add_limb::<0>(c, s1);
        self.add_limb::<1>(c, s2);
        self.add_limb::<2>(c, r0);
        self.add_limb::<0>(b, s2);
        self.add_limb::<1>(b, r0);
        self.add_limb::<2>(b, r1);
        self.add_limb::<0>(a, r0);
        self.add_limb::<1>(a, r1);
        self.add_limb::<2>(a, r2);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    fn add_limb<const LIMB: usize>(&mut self, x: __m512i, y: __m512i) {
        self.low[LIMB] = _mm512_madd52lo_epu64(self.low[LIMB], x, y);
        self.high[LIMB] = _mm512_madd52hi_epu64(self.high[LIMB], x, y);
    }

    /// The sum as limbs. A high half counts 2^52: 2^8 of the next limb of 44 bits, 2^10 of 42.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
    pub(super) fn reduced(self) -> Limbs {
        let [l0, l1, l2] = self.low;
        let [h0, h1, h2] = self.high;
        let l1 = _mm512_add_epi64(l1, _mm512_slli_epi64::<8>(h0));
        let l1 = _mm512_add_epi64(l1, _mm512_srli_epi64::<44>(l0));
        let l2 = _mm512_add_epi64(l2, _mm512_slli_epi64::<8>(h1));
        let l2 = _mm512_add_epi64(l2, _mm512_srli_epi64::<44>(l1));
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(h2), _mm512_srli_epi64::<42>(l2));
        let a = _mm512_add_epi64(_mm512_and_si512(l0, number(MASK_44)), five_times(over));
        let b = _mm512_and_si512(l1, number(MASK_44));
        Limbs([
            _mm512_and_si512(a, number(MASK_44)),
            _mm512_add_epi64(b, _mm512_srli_epi64::<44>(a)),
            _mm512_and_si512(l2, number(MASK_42)),
        ])
    }
}

/// The same number in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
pub(super) fn number(value: u64) -> __m512i {
    _mm512_set1_epi64(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn five_times(x: __m512i) -> __m512i {
    _mm512_add_epi64(x, _mm512_slli_epi64::<2>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn twenty_times(x: __m512i) -> __m512i {
    _mm512_slli_epi64::<2>(five_times(x))
}
