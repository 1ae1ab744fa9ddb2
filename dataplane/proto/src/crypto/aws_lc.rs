//! ChaCha20-Poly1305 and X25519 from aws-lc-rs: the fast provider.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};

use super::{KEY_BYTES, TAG_BYTES, TagMismatch};

pub(super) const NAME: &str = "aws-lc";

/// A prepared ChaCha20-Poly1305 key. The context lives on the heap and is zeroised when it is
/// freed.
pub(super) struct Aead(LessSafeKey);

impl Aead {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key);
        Self(LessSafeKey::new(key.expect("the key has the length of the algorithm")))
    }

    #[inline]
    pub(super) fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        text: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_in_place_scatter(nonce, Aad::from(additional), text, &[], &mut tag)
            .expect("a datagram is far below the length limit of the cipher");
        tag
    }

    #[inline]
    pub(super) fn open(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), TagMismatch> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(additional), tag, text)
            .map(|_| ())
            .map_err(|_| TagMismatch)
    }
}

/// A prepared X25519 private key; the library computes the public key once and keeps it.
pub(super) struct Secret(agreement::PrivateKey);

impl Secret {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let key = agreement::PrivateKey::from_private_key(&X25519, bytes);
        Self(key.expect("any 32 bytes are an X25519 private key"))
    }

    pub(super) fn public(&self) -> [u8; KEY_BYTES] {
        let key = self.0.compute_public_key().expect("an X25519 key pair has a public half");
        key.as_ref().try_into().expect("an X25519 public key has 32 bytes")
    }

    /// None if the library refuses, which it does for an all-zero result only.
    pub(super) fn agree(&self, theirs: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        agreement::agree(&self.0, theirs, (), |shared| shared.try_into().map_err(|_| ())).ok()
    }
}
