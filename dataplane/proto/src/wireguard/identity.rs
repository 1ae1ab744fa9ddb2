//! Who we are: the static key pair, and what is derived from it once.

use crate::crypto::{PrivateKey, PublicKey, hash};

/// Our static key pair. One per interface; immutable, so that cores can share it.
#[derive(Debug)]
pub struct Identity {
    private: PrivateKey,
    public: PublicKey,
}

impl Identity {
    /// Derives the public key once.
    #[must_use]
    pub fn new(private: PrivateKey) -> Self {
        let public = private.public();
        Self { private, public }
    }

    /// Our public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Our private key.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        &self.private
    }
}

/// The key of the first MAC of messages to the owner of `public` (section 5.4.4).
pub(super) fn mac1_key(public: &PublicKey) -> [u8; 32] {
    hash(&[b"mac1----", &public.0])
}

/// The key under which the owner of `public` encrypts cookies (section 5.4.7).
pub(super) fn cookie_key(public: &PublicKey) -> [u8; 32] {
    hash(&[b"cookie--", &public.0])
}
