//! ChaCha20-Poly1305 and X25519 in pure Rust: for builds without C and assembly, and the oracle of
//! the differential tests.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{KEY_BYTES, TAG_BYTES, TagMismatch};

#[cfg_attr(feature = "aws-lc", expect(dead_code, reason = "compiled beside aws-lc for tests"))]
pub(super) const NAME: &str = "portable";

/// A ChaCha20-Poly1305 key.
pub(super) struct Aead(ChaCha20Poly1305);

impl Aead {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(ChaCha20Poly1305::new(&(*key).into()))
    }

    pub(super) fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        self.0
            .encrypt_inout_detached(&(*nonce).into(), additional, text.into())
            .expect("a datagram is far below the length limit of the cipher")
            .into()
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), TagMismatch> {
        self.0
            .decrypt_inout_detached(&(*nonce).into(), additional, text.into(), &(*tag).into())
            .map_err(|_| TagMismatch)
    }
}

/// An X25519 private key and its public half.
pub(super) struct Secret {
    secret: StaticSecret,
    public: [u8; KEY_BYTES],
}

impl Secret {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    pub(super) fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// None if the result does not depend on our key (a point of low order), which is when it is
    /// all zeros.
    pub(super) fn agree(&self, theirs: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        shared.was_contributory().then(|| shared.to_bytes())
    }
}
