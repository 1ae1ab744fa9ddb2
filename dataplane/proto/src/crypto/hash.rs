//! BLAKE2s in the three ways WireGuard uses it (whitepaper section 5.4): plain, keyed with a
//! 16-byte result, and as HMAC under a key derivation of the HKDF shape.

use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::Zeroizing;

/// Bytes of a BLAKE2s-256 hash.
pub const HASH_BYTES: usize = 32;
/// Bytes of a keyed BLAKE2s MAC as WireGuard uses it.
pub const MAC_BYTES: usize = 16;

/// BLAKE2s-256 over the parts in order.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// BLAKE2s with a key of at most 32 bytes and a 16-byte result, over the parts in order.
///
/// # Panics
/// If `key` is empty or longer than 32 bytes.
#[must_use]
pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("a MAC key has 1 to 32 bytes");
    for part in parts {
        state.update(part);
    }
    state.finalize().into_bytes().into()
}

/// HMAC-BLAKE2s (RFC 2104 with a block of 64 bytes) with a 32-byte key.
#[must_use]
pub fn hmac(key: &[u8; HASH_BYTES], parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    const BLOCK_BYTES: usize = 64;
    let mut inner_pad = Zeroizing::new([0x36; BLOCK_BYTES]);
    let mut outer_pad = Zeroizing::new([0x5c; BLOCK_BYTES]);
    for (position, byte) in key.iter().enumerate() {
        inner_pad[position] ^= byte;
        outer_pad[position] ^= byte;
    }
    let mut state = Blake2s256::new();
    state.update(&inner_pad[..]);
    for part in parts {
        state.update(part);
    }
    let inner: Zeroizing<[u8; HASH_BYTES]> = Zeroizing::new(state.finalize().into());
    hash(&[&outer_pad[..], &inner[..]])
}

/// `N` derived keys, at most 255: `KDF1`, `KDF2` and `KDF3` of the whitepaper, which is HKDF
/// without info (RFC 5869).
#[must_use]
pub fn kdf<const N: usize>(
    key: &[u8; HASH_BYTES],
    input: &[u8],
) -> Zeroizing<[[u8; HASH_BYTES]; N]> {
    let extracted = Zeroizing::new(hmac(key, &[input]));
    let mut keys = Zeroizing::new([[0; HASH_BYTES]; N]);
    for number in 0..N {
        let last: &[u8] = if number == 0 { &[] } else { &keys[number - 1] };
        keys[number] = hmac(&extracted, &[last, &[number as u8 + 1]]);
    }
    keys
}
