//! The one door to the cryptographic crates.
//!
//! Keys as types that erase themselves, X25519, the ChaCha20-Poly1305 key of a transport direction,
//! BLAKE2s in the three ways WireGuard uses it, XChaCha20-Poly1305 for cookies. ChaCha20-Poly1305
//! and X25519 have two providers with one shape: `aws_lc` (C and assembly, about three times as
//! fast) and `portable` (pure Rust). The feature `aws-lc` chooses; tests compile both and compare
//! them. Runs of data messages go to `ringway-simd` on machines that can ([`AeadKey::batch`]).
//!
//! This module must not know messages, peers or time, and draws no randomness of its own:
//! [`Random`] is an argument.

mod hash;
mod keys;

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc")))]
mod portable;
#[cfg(test)]
pub(crate) mod tests;

#[cfg(feature = "aws-lc")]
use aws_lc as provider;
#[cfg(not(feature = "aws-lc"))]
use portable as provider;

pub use hash::{HASH_BYTES, MAC_BYTES, hash, hmac, kdf, mac};
pub use keys::{PresharedKey, PrivateKey, PublicKey};

pub use ringway_simd::{Batch, Packet};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a symmetric key, of a private key and of a public key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a Poly1305 tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of an XChaCha20-Poly1305 nonce.
pub const XNONCE_BYTES: usize = 24;

/// What does ChaCha20-Poly1305 and X25519 in this build and on this machine, for the start-up line
/// and `doctor`.
#[must_use]
pub fn provider() -> String {
    let batches = if Batch::detect().is_some() { " + AVX-512 batches" } else { "" };
    format!("{}{batches}", provider::NAME)
}

/// A source of cryptographically secure randomness. The shard passes the operating system's, the
/// simulated world a seeded one.
pub trait Random {
    /// Overwrites all of `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);
}

/// A tag that did not verify. Deliberately without detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Authentication tag does not verify")]
pub struct TagMismatch;

/// True if both are equal, in time that depends on the lengths only.
#[must_use]
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// A ChaCha20-Poly1305 key whose nonce is a 64-bit counter behind 32 zero bits (whitepaper section
/// 5.4.6), for one direction of a keypair or one message of a handshake.
///
/// The 32 bytes are kept beside the provider's prepared context: they are what is exported, and
/// what a batch implementation needs. Sealing and opening allocate nothing.
#[derive(Default)]
pub struct AeadKey {
    bytes: [u8; KEY_BYTES],
    /// The provider's context, about 600 bytes on the heap with `aws-lc`; absent in an erased or a
    /// dormant key.
    ready: Option<provider::Aead>,
    batch: Option<Batch>,
}

impl AeadKey {
    /// Prepares a key.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self { ready: Some(provider::Aead::new(bytes)), ..Self::dormant(bytes) }
    }

    /// Keeps a key that is not used yet: no provider context is made until [`AeadKey::prepare`].
    #[must_use]
    pub fn dormant(bytes: &[u8; KEY_BYTES]) -> Self {
        Self { bytes: *bytes, ready: None, batch: Batch::detect() }
    }

    /// Prepares a key for data messages: see [`AeadKey::prepare_for_data`].
    #[must_use]
    pub fn for_data(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = Self::dormant(bytes);
        key.prepare_for_data();
        key
    }

    /// The same key without [`AeadKey::batch`], as on a machine that has none.
    #[cfg(test)]
    pub(crate) fn without_batch(mut self) -> Self {
        self.batch = None;
        self
    }

    /// Makes the provider context of a dormant key. Allocates.
    pub fn prepare(&mut self) {
        if self.ready.is_none() {
            self.ready = Some(provider::Aead::new(&self.bytes));
        }
    }

    /// Makes the provider context of a dormant key on a machine without batches. With them it is
    /// never wanted for data, and a session is spared its memory.
    pub fn prepare_for_data(&mut self) {
        if self.batch.is_none() {
            self.prepare();
        }
    }

    /// Erases the key. It neither seals nor opens any more, in no way.
    pub fn erase(&mut self) {
        self.bytes.zeroize();
        self.ready = None;
        self.batch = None;
    }

    /// The 32 bytes, for export and for a batch implementation.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// What does several messages of this key per call, with [`AeadKey::bytes`], if the machine has
    /// it. It makes the same bytes as [`AeadKey::seal`] without additional data.
    #[must_use]
    pub fn batch(&self) -> Option<Batch> {
        self.batch
    }

    /// Encrypts `text` in place and returns the tag. `counter` must never repeat under one key.
    ///
    /// # Panics
    /// On a dormant or erased key: our own invariant, never reached by what a peer sends.
    #[must_use]
    pub fn seal(&self, counter: u64, additional: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        self.context().seal(&nonce(counter), additional, text)
    }

    /// Decrypts `text` in place if `tag` verifies; otherwise the contents of `text` are
    /// unspecified.
    ///
    /// # Errors
    /// [`TagMismatch`] if the key, the counter, the additional data, the text or the tag is not the
    /// sender's.
    ///
    /// # Panics
    /// On a dormant or erased key: our own invariant, never reached by what a peer sends.
    pub fn open(
        &self,
        counter: u64,
        additional: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), TagMismatch> {
        self.context().open(&nonce(counter), additional, text, tag)
    }

    fn context(&self) -> &provider::Aead {
        self.ready.as_ref().expect("a transport key is prepared before it is used")
    }
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        self.erase();
    }
}

impl ZeroizeOnDrop for AeadKey {}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// Encrypts `text` in place with XChaCha20-Poly1305 and returns the tag (cookie replies only, so
/// speed is no concern).
#[must_use]
pub fn xseal(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; XNONCE_BYTES],
    additional: &[u8],
    text: &mut [u8],
) -> [u8; TAG_BYTES] {
    XChaCha20Poly1305::new(&(*key).into())
        .encrypt_inout_detached(&(*nonce).into(), additional, text.into())
        .expect("a cookie is far below the length limit of the cipher")
        .into()
}

/// Decrypts `text` in place with XChaCha20-Poly1305.
///
/// # Errors
/// [`TagMismatch`] if the tag does not verify.
pub fn xopen(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; XNONCE_BYTES],
    additional: &[u8],
    text: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), TagMismatch> {
    XChaCha20Poly1305::new(&(*key).into())
        .decrypt_inout_detached(&(*nonce).into(), additional, text.into(), &(*tag).into())
        .map_err(|_| TagMismatch)
}

/// 32 zero bits, then the counter in little-endian order.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
